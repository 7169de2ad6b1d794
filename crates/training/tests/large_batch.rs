//! A total batch whose similarity matrix would be 1 GiB, in one update of gradient caching.

use contaccum_encoder::{
    BertConfig, Encoder, Layout, ModelConfig, ModelSettings, TokenSequence, random_weights,
};
use contaccum_training::{Method, TokenizedSample, TrainConfig, Trainer, resident_memory};

const ROWS: usize = 16_384;

#[test]
fn a_total_batch_of_16384_needs_no_matrix_of_16384_by_16384() {
    let shape = ModelConfig::try_from(BertConfig {
        hidden_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 32,
        vocab_size: 200,
        max_position_embeddings: 8,
        ..BertConfig::default()
    })
    .unwrap();
    let config = TrainConfig {
        method: Method::GradCache,
        local_batch_size: 64,
        gradient_accumulation_steps: ROWS / 64,
        query_max_length: 4,
        passage_max_length: 4,
        temperature: 1.0,
        ..TrainConfig::default()
    };
    let settings = ModelSettings { normalize: true, ..ModelSettings::plain(&shape) };
    let encoder = Encoder::new(shape.clone(), settings, random_weights(&shape, &Layout::new(&shape), 1));
    let mut trainer = Trainer::new(config, encoder, None, 10).unwrap();
    let sequence = |seed: usize| TokenSequence {
        ids: (0..4).map(|t| (seed * 7919 + t * 31) as u32 % 200).collect(),
        second_segment: 4,
    };
    let row = |row: usize| TokenizedSample {
        query: sequence(2 * row),
        positive: sequence(2 * row + 1),
        hard_negatives: Vec::new(),
        query_id: 0,
        positive_id: row as u32,
        hard_negative_ids: Vec::new(),
    };
    let report = trainer.update(&(0..ROWS).map(row).collect::<Vec<_>>()).unwrap();
    assert_eq!(report.micro_losses.len(), 1);
    assert_eq!(report.negatives_per_query, (ROWS - 1) as f64);
    // Cosines are within 1 of each other and of 0, so losses are within 2 of choosing at random.
    assert!((report.loss() - (ROWS as f64).ln()).abs() < 2.0, "{}", report.loss());
    assert!(report.gradient_norms.global > 0.0);
    if let Some(peak) = resident_memory().peak_bytes {
        assert!(peak < 1 << 28, "{peak} bytes at the peak");
    }
}
