//! Scaled dot-product attention over packed sequences.
//!
//! One task is one head of one sequence, in blocks of query rows: a block's scores live in the thread's scratch and
//! nothing quadratic in the length is stored. The backward pass makes the probabilities again from the kept
//! log-sum-exp of each row (Dao et al., FlashAttention, arXiv 2205.14135, without its tiling over keys: a whole row
//! of scores fits in cache at these lengths).

use multiversion::multiversion;
use rayon::prelude::*;

use crate::dropout::{Dropout, STRIP, Site};
use crate::math::{exp, max, sum};
use crate::matrix::{Mat, MatMut, matmul_on_this_thread, product_into};
use crate::parallel::Shared;

/// Query rows of one block.
const BLOCK: usize = 64;

/// Shape of an attention layer.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    /// Number of heads.
    pub heads: usize,
    /// Width of a head.
    pub head_width: usize,
}

impl AttentionShape {
    fn width(&self) -> usize {
        self.heads.checked_mul(self.head_width).expect("the width of all heads overflows")
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_width as f32).sqrt()
    }
}

/// Elements of scratch needed for sequences of at most `longest` tokens in a pool of `threads`.
pub fn attention_scratch_len(longest: usize, threads: usize) -> usize {
    threads * scratch_per_thread(longest)
}

fn scratch_per_thread(longest: usize) -> usize {
    2 * BLOCK * longest
}

/// Whether `len` elements are `tokens` rows of `width`.
fn holds(len: usize, tokens: usize, width: usize) -> bool {
    tokens.checked_mul(width).is_some_and(|needed| needed <= len)
}

/// Tokens of packed sequences.
///
/// # Panics
/// When offsets do not ascend: every length, and every place in a buffer, is a difference of two.
fn packed_tokens(offsets: &[u32]) -> usize {
    assert!(offsets.is_sorted(), "offsets of sequences do not ascend");
    *offsets.last().expect("offsets end with the number of tokens") as usize
}

/// One head of one sequence.
struct Head {
    sequence: usize,
    head: usize,
    first: usize,
    length: usize,
}

/// Runs `task` for every head of every sequence, each call with scratch of its own thread.
fn for_each_head(
    shape: AttentionShape,
    offsets: &[u32],
    scratch: &mut [f32],
    task: impl Fn(Head, &mut [f32], &mut [f32]) + Sync,
) {
    let longest = offsets.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0) as usize;
    let per_thread = scratch_per_thread(longest);
    let threads = rayon::current_num_threads();
    assert!(scratch.len() >= threads * per_thread, "attention scratch is too small");
    let scratch = Shared::new(scratch);
    let tasks = (offsets.len() - 1).checked_mul(shape.heads).expect("the heads of all sequences overflow");
    (0..tasks).into_par_iter().with_max_len(1).for_each(|index| {
        let (sequence, head) = (index / shape.heads, index % shape.heads);
        let thread = rayon::current_thread_index().unwrap_or(0);
        // SAFETY: this part of the scratch is the thread's, which runs one task at a time: none waits for another.
        let scratch = unsafe { scratch.slice(thread * per_thread, per_thread) };
        let (a, b) = scratch.split_at_mut(per_thread / 2);
        let (first, end) = (offsets[sequence] as usize, offsets[sequence + 1] as usize);
        task(Head { sequence, head, first, length: end - first }, a, b);
    });
}

