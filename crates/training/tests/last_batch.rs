//! An update on fewer rows than a total batch: the loss is the mean over the rows there are.

use contaccum_encoder::{
    BertConfig, Encoder, Layout, ModelConfig, ModelSettings, TokenSequence, random_weights,
};
use contaccum_training::{
    BankDrift, BankWarmup, Enqueue, Method, Scheduler, TokenizedSample, TrainConfig, Trainer, UpdateReport,
};

fn config(method: Method, local_batch_size: usize, gradient_accumulation_steps: usize) -> TrainConfig {
    TrainConfig {
        method,
        local_batch_size,
        gradient_accumulation_steps,
        hard_negatives: 1,
        query_max_length: 8,
        passage_max_length: 8,
        // With so large a denominator AdamW's step is the gradient itself.
        learning_rate: 1e9,
        adam_epsilon: 1e9,
        max_grad_norm: 0.0,
        scheduler: Scheduler::Constant,
        ..TrainConfig::default()
    }
}

fn trainer(config: TrainConfig) -> Trainer {
    let shape = ModelConfig::try_from(BertConfig {
        hidden_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 32,
        vocab_size: 50,
        max_position_embeddings: 8,
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
        ..BertConfig::default()
    })
    .unwrap();
    let weights = random_weights(&shape, &Layout::new(&shape), 3);
    let settings = ModelSettings { normalize: true, ..ModelSettings::plain(&shape) };
    Trainer::new(config, Encoder::new(shape, settings, weights), None, 100).unwrap()
}

fn rows(rows: std::ops::Range<usize>) -> Vec<TokenizedSample> {
    let sequence = |i: usize| {
        let ids = (0..3 + i % 5).map(|t| ((i * 7919 + t * 31) % 50) as u32).collect();
        TokenSequence { ids, second_segment: 3 }
    };
    let sample = |i: usize| TokenizedSample {
        query: sequence(3 * i),
        positive: sequence(3 * i + 1),
        hard_negatives: vec![sequence(3 * i + 2)],
        positive_id: 2 * i as u32,
        hard_negative_ids: vec![2 * i as u32 + 1],
        query_id: i as u32,
    };
    rows.map(sample).collect()
}

/// The gradient of one update, and what it reports.
fn gradient(config: TrainConfig, batch: std::ops::Range<usize>) -> (Vec<f32>, UpdateReport) {
    let mut trainer = trainer(config);
    let before = trainer.query_encoder().weights().to_vec();
    let report = trainer.update(&rows(batch)).unwrap();
    let after = trainer.query_encoder().weights();
    (before.iter().zip(after).map(|(before, after)| before - after).collect(), report)
}

#[test]
fn every_row_weighs_the_same_in_loss_and_gradient() {
    let of = |batch| gradient(config(Method::GradAccum, 2, 3), batch);
    let (whole, report) = of(0..5);
    let parts = [of(0..2), of(2..4), of(4..5)];
    let shares = [0.4, 0.4, 0.2];
    let loss: f64 = parts.iter().zip(shares).map(|((_, part), share)| part.loss() * share).sum();
    assert!((report.loss() - loss).abs() < 1e-6, "{} {loss}", report.loss());
    assert_eq!(report.micro_rows, [2, 2, 1]);
    let largest = whole.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    assert!(largest > 0.01, "{largest}");
    for (index, value) in whole.iter().enumerate() {
        let expected: f64 =
            parts.iter().zip(shares).map(|((part, _), share)| f64::from(part[index]) * share).sum();
        let rounding = 1e-6 * f64::from(largest);
        assert!((f64::from(*value) - expected).abs() < rounding, "{index}: {value} {expected}");
    }
}

#[test]
fn five_rows_of_a_full_batch_of_six_are_a_full_batch_of_five() {
    let (of_six, _) = gradient(config(Method::FullBatch, 6, 1), 0..5);
    let (of_five, _) = gradient(config(Method::FullBatch, 5, 1), 0..5);
    assert_eq!(of_six, of_five);
    let (cached, _) = gradient(config(Method::GradCache, 2, 3), 0..5);
    let largest = of_five.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    assert!(cached.iter().zip(&of_five).all(|(a, b)| (a - b).abs() < 1e-6 * largest));
}

#[test]
fn banks_take_the_rows_there_are_and_move_by_them_in_either_way_of_entering() {
    for (memory_bank_enqueue, bank_drift) in [
        (Enqueue::MicroBatch, BankDrift::None),
        (Enqueue::Update, BankDrift::None),
        (Enqueue::MicroBatch, BankDrift::Compensate),
        (Enqueue::Update, BankDrift::Compensate),
    ] {
        let config = TrainConfig {
            memory_bank_size: Some(8),
            memory_bank_warmup: BankWarmup::Updates(0),
            memory_bank_enqueue,
            bank_drift,
            learning_rate: 1e-6,
            adam_epsilon: 1e-8,
            ..config(Method::Contaccum, 2, 3)
        };
        let mut trainer = trainer(config);
        let filled = [0..6, 6..11, 11..17, 17..18, 18..24].map(|batch| {
            let report = trainer.update(&rows(batch)).unwrap();
            assert!(report.loss().is_finite() && report.gradient_norms.global > 0.0);
            report.bank_samples
        });
        assert_eq!(filled, [6, 8, 8, 8, 8], "{memory_bank_enqueue:?} {bank_drift:?}");
    }
}
