//! Matrix products on strided views, by the `gemm` crate.

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

fn fits(len: usize, rows: usize, cols: usize, row_stride: usize) -> bool {
    rows == 0 || cols == 0 || (rows - 1) * row_stride + cols <= len
}

/// `out = alpha · lhs · rhs`, or `out += alpha · lhs · rhs` with `accumulate`, on the current rayon pool.
///
/// # Panics
/// When the shapes do not agree.
pub fn matmul(out: MatMut, lhs: Mat, rhs: Mat, alpha: f32, accumulate: bool) {
    let threads = rayon::current_num_threads();
    let parallelism = if threads > 1 { gemm::Parallelism::Rayon(threads) } else { gemm::Parallelism::None };
    product(out, lhs, rhs, alpha, accumulate, parallelism);
}

/// [`matmul`] on the calling thread alone, for use inside a parallel loop.
///
/// # Panics
/// When the shapes do not agree.
pub fn matmul_on_this_thread(out: MatMut, lhs: Mat, rhs: Mat, alpha: f32, accumulate: bool) {
    product(out, lhs, rhs, alpha, accumulate, gemm::Parallelism::None);
}

fn product(out: MatMut, lhs: Mat, rhs: Mat, alpha: f32, accumulate: bool, parallelism: gemm::Parallelism) {
    assert_eq!((out.rows, out.cols), (lhs.rows, rhs.cols), "product has another shape");
    assert_eq!(lhs.cols, rhs.rows, "inner dimensions differ");
    if out.rows == 0 || out.cols == 0 {
        return;
    }
    // SAFETY: the views were checked against their buffers when made, `out` is borrowed mutably, so it
    // overlaps neither operand.
    unsafe {
        gemm::gemm(
            out.rows,
            out.cols,
            lhs.cols,
            out.data.as_mut_ptr(),
            1,
            out.row_stride as isize,
            accumulate,
            lhs.data.as_ptr(),
            lhs.col_stride as isize,
            lhs.row_stride as isize,
            rhs.data.as_ptr(),
            rhs.col_stride as isize,
            rhs.row_stride as isize,
            1.0f32,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
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
    fn products_agree_with_plain_loops_in_every_orientation() {
        let (m, n, k) = (5, 7, 3);
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
