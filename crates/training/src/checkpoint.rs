//! Checkpoints: everything a run needs to go on as if it had never stopped.
//!
//! A checkpoint is a folder `checkpoint-NNNNNN` in the run's output folder:
//!
//! ```text
//! model/              the encoders as an exported folder (weights, tokenizer, settings)
//! state.safetensors   AdamW moments, banks with their query and passage ids and cached sums
//! state.json          update reached, settings and data it belongs to
//! ```
//!
//! Data position, schedule and random streams are functions of the update's number and the configuration.
//!
//! Promised in a crash at any instant: a folder of that name is complete and synced, an incomplete one has another
//! name (`.checkpoint-NNNNNN.partial`) and is removed by the next save; older checkpoints go only afterwards.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bytemuck::{NoUninit, Pod};
use contaccum_encoder::{Encoder, ModelCard, ModelFolder, ModelSettings, TextTokenizer, export_folder};
use contaccum_objective::ObjectiveState;
use safetensors::tensor::{Dtype, Metadata, TensorInfo, View};
use serde::{Deserialize, Serialize};

use crate::tower::{Tower, Towers};
use crate::warmup::WarmupGate;
use crate::{TrainConfig, TrainError, Trainer};

/// The resolved configuration of a run, inside its output folder: a recipe.
pub const CONFIG_FILE: &str = "config.toml";

const PREFIX: &str = "checkpoint-";
const MODEL: &str = "model";
const TENSORS: &str = "state.safetensors";
const STATE: &str = "state.json";
/// Folder of the query encoder of an untied model, inside the model's folder.
pub const QUERY_ENCODER: &str = "query_encoder";
/// Folder of the passage encoder of an untied model, inside the model's folder.
pub const PASSAGE_ENCODER: &str = "passage_encoder";

/// Settings that may change between a checkpoint and the run that goes on from it: they decide no number.
pub(crate) const FREE_SETTINGS: [&str; 14] = [
    "output_dir",
    "model",
    "train",
    "threads",
    "recompute",
    "save_steps",
    "save_total_limit",
    "logging_steps",
    "eval_steps",
    "eval_data",
    "eval_split",
    "max_eval_queries",
    "ignore_identical_ids",
    "strict",
];

/// What a checkpoint belongs to.
#[derive(Clone, Debug)]
pub(crate) struct RunIdentity {
    pub config: TrainConfig,
    /// Fingerprint of the training rows.
    pub rows: u64,
    /// Updates of the whole run: the schedule depends on them.
    pub updates: usize,
}

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
    rows: u64,
    parameters: usize,
    objective_settings: Vec<u64>,
    objective_entered: u64,
    config: toml::Table,
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> TrainError + 'a {
    move |source| TrainError::Checkpoint {
        action,
        path: path.into(),
        reason: format!(
            "{source} (check the folder's permissions and free space; older checkpoints are intact)"
        ),
    }
}

fn broken(path: &Path, reason: impl std::fmt::Display) -> TrainError {
    let reason = format!("{reason} (resume from an older checkpoint: remove this one)");
    TrainError::Checkpoint { action: "read", path: path.into(), reason }
}

/// Creates the output folder and stores the resolved configuration in it.
pub(crate) fn create_folder(folder: &Path, config: &TrainConfig) -> Result<(), TrainError> {
    fs::create_dir_all(folder).map_err(failed("written", folder))?;
    contaccum_files::write(&folder.join(CONFIG_FILE), |file| {
        io::Write::write_all(file, config.to_toml().as_bytes())
    })?;
    Ok(())
}

/// The checkpoints in `folder`, oldest first.
fn list(folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed("read", folder))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed("read", folder))?.path();
        let number = path.file_name().and_then(|n| n.to_str()?.strip_prefix(PREFIX)?.parse::<usize>().ok());
        found.extend(number.map(|number| (number, path)));
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Whether a run in `folder` can go on: whether it has a complete checkpoint.
///
/// # Errors
/// When the folder cannot be read.
pub fn has_checkpoint(folder: &Path) -> Result<bool, TrainError> {
    Ok(!list(folder)?.is_empty())
}

/// The newest checkpoint to resume from; `None` for a fresh run. With `resume` there must be one, without none.
pub(crate) fn find(folder: &Path, resume: bool) -> Result<Option<PathBuf>, TrainError> {
    match (list(folder)?.pop(), resume) {
        (None, false) => Ok(None),
        (None, true) => Err(TrainError::NoCheckpoint { path: folder.into() }),
        (Some(newest), true) => Ok(Some(newest)),
        (Some(newest), false) => Err(TrainError::RunExists {
            path: folder.into(),
            checkpoint: newest.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        }),
    }
}

