//! What can go wrong in a training run, each in one line with its place and remedy.

use std::path::PathBuf;

use contaccum_encoder::EncoderError;

use crate::{ConfigError, RecordError};

fn size(bytes: &u64) -> bytesize::ByteSize {
    bytesize::ByteSize(*bytes)
}

/// An error that ends a training run. Checkpoints written before it stay as they are.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A setting that makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model or tokenizer cannot be read or written.
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    /// The training data cannot be read.
    #[error(transparent)]
    Data(#[from] contaccum_data::Error),
    /// A file or folder of the run cannot be written.
    #[error(transparent)]
    File(#[from] contaccum_files::Error),
    /// The records of the run cannot be written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The loss became NaN or infinite.
    #[error(
        "loss is not a number: update {update}, micro-step {micro_step} \
         (lower learning_rate or raise temperature; checkpoints saved before are intact)"
    )]
    LossNotFinite {
        /// The update, from 1.
        update: usize,
        /// The micro-step in it, from 1.
        micro_step: usize,
    },
    /// A gradient became NaN or infinite.
    #[error(
        "gradient is not a number: update {update} (lower learning_rate; checkpoints saved before are intact)"
    )]
    GradientNotFinite {
        /// The update, from 1.
        update: usize,
    },
    /// A weight became NaN, infinite or nearly so.
    #[error(
        "weights are no longer numbers to compute with: update {update} (lower learning_rate; nothing of this update was saved, \
         checkpoints saved before are intact)"
    )]
    WeightsNotFinite {
        /// The update, from 1.
        update: usize,
    },
    /// The objective's settings make no sense.
    #[error(transparent)]
    Objective(#[from] contaccum_objective::ObjectiveError),
    /// A checkpoint cannot be written or read.
    #[error("checkpoint not {action}: {path}: {reason}")]
    Checkpoint {
        /// What failed: `written`, `read`, ...
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// There is no checkpoint to resume or export.
    #[error("no checkpoint: {path} holds none ({remedy})")]
    NoCheckpoint {
        /// The output folder.
        path: PathBuf,
        /// What to do.
        remedy: &'static str,
    },
    /// The output folder holds a run, and neither going on with it nor replacing it was asked for.
    #[error("output folder in use: {path} holds {what} ({remedy}, or another output_dir)")]
    RunExists {
        /// The output folder.
        path: PathBuf,
        /// What it holds of the run.
        what: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The output folder holds something under a name that a run would write, and no run wrote it.
    #[error(
        "output folder not of a run: {path} was not written by contaccum (move it, or give another output_dir)"
    )]
    Foreign {
        /// The file or folder in the way.
        path: PathBuf,
    },
    /// The checkpoint was written under another setting.
    #[error("checkpoint of another run: {path}: {key} was {stored}, is {given} (resume with the same {key})")]
    OtherRun {
        /// The checkpoint.
        path: PathBuf,
        /// The setting that differs.
        key: String,
        /// Its value in the checkpoint.
        stored: String,
        /// Its value now.
        given: String,
    },
    /// The machine, or the control group of this process, has less memory than the plan.
    #[error(
        "not enough memory: {} are planned beside the {} that are held already, {} of {} are available (lower \
         local_batch_size, give --memory-budget, or --ignore-memory-limit to try all the same)",
        size(.more_bytes), size(.held_bytes), size(.available_bytes), size(.total_bytes)
    )]
    NotEnoughMemory {
        /// What the run is going to take.
        more_bytes: u64,
        /// What the process holds.
        held_bytes: u64,
        /// What is available.
        available_bytes: u64,
        /// Memory of the machine, or the limit of the control group.
        total_bytes: u64,
    },
    /// The checkpoint was written with another model's files or other data under the same names.
    #[error(
        "checkpoint of other content: {path}: {what} (put back what it was trained with, or start a new run)"
    )]
    OtherContent {
        /// The checkpoint.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// An evaluation failed; what was trained is saved.
    #[error("{0}")]
    Evaluation(String),
    /// The system does not give the memory that is planned.
    #[error(
        "out of memory: the run needs {} MiB more than the program has (lower local_batch_size, or set memory_budget)",
        bytes >> 20
    )]
    OutOfMemory {
        /// Bytes asked for.
        bytes: usize,
    },
}
