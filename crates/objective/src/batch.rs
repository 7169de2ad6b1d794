//! The current representations and what is asked of them.

use std::ops::Range;

use contaccum_kernels::{Mat, MatMut, matmul_on_this_thread};

use crate::config::{NO_PASSAGE, ObjectiveConfig};
use crate::dots::Dots;
use crate::known_positives::{KnownPositives, Relevant};

/// Representations of a micro-batch of `n` samples with `m` hard negatives in all, row-major.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Queries, `n × dim`.
    pub queries: &'a [f32],
    /// The positive passage of each query, `n × dim`.
    pub positives: &'a [f32],
    /// Hard negatives, sample after sample, `m × dim`.
    pub hard_negatives: &'a [f32],
    /// Ids of the queries, `n`, under which [`KnownPositives`] has their passages; looked at only with the
    /// false-negative mask.
    pub query_ids: &'a [u32],
    /// Passage ids of the positives, `n`; looked at only with the false-negative mask.
    pub positive_ids: &'a [u32],
    /// Passage ids of the hard negatives, `m`.
    pub hard_negative_ids: &'a [u32],
    /// How many hard negatives each sample brought, `n`, summing to `m`.
    pub hard_negatives_per_sample: &'a [u32],
}

/// Where a step writes (not adds) the gradient of `loss · scale`.
#[derive(Debug)]
pub struct GradientsMut<'a> {
    /// With respect to the queries, `n × dim`.
    pub queries: &'a mut [f32],
    /// With respect to the positives, `n × dim`.
    pub positives: &'a mut [f32],
    /// With respect to the hard negatives, `m × dim`.
    pub hard_negatives: &'a mut [f32],
}

/// A checked batch: rows are its queries, columns its positives, then its hard negatives.
#[derive(Clone, Copy)]
pub(crate) struct Current<'a> {
    batch: Batch<'a>,
    known_positives: &'a KnownPositives,
    samples: usize,
    columns: usize,
    dim: usize,
    mask: bool,
    temperature: f32,
}

impl<'a> Current<'a> {
    /// # Panics
    /// When shapes do not agree with each other or exceed the configured sizes.
    pub(crate) fn new(
        batch: Batch<'a>,
        config: &ObjectiveConfig,
        known_positives: &'a KnownPositives,
    ) -> Self {
        let dim = config.dim;
        let samples = batch.positive_ids.len();
        let hard_negatives = batch.hard_negative_ids.len();
        let counts = batch.hard_negatives_per_sample;
        assert!(samples > 0, "a batch needs at least one sample");
        assert!(samples <= config.max_batch_samples, "batch exceeds max_batch_samples");
        assert_eq!(batch.query_ids.len(), samples, "query_ids needs one id per sample");
        assert_eq!(batch.queries.len(), samples * dim, "queries are not samples × dim");
        assert_eq!(batch.positives.len(), samples * dim, "positives are not samples × dim");
        assert_eq!(batch.hard_negatives.len(), hard_negatives * dim, "hard negatives are not ids × dim");
        assert_eq!(counts.len(), samples, "hard_negatives_per_sample needs one count per sample");
        let most = counts.iter().max().map_or(0, |&count| count as usize);
        assert!(
            most <= config.max_hard_negatives_per_sample,
            "a sample exceeds max_hard_negatives_per_sample"
        );
        let sum: usize = counts.iter().map(|&count| count as usize).sum();
        assert_eq!(sum, hard_negatives, "hard_negatives_per_sample does not sum to the hard negatives");
        let mut ids = batch.positive_ids.iter().chain(batch.hard_negative_ids);
        assert!(!ids.any(|&id| id == NO_PASSAGE), "NO_PASSAGE is no passage's id");
        Self {
            batch,
            known_positives,
            samples,
            columns: samples + hard_negatives,
            dim,
            mask: config.mask_false_negatives,
            temperature: config.temperature,
        }
    }

    pub(crate) fn samples(&self) -> usize {
        self.samples
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn query(&self, sample: usize) -> &'a [f32] {
        self.queries(sample..sample + 1)
    }

