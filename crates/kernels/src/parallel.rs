//! Cutting rows into parts for the thread pool, with reductions that do not depend on who ran what.

use multiversion::multiversion;

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

/// A pointer that several threads may use at once, each on elements of its own.
#[derive(Clone, Copy)]
pub(crate) struct Shared(*mut f32);

// SAFETY: every use dereferences disjoint elements per thread, as stated where it is used.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(crate) fn new(data: &mut [f32]) -> Self {
        Self(data.as_mut_ptr())
    }

    pub(crate) fn at(self, index: usize) -> *mut f32 {
        self.0.wrapping_add(index)
    }
}
