//! Saving and restoring.

mod plain;

use contaccum_objective::{BankDrift, BankDtype, Compensation, Objective, ObjectiveConfig, ObjectiveError};
use plain::{Numbers, OwnedBatch, Step, step};

fn config(bank_dtype: BankDtype) -> ObjectiveConfig {
    ObjectiveConfig {
        mask_false_negatives: true,
        bank_samples: 50,
        bank_queries: true,
        bank_passages: true,
        bank_hard_negatives: true,
        bank_dtype,
        ..ObjectiveConfig::in_batch(16, 0.3, 7, 2)
    }
}

/// The bits of a step's loss and gradients.
fn bits<R>(loss: f64, step: &Step<f32, R>) -> Vec<u64> {
    let gradients = [&step.queries, &step.positives, &step.hard_negatives];
    let values = gradients.into_iter().flatten().map(|g| u64::from(g.to_bits()));
    std::iter::once(loss.to_bits()).chain(values).collect()
}

#[test]
fn a_restored_objective_goes_on_with_the_same_bits() {
    for dtype in [BankDtype::F32, BankDtype::Bf16] {
        for saved_after in [0, 1, 4, 9, 23, 60] {
            let mut numbers = Numbers(saved_after);
            let mut objective = Objective::new(config(dtype)).unwrap();
            let mut restored = None;
            for round in 0..saved_after + 40 {
                if round == saved_after {
                    let mut other = Objective::new(config(dtype)).unwrap();
                    // What it held before must not matter.
                    other.enqueue(OwnedBatch::new(&Numbers(99).samples(7, 16, 1.0, 2, 9)).view());
                    other.restore(&objective.state()).unwrap();
                    restored = Some(other);
                }
                let count = 1 + numbers.below(7);
                let batch = OwnedBatch::new(&numbers.samples(count, 16, 0.5, 2, 60));
                let expected = step(&mut objective, &batch, 0.5);
                objective.enqueue(batch.view());
                if let Some(restored) = &mut restored {
                    let found = step(restored, &batch, 0.5);
                    assert_eq!(bits(found.report.loss, &found), bits(expected.report.loss, &expected));
                    restored.enqueue(batch.view());
                    assert_eq!(restored.state(), objective.state());
                }
            }
        }
    }
}

#[test]
fn a_restored_objective_whose_banks_move_goes_on_with_the_same_bits() {
    for (dtype, one_encoder) in [(BankDtype::F32, true), (BankDtype::F32, false), (BankDtype::Bf16, true)] {
        let how = Compensation { probe_samples: 3, one_encoder, unit_length: true };
        let config = ObjectiveConfig { bank_drift: BankDrift::Compensate(how), ..config(dtype) };
        for saved_after in [1, 9, 23, 60] {
            let mut numbers = Numbers(saved_after);
            let mut objectives = vec![Objective::new(config.clone()).unwrap()];
            let mut evicted = 0;
            for round in 0..saved_after + 30 {
                if round == saved_after {
                    let mut other = Objective::new(config.clone()).unwrap();
                    other.restore(&objectives[0].state()).unwrap();
                    objectives.push(other);
                }
                let batch = OwnedBatch::new(&numbers.samples(5, 16, 0.5, 2, 60));
                // Now a slow encoder, whose banks are full, now a fast one, whose samples leave early.
                let distance = if round % 40 < 20 { 0.01 } else { 0.1 };
                let probed = numbers.probed(3, 16, 0.5, distance);
                let seen: Vec<_> = objectives
                    .iter_mut()
                    .map(|objective| {
                        let found = step(objective, &batch, 0.5);
                        objective.enqueue(batch.view());
                        let movement = objective.move_banks(probed.view()).unwrap();
                        (bits(found.report.loss, &found), movement, objective.state())
                    })
                    .collect();
                for one in &seen {
                    assert_eq!((&one.0, one.1), (&seen[0].0, seen[0].1));
                    assert!(one.2 == seen[0].2, "the states of round {round} differ");
                }
                evicted += seen[0].1.evicted;
            }
            assert!(evicted > 0 || saved_after == 1);
        }
    }
}

