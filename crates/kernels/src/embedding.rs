//! Word, position and token type embeddings, LayerNorm and dropout, fused.
//!
//! The normalised rows are not kept: the backward pass gathers them again from the tables.

use multiversion::multiversion;
use rayon::prelude::*;

use crate::dropout::{Dropout, Site, TokenRows};
use crate::layer_norm::{
    LayerNorm, norm_parameter_sums, normalize_row, normalize_row_backward, scale_in_place,
};
use crate::parallel::{Partials, Shared, add, rows_per_part};

/// The tables, each `[entries, width]`, and the LayerNorm behind them.
#[derive(Clone, Copy)]
pub struct EmbeddingTables<'a> {
    /// Word embeddings.
    pub words: &'a [f32],
    /// Position embeddings, where there are any.
    pub positions: Option<&'a [f32]>,
    /// Token type embeddings, where there are any.
    pub types: Option<&'a [f32]>,
    /// LayerNorm over the sum.
    pub norm: LayerNorm<'a>,
}

/// The rows that each token takes of the tables; those of tables that are not there are not looked at.
#[derive(Clone, Copy)]
pub struct EmbeddingIndices<'a> {
    /// Token ids.
    pub words: &'a [u32],
    /// Rows of positions.
    pub positions: &'a [u32],
    /// Token types.
    pub types: &'a [u8],
}

impl EmbeddingTables<'_> {
    fn width(&self) -> usize {
        self.norm.weight.len()
    }

    #[inline(always)]
    fn gather(&self, indices: &EmbeddingIndices, token: usize, out: &mut [f32]) {
        let width = out.len();
        out.copy_from_slice(&self.words[indices.words[token] as usize * width..][..width]);
        if let Some(positions) = self.positions {
            add(out, &positions[indices.positions[token] as usize * width..][..width]);
        }
        if let Some(types) = self.types {
            add(out, &types[indices.types[token] as usize * width..][..width]);
        }
    }
}

/// Gradients of [`EmbeddingTables`], in the same shapes, added to; those of tables that are not there are not looked at.
pub struct EmbeddingGradients<'a> {
    /// Word embeddings.
    pub words: &'a mut [f32],
    /// Position embeddings.
    pub positions: &'a mut [f32],
    /// Token type embeddings.
    pub types: &'a mut [f32],
    /// LayerNorm weight.
    pub norm_weight: &'a mut [f32],
    /// LayerNorm bias, where there is one.
    pub norm_bias: Option<&'a mut [f32]>,
}

/// `hidden[t] = dropout(LayerNorm(word[t] + position[t] + type[t]))`, `[tokens, width]`; `rows` key the dropout.
///
/// # Panics
/// When an index lies outside its table.
pub fn embedding_forward(
    tables: EmbeddingTables,
    indices: EmbeddingIndices,
    rows: TokenRows,
    dropout: Option<&Dropout>,
    hidden: &mut [f32],
) {
    let width = tables.width();
    let per_part = rows_per_part(indices.words.len());
    hidden.par_chunks_mut(per_part * width).enumerate().for_each(|(part, hidden)| {
        let first = part * per_part;
        forward_rows(tables, indices, first, rows, dropout, hidden);
    });
}

#[multiversion(targets = "simd")]
fn forward_rows(
    tables: EmbeddingTables,
    indices: EmbeddingIndices,
    first: usize,
    rows: TokenRows,
    dropout: Option<&Dropout>,
    hidden: &mut [f32],
) {
    for (t, out) in (first..).zip(hidden.chunks_exact_mut(tables.width())) {
        tables.gather(&indices, t, out);
        normalize_row(out, tables.norm.epsilon);
        scale_in_place(&tables.norm, out);
        if let Some(dropout) = dropout {
            dropout.apply(Site::EMBEDDINGS, rows.keys[t], rows.positions[t], out);
        }
    }
}

/// Backward of [`embedding_forward`]: `gradient` `[tokens, width]` is that of the output and is used up,
/// `scratch` `[tokens, width]` is overwritten.
#[expect(clippy::too_many_arguments, reason = "one fused pass has these operands")]
pub fn embedding_backward(
    tables: EmbeddingTables,
    indices: EmbeddingIndices,
    rows: TokenRows,
    dropout: Option<&Dropout>,
    gradient: &mut [f32],
    scratch: &mut [f32],
    gradients: EmbeddingGradients,
    partials: &mut Partials,
) {
    let width = tables.width();
    let tokens = indices.words.len();
    let per_part = partials.rows_per_part(tokens);
    (
        partials.zeroed(tokens, 2 * width).par_chunks_mut(2 * width),
        gradient.par_chunks_mut(per_part * width),
        scratch.par_chunks_mut(per_part * width),
    )
        .into_par_iter()
        .enumerate()
        .for_each(|(part, (sums, gradient, scratch))| {
            backward_rows(tables, indices, part * per_part, rows, dropout, gradient, scratch, sums);
        });
    partials.add_to(tokens, 2 * width, 0, gradients.norm_weight);
    if let Some(norm_bias) = gradients.norm_bias {
        partials.add_to(tokens, 2 * width, width, norm_bias);
    }
    scatter(indices.words, gradient, width, gradients.words);
    if tables.positions.is_some() {
        scatter(indices.positions, gradient, width, gradients.positions);
    }
    if tables.types.is_some() {
        scatter(indices.types, gradient, width, gradients.types);
    }
}

