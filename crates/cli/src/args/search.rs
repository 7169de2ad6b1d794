//! `contaccum search`.

use std::path::PathBuf;

use clap::Args;

use super::encode::BatchArgs;
use super::{OutputArgs, SplitArgs, ThreadArgs};

const AFTER_HELP: &str = "\
Examples:
  contaccum search --model models/squad --index index --queries data/squad --split test --output run.trec
  contaccum search --model models/squad --index index --query \"Who painted it?\" --corpus data/squad --top-k 5";

/// Find the passages nearest to queries, exactly
///
/// Many queries go into a TREC run file (--output). A single --query is answered on stdout.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct SearchArgs {
    /// Folder that `contaccum encode --corpus` wrote
    #[arg(long, value_name = "FOLDER")]
    pub index: PathBuf,
    #[command(flatten)]
    pub input: SearchInput,
    /// Folder of the model that encodes the queries, or its name on the hub
    #[arg(long, value_name = "NAME|FOLDER", required_unless_present = "query_embeddings")]
    pub model: Option<String>,
    #[command(flatten)]
    pub split: SplitArgs,
    /// Passages per query
    #[arg(long, short = 'k', value_name = "K", default_value_t = 100)]
    pub top_k: usize,
    /// Leave out the passage with the id of its query, as BEIR does (ArguAna, Quora)
    #[arg(long, conflicts_with = "query")]
    pub ignore_identical_ids: bool,
    /// Refuse queries with odd lines, which are read over and counted otherwise
    #[arg(long)]
    pub strict: bool,
    /// TREC run file to write: qid Q0 docid rank score tag
    #[arg(long, short, value_name = "FILE", required_unless_present = "query", conflicts_with = "query")]
    pub output: Option<PathBuf>,
    /// Last field of the run file
    #[arg(long, default_value = "contaccum")]
    pub tag: String,
    /// Corpus to show the passages found from, with --query
    #[arg(long, value_name = "PATH", requires = "query")]
    pub corpus: Option<PathBuf>,
    /// Longest query in tokens [default: what the model records]
    #[arg(long, value_name = "TOKENS", visible_alias = "query-max-length")]
    pub max_length: Option<usize>,
    /// Text put before every query [default: what the model records]
    #[arg(long, value_name = "TEXT", visible_alias = "query-prompt")]
    pub prompt: Option<String>,
    /// Search with queries of another model than the index was made for
    #[arg(long)]
    pub allow_other_model: bool,
    #[command(flatten)]
    pub format: OutputArgs,
    #[command(flatten)]
    pub batch: BatchArgs,
    #[command(flatten)]
    pub threads: ThreadArgs,
}

/// What is searched for: one of the three.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct SearchInput {
    /// Queries: a BEIR or MS MARCO folder, or JSONL, TSV or CSV like BEIR's queries.jsonl, plain, .gz or .zst
    #[arg(long, value_name = "PATH")]
    pub queries: Option<PathBuf>,
    /// Folder that `contaccum encode --queries` wrote
    #[arg(long, value_name = "FOLDER")]
    pub query_embeddings: Option<PathBuf>,
    /// One query, as text
    #[arg(long, value_name = "TEXT", value_parser = some_text)]
    pub query: Option<String>,
}

/// A text that there is something to look for in.
fn some_text(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("an empty text finds nothing".to_owned()) } else { Ok(text.to_owned()) }
}
