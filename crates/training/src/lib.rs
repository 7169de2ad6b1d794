//! Training: methods as points of one space, the loop, checkpoints, records.
//!
//! In a batch's order: [`TrainConfig`] says what to do, [`Run`] opens model and data, the loader tokenises total
//! batches ahead, [`Trainer`] does an update, `checkpoint` stores it, [`RunRecorder`] writes down what happened.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod append;
mod bank_watch;
mod bounds;
mod budget;
mod check;
mod checkpoint;
mod config;
mod contents;
mod error;
mod events;
mod identity;
mod lengths;
mod loader;
mod machine;
mod memory;
mod method;
mod negatives;
mod output;
mod probe;
mod recipe;
mod record;
mod resident;
mod run;
mod run_watch;
mod sample;
mod schedule;
mod session;
mod settings;
mod tensors;
mod tower;
mod trainer;
mod warmup;

pub use bank_watch::BankWarning;
pub use bounds::MOST_THREADS;
pub use budget::{Largest, MemoryBudget};
pub use checkpoint::{PASSAGE_ENCODER, QUERY_ENCODER, export_checkpoint, has_checkpoint, remove_checkpoints};
pub use contaccum_objective::{BankDtype, BankMovement, RowScale, Rows};
pub use error::TrainError;
pub use identity::{FINGERPRINT_FILE, data_fingerprint, recorded_fingerprint, run_fingerprint};
pub use lengths::LongestTexts;
pub use machine::{MachineMemory, machine_memory};
pub use memory::{HEAP_BYTES, MemoryPlan, PROGRAM_BYTES};
pub use method::{BankDrift, Enqueue, Method, MethodPoint};
pub use negatives::Negatives;
pub use output::{Begin, CONFIG_FILE, MODEL_FOLDER, check_output, write_settings};
pub use recipe::ConfigError;
pub use record::{METRICS_FILE, RecordError, RunRecorder, UpdateRecord};
pub use resident::{ResidentMemory, resident_memory};
pub use run::{EvaluationNeeds, Observer, Outcome, Run, RunSummary, StartModel, run_settings, run_shape};
pub use run_watch::RunWarning;
pub use sample::TokenizedSample;
pub use schedule::Scheduler;
pub use settings::{Facts, Kind, Role, SETTINGS, Scope, Setting, TrainConfig, word, words};
pub use tower::GradientNorms;
pub use trainer::{Trainer, UpdateReport};
pub use warmup::BankWarmup;
