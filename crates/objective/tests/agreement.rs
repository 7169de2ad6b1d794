//! Agreement with the plain objective over long sequences of batches, and the plain one with finite differences.

mod plain;

use contaccum_objective::{
    BankDrift, BankDtype, Compensation, KnownPositives, LossReport, Objective, ObjectiveConfig, RowScale,
    Rows,
};
use plain::{
    Numbers, OwnedBatch, Plain, QUERIES, Sample, Step, distance_in, relative_distance, step,
    step_and_enqueue, step_without_banks, stored,
};
use proptest::prelude::*;

/// What is drawn for one sequence.
#[derive(Clone, Debug)]
struct Sequence {
    seed: u64,
    config: ObjectiveConfig,
    deviation: f64,
    ids: usize,
    known: Vec<(u32, u32)>,
    actions: Vec<Action>,
}

#[derive(Clone, Debug)]
enum Action {
    /// A step and an entry of a batch of this many samples.
    Train(usize),
    /// Entries of several batches without a step between.
    Fill(Vec<usize>),
    /// Steps of several batches, then the entries of all of them.
    Update(Vec<usize>),
    /// What has been banked moves, by this much of its length, as so many samples show.
    Move(f64, usize),
    Clear,
}

const MOST_PROBED: usize = 5;

fn actions(most: usize) -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        // Mostly one size, as in training, with odd ones between.
        8 => Just(Action::Train(most)),
        6 => (1..=most).prop_map(Action::Train),
        3 => prop::collection::vec(1..=most, 1..5).prop_map(Action::Fill),
        3 => prop::collection::vec(1..=most, 1..5).prop_map(Action::Update),
        6 => (prop_oneof![Just(0.02), Just(0.1), 0.0f64..1.0], 1..=MOST_PROBED)
            .prop_map(|(distance, samples)| Action::Move(distance, samples)),
        1 => Just(Action::Clear),
    ];
    prop::collection::vec(action, 1..60)
}

fn sequences() -> impl Strategy<Value = Sequence> {
    let sizes = (1usize..20, 1usize..12, 0usize..4, prop_oneof![0usize..6, 6usize..80]);
    let switches = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let dtypes = prop_oneof![3 => Just(BankDtype::F32), 1 => Just(BankDtype::Bf16)];
    let scales = (
        0.05f32..1.0,
        prop_oneof![Just(1.0), Just(6.0), Just(20.0)],
        2usize..40,
        prop_oneof![Just(1 << 16), 1usize..400],
    );
    let drift = prop_oneof![
        Just(BankDrift::None),
        (any::<bool>(), any::<bool>()).prop_map(|(one_encoder, unit_length)| {
            BankDrift::Compensate(Compensation { probe_samples: MOST_PROBED, one_encoder, unit_length })
        }),
    ];
    let drift = (drift, prop_oneof![Just(RowScale::All), Just(RowScale::Current)]);
    (sizes, switches, scales, dtypes, drift, any::<u64>()).prop_flat_map(
        |(sizes, switches, scales, dtype, drift, seed)| {
            let (bank_drift, row_scale) = drift;
            // What moves is rounded anew: two roundings to 8 bits of nearly the same value may differ by one bit of them.
            let bank_drift = if dtype == BankDtype::F32 { bank_drift } else { BankDrift::None };
            let (dim, batch, hard, bank) = sizes;
            let (all_rows, queries, passages, hard_negatives, mask) = switches;
            let (temperature, largest, ids, tile_logits) = scales;
            let holds_something = (all_rows && queries) || passages || (hard_negatives && hard > 0);
            let config = ObjectiveConfig {
                rows: if all_rows { Rows::All } else { Rows::Current },
                mask_false_negatives: mask,
                bank_samples: if holds_something { bank } else { 0 },
                bank_queries: queries,
                bank_passages: passages,
                bank_hard_negatives: hard_negatives,
                bank_dtype: dtype,
                bank_drift,
                row_scale,
                tile_logits,
                ..ObjectiveConfig::in_batch(dim, temperature, batch, hard)
            };
            // Logits of about the same size at every width and temperature: around 1, or up to about 100 or 1000.
            let deviation = (f64::from(temperature) * largest * largest / (dim as f64).sqrt()).sqrt();
            let all = QUERIES as u32;
            // From nothing known to nearly every passage relevant to every query.
            let pairs = prop_oneof![1 => 0usize..1, 2 => 0usize..30, 1 => 30usize..800];
            let known =
                pairs.prop_flat_map(move |pairs| prop::collection::vec((0..all, 0..ids as u32), pairs));
            (actions(batch), known).prop_map(move |(actions, known)| Sequence {
                seed,
                config: config.clone(),
                deviation,
                ids,
                known,
                actions,
            })
        },
    )
}

