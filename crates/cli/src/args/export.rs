//! `contaccum export`.

use std::path::PathBuf;

use clap::Args;

const AFTER_HELP: &str = "\
Example:
  contaccum export --checkpoint runs/squad --output models/squad
  python -c 'from sentence_transformers import SentenceTransformer as S; print(S(\"models/squad\"))'";

/// Write a trained model as a sentence-transformers folder
///
/// The folder loads in Python's sentence-transformers, and in `encode` and `search` here. Two untied encoders become
/// two such folders inside it, query_encoder and passage_encoder.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct ExportArgs {
    /// A checkpoint, or the output folder of a run: then its last checkpoint
    #[arg(long, value_name = "FOLDER")]
    pub checkpoint: PathBuf,
    /// Folder to write
    #[arg(long, short, value_name = "FOLDER")]
    pub output: PathBuf,
}
