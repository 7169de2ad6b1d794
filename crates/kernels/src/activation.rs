//! Bias and activation of the feed-forward layer, fused.

use multiversion::multiversion;
use rayon::prelude::*;

use crate::math::{erf, exp, mul_add};
use crate::parallel::{Partials, rows_per_part};

/// An elementwise function of the feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x Φ(x)`, Φ the normal distribution function.
    Gelu,
    /// `x σ(2u)` with `u = √(2/π) (x + 0.044715 x³)`: GELU by way of `tanh`.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
}

#[inline(always)]
fn phi(x: f32) -> f32 {
    mul_add(0.5, erf(x * std::f32::consts::FRAC_1_SQRT_2), 0.5)
}

#[inline(always)]
fn gelu(x: f32) -> f32 {
    x * phi(x)
}

/// Value and derivative.
#[inline(always)]
pub(crate) fn gelu_with_slope(x: f32) -> (f32, f32) {
    const INV_SQRT_2PI: f32 = 0.398_942_3;
    let p = phi(x);
    let density = INV_SQRT_2PI * exp(-0.5 * x * x);
    (x * p, mul_add(x, density, p))
}

const SQRT_8_OVER_PI: f32 = 1.595_769;
const CUBIC: f32 = 0.044_715;

/// `σ(2u)` of [`Activation::GeluTanh`].
#[inline(always)]
fn gate(x: f32) -> f32 {
    let twice_u = SQRT_8_OVER_PI * x * mul_add(CUBIC * x, x, 1.0);
    1.0 / (1.0 + exp(-twice_u))
}

#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    x * gate(x)
}

#[inline(always)]
pub(crate) fn gelu_tanh_with_slope(x: f32) -> (f32, f32) {
    let g = gate(x);
    let slope_of_twice_u = SQRT_8_OVER_PI * mul_add(3.0 * CUBIC * x, x, 1.0);
    (x * g, mul_add(x * g * (1.0 - g), slope_of_twice_u, g))
}

#[inline(always)]
fn relu(x: f32) -> f32 {
    x.max(0.0)
}

#[inline(always)]
pub(crate) fn relu_with_slope(x: f32) -> (f32, f32) {
    (x.max(0.0), if x > 0.0 { 1.0 } else { 0.0 })
}

/// `preactivation += bias` in place and `output = activation(preactivation)`; both `[rows, bias.len()]`.
pub fn activation_forward(
    activation: Activation,
    preactivation: &mut [f32],
    bias: &[f32],
    output: &mut [f32],
) {
    let chunk = rows_per_part(preactivation.len() / bias.len()) * bias.len();
    (preactivation.par_chunks_mut(chunk), output.par_chunks_mut(chunk))
        .into_par_iter()
        .for_each(|(preactivation, output)| forward_rows(activation, preactivation, bias, output));
}

#[multiversion(targets = "simd")]
fn forward_rows(activation: Activation, preactivation: &mut [f32], bias: &[f32], output: &mut [f32]) {
    match activation {
        Activation::Gelu => forward_by(gelu, preactivation, bias, output),
        Activation::GeluTanh => forward_by(gelu_tanh, preactivation, bias, output),
        Activation::Relu => forward_by(relu, preactivation, bias, output),
    }
}

#[inline(always)]
fn forward_by(value: impl Fn(f32) -> f32, preactivation: &mut [f32], bias: &[f32], output: &mut [f32]) {
    let cols = bias.len();
    for (x, y) in preactivation.chunks_exact_mut(cols).zip(output.chunks_exact_mut(cols)) {
        for ((x, y), b) in x.iter_mut().zip(y).zip(bias) {
            *x += b;
            *y = value(*x);
        }
    }
}

/// Backward of [`activation_forward`]: `gradient` turns in place from that of the output into that of the
/// preactivation, its column sums are added to `bias_gradient`, and `saved` turns in place from the
/// preactivation into the output, which the weight gradient of the next layer needs.
pub fn activation_backward(
    activation: Activation,
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
        .for_each(|(sums, saved, gradient)| backward_rows(activation, sums, saved, gradient));
    partials.add_to(rows, cols, 0, bias_gradient);
}

