//! What can go wrong between a model folder and an encoder: every message is one line with the place and the remedy.

use std::{io, path::PathBuf};

use thiserror::Error;

/// An error of reading, making or writing a model.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EncoderError {
    /// The name is a path, and nothing is there.
    #[error(
        "{path}: no such folder; give a folder with config.json and model.safetensors, \
         or a hub name such as sentence-transformers/all-MiniLM-L6-v2"
    )]
    FolderMissing {
        /// The path as given.
        path: PathBuf,
    },
    /// The path is a file.
    #[error("{path}: is a file; give the folder that holds config.json and model.safetensors")]
    NotAFolder {
        /// The path as given.
        path: PathBuf,
    },
    /// A file the folder must hold is not there.
    #[error("{path}: file missing; {remedy}")]
    FileMissing {
        /// The file looked for.
        path: PathBuf,
        /// What to do about it.
        remedy: String,
    },
    /// A file is there but cannot be read.
    #[error("{path}: cannot be read: {reason}; check its permissions and the disk")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// A file cannot be read or written, or is not the JSON it should be.
    #[error(transparent)]
    File(#[from] contaccum_files::Error),
    /// The model asks for something this program does not do.
    #[error("{place}: {what}")]
    Unsupported {
        /// File that asks for it.
        place: String,
        /// What is asked for, and what would do.
        what: String,
    },
    /// The weights file is not a sound safetensors file.
    #[error("{path}: not a sound safetensors file: {reason}; fetch it again")]
    WeightsBroken {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A tensor of the encoder is not in the weights file.
    #[error("{path}: tensor {tensor} is missing; config.json and the weights must belong to one model")]
    TensorMissing {
        /// The file.
        path: PathBuf,
        /// Name without prefix.
        tensor: String,
    },
    /// A tensor has not the shape that config.json gives.
    #[error(
        "{path}: tensor {tensor} has shape {found:?}, config.json asks for {expected:?}; \
         the two files must belong to one model"
    )]
    TensorShape {
        /// The file.
        path: PathBuf,
        /// Name as in the file.
        tensor: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape from the configuration.
        expected: Vec<usize>,
    },
    /// A tensor is stored in numbers that cannot be converted.
    #[error("{path}: tensor {tensor} is stored as {dtype}; convert it to F32, F16, BF16 or F64")]
    TensorDtype {
        /// The file.
        path: PathBuf,
        /// Name as in the file.
        tensor: String,
        /// Type as in the file.
        dtype: String,
    },
    /// A tensor holds a NaN or an infinity.
    #[error("{path}: tensor {tensor} holds a NaN or an infinity; use an earlier checkpoint of this model")]
    TensorNotFinite {
        /// The file.
        path: PathBuf,
        /// Name as in the file.
        tensor: String,
    },
    /// The tokenizer cannot be used.
    #[error("{place}: {what}")]
    Tokenizer {
        /// File or vocabulary at fault.
        place: String,
        /// What is wrong, and what would do.
        what: String,
    },
    /// The tokenizer can give ids for which the embedding table has no row.
    #[error(
        "{path}: wrong tokenizer: it needs {vocabulary} embedding rows, the model has {rows}; \
         use the tokenizer this model was trained with"
    )]
    VocabularyTooLarge {
        /// Folder of the tokenizer.
        path: PathBuf,
        /// Rows the tokenizer needs.
        vocabulary: usize,
        /// Rows the embedding table has.
        rows: usize,
    },
    /// No room for the special tokens.
    #[error(
        "a maximum length of {max_length} tokens leaves no room beside the special ones; give at least {least}"
    )]
    MaxLengthTooSmall {
        /// The length asked for.
        max_length: usize,
        /// The least length with room.
        least: usize,
    },
    /// Neither a folder nor in the cache, and the network is not to be used.
    #[error(
        "{name}: no such folder, and not complete in the cache {cache}; HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set: unset it, \
         or run `hf download {name}` where there is a network and copy the cache"
    )]
    HubOffline {
        /// The name as given.
        name: String,
        /// The cache folder looked in.
        cache: PathBuf,
    },
    /// Neither a folder nor in the cache, and the hub did not give it.
    #[error(
        "{name}: no such folder, not in the cache {cache}, and the hub did not give it: {reason}; \
         check the name and the network (for a gated model set HF_TOKEN)"
    )]
    HubFailed {
        /// The name as given.
        name: String,
        /// The cache folder looked in.
        cache: PathBuf,
        /// What the hub or the network said.
        reason: String,
    },
    /// The export would replace something that this program did not write.
    #[error("{path}: exists and is not an export of contaccum; choose another folder or remove it")]
    TargetExists {
        /// The target.
        path: PathBuf,
    },
}

/// Text from elsewhere, made fit for a message or a table cell of one line.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
