//! Bias, dropout, residual and LayerNorm after a block's last product, fused into one pass over the rows:
//! `x̂ = (s − mean s) / sqrt(var s + ε)` with `s = dropout(branch + bias) + residual`, output `weight · x̂ + bias`.
//!
//! `x̂` and the reciprocal standard deviation are what a pass keeps; the output is made again from them
//! ([`layer_norm_output`]) where a weight gradient needs it.

use multiversion::multiversion;
use rayon::prelude::*;

use crate::dropout::{TokenDropout, drop_of_token, skip_tokens};
use crate::math::{mul_add, sum};
use crate::parallel::{Partials, add, rows_per_part};

/// Parameters of a LayerNorm.
#[derive(Clone, Copy)]
pub struct LayerNorm<'a> {
    /// Scale of each column.
    pub weight: &'a [f32],
    /// Shift of each column, where there is one.
    pub bias: Option<&'a [f32]>,
    /// Added to the variance.
    pub epsilon: f32,
}

/// Normalises `row` in place to mean 0 and variance 1 and returns the reciprocal standard deviation.
#[inline(always)]
pub(crate) fn normalize_row(row: &mut [f32], epsilon: f32) -> f32 {
    let n = row.len() as f32;
    let mean = sum(row.len(), |i| row[i]) / n;
    let variance = sum(row.len(), |i| (row[i] - mean) * (row[i] - mean)) / n;
    let rstd = 1.0 / (variance + epsilon).sqrt();
    for x in row.iter_mut() {
        *x = (*x - mean) * rstd;
    }
    rstd
}

/// The gradient of `normalize_row`'s input in place of its output's, for `xhat` and `rstd` of that row.
#[inline(always)]
pub(crate) fn normalize_row_backward(gradient: &mut [f32], xhat: &[f32], rstd: f32) {
    let n = gradient.len();
    let mean = sum(n, |i| gradient[i]) / n as f32;
    let projection = sum(n, |i| gradient[i] * xhat[i]) / n as f32;
    for (g, x) in gradient.iter_mut().zip(xhat) {
        *g = rstd * (*g - mul_add(*x, projection, mean));
    }
}

#[inline(always)]
pub(crate) fn scale_and_shift(norm: &LayerNorm, xhat: &[f32], out: &mut [f32]) {
    match norm.bias {
        Some(bias) => {
            for (((o, x), w), b) in out.iter_mut().zip(xhat).zip(norm.weight).zip(bias) {
                *o = mul_add(*w, *x, *b);
            }
        }
        None => {
            for ((o, x), w) in out.iter_mut().zip(xhat).zip(norm.weight) {
                *o = w * x;
            }
        }
    }
}

/// [`scale_and_shift`] of a row in place.
#[inline(always)]
pub(crate) fn scale_in_place(norm: &LayerNorm, row: &mut [f32]) {
    match norm.bias {
        Some(bias) => {
            for ((x, w), b) in row.iter_mut().zip(norm.weight).zip(bias) {
                *x = mul_add(*w, *x, *b);
            }
        }
        None => {
            for (x, w) in row.iter_mut().zip(norm.weight) {
                *x *= w;
            }
        }
    }
}

/// `out = weight · xhat (+ bias)`, all `[rows, norm.weight.len()]`.
pub fn layer_norm_output(norm: LayerNorm, xhat: &[f32], out: &mut [f32]) {
    let cols = norm.weight.len();
    let chunk = rows_per_part(xhat.len() / cols) * cols;
    (xhat.par_chunks(chunk), out.par_chunks_mut(chunk))
        .into_par_iter()
        .for_each(|(xhat, out)| output_rows(norm, xhat, out));
}

#[multiversion(targets = "simd")]
fn output_rows(norm: LayerNorm, xhat: &[f32], out: &mut [f32]) {
    let cols = norm.weight.len();
    for (xhat, out) in xhat.chunks_exact(cols).zip(out.chunks_exact_mut(cols)) {
        scale_and_shift(&norm, xhat, out);
    }
}

