//! When banks are filled, when they are used, and what a trainer says of them.

use contaccum_encoder::{
    BertConfig, Encoder, Layout, ModelConfig, ModelSettings, TokenSequence, random_weights,
};
use contaccum_training::{
    BankDrift, BankDtype, BankWarmup, Enqueue, Method, RowScale, TokenizedSample, TrainConfig, Trainer,
    UpdateReport,
};

const LOCAL: usize = 2;
const STEPS: usize = 3;
const TOTAL: usize = LOCAL * STEPS;

/// The paper's banks.
fn config(bank_samples: usize) -> TrainConfig {
    TrainConfig {
        memory_bank_warmup: BankWarmup::Updates(0),
        bank_drift: BankDrift::None,
        row_scale: RowScale::All,
        model: "random".into(),
        train: "none".into(),
        output_dir: "none".into(),
        method: Method::Contaccum,
        memory_bank_size: Some(bank_samples),
        local_batch_size: LOCAL,
        gradient_accumulation_steps: STEPS,
        hard_negatives: 1,
        query_max_length: 8,
        passage_max_length: 8,
        learning_rate: 1e-2,
        ..TrainConfig::default()
    }
}

fn trainer(config: TrainConfig) -> Trainer {
    trainer_of(config, None, 0.0)
}

/// Of the given weights, or of random ones.
fn trainer_of(config: TrainConfig, weights: Option<Vec<f32>>, dropout: f64) -> Trainer {
    config.validate().unwrap();
    let shape = ModelConfig::try_from(BertConfig {
        hidden_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 32,
        vocab_size: 50,
        max_position_embeddings: 8,
        hidden_dropout_prob: dropout,
        attention_probs_dropout_prob: dropout,
        ..BertConfig::default()
    })
    .unwrap();
    let weights = weights.unwrap_or_else(|| random_weights(&shape, &Layout::new(&shape), 3));
    let encoder = || Encoder::new(shape.clone(), ModelSettings::plain(&shape), weights.clone());
    let passage = (!config.tied).then(encoder);
    Trainer::new(config, encoder(), passage, 100).unwrap()
}

/// The total batch of an update; every passage has an id of its own.
fn batch(update: usize) -> Vec<TokenizedSample> {
    let sequence = |i: usize| {
        let ids = (0..3 + i % 5).map(|t| ((i * 7919 + t * 31) % 50) as u32).collect();
        TokenSequence { ids, second_segment: 3 }
    };
    let sample = |i: usize| TokenizedSample {
        query: sequence(3 * i),
        positive: sequence(3 * i + 1),
        hard_negatives: vec![sequence(3 * i + 2)],
        query_id: 0,
        positive_id: 2 * i as u32,
        hard_negative_ids: vec![2 * i as u32 + 1],
    };
    (update * TOTAL..(update + 1) * TOTAL).map(sample).collect()
}

fn updates(trainer: &mut Trainer, updates: std::ops::Range<usize>) -> Vec<UpdateReport> {
    updates.map(|update| trainer.update(&batch(update)).unwrap()).collect()
}

fn losses(reports: &[UpdateReport]) -> Vec<Vec<f64>> {
    reports.iter().map(|report| report.micro_losses.clone()).collect()
}

#[test]
fn until_its_banks_are_warm_contaccum_is_gradient_accumulation_to_the_bit() {
    let plain = TrainConfig {
        method: Method::GradAccum,
        memory_bank_size: None,
        memory_bank_warmup: BankWarmup::Auto,
        bank_drift: BankDrift::Compensate,
        row_scale: RowScale::Current,
        ..config(0)
    };
    let expected = losses(&updates(&mut trainer(plain), 0..6));
    for memory_bank_enqueue in [Enqueue::MicroBatch, Enqueue::Update] {
        let warming =
            TrainConfig { memory_bank_warmup: BankWarmup::Updates(5), memory_bank_enqueue, ..config(10) };
        let mut trainer = trainer(warming);
        let found = updates(&mut trainer, 0..6);
        assert_eq!(losses(&found[..5]), expected[..5]);
        assert_ne!(losses(&found[5..]), expected[5..]);
        assert!(found[..5].iter().all(|report| report.bank_mass_by_age.is_none()));
        assert!(found[5].bank_mass() > 0.0);
        // A bank of 10 takes the last two updates of 6 rows to fill: not filled before, full when first used.
        let samples: Vec<usize> = found.iter().map(|report| report.bank_samples).collect();
        assert_eq!(samples, [0, 0, 0, 6, 10, 10]);
    }
}

#[test]
fn banks_that_are_warm_hold_what_a_bank_filled_all_along_holds() {
    // The same encoder (a learning rate of 0), so the same vectors, whatever the banks did before.
    let still = TrainConfig { learning_rate: 0.0, ..config(10) };
    let warming = TrainConfig { memory_bank_warmup: BankWarmup::Updates(4), ..still.clone() };
    let always = losses(&updates(&mut trainer(still), 0..6)).concat();
    let warmed = losses(&updates(&mut trainer(warming), 0..6)).concat();
    for (a, b) in warmed.iter().zip(&always).skip(4 * STEPS) {
        // Other cuts of the same sums.
        assert!((a - b).abs() < 1e-12 * b.abs(), "{a} {b}");
    }
}

