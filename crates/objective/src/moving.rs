//! Moving banked representations along with the encoder.
//!
//! An optimizer's step moves all vectors of an encoder by nearly the same small displacement; banked vectors that stay
//! behind teach the encoder to tell old from new, which moves it further the same way. So a few samples are encoded
//! again after each update, and every banked vector takes the displacement of those most like it. With `x_k` and
//! `x'_k` the vectors of the samples probed, before and after the update, and `Δ_k = x'_k − x_k`,
//!
//! ```text
//! every banked b:  w_k = softmax_k(cos(b, x_k) / 0.1),  b ← b + Σ_k w_k Δ_k,  and to length one where vectors have it
//! drift d = Σ|Δ_k|² / (2 Σ|x_k|²)            of vectors of length one: the mean of 1 − cos(x_k, x'_k)
//! path of a sample = Σ √(2d)                 over the updates since it entered: how far it has been moved
//! ```
//!
//! Queries take the displacements of queries and passages those of passages; with one encoder both take all. A sample
//! whose path is beyond 0.35 leaves, but one of the last update only beyond 0.7. (Kin: moment matching of cross-batch
//! memories, Ajanthan et al. 2023; semantic drift compensation of prototypes, Yu et al., CVPR 2020.)

use std::ops::Range;

use contaccum_kernels::{Mat, MatMut, matmul_on_this_thread};

use crate::config::{Compensation, ObjectiveConfig};
use crate::softmax::{exp_in_place, max};
use crate::worker::Worker;

/// The kernel's temperature, over cosines.
const KERNEL: f32 = 0.1;

/// The longest path of a banked sample.
pub(crate) const LONGEST_PATH: f64 = 0.35;

/// The longest path of a sample that entered since the update before.
pub(crate) const LONGEST_PATH_OF_NEWEST: f64 = 0.7;

/// Representations of the same samples before and after an update, under the same dropout masks, row-major.
#[derive(Clone, Copy, Debug)]
pub struct Probe<'a> {
    /// Queries as they entered the loss, `n × dim`.
    pub queries_before: &'a [f32],
    /// The same queries by the new weights.
    pub queries_after: &'a [f32],
    /// The positives of these queries as they entered the loss, `n × dim`.
    pub positives_before: &'a [f32],
    /// The same positives by the new weights.
    pub positives_after: &'a [f32],
}

/// What an update did to banked samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BankMovement {
    /// How far the samples probed have moved: the mean of one minus the cosine of a vector before and after, where
    /// vectors have length one; half of the squared displacement over the squared length otherwise.
    pub drift: f64,
    /// How far the oldest sample that is left has been moved since it entered; 0 of empty banks.
    pub path: f64,
    /// Samples that left because they had been moved too far.
    pub evicted: usize,
}

/// The displacements of the samples probed: queries, then passages.
pub(crate) struct Field {
    how: Compensation,
    dim: usize,
    temperature: f32,
    /// Vectors before the update, of length one.
    directions: Vec<f32>,
    displacements: Vec<f32>,
    samples: usize,
}

impl Field {
    /// None where banked representations stay.
    pub(crate) fn new(config: &ObjectiveConfig) -> Option<Self> {
        let how = config.compensation()?;
        let values = config.probe_vectors() * config.dim;
        Some(Self {
            how,
            dim: config.dim,
            temperature: config.temperature,
            directions: vec![0.0; values],
            displacements: vec![0.0; values],
            samples: 0,
        })
    }

    /// Bytes that [`Field::new`] allocates.
    pub(crate) fn bytes(config: &ObjectiveConfig) -> usize {
        let values = config.compensation().map_or(0, |_| 2 * config.probe_vectors() * config.dim);
        values * size_of::<f32>()
    }

    /// Takes in a probe and returns the drift.
    ///
    /// # Panics
    /// When shapes do not agree or there are more samples than were announced.
    pub(crate) fn take(&mut self, probe: Probe) -> f64 {
        let length = probe.queries_before.len();
        let sides =
            [(probe.queries_before, probe.queries_after), (probe.positives_before, probe.positives_after)];
        for side in [sides[0].0, sides[0].1, sides[1].0, sides[1].1] {
            assert_eq!(side.len(), length, "a probe needs all vectors of each sample");
        }
        self.samples = length / self.dim;
        assert!(self.samples > 0 && self.samples * self.dim == length, "a probe is not samples × dim");
        assert!(self.samples <= self.how.probe_samples, "a probe exceeds probe_samples");
        let (mut moved, mut all) = (0.0f64, 0.0f64);
        let places = self.directions.chunks_mut(self.dim).zip(self.displacements.chunks_mut(self.dim));
        let vectors = sides.into_iter().flat_map(|(old, new)| old.chunks(self.dim).zip(new.chunks(self.dim)));
        for ((direction, displacement), (old, new)) in places.zip(vectors) {
            let length = length_of(old);
            for i in 0..self.dim {
                displacement[i] = new[i] - old[i];
                direction[i] = if length > 0.0 { (f64::from(old[i]) / length) as f32 } else { 0.0 };
            }
            moved += length_of(displacement).powi(2);
            all += length.powi(2);
        }
        if moved == 0.0 { 0.0 } else { moved / (2.0 * all) }
    }

    /// Where the displacements are that queries take.
    pub(crate) fn of_queries(&self) -> Range<usize> {
        let end = if self.how.one_encoder { 2 * self.samples } else { self.samples };
        0..end
    }

    /// Where the displacements are that passages take.
    pub(crate) fn of_passages(&self) -> Range<usize> {
        let start = if self.how.one_encoder { 0 } else { self.samples };
        start..2 * self.samples
    }

    /// Moves `vectors`, as many as a tile of `worker` has room for, by the displacements at `places`.
    pub(crate) fn carry(&self, worker: &mut Worker, vectors: &mut [f32], places: Range<usize>) {
        let (lines, width, dim) = (vectors.len() / self.dim, places.len(), self.dim);
        let values = places.start * dim..places.end * dim;
        let weights = &mut worker.logits[..lines * width];
        worker.dots.write(vectors, &self.directions[values.clone()], weights, width);
        for (weights, vector) in weights.chunks_mut(width).zip(vectors.chunks(dim)) {
            let length = length_of(vector) as f32;
            if length == 0.0 {
                // An empty place, which stays one.
                weights.fill(0.0);
                continue;
            }
            let scale = self.temperature / (KERNEL * length);
            weights.iter_mut().for_each(|weight| *weight *= scale);
            let share = exp_in_place(weights, max(weights)).recip() as f32;
            weights.iter_mut().for_each(|weight| *weight *= share);
        }
        let (weights, by) =
            (Mat::new(weights, lines, width), Mat::new(&self.displacements[values], width, dim));
        matmul_on_this_thread(MatMut::new(vectors, lines, dim), weights, by, 1.0, true);
        if self.how.unit_length {
            for vector in vectors.chunks_mut(dim) {
                let length = length_of(vector);
                if length > 0.0 {
                    vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
                }
            }
        }
    }
}

fn length_of(vector: &[f32]) -> f64 {
    vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}
