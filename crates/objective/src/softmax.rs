//! Exponentials and their sums over rows of logits.

use multiversion::multiversion;

/// The maximum of no column. Finite, so that differences from it are never NaN.
pub(crate) const NO_COLUMN: f32 = f32::MIN;

const LANES: usize = 16;

/// `e^x` for `x ≤ 1`, within 2 units in the last place; exactly 0 below −87.
///
/// Range reduction and coefficients of `expf` in the Cephes library (S. Moshier), without branches.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const LOWEST: f32 = -87.0;
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding it rounds to an integer kept in the low bits
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x < LOWEST { LOWEST } else { x };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let power = shifted - ROUND;
    let r = clamped - power * LN2_HIGH - power * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + coefficient;
    }
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    let value = (p * r * r + r + 1.0) * scale;
    if x < LOWEST { 0.0 } else { value }
}

/// The largest logit, or [`NO_COLUMN`].
#[multiversion(targets = "simd")]
pub(crate) fn max(row: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [NO_COLUMN; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, x);
        }
    }
    lanes.iter().chain(rest).copied().fold(NO_COLUMN, larger)
}

/// `Σ e^(x − shift)`.
#[multiversion(targets = "simd")]
fn sum_exp(row: &[f32], shift: f32) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(exp(x - shift));
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|&x| f64::from(exp(x - shift))).sum::<f64>()
}

/// Replaces every `x` by `e^(x − shift)` and returns their sum.
#[multiversion(targets = "simd")]
pub(crate) fn exp_in_place(row: &mut [f32], shift: f32) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let (chunks, rest) = row.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *x = exp(*x - shift);
            *lane += f64::from(*x);
        }
    }
    let mut sum = lanes.iter().sum::<f64>();
    for x in rest {
        *x = exp(*x - shift);
        sum += f64::from(*x);
    }
    sum
}

/// Replaces every logit by its probability `e^(x − lse)`; the shift is split so that `lse` keeps its `f64` digits.
#[multiversion(targets = "simd")]
pub(crate) fn probabilities_in_place(row: &mut [f32], lse: f64) {
    let shift = lse as f32;
    let correction = (f64::from(shift) - lse).exp() as f32;
    for x in row {
        *x = exp(*x - shift) * correction;
    }
}

/// `ln Σ e^x`; −∞ when every column is left out.
pub(crate) fn log_sum_exp(row: &[f32]) -> f64 {
    let top = max(row);
    f64::from(top) + sum_exp(row, top).ln()
}

/// `ln(e^a + e^b)`.
pub(crate) fn log_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a < b { (b, a) } else { (a, b) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// `ln(1 + e^x)`: the loss of a row whose other columns lie `x` above its own.
pub(crate) fn softplus(x: f64) -> f64 {
    if x > 0.0 { x + (-x).exp().ln_1p() } else { x.exp().ln_1p() }
}

/// Sets the logits of columns with passage `id` to −∞ and returns how many.
#[multiversion(targets = "simd")]
pub(crate) fn exclude(row: &mut [f32], ids: &[u32], id: u32) -> u32 {
    let mut excluded = 0;
    for (x, &column) in row.iter_mut().zip(ids) {
        let hit = column == id;
        *x = if hit { f32::NEG_INFINITY } else { *x };
        excluded += u32::from(hit);
    }
    excluded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut worst = 0.0f64;
        for step in 0..200_000 {
            let x = -86.9 + step as f32 * (87.9 / 200_000.0);
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 2.0 * f64::from(f32::EPSILON), "relative error {worst:e}");
    }

    #[test]
    fn exp_of_zero_is_one_of_minus_infinity_zero_and_of_nan_nan() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn a_row_without_columns_sums_to_minus_infinity() {
        assert_eq!(log_sum_exp(&[]), f64::NEG_INFINITY);
        assert_eq!(log_sum_exp(&[f32::NEG_INFINITY; 19]), f64::NEG_INFINITY);
        assert_eq!(log_add(f64::NEG_INFINITY, f64::NEG_INFINITY), f64::NEG_INFINITY);
        assert_eq!(softplus(f64::NEG_INFINITY), 0.0);
    }

    #[test]
    fn nan_is_never_hidden() {
        assert!(log_sum_exp(&[1.0, f32::NAN]).is_nan());
        assert!(log_add(f64::NEG_INFINITY, f64::NAN).is_nan());
        assert!(log_add(f64::NAN, f64::NEG_INFINITY).is_nan());
        assert!(softplus(f64::NAN).is_nan());
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let row: Vec<f32> = (0..100).map(|i| 3000.0 - i as f32 * 0.5).collect();
        let exact = 3000.0 + (0..100).map(|i| (-0.5 * f64::from(i)).exp()).sum::<f64>().ln();
        assert!((log_sum_exp(&row) - exact).abs() < 1e-6);
        let mut probabilities = row.clone();
        probabilities_in_place(&mut probabilities, exact);
        assert!((probabilities.iter().map(|&p| f64::from(p)).sum::<f64>() - 1.0).abs() < 1e-6);
    }
}