#[test]
fn vectors_that_enter_at_the_end_of_an_update_are_not_seen_within_it() {
    let columns = |memory_bank_enqueue| {
        let config = TrainConfig { memory_bank_enqueue, ..config(100) };
        let reports = updates(&mut trainer(config), 0..3);
        reports.iter().map(|report| (report.bank_columns, report.bank_samples)).collect::<Vec<_>>()
    };
    // Two columns a sample; the last of three micro-batches of two.
    assert_eq!(columns(Enqueue::MicroBatch), [(8, 6), (20, 12), (32, 18)]);
    assert_eq!(columns(Enqueue::Update), [(0, 6), (12, 12), (24, 18)]);
}

#[test]
fn without_a_passage_bank_queries_have_the_negatives_of_their_micro_batch_and_banked_rows_count() {
    let config = TrainConfig { bank_passages: Some(false), ..config(8) };
    let negatives = config.negatives_per_query().unwrap();
    let reports = updates(&mut trainer(config), 0..4);
    assert!(reports.iter().all(|report| report.negatives_per_query == negatives as f64));
    assert!(reports.iter().all(|report| report.bank_mass_by_age.is_none() && report.bank_columns == 0));
    // With banked rows the loss is not the mean over current rows alone.
    assert!((reports[3].loss() - reports[3].current_rows_loss).abs() > 1e-6);
}

#[test]
fn banks_in_bf16_change_the_loss_by_rounding_alone() {
    let rounded = TrainConfig { memory_bank_dtype: BankDtype::Bf16, ..config(20) };
    let (exact, rounded) = (updates(&mut trainer(config(20)), 0..3), updates(&mut trainer(rounded), 0..3));
    let difference = (exact[2].loss() - rounded[2].loss()).abs() / exact[2].loss();
    assert!(difference > 0.0 && difference < 1e-2, "{difference:e}");
}

#[test]
fn own_positives_in_the_bank_are_counted_with_and_without_the_mask() {
    for mask_false_negatives in [true, false] {
        let config = TrainConfig { mask_false_negatives, ..config(TOTAL) };
        let mut trainer = trainer(config);
        assert_eq!(trainer.update(&batch(0)).unwrap().own_positives_in_bank, 0);
        // The same rows again: each finds its own sample in the bank of one total batch.
        let again = trainer.update(&batch(0)).unwrap();
        assert_eq!(again.own_positives_in_bank, TOTAL as u64);
        let masked = if mask_false_negatives { 1.0 } else { 0.0 };
        assert_eq!(again.negatives_per_query, (2 * LOCAL + 2 * TOTAL - 1) as f64 - masked);
    }
}

/// Banks that move with the encoder, used from the first update on.
fn moving(bank_samples: usize) -> TrainConfig {
    TrainConfig {
        bank_drift: BankDrift::Compensate,
        row_scale: RowScale::Current,
        learning_rate: 1e-3,
        ..config(bank_samples)
    }
}

#[test]
fn an_encoder_that_stands_still_moves_nothing_under_any_dropout() {
    let still = TrainConfig { learning_rate: 0.0, ..moving(10) };
    for report in updates(&mut trainer_of(still, None, 0.3), 0..3) {
        let movement = report.bank_movement.unwrap();
        // The same masks: vectors made twice differ by rounding at most.
        assert!(movement.drift < 1e-10 && movement.path < 1e-4 && movement.evicted == 0, "{movement:?}");
    }
}

#[test]
fn banked_vectors_move_towards_what_the_new_encoder_makes_of_their_texts() {
    let after_one_update = |config: TrainConfig, weights: Option<Vec<f32>>| {
        let mut trainer = trainer_of(config, weights, 0.0);
        trainer.update(&batch(0)).unwrap();
        let weights = trainer.query_encoder().weights().to_vec();
        (trainer.objective_mut().state().columns, weights)
    };
    let (moved, weights) = after_one_update(moving(TOTAL), None);
    let (stayed, same) = after_one_update(TrainConfig { bank_drift: BankDrift::None, ..moving(TOTAL) }, None);
    assert_eq!(weights, same);
    let still = TrainConfig { learning_rate: 0.0, bank_drift: BankDrift::None, ..moving(TOTAL) };
    let (fresh, _) = after_one_update(still, Some(weights));
    let distance = |from: &[f32]| from.iter().zip(&fresh).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
    println!("{} from where they would be, not {}", distance(&moved), distance(&stayed));
    assert!(distance(&moved) < 0.7 * distance(&stayed), "{} {}", distance(&moved), distance(&stayed));
}

