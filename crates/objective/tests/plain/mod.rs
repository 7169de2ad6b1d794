//! The objective in plain `f64`: the whole matrix, no tiles, no caches, the banks as lists of samples.
#![allow(dead_code, reason = "each test program uses its own part")]

mod moving;

use std::collections::{HashSet, VecDeque};

use contaccum_objective::{
    BankDtype, Batch, GradientsMut, LossReport, Objective, ObjectiveConfig, RowScale, Rows,
};
use moving::{Moving, Probed};

/// One sample with its representations and passage ids.
#[derive(Clone, Debug)]
pub struct Sample {
    pub query: Vec<f32>,
    pub query_id: u32,
    pub positive: Vec<f32>,
    pub positive_id: u32,
    pub hard_negatives: Vec<(u32, Vec<f32>)>,
}

/// The samples as a bank holds them.
pub fn stored(samples: &[Sample], dtype: BankDtype) -> Vec<Sample> {
    let mut samples = samples.to_vec();
    if dtype == BankDtype::Bf16 {
        for sample in &mut samples {
            let hard_negatives = sample.hard_negatives.iter_mut().map(|(_, values)| values);
            for values in [&mut sample.query, &mut sample.positive].into_iter().chain(hard_negatives) {
                values.iter_mut().for_each(|x| *x = half::bf16::from_f32(*x).to_f32());
            }
        }
    }
    samples
}

/// A batch that owns its values.
#[derive(Clone, Debug, Default)]
pub struct OwnedBatch {
    pub queries: Vec<f32>,
    pub positives: Vec<f32>,
    pub hard_negatives: Vec<f32>,
    pub query_ids: Vec<u32>,
    pub positive_ids: Vec<u32>,
    pub hard_negative_ids: Vec<u32>,
    pub counts: Vec<u32>,
}

impl OwnedBatch {
    pub fn new(samples: &[Sample]) -> Self {
        let mut batch = Self::default();
        for sample in samples {
            batch.queries.extend(&sample.query);
            batch.positives.extend(&sample.positive);
            batch.query_ids.push(sample.query_id);
            batch.positive_ids.push(sample.positive_id);
            batch.counts.push(sample.hard_negatives.len() as u32);
            for (id, values) in &sample.hard_negatives {
                batch.hard_negatives.extend(values);
                batch.hard_negative_ids.push(*id);
            }
        }
        batch
    }

    pub fn view(&self) -> Batch<'_> {
        Batch {
            queries: &self.queries,
            positives: &self.positives,
            hard_negatives: &self.hard_negatives,
            query_ids: &self.query_ids,
            positive_ids: &self.positive_ids,
            hard_negative_ids: &self.hard_negative_ids,
            hard_negatives_per_sample: &self.counts,
        }
    }
}

/// A step's report and gradients.
#[derive(Clone, Debug, PartialEq)]
pub struct Step<T, R> {
    pub report: R,
    pub queries: Vec<T>,
    pub positives: Vec<T>,
    pub hard_negatives: Vec<T>,
}

pub fn step(objective: &mut Objective, batch: &OwnedBatch, scale: f32) -> Step<f32, LossReport> {
    step_by(batch, |batch, gradients| objective.step(batch, scale, gradients))
}

pub fn step_without_banks(
    objective: &mut Objective,
    batch: &OwnedBatch,
    scale: f32,
) -> Step<f32, LossReport> {
    step_by(batch, |batch, gradients| objective.step_without_banks(batch, scale, gradients))
}

pub fn step_and_enqueue(objective: &mut Objective, batch: &OwnedBatch, scale: f32) -> Step<f32, LossReport> {
    step_by(batch, |batch, gradients| objective.step_and_enqueue(batch, scale, gradients))
}

