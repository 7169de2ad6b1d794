//! Checkpoints: everything a run needs to go on as if it had never stopped.
//!
//! A checkpoint is a folder `checkpoint-NNNNNN` in the run's output folder:
//!
//! ```text
//! model/              the encoders as an exported folder (weights, tokenizer, settings)
//! state.safetensors   AdamW moments, banks with their query and passage ids and cached sums
//! state.json          update reached, settings and data it belongs to
//! contents.json       hash of each of these files
//! ```
//!
//! Data position, schedule and random streams are functions of the update's number and the configuration.
//!
//! Promised in a crash at any instant: a folder of that name is complete and synced, an incomplete one has another
//! name and is removed by the next run; older checkpoints go only afterwards. Nothing but what was written is read
//! back: contents are held against their hashes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use contaccum_encoder::{
    Encoder, Fingerprint, ModelCard, ModelFolder, ModelSettings, Pair, Rounding, Side, TextTokenizer,
    export_folder, tell_differences,
};
use contaccum_files::{copy_folder, read_json, remove_folder, write_folder, write_json};
use contaccum_objective::ObjectiveState;
use safetensors::tensor::Dtype;
use serde::{Deserialize, Serialize};

use crate::contents::{self, CONTENTS};
use crate::identity::RunIdentity;
use crate::tensors::{TensorFile, Values, write_tensors};
use crate::tower::{Tower, Towers};
use crate::warmup::WarmupGate;
use crate::{Setting, TrainConfig, TrainError, Trainer};

const PREFIX: &str = "checkpoint-";
const MODEL: &str = "model";
const TENSORS: &str = "state.safetensors";
const STATE: &str = "state.json";
/// Folder of the query encoder of an untied model, inside the model's folder.
pub const QUERY_ENCODER: &str = "query_encoder";
/// Folder of the passage encoder of an untied model, inside the model's folder.
pub const PASSAGE_ENCODER: &str = "passage_encoder";

/// What a model folder needs beside the trainer's encoders.
pub(crate) struct ModelFiles<'a> {
    pub tokenizer: &'a TextTokenizer,
    pub card: &'a ModelCard,
}

/// `state.json`.
#[derive(Serialize, Deserialize)]
struct State {
    update: usize,
    updates: usize,
    /// Absent in checkpoints of versions that did not know what they belong to.
    fingerprint: Option<Fingerprint>,
    rounding: Option<Rounding>,
    parameters: usize,
    objective_settings: Vec<u64>,
    objective_entered: u64,
    config: toml::Table,
}

pub(crate) fn broken(path: &Path, reason: impl std::fmt::Display) -> TrainError {
    let reason = format!("{reason} (remove this checkpoint: the one before it is then gone on from)");
    TrainError::Checkpoint { action: "read", path: path.into(), reason }
}

/// The checkpoints in `folder`, oldest first.
fn list(folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let mut found = Vec::new();
    for path in entries(folder)? {
        let number = path.file_name().and_then(|n| n.to_str()?.strip_prefix(PREFIX)?.parse::<usize>().ok());
        found.extend(number.filter(|&number| path == folder.join(name(number))).map(|number| (number, path)));
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let failed = contaccum_files::Error::io("reading", folder);
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => {
            let paths = entries.map_err(&failed)?.map(|entry| entry.map(|entry| entry.path()));
            Ok(paths.collect::<io::Result<_>>().map_err(failed)?)
        }
    }
}

fn name(update: usize) -> String {
    format!("{PREFIX}{update:06}")
}

/// The checkpoint of an update in a run's output folder, whether it is there or not.
pub(crate) fn path(folder: &Path, update: usize) -> PathBuf {
    folder.join(name(update))
}

/// The newest checkpoint in `folder`.
pub(crate) fn newest(folder: &Path) -> Result<Option<PathBuf>, TrainError> {
    Ok(list(folder)?.pop())
}

