//! training
mod config;
mod events;
mod record;
mod resident;
mod schedule;

pub use config::{ConfigError, Method, MethodPoint, Rows, TrainConfig};
pub use record::{RecordError, RunRecorder, UpdateRecord};
pub use resident::{ResidentMemory, resident_memory};
pub use schedule::Scheduler;
