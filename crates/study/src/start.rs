//! Fresh encoders: random weights that all cells of a seed begin from, trained a while first.

use std::path::{Path, PathBuf};

use contaccum_encoder::{
    BertConfig, EncoderError, Layout, ModelCard, ModelConfig, ModelFolder, ModelSettings, TextTokenizer,
    export_folder, random_weights,
};
use contaccum_files::{ContentHash, read_json_if_there, write_json};
use contaccum_training::{TrainConfig, run_settings};

use crate::StudyError;
use crate::recipe::{Recipe, Start};
use crate::run::StudyRun;

/// Added to a seed to train its start: its cells then draw other batches than it has seen.
const SEED_OFFSET: u64 = 1_000_000;

/// Folder of the starts, in that of the study.
pub(crate) const START: &str = "start";

/// The run that trains the fresh encoder of a seed.
pub(crate) fn start_run(start: &Start, study: &Path, seed: u64) -> StudyRun {
    let output_dir = study.join(START).join(format!("seed-{seed}"));
    let model = random_model(study, seed).to_string_lossy().into_owned();
    StudyRun {
        name: format!("start, seed {seed}"),
        config: TrainConfig {
            seed: seed.wrapping_add(SEED_OFFSET),
            model,
            output_dir,
            ..start.config.clone()
        },
    }
}

fn random_model(study: &Path, seed: u64) -> PathBuf {
    study.join(START).join(format!("random-{seed}"))
}

/// Writes the random weights of a seed as a model folder, unless they are there; refuses those of another shape.
pub(crate) fn write_random_model(
    start: &Start,
    tokenizer: &TextTokenizer,
    study: &Path,
    seed: u64,
) -> Result<(), StudyError> {
    let path = random_model(study, seed);
    let shape = shape(start, tokenizer)?;
    // What the exported tokenizer is read back as may be written otherwise than what it was read from.
    let tokenizer_record = study.join(START).join(format!("random-{seed}.tokenizer.json"));
    if path.is_dir() {
        let stored = ModelFolder::locate(&path.to_string_lossy())?;
        let recorded = read_json_if_there::<ContentHash>(&tokenizer_record)?;
        let difference = match stored.config()? == shape {
            true if recorded == Some(tokenizer.fingerprint()) => return Ok(()),
            true => "another tokenizer",
            false => "an encoder of another shape",
        };
        return Err(StudyError::Changed {
            run: format!("start, seed {seed}"),
            folder: study.join(START),
            difference: difference.into(),
        });
    }
    let parent = study.join(START);
    contaccum_files::create_folder(&parent)?;
    let layout = Layout::new(&shape);
    let weights = random_weights(&shape, &layout, seed);
    let settings = run_settings(&start.config, ModelSettings::plain(&shape));
    let card = ModelCard {
        title: "An encoder of random weights".into(),
        base_model: None,
        pair: None,
        training: Vec::new(),
    };
    write_json(&tokenizer_record, &tokenizer.fingerprint())?;
    Ok(export_folder(&path, &shape, &layout, &weights, tokenizer, &settings, &card)?)
}

fn shape(start: &Start, tokenizer: &TextTokenizer) -> Result<ModelConfig, EncoderError> {
    let shape = &start.shape;
    BertConfig {
        hidden_size: shape.hidden_size,
        num_hidden_layers: shape.num_hidden_layers,
        num_attention_heads: shape.num_attention_heads,
        intermediate_size: shape.intermediate_size,
        vocab_size: tokenizer.vocabulary_size(),
        max_position_embeddings: start.config.query_max_length.max(start.config.passage_max_length),
        ..BertConfig::default()
    }
    .try_into()
}

/// The tokenizer that all runs share, and the settings that put prompts before texts.
pub(crate) fn text_settings(recipe: &Recipe) -> Result<(TextTokenizer, ModelSettings), StudyError> {
    let config = &recipe.base;
    match &recipe.start {
        Some(start) => {
            let tokenizer = ModelFolder::locate(&start.shape.tokenizer)?.tokenizer()?;
            let settings = run_settings(config, ModelSettings::plain(&shape(start, &tokenizer)?));
            Ok((tokenizer, settings))
        }
        None => {
            let folder = ModelFolder::locate(&config.model)?;
            Ok((folder.tokenizer()?, run_settings(config, folder.settings()?)))
        }
    }
}