/// Whether a run in `folder` can go on: whether it has a complete checkpoint.
///
/// # Errors
/// When the folder cannot be read.
pub fn has_checkpoint(folder: &Path) -> Result<bool, TrainError> {
    Ok(newest(folder)?.is_some())
}

/// Refuses folders named like checkpoints that this program did not write: they would be taken for its own.
pub(crate) fn check_ours(folder: &Path) -> Result<(), TrainError> {
    let named = |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(PREFIX));
    match entries(folder)?.into_iter().filter(named).find(|path| !path.join(CONTENTS).is_file()) {
        Some(path) => Err(TrainError::Foreign { path }),
        None => Ok(()),
    }
}

/// Removes all checkpoints of the run in `folder`: it can no longer go on.
///
/// # Errors
/// When one cannot be removed.
pub fn remove_checkpoints(folder: &Path) -> Result<(), TrainError> {
    keep(folder, 0)
}

/// Removes the oldest checkpoints of the run in `folder` beyond so many.
pub(crate) fn keep(folder: &Path, most: usize) -> Result<(), TrainError> {
    let mut checkpoints = list(folder)?;
    checkpoints.retain(|path| path.join(CONTENTS).is_file());
    let surplus = checkpoints.len().saturating_sub(most);
    Ok(checkpoints[..surplus].iter().try_for_each(|path| remove_folder(path))?)
}

/// Writes a checkpoint of `trainer` into `folder`, whole or not at all.
pub(crate) fn save(
    folder: &Path,
    identity: &RunIdentity,
    trainer: &Trainer,
    files: &ModelFiles,
) -> Result<PathBuf, TrainError> {
    let path = path(folder, trainer.updates_done());
    write_folder(&path, |unfinished| write(unfinished, identity, trainer, files))?;
    Ok(path)
}

fn write(
    folder: &Path,
    identity: &RunIdentity,
    trainer: &Trainer,
    files: &ModelFiles,
) -> Result<(), TrainError> {
    save_model(&folder.join(MODEL), trainer, files)?;
    let banks = trainer.objective.state();
    let warmup = trainer.warmup.to_values();
    write_tensors(&folder.join(TENSORS), all_tensors(&trainer.towers, &banks, &warmup))?;
    let state = State {
        update: trainer.updates_done(),
        updates: identity.updates,
        fingerprint: Some(identity.of_checkpoint()),
        rounding: Some(Rounding::here()),
        parameters: trainer.query_encoder().layout().parameters(),
        objective_settings: banks.settings,
        objective_entered: banks.entered,
        config: table(&identity.config),
    };
    write_json(&folder.join(STATE), &state)?;
    contents::seal(folder)
}

fn table(config: &TrainConfig) -> toml::Table {
    config.to_toml().parse().expect("the configuration's own TOML")
}

/// Writes the trainer's encoders: one model folder when tied, else `query_encoder/` and `passage_encoder/`.
pub(crate) fn save_model(path: &Path, trainer: &Trainer, files: &ModelFiles) -> Result<(), TrainError> {
    let export = |path: &Path, encoder: &Encoder, longest: usize, pair: Option<Pair>| {
        let settings = ModelSettings { max_seq_length: longest, ..encoder.settings().clone() };
        let (config, layout) = (encoder.config(), encoder.layout());
        let card = ModelCard { pair, ..files.card.clone() };
        export_folder(path, config, layout, encoder.weights(), files.tokenizer, &settings, &card)
    };
    let query = trainer.query_encoder();
    let (query_longest, passage_longest) =
        (query.settings().query_max_length, query.settings().passage_max_length);
    match &trainer.towers.passage {
        None => export(path, query, query_longest.max(passage_longest), None)?,
        // Both or none: half a model would stand under its name.
        Some(passage) => write_folder(path, |folder| {
            // Each half knows the other: vectors of any other encoder do not fit its own. They share the tokenizer.
            let half = |side, other: &Encoder| {
                Some(Pair { side, other: other.fingerprint(files.tokenizer).without("tokenizer") })
            };
            let of_queries = half(Side::Query, &passage.encoder);
            export(&folder.join(QUERY_ENCODER), query, query_longest, of_queries)?;
            let of_passages = half(Side::Passage, query);
            export(&folder.join(PASSAGE_ENCODER), &passage.encoder, passage_longest, of_passages)?;
            Ok::<_, TrainError>(())
        })?,
    }
    Ok(())
}