fn agree(objective: &mut Objective, plain: &Plain, samples: &[Sample]) -> Result<(), TestCaseError> {
    let found = step(objective, &OwnedBatch::new(samples), SCALE);
    agree_with(found, plain, samples)
}

const SCALE: f32 = 0.37;

fn agree_with(found: Step<f32, LossReport>, plain: &Plain, samples: &[Sample]) -> Result<(), TestCaseError> {
    let expected = plain.step(samples, f64::from(SCALE));
    let (report, truth) = (found.report, &expected.report);
    // An f32 logit whose terms sum to L is off by a few L · 2⁻²⁴, and so is, relatively, its share of the softmax.
    let tolerance = 5e-7 + truth.largest_logit * 3e-7;
    let close = |name: &str, a: f64, b: f64| {
        prop_assert!(
            (a - b).abs() <= tolerance * b.abs().max(1e-12),
            "{name}: {a} instead of {b} ({tolerance:e})"
        );
        Ok(())
    };
    close("loss", report.loss, truth.loss)?;
    close("current rows", report.current_rows_loss, truth.current_rows_loss)?;
    close("negatives", report.negatives_per_query, truth.negatives_per_query)?;
    close("masked rows", report.masked_rows, truth.masked_rows)?;
    prop_assert_eq!(report.rows_without_negatives, truth.rows_without_negatives);
    close("bank mass", report.bank_mass, truth.bank_mass_by_age.iter().sum())?;
    for (a, b) in report.bank_mass_by_age.iter().zip(truth.bank_mass_by_age) {
        close("bank mass of an age", *a, b)?;
    }
    prop_assert_eq!(report.rows, truth.rows);
    let [queries, positives, hard_negatives] = &truth.gross;
    for (name, a, b, gross) in [
        ("queries", &found.queries, &expected.queries, queries),
        ("positives", &found.positives, &expected.positives, positives),
        ("hard negatives", &found.hard_negatives, &expected.hard_negatives, hard_negatives),
    ] {
        let distance = distance_in(a, b, gross);
        prop_assert!(
            distance <= tolerance,
            "gradient of {name} is off by {distance:e} (allowed {tolerance:e})"
        );
    }
    Ok(())
}

fn run(sequence: &Sequence) -> Result<(), TestCaseError> {
    let config = &sequence.config;
    let mut numbers = Numbers(sequence.seed);
    let draw = |numbers: &mut Numbers, count| {
        let hard = config.max_hard_negatives_per_sample;
        numbers.samples(count, config.dim, sequence.deviation, hard, sequence.ids)
    };
    let known = KnownPositives::new(sequence.known.iter().copied());
    let mut objective = Objective::new(config.clone()).unwrap().with_known_positives(known);
    let known = || sequence.known.iter().copied().collect();
    let mut plain = Plain { known: known(), ..Plain::new(config.clone()) };
    let enter = |objective: &mut Objective, plain: &mut Plain, samples: &[Sample]| {
        objective.enqueue(OwnedBatch::new(samples).view());
        plain.enqueue(&stored(samples, config.bank_dtype));
    };
    for action in &sequence.actions {
        match action {
            Action::Train(count) => {
                let samples = draw(&mut numbers, *count);
                let found = step_and_enqueue(&mut objective, &OwnedBatch::new(&samples), SCALE);
                agree_with(found, &plain, &samples)?;
                plain.enqueue(&stored(&samples, config.bank_dtype));
            }
            Action::Fill(counts) => {
                counts
                    .iter()
                    .for_each(|&count| enter(&mut objective, &mut plain, &draw(&mut numbers, count)));
            }
            Action::Update(counts) => {
                let batches: Vec<_> = counts.iter().map(|&count| draw(&mut numbers, count)).collect();
                for samples in &batches {
                    agree(&mut objective, &plain, samples)?;
                }
                // What the banks hold must not matter to a step that leaves them out.
                let found = step_without_banks(&mut objective, &OwnedBatch::new(&batches[0]), SCALE);
                agree_with(found, &Plain { known: known(), ..Plain::new(config.clone()) }, &batches[0])?;
                batches.iter().for_each(|samples| enter(&mut objective, &mut plain, samples));
            }
            Action::Move(distance, count) => {
                let probed = numbers.probed(*count, config.dim, sequence.deviation, *distance);
                let (found, expected) = (objective.move_banks(probed.view()), plain.move_banks(&probed));
                prop_assert_eq!(found.is_some(), expected.is_some() && config.bank_samples > 0);
                if let (Some(found), Some(expected)) = (found, expected) {
                    prop_assert_eq!(found.evicted, expected.evicted);
                    prop_assert!((found.drift - expected.drift).abs() <= 1e-5 * expected.drift);
                    prop_assert!((found.path - expected.path).abs() <= 1e-5 * expected.path);
                }
            }
            Action::Clear => {
                objective.clear();
                plain.clear();
            }
        }
        prop_assert_eq!(objective.bank_len(), plain.bank.len());
    }
    agree(&mut objective, &plain, &draw(&mut numbers, config.max_batch_samples))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_entering_evicting_and_clearing_agrees_with_the_plain_objective(sequence in sequences()) {
        run(&sequence)?;
    }
}

