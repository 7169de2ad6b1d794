//! Scaled dot-product attention over packed sequences.
//!
//! One task is one head of one sequence, in blocks of query rows: a block's scores live in the thread's scratch and
//! nothing quadratic in the length is stored. The backward pass makes the probabilities again from the kept
//! log-sum-exp of each row (Dao et al., FlashAttention, arXiv 2205.14135, without its tiling over keys: a whole row
//! of scores fits in cache at these lengths). Where tokens attend within a window, a block's scores are those of the keys
//! that its rows reach.

use std::ops::Range;

use multiversion::multiversion;
use rayon::prelude::*;

use crate::dropout::{Dropout, STRIP, Site};
use crate::math::{exp, max, sum};
use crate::matrix::{Mat, MatMut, matmul_on_this_thread, product_into};
use crate::parallel::{Shared, add};
use crate::relative_bias::{BUCKETS, add_buckets, by_distance, distances};

/// Query rows of one block: as many as a strip of dropout, so that blocks of keys begin where strips do.
const BLOCK: usize = STRIP;

/// Shape of an attention layer.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    /// Number of heads.
    pub heads: usize,
    /// Width of a head.
    pub head_width: usize,
    /// The greatest distance at which a token attends to another; any where there is none.
    pub window: Option<usize>,
}

impl AttentionShape {
    fn width(&self) -> usize {
        self.heads.checked_mul(self.head_width).expect("the width of all heads overflows")
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_width as f32).sqrt()
    }

    /// The keys that query row `row` of `length` attends to.
    fn reach(&self, row: usize, length: usize) -> Range<usize> {
        match self.window {
            None => 0..length,
            Some(window) => {
                row.saturating_sub(window)..length.min(row.saturating_add(window).saturating_add(1))
            }
        }
    }

    /// The keys that a block of query rows attends to, from the beginning of a strip on.
    fn keys(&self, rows: Range<usize>, length: usize) -> Range<usize> {
        let (first, last) = (self.reach(rows.start, length), self.reach(rows.end - 1, length));
        first.start / STRIP * STRIP..last.end
    }
}

/// Elements of scratch needed for sequences of at most `longest` tokens in a pool of `threads`.
pub fn attention_scratch_len(longest: usize, threads: usize) -> usize {
    threads * scratch_per_thread(longest)
}

/// Scores and their gradients of a block; the relative bias of every distance, and its gradient.
fn scratch_per_thread(longest: usize) -> usize {
    2 * (BLOCK * longest + distances(longest))
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

/// What a task has of its thread: room for a block's scores and their gradients, and for the relative bias of every
/// distance and its gradient.
struct Scratch<'a> {
    scores: &'a mut [f32],
    gradients: &'a mut [f32],
    bias: &'a mut [f32],
    bias_gradient: &'a mut [f32],
}

/// Runs `task` for every head of every sequence, each call with scratch of its own thread.
fn for_each_head(
    shape: AttentionShape,
    offsets: &[u32],
    scratch: &mut [f32],
    task: impl Fn(Head, Scratch) + Sync,
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
        let (scores, rest) = scratch.split_at_mut(BLOCK * longest);
        let (gradients, rest) = rest.split_at_mut(BLOCK * longest);
        let (first, end) = (offsets[sequence] as usize, offsets[sequence + 1] as usize);
        let length = end - first;
        let (bias, rest) = rest.split_at_mut(distances(length));
        let bias_gradient = &mut rest[..distances(length)];
        let scratch = Scratch { scores, gradients, bias, bias_gradient };
        task(Head { sequence, head, first, length }, scratch);
    });
}

