//! Dot products of two sets of representations, scaled to logits.
//!
//! Not a library's matrix product: with the 8 rows of a micro-batch on one side, `gemm` 0.19 repacks the bank or
//! leaves half of its lanes empty (five times slower here), and sums 768 terms one after the other, which costs
//! logits of a hundred their last digit. Here a dot product is summed in lanes and the lanes pairwise.

use multiversion::multiversion;
use multiversion::target::target_cfg_f;
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
        let (dim, scale) = (self.dim, self.scale);
        match self.threads {
            Threads::One => products(many, few, dim, scale, out, stride),
            Threads::All => {
                let lines = (many.len() / dim).div_ceil(4 * rayon::current_num_threads()).max(16);
                let parts = out.par_chunks_mut(lines * stride).zip(many.par_chunks(lines * dim));
                parts.for_each(|(out, many)| products(many, few, dim, scale, out, stride));
            }
        }
    }
}

/// Vectors of `many` and of `few` that are multiplied at a time, and vectors of `few` that stay in the first cache.
const MANY: usize = 4;
const FEW: usize = 2;
const PANEL: usize = 16;

#[multiversion(targets = "simd")]
fn products(many: &[f32], few: &[f32], dim: usize, scale: f32, out: &mut [f32], stride: usize) {
    const FUSED: bool = target_cfg_f!(any(target_feature = "fma", target_arch = "aarch64"));
    if target_cfg_f!(target_feature = "avx512f") {
        in_lanes::<16, FUSED>(many, few, dim, scale, out, stride);
    } else {
        in_lanes::<8, FUSED>(many, few, dim, scale, out, stride);
    }
}

#[inline(always)]
fn in_lanes<const LANES: usize, const FUSED: bool>(
    many: &[f32],
    few: &[f32],
    dim: usize,
    scale: f32,
    out: &mut [f32],
    stride: usize,
) {
    for (panel, few) in few.chunks(PANEL * dim).enumerate() {
        for (lines, many) in many.chunks(MANY * dim).enumerate() {
            let out = &mut out[lines * MANY * stride + panel * PANEL..];
            if many.len() == MANY * dim {
                let many = std::array::from_fn(|i| &many[i * dim..(i + 1) * dim]);
                lines_of_panel::<MANY, LANES, FUSED>(many, few, dim, scale, out, stride);
            } else {
                for (line, many) in many.chunks_exact(dim).enumerate() {
                    lines_of_panel::<1, LANES, FUSED>(
                        [many],
                        few,
                        dim,
                        scale,
                        &mut out[line * stride..],
                        stride,
                    );
                }
            }
        }
    }
}

#[inline(always)]
fn lines_of_panel<const LINES: usize, const LANES: usize, const FUSED: bool>(
    many: [&[f32]; LINES],
    few: &[f32],
    dim: usize,
    scale: f32,
    out: &mut [f32],
    stride: usize,
) {
    for (place, few) in few.chunks(FEW * dim).enumerate() {
        if few.len() == FEW * dim {
            let few = std::array::from_fn(|j| &few[j * dim..(j + 1) * dim]);
            let dots = block::<LINES, FEW, LANES, FUSED>(many, few);
            for (line, dots) in dots.iter().enumerate() {
                for (column, dot) in dots.iter().enumerate() {
                    out[line * stride + place * FEW + column] = dot * scale;
                }
            }
        } else {
            let dots = block::<LINES, 1, LANES, FUSED>(many, [few]);
            for (line, [dot]) in dots.iter().enumerate() {
                out[line * stride + place * FEW] = dot * scale;
            }
        }
    }
}

/// The dot products of every one of `many` with every one of `few`.
#[inline(always)]
fn block<const LINES: usize, const COLUMNS: usize, const LANES: usize, const FUSED: bool>(
    many: [&[f32]; LINES],
    few: [&[f32]; COLUMNS],
) -> [[f32; COLUMNS]; LINES] {
    let dim = few[0].len();
    let whole = dim / LANES;
    let many_lanes = many.map(|x| &x.as_chunks::<LANES>().0[..whole]);
    let few_lanes = few.map(|x| &x.as_chunks::<LANES>().0[..whole]);
    let mut sums = [[[0.0f32; LANES]; COLUMNS]; LINES];
    for k in 0..whole {
        for (sums, x) in sums.iter_mut().zip(many_lanes) {
            for (sums, y) in sums.iter_mut().zip(few_lanes) {
                for lane in 0..LANES {
                    sums[lane] = if FUSED {
                        x[k][lane].mul_add(y[k][lane], sums[lane])
                    } else {
                        x[k][lane] * y[k][lane] + sums[lane]
                    };
                }
            }
        }
    }
    let mut dots = [[0.0; COLUMNS]; LINES];
    for i in 0..LINES {
        for j in 0..COLUMNS {
            let rest = many[i][whole * LANES..].iter().zip(&few[j][whole * LANES..]);
            dots[i][j] = pairwise(sums[i][j]) + rest.map(|(x, y)| x * y).sum::<f32>();
        }
    }
    dots
}

/// The sum of the lanes, halves first.
#[inline(always)]
fn pairwise<const LANES: usize>(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
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