fn step_by(
    batch: &OwnedBatch,
    step: impl FnOnce(Batch, GradientsMut) -> LossReport,
) -> Step<f32, LossReport> {
    // NaN first: a step must overwrite, and every value.
    let mut queries = vec![f32::NAN; batch.queries.len()];
    let mut positives = vec![f32::NAN; batch.positives.len()];
    let mut hard_negatives = vec![f32::NAN; batch.hard_negatives.len()];
    let gradients = GradientsMut {
        queries: &mut queries,
        positives: &mut positives,
        hard_negatives: &mut hard_negatives,
    };
    let report = step(batch.view(), gradients);
    Step { report, queries, positives, hard_negatives }
}

/// The plain objective.
pub struct Plain {
    pub config: ObjectiveConfig,
    pub bank: VecDeque<Sample>,
    /// Pairs of a query id and a passage id.
    pub known: HashSet<(u32, u32)>,
    /// What moved banks remember of their samples, where they move.
    pub moving: Option<Moving>,
}

/// What the plain objective reports.
#[derive(Clone, Debug)]
pub struct PlainReport {
    pub loss: f64,
    pub current_rows_loss: f64,
    pub rows: usize,
    pub negatives_per_query: f64,
    pub masked_rows: f64,
    pub rows_without_negatives: usize,
    pub bank_mass_by_age: [f64; 8],
    /// The largest sum of a logit's terms without their signs: what its rounding error grows with.
    pub largest_logit: f64,
    /// The gradients' terms summed without their signs, in the order queries, positives, hard negatives.
    pub gross: [Vec<f64>; 3],
}

struct Column<'a> {
    id: u32,
    values: Vec<f64>,
    /// The sample whose positive this is, banked samples first.
    positive_of: Option<usize>,
    banked: Option<usize>,
    /// Among the columns of a banked sample.
    place: usize,
    gradient: Option<&'a mut [f64]>,
}

fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}

impl Plain {
    pub fn new(config: ObjectiveConfig) -> Self {
        Self { moving: Moving::new(&config), config, bank: VecDeque::new(), known: HashSet::new() }
    }

    pub fn enqueue(&mut self, samples: &[Sample]) {
        let capacity = self.config.bank_samples;
        let entering = &samples[samples.len().saturating_sub(capacity)..];
        let leaving = (self.bank.len() + entering.len()).saturating_sub(capacity);
        self.bank.drain(..leaving);
        self.bank.extend(entering.iter().cloned());
        if let Some(moving) = &mut self.moving {
            moving.entered(&self.bank, leaving, entering.len());
        }
    }

    pub fn clear(&mut self) {
        self.bank.clear();
        self.moving = Moving::new(&self.config);
    }

    /// The loss alone, of representations in `f64`, for finite differences.
    pub fn step(&self, samples: &[Sample], scale: f64) -> Step<f64, PlainReport> {
        let batch = OwnedBatch::new(samples);
        self.step_at(
            samples,
            &widen(&batch.queries),
            &widen(&batch.positives),
            &widen(&batch.hard_negatives),
            scale,
        )
    }

