//! `contaccum encode`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use contaccum_encoder::PassageFormat;
use contaccum_retrieval::BatchLimits;

use super::{SplitArgs, ThreadArgs, one_of};

const AFTER_HELP: &str = "\
Examples:
  contaccum encode --model models/squad --corpus data/squad --output index
  contaccum encode --model models/squad --queries data/squad --split test --output questions
  python -c 'import numpy as np; print(np.load(\"index/embeddings-00000.npy\", mmap_mode=\"r\").shape)'";

/// Turn a corpus, or queries, into vectors on disk
///
/// The output is a folder of .npy shards with the ids beside them. An interrupted encoding goes on where it stopped
/// when the same command is typed again; where the texts or the model have changed since, all is encoded again.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct EncodeArgs {
    /// Folder of a model, or its name on the hub
    #[arg(long, value_name = "NAME|FOLDER")]
    pub model: String,
    #[command(flatten)]
    pub input: EncodeInput,
    /// Folder to write
    #[arg(long, short, value_name = "FOLDER")]
    pub output: PathBuf,
    #[command(flatten)]
    pub split: SplitArgs,
    #[command(flatten)]
    pub texts: TextArgs,
    #[command(flatten)]
    pub batch: BatchArgs,
    /// What the layers multiply in: bf16 is 1.7 times as fast, for vectors that differ in their third decimal; it needs
    /// a processor with AVX-512 BF16
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    pub dtype: Dtype,
    /// Refuse texts with odd lines, which are read over and counted otherwise
    #[arg(long)]
    pub strict: bool,
    /// Vectors per shard: what is lost at most when interrupted, and what is in memory
    #[arg(long, value_name = "ROWS", default_value_t = 16_384)]
    pub shard_rows: usize,
    /// Replace an encoding of something else that is in the folder
    #[arg(long)]
    pub overwrite: bool,
    #[command(flatten)]
    pub threads: ThreadArgs,
}

/// What the layers' matrix products are taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    F32,
    Bf16,
}

/// What is encoded: one of the two.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct EncodeInput {
    /// Passages: a BEIR or MS MARCO folder, or JSONL, TSV or CSV like BEIR's corpus.jsonl, plain, .gz or .zst
    #[arg(long, value_name = "PATH")]
    pub corpus: Option<PathBuf>,
    /// Queries: a BEIR or MS MARCO folder, or JSONL, TSV or CSV like BEIR's queries.jsonl, plain, .gz or .zst
    #[arg(long, value_name = "PATH")]
    pub queries: Option<PathBuf>,
}

/// How a text becomes tokens, where the model folder does not say or is to be overruled.
#[derive(Debug, Args)]
#[command(next_help_heading = "Texts")]
pub struct TextArgs {
    /// Longest query or passage in tokens [default: what the model records]
    #[arg(long, value_name = "TOKENS", visible_aliases = ["query-max-length", "passage-max-length"])]
    pub max_length: Option<usize>,
    /// Text put before every query or passage [default: what the model records]
    #[arg(long, value_name = "TEXT", visible_aliases = ["query-prompt", "passage-prompt"])]
    pub prompt: Option<String>,
    /// Title and text as a segment pair, or joined in one segment [default: what the model records, else pair]
    #[arg(long, value_parser = one_of::<PassageFormat>(), conflicts_with = "queries")]
    pub passage_format: Option<PassageFormat>,
}

/// Bounds of what is encoded at once.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Batch")]
pub struct BatchArgs {
    /// Most sequences encoded at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch_size: u32,
    /// Most tokens encoded at once
    #[arg(long, value_name = "TOKENS", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: u32,
}

impl From<BatchArgs> for BatchLimits {
    fn from(args: BatchArgs) -> Self {
        Self { max_tokens: args.max_tokens as usize, max_sequences: args.batch_size as usize }
    }
}
