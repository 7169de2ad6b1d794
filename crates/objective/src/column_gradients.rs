//! Columns of current passages: their gradient from all rows, and the losses of the rows of banked queries.
//!
//! Columns are taken a tile's side at a time; each worker adds the rows of its share, current and banked, to sums
//! of its own, which are then added in order. A banked row is complete (its log-sum-exp known) once it has seen all
//! current columns: in the same pass when one tile holds them, in a pass before otherwise.

use std::ops::Range;

use contaccum_kernels::{Mat, MatMut, matmul_on_this_thread};
use rayon::prelude::*;

use crate::bank::Bank;
use crate::batch::Current;
use crate::block_sums::BlockSums;
use crate::config::ObjectiveConfig;
use crate::softmax::{log_add, log_sum_exp, probabilities_in_place, softplus};
use crate::worker::{Worker, share, tiles};

/// The rows that current columns take part in.
pub(crate) struct AllRows<'a> {
    pub(crate) config: &'a ObjectiveConfig,
    pub(crate) current: &'a Current<'a>,
    pub(crate) bank: &'a Bank,
    /// Banked rows that count: all that live, or none.
    pub(crate) bank_rows: usize,
    pub(crate) block_sums: Option<&'a BlockSums>,
    /// The loss of each current row.
    pub(crate) losses: &'a [f64],
    /// The log-sum-exp of each current row.
    pub(crate) lse: &'a [f64],
}