/// `branch` (a product without its bias) becomes `x̂` in place, `hidden` turns from the residual into the output,
/// `rstd` gets one reciprocal standard deviation per row.
pub fn residual_layer_norm_forward(
    norm: LayerNorm,
    branch: &mut [f32],
    branch_bias: &[f32],
    dropout: TokenDropout,
    hidden: &mut [f32],
    rstd: &mut [f32],
) {
    let cols = norm.weight.len();
    let per_part = rows_per_part(rstd.len());
    (
        branch.par_chunks_mut(per_part * cols),
        hidden.par_chunks_mut(per_part * cols),
        rstd.par_chunks_mut(per_part),
    )
        .into_par_iter()
        .enumerate()
        .for_each(|(part, (branch, hidden, rstd))| {
            let dropout = skip_tokens(dropout, part * per_part);
            forward_rows(norm, branch, branch_bias, dropout, hidden, rstd);
        });
}

#[multiversion(targets = "simd")]
fn forward_rows(
    norm: LayerNorm,
    branch: &mut [f32],
    branch_bias: &[f32],
    dropout: TokenDropout,
    hidden: &mut [f32],
    rstd: &mut [f32],
) {
    let cols = norm.weight.len();
    let rows = branch.chunks_exact_mut(cols).zip(hidden.chunks_exact_mut(cols)).zip(rstd);
    for (row, ((branch, hidden), rstd)) in rows.enumerate() {
        for (x, b) in branch.iter_mut().zip(branch_bias) {
            *x += b;
        }
        drop_of_token(&dropout, row, branch);
        for (x, r) in branch.iter_mut().zip(hidden.iter()) {
            *x += r;
        }
        *rstd = normalize_row(branch, norm.epsilon);
        scale_and_shift(&norm, branch, hidden);
    }
}

/// Backward of [`residual_layer_norm_forward`].
///
/// `gradient` turns in place from that of the output into that of the residual, `branch_gradient` is overwritten
/// with that of the product; `gradients` are `(LayerNorm weight, LayerNorm bias, branch bias)`, added to.
#[expect(clippy::too_many_arguments, reason = "one fused pass has these operands")]
pub fn residual_layer_norm_backward(
    norm_weight: &[f32],
    xhat: &[f32],
    rstd: &[f32],
    dropout: TokenDropout,
    gradient: &mut [f32],
    branch_gradient: &mut [f32],
    gradients: (&mut [f32], &mut [f32], &mut [f32]),
    partials: &mut Partials,
) {
    let cols = norm_weight.len();
    let rows = rstd.len();
    let per_part = partials.rows_per_part(rows);
    (
        partials.zeroed(rows, 3 * cols).par_chunks_mut(3 * cols),
        xhat.par_chunks(per_part * cols),
        rstd.par_chunks(per_part),
        gradient.par_chunks_mut(per_part * cols),
        branch_gradient.par_chunks_mut(per_part * cols),
    )
        .into_par_iter()
        .enumerate()
        .for_each(|(part, (sums, xhat, rstd, gradient, branch_gradient))| {
            let dropout = skip_tokens(dropout, part * per_part);
            backward_rows(norm_weight, xhat, rstd, dropout, gradient, branch_gradient, sums);
        });
    partials.add_to(rows, 3 * cols, 0, gradients.0);
    partials.add_to(rows, 3 * cols, cols, gradients.1);
    partials.add_to(rows, 3 * cols, 2 * cols, gradients.2);
}

/// `sums` holds those of LayerNorm weight, LayerNorm bias and branch bias side by side.
#[multiversion(targets = "simd")]
fn backward_rows(
    norm_weight: &[f32],
    xhat: &[f32],
    rstd: &[f32],
    dropout: TokenDropout,
    gradient: &mut [f32],
    branch_gradient: &mut [f32],
    sums: &mut [f32],
) {
    let cols = norm_weight.len();
    let (weight_sums, sums) = sums.split_at_mut(cols);
    let (bias_sums, branch_sums) = sums.split_at_mut(cols);
    for (row, rstd) in rstd.iter().enumerate() {
        let at = row * cols..(row + 1) * cols;
        let (xhat, g) = (&xhat[at.clone()], &mut gradient[at.clone()]);
        let branch = &mut branch_gradient[at];
        norm_parameter_sums(norm_weight, xhat, g, weight_sums, bias_sums);
        normalize_row_backward(g, xhat, *rstd);
        branch.copy_from_slice(g);
        drop_of_token(&dropout, row, branch);
        add(branch_sums, branch);
    }
}

