//! Matrix products on strided views, by the `f32` part of the `gemm` crate (its other types are a third of a cold build).

use gemm_common::Parallelism;
use rayon::prelude::*;

use crate::parallel::{Shared, SharedMat};

/// A borrowed matrix of `rows × cols` with a stride in elements for each axis.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// A dense row-major matrix.
    ///
    /// # Panics
    /// When `data` is shorter than `rows * cols`.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// A row-major matrix whose rows start `row_stride` elements apart.
    ///
    /// # Panics
    /// When the last row does not fit in `data`.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(fits(data.len(), rows, cols, row_stride), "matrix exceeds its buffer");
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// Rows `first..first + count`.
    fn row_range(self, first: usize, count: usize) -> Self {
        assert!(first + count <= self.rows, "row range exceeds the matrix");
        Self { data: &self.data[first * self.row_stride..], rows: count, ..self }
    }

    /// The transposed view.
    pub fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

/// A mutable row-major matrix of `rows × cols`.
pub struct MatMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

impl<'a> MatMut<'a> {
    /// A dense row-major matrix.
    ///
    /// # Panics
    /// When `data` is shorter than `rows * cols`.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// A row-major matrix whose rows start `row_stride` elements apart.
    ///
    /// # Panics
    /// When the last row does not fit in `data`, or rows overlap.
    pub fn strided(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(row_stride >= cols, "rows of a mutable matrix overlap");
        assert!(fits(data.len(), rows, cols, row_stride), "matrix exceeds its buffer");
        Self { data, rows, cols, row_stride }
    }
}

/// Whether `len` elements hold a matrix; one whose end cannot even be counted does not fit.
pub(crate) fn fits(len: usize, rows: usize, cols: usize, row_stride: usize) -> bool {
    // Strides are signed where they are multiplied with.
    let countable = isize::try_from(row_stride).is_ok();
    let end = || (rows - 1).checked_mul(row_stride)?.checked_add(cols);
    countable && (rows == 0 || cols == 0 || end().is_some_and(|end| end <= len))
}

/// Products with fewer multiplications than this are not worth sharing out.
const SHARED_WORK: usize = 1 << 17;

/// Rows and columns of the microkernels' tiles on row-major outputs, or multiples of them on every instruction set.
const TILE_ROWS: usize = 12;
const TILE_COLS: usize = 64;

/// `out = alpha · lhs · rhs`, or `out += alpha · lhs · rhs` with `accumulate`, on the current rayon pool.
///
/// The longer axis of `out` is cut into one part per thread, and each thread packs and multiplies its own part: the
/// `gemm` crate's own threading packs on one thread while the others wait.
///
/// # Panics
/// When the shapes do not agree.
pub fn matmul(out: MatMut, lhs: Mat, rhs: Mat, alpha: f32, accumulate: bool) {
    check_shapes(&out, lhs, rhs);
    let threads = rayon::current_num_threads();
    let by_rows = out.rows >= out.cols;
    let length = if by_rows { out.rows } else { out.cols };
    if threads == 1 || out.rows.saturating_mul(out.cols).saturating_mul(lhs.cols) < SHARED_WORK {
        return product(out, lhs, rhs, alpha, accumulate);
    }
    // A multiple of the microkernels' tile, so that only the last part has a ragged edge.
    let part = length.div_ceil(threads).next_multiple_of(if by_rows { TILE_ROWS } else { TILE_COLS });
    let shared = Shared::new(out.data);
    (0..length.div_ceil(part)).into_par_iter().with_max_len(1).for_each(|index| {
        let (first, count) = (index * part, part.min(length - index * part));
        let (rows, cols, offset) = match by_rows {
            true => (count, out.cols, first * out.row_stride),
            false => (out.rows, count, first),
        };
        let (lhs, rhs) = match by_rows {
            true => (lhs.row_range(first, count), rhs),
            false => (lhs, rhs.t().row_range(first, count).t()),
        };
        let part = shared.matrix(offset, rows, cols, out.row_stride);
        // SAFETY: parts of different tasks are different rows or columns of `out`.
        unsafe { product_into(part, lhs, rhs, alpha, accumulate) };
    });
}

/// [`matmul`] on the calling thread alone, for use inside a parallel loop.
///
/// # Panics
/// When the shapes do not agree.
pub fn matmul_on_this_thread(out: MatMut, lhs: Mat, rhs: Mat, alpha: f32, accumulate: bool) {
    check_shapes(&out, lhs, rhs);
    product(out, lhs, rhs, alpha, accumulate);
}

fn check_shapes(out: &MatMut, lhs: Mat, rhs: Mat) {
    assert_eq!((out.rows, out.cols), (lhs.rows, rhs.cols), "product has another shape");
    assert_eq!(lhs.cols, rhs.rows, "inner dimensions differ");
}

fn product(out: MatMut, lhs: Mat, rhs: Mat, alpha: f32, accumulate: bool) {
    let (rows, cols, row_stride) = (out.rows, out.cols, out.row_stride);
    // SAFETY: `out` is borrowed mutably, and here alone.
    unsafe {
        product_into(Shared::new(out.data).matrix(0, rows, cols, row_stride), lhs, rhs, alpha, accumulate)
    };
}