/// Attention of each head over each sequence's own tokens.
///
/// `qkv` `[tokens, 3 · width]` holds query, key and value side by side; `context` `[tokens, width]` is overwritten;
/// `log_sum_exp` `[tokens, heads]` is what the backward pass needs of the probabilities. `bias`, a table of
/// [`BUCKETS`] rows of `heads`, is added to the scores by distance. `dropout` acts on the probabilities, keyed by
/// `sequence_keys[sequence]`.
///
/// # Panics
/// When `scratch` is shorter than [`attention_scratch_len`], or a buffer than its shape.
#[expect(clippy::too_many_arguments, reason = "one fused pass has these operands")]
pub fn attention_forward(
    shape: AttentionShape,
    qkv: &[f32],
    offsets: &[u32],
    sequence_keys: &[u32],
    bias: Option<&[f32]>,
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
    assert!(bias.is_none_or(|bias| holds(bias.len(), BUCKETS, shape.heads)), "relative bias is too short");
    let (context, log_sum_exp) = (Shared::new(context), Shared::new(log_sum_exp));
    for_each_head(shape, offsets, scratch, |Head { sequence, head, first, length }, scratch| {
        let input = |row: usize, rows: usize, part: usize| {
            Mat::strided(&qkv[(first + row) * 3 * width + part * width + head * dh..], rows, dh, 3 * width)
        };
        let bias = bias.map(|table| by_distance(table, shape.heads, head, length, scratch.bias));
        for start in (0..length).step_by(BLOCK) {
            let rows = BLOCK.min(length - start);
            let keys = shape.keys(start..start + rows, length);
            let block = Block { shape, start, keys: keys.clone(), length };
            let tile = &mut scratch.scores[..rows * keys.len()];
            let (queries, reached) = (input(start, rows, 0), input(keys.start, keys.len(), 1));
            let scores = MatMut::new(tile, rows, keys.len());
            matmul_on_this_thread(scores, queries, reached.t(), shape.scale(), false);
            let mut lse = [0.0; BLOCK];
            let mask = dropout.map(|(d, site)| (d, site.head(head), sequence_keys[sequence]));
            softmax_rows(&block, tile, bias, mask, &mut lse);
            let token = first + start;
            for (r, lse) in lse[..rows].iter().enumerate() {
                // SAFETY: the element of this token and head is written by this task alone.
                unsafe { log_sum_exp.slice((token + r) * shape.heads + head, 1)[0] = *lse };
            }
            let out = context.matrix(token * width + head * dh, rows, dh, width);
            let (tile, values) = (Mat::new(tile, rows, keys.len()), input(keys.start, keys.len(), 2));
            // SAFETY: rows and columns of `context` for this head of this sequence belong to this task alone.
            unsafe { product_into(out, tile, values, 1.0, false) };
        }
    });
}

/// What a head's mask depends on, beside row and column.
type HeadMask<'a> = (&'a Dropout, Site, u32);

/// A block of scores: query rows from `start` on against `keys`.
struct Block {
    shape: AttentionShape,
    start: usize,
    keys: Range<usize>,
    length: usize,
}

impl Block {
    /// The columns of the block's row `r` that it attends to.
    fn reach(&self, r: usize) -> Range<usize> {
        let reach = self.shape.reach(self.start + r, self.length);
        reach.start - self.keys.start..reach.end - self.keys.start
    }

    /// Of the bias of every distance, that of the block's row `r` to each of the keys.
    #[inline(always)]
    fn bias_of<'b>(&self, r: usize, bias: &'b [f32]) -> &'b [f32] {
        &bias[self.length - 1 - (self.start + r) + self.keys.start..][..self.keys.len()]
    }
}