    pub fn step_at(
        &self,
        samples: &[Sample],
        queries: &[f64],
        positives: &[f64],
        hard_negatives: &[f64],
        scale: f64,
    ) -> Step<f64, PlainReport> {
        let (dim, tau) = (self.config.dim, f64::from(self.config.temperature));
        let banked = self.bank.len();
        let mut dq = vec![0.0; queries.len()];
        let mut dp = vec![0.0; positives.len()];
        let mut dh = vec![0.0; hard_negatives.len()];

        let mut columns = Vec::new();
        for (i, (p, g)) in positives.chunks(dim).zip(dp.chunks_mut(dim)).enumerate() {
            columns.push(Column {
                id: samples[i].positive_id,
                values: p.to_vec(),
                positive_of: Some(banked + i),
                banked: None,
                place: 0,
                gradient: Some(g),
            });
        }
        let ids = samples.iter().flat_map(|s| s.hard_negatives.iter().map(|(id, _)| *id));
        for ((id, h), g) in ids.zip(hard_negatives.chunks(dim)).zip(dh.chunks_mut(dim)) {
            columns.push(Column {
                id,
                values: h.to_vec(),
                positive_of: None,
                banked: None,
                place: 0,
                gradient: Some(g),
            });
        }
        for (i, sample) in self.bank.iter().enumerate() {
            columns.push(Column {
                id: sample.positive_id,
                values: widen(&sample.positive),
                positive_of: Some(i),
                banked: Some(i),
                place: 0,
                gradient: None,
            });
            for (place, (id, values)) in sample.hard_negatives.iter().enumerate() {
                if self.config.bank_hard_negatives {
                    columns.push(Column {
                        id: *id,
                        values: widen(values),
                        positive_of: None,
                        banked: Some(i),
                        place: 1 + place,
                        gradient: None,
                    });
                }
            }
        }

        let mut rows: Vec<(usize, [u32; 2], Vec<f64>)> = Vec::new();
        let ids = |sample: &Sample| [sample.query_id, sample.positive_id];
        for (i, q) in queries.chunks(dim).enumerate() {
            rows.push((banked + i, ids(&samples[i]), q.to_vec()));
        }
        if self.config.rows == Rows::All && self.config.bank_queries {
            for (i, sample) in self.bank.iter().enumerate() {
                rows.push((i, ids(sample), widen(&sample.query)));
            }
        }

        let mut report = PlainReport {
            loss: 0.0,
            current_rows_loss: 0.0,
            rows: rows.len(),
            negatives_per_query: 0.0,
            masked_rows: 0.0,
            rows_without_negatives: 0,
            bank_mass_by_age: [0.0; 8],
            largest_logit: 0.0,
            gross: [Vec::new(), Vec::new(), Vec::new()],
        };
        let mut gross_queries = vec![0.0; queries.len()];
        let mut gross_columns = vec![0.0; positives.len() + hard_negatives.len()];
        let n = samples.len();
        let divisor = match self.config.row_scale {
            RowScale::All => rows.len(),
            RowScale::Current => n,
        } as f64;
        for (index, (sample, [query_id, id], query)) in rows.iter().enumerate() {
            let relevant = |column: &Column| column.id == *id || self.known.contains(&(*query_id, column.id));
            let own = |column: &Column| column.positive_of == Some(*sample);
            let shared = |column: &Column| {
                column.banked.is_none() || column.positive_of.is_none() || self.config.bank_passages
            };
            let masked =
                |column: &Column| shared(column) && self.config.mask_false_negatives && relevant(column);
            let counted = |column: &Column| own(column) || (shared(column) && !masked(column));
            let logit = |column: &Column| {
                if !counted(column) {
                    return f64::NEG_INFINITY;
                }
                if let (Some(moving), Some(banked)) = (&self.moving, column.banked)
                    && index >= n
                {
                    return moving.logit(*sample, banked, column.place);
                }
                query.iter().zip(&column.values).map(|(a, b)| a * b).sum::<f64>() / tau
            };
            let logits: Vec<f64> = columns.iter().map(logit).collect();
            let own = columns.iter().position(own).unwrap();
            // The loss as ln(1 + Σ others), which keeps the digits of losses near zero.
            let others = || logits.iter().enumerate().filter(|(j, _)| *j != own).map(|(_, l)| *l);
            let top = others().fold(f64::MIN, f64::max);
            let gap = others().map(|l| (l - top).exp()).sum::<f64>().ln() + top - logits[own];
            let loss = if gap > 0.0 { gap + (-gap).exp().ln_1p() } else { gap.exp().ln_1p() };
            report.loss += loss / rows.len() as f64;
            for column in &columns {
                let terms = query.iter().zip(&column.values);
                let gross = terms.map(|(a, b)| (a * b).abs()).sum::<f64>() / tau;
                report.largest_logit = report.largest_logit.max(gross);
            }
            let current = index < n;
            if current {
                report.current_rows_loss += loss / n as f64;
                let negatives = others().filter(|l| l.is_finite()).count();
                report.negatives_per_query += negatives as f64 / n as f64;
                report.rows_without_negatives += usize::from(negatives == 0);
                let touched = columns.iter().enumerate().any(|(j, column)| j != own && masked(column));
                report.masked_rows += f64::from(touched) / n as f64;
            }
            for (j, column) in columns.iter_mut().enumerate() {
                let p = (logits[j] - logits[own] - loss).exp();
                if let (true, Some(i)) = (current, column.banked) {
                    let age = banked - 1 - i;
                    report.bank_mass_by_age[7 - age * 8 / self.config.bank_samples] += p / n as f64;
                }
                let weight = if j == own { (-loss).exp_m1() } else { p } * scale / (divisor * tau);
                if current {
                    let gradient = dq[index * dim..].iter_mut().zip(&mut gross_queries[index * dim..]);
                    for ((g, gross), x) in gradient.zip(&column.values) {
                        *g += weight * x;
                        *gross += (weight * x).abs();
                    }
                }
                if let Some(gradient) = &mut column.gradient {
                    let gradient = gradient.iter_mut().zip(&mut gross_columns[j * dim..]);
                    for ((g, gross), x) in gradient.zip(query) {
                        *g += weight * x;
                        *gross += (weight * x).abs();
                    }
                }
            }
        }
        let gross_hard = gross_columns.split_off(positives.len());
        report.gross = [gross_queries, gross_columns, gross_hard];
        Step { report, queries: dq, positives: dp, hard_negatives: dh }
    }
}