#[test]
fn the_same_batches_give_the_same_bits_again() {
    let run = || {
        let mut numbers = Numbers(4);
        let mut objective = Objective::new(config(BankDtype::F32)).unwrap();
        let mut all = Vec::new();
        for _ in 0..30 {
            let batch = OwnedBatch::new(&numbers.samples(7, 16, 0.5, 2, 60));
            let found = step(&mut objective, &batch, 1.0);
            objective.enqueue(batch.view());
            all.extend(bits(found.report.loss, &found));
        }
        all
    };
    assert_eq!(run(), run());
}

#[test]
fn clearing_leaves_nothing_behind() {
    let mut used = Objective::new(config(BankDtype::F32)).unwrap();
    let mut fresh = Objective::new(config(BankDtype::F32)).unwrap();
    let mut numbers = Numbers(8);
    for _ in 0..25 {
        used.enqueue(OwnedBatch::new(&numbers.samples(6, 16, 0.5, 2, 60)).view());
    }
    used.clear();
    assert_eq!(used.bank_len(), 0);
    for _ in 0..25 {
        let batch = OwnedBatch::new(&numbers.samples(6, 16, 0.5, 2, 60));
        let (a, b) = (step(&mut used, &batch, 1.0), step(&mut fresh, &batch, 1.0));
        assert_eq!(bits(a.report.loss, &a), bits(b.report.loss, &b));
        used.enqueue(batch.view());
        fresh.enqueue(batch.view());
    }
}

#[test]
fn a_state_of_other_settings_is_refused() {
    let state = Objective::new(config(BankDtype::F32)).unwrap().state();
    for other in [
        ObjectiveConfig { temperature: 0.2, ..config(BankDtype::F32) },
        ObjectiveConfig { bank_samples: 51, ..config(BankDtype::F32) },
        ObjectiveConfig { mask_false_negatives: false, ..config(BankDtype::F32) },
        config(BankDtype::Bf16),
    ] {
        let error = Objective::new(other).unwrap().restore(&state).unwrap_err();
        assert!(matches!(error, ObjectiveError::OtherSettings), "{error}");
    }
}

#[test]
fn a_damaged_state_is_refused_by_name_and_leaves_empty_banks() {
    let mut objective = Objective::new(config(BankDtype::F32)).unwrap();
    let mut numbers = Numbers(8);
    for _ in 0..12 {
        objective.enqueue(OwnedBatch::new(&numbers.samples(6, 16, 0.5, 2, 60)).view());
    }
    let batch = OwnedBatch::new(&numbers.samples(6, 16, 0.5, 2, 60));
    let empty = step(&mut Objective::new(config(BankDtype::F32)).unwrap(), &batch, 1.0);
    let whole = objective.state();
    let mut states = [whole.clone(), whole.clone(), whole];
    states[0].columns.pop();
    states[1].total_sums.pop();
    states[2].cuts.clear();
    for (state, name) in states.iter().zip(["columns", "total_sums", "cuts"]) {
        let error = objective.restore(state).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(objective.bank_len(), 0);
        assert_eq!(step(&mut objective, &batch, 1.0), empty);
    }
}

#[test]
fn impossible_settings_are_refused_with_the_remedy() {
    let good = config(BankDtype::F32);
    for (config, word) in [
        (ObjectiveConfig { temperature: 0.0, ..good.clone() }, "temperature"),
        (ObjectiveConfig { temperature: f32::NAN, ..good.clone() }, "temperature"),
        (ObjectiveConfig { dim: 0, ..good.clone() }, "dim"),
        (ObjectiveConfig { max_batch_samples: 0, ..good.clone() }, "max_batch_samples"),
        (ObjectiveConfig { tile_logits: 0, ..good.clone() }, "tile_logits"),
        (
            ObjectiveConfig {
                bank_queries: false,
                bank_passages: false,
                bank_hard_negatives: false,
                ..good.clone()
            },
            "bank_samples",
        ),
    ] {
        let error = Objective::new(config).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
        assert!(!error.contains('\n'));
    }
}