#[multiversion(targets = "simd")]
fn backward_rows(activation: Activation, sums: &mut [f32], saved: &mut [f32], gradient: &mut [f32]) {
    match activation {
        Activation::Gelu => backward_by(gelu_with_slope, sums, saved, gradient),
        Activation::GeluTanh => backward_by(gelu_tanh_with_slope, sums, saved, gradient),
        Activation::Relu => backward_by(relu_with_slope, sums, saved, gradient),
    }
}

#[inline(always)]
fn backward_by(
    value_and_slope: impl Fn(f32) -> (f32, f32),
    sums: &mut [f32],
    saved: &mut [f32],
    gradient: &mut [f32],
) {
    let cols = sums.len();
    for (x, g) in saved.chunks_exact_mut(cols).zip(gradient.chunks_exact_mut(cols)) {
        for ((x, g), sum) in x.iter_mut().zip(g).zip(sums.iter_mut()) {
            let (value, slope) = value_and_slope(*x);
            *g *= slope;
            *sum += *g;
            *x = value;
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

    fn gelu_tanh64(x: f64) -> f64 {
        let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
        0.5 * x * (1.0 + u.tanh())
    }

    fn relu64(x: f64) -> f64 {
        x.max(0.0)
    }

    type Exact = fn(f64) -> f64;

    const ALL: [(Activation, Exact); 3] =
        [(Activation::Gelu, gelu64), (Activation::GeluTanh, gelu_tanh64), (Activation::Relu, relu64)];

    #[test]
    fn forward_and_backward_agree_with_float64() {
        for (activation, exact) in ALL {
            for (rows, cols) in [(1usize, 1usize), (1, 7), (5, 33), (70, 48)] {
                let mut x = values(rows * cols, 1, 2.5);
                let bias = values(cols, 2, 1.0);
                let weights = values(rows * cols, 3, 1.0);
                let loss = |x: &[f64], b: &[f64]| -> f64 {
                    (0..rows * cols).map(|i| exact(x[i] + b[i % cols]) * weights[i] as f64).sum()
                };
                let (x64, b64) = (crate::testing::to64(&x), crate::testing::to64(&bias));
                let dx = numeric_gradient(&x64, |x| loss(x, &b64));
                let db = numeric_gradient(&b64, |b| loss(&x64, b));

                let mut y = vec![f32::NAN; rows * cols];
                activation_forward(activation, &mut x, &bias, &mut y);
                let expected: Vec<f64> = (0..rows * cols).map(|i| exact(x64[i] + b64[i % cols])).collect();
                assert_close(&y, &expected, 2e-6);

                let mut gradient = weights.clone();
                let mut bias_gradient = vec![0.0; cols];
                let mut partials = Partials::new(cols);
                activation_backward(activation, &mut x, &mut gradient, &mut bias_gradient, &mut partials);
                assert_close(&gradient, &dx, 3e-6);
                assert_close(&bias_gradient, &db, 3e-6);
                assert_close(&x, &expected, 2e-6);
            }
        }
    }

    #[test]
    fn far_from_zero_an_activation_is_the_identity_or_nothing() {
        for (activation, _) in ALL {
            for (x, value, slope) in
                [(30.0f32, 30.0, 1.0), (-30.0, 0.0, 0.0), (1e6, 1e6, 1.0), (-1e6, 0.0, 0.0)]
            {
                let (mut saved, mut gradient, mut y, mut sum) = ([x], [1.0], [f32::NAN], [0.0]);
                activation_forward(activation, &mut saved, &[0.0], &mut y);
                assert!((y[0] - value).abs() <= 1e-6 * x.abs(), "{activation:?}({x}) = {}", y[0]);
                activation_backward(activation, &mut saved, &mut gradient, &mut sum, &mut Partials::new(1));
                assert!((gradient[0] - slope).abs() < 1e-6, "{activation:?}'({x}) = {}", gradient[0]);
            }
        }
    }
}
