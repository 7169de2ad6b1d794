//! A transformer encoder for retrieval: Hugging Face folder in, packed forward and backward, folder out.
//!
//! The crate knows models, not training.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod activations;
mod architecture;
mod blocks;
mod config;
mod encoder;
mod error;
mod export;
mod families;
mod fingerprint;
mod folder;
mod gradient;
mod hub;
mod layout;
mod notice;
mod pass;
mod record;
mod settings;
mod tokenizer;
mod tokens;
mod transformer;
mod weights;

pub use activations::{Keep, Recompute};
pub use architecture::{Architecture, DropoutRates, FeedForwardShape, LayerShape, NormShape, PositionTable};
pub use config::ModelConfig;
pub use encoder::{Bf16Encoder, Embedder, Encoder};
pub use error::EncoderError;
pub use export::{ModelCard, check_export_target, export_folder};
pub use families::BertConfig;
pub use fingerprint::{Difference, Fingerprint, Rounding, hash_numbers, tell_differences};
pub use folder::ModelFolder;
pub use layout::{Layout, Tensor};
pub use pass::{Pass, PassLimits, Workspace};
pub use record::{ModelRecord, Pair, Side};
pub use settings::{ModelSettings, Pooling, Similarity};
pub use tokenizer::{PassageFormat, TextTokenizer};
pub use tokens::{PackedTokens, TokenSequence};
pub use transformer::DropoutStream;
pub use weights::{load_weights, random_weights, save_weights};