#[test]
fn banks_move_alike_however_an_update_is_cut_and_whenever_vectors_enter() {
    let movements = |config: TrainConfig| -> Vec<_> {
        updates(&mut trainer(config), 0..4).iter().map(|report| report.bank_movement.unwrap()).collect()
    };
    // 48 rows: three are probed, more than a micro-batch has.
    let wide = TrainConfig { gradient_accumulation_steps: 24, ..moving(64) };
    let wide_batch = |update: usize| (8 * update..8 * (update + 1)).flat_map(batch).collect::<Vec<_>>();
    let drift = |config: &TrainConfig| {
        trainer(config.clone()).update(&wide_batch(0)).unwrap().bank_movement.unwrap().drift
    };
    let whole = drift(&wide);
    for config in [
        TrainConfig { max_tokens: Some(wide.row_tokens()), ..wide.clone() },
        TrainConfig {
            memory_bank_dtype: BankDtype::Bf16,
            memory_bank_warmup: BankWarmup::Auto,
            ..wide.clone()
        },
        TrainConfig {
            memory_bank_enqueue: Enqueue::Update,
            memory_bank_warmup: BankWarmup::Auto,
            ..wide.clone()
        },
    ] {
        // Until banks are used, the update is the same.
        let (config, whole) = match config.memory_bank_warmup {
            BankWarmup::Auto => {
                let warming = TrainConfig { memory_bank_warmup: BankWarmup::Auto, ..wide.clone() };
                (config, drift(&warming))
            }
            BankWarmup::Updates(_) => (config, whole),
        };
        let found = drift(&config);
        assert!((found - whole).abs() < 1e-3 * whole, "{found} {whole}: {config:?}");
    }
    for config in [
        TrainConfig { tied: false, ..moving(10) },
        TrainConfig { method: Method::PreBatch, ..moving(10) },
        TrainConfig { method: Method::ContaccumGradCache, ..moving(10) },
        TrainConfig { bank_passages: Some(false), ..moving(10) },
        TrainConfig { memory_bank_warmup: BankWarmup::Updates(1), ..moving(10) },
    ] {
        for (update, movement) in movements(config.clone()).into_iter().enumerate() {
            assert!(movement.drift > 0.0 && movement.path > 0.0, "{update}: {movement:?} {config:?}");
        }
    }
}

#[test]
fn what_no_update_outlives_or_is_told_to_stay_does_not_move() {
    for config in [
        TrainConfig { keep_past: Some(false), ..moving(10) },
        config(10),
        TrainConfig { memory_bank_warmup: BankWarmup::Updates(9), ..moving(10) },
    ] {
        assert!(updates(&mut trainer(config), 0..2).iter().all(|report| report.bank_movement.is_none()));
    }
}

#[test]
fn from_an_encoder_that_changes_fast_samples_leave_and_those_of_the_last_update_stay() {
    let fast = TrainConfig { learning_rate: 2e-2, ..moving(100) };
    let reports = updates(&mut trainer(fast), 0..8);
    let evicted: usize = reports.iter().map(|report| report.bank_movement.unwrap().evicted).sum();
    assert!(evicted > 0, "{:?}", reports.iter().map(|report| report.bank_movement).collect::<Vec<_>>());
    for report in &reports {
        let movement = report.bank_movement.unwrap();
        let step = (2.0 * movement.drift).sqrt();
        assert!(report.bank_samples >= TOTAL || step > 0.7, "{movement:?}");
        assert!(movement.path <= 0.35 || report.bank_samples == TOTAL || report.bank_samples == 0);
        assert!(report.loss().is_finite());
    }
}

#[test]
fn by_default_banks_stay_out_until_the_loss_says_that_the_encoder_has_learned() {
    let auto = TrainConfig { memory_bank_warmup: BankWarmup::Auto, learning_rate: 1e-3, ..moving(12) };
    let plain = TrainConfig {
        method: Method::GradAccum,
        memory_bank_size: None,
        learning_rate: 1e-3,
        bank_drift: BankDrift::Compensate,
        row_scale: RowScale::Current,
        memory_bank_warmup: BankWarmup::Auto,
        ..config(0)
    };
    // 100 updates in all; of a random encoder on random rows the loss stays that of guessing.
    let (found, expected) = (updates(&mut trainer(auto), 0..40), updates(&mut trainer(plain), 0..40));
    let out = found.iter().take_while(|report| report.bank_mass_by_age.is_none()).count();
    assert!((1..=33).contains(&out), "{out}");
    assert_eq!(losses(&found[..out]), losses(&expected[..out]));
    assert!(found[out..].iter().all(|report| report.bank_mass_by_age.is_some()));
}

#[test]
fn with_the_scale_of_current_rows_the_gradient_does_not_shrink_while_the_banks_fill() {
    let ratio = |row_scale| {
        let config = TrainConfig { row_scale, learning_rate: 0.0, bank_drift: BankDrift::None, ..moving(60) };
        let reports = updates(&mut trainer(config), 0..10);
        reports[9].gradient_norms.global / reports[0].gradient_norms.global
    };
    let (current, all) = (ratio(RowScale::Current), ratio(RowScale::All));
    println!("gradient norm of full banks over that of empty ones: {current} and {all}");
    assert!(current > 3.0 * all);
}