/// Removes all checkpoints of the run in `folder`: it can no longer go on.
///
/// # Errors
/// When one cannot be removed.
pub fn remove_checkpoints(folder: &Path) -> Result<(), TrainError> {
    list(folder)?.iter().try_for_each(|path| fs::remove_dir_all(path).map_err(failed("removed", path)))
}

/// Writes a checkpoint of `trainer` into `folder`, whole or not at all, then removes those beyond the limit.
pub(crate) fn save(
    folder: &Path,
    identity: &RunIdentity,
    trainer: &Trainer,
    files: &ModelFiles,
) -> Result<PathBuf, TrainError> {
    let name = format!("{PREFIX}{:06}", trainer.updates_done());
    let path = folder.join(&name);
    let partial = folder.join(format!(".{name}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(failed("written", &partial))?;
    }
    fs::create_dir_all(&partial).map_err(failed("written", &partial))?;
    let written = write(&partial, identity, trainer, files)
        .and_then(|()| sync_folder(&partial).map_err(failed("written", &partial)))
        .and_then(|()| fs::rename(&partial, &path).map_err(failed("written", &path)))
        .and_then(|()| sync_folder(folder).map_err(failed("written", folder)));
    if let Err(error) = written {
        let _ = fs::remove_dir_all(&partial);
        return Err(error);
    }
    prune(folder, identity.config.save_total_limit)?;
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
    let tensors = folder.join(TENSORS);
    safetensors::serialize_to_file(all_tensors(&trainer.towers, &banks, &warmup), None, &tensors)
        .map_err(|e| failed("written", &tensors)(io::Error::other(e)))?;
    File::open(&tensors).and_then(|file| file.sync_all()).map_err(failed("written", &tensors))?;
    let state = State {
        update: trainer.updates_done(),
        updates: identity.updates,
        rows: identity.rows,
        parameters: trainer.query_encoder().layout().parameters(),
        objective_settings: banks.settings,
        objective_entered: banks.entered,
        config: table(&identity.config),
    };
    let text = serde_json::to_vec_pretty(&state).expect("plain values are JSON");
    contaccum_files::write(&folder.join(STATE), |file| io::Write::write_all(file, &text))?;
    Ok(())
}

fn table(config: &TrainConfig) -> toml::Table {
    config.to_toml().parse().expect("the configuration's own TOML")
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Removes the oldest checkpoints beyond `limit` (0: none), and what interrupted saves left.
fn prune(folder: &Path, limit: usize) -> Result<(), TrainError> {
    let mut checkpoints = list(folder)?;
    let surplus = if limit == 0 { 0 } else { checkpoints.len().saturating_sub(limit) };
    for path in checkpoints.drain(..surplus) {
        // Renamed first: a folder under a checkpoint's name is always complete.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let partial = folder.join(format!(".{name}.partial"));
        fs::rename(&path, &partial).map_err(failed("removed", &path))?;
    }
    for entry in fs::read_dir(folder).map_err(failed("read", folder))? {
        let path = entry.map_err(failed("read", folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(&format!(".{PREFIX}")) && name.ends_with(".partial") {
            fs::remove_dir_all(&path).map_err(failed("removed", &path))?;
        }
    }
    Ok(())
}

/// Writes the trainer's encoders: one model folder when tied, else `query_encoder/` and `passage_encoder/`.
pub(crate) fn save_model(path: &Path, trainer: &Trainer, files: &ModelFiles) -> Result<(), TrainError> {
    let export = |path: &Path, encoder: &Encoder, longest: usize| {
        let settings = ModelSettings { max_seq_length: longest, ..encoder.settings().clone() };
        let (config, layout) = (encoder.config(), encoder.layout());
        export_folder(path, config, layout, encoder.weights(), files.tokenizer, &settings, files.card)
    };
    let config = &trainer.config;
    match &trainer.towers.passage {
        None => {
            export(path, trainer.query_encoder(), config.query_max_length.max(config.passage_max_length))?
        }
        Some(passage) => {
            fs::create_dir_all(path).map_err(failed("written", path))?;
            export(&path.join(QUERY_ENCODER), trainer.query_encoder(), config.query_max_length)?;
            export(&path.join(PASSAGE_ENCODER), &passage.encoder, config.passage_max_length)?;
        }
    }
    Ok(())
}

/// Copies the model of a checkpoint (or of the newest one in a run's output folder) to a folder of its own.
///
/// # Errors
/// No checkpoint there, a target that exists, or files that cannot be copied; the target is then not created.
pub fn export_checkpoint(checkpoint: &Path, output: &Path) -> Result<(), TrainError> {
    let checkpoint = match checkpoint.join(MODEL).is_dir() && checkpoint.join(STATE).is_file() {
        true => checkpoint.to_owned(),
        false => {
            list(checkpoint)?.pop().ok_or_else(|| TrainError::NoCheckpoint { path: checkpoint.into() })?
        }
    };
    if output.exists() {
        return Err(TrainError::Checkpoint {
            action: "exported",
            path: output.into(),
            reason: "the target exists already (remove it, or give another folder)".into(),
        });
    }
    let parent = match output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(failed("exported", parent))?;
    let name = output.file_name().unwrap_or_default().to_string_lossy();
    let partial = parent.join(format!(".{name}.partial"));
    let copied = copy_folder(&checkpoint.join(MODEL), &partial).and_then(|()| fs::rename(&partial, output));
    copied.and_then(|()| sync_folder(parent)).map_err(|error| {
        let _ = fs::remove_dir_all(&partial);
        failed("exported", output)(error)
    })
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            File::open(&target)?.sync_all()?;
        }
    }
    sync_folder(to)
}

/// Puts `trainer` where the checkpoint was written.
pub(crate) fn restore(path: &Path, identity: &RunIdentity, trainer: &mut Trainer) -> Result<(), TrainError> {
    let state_path = path.join(STATE);
    let text = fs::read(&state_path).map_err(|e| broken(&state_path, e))?;
    let state: State = serde_json::from_slice(&text).map_err(|e| broken(&state_path, e))?;
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
    Ok(())
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
    if state.rows != identity.rows {
        return other("train", "other rows".into(), "these rows (ids or counts differ)".into());
    }
    let given = table(&identity.config);
    let keys = state.config.keys().chain(given.keys().filter(|key| !state.config.contains_key(*key)));
    for key in keys.filter(|key| !FREE_SETTINGS.contains(&key.as_str())) {
        let (stored, given) = (state.config.get(key), given.get(key));
        if stored != given {
            let word = |value: Option<&toml::Value>| value.map_or("not set".into(), ToString::to_string);
            return other(key, word(stored), word(given));
        }
    }
    if state.updates != identity.updates {
        return other("max_steps", state.updates.to_string(), identity.updates.to_string());
    }
    Ok(())
}

/// One-dimensional values as a tensor to be written, without a copy on the way.
struct Values<'a> {
    dtype: Dtype,
    shape: [usize; 1],
    bytes: &'a [u8],
}

impl<'a> Values<'a> {
    fn new<T: NoUninit>(dtype: Dtype, values: &'a [T]) -> Self {
        Self { dtype, shape: [values.len()], bytes: bytemuck::cast_slice(values) }
    }
}

impl View for Values<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
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

/// `state.safetensors`, read one tensor at a time.
struct TensorFile {
    path: PathBuf,
    file: File,
    data_start: u64,
    tensors: HashMap<String, TensorInfo>,
}

impl TensorFile {
    fn open(path: &Path) -> Result<Self, TrainError> {
        let mut file = File::open(path).map_err(|e| broken(path, e))?;
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(|e| broken(path, e))?;
        let length = u64::from_le_bytes(length);
        let mut header = Vec::new();
        file.by_ref().take(length).read_to_end(&mut header).map_err(|e| broken(path, e))?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|e| broken(path, e))?;
        let tensors = metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        Ok(Self { path: path.into(), file, data_start: 8 + length, tensors })
    }

    /// Fills `values` with the tensor `name`.
    fn read_into<T: Pod>(&mut self, name: &str, values: &mut [T]) -> Result<(), TrainError> {
        let info = self.tensors.get(name).ok_or_else(|| broken(&self.path, format!("no tensor {name}")))?;
        let (start, end) = info.data_offsets;
        if end - start != size_of_val(values) {
            let reason = format!("{name} has {} bytes where {} belong", end - start, size_of_val(values));
            return Err(broken(&self.path, reason));
        }
        let read = self.file.seek(SeekFrom::Start(self.data_start + start as u64));
        read.and_then(|_| self.file.read_exact(bytemuck::cast_slice_mut(values)))
            .map_err(|e| broken(&self.path, e))
    }

    fn read<T: Pod>(&mut self, name: &str) -> Result<Vec<T>, TrainError> {
        let bytes = self.tensors.get(name).map_or(0, |info| info.data_offsets.1 - info.data_offsets.0);
        let mut values = vec![T::zeroed(); bytes / size_of::<T>()];
        self.read_into(name, &mut values)?;
        Ok(values)
    }
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
