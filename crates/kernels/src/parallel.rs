//! Cutting rows into parts for the thread pool, with reductions that do not depend on who ran what.

use std::marker::PhantomData;

use multiversion::multiversion;

use crate::matrix::fits;

/// Parts per thread: enough that a slow thread hands work to a fast one.
const PARTS_PER_THREAD: usize = 4;

/// Scratch for sums over rows: one partial sum per part, added up in part order.
pub struct Partials {
    parts: usize,
    width: usize,
    data: Vec<f32>,
}

impl Partials {
    /// Room for sums of up to `width` columns in all, for the current thread pool.
    pub fn new(width: usize) -> Self {
        let parts = rayon::current_num_threads() * PARTS_PER_THREAD;
        Self { parts, width, data: crate::resident_zeros(parts * width) }
    }

    /// Bytes that [`Partials::new`] allocates for this width and thread count.
    pub fn memory_bytes(width: usize, threads: usize) -> usize {
        threads * PARTS_PER_THREAD * width * size_of::<f32>()
    }

    /// Rows per part when `rows` are cut.
    pub(crate) fn rows_per_part(&self, rows: usize) -> usize {
        rows.div_ceil(self.parts).max(1)
    }

    /// One zeroed partial of `width` columns for each part that `rows` are cut into.
    ///
    /// # Panics
    /// When `width` exceeds that given to [`Partials::new`].
    pub(crate) fn zeroed(&mut self, rows: usize, width: usize) -> &mut [f32] {
        assert!(width <= self.width, "reduction of {width} columns in scratch for {}", self.width);
        let used = rows.div_ceil(self.rows_per_part(rows));
        let data = &mut self.data[..used * width];
        data.fill(0.0);
        data
    }

    /// Adds the partials' columns `first..first + sums.len()` to `sums`, in part order.
    pub(crate) fn add_to(&self, rows: usize, width: usize, first: usize, sums: &mut [f32]) {
        let used = rows.div_ceil(self.rows_per_part(rows));
        for part in self.data[..used * width].chunks_exact(width) {
            add_rows(sums, &part[first..first + sums.len()]);
        }
    }
}

/// `to += from`, elementwise.
#[inline(always)]
pub(crate) fn add(to: &mut [f32], from: &[f32]) {
    for (t, f) in to.iter_mut().zip(from) {
        *t += f;
    }
}

/// `sums[c] += Σ_r rows[r, c]` for rows of `sums.len()` columns.
#[multiversion(targets = "simd")]
pub(crate) fn add_rows(sums: &mut [f32], rows: &[f32]) {
    for row in rows.chunks_exact(sums.len()) {
        add(sums, row);
    }
}

/// Rows per part for loops without a reduction.
pub(crate) fn rows_per_part(rows: usize) -> usize {
    rows.div_ceil(rayon::current_num_threads() * PARTS_PER_THREAD).max(1)
}

/// A buffer that several threads write at once, each to elements of its own. What it gives out lies inside of it; that
/// no two tasks are given the same elements is what its users promise.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a> {
    at: *mut f32,
    len: usize,
    borrowed: PhantomData<&'a mut [f32]>,
}

// SAFETY: it is a `&mut [f32]`, which may be sent; elements are reached through `unsafe` functions alone, whose callers
// promise that no other task has the same ones.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub(crate) fn new(data: &'a mut [f32]) -> Self {
        Self { at: data.as_mut_ptr(), len: data.len(), borrowed: PhantomData }
    }

    /// `count` elements from `first` on.
    ///
    /// # Panics
    /// When the buffer is shorter.
    ///
    /// # Safety
    /// While the slice lives, nothing else uses its elements.
    pub(crate) unsafe fn slice(self, first: usize, count: usize) -> &'a mut [f32] {
        assert!(first <= self.len && count <= self.len - first, "a part exceeds its buffer");
        // SAFETY: inside the buffer by the assertion, which is borrowed for 'a; unaliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.at.add(first), count) }
    }

    /// A matrix of `rows × cols` from element `first` on, its rows `row_stride` elements apart.
    ///
    /// # Panics
    /// When it exceeds the buffer.
    pub(crate) fn matrix(self, first: usize, rows: usize, cols: usize, row_stride: usize) -> SharedMat<'a> {
        assert!(first <= self.len, "a matrix begins outside its buffer");
        assert!(fits(self.len - first, rows, cols, row_stride), "a matrix exceeds its buffer");
        // SAFETY: `first` is at most the length.
        let at = unsafe { self.at.add(first) };
        SharedMat { at, rows, cols, row_stride, borrowed: PhantomData }
    }
}

/// A matrix inside a shared buffer, see [`Shared::matrix`].
#[derive(Clone, Copy)]
pub(crate) struct SharedMat<'a> {
    pub(crate) at: *mut f32,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) row_stride: usize,
    borrowed: PhantomData<&'a mut [f32]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panics(make: impl FnOnce() -> usize) -> bool {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(make)).is_err()
    }

    #[test]
    fn parts_lie_inside_their_buffer() {
        let mut data = [0.0; 10];
        let shared = Shared::new(&mut data);
        // SAFETY: no two parts are alive at once.
        assert_eq!(unsafe { [shared.slice(0, 10).len(), shared.slice(10, 0).len()] }, [10, 0]);
        assert_eq!(shared.matrix(4, 2, 2, 4).rows, 2);
        for (first, count) in [(0, 11), (11, 0), (10, 1), (usize::MAX, 2), (2, usize::MAX)] {
            // SAFETY: as above.
            assert!(panics(|| unsafe { shared.slice(first, count).len() }), "{first} {count}");
        }
        for (first, rows, stride) in [(5, 2, 4), (0, 3, 1 << 63), (0, usize::MAX, 2), (11, 0, 0)] {
            assert!(panics(|| shared.matrix(first, rows, 2, stride).rows), "{first} {rows} {stride}");
        }
    }
}
