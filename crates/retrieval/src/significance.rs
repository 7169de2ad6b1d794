//! Whether two systems differ, over the queries of a test set and the seeds of training.
//!
//! **Interval of the mean difference**: a two-level bootstrap of paired differences, seeds and queries drawn with
//! replacement independently (both are crossed: every seed answers every query), the pigeonhole bootstrap of Owen
//! (*Annals of Applied Statistics* 1(2), 2007), with the percentile interval of Efron and Tibshirani, *An Introduction
//! to the Bootstrap* (1993). Drawing n of n is too narrow by √((n − 1)/n), which matters for few seeds and not for many
//! queries: the seeds' deviations are widened by the inverse (Hesterberg, *The American Statistician* 69(4), 2015).
//! Of few seeds it remains an estimate from few numbers; of one seed it speaks of queries alone.
//!
//! **Test**: Fisher's randomisation of the signs of paired differences, as recommended for retrieval by Smucker, Allan
//! and Carterette (CIKM 2007), over queries, on differences averaged over seeds. It asks whether these trained models
//! differ on other queries, not whether other seeds would.
//!
//! **Many comparisons**: Holm's step-down correction (*Scandinavian Journal of Statistics* 6(2), 1979).

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use rayon::prelude::*;
use serde::Serialize;

use crate::MeanInterval;
use crate::intervals::{RESAMPLES, below, generator};

impl MeanInterval {
    /// The mean over seeds and queries of `values[seed][query]`, with its 95 % interval by the two-level bootstrap of
    /// this module; `None` of no values. For paired differences it is the interval of the mean difference.
    ///
    /// # Panics
    /// When seeds have different numbers of queries.
    pub fn two_level_bootstrap(values: &[Vec<f64>]) -> Option<Self> {
        let queries = values.first()?.len();
        assert!(values.iter().all(|of_seed| of_seed.len() == queries), "every seed answers every query");
        if queries == 0 {
            return None;
        }
        let (mean, widened) = widened(values);
        let draw = |draw| resampled_mean(&widened, queries, &mut generator(draw));
        let means: Vec<f64> = (0..RESAMPLES as u64).into_par_iter().map(draw).collect();
        Some(Self::percentiles(mean, means))
    }
}

/// The mean of all values, and the values with the deviations of the seeds' means widened by √(n / (n − 1)).
fn widened(values: &[Vec<f64>]) -> (f64, Vec<Vec<f64>>) {
    let seeds = values.len() as f64;
    let means: Vec<f64> = values.iter().map(|of_seed| average(of_seed)).collect();
    let mean = average(&means);
    let factor = if values.len() > 1 { (seeds / (seeds - 1.0)).sqrt() } else { 1.0 };
    let shifted = values.iter().zip(&means).map(|(of_seed, seed_mean)| {
        let shift = (factor - 1.0) * (seed_mean - mean);
        of_seed.iter().map(|value| value + shift).collect()
    });
    (mean, shifted.collect())
}

/// The mean over as many seeds and queries as there are, both drawn with replacement.
fn resampled_mean(values: &[Vec<f64>], queries: usize, generator: &mut ChaCha8Rng) -> f64 {
    let seeds: Vec<&[f64]> =
        values.iter().map(|_| values[below(values.len(), generator)].as_slice()).collect();
    let mut sum = 0.0;
    for _ in 0..queries {
        let query = below(queries, generator);
        sum += seeds.iter().map(|of_seed| of_seed[query]).sum::<f64>();
    }
    sum / (queries * values.len()) as f64
}

fn average(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The mean over seeds of `values[seed][query]`, query by query.
///
/// # Panics
/// When there is no seed.
pub fn mean_over_seeds(values: &[Vec<f64>]) -> Vec<f64> {
    let seeds = values.len() as f64;
    (0..values[0].len())
        .map(|query| values.iter().map(|of_seed| of_seed[query]).sum::<f64>() / seeds)
        .collect()
}

/// How two systems differ on the same queries.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PairedDifference {
    /// Mean of system less baseline, with its 95 % bootstrap interval over queries.
    #[serde(flatten)]
    pub difference: MeanInterval,
    /// p-value of [`randomisation_test`].
    pub p: f64,
}

