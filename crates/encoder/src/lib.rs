//! A transformer encoder for retrieval: Hugging Face folder in, packed forward and backward, folder out.
//!
//! The crate knows models, not training.
#![deny(missing_docs)]

mod config;
mod parameters;
mod settings;
mod tokens;

pub use config::BertConfig;
pub use parameters::{Layout, Tensor};
pub use settings::{ModelSettings, Pooling, Similarity};
pub use tokens::{PackedTokens, TokenSequence};
