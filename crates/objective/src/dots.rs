//! Dot products of two sets of representations, scaled to logits.
//!
//! Not a library's matrix product: with the 8 rows of a micro-batch on one side, `gemm` 0.19 repacks the bank or
//! leaves half of its lanes empty (three times slower here), and sums 768 terms one after the other, which costs
//! logits of a hundred their last digit. Here a dot product is summed in lanes and the lanes pairwise.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Who computes the dot products of a tile.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The calling thread.
    One,
    /// All threads of the current pool.
    All,
}

/// Dot products and the room they need.
pub(crate) struct Dots {
    threads: Threads,
    dim: usize,
    scale: f32,
    transposed: Vec<f32>,
}

impl Dots {
    /// For representations of `dim` values and outputs of at most `room` logits.
    pub(crate) fn new(threads: Threads, dim: usize, scale: f32, room: usize) -> Self {
        Self { threads, dim, scale, transposed: vec![0.0; room] }
    }

    /// Bytes that [`Dots::new`] allocates.
    pub(crate) fn bytes(room: usize) -> usize {
        room * size_of::<f32>()
    }

    /// Writes the logits of `rows` against `columns` (both `… × dim`) to `out`, whose lines start `stride` apart.
    pub(crate) fn write(&mut self, rows: &[f32], columns: &[f32], out: &mut [f32], stride: usize) {
        let (height, width) = (rows.len() / self.dim, columns.len() / self.dim);
        if height >= width {
            self.products(rows, columns, out, stride);
            return;
        }
        let mut transposed = std::mem::take(&mut self.transposed);
        self.products(columns, rows, &mut transposed, height);
        for (row, line) in out.chunks_mut(stride).take(height).enumerate() {
            for (column, logit) in line[..width].iter_mut().enumerate() {
                *logit = transposed[column * height + row];
            }
        }
        self.transposed = transposed;
    }

    /// The products of `many` with `few`, a line for each of `many`.
    fn products(&self, many: &[f32], few: &[f32], out: &mut [f32], stride: usize) {
        let (dim, scale, arch) = (self.dim, self.scale, Arch::new());
        match self.threads {
            Threads::One => arch.dispatch(Products { many, few, dim, scale, out, stride }),
            Threads::All => {
                let lines = (many.len() / dim).div_ceil(4 * rayon::current_num_threads()).max(16);
                let parts = out.par_chunks_mut(lines * stride).zip(many.par_chunks(lines * dim));
                parts.for_each(|(out, many)| arch.dispatch(Products { many, few, dim, scale, out, stride }));
            }
        }
    }
}

/// Vectors of `many` and of `few` that are multiplied at a time, and vectors of `few` that stay in the first cache.
const MANY: usize = 4;
const FEW: usize = 2;
const PANEL: usize = 16;

struct Products<'a> {
    many: &'a [f32],
    few: &'a [f32],
    dim: usize,
    scale: f32,
    out: &'a mut [f32],
    stride: usize,
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let (many, few) = (self.many, self.few);
        for (panel, few) in few.chunks(PANEL * self.dim).enumerate() {
            for (block, many) in many.chunks(MANY * self.dim).enumerate() {
                let start = block * MANY * self.stride + panel * PANEL;
                if many.len() == MANY * self.dim {
                    let many = std::array::from_fn(|i| &many[i * self.dim..(i + 1) * self.dim]);
                    self.lines::<S, MANY>(simd, many, few, start);
                } else {
                    for (line, many) in many.chunks_exact(self.dim).enumerate() {
                        self.lines::<S, 1>(simd, [many], few, start + line * self.stride);
                    }
                }
            }
        }
    }
}

impl Products<'_> {
    /// The products of some of `many` with a panel of `few`, to the lines of `out` from `start` on.
    #[inline(always)]
    fn lines<S: Simd, const LINES: usize>(
        &mut self,
        simd: S,
        many: [&[f32]; LINES],
        few: &[f32],
        start: usize,
    ) {
        for (place, few) in few.chunks(FEW * self.dim).enumerate() {
            let start = start + place * FEW;
            if few.len() == FEW * self.dim {
                let few = std::array::from_fn(|j| &few[j * self.dim..(j + 1) * self.dim]);
                self.write(start, dots::<S, LINES, FEW>(simd, many, few));
            } else {
                self.write(start, dots::<S, LINES, 1>(simd, many, [few]));
            }
        }
    }

    #[inline(always)]
    fn write<const LINES: usize, const COLUMNS: usize>(
        &mut self,
        start: usize,
        dots: [[f32; COLUMNS]; LINES],
    ) {
        for (line, dots) in dots.iter().enumerate() {
            for (column, dot) in dots.iter().enumerate() {
                self.out[start + line * self.stride + column] = dot * self.scale;
            }
        }
    }
}

/// The dot products of every one of `many` with every one of `few`.
#[inline(always)]
fn dots<S: Simd, const LINES: usize, const COLUMNS: usize>(
    simd: S,
    many: [&[f32]; LINES],
    few: [&[f32]; COLUMNS],
) -> [[f32; COLUMNS]; LINES] {
    let many = many.map(S::as_simd_f32s);
    let few = few.map(S::as_simd_f32s);
    let whole = few[0].0.len();
    let (many_whole, few_whole) = (many.map(|(x, _)| &x[..whole]), few.map(|(y, _)| &y[..whole]));
    let mut sums = [[simd.splat_f32s(0.0); COLUMNS]; LINES];
    for k in 0..whole {
        for i in 0..LINES {
            for j in 0..COLUMNS {
                sums[i][j] = simd.mul_add_f32s(many_whole[i][k], few_whole[j][k], sums[i][j]);
            }
        }
    }
    let mut dots = [[0.0; COLUMNS]; LINES];
    for i in 0..LINES {
        for j in 0..COLUMNS {
            let (x, y) = (simd.partial_load_f32s(many[i].1), simd.partial_load_f32s(few[j].1));
            dots[i][j] = simd.reduce_sum_f32s(simd.mul_add_f32s(x, y, sums[i][j]));
        }
    }
    dots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_agrees_with_plain_loops_and_leaves_what_lies_between_lines() {
        for (height, width, dim) in
            [(1, 1, 1), (9, 3, 17), (3, 9, 33), (40, 37, 8), (5, 19, 100), (2, 2, 384)]
        {
            let rows: Vec<f32> = (0..height * dim).map(|i| (i as f32 * 0.7).sin()).collect();
            let columns: Vec<f32> = (0..width * dim).map(|i| (i as f32 * 0.3).cos()).collect();
            for threads in [Threads::One, Threads::All] {
                let stride = width + 2;
                let mut out = vec![7.0f32; height * stride];
                Dots::new(threads, dim, 0.5, height * width).write(&rows, &columns, &mut out, stride);
                for (i, line) in out.chunks(stride).enumerate() {
                    for (j, &found) in line[..width].iter().enumerate() {
                        let pairs = rows[i * dim..].iter().zip(&columns[j * dim..(j + 1) * dim]);
                        let exact: f64 = pairs.map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
                        assert!((f64::from(found) - 0.5 * exact).abs() < 1e-5);
                    }
                    assert_eq!(line[width..], [7.0; 2]);
                }
            }
        }
    }
}
