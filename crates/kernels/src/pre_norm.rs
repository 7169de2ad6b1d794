//! LayerNorm before a block, and the residual behind it, on a stream that no norm replaces: `stream += dropout(branch +
//! bias)`, and `out = weight · x̂ (+ bias)` with `x̂ = (stream − mean) / sqrt(var + ε)`.

use multiversion::multiversion;
use rayon::prelude::*;

use crate::dropout::{TokenDropout, drop_of_token, skip_tokens};
use crate::layer_norm::{
    LayerNorm, norm_parameter_sums, normalize_row, normalize_row_backward, scale_and_shift,
};
use crate::parallel::{Partials, add, rows_per_part};

/// `xhat` becomes the normalised rows of `stream`, `rstd` their reciprocal standard deviations, `out` the LayerNorm's
/// output; all but `rstd` `[rows, norm.weight.len()]`.
pub fn layer_norm_forward(
    norm: LayerNorm,
    stream: &[f32],
    xhat: &mut [f32],
    rstd: &mut [f32],
    out: &mut [f32],
) {
    let cols = norm.weight.len();
    let per_part = rows_per_part(rstd.len());
    (
        stream.par_chunks(per_part * cols),
        xhat.par_chunks_mut(per_part * cols),
        rstd.par_chunks_mut(per_part),
        out.par_chunks_mut(per_part * cols),
    )
        .into_par_iter()
        .for_each(|(stream, xhat, rstd, out)| norm_rows(norm, stream, xhat, rstd, out));
}

#[multiversion(targets = "simd")]
fn norm_rows(norm: LayerNorm, stream: &[f32], xhat: &mut [f32], rstd: &mut [f32], out: &mut [f32]) {
    let cols = norm.weight.len();
    for (row, rstd) in rstd.iter_mut().enumerate() {
        let at = row * cols..(row + 1) * cols;
        let xhat = &mut xhat[at.clone()];
        xhat.copy_from_slice(&stream[at.clone()]);
        *rstd = normalize_row(xhat, norm.epsilon);
        scale_and_shift(&norm, xhat, &mut out[at]);
    }
}

/// Backward of [`layer_norm_forward`]: the gradient of the stream, by way of the norm, is added to `stream_gradient`;
/// `out_gradient` is used up; `gradients` are `(weight, bias)`, added to.
pub fn layer_norm_backward(
    norm_weight: &[f32],
    xhat: &[f32],
    rstd: &[f32],
    out_gradient: &mut [f32],
    stream_gradient: &mut [f32],
    gradients: (&mut [f32], Option<&mut [f32]>),
    partials: &mut Partials,
) {
    let (cols, rows) = (norm_weight.len(), rstd.len());
    let per_part = partials.rows_per_part(rows);
    (
        partials.zeroed(rows, 2 * cols).par_chunks_mut(2 * cols),
        xhat.par_chunks(per_part * cols),
        rstd.par_chunks(per_part),
        out_gradient.par_chunks_mut(per_part * cols),
        stream_gradient.par_chunks_mut(per_part * cols),
    )
        .into_par_iter()
        .for_each(|(sums, xhat, rstd, out, stream)| {
            norm_rows_backward(norm_weight, xhat, rstd, out, stream, sums)
        });
    partials.add_to(rows, 2 * cols, 0, gradients.0);
    if let Some(bias) = gradients.1 {
        partials.add_to(rows, 2 * cols, cols, bias);
    }
}

#[multiversion(targets = "simd")]
fn norm_rows_backward(
    norm_weight: &[f32],
    xhat: &[f32],
    rstd: &[f32],
    out_gradient: &mut [f32],
    stream_gradient: &mut [f32],
    sums: &mut [f32],
) {
    let cols = norm_weight.len();
    let (weight_sums, bias_sums) = sums.split_at_mut(cols);
    for (row, rstd) in rstd.iter().enumerate() {
        let at = row * cols..(row + 1) * cols;
        let (xhat, g) = (&xhat[at.clone()], &mut out_gradient[at.clone()]);
        norm_parameter_sums(norm_weight, xhat, g, weight_sums, bias_sums);
        normalize_row_backward(g, xhat, *rstd);
        add(&mut stream_gradient[at], g);
    }
}

