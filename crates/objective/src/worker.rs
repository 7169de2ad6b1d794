//! What one thread holds during a step: a tile of logits and the sums of its share.

use std::ops::Range;

use crate::bank::AGES;
use crate::config::ObjectiveConfig;
use crate::dots::{Dots, Threads};
use crate::softmax::{NO_COLUMN, exp_in_place, max};

/// Sums of exponentials of a row, by age class of the bank and, last, over current columns.
pub(crate) type Groups = [f64; AGES + 1];

/// The group of current columns.
pub(crate) const CURRENT: usize = AGES;

/// A row's running softmax over the columns seen so far: sums are relative to `e^max`.
#[derive(Clone, Copy)]
pub(crate) struct Online {
    pub(crate) max: f32,
    /// Columns left out, the row's own positive among them.
    pub(crate) left_out: u32,
    pub(crate) sums: Groups,
}

impl Online {
    pub(crate) const EMPTY: Self = Self { max: NO_COLUMN, left_out: 0, sums: [0.0; AGES + 1] };
}

pub(crate) struct Worker {
    /// A tile of logits.
    pub(crate) logits: Vec<f32>,
    pub(crate) dots: Dots,
    /// Weighted sums of representations for a tile's side of rows (or columns), `side × dim`.
    pub(crate) sums: Vec<f32>,
    /// Bank representations of the tile, where they are not stored as `f32`.
    pub(crate) widened: Vec<f32>,
    /// The softmax of a tile's side of rows.
    pub(crate) online: Vec<Online>,
    /// Ring positions of the bank that are this worker's share.
    pub(crate) share: Range<usize>,
    /// Log-sum-exps of this share's banked rows, own positives included.
    pub(crate) bank_lse: Vec<f64>,
    /// Log-sum-exps of this share's banked rows over the current columns alone.
    pub(crate) batch_lse: Vec<f64>,
    /// Logits of the batch's queries against this share's columns, a line for each query, where they are kept.
    pub(crate) kept_logits: Vec<f32>,
    /// Banked columns that hold a passage relevant to a current row.
    pub(crate) own_positives: u64,
    /// Summed losses of this share's banked rows.
    pub(crate) bank_loss: f64,
}

impl Worker {
    pub(crate) fn new(config: &ObjectiveConfig) -> Self {
        Self {
            logits: vec![0.0; config.tile_room()],
            dots: Dots::new(Threads::One, config.dim, config.temperature.recip(), config.tile_room()),
            sums: vec![0.0; config.tile_lines() * config.dim],
            widened: vec![0.0; config.widened_room()],
            online: vec![Online::EMPTY; config.tile_lines()],
            share: 0..0,
            bank_lse: vec![0.0; Self::most_bank_rows(config)],
            batch_lse: vec![0.0; Self::most_bank_rows(config)],
            kept_logits: contaccum_kernels::resident_zeros(Self::most_kept_logits(config)),
            own_positives: 0,
            bank_loss: 0.0,
        }
    }

    /// Bytes of one worker and what [`Worker::new`] allocates.
    pub(crate) fn bytes(config: &ObjectiveConfig) -> usize {
        size_of::<Self>()
            + Dots::bytes(config.tile_room())
            + (config.tile_room()
                + config.tile_lines() * config.dim
                + config.widened_room()
                + Self::most_kept_logits(config))
                * size_of::<f32>()
            + config.tile_lines() * size_of::<Online>()
            + 2 * Self::most_bank_rows(config) * size_of::<f64>()
    }

    fn most_bank_rows(config: &ObjectiveConfig) -> usize {
        if config.banks_rows() { config.bank_samples.div_ceil(rayon::current_num_threads()) } else { 0 }
    }

    fn most_kept_logits(config: &ObjectiveConfig) -> usize {
        if !config.keeps_logits() {
            return 0;
        }
        config.max_batch_samples * Self::most_bank_rows(config) * config.bank_columns()
    }
}

/// Where the kept logits of the batch's query `sample` against the columns at `positions` of a `share` lie.
pub(crate) fn kept_place(
    share: &Range<usize>,
    sample: usize,
    positions: &Range<usize>,
    per_sample: usize,
) -> Range<usize> {
    let place = |position: usize| (sample * share.len() + position - share.start) * per_sample;
    place(positions.start)..place(positions.end)
}

/// Turns a tile of logits, one row of `width` for each of `online`, into exponentials relative to each row's new
/// maximum, adds them to the rows' sums and brings `sums` (`rows × dim`) to the same maximum.
pub(crate) fn absorb(
    logits: &mut [f32],
    width: usize,
    online: &mut [Online],
    sums: &mut [f32],
    dim: usize,
    group: usize,
) {
    for ((logits, online), sums) in logits.chunks_mut(width).zip(online).zip(sums.chunks_mut(dim)) {
        let top = max(logits);
        if top > online.max {
            let factor = (f64::from(online.max) - f64::from(top)).exp();
            online.max = top;
            online.sums.iter_mut().for_each(|sum| *sum *= factor);
            sums.iter_mut().for_each(|sum| *sum *= factor as f32);
        }
        online.sums[group] += exp_in_place(logits, online.max);
    }
}

/// `range` in pieces of `length` and a rest.
pub(crate) fn tiles(range: Range<usize>, length: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(length).map(move |start| start..end.min(start + length))
}

/// The part of `total` items that worker `index` of `workers` takes.
pub(crate) fn share(total: usize, index: usize, workers: usize) -> Range<usize> {
    total * index / workers..total * (index + 1) / workers
}