    pub(crate) fn queries(&self, samples: Range<usize>) -> &'a [f32] {
        &self.batch.queries[samples.start * self.dim..samples.end * self.dim]
    }

    pub(crate) fn positive(&self, sample: usize) -> &'a [f32] {
        &self.batch.positives[sample * self.dim..(sample + 1) * self.dim]
    }

    pub(crate) fn positive_id(&self, sample: usize) -> u32 {
        self.batch.positive_ids[sample]
    }

    pub(crate) fn query_id(&self, sample: usize) -> u32 {
        self.batch.query_ids[sample]
    }

    /// What the row of `sample` does not count as negatives.
    pub(crate) fn relevant_to(&self, sample: usize) -> Relevant<'a> {
        let known = self.known_positives.of(self.query_id(sample));
        Relevant { positive: self.positive_id(sample), known }
    }

    pub(crate) fn hard_negative(&self, index: usize) -> &'a [f32] {
        &self.batch.hard_negatives[index * self.dim..(index + 1) * self.dim]
    }

    pub(crate) fn hard_negative_id(&self, index: usize) -> u32 {
        self.batch.hard_negative_ids[index]
    }

    /// How many hard negatives `sample` brought.
    pub(crate) fn hard_negatives_of(&self, sample: usize) -> usize {
        self.batch.hard_negatives_per_sample[sample] as usize
    }

    /// The logit of a query and its positive, in `f64`.
    pub(crate) fn own_score(&self, sample: usize) -> f64 {
        let pairs = self.query(sample).iter().zip(self.positive(sample));
        pairs.map(|(&q, &p)| f64::from(q) * f64::from(p)).sum::<f64>() / f64::from(self.temperature)
    }

    /// Splits a range of columns into its positives and its hard negatives, each counted from its own start.
    fn split(&self, columns: &Range<usize>) -> (Range<usize>, Range<usize>) {
        let positives = columns.start.min(self.samples)..columns.end.min(self.samples);
        let hard =
            columns.start.max(self.samples) - self.samples..columns.end.max(self.samples) - self.samples;
        (positives, hard)
    }

    /// Logits of `rows` (`k × dim`) against `columns`, `k × columns` into `out`.
    pub(crate) fn logits(&self, rows: &[f32], columns: Range<usize>, dots: &mut Dots, out: &mut [f32]) {
        let (positives, hard) = self.split(&columns);
        let mut start = 0;
        for (source, part) in [(self.batch.positives, positives), (self.batch.hard_negatives, hard)] {
            if part.is_empty() {
                continue;
            }
            let passages = &source[part.start * self.dim..part.end * self.dim];
            dots.write(rows, passages, &mut out[start..], columns.len());
            start += part.len();
        }
    }

    /// `sums += weights · columns`, with `weights` of `k × columns` and `sums` of `k × dim`.
    pub(crate) fn add_columns(&self, weights: &[f32], columns: Range<usize>, sums: &mut [f32]) {
        let (k, width, dim) = (sums.len() / self.dim, columns.len(), self.dim);
        let (positives, hard) = self.split(&columns);
        let mut start = 0;
        for (source, part) in [(self.batch.positives, positives), (self.batch.hard_negatives, hard)] {
            if part.is_empty() {
                continue;
            }
            let passages = Mat::new(&source[part.start * dim..part.end * dim], part.len(), dim);
            let weights = Mat::strided(&weights[start..], k, part.len(), width);
            matmul_on_this_thread(MatMut::new(sums, k, dim), weights, passages, 1.0, true);
            start += part.len();
        }
    }

    /// With the mask, leaves out of a row over `columns` what is `relevant`. Returns how many columns that was.
    pub(crate) fn exclude(&self, row: &mut [f32], columns: Range<usize>, relevant: Relevant) -> u32 {
        if !self.mask {
            return 0;
        }
        let (positives, hard) = self.split(&columns);
        let (first, second) = row.split_at_mut(positives.len());
        relevant.exclude(first, &self.batch.positive_ids[positives])
            + relevant.exclude(second, &self.batch.hard_negative_ids[hard])
    }

    /// [`Current::exclude`] for the row of `sample`, whose own positive is left out (and counted) as well.
    pub(crate) fn exclude_for_current(&self, row: &mut [f32], columns: Range<usize>, sample: usize) -> u32 {
        let excluded = self.exclude(row, columns.clone(), self.relevant_to(sample));
        if !columns.contains(&sample) {
            return excluded;
        }
        row[sample - columns.start] = f32::NEG_INFINITY;
        excluded + u32::from(!self.mask)
    }
}