/// `stream += dropout(branch + bias)`, both `[rows, cols]`; `branch` (a product without its bias) is used up.
pub fn residual_forward(
    branch: &mut [f32],
    bias: Option<&[f32]>,
    dropout: TokenDropout,
    stream: &mut [f32],
    cols: usize,
) {
    let per_part = rows_per_part(stream.len() / cols);
    (branch.par_chunks_mut(per_part * cols), stream.par_chunks_mut(per_part * cols))
        .into_par_iter()
        .enumerate()
        .for_each(|(part, (branch, stream))| {
            let dropout = skip_tokens(dropout, part * per_part);
            residual_rows(branch, bias, dropout, stream, cols);
        });
}

#[multiversion(targets = "simd")]
fn residual_rows(
    branch: &mut [f32],
    bias: Option<&[f32]>,
    dropout: TokenDropout,
    stream: &mut [f32],
    cols: usize,
) {
    for (row, (branch, stream)) in
        branch.chunks_exact_mut(cols).zip(stream.chunks_exact_mut(cols)).enumerate()
    {
        if let Some(bias) = bias {
            add(branch, bias);
        }
        drop_of_token(&dropout, row, branch);
        add(stream, branch);
    }
}

/// Backward of [`residual_forward`]: `gradient`, that of the stream, stays what it is, `branch_gradient` is overwritten
/// with that of the product, whose column sums are added to `bias_gradient`; all `[rows, cols]`.
pub fn residual_backward(
    gradient: &[f32],
    dropout: TokenDropout,
    branch_gradient: &mut [f32],
    bias_gradient: Option<&mut [f32]>,
    cols: usize,
    partials: &mut Partials,
) {
    let per_part = rows_per_part(gradient.len() / cols);
    (gradient.par_chunks(per_part * cols), branch_gradient.par_chunks_mut(per_part * cols))
        .into_par_iter()
        .enumerate()
        .for_each(|(part, (gradient, branch))| {
            let dropout = skip_tokens(dropout, part * per_part);
            residual_rows_backward(gradient, dropout, branch, cols);
        });
    if let Some(bias) = bias_gradient {
        crate::add_column_sums(branch_gradient, bias, partials);
    }
}