/// Adds one row's gradients of LayerNorm weight and bias, and turns the gradient of the output into that of `x̂`.
#[inline(always)]
pub(crate) fn norm_parameter_sums(
    weight: &[f32],
    xhat: &[f32],
    gradient: &mut [f32],
    weight_sums: &mut [f32],
    bias_sums: &mut [f32],
) {
    for i in 0..weight.len() {
        weight_sums[i] = mul_add(gradient[i], xhat[i], weight_sums[i]);
        bias_sums[i] += gradient[i];
        gradient[i] *= weight[i];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dropout::{Dropout, Site, TokenRows};
    use crate::testing::{assert_close, numeric_gradient, to64, values};

    const EPSILON: f64 = 1e-12;

    /// Plain float64 forward of the fused operation.
    fn plain(x: [&[f64]; 5], cols: usize, mask: &dyn Fn(usize, usize) -> f64) -> Vec<f64> {
        let [branch, branch_bias, residual, weight, bias] = x;
        let mut out = Vec::new();
        for r in 0..branch.len() / cols {
            let s: Vec<f64> = (0..cols)
                .map(|c| (branch[r * cols + c] + branch_bias[c]) * mask(r, c) + residual[r * cols + c])
                .collect();
            let mean = s.iter().sum::<f64>() / cols as f64;
            let variance = s.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / cols as f64;
            out.extend((0..cols).map(|c| (s[c] - mean) / (variance + EPSILON).sqrt() * weight[c] + bias[c]));
        }
        out
    }

    #[test]
    fn forward_and_backward_agree_with_float64_with_and_without_dropout() {
        let dropout = Dropout::new(0.3, 11, 4).unwrap();
        for (rows, cols) in [(1usize, 3usize), (3, 17), (40, 32), (2, 130)] {
            let keys: Vec<u32> = (0..rows as u32).map(|r| r / 3).collect();
            let positions: Vec<u32> = (0..rows as u32).map(|r| r % 3).collect();
            let token_rows = TokenRows { keys: &keys, positions: &positions };
            let site = Site::attention_output(1);
            for with_dropout in [false, true] {
                let mask = |r: usize, c: usize| match with_dropout {
                    true => dropout.multiplier(site, keys[r], positions[r], c) as f64,
                    false => 1.0,
                };
                let dropout = with_dropout.then_some((&dropout, site, token_rows));
                let inputs = [rows * cols, cols, rows * cols, cols, cols];
                let inputs: Vec<Vec<f32>> =
                    inputs.iter().enumerate().map(|(i, n)| values(*n, i as u32 + 1, 1.0)).collect();
                let inputs64: Vec<Vec<f64>> = inputs.iter().map(|v| to64(v)).collect();
                let weights = values(rows * cols, 9, 1.0);
                let arguments = |i: usize, x: &[f64]| -> f64 {
                    let mut all: [&[f64]; 5] = std::array::from_fn(|k| inputs64[k].as_slice());
                    all[i] = x;
                    plain(all, cols, &mask).iter().zip(&weights).map(|(y, w)| y * *w as f64).sum()
                };
                let expected: Vec<Vec<f64>> =
                    (0..5).map(|i| numeric_gradient(&inputs64[i], |x| arguments(i, x))).collect();

                let norm = LayerNorm { weight: &inputs[3], bias: Some(&inputs[4]), epsilon: EPSILON as f32 };
                let (mut branch, mut hidden) = (inputs[0].clone(), inputs[2].clone());
                let mut rstd = vec![0.0; rows];
                residual_layer_norm_forward(norm, &mut branch, &inputs[1], dropout, &mut hidden, &mut rstd);
                let all: [&[f64]; 5] = std::array::from_fn(|k| inputs64[k].as_slice());
                let output = plain(all, cols, &mask);
                assert_close(&hidden, &output, 2e-5);
                layer_norm_output(norm, &branch, &mut hidden);
                assert_close(&hidden, &output, 2e-5);

                let mut gradient = weights.clone();
                let mut branch_gradient = vec![f32::NAN; rows * cols];
                let (mut dw, mut db, mut dbranch) = (vec![0.0; cols], vec![0.0; cols], vec![0.0; cols]);
                residual_layer_norm_backward(
                    norm.weight,
                    &branch,
                    &rstd,
                    dropout,
                    &mut gradient,
                    &mut branch_gradient,
                    (&mut dw, &mut db, &mut dbranch),
                    &mut Partials::new(3 * cols),
                );
                assert_close(&branch_gradient, &expected[0], 1e-4);
                assert_close(&dbranch, &expected[1], 1e-4);
                assert_close(&gradient, &expected[2], 1e-4);
                assert_close(&dw, &expected[3], 1e-4);
                assert_close(&db, &expected[4], 1e-4);
            }
        }
    }
}
