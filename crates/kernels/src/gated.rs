//! The gated feed-forward layer (GeGLU and its kin; Shazeer, arXiv 2002.05202): bias, activation, gate and dropout, fused.

use multiversion::multiversion;
use rayon::prelude::*;

use crate::activation::{Activation, gelu_tanh_with_slope, gelu_with_slope, relu_with_slope};
use crate::dropout::{TokenDropout, drop_of_token, skip_tokens};
use crate::parallel::{Partials, add, rows_per_part};

/// `preactivation` `[rows, 2 · width]` is a value and its gate side by side; `+= bias` in place, and
/// `output = dropout(activation(value) · gate)`, `[rows, width]`.
pub fn gated_forward(
    activation: Activation,
    preactivation: &mut [f32],
    bias: Option<&[f32]>,
    dropout: TokenDropout,
    width: usize,
    output: &mut [f32],
) {
    let per_part = rows_per_part(output.len() / width);
    (preactivation.par_chunks_mut(per_part * 2 * width), output.par_chunks_mut(per_part * width))
        .into_par_iter()
        .enumerate()
        .for_each(|(part, (preactivation, output))| {
            let dropout = skip_tokens(dropout, part * per_part);
            forward_rows(activation, preactivation, bias, dropout, width, output);
        });
}

#[multiversion(targets = "simd")]
fn forward_rows(
    activation: Activation,
    preactivation: &mut [f32],
    bias: Option<&[f32]>,
    dropout: TokenDropout,
    width: usize,
    output: &mut [f32],
) {
    match activation {
        Activation::Gelu => forward_by(gelu_with_slope, preactivation, bias, dropout, width, output),
        Activation::GeluTanh => forward_by(gelu_tanh_with_slope, preactivation, bias, dropout, width, output),
        Activation::Relu => forward_by(relu_with_slope, preactivation, bias, dropout, width, output),
    }
}

#[inline(always)]
fn forward_by(
    value_and_slope: impl Fn(f32) -> (f32, f32),
    preactivation: &mut [f32],
    bias: Option<&[f32]>,
    dropout: TokenDropout,
    width: usize,
    output: &mut [f32],
) {
    let rows = preactivation.chunks_exact_mut(2 * width).zip(output.chunks_exact_mut(width));
    for (row, (preactivation, output)) in rows.enumerate() {
        if let Some(bias) = bias {
            add(preactivation, bias);
        }
        let (values, gates) = preactivation.split_at(width);
        for ((y, value), gate) in output.iter_mut().zip(values).zip(gates) {
            *y = value_and_slope(*value).0 * gate;
        }
        drop_of_token(&dropout, row, output);
    }
}

/// Backward of [`gated_forward`]: `gradient` `[rows, width]`, that of the output, turns in place into the output, which
/// the weight gradient of the next product needs; `saved` `[rows, 2 · width]` turns in place from the preactivation into
/// its gradient, whose column sums are added to `bias_gradient`.
pub fn gated_backward(
    activation: Activation,
    saved: &mut [f32],
    gradient: &mut [f32],
    dropout: TokenDropout,
    width: usize,
    bias_gradient: Option<&mut [f32]>,
    partials: &mut Partials,
) {
    let rows = gradient.len() / width;
    let per_part = partials.rows_per_part(rows);
    (saved.par_chunks_mut(per_part * 2 * width), gradient.par_chunks_mut(per_part * width))
        .into_par_iter()
        .enumerate()
        .for_each(|(part, (saved, gradient))| {
            let dropout = skip_tokens(dropout, part * per_part);
            backward_rows(activation, saved, gradient, dropout, width);
        });
    if let Some(bias_gradient) = bias_gradient {
        crate::add_column_sums(saved, bias_gradient, partials);
    }
}

#[multiversion(targets = "simd")]
fn backward_rows(
    activation: Activation,
    saved: &mut [f32],
    gradient: &mut [f32],
    dropout: TokenDropout,
    width: usize,
) {
    match activation {
        Activation::Gelu => backward_by(gelu_with_slope, saved, gradient, dropout, width),
        Activation::GeluTanh => backward_by(gelu_tanh_with_slope, saved, gradient, dropout, width),
        Activation::Relu => backward_by(relu_with_slope, saved, gradient, dropout, width),
    }
}

