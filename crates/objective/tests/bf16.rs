//! What storing banks as bf16 does to the gradient.

mod plain;

use contaccum_objective::{BankDrift, BankDtype, Compensation, Objective, ObjectiveConfig, Rows};
use plain::{Numbers, OwnedBatch, Plain, Sample, relative_distance, step, stored};

const DIM: usize = 384;
const BATCH: usize = 8;

fn contaccum(temperature: f32, bank_samples: usize, bank_dtype: BankDtype) -> ObjectiveConfig {
    ObjectiveConfig {
        rows: Rows::All,
        bank_samples,
        bank_queries: true,
        bank_passages: true,
        bank_hard_negatives: true,
        bank_dtype,
        ..ObjectiveConfig::in_batch(DIM, temperature, BATCH, 1)
    }
}

/// A batch whose positives lie near their queries and hard negatives less near; of length one where `normalize`.
fn draw(numbers: &mut Numbers, normalize: bool) -> Vec<Sample> {
    let near = |values: &mut [f32], query: &[f32], share: f32| {
        values.iter_mut().zip(query).for_each(|(value, q)| *value = (1.0 - share) * *value + share * q);
    };
    let unit = |values: &mut [f32]| {
        let norm = values.iter().map(|x| x * x).sum::<f32>().sqrt();
        values.iter_mut().for_each(|x| *x /= norm);
    };
    (0..BATCH)
        .map(|_| {
            // Dot products of unnormalised vectors have a deviation of about 4, as BERT's first token gives.
            let deviation = if normalize { 1.0 } else { 0.45 };
            let mut query = numbers.vector(DIM, deviation);
            let mut positive = numbers.vector(DIM, deviation);
            let mut hard_negative = numbers.vector(DIM, deviation);
            near(&mut positive, &query, 0.3);
            near(&mut hard_negative, &query, 0.2);
            if normalize {
                [&mut query, &mut positive, &mut hard_negative].into_iter().for_each(|values| unit(values));
            }
            let ids = [(); 2].map(|()| numbers.below(1 << 30) as u32);
            Sample {
                query,
                query_id: ids[0],
                positive,
                positive_id: ids[0],
                hard_negatives: vec![(ids[1], hard_negative)],
            }
        })
        .collect()
}

#[test]
fn banks_in_bf16_move_the_gradient_by_less_than_one_percent() {
    for (regime, temperature, normalize) in [("cosine", 0.05, true), ("dot", 1.0, false)] {
        for bank_samples in [128, 512, 2048] {
            let mut numbers = Numbers(bank_samples as u64);
            let new = |dtype| Objective::new(contaccum(temperature, bank_samples, dtype)).unwrap();
            let (mut exact, mut rounded) = (new(BankDtype::F32), new(BankDtype::Bf16));
            for _ in 0..bank_samples / BATCH {
                let batch = OwnedBatch::new(&draw(&mut numbers, normalize));
                exact.enqueue(batch.view());
                rounded.enqueue(batch.view());
            }
            let batch = OwnedBatch::new(&draw(&mut numbers, normalize));
            let (expected, found) = (step(&mut exact, &batch, 1.0), step(&mut rounded, &batch, 1.0));
            let widen = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            let distances = [
                relative_distance(&found.queries, &widen(&expected.queries)),
                relative_distance(&found.positives, &widen(&expected.positives)),
                relative_distance(&found.hard_negatives, &widen(&expected.hard_negatives)),
            ];
            println!(
                "{regime}, bank {bank_samples}: queries, positives, hard negatives off by {distances:.5?}, loss {:.4} \
                 and {:.4}",
                expected.report.loss, found.report.loss
            );
            assert!(
                distances.iter().all(|&distance| distance < 1e-2),
                "{regime} {bank_samples}: {distances:?}"
            );
            assert!(distances.iter().any(|&distance| distance > 1e-6), "nothing is rounded: {distances:?}");
        }
    }
}

#[test]
fn against_a_plain_bank_of_the_same_rounded_values_nothing_is_lost() {
    let config = contaccum(0.05, 64, BankDtype::Bf16);
    let mut numbers = Numbers(11);
    let (mut objective, mut plain) = (Objective::new(config.clone()).unwrap(), Plain::new(config));
    for _ in 0..12 {
        let samples = draw(&mut numbers, true);
        objective.enqueue(OwnedBatch::new(&samples).view());
        plain.enqueue(&stored(&samples, BankDtype::Bf16));
    }
    let samples = draw(&mut numbers, true);
    let (found, expected) =
        (step(&mut objective, &OwnedBatch::new(&samples), 1.0), plain.step(&samples, 1.0));
    assert!((found.report.loss - expected.report.loss).abs() < 1e-6 * expected.report.loss);
    assert!(relative_distance(&found.queries, &expected.queries) < 1e-5);
    assert!(relative_distance(&found.positives, &expected.positives) < 1e-5);
    assert!(relative_distance(&found.hard_negatives, &expected.hard_negatives) < 1e-5);
}

#[test]
fn banks_in_bf16_move_as_banks_in_f32_do_but_for_their_rounding() {
    let mut numbers = Numbers(17);
    let how = Compensation { probe_samples: 4, one_encoder: true, unit_length: true };
    let [mut exact, mut rounded] = [BankDtype::F32, BankDtype::Bf16].map(|dtype| {
        let bank_drift = BankDrift::Compensate(how);
        Objective::new(ObjectiveConfig { bank_drift, ..contaccum(0.05, 64, dtype) }).unwrap()
    });
    for _ in 0..4 {
        let batch = OwnedBatch::new(&draw(&mut numbers, true));
        let probed = numbers.probed(4, DIM, 1.0 / (DIM as f64).sqrt(), 0.03);
        for objective in [&mut exact, &mut rounded] {
            objective.enqueue(batch.view());
            let movement = objective.move_banks(probed.view()).unwrap();
            assert_eq!(movement.evicted, 0);
        }
    }
    let (exact, rounded) = (exact.state(), rounded.state());
    let distance =
        |a: &[f32], b: &[f32]| relative_distance(a, &b.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
    assert!(distance(&rounded.columns, &exact.columns) < 1e-2);
    assert!(distance(&rounded.queries, &exact.queries) < 1e-2);
}