/// Relative bias, softmax and dropout of a block's rows in place, and their log-sum-exps.
#[multiversion(targets = "simd")]
fn softmax_rows(
    block: &Block,
    scores: &mut [f32],
    bias: Option<&[f32]>,
    mask: Option<HeadMask>,
    lse: &mut [f32],
) {
    for (r, (row, lse)) in scores.chunks_exact_mut(block.keys.len()).zip(lse).enumerate() {
        if let Some(bias) = bias {
            add(row, block.bias_of(r, bias));
        }
        let reach = block.reach(r);
        row[..reach.start].fill(0.0);
        row[reach.end..].fill(0.0);
        *lse = softmax(&mut row[reach]);
        if let Some((dropout, site, key)) = mask {
            dropout.apply_from(site, key, (block.start + r) as u32, block.keys.start / STRIP, row);
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

/// A relative bias and where its gradient goes.
pub struct RelativeBias<'a> {
    /// The table, as in [`attention_forward`].
    pub table: &'a [f32],
    /// Its gradient, added to.
    pub gradient: &'a mut [f32],
    /// Room for the gradient of every head of every sequence: [`BUCKETS`] each.
    pub parts: &'a mut [f32],
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
    bias: Option<RelativeBias>,
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
    let (table, table_gradient, parts) = match bias {
        Some(RelativeBias { table, gradient, parts }) => (Some(table), gradient, parts),
        None => (None, &mut [][..], &mut [][..]),
    };
    assert!(table.is_none_or(|table| holds(table.len(), BUCKETS, shape.heads)), "relative bias is too short");
    let shared_parts = Shared::new(parts);
    for_each_head(shape, offsets, scratch, |Head { sequence, head, first, length }, scratch| {
        let place = |row: usize, part: usize| (first + row) * 3 * width + part * width + head * dh;
        let input = |row: usize, rows: usize, part: usize| {
            Mat::strided(&qkv[place(row, part)..], rows, dh, 3 * width)
        };
        let gradient =
            |row: usize, rows: usize, part: usize| gradients.matrix(place(row, part), rows, dh, 3 * width);
        let bias = table.map(|table| by_distance(table, shape.heads, head, length, scratch.bias));
        if bias.is_some() {
            scratch.bias_gradient.fill(0.0);
        }
        let mut reached = 0;
        for start in (0..length).step_by(BLOCK) {
            let rows = BLOCK.min(length - start);
            let block = Block { shape, start, keys: shape.keys(start..start + rows, length), length };
            let (from, count) = (block.keys.start, block.keys.len());
            let (p, ds) = (&mut scratch.scores[..rows * count], &mut scratch.gradients[..rows * count]);
            let token = first + start;
            let upstream = Mat::strided(&context_gradient[token * width + head * dh..], rows, dh, width);
            let (queries, keys, values) =
                (input(start, rows, 0), input(from, count, 1), input(from, count, 2));
            matmul_on_this_thread(MatMut::new(p, rows, count), queries, keys.t(), scale, false);
            matmul_on_this_thread(MatMut::new(ds, rows, count), upstream, values.t(), 1.0, false);
            let (mut lse, mut along) = ([0.0; BLOCK], [0.0; BLOCK]);
            for r in 0..rows {
                let span = (token + r) * width + head * dh..(token + r) * width + (head + 1) * dh;
                let (o, g) = (&context[span.clone()], &context_gradient[span]);
                along[r] = sum(dh, |i| o[i] * g[i]);
                lse[r] = log_sum_exp[(token + r) * shape.heads + head];
            }
            let mask = dropout.map(|(d, site)| (d, site.head(head), sequence_keys[sequence]));
            score_gradients(&block, p, ds, bias, (&lse, &along), scale, mask);
            if bias.is_some() {
                bias_gradients(&block, ds, scratch.bias_gradient);
            }
            let (p, ds) = (Mat::new(p, rows, count), Mat::new(ds, rows, count));
            // The first block overwrites the gradients of the keys that it reaches; those that a later one is the first
            // to reach begin at 0.
            let again = start > 0;
            let newly = if again { reached..block.keys.end } else { 0..0 };
            for key in newly {
                for part in [1, 2] {
                    // SAFETY: as below.
                    unsafe { gradients.slice(place(key, part), dh).fill(0.0) };
                }
            }
            reached = block.keys.end;
            // SAFETY: rows and columns of the gradient for this head of this sequence belong to this task alone, which
            // writes one after the other.
            unsafe {
                product_into(gradient(from, count, 2), p.t(), upstream, 1.0, again);
                product_into(gradient(start, rows, 0), ds, keys, 1.0, false);
                product_into(gradient(from, count, 1), ds.t(), queries, 1.0, again);
            }
        }
        if bias.is_some() {
            // SAFETY: each head of each sequence has a part of its own.
            let part = unsafe { shared_parts.slice((sequence * shape.heads + head) * BUCKETS, BUCKETS) };
            add_buckets(scratch.bias_gradient, length, 1.0 / scale, part);
        }
    });
    if table.is_some() {
        // In the order of sequences, whoever ran them.
        for (index, part) in
            parts[..(offsets.len() - 1) * shape.heads * BUCKETS].chunks_exact(BUCKETS).enumerate()
        {
            for (bucket, value) in part.iter().enumerate() {
                table_gradient[bucket * shape.heads + index % shape.heads] += value;
            }
        }
    }
}

/// Rows of a block: `p` turns from scores into (dropped-out) probabilities, `ds` from the gradient of those into that of
/// the scaled scores.
#[multiversion(targets = "simd")]
fn score_gradients(
    block: &Block,
    p: &mut [f32],
    ds: &mut [f32],
    bias: Option<&[f32]>,
    sums: (&[f32], &[f32]),
    scale: f32,
    mask: Option<HeadMask>,
) {
    let count = block.keys.len();
    let rows = p.chunks_exact_mut(count).zip(ds.chunks_exact_mut(count));
    for (r, (p, ds)) in rows.enumerate() {
        let (lse, along) = (sums.0[r], sums.1[r]);
        if let Some(bias) = bias {
            add(p, block.bias_of(r, bias));
        }
        match mask {
            None => {
                for (p, d) in p.iter_mut().zip(ds.iter_mut()) {
                    *p = exp(*p - lse);
                    *d = *p * (*d - along) * scale;
                }
            }
            Some((dropout, site, key)) => {
                let first = block.keys.start / STRIP;
                for (strip, (p, ds)) in (first..).zip(p.chunks_mut(STRIP).zip(ds.chunks_mut(STRIP))) {
                    let multipliers = dropout.strip(site, key, (block.start + r) as u32, strip);
                    for ((p, d), m) in p.iter_mut().zip(ds).zip(&multipliers) {
                        let probability = exp(*p - lse);
                        *d = probability * (*d * m - along) * scale;
                        *p = probability * m;
                    }
                }
            }
        }
        let reach = block.reach(r);
        for outside in [0..reach.start, reach.end..count] {
            p[outside.clone()].fill(0.0);
            ds[outside].fill(0.0);
        }
    }
}

/// Adds a block's gradients of scores to those of their distances.
#[multiversion(targets = "simd")]
fn bias_gradients(block: &Block, ds: &[f32], by_distance: &mut [f32]) {
    for (r, ds) in ds.chunks_exact(block.keys.len()).enumerate() {
        let first = block.length - 1 - (block.start + r) + block.keys.start;
        add(&mut by_distance[first..][..ds.len()], ds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relative_bias::bucket;
    use crate::testing::{assert_close, numeric_gradient, to64, values};

    /// Plain float64 attention of `qkv` with a relative bias.
    fn plain(
        [x, bias]: [&[f64]; 2],
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
                    let within = |j: &usize| shape.window.is_none_or(|window| i.abs_diff(*j) <= window);
                    let score = |j: usize| {
                        let product: f64 = (0..dh).map(|c| element(i, 0, c) * element(j, 1, c)).sum();
                        let bucket = bucket(j as isize - i as isize) * shape.heads + head;
                        (product / (dh as f64).sqrt() + bias.get(bucket).unwrap_or(&0.0)).exp()
                    };
                    let scores: Vec<(usize, f64)> =
                        (first..end).filter(within).map(|j| (j, score(j))).collect();
                    let total: f64 = scores.iter().map(|(_, score)| score).sum();
                    for c in 0..dh {
                        let share = |(j, score): &(usize, f64)| {
                            score / total * mask(s, head, i - first, j - first) * element(*j, 2, c)
                        };
                        out[i * width + head * dh + c] = scores.iter().map(share).sum();
                    }
                }
            }
        }
        out
    }

    /// Without a bias, and with one.
    fn check(shape: AttentionShape, lengths: &[u32], dropout: Option<Dropout>, numeric: bool) {
        check_with(shape, lengths, dropout, numeric, false);
        check_with(shape, lengths, dropout, numeric, true);
    }

    fn check_with(
        shape: AttentionShape,
        lengths: &[u32],
        dropout: Option<Dropout>,
        numeric: bool,
        biased: bool,
    ) {
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
        let table = values(if biased { BUCKETS * shape.heads } else { 0 }, 5, 1.0);
        let site = Site::attention(0);
        let mask = |s: usize, head: usize, i: usize, j: usize| {
            dropout.map_or(1.0, |d| d.multiplier(site.head(head), keys[s], i as u32, j) as f64)
        };
        let weights = values(tokens * width, 9, 1.0);
        let (x, table64) = (to64(&qkv), to64(&table));
        let mut context = vec![f32::NAN; tokens * width];
        let mut lse = vec![0.0; tokens * shape.heads];
        let longest = *lengths.iter().max().unwrap() as usize;
        let mut scratch = vec![f32::NAN; attention_scratch_len(longest, rayon::current_num_threads())];
        let dropout = dropout.as_ref().map(|d| (d, site));
        let bias = biased.then_some(table.as_slice());
        attention_forward(shape, &qkv, &offsets, &keys, bias, dropout, &mut context, &mut lse, &mut scratch);
        assert_close(&context, &plain([&x, &table64], shape, &offsets, &mask), 5e-6);
        if numeric {
            let mut gradient = vec![f32::NAN; qkv.len()];
            let mut table_gradient = vec![0.0; table.len()];
            let mut parts = vec![f32::NAN; lengths.len() * shape.heads * BUCKETS];
            let bias = biased.then_some(RelativeBias {
                table: &table,
                gradient: &mut table_gradient,
                parts: &mut parts,
            });
            attention_backward(
                shape,
                &qkv,
                &context,
                &lse,
                &offsets,
                &keys,
                bias,
                dropout,
                &weights,
                &mut gradient,
                &mut scratch,
            );
            let loss = |inputs: [&[f64]; 2]| -> f64 {
                plain(inputs, shape, &offsets, &mask).iter().zip(&weights).map(|(y, w)| y * *w as f64).sum()
            };
            assert_close(&gradient, &numeric_gradient(&x, |x| loss([x, &table64])), 2e-5);
            assert_close(&table_gradient, &numeric_gradient(&table64, |table| loss([&x, table])), 2e-5);
        }
    }

    #[test]
    fn buffers_and_offsets_that_do_not_agree_are_refused() {
        let shape = AttentionShape { heads: 2, head_width: 4, window: None };
        let refused = |shape: AttentionShape, offsets: &[u32], lengths: [usize; 3]| {
            let [qkv, context, lse] = lengths.map(|length| vec![0.0; length]);
            let forward = std::panic::catch_unwind(|| {
                let mut scratch = vec![0.0; attention_scratch_len(8, rayon::current_num_threads())];
                let (mut context, mut lse) = (context.clone(), lse.clone());
                attention_forward(
                    shape,
                    &qkv,
                    offsets,
                    &[0; 4],
                    None,
                    None,
                    &mut context,
                    &mut lse,
                    &mut scratch,
                );
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
        let wide = AttentionShape { heads: 1 << 40, head_width: 1 << 40, window: None };
        assert_eq!(refused(wide, &[0, 3, 8], [192, 64, 16]), [true; 2]);
    }

    #[test]
    fn forward_and_backward_agree_with_float64_at_odd_lengths() {
        let shape = AttentionShape { heads: 2, head_width: 5, window: None };
        check(shape, &[1], None, true);
        check(shape, &[3, 1, 7], None, true);
        check(shape, &[3, 9, 2], Dropout::new(0.3, 1, 1), true);
        check(AttentionShape { heads: 1, head_width: 4, ..shape }, &[67], Dropout::new(0.2, 1, 1), true);
    }

    #[test]
    fn windows_reach_as_far_as_they_say_within_a_block_and_across_blocks() {
        let dropout = Dropout::new(0.25, 1, 1);
        for window in [0, 1, 3, 100, usize::MAX] {
            let shape = AttentionShape { heads: 2, head_width: 3, window: Some(window) };
            check(shape, &[1, 9, 4], None, true);
            check(shape, &[6, 2], dropout, true);
        }
        for (window, dropout) in [(2, None), (70, dropout)] {
            let shape = AttentionShape { heads: 1, head_width: 2, window: Some(window) };
            check(shape, &[135], dropout, true);
        }
    }

    #[test]
    fn the_longest_sequence_is_attended_in_blocks() {
        check(AttentionShape { heads: 1, head_width: 32, window: None }, &[512, 130], None, false);
        check(AttentionShape { heads: 1, head_width: 32, window: Some(64) }, &[512, 130], None, false);
    }
}
