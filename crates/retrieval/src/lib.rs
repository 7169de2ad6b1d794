#![doc = include_str!("../README.md")]
//!
//! # How it works
//!
//! In the order data moves: [`encode`] turns texts into an [`EmbeddingStore`], [`search_store`] ranks its
//! passages for each query, a [`Run`] carries the ranking to and from TREC files, [`evaluate`] measures it
//! against judgments, [`evaluate_answers`] against answer strings, and [`MeanInterval`] says how far to trust a mean. A
//! [`DevSet`] does it all in memory.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod answers;
mod dev;
mod embeddings;
mod encode;
mod intervals;
mod manifest;
mod metrics;
mod npy;
mod search;
mod significance;
mod trec;
mod writer;

pub use answers::{AnswerAccuracy, Answers, evaluate_answers};
pub use dev::{DEV_MEASURES, DevError, DevSet, DevSource, EVALUATIONS_FOLDER, QueryMeasures, Side};
pub use embeddings::{EmbeddingStore, StoreError};
pub use encode::{EncodeError, EncodeProgress, Passage, encode, encode_in_memory};
pub use intervals::MeanInterval;
pub use manifest::{BatchLimits, StoreDescription};
pub use metrics::{Evaluation, EvaluationError, Measure, MeasureResult, ParseMeasureError, evaluate};
pub use search::{Hit, SearchError, search, search_named, search_store};
pub use significance::{PairedDifference, holm, mean_over_seeds, randomisation_test};
pub use trec::{Run, RunError, ScoredDocument, check_names};
pub use writer::StoreWriter;