#[multiversion(targets = "simd")]
fn residual_rows_backward(gradient: &[f32], dropout: TokenDropout, branch_gradient: &mut [f32], cols: usize) {
    branch_gradient.copy_from_slice(gradient);
    for (row, branch) in branch_gradient.chunks_exact_mut(cols).enumerate() {
        drop_of_token(&dropout, row, branch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dropout::{Dropout, Site, TokenRows};
    use crate::testing::{assert_close, numeric_gradient, to64, values};

    const EPSILON: f64 = 1e-5;

    /// Plain float64 `LayerNorm(dropout(branch + bias) + stream)`, and the stream behind the sum.
    fn plain(x: [&[f64]; 5], cols: usize, bias: bool, mask: &dyn Fn(usize, usize) -> f64) -> [Vec<f64>; 2] {
        let [branch, branch_bias, residual, weight, shift] = x;
        let [mut stream, mut out] = [Vec::new(), Vec::new()];
        for r in 0..branch.len() / cols {
            let s: Vec<f64> = (0..cols)
                .map(|c| {
                    let b = if bias { branch_bias[c] } else { 0.0 };
                    (branch[r * cols + c] + b) * mask(r, c) + residual[r * cols + c]
                })
                .collect();
            let mean = s.iter().sum::<f64>() / cols as f64;
            let variance = s.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / cols as f64;
            out.extend((0..cols).map(|c| {
                (s[c] - mean) / (variance + EPSILON).sqrt() * weight[c] + if bias { shift[c] } else { 0.0 }
            }));
            stream.extend(s);
        }
        [stream, out]
    }

    /// The loss weighs both the stream, which goes on past the norm, and the norm's output.
    fn check(rows: usize, cols: usize, bias: bool, dropout: Option<Dropout>) {
        let keys: Vec<u32> = (0..rows as u32).map(|r| r / 3).collect();
        let positions: Vec<u32> = (0..rows as u32).map(|r| r % 3).collect();
        let site = Site::attention_output(1);
        let mask = |r: usize, c: usize| {
            dropout.map_or(1.0, |d| f64::from(d.multiplier(site, keys[r], positions[r], c)))
        };
        let dropped = dropout.as_ref().map(|d| (d, site, TokenRows { keys: &keys, positions: &positions }));
        let sizes = [rows * cols, cols, rows * cols, cols, cols];
        let inputs: Vec<Vec<f32>> =
            sizes.iter().enumerate().map(|(i, n)| values(*n, i as u32 + 1, 1.0)).collect();
        let inputs64: Vec<Vec<f64>> = inputs.iter().map(|v| to64(v)).collect();
        let weights = [values(rows * cols, 8, 1.0), values(rows * cols, 9, 1.0)];
        let all = || -> [&[f64]; 5] { std::array::from_fn(|k| inputs64[k].as_slice()) };
        let expected: Vec<Vec<f64>> = (0..5)
            .map(|i| {
                numeric_gradient(&inputs64[i], |x| {
                    let mut all = all();
                    all[i] = x;
                    let outputs = plain(all, cols, bias, &mask);
                    let pairs = outputs.iter().flatten().zip(weights.iter().flatten());
                    pairs.map(|(y, w)| y * f64::from(*w)).sum()
                })
            })
            .collect();

        let shift = bias.then_some(inputs[4].as_slice());
        let norm = LayerNorm { weight: &inputs[3], bias: shift, epsilon: EPSILON as f32 };
        let (mut branch, mut stream) = (inputs[0].clone(), inputs[2].clone());
        residual_forward(&mut branch, bias.then_some(&inputs[1]), dropped, &mut stream, cols);
        let [mut xhat, mut out, mut rstd] =
            [vec![f32::NAN; rows * cols], vec![f32::NAN; rows * cols], vec![0.0; rows]];
        layer_norm_forward(norm, &stream, &mut xhat, &mut rstd, &mut out);
        let [stream64, out64] = plain(all(), cols, bias, &mask);
        assert_close(&stream, &stream64, 1e-6);
        assert_close(&out, &out64, 2e-5);

        let [mut stream_gradient, mut out_gradient] = weights.clone();
        let [mut dw, mut db, mut dbranch] = [vec![0.0; cols], vec![0.0; cols], vec![0.0; cols]];
        let partials = &mut Partials::new(3 * cols);
        layer_norm_backward(
            norm.weight,
            &xhat,
            &rstd,
            &mut out_gradient,
            &mut stream_gradient,
            (&mut dw, bias.then_some(db.as_mut_slice())),
            partials,
        );
        let mut branch_gradient = vec![f32::NAN; rows * cols];
        let bias_gradient = bias.then_some(dbranch.as_mut_slice());
        residual_backward(&stream_gradient, dropped, &mut branch_gradient, bias_gradient, cols, partials);
        assert_close(&branch_gradient, &expected[0], 1e-4);
        assert_close(&stream_gradient, &expected[2], 1e-4);
        assert_close(&dw, &expected[3], 1e-4);
        assert_close(&dbranch, &expected[1], 1e-4);
        assert_close(&db, &expected[4], 1e-4);
    }

    #[test]
    fn forward_and_backward_agree_with_float64_with_and_without_biases_and_dropout() {
        for (rows, cols) in [(1usize, 3usize), (3, 17), (40, 32), (2, 130)] {
            for bias in [false, true] {
                check(rows, cols, bias, None);
                check(rows, cols, bias, Dropout::new(0.3, 11, 4));
            }
        }
    }
}
