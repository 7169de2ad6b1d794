//! How a text becomes a vector and how two vectors are compared: what a sentence-transformers folder records.

use serde::{Deserialize, Serialize};

/// How the hidden states of a sequence become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The first token of the last layer.
    Cls,
    /// The mean over all tokens of the last layer.
    Mean,
}

/// How two vectors are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Similarity {
    /// Dot product.
    Dot,
    /// Cosine: vectors are normalised to length one.
    Cosine,
}

/// Everything beside the weights and the tokenizer that decides what vector a text gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSettings {
    /// Pooling of the last layer.
    pub pooling: Pooling,
    /// Whether vectors are normalised to length one.
    pub normalize: bool,
    /// Similarity function written into the exported folder.
    pub similarity: Similarity,
    /// Text put before every query.
    pub query_prompt: String,
    /// Text put before every passage.
    pub passage_prompt: String,
    /// Longest sequence in tokens, special tokens included.
    pub max_seq_length: usize,
}
