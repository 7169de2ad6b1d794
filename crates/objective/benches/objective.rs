//! Time of a step and the entry that follows it, at the width of MiniLM: `cargo bench -p contaccum-objective`.
//!
//! Read the mean: one entry in `√(bank / batch)` splits a block and takes longer.

use contaccum_objective::{BankDtype, Batch, GradientsMut, Objective, ObjectiveConfig};
use divan::Bencher;

const DIM: usize = 384;
const SAMPLES: usize = 8;

fn main() {
    divan::main();
}

fn config(bank_samples: usize) -> ObjectiveConfig {
    ObjectiveConfig {
        mask_false_negatives: true,
        bank_samples,
        bank_queries: true,
        bank_passages: true,
        bank_hard_negatives: true,
        ..ObjectiveConfig::in_batch(DIM, 0.05, SAMPLES, 1)
    }
}

/// Unit vectors, the same in every run.
fn representations(rows: usize, seed: usize) -> Vec<f32> {
    let mut values: Vec<f32> =
        (0..rows * DIM).map(|i| (((i + seed) * 2_654_435_761) % 1_000_003) as f32 - 5e5).collect();
    for row in values.chunks_mut(DIM) {
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        row.iter_mut().for_each(|x| *x /= norm);
    }
    values
}

/// Fills the bank at once, with the state after one batch.
fn fill(objective: &mut Objective, batch: Batch) {
    objective.enqueue(batch);
    let full = objective.state().repeated(objective.config().bank_samples / SAMPLES);
    objective.restore(&full).expect("the state has the objective's own settings and lengths");
}

fn train(bencher: Bencher, config: ObjectiveConfig) {
    let (queries, positives, hard) =
        (representations(SAMPLES, 1), representations(SAMPLES, 2), representations(SAMPLES, 3));
    let ids: Vec<u32> = (0..2 * SAMPLES as u32).collect();
    let batch = Batch {
        queries: &queries,
        positives: &positives,
        hard_negatives: &hard,
        query_ids: &ids[..SAMPLES],
        positive_ids: &ids[..SAMPLES],
        hard_negative_ids: &ids[SAMPLES..],
        hard_negatives_per_sample: &[1; SAMPLES],
    };
    let mut objective = Objective::new(config).expect("the settings are possible");
    if objective.config().bank_samples > 0 {
        fill(&mut objective, batch);
    }
    let mut gradients = [vec![0.0; queries.len()], vec![0.0; queries.len()], vec![0.0; queries.len()]];
    bencher.bench_local(|| {
        let [queries, positives, hard_negatives] = &mut gradients;
        objective.step_and_enqueue(batch, 1.0, GradientsMut { queries, positives, hard_negatives })
    });
}

#[divan::bench(args = [0, 512, 2_048, 8_192, 65_536], sample_count = 200, sample_size = 1)]
fn step_and_enqueue(bencher: Bencher, bank_samples: usize) {
    train(bencher, config(bank_samples));
}

#[divan::bench(args = [8_192, 65_536], sample_count = 200, sample_size = 1)]
fn step_and_enqueue_bf16(bencher: Bencher, bank_samples: usize) {
    train(bencher, ObjectiveConfig { bank_dtype: BankDtype::Bf16, ..config(bank_samples) });
}