/// Copies the model of a checkpoint (or of the newest one in a run's output folder) to a folder of its own.
///
/// # Errors
/// No checkpoint there, one whose files are not what was written, a target that exists, or files that cannot be
/// copied; the target is then not created.
pub fn export_checkpoint(checkpoint: &Path, output: &Path) -> Result<(), TrainError> {
    let checkpoint = match checkpoint.join(MODEL).is_dir() && checkpoint.join(STATE).is_file() {
        true => checkpoint.to_owned(),
        false => newest(checkpoint)?.ok_or_else(|| {
            let remedy = match checkpoint.join("config.json").is_file() {
                true => {
                    "it is a model folder already: encode, search and sentence-transformers read it as it is"
                }
                false => "give the output folder of a run, or one of its checkpoints",
            };
            TrainError::NoCheckpoint { path: checkpoint.into(), remedy }
        })?,
    };
    if output.exists() {
        return Err(TrainError::Checkpoint {
            action: "exported",
            path: output.into(),
            reason: "the target exists already (remove it, or give another folder)".into(),
        });
    }
    contents::verify(&checkpoint)?;
    write_folder(output, |unfinished| Ok(copy_folder(&checkpoint.join(MODEL), unfinished)?))
}

/// Puts `trainer` where the checkpoint was written. Returns how its numbers were rounded, if not as they are here.
pub(crate) fn restore(
    path: &Path,
    identity: &RunIdentity,
    trainer: &mut Trainer,
) -> Result<Option<Rounding>, TrainError> {
    contents::verify(path)?;
    let state: State = read_json(&path.join(STATE))?;
    if !path.ends_with(name(state.update)) {
        return Err(broken(path, format!("it is of update {}", state.update)));
    }
    same_run(path, &state, identity, trainer)?;

    let model = path.join(MODEL);
    let load = |name: &str, tower: &mut Tower| -> Result<(), TrainError> {
        let folder = ModelFolder::locate(&model.join(name).to_string_lossy())?;
        let layout = tower.encoder.layout().clone();
        Ok(folder.read_weights(&layout, tower.encoder.weights_mut())?)
    };
    match &mut trainer.towers.passage {
        None => load("", &mut trainer.towers.query)?,
        Some(passage) => {
            load(PASSAGE_ENCODER, passage)?;
            load(QUERY_ENCODER, &mut trainer.towers.query)?;
        }
    }
    restore_tensors(&path.join(TENSORS), &state, trainer)?;
    trainer.updates_done = state.update;
    Ok(state.rounding.filter(|rounding| *rounding != Rounding::here()))
}

/// Refuses a checkpoint whose numbers would not be those of this run.
fn same_run(path: &Path, state: &State, identity: &RunIdentity, trainer: &Trainer) -> Result<(), TrainError> {
    let other = |key: &str, stored: String, given: String| {
        Err(TrainError::OtherRun { path: path.into(), key: key.into(), stored, given })
    };
    let parameters = trainer.query_encoder().layout().parameters();
    if state.parameters != parameters {
        return other("model", format!("of {} parameters", state.parameters), format!("of {parameters}"));
    }
    let given = table(&identity.config);
    let keys = state.config.keys().chain(given.keys().filter(|key| !state.config.contains_key(*key)));
    for key in keys.filter(|key| Setting::of(key).is_none_or(|one| !one.facts.role.may_change_on_resume())) {
        let (stored, given) = (state.config.get(key), given.get(key));
        if stored != given {
            let word = |value: Option<&toml::Value>| value.map_or("not set".into(), ToString::to_string);
            return other(key, word(stored), word(given));
        }
    }
    if state.updates != identity.updates {
        return other("max_steps", state.updates.to_string(), identity.updates.to_string());
    }
    let Some(fingerprint) = &state.fingerprint else {
        return Err(broken(path, "it does not say what it was trained on: an earlier version wrote it"));
    };
    let differences = fingerprint.differences(&identity.of_checkpoint());
    if differences.is_empty() {
        return Ok(());
    }
    Err(TrainError::OtherContent { path: path.into(), what: tell_differences(&differences) })
}