impl AllRows<'_> {
    /// Writes the gradient of the current positives and hard negatives; `factor` multiplies the gradient of the
    /// rows' summed loss with respect to logits. Returns the summed losses of the banked rows.
    pub(crate) fn column_gradients(
        &self,
        workers: &mut [Worker],
        factor: f64,
        positives: &mut [f32],
        hard_negatives: &mut [f32],
    ) -> f64 {
        let (parts, dim, all) = (workers.len(), self.config.dim, self.current.columns());
        let one_tile = all <= self.config.tile_lines();
        workers.iter_mut().for_each(|worker| worker.bank_loss = 0.0);
        if !one_tile {
            workers.par_iter_mut().enumerate().for_each(|(part, worker)| {
                let share = share(self.bank_rows, part, parts);
                for positions in tiles(share.clone(), self.tile_rows(self.config.tile_lines())) {
                    self.complete(worker, positions.clone(), positions.start - share.start);
                }
            });
        }
        for columns in tiles(0..all, self.config.tile_lines()) {
            let tile_rows = self.tile_rows(columns.len());
            workers.par_iter_mut().enumerate().for_each(|(part, worker)| {
                worker.sums[..columns.len() * dim].fill(0.0);
                for samples in tiles(share(self.current.samples(), part, parts), tile_rows) {
                    self.add_current_rows(worker, samples, columns.clone());
                }
                let share = share(self.bank_rows, part, parts);
                for positions in tiles(share.clone(), tile_rows) {
                    let start = positions.start - share.start;
                    if one_tile {
                        self.complete(worker, positions.clone(), start);
                    } else {
                        self.bank_logits(worker, positions.clone(), columns.clone());
                    }
                    self.add_bank_rows(worker, positions, start, columns.len());
                }
            });
            for (line, column) in columns.enumerate() {
                let gradient = match column.checked_sub(self.current.samples()) {
                    None => &mut positives[column * dim..(column + 1) * dim],
                    Some(hard) => &mut hard_negatives[hard * dim..(hard + 1) * dim],
                };
                gradient.fill(0.0);
                for worker in &*workers {
                    for (g, sum) in gradient.iter_mut().zip(&worker.sums[line * dim..(line + 1) * dim]) {
                        *g += sum;
                    }
                }
                gradient.iter_mut().for_each(|g| *g *= factor as f32);
            }
        }
        workers.iter().map(|worker| worker.bank_loss).sum()
    }

    /// Rows of a tile that is `columns` wide.
    fn tile_rows(&self, columns: usize) -> usize {
        (self.config.tile_logits / columns).min(self.config.lines_in_cache(self.config.dim)).max(1)
    }

    /// Sums the banked rows at `positions` over all columns and adds up their losses; `start` is their place in the
    /// worker's share. Leaves the logits of the last tile of columns in place.
    fn complete(&self, worker: &mut Worker, positions: Range<usize>, start: usize) {
        let places = start..start + positions.len();
        worker.batch_lse[places.clone()].fill(f64::NEG_INFINITY);
        for columns in tiles(0..self.current.columns(), self.config.tile_lines()) {
            self.bank_logits(worker, positions.clone(), columns.clone());
            let rows = worker.logits.chunks(columns.len());
            for (lse, row) in worker.batch_lse[places.clone()].iter_mut().zip(rows) {
                *lse = log_add(*lse, log_sum_exp(row));
            }
        }
        match self.block_sums {
            Some(sums) => worker.bank_lse[places.clone()].copy_from_slice(sums.totals(positions.clone())),
            None => worker.bank_lse[places.clone()].fill(f64::NEG_INFINITY),
        }
        for (lse, &batch) in worker.bank_lse[places.clone()].iter_mut().zip(&worker.batch_lse[places.clone()])
        {
            *lse = log_add(*lse, batch);
        }
        for (lse, own) in worker.bank_lse[places].iter_mut().zip(self.bank.own_scores(positions)) {
            let loss = softplus(*lse - own);
            worker.bank_loss += loss;
            *lse = own + loss;
        }
    }

    /// Logits of the banked rows at `positions` against current `columns`, into the worker's tile.
    fn bank_logits(&self, worker: &mut Worker, positions: Range<usize>, columns: Range<usize>) {
        let width = columns.len();
        let logits = &mut worker.logits[..positions.len() * width];
        let queries = self.bank.queries(positions.clone(), &mut worker.widened);
        self.current.logits(queries, columns.clone(), &mut worker.dots, logits);
        for (row, position) in logits.chunks_mut(width).zip(positions) {
            self.current.exclude(row, columns.clone(), self.bank.relevant_to(position));
        }
    }

    /// Adds banked rows, whose logits are in the worker's tile, to the worker's sums.
    fn add_bank_rows(&self, worker: &mut Worker, positions: Range<usize>, start: usize, width: usize) {
        let rows = positions.len();
        let logits = &mut worker.logits[..rows * width];
        for (row, &lse) in logits.chunks_mut(width).zip(&worker.bank_lse[start..]) {
            probabilities_in_place(row, lse);
        }
        let queries = self.bank.queries(positions, &mut worker.widened);
        add_rows(&mut worker.sums, logits, queries, rows, width, self.config.dim);
    }

    /// Adds current rows to the worker's sums for `columns`.
    fn add_current_rows(&self, worker: &mut Worker, samples: Range<usize>, columns: Range<usize>) {
        let (rows, width) = (samples.len(), columns.len());
        let logits = &mut worker.logits[..rows * width];
        let queries = self.current.queries(samples.clone());
        self.current.logits(queries, columns.clone(), &mut worker.dots, logits);
        for (row, sample) in logits.chunks_mut(width).zip(samples) {
            self.current.exclude_for_current(row, columns.clone(), sample);
            probabilities_in_place(row, self.lse[sample]);
            if columns.contains(&sample) {
                row[sample - columns.start] = (-self.losses[sample]).exp_m1() as f32;
            }
        }
        add_rows(&mut worker.sums, logits, queries, rows, width, self.config.dim);
    }
}

/// `sums += weightsᵀ · queries`, with `weights` of `rows × width` and `queries` of `rows × dim`.
fn add_rows(sums: &mut [f32], weights: &[f32], queries: &[f32], rows: usize, width: usize, dim: usize) {
    let weights = Mat::new(weights, rows, width).t();
    let queries = Mat::new(queries, rows, dim);
    matmul_on_this_thread(MatMut::new(&mut sums[..width * dim], width, dim), weights, queries, 1.0, true);
}
