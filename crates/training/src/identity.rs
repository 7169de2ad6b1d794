//! What a run is made of: all that decides its numbers beside its settings.

use std::path::Path;

use contaccum_data::TrainingSet;
use contaccum_encoder::{Fingerprint, ModelConfig, ModelSettings};
use contaccum_files::{ContentHash, read_json_if_there, write_json};

use crate::{TrainConfig, TrainError};

/// The record of a run's [`run_fingerprint`], inside its output folder.
pub const FINGERPRINT_FILE: &str = "fingerprint.json";

/// The part of a run's fingerprint that a checkpoint has of its own.
const START: &str = "start weights";

/// What a checkpoint belongs to.
#[derive(Clone, Debug)]
pub(crate) struct RunIdentity {
    pub config: TrainConfig,
    pub fingerprint: Fingerprint,
    /// Updates of the whole run: the schedule depends on them.
    pub updates: usize,
}

impl RunIdentity {
    /// What a run must have in common with one that goes on from its checkpoint: the checkpoint brings the weights.
    pub fn of_checkpoint(&self) -> Fingerprint {
        self.fingerprint.clone().without(START)
    }
}

/// What training data hold, whatever files they lie in.
pub fn data_fingerprint(set: &TrainingSet) -> Fingerprint {
    Fingerprint::new()
        .with_content("training rows", set.rows_fingerprint())
        .with_content("training texts", set.texts_fingerprint())
}

/// All that decides the numbers of a run beside its settings: what the settings leave to the model's folder, the
/// model, and the data.
pub fn run_fingerprint(
    shape: &ModelConfig,
    settings: &ModelSettings,
    tokenizer: ContentHash,
    start: ContentHash,
    data: Fingerprint,
) -> Fingerprint {
    shape
        .fingerprint()
        .and(data)
        .and(shape.dropout_fingerprint())
        .with("pooling", settings.pooling.name())
        .with("normalize", settings.normalize)
        .with("query_prompt", &settings.query_prompt)
        .with("passage_prompt", &settings.passage_prompt)
        .with("passage_format", settings.passage_format.name())
        .with_content("tokenizer", tokenizer)
        .with_content(START, start)
}

/// Reads what the run in `folder` recorded of itself; `None` where it recorded nothing.
///
/// # Errors
/// When the record cannot be read.
pub fn recorded_fingerprint(folder: &Path) -> Result<Option<Fingerprint>, TrainError> {
    Ok(read_json_if_there(&folder.join(FINGERPRINT_FILE))?)
}

pub(crate) fn record_fingerprint(folder: &Path, fingerprint: &Fingerprint) -> Result<(), TrainError> {
    Ok(write_json(&folder.join(FINGERPRINT_FILE), fingerprint)?)
}
