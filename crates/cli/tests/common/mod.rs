//! A small data set, a small random model, and the program run on them.

use std::path::Path;
use std::process::{Command, Output};

use contaccum_data::synthetic::{SyntheticConfig, SyntheticSet};
use contaccum_encoder::{
    BertConfig, Layout, ModelCard, ModelSettings, PassageFormat, TextTokenizer, export_folder, random_weights,
};

/// Writes `data/` (a BEIR folder) and `start/` (a model of `hidden_size`) into `folder`.
pub fn prepare(folder: &Path, hidden_size: usize) {
    let sizes = SyntheticConfig { passages: 120, train_questions: 200, test_questions: 20 };
    let set = SyntheticSet::generate(1, sizes).unwrap();
    set.write_beir(&folder.join("data")).unwrap();
    let tokenizer = TextTokenizer::from_vocabulary(set.vocabulary).unwrap();
    let config = BertConfig {
        hidden_size,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 2 * hidden_size,
        vocab_size: tokenizer.vocabulary_size(),
        max_position_embeddings: 64,
        ..BertConfig::default()
    };
    let layout = Layout::new(&config);
    let weights = random_weights(&config, &layout, 7);
    let card = ModelCard {
        title: "a small random model".into(),
        base_model: None,
        passage_format: PassageFormat::Pair,
        training: Vec::new(),
    };
    let settings = ModelSettings::plain(&config);
    export_folder(&folder.join("start"), &config, &layout, &weights, &tokenizer, &settings, &card).unwrap();
}

/// Runs `contaccum` in `folder` with the words of `line`; `'` keeps words together.
pub fn contaccum(folder: &Path, line: &str) -> Output {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 { words.push(part) } else { words.extend(part.split_whitespace()) }
    }
    let program = assert_cmd::cargo::cargo_bin!("contaccum");
    Command::new(program).current_dir(folder).args(words).output().unwrap()
}

/// What a command that succeeds writes to stdout.
pub fn succeed(folder: &Path, line: &str) -> String {
    let output = contaccum(folder, line);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}\n{stderr}");
    String::from_utf8(output.stdout).unwrap()
}
