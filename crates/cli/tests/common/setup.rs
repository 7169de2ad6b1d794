//! A small data set and small random models.

use std::path::Path;

use contaccum_data::synthetic::{SyntheticConfig, SyntheticSet};
use contaccum_encoder::{
    BertConfig, Layout, ModelCard, ModelConfig, ModelSettings, TextTokenizer, export_folder, random_weights,
};

/// Writes a BEIR folder with hard negatives and returns the tokenizer of its vocabulary.
pub fn write_data(folder: &Path) -> TextTokenizer {
    let sizes = SyntheticConfig { passages: 120, train_questions: 200, test_questions: 20 };
    let set = SyntheticSet::generate(1, sizes).unwrap();
    set.write_beir(folder).unwrap();
    TextTokenizer::from_vocabulary(set.vocabulary).unwrap()
}

/// Writes a random model of `num_hidden_layers` layers of `hidden_size`.
pub fn write_model(folder: &Path, tokenizer: &TextTokenizer, num_hidden_layers: usize, hidden_size: usize) {
    let config = ModelConfig::try_from(BertConfig {
        hidden_size,
        num_hidden_layers,
        num_attention_heads: 2,
        intermediate_size: 2 * hidden_size,
        vocab_size: tokenizer.vocabulary_size(),
        max_position_embeddings: 64,
        ..BertConfig::default()
    })
    .unwrap();
    write_model_of(folder, tokenizer, &config);
}

/// Writes a random model of this configuration.
pub fn write_model_of(folder: &Path, tokenizer: &TextTokenizer, config: &ModelConfig) {
    let layout = Layout::new(config);
    let weights = random_weights(config, &layout, 7);
    let card = ModelCard {
        title: "a small random model".into(),
        base_model: None,
        pair: None,
        training: Vec::new(),
    };
    let settings = ModelSettings::plain(config);
    export_folder(folder, config, &layout, &weights, tokenizer, &settings, &card).unwrap();
}