/// Attention of each head over each sequence's own tokens.
///
/// `qkv` `[tokens, 3 · width]` holds query, key and value side by side; `context` `[tokens, width]` is overwritten;
/// `log_sum_exp` `[tokens, heads]` is what the backward pass needs of the probabilities. `dropout` acts on the
/// probabilities, keyed by `sequence_keys[sequence]`.
///
/// # Panics
/// When `scratch` is shorter than [`attention_scratch_len`], or a buffer than its shape.
#[expect(clippy::too_many_arguments, reason = "one fused pass has these operands")]
pub fn attention_forward(
    shape: AttentionShape,
    qkv: &[f32],
    offsets: &[u32],
    sequence_keys: &[u32],
    dropout: Option<(&Dropout, Site)>,
    context: &mut [f32],
    log_sum_exp: &mut [f32],
    scratch: &mut [f32],
) {
    let (width, dh) = (shape.width(), shape.head_width);
    let tokens = packed_tokens(offsets);
    assert!(holds(qkv.len() / 3, tokens, width), "qkv is too short");
    assert!(holds(context.len(), tokens, width), "context is too short");
    assert!(holds(log_sum_exp.len(), tokens, shape.heads), "log-sum-exps are too short");
    let (context, log_sum_exp) = (Shared::new(context), Shared::new(log_sum_exp));
    for_each_head(shape, offsets, scratch, |Head { sequence, head, first, length }, scores, _| {
        let input = |row: usize, rows: usize, part: usize| {
            Mat::strided(&qkv[(first + row) * 3 * width + part * width + head * dh..], rows, dh, 3 * width)
        };
        for start in (0..length).step_by(BLOCK) {
            let rows = BLOCK.min(length - start);
            let tile = &mut scores[..rows * length];
            let (queries, keys) = (input(start, rows, 0), input(0, length, 1));
            matmul_on_this_thread(MatMut::new(tile, rows, length), queries, keys.t(), shape.scale(), false);
            let mut lse = [0.0; BLOCK];
            let mask = dropout.map(|(d, site)| (d, site.head(head), sequence_keys[sequence]));
            softmax_rows(tile, length, mask, start, &mut lse);
            let token = first + start;
            for (r, lse) in lse[..rows].iter().enumerate() {
                // SAFETY: the element of this token and head is written by this task alone.
                unsafe { log_sum_exp.slice((token + r) * shape.heads + head, 1)[0] = *lse };
            }
            let out = context.matrix(token * width + head * dh, rows, dh, width);
            // SAFETY: rows and columns of `context` for this head of this sequence belong to this task alone.
            unsafe { product_into(out, Mat::new(tile, rows, length), input(0, length, 2), 1.0, false) };
        }
    });
}

/// What a head's mask depends on, beside row and column.
type HeadMask<'a> = (&'a Dropout, Site, u32);

/// Softmax and dropout of a block's rows in place, the first being query row `start`, and their log-sum-exps.
#[multiversion(targets = "simd")]
fn softmax_rows(scores: &mut [f32], length: usize, mask: Option<HeadMask>, start: usize, lse: &mut [f32]) {
    for (r, (row, lse)) in scores.chunks_exact_mut(length).zip(lse).enumerate() {
        *lse = softmax(row);
        if let Some((dropout, site, key)) = mask {
            dropout.apply(site, key, (start + r) as u32, row);
        }
    }
}

/// Softmax of a row in place; returns its log-sum-exp.
#[inline(always)]
fn softmax(row: &mut [f32]) -> f32 {
    let largest = max(row);
    for x in row.iter_mut() {
        *x = exp(*x - largest);
    }
    let total = sum(row.len(), |i| row[i]);
    let inverse = 1.0 / total;
    for x in row.iter_mut() {
        *x *= inverse;
    }
    largest + total.ln()
}

/// Backward of [`attention_forward`]: `qkv_gradient` `[tokens, 3 · width]` is overwritten.
///
/// # Panics
/// As [`attention_forward`].
#[expect(clippy::too_many_arguments, reason = "one fused pass has these operands")]
pub fn attention_backward(
    shape: AttentionShape,
    qkv: &[f32],
    context: &[f32],
    log_sum_exp: &[f32],
    offsets: &[u32],
    sequence_keys: &[u32],
    dropout: Option<(&Dropout, Site)>,
    context_gradient: &[f32],
    qkv_gradient: &mut [f32],
    scratch: &mut [f32],
) {
    let (width, dh, scale) = (shape.width(), shape.head_width, shape.scale());
    let tokens = packed_tokens(offsets);
    assert!(holds(qkv.len() / 3, tokens, width), "qkv is too short");
    assert!(holds(qkv_gradient.len() / 3, tokens, width), "the gradient of qkv is too short");
    assert!(holds(context_gradient.len(), tokens, width), "the gradient of context is too short");
    let gradients = Shared::new(qkv_gradient);
    for_each_head(
        shape,
        offsets,
        scratch,
        |Head { sequence, head, first, length }, probabilities, scores| {
            let place = |row: usize, part: usize| (first + row) * 3 * width + part * width + head * dh;
            let input = |row: usize, rows: usize, part: usize| {
                Mat::strided(&qkv[place(row, part)..], rows, dh, 3 * width)
            };
            let gradient = |row: usize, rows: usize, part: usize| {
                gradients.matrix(place(row, part), rows, dh, 3 * width)
            };
            for start in (0..length).step_by(BLOCK) {
                let rows = BLOCK.min(length - start);
                let (p, ds) = (&mut probabilities[..rows * length], &mut scores[..rows * length]);
                let token = first + start;
                let upstream = Mat::strided(&context_gradient[token * width + head * dh..], rows, dh, width);
                let (queries, keys, values) =
                    (input(start, rows, 0), input(0, length, 1), input(0, length, 2));
                matmul_on_this_thread(MatMut::new(p, rows, length), queries, keys.t(), scale, false);
                matmul_on_this_thread(MatMut::new(ds, rows, length), upstream, values.t(), 1.0, false);
                let (mut lse, mut along) = ([0.0; BLOCK], [0.0; BLOCK]);
                for r in 0..rows {
                    let span = (token + r) * width + head * dh..(token + r) * width + (head + 1) * dh;
                    let (o, g) = (&context[span.clone()], &context_gradient[span]);
                    along[r] = sum(dh, |i| o[i] * g[i]);
                    lse[r] = log_sum_exp[(token + r) * shape.heads + head];
                }
                let mask = dropout.map(|(d, site)| (d, site.head(head), sequence_keys[sequence]));
                score_gradients(p, ds, length, (&lse, &along), scale, mask, start);
                let (p, ds) = (Mat::new(p, rows, length), Mat::new(ds, rows, length));
                let again = start > 0;
                // SAFETY: rows and columns of the gradient for this head of this sequence belong to this task alone, which
                // writes one after the other.
                unsafe {
                    product_into(gradient(0, length, 2), p.t(), upstream, 1.0, again);
                    product_into(gradient(start, rows, 0), ds, keys, 1.0, false);
                    product_into(gradient(0, length, 1), ds.t(), queries, 1.0, again);
                }
            }
        },
    );
}

