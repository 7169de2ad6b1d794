//! What can be typed: one file per command.

mod demo;
mod encode;
mod evaluate;
mod export;
mod plan;
mod report;
mod search;
mod study;
mod train;

use clap::{Args, Parser, Subcommand};

pub use demo::DemoArgs;
pub use encode::{Dtype, EncodeArgs};
pub use evaluate::EvaluateArgs;
pub use export::ExportArgs;
pub use plan::PlanArgs;
pub use report::ReportArgs;
pub use search::SearchArgs;
pub use study::StudyArgs;
pub use train::TrainArgs;

const AFTER_HELP: &str = "\
From texts to a measured retriever:
  contaccum train --model sentence-transformers/all-MiniLM-L6-v2 --train data/squad --output-dir run
  contaccum encode --model run/model --corpus data/squad --output index
  contaccum search --model run/model --index index --queries data/squad --split test --output run.trec
  contaccum evaluate --run run.trec --qrels data/squad/qrels/test.tsv

Nothing at hand yet? `contaccum demo` needs no files and no network.

Progress and logs go to stderr, results to stdout.
Exit codes: 0 done, 1 failed, 2 the command or a setting makes no sense.";

/// Trains dense retrievers end to end in little memory
#[derive(Debug, Parser)]
#[command(name = "contaccum", version, after_help = AFTER_HELP, max_term_width = 110)]
pub struct Cli {
    /// The command
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub logging: LoggingArgs,
}

/// How much is told on the way.
#[derive(Debug, Args)]
pub struct LoggingArgs {
    /// Tell more on stderr
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub verbose: bool,
    /// Tell nothing on stderr but warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    pub quiet: bool,
}

/// A command and its arguments.
#[derive(Debug, Subcommand)]
pub enum Command {
    Train(Box<TrainArgs>),
    Plan(Box<PlanArgs>),
    Export(ExportArgs),
    Encode(EncodeArgs),
    Search(SearchArgs),
    Evaluate(EvaluateArgs),
    Report(ReportArgs),
    Study(StudyArgs),
    Demo(DemoArgs),
}

/// How results are written to stdout.
#[derive(Clone, Copy, Debug, Args)]
pub struct OutputArgs {
    /// Write results as JSON
    #[arg(long)]
    pub json: bool,
    /// Write results as a table even where stdout is not a terminal (tab-separated lines otherwise)
    #[arg(long, conflicts_with = "json")]
    pub table: bool,
}