/// A ContAccum objective with everything on.
fn contaccum(dim: usize, bank_samples: usize, batch: usize, hard: usize) -> ObjectiveConfig {
    ObjectiveConfig {
        mask_false_negatives: true,
        bank_samples,
        bank_queries: true,
        bank_passages: true,
        bank_hard_negatives: true,
        ..ObjectiveConfig::in_batch(dim, 0.7, batch, hard)
    }
}

#[test]
fn a_bank_of_hundreds_turned_over_many_times_agrees_with_the_plain_objective() {
    let config = contaccum(24, 640, 8, 2);
    let mut numbers = Numbers(5);
    let mut objective = Objective::new(config.clone()).unwrap();
    let mut plain = Plain::new(config.clone());
    for round in 0..500 {
        // A short batch now and then, as at the end of an epoch, moves evictions off the entries' cuts.
        let samples = numbers.samples(if round % 150 == 149 { 5 } else { 8 }, 24, 0.5, 2, 3000);
        let found = step_and_enqueue(&mut objective, &OwnedBatch::new(&samples), SCALE);
        if round % 50 == 49 {
            agree_with(found, &plain, &samples).unwrap();
        }
        plain.enqueue(&samples);
    }
}

#[test]
fn a_batch_of_hundreds_in_small_tiles_agrees_with_the_plain_objective() {
    let config = ObjectiveConfig { tile_logits: 900, ..contaccum(12, 300, 333, 2) };
    let mut numbers = Numbers(9);
    let mut objective = Objective::new(config.clone()).unwrap();
    let mut plain = Plain::new(config.clone());
    for count in [333, 20, 250, 333] {
        let samples = numbers.samples(count, 12, 0.5, 2, 2000);
        agree(&mut objective, &plain, &samples).unwrap();
        objective.enqueue(OwnedBatch::new(&samples).view());
        plain.enqueue(&samples);
    }
}