/// Rows of a block, the first being query row `start`: `p` turns from scores into (dropped-out) probabilities, `ds`
/// from the gradient of those into that of the scaled scores.
#[multiversion(targets = "simd")]
fn score_gradients(
    p: &mut [f32],
    ds: &mut [f32],
    length: usize,
    sums: (&[f32], &[f32]),
    scale: f32,
    mask: Option<HeadMask>,
    start: usize,
) {
    let rows = p.chunks_exact_mut(length).zip(ds.chunks_exact_mut(length));
    for (r, (p, ds)) in rows.enumerate() {
        let (lse, along) = (sums.0[r], sums.1[r]);
        let Some((dropout, site, key)) = mask else {
            for (p, d) in p.iter_mut().zip(ds) {
                *p = exp(*p - lse);
                *d = *p * (*d - along) * scale;
            }
            continue;
        };
        for (strip, (p, ds)) in p.chunks_mut(STRIP).zip(ds.chunks_mut(STRIP)).enumerate() {
            let multipliers = dropout.strip(site, key, (start + r) as u32, strip);
            for ((p, d), m) in p.iter_mut().zip(ds).zip(&multipliers) {
                let probability = exp(*p - lse);
                *d = probability * (*d * m - along) * scale;
                *p = probability * m;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, numeric_gradient, to64, values};

    /// Plain float64 attention.
    fn plain(
        x: &[f64],
        shape: AttentionShape,
        offsets: &[u32],
        mask: &dyn Fn(usize, usize, usize, usize) -> f64,
    ) -> Vec<f64> {
        let (width, dh) = (shape.width(), shape.head_width);
        let mut out = vec![0.0; offsets[offsets.len() - 1] as usize * width];
        for s in 0..offsets.len() - 1 {
            let (first, end) = (offsets[s] as usize, offsets[s + 1] as usize);
            for head in 0..shape.heads {
                let element =
                    |t: usize, part: usize, c: usize| x[t * 3 * width + part * width + head * dh + c];
                for i in first..end {
                    let scores: Vec<f64> = (first..end)
                        .map(|j| {
                            (0..dh).map(|c| element(i, 0, c) * element(j, 1, c)).sum::<f64>()
                                / (dh as f64).sqrt()
                        })
                        .collect();
                    let total: f64 = scores.iter().map(|s| s.exp()).sum();
                    for c in 0..dh {
                        out[i * width + head * dh + c] = (first..end)
                            .map(|j| {
                                scores[j - first].exp() / total
                                    * mask(s, head, i - first, j - first)
                                    * element(j, 2, c)
                            })
                            .sum();
                    }
                }
            }
        }
        out
    }

    fn check(shape: AttentionShape, lengths: &[u32], dropout: Option<Dropout>, numeric: bool) {
        let width = shape.width();
        let offsets: Vec<u32> = std::iter::once(0)
            .chain(lengths.iter().scan(0, |total, n| {
                *total += n;
                Some(*total)
            }))
            .collect();
        let tokens = offsets[offsets.len() - 1] as usize;
        let keys: Vec<u32> = (0..lengths.len() as u32).map(|s| s + 40).collect();
        let qkv = values(tokens * 3 * width, 8, 1.5);
        let site = Site::attention(0);
        let mask = |s: usize, head: usize, i: usize, j: usize| {
            dropout.map_or(1.0, |d| d.multiplier(site.head(head), keys[s], i as u32, j) as f64)
        };
        let weights = values(tokens * width, 9, 1.0);
        let x = to64(&qkv);
        let mut context = vec![f32::NAN; tokens * width];
        let mut lse = vec![0.0; tokens * shape.heads];
        let longest = *lengths.iter().max().unwrap() as usize;
        let mut scratch = vec![f32::NAN; attention_scratch_len(longest, rayon::current_num_threads())];
        let dropout = dropout.as_ref().map(|d| (d, site));
        attention_forward(shape, &qkv, &offsets, &keys, dropout, &mut context, &mut lse, &mut scratch);
        assert_close(&context, &plain(&x, shape, &offsets, &mask), 5e-6);
        if numeric {
            let mut gradient = vec![f32::NAN; qkv.len()];
            attention_backward(
                shape,
                &qkv,
                &context,
                &lse,
                &offsets,
                &keys,
                dropout,
                &weights,
                &mut gradient,
                &mut scratch,
            );
            let expected = numeric_gradient(&x, |x| {
                plain(x, shape, &offsets, &mask).iter().zip(&weights).map(|(y, w)| y * *w as f64).sum()
            });
            assert_close(&gradient, &expected, 2e-5);
        }
    }

    #[test]
    fn buffers_and_offsets_that_do_not_agree_are_refused() {
        let shape = AttentionShape { heads: 2, head_width: 4 };
        let refused = |shape: AttentionShape, offsets: &[u32], lengths: [usize; 3]| {
            let [qkv, context, lse] = lengths.map(|length| vec![0.0; length]);
            let forward = std::panic::catch_unwind(|| {
                let mut scratch = vec![0.0; attention_scratch_len(8, rayon::current_num_threads())];
                let (mut context, mut lse) = (context.clone(), lse.clone());
                attention_forward(shape, &qkv, offsets, &[0; 4], None, &mut context, &mut lse, &mut scratch);
            });
            let backward = std::panic::catch_unwind(|| {
                let mut scratch = vec![0.0; attention_scratch_len(8, rayon::current_num_threads())];
                let mut gradient = qkv.clone();
                attention_backward(
                    shape,
                    &qkv,
                    &context,
                    &lse,
                    offsets,
                    &[0; 4],
                    None,
                    &context,
                    &mut gradient,
                    &mut scratch,
                );
            });
            [forward.is_err(), backward.is_err()]
        };
        assert_eq!(refused(shape, &[0, 3, 8], [192, 64, 16]), [false; 2]);
        for offsets in [&[0, 8, 3][..], &[8, 0], &[0, 9, 8], &[u32::MAX, 8], &[]] {
            assert_eq!(refused(shape, offsets, [192, 64, 16]), [true; 2], "{offsets:?}");
        }
        for lengths in [[191, 64, 16], [192, 63, 16], [192, 64, 15]] {
            assert_eq!(refused(shape, &[0, 3, 8], lengths), [true; 2], "{lengths:?}");
        }
        let wide = AttentionShape { heads: 1 << 40, head_width: 1 << 40 };
        assert_eq!(refused(wide, &[0, 3, 8], [192, 64, 16]), [true; 2]);
    }

    #[test]
    fn forward_and_backward_agree_with_float64_at_odd_lengths() {
        let shape = AttentionShape { heads: 2, head_width: 5 };
        check(shape, &[1], None, true);
        check(shape, &[3, 1, 7], None, true);
        check(shape, &[3, 9, 2], Dropout::new(0.3, 1, 1), true);
        check(AttentionShape { heads: 1, head_width: 4 }, &[67], Dropout::new(0.2, 1, 1), true);
    }

    #[test]
    fn the_longest_sequence_is_attended_in_blocks() {
        check(AttentionShape { heads: 1, head_width: 32 }, &[512, 130], None, false);
    }
}
