//! `contaccum evaluate`.

use std::path::PathBuf;

use clap::Args;
use contaccum_retrieval::Measure;

use super::OutputArgs;

const AFTER_HELP: &str = "\
Examples:
  contaccum evaluate --run run.trec --qrels data/squad/qrels/test.tsv
  contaccum evaluate --run run.trec --qrels test.qrels --metrics nDCG@10,RR@10 --json
  contaccum evaluate --run run.trec --qrels test.qrels --baseline bm25.trec
  contaccum evaluate --run run.trec --answers questions.jsonl --corpus data/squad --top-k 20,100

A measure means what it means in trec_eval: documents sorted by score, ties by id; averages over all queries that
have a relevant document, 0 for those the run leaves out. low and high are the ends of a 95 % bootstrap interval over
queries; p is that of a paired randomisation test over queries, of each measure for itself.";

/// Measure a run against judgments, or against answers
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct EvaluateArgs {
    /// TREC run file: qid Q0 docid rank score tag; plain, .gz or .zst
    #[arg(long, value_name = "FILE")]
    pub run: PathBuf,
    /// Another run on the same queries, to compare with: differences, their intervals and a paired test
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// Judgments: BEIR's qrels .tsv or TREC's qrels
    #[arg(long, value_name = "FILE", required_unless_present = "answers")]
    pub qrels: Option<PathBuf>,
    #[arg(
        help = "Measures, named as in ir_measures, in any case: nDCG[@k], RR[@k], AP[@k], R@k, P@k, Success@k",
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "nDCG@10,RR@10,R@100,Success@20,AP",
        requires = "qrels"
    )]
    pub metrics: Vec<Measure>,
    /// Questions with their answers: JSONL with _id and answers, or DPR's qas.csv; measures DPR's top-k accuracy
    #[arg(long, value_name = "FILE", requires = "corpus")]
    pub answers: Option<PathBuf>,
    /// Passages in which answers are looked for
    #[arg(long, value_name = "PATH", requires = "answers")]
    pub corpus: Option<PathBuf>,
    /// Depths of the top-k accuracy
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "1,5,20,100",
        requires = "answers"
    )]
    pub top_k: Vec<usize>,
    /// Leave out the passage with the id of its query, as BEIR does (ArguAna, Quora)
    #[arg(long)]
    pub ignore_identical_ids: bool,
    /// Refuse files with odd lines, which are read over and counted otherwise
    #[arg(long)]
    pub strict: bool,
    #[command(flatten)]
    pub format: OutputArgs,
}