#[inline(always)]
fn backward_by(
    value_and_slope: impl Fn(f32) -> (f32, f32),
    saved: &mut [f32],
    gradient: &mut [f32],
    dropout: TokenDropout,
    width: usize,
) {
    let rows = saved.chunks_exact_mut(2 * width).zip(gradient.chunks_exact_mut(width));
    for (row, (saved, gradient)) in rows.enumerate() {
        let mask = |values: &mut [f32]| {
            drop_of_token(&dropout, row, values);
        };
        mask(gradient);
        let (values, gates) = saved.split_at_mut(width);
        for ((g, value), gate) in gradient.iter_mut().zip(values).zip(gates) {
            let (activated, slope) = value_and_slope(*value);
            let output = activated * *gate;
            (*value, *gate) = (*g * *gate * slope, *g * activated);
            *g = output;
        }
        mask(gradient);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dropout::{Dropout, Site, TokenRows};
    use crate::testing::{assert_close, numeric_gradient, to64, values};

    fn gelu64(x: f64) -> f64 {
        0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2))
    }

    fn gelu_tanh64(x: f64) -> f64 {
        0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
    }

    fn check(activation: Activation, exact: fn(f64) -> f64, with_bias: bool, rate: f64) {
        let (rows, width) = (13usize, 35usize);
        let keys: Vec<u32> = (0..rows as u32).map(|r| r / 4).collect();
        let positions: Vec<u32> = (0..rows as u32).map(|r| r % 4).collect();
        let token_rows = TokenRows { keys: &keys, positions: &positions };
        let (site, dropout) = (Site::feed_forward_inner(2), Dropout::new(rate, 3, 9));
        let mask = |r: usize, c: usize| {
            dropout.map_or(1.0, |d| f64::from(d.multiplier(site, keys[r], positions[r], c)))
        };
        let (x, bias) = (values(rows * 2 * width, 1, 2.0), values(2 * width, 2, 1.0));
        let weights = values(rows * width, 3, 1.0);
        let plain = |x: &[f64], b: &[f64]| -> Vec<f64> {
            let at = |r: usize, c: usize| x[r * 2 * width + c] + if with_bias { b[c] } else { 0.0 };
            let one = |i: usize| {
                let (r, c) = (i / width, i % width);
                exact(at(r, c)) * at(r, width + c) * mask(r, c)
            };
            (0..rows * width).map(one).collect()
        };
        let loss = |x: &[f64], b: &[f64]| plain(x, b).iter().zip(&weights).map(|(y, w)| y * *w as f64).sum();
        let (x64, b64) = (to64(&x), to64(&bias));

        let dropped = dropout.as_ref().map(|d| (d, site, token_rows));
        let (mut saved, mut output) = (x.clone(), vec![f32::NAN; rows * width]);
        gated_forward(activation, &mut saved, with_bias.then_some(&bias), dropped, width, &mut output);
        assert_close(&output, &plain(&x64, &b64), 3e-6);
        let (mut gradient, mut bias_gradient) = (weights.clone(), vec![0.0; 2 * width]);
        let mut partials = Partials::new(2 * width);
        let db = with_bias.then_some(bias_gradient.as_mut_slice());
        gated_backward(activation, &mut saved, &mut gradient, dropped, width, db, &mut partials);
        assert_close(&gradient, &plain(&x64, &b64), 3e-6);
        assert_close(&saved, &numeric_gradient(&x64, |x| loss(x, &b64)), 5e-6);
        if with_bias {
            assert_close(&bias_gradient, &numeric_gradient(&b64, |b| loss(&x64, b)), 5e-6);
        }
    }

    #[test]
    fn forward_and_backward_agree_with_float64_with_and_without_bias_and_dropout() {
        for (activation, exact) in [
            (Activation::Gelu, gelu64 as fn(f64) -> f64),
            (Activation::GeluTanh, gelu_tanh64),
            (Activation::Relu, |x| x.max(0.0)),
        ] {
            check(activation, exact, false, 0.0);
            check(activation, exact, true, 0.2);
        }
    }
}
