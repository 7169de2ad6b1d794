//! Memory is what was announced, and never quadratic in the bank.

mod plain;

use contaccum_objective::{
    BankDrift, BankDtype, Batch, Compensation, GradientsMut, Objective, ObjectiveConfig,
};
use plain::{Numbers, OwnedBatch, step_and_enqueue};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

fn contaccum(dim: usize, bank_samples: usize) -> ObjectiveConfig {
    ObjectiveConfig {
        bank_samples,
        bank_queries: true,
        bank_passages: true,
        bank_hard_negatives: true,
        ..ObjectiveConfig::in_batch(dim, 1.0, 8, 1)
    }
}

/// One test, so that no other allocates at the same time.
#[test]
fn memory_is_announced_to_the_byte_and_linear_in_the_bank() {
    // Threads of the pool allocate when they start.
    rayon::broadcast(|_| ());
    let half = ObjectiveConfig { bank_dtype: BankDtype::Bf16, ..contaccum(48, 1000) };
    let current_rows = ObjectiveConfig { rows: contaccum_objective::Rows::Current, ..contaccum(48, 1000) };
    let no_passages =
        ObjectiveConfig { bank_passages: false, bank_hard_negatives: false, ..contaccum(48, 1000) };
    let how = Compensation { probe_samples: 8, one_encoder: true, unit_length: true };
    let moving = |config: &ObjectiveConfig| ObjectiveConfig {
        bank_drift: BankDrift::Compensate(how),
        ..config.clone()
    };
    for config in [
        ObjectiveConfig::in_batch(48, 1.0, 8, 0),
        contaccum(48, 1000),
        moving(&contaccum(48, 1000)),
        moving(&half),
        half,
        current_rows,
        no_passages,
    ] {
        let region = Region::new(ALLOCATOR);
        let objective = Objective::new(config.clone()).unwrap();
        let change = region.change();
        let held = change.bytes_allocated - change.bytes_deallocated;
        assert_eq!(held, Objective::memory_bytes(&config), "{config:?}");
        drop(objective);
    }

    // A bank of 65,536 × 384: queries, positives and hard negatives are 288 MiB, the sums over them a fifth of it.
    let config = contaccum(384, 65_536);
    let banks = 65_536 * 3 * 384 * size_of::<f32>();
    let rest = Objective::memory_bytes(&config) - banks;
    println!("65,536 samples: banks {banks} bytes, all else {rest} bytes");
    assert!(rest < banks / 4, "{rest} bytes beside banks of {banks}");
    // Twice the bank takes less than three times the rest (its part beside the workspace grows as n√n).
    assert!(Objective::memory_bytes(&contaccum(384, 131_072)) - 2 * banks < 3 * rest);
    // A batch of 16,384 has a matrix of 1 GiB; nothing of that size is held.
    let large = ObjectiveConfig { max_batch_samples: 16_384, ..ObjectiveConfig::in_batch(384, 1.0, 8, 1) };
    assert!(Objective::memory_bytes(&large) < 1 << 22 << rayon::current_num_threads().ilog2());
    let region = Region::new(ALLOCATOR);
    let mut objective = Objective::new(ObjectiveConfig { dim: 4, ..large }).unwrap();
    let values = vec![0.5; 16_384 * 4];
    let ids: Vec<u32> = (0..16_384).collect();
    let mut gradients = [values.clone(), values.clone()];
    let [queries, positives] = &mut gradients;
    let batch = Batch {
        queries: &values,
        positives: &values,
        hard_negatives: &[],
        query_ids: &ids,
        positive_ids: &ids,
        hard_negative_ids: &[],
        hard_negatives_per_sample: &vec![0; 16_384],
    };
    let report = objective.step(batch, 1.0, GradientsMut { queries, positives, hard_negatives: &mut [] });
    // All that was ever allocated, what each product packs and gives back included, is half of the matrix.
    let change = region.change();
    println!("a batch of 16,384: {change:?}");
    assert!(change.bytes_allocated < 1 << 30, "{change:?}");
    assert!(change.bytes_allocated - change.bytes_deallocated < 1 << 24, "{change:?}");
    // All passages alike: every query chooses one of 16,384.
    assert!((report.loss - 16_384f64.ln()).abs() < 1e-6, "{}", report.loss);
    assert!(gradients.iter().flatten().all(|g| g.abs() < 1e-6));

    // Steps and entries keep to it: what they take beside it is given back, and is small.
    let mut objective = Objective::new(moving(&contaccum(48, 1000))).unwrap();
    let mut numbers = Numbers(1);
    let probed = numbers.probed(8, 48, 1.0, 0.02);
    let batches: Vec<_> = (0..8).map(|_| OwnedBatch::new(&numbers.samples(8, 48, 1.0, 1, 1000))).collect();
    let mut round = |rounds: usize| {
        for batch in batches.iter().cycle().take(rounds) {
            step_and_enqueue(&mut objective, batch, 1.0);
            objective.move_banks(probed.view());
        }
    };
    round(300);
    let region = Region::new(ALLOCATOR);
    round(300);
    let change = region.change();
    let kept = change.bytes_allocated as i64 - change.bytes_deallocated as i64;
    assert!(kept.abs() < 1 << 16, "300 steps kept {kept} bytes");
}
