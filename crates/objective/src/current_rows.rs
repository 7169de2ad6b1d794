//! Rows of current queries: their losses, and the gradient of the queries, in one pass over all columns.
//!
//! Each worker takes a share of the columns and keeps, per row, a running maximum, sums of exponentials and the
//! correspondingly weighted sum of passages (the online softmax of Milakov and Gimelshein, arXiv 1805.02867, as in
//! FlashAttention, arXiv 2205.14135); the shares are then merged in order.

use std::ops::Range;

use contaccum_kernels::{Mat, MatMut, matmul_on_this_thread};
use rayon::prelude::*;

use crate::bank::Bank;
use crate::batch::Current;
use crate::config::ObjectiveConfig;
use crate::worker::{CURRENT, Groups, Online, Worker, absorb, kept_place, share, tiles};

/// What the rows of a batch came to.
pub(crate) struct CurrentRows<'a> {
    /// The loss of each row.
    pub(crate) losses: &'a mut [f64],
    /// The log-sum-exp of each row over all its columns.
    pub(crate) lse: &'a mut [f64],
    /// The gradient of the queries.
    pub(crate) gradient: &'a mut [f32],
}

/// What current rows met, summed over them.
#[derive(Default)]
pub(crate) struct Met {
    /// The softmax mass on banked columns by age class and, last, on current negatives.
    pub(crate) mass: Groups,
    /// Columns left out, each row's own positive among them.
    pub(crate) left_out: u64,
    /// Rows that other columns than their own positive were left out of.
    pub(crate) masked_rows: usize,
    /// Rows without any negative.
    pub(crate) rows_without_negatives: usize,
}

/// How the bank takes part in a step.
#[derive(Clone, Copy)]
pub(crate) struct BankUse {
    /// Samples that are rows and columns: all that live, or none.
    pub(crate) samples: usize,
    /// Whether the workers keep the logits of the batch's queries against them.
    pub(crate) keep_logits: bool,
}

/// Fills `rows`; `factor` multiplies the gradient of the rows' summed loss with respect to logits.
pub(crate) fn current_rows(
    config: &ObjectiveConfig,
    workers: &mut [Worker],
    current: &Current,
    bank: &Bank,
    banked: BankUse,
    factor: f64,
    rows: CurrentRows,
) -> Met {
    let parts = workers.len();
    let dim = config.dim;
    let bank_columns = if banked.samples > 0 { bank.live_columns() } else { 0 };
    let all_columns = current.columns() + bank_columns;
    let mut met = Met::default();
    for samples in tiles(0..current.samples(), config.tile_lines()) {
        workers.par_iter_mut().enumerate().for_each(|(part, worker)| {
            worker.online[..samples.len()].fill(Online::EMPTY);
            worker.sums[..samples.len() * dim].fill(0.0);
            let columns = share(current.columns(), part, parts);
            see_current_columns(config, worker, current, samples.clone(), columns);
            worker.share = share(banked.samples, part, parts);
            if bank.columns_per_sample() > 0 {
                see_bank_columns(config, worker, current, bank, samples.clone(), banked.keep_logits);
            }
        });
        for (line, sample) in samples.enumerate() {
            let (max, groups, left_out) = merge(workers, line);
            met.left_out += left_out as u64;
            met.masked_rows += usize::from(left_out > 1);
            met.rows_without_negatives += usize::from(left_out == all_columns);
            let own = current.own_score(sample);
            let others = max + groups.iter().sum::<f64>().ln();
            rows.losses[sample] = crate::softmax::softplus(others - own);
            rows.lse[sample] = own + rows.losses[sample];
            for (mass, sum) in met.mass.iter_mut().zip(groups) {
                *mass += sum * (max - rows.lse[sample]).exp();
            }
            let gradient = &mut rows.gradient[sample * dim..(sample + 1) * dim];
            let own_weight = ((-rows.losses[sample]).exp_m1() * factor) as f32;
            for (g, p) in gradient.iter_mut().zip(current.positive(sample)) {
                *g = own_weight * p;
            }
            for worker in &*workers {
                let weight = ((f64::from(worker.online[line].max) - rows.lse[sample]).exp() * factor) as f32;
                for (g, sum) in gradient.iter_mut().zip(&worker.sums[line * dim..(line + 1) * dim]) {
                    *g += weight * sum;
                }
            }
        }
    }
    met
}

