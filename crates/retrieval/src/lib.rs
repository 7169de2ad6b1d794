//! Encoding a corpus to disk, exact search over it, and measuring what was found.
//!
//! In the order data moves: [`encode`] turns texts into an [`EmbeddingStore`], [`search_store`] ranks its
//! passages for each query, a [`Run`] carries the ranking to and from TREC files, [`evaluate`] measures it
//! against judgments, [`evaluate_answers`] against answer strings, and [`MeanInterval`] says how far to trust a mean.
#![deny(missing_docs)]

mod answers;
mod embeddings;
mod encode;
mod intervals;
mod metrics;
mod search;
mod trec;

pub use answers::{AnswerAccuracy, Answers, evaluate_answers};
pub use embeddings::{BatchLimits, EmbeddingStore, StoreDescription, StoreError};
pub use encode::{EncodeError, EncodeProgress, Passage, encode, encode_in_memory};
pub use intervals::MeanInterval;
pub use metrics::{Evaluation, EvaluationError, Measure, MeasureResult, ParseMeasureError, evaluate};
pub use search::{Hit, SearchError, search, search_store};
pub use trec::{Run, RunError, ScoredDocument};