impl PairedDifference {
    /// Compares one value per query of two systems; `None` of no queries.
    ///
    /// # Panics
    /// When there are not as many of one as of the other.
    pub fn of(system: &[f64], baseline: &[f64]) -> Option<Self> {
        assert_eq!(system.len(), baseline.len(), "both systems answer the same queries");
        let differences: Vec<f64> = system.iter().zip(baseline).map(|(ours, theirs)| ours - theirs).collect();
        let difference = MeanInterval::bootstrap(&differences)?;
        Some(Self { difference, p: randomisation_test(&differences) })
    }
}

/// Two-sided p-value of Fisher's randomisation test of paired differences, one per query: the share of random signs
/// under which the mean lies as far from 0 as it does, the observed signs counted among them: 1/10,001 or more.
pub fn randomisation_test(differences: &[f64]) -> f64 {
    // Sums of the same numbers in another order differ by rounding alone.
    let rounding = 1e-12 * differences.iter().map(|d| d.abs()).sum::<f64>();
    let observed = differences.iter().sum::<f64>().abs() - rounding;
    let as_far = |draw: &u64| signed_sum(differences, &mut generator(*draw)).abs() >= observed;
    let count = (0..RESAMPLES as u64).into_par_iter().filter(as_far).count();
    (1 + count) as f64 / (1 + RESAMPLES) as f64
}

fn signed_sum(differences: &[f64], generator: &mut ChaCha8Rng) -> f64 {
    let mut sum = 0.0;
    for of_word in differences.chunks(u64::BITS as usize) {
        let mut signs = generator.next_u64();
        for difference in of_word {
            sum += if signs & 1 == 1 { *difference } else { -difference };
            signs >>= 1;
        }
    }
    sum
}