/// `gradient` becomes that of the sum of the three embeddings; `sums` holds those of LayerNorm weight and bias.
#[expect(clippy::too_many_arguments, reason = "one fused pass has these operands")]
#[multiversion(targets = "simd")]
fn backward_rows(
    tables: EmbeddingTables,
    indices: EmbeddingIndices,
    first: usize,
    rows: TokenRows,
    dropout: Option<&Dropout>,
    gradient: &mut [f32],
    scratch: &mut [f32],
    sums: &mut [f32],
) {
    let width = tables.width();
    let (weight_sums, bias_sums) = sums.split_at_mut(width);
    let both = gradient.chunks_exact_mut(width).zip(scratch.chunks_exact_mut(width));
    for (t, (g, xhat)) in (first..).zip(both) {
        if let Some(dropout) = dropout {
            dropout.apply(Site::EMBEDDINGS, rows.keys[t], rows.positions[t], g);
        }
        tables.gather(&indices, t, xhat);
        let rstd = normalize_row(xhat, tables.norm.epsilon);
        norm_parameter_sums(tables.norm.weight, xhat, g, weight_sums, bias_sums);
        normalize_row_backward(g, xhat, rstd);
    }
}

/// `table[index[t]] += rows[t]`, cut by columns so that no two threads meet in a table row.
fn scatter<I: Copy + Into<u32> + Sync>(index: &[I], rows: &[f32], width: usize, table: &mut [f32]) {
    let columns = width.div_ceil(rayon::current_num_threads()).next_multiple_of(16);
    let entries = table.len() / width;
    let table = Shared::new(table);
    (0..width.div_ceil(columns)).into_par_iter().for_each(|part| {
        let first = part * columns;
        let count = columns.min(width - first);
        for (t, entry) in index.iter().enumerate() {
            let entry = (*entry).into() as usize;
            assert!(entry < entries, "embedding index {entry} outside a table of {entries}");
            // SAFETY: columns first..first + count of every entry belong to this task alone.
            let to = unsafe { table.slice(entry * width + first, count) };
            add(to, &rows[t * width + first..][..count]);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, numeric_gradient, to64, values};

    #[test]
    fn forward_and_backward_agree_with_float64_where_tokens_repeat() {
        for has in [[true, true, true], [true, false, true], [false, false, false]] {
            check(has);
        }
    }

    /// With tables of positions and of types and a bias of the LayerNorm, or without.
    fn check(has: [bool; 3]) {
        let (vocabulary, longest, width) = (5usize, 4usize, 19usize);
        let ids = [3u32, 1, 3, 3, 0, 4];
        let types = [0u8, 0, 1, 1, 0, 1];
        let positions = [0u32, 1, 2, 3, 0, 1];
        let keys = [7u32, 7, 7, 7, 8, 8];
        let dropout = Dropout::new(0.25, 3, 1).unwrap();
        let sizes = [vocabulary * width, longest * width, 2 * width, width, width];
        let inputs: Vec<Vec<f32>> =
            sizes.iter().enumerate().map(|(i, n)| values(*n, i as u32 + 20, 1.0)).collect();
        let inputs64: Vec<Vec<f64>> = inputs.iter().map(|v| to64(v)).collect();
        let output_weights = values(ids.len() * width, 5, 1.0);
        let plain = |x: [&[f64]; 5]| -> Vec<f64> {
            let mut out = Vec::new();
            for t in 0..ids.len() {
                let s: Vec<f64> = (0..width)
                    .map(|c| {
                        let position = if has[0] { x[1][positions[t] as usize * width + c] } else { 0.0 };
                        let kind = if has[1] { x[2][types[t] as usize * width + c] } else { 0.0 };
                        x[0][ids[t] as usize * width + c] + position + kind
                    })
                    .collect();
                let mean = s.iter().sum::<f64>() / width as f64;
                let variance = s.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / width as f64;
                out.extend((0..width).map(|c| {
                    let y = (s[c] - mean) / (variance + 1e-12).sqrt() * x[3][c]
                        + if has[2] { x[4][c] } else { 0.0 };
                    y * dropout.multiplier(Site::EMBEDDINGS, keys[t], positions[t], c) as f64
                }));
            }
            out
        };
        let all = || -> [&[f64]; 5] { std::array::from_fn(|k| inputs64[k].as_slice()) };
        let expected: Vec<Vec<f64>> = (0..5)
            .map(|i| {
                numeric_gradient(&inputs64[i], |x| {
                    let mut a = all();
                    a[i] = x;
                    plain(a).iter().zip(&output_weights).map(|(y, w)| y * *w as f64).sum()
                })
            })
            .collect();

        let tables = EmbeddingTables {
            words: &inputs[0],
            positions: has[0].then_some(&inputs[1]),
            types: has[1].then_some(&inputs[2]),
            norm: LayerNorm { weight: &inputs[3], bias: has[2].then_some(&inputs[4]), epsilon: 1e-12 },
        };
        let indices = EmbeddingIndices {
            words: &ids,
            positions: if has[0] { &positions } else { &[] },
            types: if has[1] { &types } else { &[] },
        };
        let rows = TokenRows { keys: &keys, positions: &positions };
        let mut hidden = vec![f32::NAN; ids.len() * width];
        embedding_forward(tables, indices, rows, Some(&dropout), &mut hidden);
        assert_close(&hidden, &plain(all()), 1e-5);

        let mut got: Vec<Vec<f32>> = sizes.iter().map(|n| vec![0.0; *n]).collect();
        let [words, positions, types, norm_weight, norm_bias] = got.as_mut_slice() else { unreachable!() };
        let norm_bias = has[2].then_some(norm_bias.as_mut_slice());
        let mut gradient = output_weights.clone();
        embedding_backward(
            tables,
            indices,
            rows,
            Some(&dropout),
            &mut gradient,
            &mut hidden,
            EmbeddingGradients { words, positions, types, norm_weight, norm_bias },
            &mut Partials::new(2 * width),
        );
        for (g, e) in got.iter().zip(&expected) {
            assert_close(g, e, 5e-5);
        }
    }
}