#[test]
fn logits_around_a_hundred_cost_no_more_digits_than_an_f32_logit_does() {
    const ROUNDS: usize = 40;
    let mut numbers = Numbers(13);
    let (mut worst, mut mean) = ([0.0f64; 4], [0.0f64; 4]);
    for _ in 0..ROUNDS {
        let config = ObjectiveConfig { temperature: 1.0, ..contaccum(768, 32, 4, 1) };
        let mut objective = Objective::new(config.clone()).unwrap();
        let mut plain = Plain::new(config);
        // Twelve batches for eight that fit, so that sums of pieces take part.
        for _ in 0..12 {
            let samples = different_samples(&mut numbers, 4, 768);
            objective.enqueue(OwnedBatch::new(&samples).view());
            plain.enqueue(&samples);
        }
        let samples = different_samples(&mut numbers, 4, 768);
        let found = step(&mut objective, &OwnedBatch::new(&samples), 1.0);
        let expected = plain.step(&samples, 1.0);
        let errors = [
            (found.report.loss / expected.report.loss - 1.0).abs(),
            relative_distance(&found.queries, &expected.queries),
            relative_distance(&found.positives, &expected.positives),
            relative_distance(&found.hard_negatives, &expected.hard_negatives),
        ];
        for (kind, error) in errors.into_iter().enumerate() {
            worst[kind] = worst[kind].max(error);
            mean[kind] += error / ROUNDS as f64;
        }
    }
    println!("large logits: loss, queries, positives, hard negatives off by {mean:?}, at most {worst:?}");
    assert!(worst[0] < 1e-6 && worst[1] < 1e-5 && worst[2] < 1e-5, "{worst:?}");
    // One unit in the last place of a logit of 100 is 7.6e-6. The gradient of hard negatives may be that of a single
    // tiny probability, which is off by as much as the logits it is the difference of.
    assert!(mean[3] < 2e-6 && worst[3] < 4e-5, "{mean:?} {worst:?}");
}

#[test]
fn a_row_whose_columns_are_all_masked_has_no_loss_and_no_gradient() {
    let config = contaccum(6, 4, 3, 2);
    let mut samples = Numbers(1).samples(3, 6, 1.0, 2, 1);
    let mut objective = Objective::new(config).unwrap();
    objective.enqueue(OwnedBatch::new(&samples).view());
    samples.rotate_left(1);
    let found = step(&mut objective, &OwnedBatch::new(&samples), 1.0);
    assert_eq!(found.report.loss, 0.0);
    assert_eq!(found.report.negatives_per_query, 0.0);
    for gradient in [found.queries, found.positives, found.hard_negatives] {
        assert!(gradient.iter().all(|&g| g == 0.0));
    }
}

#[test]
fn nearly_solved_rows_keep_the_precision_of_their_gradient() {
    let config = contaccum(16, 24, 4, 1);
    let mut numbers = Numbers(3);
    let mut objective = Objective::new(config.clone()).unwrap();
    let mut plain = Plain::new(config.clone());
    let mut draw = || {
        let mut samples = numbers.samples(4, 16, 0.3, 1, 1000);
        // Each query is close to its own positive: losses of about 1e-6.
        for sample in &mut samples {
            sample.query = sample.positive.iter().map(|x| 8.0 * x).collect();
        }
        samples
    };
    for _ in 0..8 {
        let samples = draw();
        objective.enqueue(OwnedBatch::new(&samples).view());
        plain.enqueue(&samples);
    }
    let samples = draw();
    assert!(plain.step(&samples, 1.0).report.current_rows_loss < 0.05);
    agree(&mut objective, &plain, &samples).unwrap();
}

#[test]
fn a_nan_representation_gives_a_nan_loss() {
    for place in 0..3 {
        let mut objective = Objective::new(contaccum(4, 8, 3, 2)).unwrap();
        let samples = different_samples(&mut Numbers(2), 3, 4);
        let mut batch = OwnedBatch::new(&samples);
        [&mut batch.queries, &mut batch.positives, &mut batch.hard_negatives][place][1] = f32::NAN;
        assert!(step(&mut objective, &batch, 1.0).report.loss.is_nan());
        objective.enqueue(batch.view());
        assert!(step(&mut objective, &OwnedBatch::new(&samples), 1.0).report.loss.is_nan());
    }
}

/// Samples of one hard negative each, all passages different.
fn different_samples(numbers: &mut Numbers, count: usize, dim: usize) -> Vec<Sample> {
    let mut samples = numbers.samples(count, dim, 1.0, 0, usize::MAX >> 32);
    for sample in &mut samples {
        sample.hard_negatives = vec![(numbers.below(usize::MAX >> 32) as u32, numbers.vector(dim, 1.0))];
    }
    samples
}

/// The largest difference between the central differences of `loss` and `gradient`, relative to the largest slope.
fn difference(values: &[f64], gradient: &[f64], step: f64, mut loss: impl FnMut(&[f64]) -> f64) -> f64 {
    let mut moved = values.to_vec();
    let mut worst = 0.0f64;
    for i in 0..values.len() {
        moved[i] = values[i] + step;
        let above = loss(&moved);
        moved[i] = values[i] - step;
        let below = loss(&moved);
        moved[i] = values[i];
        worst = worst.max(((above - below) / (2.0 * step) - gradient[i]).abs());
    }
    worst / gradient.iter().fold(f64::MIN_POSITIVE, |most, g| most.max(g.abs()))
}

fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}

#[test]
fn gradients_are_the_slopes_of_the_loss() {
    let config = contaccum(7, 20, 5, 2);
    let mut numbers = Numbers(7);
    let mut objective = Objective::new(config.clone()).unwrap();
    let mut plain = Plain::new(config);
    for _ in 0..6 {
        let samples = numbers.samples(5, 7, 0.6, 2, 40);
        objective.enqueue(OwnedBatch::new(&samples).view());
        plain.enqueue(&samples);
    }
    let samples = numbers.samples(5, 7, 0.6, 2, 40);
    let batch = OwnedBatch::new(&samples);
    let parts = [widen(&batch.queries), widen(&batch.positives), widen(&batch.hard_negatives)];
    let Step { queries, positives, hard_negatives, .. } = plain.step(&samples, 1.0);
    let found = step(&mut objective, &batch, 1.0);
    let ours = [widen(&found.queries), widen(&found.positives), widen(&found.hard_negatives)];
    for (part, exact) in [queries, positives, hard_negatives].iter().enumerate() {
        let plain_loss = |values: &[f64]| {
            let mut parts = parts.clone();
            parts[part] = values.to_vec();
            plain.step_at(&samples, &parts[0], &parts[1], &parts[2], 1.0).report.loss
        };
        assert!(difference(&parts[part], exact, 1e-5, plain_loss) < 1e-8);
        let our_loss = |values: &[f64]| {
            let mut batch = batch.clone();
            let place = [&mut batch.queries, &mut batch.positives, &mut batch.hard_negatives];
            *place.into_iter().nth(part).unwrap() = values.iter().map(|&x| x as f32).collect();
            step(&mut objective, &batch, 1.0).report.loss
        };
        assert!(difference(&parts[part], &ours[part], 2e-2, our_loss) < 1e-3);
    }
}

/// Thousands of entries, most of them without a look: errors that add up would show.
#[test]
fn after_thousands_of_entries_the_sums_are_still_those_of_the_plain_objective() {
    let base = contaccum(8, 150, 6, 2);
    let configs = [
        base.clone(),
        ObjectiveConfig { mask_false_negatives: true, ..base.clone() },
        ObjectiveConfig { rows: Rows::Current, mask_false_negatives: true, ..base.clone() },
        ObjectiveConfig { bank_passages: false, bank_hard_negatives: false, ..base.clone() },
        ObjectiveConfig { bank_passages: false, ..base.clone() },
        ObjectiveConfig { bank_queries: false, rows: Rows::Current, ..base },
    ];
    for (seed, config) in configs.into_iter().enumerate() {
        for deviation in [0.6, 10.0] {
            let mut numbers = Numbers(seed as u64);
            let mut objective = Objective::new(config.clone()).unwrap();
            let mut plain = Plain::new(config.clone());
            for entry in 1..=2000 {
                let count = if numbers.below(4) == 0 { 1 + numbers.below(6) } else { 6 };
                let samples = numbers.samples(count, 8, deviation, 2, 60);
                objective.enqueue(OwnedBatch::new(&samples).view());
                plain.enqueue(&samples);
                if entry % 100 == 0 {
                    agree(&mut objective, &plain, &numbers.samples(6, 8, deviation, 2, 60)).unwrap();
                }
            }
        }
    }
}

/// Several tiles of rows and of columns, as a total batch under gradient caching has.
#[test]
fn a_batch_of_many_tiles_agrees_with_the_plain_objective() {
    for bank_samples in [0, 300] {
        let config =
            ObjectiveConfig { bank_samples, mask_false_negatives: true, ..contaccum(12, 300, 600, 1) };
        let mut numbers = Numbers(5);
        let mut objective = Objective::new(config.clone()).unwrap();
        let mut plain = Plain::new(config);
        for _ in 0..2 {
            let samples = numbers.samples(600, 12, 0.8, 1, 5000);
            agree(&mut objective, &plain, &samples).unwrap();
            objective.enqueue(OwnedBatch::new(&samples).view());
            plain.enqueue(&samples);
        }
    }
}
