//! How far a mean over queries can be trusted.
//!
//! The interval is the percentile bootstrap of Efron and Tibshirani, *An Introduction to the Bootstrap* (1993),
//! section 13.3: queries are drawn with replacement, as many as there are, and the interval lies between the 2.5 % and
//! 97.5 % points of the means of the draws. It speaks of other queries of the same kind, not of other seeds.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Draws of the bootstrap: the 2.5 % and 97.5 % points are then the 250th smallest and largest.
pub(crate) const RESAMPLES: usize = 10_000;

/// The share of draws that lies outside the interval on each side is one in so many.
const TAIL: usize = 40;

/// A mean and its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeanInterval {
    /// Mean of the values.
    pub mean: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl MeanInterval {
    /// The mean of one value per query, with its 95 % percentile bootstrap interval over the queries; `None` of no
    /// values. The same values in the same order give the same bits, on any number of threads.
    ///
    /// Differences between two systems on the same queries are values too: their interval is that of the paired
    /// difference.
    pub fn bootstrap(values: &[f64]) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let means = (0..RESAMPLES as u64).into_par_iter().map(|draw| resampled_mean(values, draw)).collect();
        Some(Self::percentiles(values.iter().sum::<f64>() / values.len() as f64, means))
    }

    /// A mean with the 2.5 % and 97.5 % points of its [`RESAMPLES`] draws.
    pub(crate) fn percentiles(mean: f64, mut draws: Vec<f64>) -> Self {
        draws.sort_unstable_by(f64::total_cmp);
        Self { mean, low: draws[RESAMPLES / TAIL - 1], high: draws[RESAMPLES - RESAMPLES / TAIL] }
    }
}

/// The mean of as many values as there are, drawn with replacement.
fn resampled_mean(values: &[f64], draw: u64) -> f64 {
    let mut generator = generator(draw);
    let drawn = values.iter().map(|_| values[below(values.len(), &mut generator)]);
    drawn.sum::<f64>() / values.len() as f64
}

/// The random numbers of a draw: every draw has a stream of its own.
pub(crate) fn generator(draw: u64) -> ChaCha8Rng {
    let mut generator = ChaCha8Rng::seed_from_u64(0);
    generator.set_stream(draw);
    generator
}

/// A random number below `count`: the high half of count · 32 random bits, uniform to count / 2³².
pub(crate) fn below(count: usize, generator: &mut ChaCha8Rng) -> usize {
    ((count as u64 * u64::from(generator.next_u32())) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_many_values_is_that_of_the_normal_approximation() {
        let values: Vec<f64> = (0..2000).map(|i| f64::from(i * 7919 % 2000) / 2000.0).collect();
        let interval = MeanInterval::bootstrap(&values).unwrap();
        // Standard deviation of a uniform variable, over the root of the count, times the normal's 97.5 % point.
        let half = 1.959_964 / 12f64.sqrt() / 2000f64.sqrt();
        assert!((interval.mean - 0.499_75).abs() < 1e-12);
        assert!((interval.high - interval.mean - half).abs() < 0.03 * half, "{interval:?} {half}");
        assert!((interval.mean - interval.low - half).abs() < 0.03 * half, "{interval:?} {half}");
    }

    #[test]
    fn the_ends_are_the_binomial_quantiles_where_half_of_few_queries_succeed() {
        // Successes among 20 drawn are Binomial(20, 1/2): P(≤ 5) = 0.0207, P(≤ 6) = 0.0577.
        let values: Vec<f64> = (0..20).map(|i| f64::from(i % 2)).collect();
        let interval = MeanInterval::bootstrap(&values).unwrap();
        assert_eq!(interval, MeanInterval { mean: 0.5, low: 0.3, high: 0.7 });
    }

    #[test]
    fn values_that_are_all_alike_leave_no_doubt() {
        assert_eq!(
            MeanInterval::bootstrap(&[0.25; 8]),
            Some(MeanInterval { mean: 0.25, low: 0.25, high: 0.25 })
        );
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let values: Vec<f64> = (0..100).map(|i| 1.0 / f64::from(i + 1)).collect();
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(alone.install(|| MeanInterval::bootstrap(&values)), MeanInterval::bootstrap(&values));
    }

    #[test]
    fn nothing_has_no_mean() {
        assert_eq!(MeanInterval::bootstrap(&[]), None);
    }
}