fn see_current_columns(
    config: &ObjectiveConfig,
    worker: &mut Worker,
    current: &Current,
    samples: Range<usize>,
    columns: Range<usize>,
) {
    let dim = config.dim;
    let Worker { logits, dots, sums, online, .. } = worker;
    let (online, sums) = (&mut online[..samples.len()], &mut sums[..samples.len() * dim]);
    let length = (config.tile_logits / samples.len()).min(config.lines_in_cache(dim)).max(1);
    for columns in tiles(columns, length) {
        let width = columns.len();
        let logits = &mut logits[..samples.len() * width];
        current.logits(current.queries(samples.clone()), columns.clone(), dots, logits);
        for ((row, online), sample) in logits.chunks_mut(width).zip(&mut *online).zip(samples.clone()) {
            online.left_out += current.exclude_for_current(row, columns.clone(), sample);
        }
        absorb(logits, width, online, sums, dim, CURRENT);
        current.add_columns(logits, columns, sums);
    }
}

fn see_bank_columns(
    config: &ObjectiveConfig,
    worker: &mut Worker,
    current: &Current,
    bank: &Bank,
    samples: Range<usize>,
    keep_logits: bool,
) {
    let (dim, per_sample, rows) = (config.dim, bank.columns_per_sample(), samples.len());
    let Worker { logits, dots, sums, widened, online, own_positives, share, kept_logits, .. } = worker;
    let (online, sums) = (&mut online[..rows], &mut sums[..rows * dim]);
    let length =
        (config.tile_logits / (rows * per_sample)).min(config.lines_in_cache(dim * per_sample)).max(1);
    let mut positions = share.clone();
    while !positions.is_empty() {
        let (class, same_class) = bank.age_class(positions.start);
        let at = positions.start..positions.end.min(positions.start + same_class.min(length));
        positions.start = at.end;
        let width = at.len() * per_sample;
        let logits = &mut logits[..rows * width];
        let passages = bank.columns(at.clone(), widened);
        dots.write(current.queries(samples.clone()), passages, logits, width);
        for ((row, online), sample) in logits.chunks_mut(width).zip(&mut *online).zip(samples.clone()) {
            let relevant = current.relevant_to(sample);
            let left_out = bank.exclude(row, at.clone(), relevant);
            online.left_out += left_out;
            let met = if config.mask_false_negatives { left_out } else { bank.count(at.clone(), relevant) };
            *own_positives += u64::from(met);
            if keep_logits {
                kept_logits[kept_place(share, sample, &at, per_sample)].copy_from_slice(row);
            }
        }
        absorb(logits, width, online, sums, dim, class);
        let (weights, passages) = (Mat::new(logits, rows, width), Mat::new(passages, width, dim));
        matmul_on_this_thread(MatMut::new(sums, rows, dim), weights, passages, 1.0, true);
    }
}

/// The softmax of a row over the shares of all workers: its maximum, its sums relative to `e^max`, and how many columns
/// were left out of it.
fn merge(workers: &[Worker], line: usize) -> (f64, Groups, usize) {
    let parts = workers.iter().map(|worker| worker.online[line]);
    let max = parts.clone().fold(Online::EMPTY.max, |max, part| max.max(part.max));
    let left_out = parts.clone().map(|part| part.left_out as usize).sum();
    let mut groups = Online::EMPTY.sums;
    for part in parts {
        let factor = (f64::from(part.max) - f64::from(max)).exp();
        for (group, sum) in groups.iter_mut().zip(part.sums) {
            *group += sum * factor;
        }
    }
    (f64::from(max), groups, left_out)
}