/// Every tensor of `state.safetensors`, by name.
fn all_tensors<'a>(
    towers: &'a Towers,
    banks: &'a ObjectiveState,
    warmup: &'a [f64],
) -> Vec<(String, Values<'a>)> {
    let mut tensors = Vec::new();
    let sides = [("query", Some(&towers.query)), ("passage", towers.passage.as_ref())];
    for (side, tower) in sides.into_iter().filter_map(|(side, tower)| Some((side, tower?))) {
        tensors.push((format!("{side}.moment1"), Values::new(Dtype::F32, &tower.moment1)));
        tensors.push((format!("{side}.moment2"), Values::new(Dtype::F32, &tower.moment2)));
    }
    let banks = [
        ("warmup", Values::new(Dtype::F64, warmup)),
        ("queries", Values::new(Dtype::F32, &banks.queries)),
        ("columns", Values::new(Dtype::F32, &banks.columns)),
        ("column_ids", Values::new(Dtype::U32, &banks.column_ids)),
        ("row_ids", Values::new(Dtype::U32, &banks.row_ids)),
        ("query_ids", Values::new(Dtype::U32, &banks.query_ids)),
        ("own_scores", Values::new(Dtype::F64, &banks.own_scores)),
        ("paths", Values::new(Dtype::F64, &banks.paths)),
        ("marks", Values::new(Dtype::U64, &banks.marks)),
        ("block_sums", Values::new(Dtype::F32, &banks.block_sums)),
        ("newer_sums", Values::new(Dtype::F64, &banks.newer_sums)),
        ("open_sums", Values::new(Dtype::F64, &banks.open_sums)),
        ("total_sums", Values::new(Dtype::F64, &banks.total_sums)),
        ("cuts", Values::new(Dtype::U64, &banks.cuts)),
    ];
    tensors.extend(banks.into_iter().map(|(name, values)| (format!("bank.{name}"), values)));
    tensors
}

fn restore_tensors(path: &Path, state: &State, trainer: &mut Trainer) -> Result<(), TrainError> {
    let mut file = TensorFile::open(path)?;
    let towers = &mut trainer.towers;
    let sides = [("query", Some(&mut towers.query)), ("passage", towers.passage.as_mut())];
    for (side, tower) in sides.into_iter().filter_map(|(side, tower)| Some((side, tower?))) {
        file.read_into(&format!("{side}.moment1"), &mut tower.moment1)?;
        file.read_into(&format!("{side}.moment2"), &mut tower.moment2)?;
    }
    let mut warmup = [0.0; 2];
    file.read_into("bank.warmup", &mut warmup)?;
    trainer.warmup = WarmupGate::from_values(warmup);
    let banks = ObjectiveState {
        settings: state.objective_settings.clone(),
        entered: state.objective_entered,
        queries: file.read("bank.queries")?,
        columns: file.read("bank.columns")?,
        column_ids: file.read("bank.column_ids")?,
        row_ids: file.read("bank.row_ids")?,
        query_ids: file.read("bank.query_ids")?,
        own_scores: file.read("bank.own_scores")?,
        paths: file.read("bank.paths")?,
        marks: file.read("bank.marks")?,
        block_sums: file.read("bank.block_sums")?,
        newer_sums: file.read("bank.newer_sums")?,
        open_sums: file.read("bank.open_sums")?,
        total_sums: file.read("bank.total_sums")?,
        cuts: file.read("bank.cuts")?,
    };
    trainer.objective.restore(&banks).map_err(|e| broken(path, e))
}
