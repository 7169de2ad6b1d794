//! When banks are filled, when they are used, and what a trainer says of them.

use contaccum_encoder::{BertConfig, Encoder, Layout, ModelSettings, TokenSequence, random_weights};
use contaccum_training::{BankDtype, Enqueue, Method, TokenizedSample, TrainConfig, Trainer, UpdateReport};

const LOCAL: usize = 2;
const STEPS: usize = 3;
const TOTAL: usize = LOCAL * STEPS;

fn config(bank_samples: usize) -> TrainConfig {
    TrainConfig {
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
    config.validate().unwrap();
    let shape = BertConfig {
        hidden_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 32,
        vocab_size: 50,
        max_position_embeddings: 8,
        ..BertConfig::default()
    };
    let weights = random_weights(&shape, &Layout::new(&shape), 3);
    Trainer::new(config, Encoder::new(shape.clone(), ModelSettings::plain(&shape), weights), None, 100)
        .unwrap()
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
    let plain = TrainConfig { method: Method::GradAccum, memory_bank_size: None, ..config(0) };
    let expected = losses(&updates(&mut trainer(plain), 0..6));
    for memory_bank_enqueue in [Enqueue::MicroBatch, Enqueue::Update] {
        let warming = TrainConfig { memory_bank_warmup: 5, memory_bank_enqueue, ..config(10) };
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
    let warming = TrainConfig { memory_bank_warmup: 4, ..still.clone() };
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
