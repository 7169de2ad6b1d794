//! Bias and GELU(erf) of the feed-forward layer, fused: `gelu(x) = x Φ(x)`, Φ the normal distribution function.

use multiversion::multiversion;
use rayon::prelude::*;

use crate::math::{erf, exp, mul_add};
use crate::parallel::{Partials, rows_per_part};

#[inline(always)]
fn phi(x: f32) -> f32 {
    mul_add(0.5, erf(x * std::f32::consts::FRAC_1_SQRT_2), 0.5)
}

/// `preactivation += bias` in place and `activation = gelu(preactivation)`; both `[rows, bias.len()]`.
pub fn gelu_forward(preactivation: &mut [f32], bias: &[f32], activation: &mut [f32]) {
    let chunk = rows_per_part(preactivation.len() / bias.len()) * bias.len();
    (preactivation.par_chunks_mut(chunk), activation.par_chunks_mut(chunk))
        .into_par_iter()
        .for_each(|(preactivation, activation)| forward_rows(preactivation, bias, activation));
}

#[multiversion(targets = "simd")]
fn forward_rows(preactivation: &mut [f32], bias: &[f32], activation: &mut [f32]) {
    let cols = bias.len();
    for (x, y) in preactivation.chunks_exact_mut(cols).zip(activation.chunks_exact_mut(cols)) {
        for ((x, y), b) in x.iter_mut().zip(y).zip(bias) {
            *x += b;
            *y = *x * phi(*x);
        }
    }
}

/// Backward of [`gelu_forward`]: `gradient` turns in place from that of the activation into that of the
/// preactivation, its column sums are added to `bias_gradient`, and `saved` turns in place from the
/// preactivation into the activation, which the weight gradient of the next layer needs.
pub fn gelu_backward(
    saved: &mut [f32],
    gradient: &mut [f32],
    bias_gradient: &mut [f32],
    partials: &mut Partials,
) {
    let cols = bias_gradient.len();
    let rows = saved.len() / cols;
    let chunk = partials.rows_per_part(rows) * cols;
    (
        partials.zeroed(rows, cols).par_chunks_mut(cols),
        saved.par_chunks_mut(chunk),
        gradient.par_chunks_mut(chunk),
    )
        .into_par_iter()
        .for_each(|(sums, saved, gradient)| backward_rows(sums, saved, gradient));
    partials.add_to(rows, cols, 0, bias_gradient);
}

#[multiversion(targets = "simd")]
fn backward_rows(sums: &mut [f32], saved: &mut [f32], gradient: &mut [f32]) {
    const INV_SQRT_2PI: f32 = 0.398_942_3;
    let cols = sums.len();
    for (x, g) in saved.chunks_exact_mut(cols).zip(gradient.chunks_exact_mut(cols)) {
        for ((x, g), sum) in x.iter_mut().zip(g).zip(sums.iter_mut()) {
            let p = phi(*x);
            let density = INV_SQRT_2PI * exp(-0.5 * *x * *x);
            *g *= mul_add(*x, density, p);
            *sum += *g;
            *x *= p;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, numeric_gradient, values};

    fn gelu64(x: f64) -> f64 {
        0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2))
    }

    #[test]
    fn forward_and_backward_agree_with_float64() {
        for (rows, cols) in [(1usize, 1usize), (1, 7), (5, 33), (70, 48)] {
            let mut x = values(rows * cols, 1, 2.5);
            let bias = values(cols, 2, 1.0);
            let weights = values(rows * cols, 3, 1.0);
            let loss = |x: &[f64], b: &[f64]| -> f64 {
                (0..rows * cols).map(|i| gelu64(x[i] + b[i % cols]) * weights[i] as f64).sum()
            };
            let (x64, b64) = (crate::testing::to64(&x), crate::testing::to64(&bias));
            let dx = numeric_gradient(&x64, |x| loss(x, &b64));
            let db = numeric_gradient(&b64, |b| loss(&x64, b));

            let mut y = vec![f32::NAN; rows * cols];
            gelu_forward(&mut x, &bias, &mut y);
            let expected: Vec<f64> = (0..rows * cols).map(|i| gelu64(x64[i] + b64[i % cols])).collect();
            assert_close(&y, &expected, 2e-6);

            let mut gradient = weights.clone();
            let mut bias_gradient = vec![0.0; cols];
            gelu_backward(&mut x, &mut gradient, &mut bias_gradient, &mut Partials::new(cols));
            assert_close(&gradient, &dx, 3e-6);
            assert_close(&bias_gradient, &db, 3e-6);
            assert_close(&x, &expected, 2e-6);
        }
    }
}