/// Holm's correction: p-values that hold for all comparisons of a family at once, in the order given.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut corrected = vec![0.0; p_values.len()];
    let mut largest = 0.0f64;
    for (rank, &index) in order.iter().enumerate() {
        largest = largest.max(p_values[index] * (p_values.len() - rank) as f64).min(1.0);
        corrected[index] = largest;
    }
    corrected
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sum of twelve uniform numbers less six: mean 0, deviation 1, near enough a normal variable.
    fn noise(generator: &mut ChaCha8Rng) -> f64 {
        (0..12).map(|_| f64::from(generator.next_u32()) / 2f64.powi(32)).sum::<f64>() - 6.0
    }

    /// Differences of mean 0.1 with effects of seeds, of queries and of neither.
    fn crossed(
        seeds: usize,
        queries: usize,
        deviations: [f64; 3],
        generator: &mut ChaCha8Rng,
    ) -> Vec<Vec<f64>> {
        let [of_seed, of_query, of_both] = deviations;
        let query_effects: Vec<f64> = (0..queries).map(|_| of_query * noise(generator)).collect();
        let mut row = || {
            let seed_effect = of_seed * noise(generator);
            query_effects
                .iter()
                .map(|effect| 0.1 + seed_effect + effect + of_both * noise(generator))
                .collect()
        };
        (0..seeds).map(|_| row()).collect()
    }

    /// The share of intervals that hold the true mean.
    fn coverage(seeds: usize, queries: usize, deviations: [f64; 3]) -> f64 {
        const SETS: usize = 200;
        let mut generator = generator(1 << 40);
        let covered = |_: &usize| {
            let values = crossed(seeds, queries, deviations, &mut generator);
            let interval = MeanInterval::two_level_bootstrap(&values).unwrap();
            (interval.low..=interval.high).contains(&0.1)
        };
        (0..SETS).filter(covered).count() as f64 / SETS as f64
    }

    #[test]
    fn a_system_does_not_differ_from_itself_and_does_from_one_that_is_always_worse() {
        let system: Vec<f64> = (0..40).map(|i| 0.5 + f64::from(i % 5) / 10.0).collect();
        let same = PairedDifference::of(&system, &system).unwrap();
        assert_eq!((same.difference.low, same.difference.high, same.p), (0.0, 0.0, 1.0));
        let worse: Vec<f64> = system.iter().map(|value| value - 0.125).collect();
        let better = PairedDifference::of(&system, &worse).unwrap();
        assert!((better.difference.low - 0.125).abs() < 1e-12 && better.p < 0.001, "{better:?}");
    }

    #[test]
    fn the_interval_covers_the_truth_as_often_as_it_says_where_queries_decide() {
        let share = coverage(3, 60, [0.01, 0.3, 0.1]);
        assert!((0.92..=0.99).contains(&share), "{share}");
    }

    #[test]
    fn the_interval_covers_the_truth_nearly_as_often_with_ten_seeds_that_decide() {
        let share = coverage(10, 30, [0.1, 0.1, 0.1]);
        assert!((0.89..=0.99).contains(&share), "{share}");
    }

    #[test]
    fn with_three_seeds_that_decide_the_interval_is_too_narrow() {
        // What the module says of few seeds: the widening mends the variance, not the three numbers it is made of.
        let share = coverage(3, 60, [0.3, 0.1, 0.1]);
        assert!((0.65..=0.92).contains(&share), "{share}");
    }

    #[test]
    fn of_one_seed_the_interval_is_that_of_its_queries() {
        let values: Vec<f64> = (0..50).map(|i| f64::from(i % 7)).collect();
        let two_level = MeanInterval::two_level_bootstrap(std::slice::from_ref(&values)).unwrap();
        let one_level = MeanInterval::bootstrap(&values).unwrap();
        assert!((two_level.mean - one_level.mean).abs() < 1e-12);
        assert!((two_level.low - one_level.low).abs() < 0.05, "{two_level:?} {one_level:?}");
        assert!((two_level.high - one_level.high).abs() < 0.05, "{two_level:?} {one_level:?}");
    }

    #[test]
    fn seeds_that_agree_on_every_query_leave_the_doubt_of_queries() {
        let values: Vec<f64> = (0..50).map(|i| f64::from(i % 7)).collect();
        let one = MeanInterval::two_level_bootstrap(std::slice::from_ref(&values)).unwrap();
        let three = MeanInterval::two_level_bootstrap(&[values.clone(), values.clone(), values]).unwrap();
        assert!((one.high - three.high).abs() < 0.05 && (one.low - three.low).abs() < 0.05);
    }

    #[test]
    fn nothing_has_no_interval() {
        assert_eq!(MeanInterval::two_level_bootstrap(&[]), None);
        assert_eq!(MeanInterval::two_level_bootstrap(&[Vec::new()]), None);
    }

    #[test]
    fn the_share_of_random_signs_is_that_of_all_signs_counted_by_hand() {
        // Of 16 signs of four ones, 2 give a sum of 4 or -4; of 8 signs of 1, 2, 4 all but the ends 7 and -7 are nearer.
        assert!((randomisation_test(&[1.0; 4]) - 2.0 / 16.0).abs() < 0.01);
        assert!((randomisation_test(&[1.0, 2.0, 4.0]) - 2.0 / 8.0).abs() < 0.015);
        // -1 + 2 + 4 = 5 is reached by the signs of 7, 5, -5, -7.
        assert!((randomisation_test(&[-1.0, 2.0, 4.0]) - 4.0 / 8.0).abs() < 0.015);
        assert_eq!(randomisation_test(&[0.0; 5]), 1.0);
        assert!(randomisation_test(&[0.1; 200]) < 2e-4);
    }

    #[test]
    fn p_values_are_uniform_where_nothing_differs() {
        let mut generator = generator(1 << 41);
        let p_values: Vec<f64> = (0..500)
            .map(|_| randomisation_test(&(0..30).map(|_| noise(&mut generator)).collect::<Vec<_>>()))
            .collect();
        // The largest distance of the shares from the line (Kolmogorov-Smirnov): 0.0728 is its 99 % point at 500.
        let share = |p: f64| p_values.iter().filter(|&&value| value <= p).count() as f64 / 500.0;
        let distance = (1..100).map(|p| (share(f64::from(p) / 100.0) - f64::from(p) / 100.0).abs());
        let distance = distance.fold(0.0, f64::max);
        assert!(distance < 0.0728, "{distance}");
    }

    #[test]
    fn holms_correction_is_that_computed_by_hand() {
        // Ascending 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 is 0.02, 0.03, 0.06, 0.04; never below one before.
        let corrected = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (value, expected) in corrected.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((value - expected).abs() < 1e-12, "{corrected:?}");
        }
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
        assert!(holm(&[]).is_empty());
    }

    #[test]
    fn the_mean_over_seeds_is_taken_query_by_query() {
        assert_eq!(mean_over_seeds(&[vec![1.0, 0.0], vec![0.0, 0.5]]), [0.5, 0.25]);
    }
}
