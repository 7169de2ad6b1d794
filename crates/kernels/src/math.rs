//! Elementary functions for loops that vectorise.
//!
//! A row loop is a function of its own under `#[multiversion(targets = "simd")]`: compiled for the baseline, for
//! AVX2 with FMA and for AVX-512 (NEON on Arm), and chosen at run time. Everything it calls is `#[inline(always)]`,
//! so that it is compiled for the same instructions.

/// `a * b + c`: one rounding where the target has the instruction, two elsewhere.
#[inline(always)]
pub(crate) fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    // Every x86-64 target `vectorized` picks above the baseline has FMA; the baseline is correct, only slower.
    a.mul_add(b, c)
}

/// `e^x` with a relative error below 2e-7 for `-87 < x < 88`; 0 below, saturating above.
///
/// Range reduction `x = n ln 2 + r`, `|r| ≤ ln 2 / 2`, and a degree-6 polynomial for `e^r`
/// (coefficients of the Cephes library's `expf`).
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23: adding it rounds to an integer held in the low mantissa bits
    let x = x.clamp(-87.3, 88.0);
    let shifted = mul_add(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = mul_add(n, -0.693_359_4, x);
    let r = mul_add(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4;
    p = mul_add(p, r, 1.398_199_9e-3);
    p = mul_add(p, r, 8.333_452e-3);
    p = mul_add(p, r, 4.166_579_6e-2);
    p = mul_add(p, r, 1.666_666_5e-1);
    p = mul_add(p, r, 0.5);
    let e = mul_add(p, r * r, r + 1.0);
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    e * scale
}

/// `erf(x)` with an absolute error below 4e-7: a rational function of `x²`, odd in `x`
/// (coefficients of Eigen's `generic_fast_erf_float`).
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let z = x * x;
    let mut p = -2.726_142_3e-10;
    p = mul_add(p, z, 2.770_681_4e-8);
    p = mul_add(p, z, -2.101_024e-6);
    p = mul_add(p, z, -5.692_506_5e-5);
    p = mul_add(p, z, -7.349_906_5e-4);
    p = mul_add(p, z, -2.954_6e-3);
    p = mul_add(p, z, -1.609_603_3e-2);
    let mut q = -1.456_607_2e-5;
    q = mul_add(q, z, -2.133_740_5e-4);
    q = mul_add(q, z, -1.682_827e-3);
    q = mul_add(q, z, -7.373_329e-3);
    q = mul_add(q, z, -1.426_473_9e-2);
    x * p / q
}

const LANES: usize = 16;

/// `Σ f(i)` over `0..n`, accumulated in lanes so that it vectorises; a fixed order for a given `n`.
#[inline(always)]
pub(crate) fn sum(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let whole = n / LANES * LANES;
    let mut i = 0;
    while i < whole {
        for (l, lane) in lanes.iter_mut().enumerate() {
            *lane += f(i + l);
        }
        i += LANES;
    }
    let mut total = 0.0;
    for i in whole..n {
        total += f(i);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for l in 0..width {
            lanes[l] += lanes[l + width];
        }
        width /= 2;
    }
    total + lanes[0]
}

/// The largest element; negative infinity for none.
#[inline(always)]
pub(crate) fn max(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane = if *v > *lane { *v } else { *lane };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
mod tests {
    use multiversion::multiversion;

    use super::*;

    #[multiversion(targets = "simd")]
    fn map(x: &mut [f32], use_exp: bool) {
        for x in x {
            *x = if use_exp { exp(*x) } else { erf(*x) };
        }
    }

    fn one(x: f32, use_exp: bool) -> f32 {
        let mut values = [x];
        map(&mut values, use_exp);
        values[0]
    }

    #[test]
    fn exp_is_within_its_stated_relative_error() {
        for i in 0..200_000 {
            let x = -87.0 + i as f32 * 175.0 / 200_000.0;
            let exact = (x as f64).exp();
            let got = one(x, true) as f64;
            assert!(((got - exact) / exact).abs() < 2e-7, "exp({x}) = {got}, not {exact}");
        }
        assert!(one(f32::NEG_INFINITY, true) < 2e-38);
    }

    #[test]
    fn erf_is_within_its_stated_absolute_error() {
        for i in 0..200_000 {
            let x = -6.0 + i as f32 * 12.0 / 200_000.0;
            let exact = libm::erf(x as f64);
            let got = one(x, false) as f64;
            assert!((got - exact).abs() < 4e-7, "erf({x}) = {got}, not {exact}");
        }
    }

    #[test]
    fn sums_and_maxima_cover_every_element_at_odd_lengths() {
        for n in [0usize, 1, 15, 16, 17, 33, 100] {
            let v: Vec<f32> = (0..n).map(|i| i as f32 + 1.0).collect();
            assert_eq!(sum(n, |i| v[i]), (n * (n + 1) / 2) as f32);
            assert_eq!(max(&v), if n == 0 { f32::NEG_INFINITY } else { n as f32 });
        }
    }
}
