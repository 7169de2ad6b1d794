//! What can go wrong in a study, each in one line with its place and remedy.

use std::io;
use std::path::{Path, PathBuf};

use contaccum_encoder::EncoderError;
use contaccum_retrieval::DevError;
use contaccum_training::TrainError;

/// An error that ends a study. Runs that are done stay as they are.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    /// The recipe cannot be read.
    #[error("study recipe not readable: {path}: {source} (check the path)")]
    Read {
        /// The recipe.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The recipe makes no sense.
    #[error("bad study recipe: {place}: {message}")]
    Recipe {
        /// File, and line where it is known.
        place: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// A run in the output folder has other settings than the recipe now gives it.
    #[error(
        "{run}: {folder} was trained with {difference} (remove that folder to train it again, or give another --output)"
    )]
    Changed {
        /// Cell and seed.
        run: String,
        /// Folder of the run.
        folder: PathBuf,
        /// The settings that differ.
        difference: String,
    },
    /// A file or folder of the study.
    #[error("{action} failed: {path}: {source} (check permissions and free space)")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A record that is not what `contaccum train` writes.
    #[error("record not read: {path}: {reason} (remove the run's folder to train it again)")]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Training data, or a run's files.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A file of the study that could not be written.
    #[error(transparent)]
    File(#[from] contaccum_files::Error),
    /// A model or tokenizer.
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    /// The queries to measure on.
    #[error(transparent)]
    Dev(#[from] DevError),
}

impl StudyError {
    pub(crate) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { action, path: path.into(), source }
    }
}