/// The distance of two gradients relative to the norm of the second.
pub fn relative_distance(found: &[f32], expected: &[f64]) -> f64 {
    distance_in(found, expected, expected)
}

/// The distance of two vectors in units of the norm of a third; what an `f32` cannot hold does not count.
pub fn distance_in(found: &[f32], expected: &[f64], unit: &[f64]) -> f64 {
    const SMALLEST: f64 = 1e-34;
    assert_eq!(found.len(), expected.len());
    let square: f64 = found.iter().zip(expected).map(|(&f, e)| (f64::from(f) - e).powi(2)).sum();
    let norm: f64 = unit.iter().map(|e| e * e).sum();
    if square.sqrt() < SMALLEST { 0.0 } else { (square / norm).sqrt() }
}

/// Queries that samples are drawn of.
pub const QUERIES: usize = 25;

/// A small generator of test values (SplitMix64), so that a test reads the same on every machine.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// A query id that leaves the generator where it is.
    fn query_id(&self) -> u32 {
        Numbers(self.0 ^ 1).below(QUERIES) as u32
    }

    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// A vector of normal values with the given deviation.
    pub fn vector(&mut self, dim: usize, deviation: f64) -> Vec<f32> {
        let mut normal = || (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos();
        (0..dim).map(|_| (normal() * deviation) as f32).collect()
    }

    /// Samples before and after an update that moves them by `distance`, a part of their length, mostly alike.
    pub fn probed(&mut self, count: usize, dim: usize, deviation: f64, distance: f64) -> Probed {
        let common = self.vector(dim, deviation * distance);
        let mut side = || {
            let before = self.vector(count * dim, deviation);
            let own = self.vector(count * dim, 0.3 * deviation * distance);
            let moves = common.iter().cycle().zip(&own);
            let after = before.iter().zip(moves).map(|(x, (all, own))| x + all + own).collect();
            [before, after]
        };
        Probed { queries: side(), positives: side() }
    }

    /// Samples with up to `most_hard` hard negatives each and passage ids below `ids`.
    pub fn samples(
        &mut self,
        count: usize,
        dim: usize,
        deviation: f64,
        most_hard: usize,
        ids: usize,
    ) -> Vec<Sample> {
        (0..count)
            .map(|_| Sample {
                query: self.vector(dim, deviation),
                positive: self.vector(dim, deviation),
                query_id: self.query_id(),
                positive_id: self.below(ids) as u32,
                hard_negatives: (0..self.below(most_hard + 1))
                    .map(|_| (self.below(ids) as u32, self.vector(dim, deviation)))
                    .collect(),
            })
            .collect()
    }
}
