#![doc = include_str!("../README.md")]
//!
//! # A folder out, and in again
//!
//! ```
//! use contaccum_encoder::*;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let words = ["who", "designed", "the", "dome", "?"].map(String::from);
//! let tokenizer = TextTokenizer::from_vocabulary(words.to_vec())?;
//! let config = ModelConfig::try_from(BertConfig {
//!     hidden_size: 8,
//!     num_hidden_layers: 1,
//!     num_attention_heads: 2,
//!     intermediate_size: 16,
//!     vocab_size: tokenizer.vocabulary_size(),
//!     ..BertConfig::default()
//! })?;
//! let layout = Layout::new(&config);
//! let weights = random_weights(&config, &layout, 7);
//! let settings = ModelSettings::plain(&config);
//! let card = ModelCard { title: "untrained".into(), base_model: None, pair: None, training: Vec::new() };
//! # let parent = tempfile::tempdir()?;
//! # let folder = parent.path().join("model");
//! export_folder(&folder, &config, &layout, &weights, &tokenizer, &settings, &card)?;
//!
//! let model = Model::open(&folder.to_string_lossy())?;
//! assert_eq!(model.query("Who designed the dome?")?.len(), 8);
//! # Ok(())
//! # }
//! ```
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
mod model;
mod modules;
mod notice;
mod pass;
mod record;
mod settings;
mod tokenizer;
mod tokens;
mod transformer;
mod weights;

pub use activations::{Keep, Recompute};
pub use architecture::{
    Architecture, DropoutRates, FeedForwardShape, LayerShape, NormPlace, NormShape, PositionTable,
};
pub use config::ModelConfig;
pub use contaccum_kernels::Pooling;
pub use encoder::{Bf16Encoder, Embedder, Encoder};
pub use error::EncoderError;
pub use export::{ModelCard, check_export_target, export_folder};
pub use families::BertConfig;
pub use fingerprint::{Difference, Fingerprint, Rounding, hash_numbers, tell_differences};
pub use folder::ModelFolder;
pub use layout::{Layout, Tensor};
pub use model::Model;
pub use modules::{DenseActivation, DenseShape};
pub use pass::{Pass, PassLimits, Workspace};
pub use record::{ModelRecord, Pair, Side};
pub use settings::{ModelSettings, Similarity};
pub use tokenizer::{PassageFormat, TextTokenizer};
pub use tokens::{PackedTokens, TokenSequence};
pub use transformer::DropoutStream;
pub use weights::{load_weights, random_weights, save_weights};
