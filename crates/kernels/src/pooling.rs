//! From the hidden states of packed sequences to one vector each, and normalisation to length one.

use multiversion::multiversion;

use crate::math::sum;
use crate::parallel::add;

/// How a sequence becomes a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Its first token.
    Cls,
    /// The mean over its tokens.
    Mean,
}

fn spans(offsets: &[u32]) -> impl Iterator<Item = (usize, usize)> {
    offsets.windows(2).map(|w| (w[0] as usize, w[1] as usize))
}

/// `hidden` `[tokens, width]` to `out` `[sequences, width]`.
#[multiversion(targets = "simd")]
pub fn pool_forward(pool: Pool, hidden: &[f32], offsets: &[u32], width: usize, out: &mut [f32]) {
    for ((first, end), out) in spans(offsets).zip(out.chunks_exact_mut(width)) {
        out.copy_from_slice(&hidden[first * width..][..width]);
        match pool {
            Pool::Cls => {}
            Pool::Mean => {
                for t in first + 1..end {
                    add(out, &hidden[t * width..][..width]);
                }
                let share = 1.0 / (end - first) as f32;
                out.iter_mut().for_each(|o| *o *= share);
            }
        }
    }
}

/// Backward of [`pool_forward`]: every row of `hidden_gradient` is overwritten.
#[multiversion(targets = "simd")]
pub fn pool_backward(
    pool: Pool,
    gradient: &[f32],
    offsets: &[u32],
    width: usize,
    hidden_gradient: &mut [f32],
) {
    for ((first, end), gradient) in spans(offsets).zip(gradient.chunks_exact(width)) {
        let rows = &mut hidden_gradient[first * width..end * width];
        match pool {
            Pool::Cls => {
                rows.fill(0.0);
                rows[..width].copy_from_slice(gradient);
            }
            Pool::Mean => {
                let share = 1.0 / (end - first) as f32;
                for row in rows.chunks_exact_mut(width) {
                    for (r, g) in row.iter_mut().zip(gradient) {
                        *r = g * share;
                    }
                }
            }
        }
    }
}

/// Length below which a vector is not divided by its length but by this (as `torch.nn.functional.normalize`).
const SHORTEST: f32 = 1e-12;

/// Normalises every row of `vectors` in place to length one; `lengths` gets the lengths before.
#[multiversion(targets = "simd")]
pub fn normalize_forward(vectors: &mut [f32], lengths: &mut [f32]) {
    let width = vectors.len().checked_div(lengths.len()).unwrap_or(0);
    if width == 0 {
        return;
    }
    for (row, length) in vectors.chunks_exact_mut(width).zip(lengths) {
        *length = sum(width, |i| row[i] * row[i]).sqrt().max(SHORTEST);
        let inverse = 1.0 / *length;
        row.iter_mut().for_each(|v| *v *= inverse);
    }
}

/// Backward of [`normalize_forward`]: `gradient` turns in place from that of the unit `vectors` into that of the
/// vectors before.
#[multiversion(targets = "simd")]
pub fn normalize_backward(vectors: &[f32], lengths: &[f32], gradient: &mut [f32]) {
    let width = vectors.len().checked_div(lengths.len()).unwrap_or(0);
    if width == 0 {
        return;
    }
    let rows = vectors.chunks_exact(width).zip(gradient.chunks_exact_mut(width)).zip(lengths);
    for ((unit, gradient), length) in rows {
        let along = sum(width, |i| unit[i] * gradient[i]);
        let inverse = 1.0 / length;
        for (g, u) in gradient.iter_mut().zip(unit) {
            *g = (*g - along * u) * inverse;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, numeric_gradient, to64, values};

    #[test]
    fn pooling_and_normalising_agree_with_float64() {
        let (width, offsets) = (21usize, [0u32, 1, 6, 9]);
        let hidden = values(9 * width, 4, 1.0);
        let weights = values(3 * width, 5, 1.0);
        for pool in [Pool::Cls, Pool::Mean] {
            let plain = |x: &[f64]| -> Vec<f64> {
                let mut out = Vec::new();
                for (first, end) in spans(&offsets) {
                    let end = if pool == Pool::Cls { first + 1 } else { end };
                    let v: Vec<f64> = (0..width)
                        .map(|c| (first..end).map(|t| x[t * width + c]).sum::<f64>() / (end - first) as f64)
                        .collect();
                    let length = v.iter().map(|x| x * x).sum::<f64>().sqrt();
                    out.extend(v.iter().map(|x| x / length));
                }
                out
            };
            let hidden64 = to64(&hidden);
            let expected = numeric_gradient(&hidden64, |x| {
                plain(x).iter().zip(&weights).map(|(y, w)| y * *w as f64).sum()
            });
            let (mut out, mut lengths) = (vec![f32::NAN; 3 * width], vec![0.0; 3]);
            pool_forward(pool, &hidden, &offsets, width, &mut out);
            normalize_forward(&mut out, &mut lengths);
            assert_close(&out, &plain(&hidden64), 1e-6);
            let mut gradient = weights.clone();
            let mut hidden_gradient = vec![f32::NAN; 9 * width];
            normalize_backward(&out, &lengths, &mut gradient);
            pool_backward(pool, &gradient, &offsets, width, &mut hidden_gradient);
            assert_close(&hidden_gradient, &expected, 1e-6);
        }
    }
}
