//! The inputs that all scenarios read: a BEIR folder, a small random model, a study's recipe.

use std::path::Path;

use contaccum_data::synthetic::{SyntheticConfig, SyntheticSet};
use contaccum_encoder::{
    BertConfig, Layout, ModelCard, ModelConfig, ModelSettings, TextTokenizer, export_folder, random_weights,
};

/// Two cells of one seed, from a start of their own; paths are those of a trial's folder.
const STUDY: &str = r#"
seeds = [1]

[base]
train = "../../in/data"
local_batch_size = 4
gradient_accumulation_steps = 2
query_max_length = 16
passage_max_length = 32
max_steps = 2
save_steps = 1
threads = 1

[start]
tokenizer = "../../in/start"
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 32
[start.train]
method = "grad-accum"
max_steps = 1

[[evaluation]]
data = "../../in/data"
split = "test"

[[group]]
name = "methods"
title = "Methods"
baseline = "grad-accum"

[[cell]]
group = "methods"
name = "grad-accum"
method = "grad-accum"

[[cell]]
group = "methods"
name = "contaccum"
memory_bank_size = 8
"#;

/// Writes `data/`, `start/` and `study.toml` into `folder`.
pub fn write(folder: &Path) -> anyhow::Result<()> {
    let sizes = SyntheticConfig { passages: 64, train_questions: 64, test_questions: 12 };
    let set = SyntheticSet::generate(1, sizes)?;
    set.write_beir(&folder.join("data"))?;
    let tokenizer = TextTokenizer::from_vocabulary(set.vocabulary)?;
    let config = ModelConfig::try_from(BertConfig {
        hidden_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 64,
        vocab_size: tokenizer.vocabulary_size(),
        max_position_embeddings: 64,
        ..BertConfig::default()
    })?;
    let layout = Layout::new(&config);
    let weights = random_weights(&config, &layout, 7);
    let card = ModelCard {
        title: "a small random model".into(),
        base_model: None,
        pair: None,
        training: Vec::new(),
    };
    let settings = ModelSettings::plain(&config);
    export_folder(&folder.join("start"), &config, &layout, &weights, &tokenizer, &settings, &card)?;
    std::fs::write(folder.join("study.toml"), STUDY)?;
    Ok(())
}
