//! Rows that are encoded again after an update, to see how far the encoder has moved.

use contaccum_kernels::resident_zeros;
use contaccum_objective::Probe;

/// Rows of a total batch for each that is probed.
const ROWS_PER_PROBE: usize = 16;

/// The last rows of a batch: their queries and positives before and after its update.
pub(crate) struct ProbeRows {
    first_row: usize,
    rows: usize,
    dim: usize,
    pub queries: BeforeAndAfter,
    pub positives: BeforeAndAfter,
}

/// Vectors of the probed rows, row-major.
pub(crate) struct BeforeAndAfter {
    before: Vec<f32>,
    pub after: Vec<f32>,
}

impl ProbeRows {
    pub fn new(total_batch: usize, dim: usize) -> Self {
        let rows = Self::rows(total_batch);
        let vectors =
            || BeforeAndAfter { before: resident_zeros(rows * dim), after: resident_zeros(rows * dim) };
        Self { first_row: total_batch - rows, rows, dim, queries: vectors(), positives: vectors() }
    }

    /// Rows that are probed of a total batch.
    pub fn rows(total_batch: usize) -> usize {
        (total_batch / ROWS_PER_PROBE).max(1)
    }

    /// Vectors that [`ProbeRows::new`] has room for.
    pub fn vectors(total_batch: usize) -> usize {
        4 * Self::rows(total_batch)
    }

    /// Turns to a batch of so many rows: those of a total batch, or fewer.
    pub fn begin(&mut self, rows: usize) {
        let most = self.queries.before.len() / self.dim;
        self.rows = most.min(rows);
        self.first_row = rows - self.rows;
    }

    pub fn first_row(&self) -> usize {
        self.first_row
    }

    /// Keeps those of a micro-batch's vectors that belong to probed rows; it begins at `first_row` of the total batch.
    pub fn remember(&mut self, first_row: usize, queries: &[f32], positives: &[f32]) {
        let skipped = self.first_row.saturating_sub(first_row) * self.dim;
        let at = first_row.saturating_sub(self.first_row) * self.dim;
        for (side, vectors) in [(&mut self.queries, queries), (&mut self.positives, positives)] {
            if let Some(vectors) = vectors.get(skipped..) {
                side.before[at..at + vectors.len()].copy_from_slice(vectors);
            }
        }
    }

    pub fn seen(&self) -> Probe<'_> {
        let values = self.rows * self.dim;
        Probe {
            queries_before: &self.queries.before[..values],
            queries_after: &self.queries.after[..values],
            positives_before: &self.positives.before[..values],
            positives_after: &self.positives.after[..values],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_sixteenth_is_kept_however_the_batch_is_cut() {
        // 96 rows of two values, row r being [r, r + 0.5]: the last six are probed.
        let queries: Vec<f32> = (0..192).map(|i| i as f32 / 2.0).collect();
        let positives: Vec<f32> = queries.iter().map(|x| -x).collect();
        for micro_batch in [1, 4, 12, 96] {
            let mut probe = ProbeRows::new(96, 2);
            for first in (0..96).step_by(micro_batch) {
                let at = 2 * first..2 * (first + micro_batch);
                probe.remember(first, &queries[at.clone()], &positives[at]);
            }
            assert_eq!(probe.first_row(), 90);
            assert_eq!(probe.seen().queries_before, &queries[180..]);
            assert_eq!(probe.seen().positives_before, &positives[180..]);
        }
        assert_eq!(ProbeRows::rows(1), 1);
    }
}