/// `out (+)= alpha · lhs · rhs` on the calling thread.
///
/// # Panics
/// When the shapes do not agree.
///
/// # Safety
/// Nothing else reads or writes the elements of `out` meanwhile.
pub(crate) unsafe fn product_into(out: SharedMat, lhs: Mat, rhs: Mat, alpha: f32, accumulate: bool) {
    let (m, n, k) = (out.rows, out.cols, lhs.cols);
    assert_eq!((m, n, k), (lhs.rows, rhs.cols, rhs.rows), "shapes of a product differ");
    if m == 0 || n == 0 {
        return;
    }
    let multiply = gemm_f32::gemm::f32::get_gemm_fn();
    let (lhs_cols, lhs_rows) = (lhs.col_stride as isize, lhs.row_stride as isize);
    let (rhs_cols, rhs_rows) = (rhs.col_stride as isize, rhs.row_stride as isize);
    let (lhs, rhs, alone) = (lhs.data.as_ptr(), rhs.data.as_ptr(), Parallelism::None);
    let (out, stride) = (out.at, out.row_stride as isize);
    // The microkernels write columns: an output in rows is that of the transposed product.
    // SAFETY: all three were held against their buffers when made, strides below `isize::MAX` among it; `out` is the
    // caller's to write, and no borrow of an operand overlaps it.
    unsafe {
        if stride > 1 {
            multiply(
                n, m, k, out, stride, 1, accumulate, rhs, rhs_rows, rhs_cols, lhs, lhs_rows, lhs_cols, 1.0,
                alpha, false, false, false, alone,
            );
        } else {
            multiply(
                m, n, k, out, 1, stride, accumulate, lhs, lhs_cols, lhs_rows, rhs, rhs_cols, rhs_rows, 1.0,
                alpha, false, false, false, alone,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(
        m: usize,
        n: usize,
        k: usize,
        a: impl Fn(usize, usize) -> f64,
        b: impl Fn(usize, usize) -> f64,
    ) -> Vec<f64> {
        let mut out = vec![0.0; m * n];
        for i in 0..m {
            for j in 0..n {
                out[i * n + j] = (0..k).map(|x| a(i, x) * b(x, j)).sum();
            }
        }
        out
    }

    #[test]
    fn a_matrix_that_its_buffer_does_not_hold_is_refused_whatever_its_sizes() {
        let data = [0.0f32; 8];
        assert!(fits(8, 2, 4, 4) && fits(8, 2, 2, 6) && fits(0, 0, 9, 9) && fits(0, 9, 0, 0));
        let sizes = [
            (3, 3, 3),
            (2, 4, 5),
            (usize::MAX, 1, 2),
            (1 << 33, 1, 1 << 31),
            (2, 4, usize::MAX - 3),
            (2, usize::MAX, 1),
            (1, 1, usize::MAX),
        ];
        for (rows, cols, stride) in sizes {
            let made = std::panic::catch_unwind(|| Mat::strided(&data, rows, cols, stride).rows);
            assert!(made.is_err(), "{rows} x {cols} by {stride}");
            let made =
                std::panic::catch_unwind(|| MatMut::strided(&mut data.clone(), rows, cols, stride).rows);
            assert!(made.is_err(), "{rows} x {cols} by {stride}");
        }
    }

    #[test]
    fn products_agree_with_plain_loops_in_every_orientation() {
        for (m, n, k) in [(5, 7, 3), (200, 70, 33), (70, 200, 33)] {
            agree(m, n, k);
        }
    }

    fn agree(m: usize, n: usize, k: usize) {
        let a: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.7).sin()).collect();
        let b: Vec<f32> = (0..k * n).map(|i| (i as f32 * 0.3).cos()).collect();
        let expected = plain(m, n, k, |i, x| a[i * k + x] as f64, |x, j| b[x * n + j] as f64);
        let at: Vec<f32> = (0..k * m).map(|i| a[(i % m) * k + i / m]).collect();
        let bt: Vec<f32> = (0..n * k).map(|i| b[(i % k) * n + i / k]).collect();
        for (lhs, rhs) in [
            (Mat::new(&a, m, k), Mat::new(&b, k, n)),
            (Mat::new(&at, k, m).t(), Mat::new(&b, k, n)),
            (Mat::new(&a, m, k), Mat::new(&bt, n, k).t()),
        ] {
            let mut out = vec![1.0f32; m * n];
            matmul(MatMut::new(&mut out, m, n), lhs, rhs, 2.0, true);
            for (o, e) in out.iter().zip(&expected) {
                assert!((*o as f64 - 1.0 - 2.0 * e).abs() < 1e-5);
            }
            matmul_on_this_thread(MatMut::new(&mut out, m, n), lhs, rhs, 1.0, false);
            for (o, e) in out.iter().zip(&expected) {
                assert!((*o as f64 - e).abs() < 1e-5);
            }
        }
    }
}
