//! What can be typed: one file per command.

mod completions;
mod demo;
mod encode;
mod evaluate;
mod export;
mod man;
mod plan;
mod report;
mod search;
mod settings;
mod study;
mod train;

use std::ffi::OsString;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueHint};
use contaccum_training::words;
use serde::Deserialize;
use serde::de::value::Error;
use serde::de::{DeserializeOwned, IntoDeserializer};

pub use completions::CompletionsArgs;
pub use demo::DemoArgs;
pub use encode::{Dtype, EncodeArgs};
pub use evaluate::EvaluateArgs;
pub use export::ExportArgs;
pub use man::ManArgs;
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

/// A space that no line is broken at; told as a plain one.
pub const UNBROKEN: char = '\u{a0}';

/// Reads what was typed.
///
/// # Errors
/// What clap says of it, help asked for among that; [`UNBROKEN`] is to be replaced in it.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut command = unbroken(command()).mut_subcommands(unbroken);
    let matches = command.try_get_matches_from_mut(words)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Everything that can be typed.
pub fn command() -> clap::Command {
    Cli::command().mut_subcommands(|command| command.mut_args(valued))
}

/// Takes numbers below 0 as values, so that a setting's own message refuses them, and tells shells where a value is the
/// path of a file or folder.
fn valued(arg: clap::Arg) -> clap::Arg {
    if !arg.get_action().takes_values() {
        return arg;
    }
    let hint = match arg.get_value_names() {
        Some([name]) if name == "FILE" || name == "RECIPE" => ValueHint::FilePath,
        Some([name]) if name.ends_with("FOLDER") || name == "RUN" => ValueHint::DirPath,
        Some([name]) if name == "PATH" => ValueHint::AnyPath,
        _ => ValueHint::Other,
    };
    arg.allow_negative_numbers(true).value_hint(hint)
}

/// Keeps examples in one piece on a narrow terminal, so that they can be pasted.
fn unbroken(mut command: clap::Command) -> clap::Command {
    if let Some(help) = command.get_after_help().map(|help| laid_out(&help.to_string())) {
        command = command.after_help(help);
    }
    if let Some(about) = command.get_long_about().map(|about| laid_out(&about.to_string())) {
        command = command.long_about(about);
    }
    command
}

/// Text whose paragraphs may be broken anew, and whose indented lines may not.
fn laid_out(text: &str) -> String {
    let mut laid_out = String::new();
    let mut in_paragraph = false;
    for line in text.lines() {
        let indented = line.starts_with("  ");
        if in_paragraph && !indented && !line.is_empty() {
            laid_out.push(' ');
        } else if !laid_out.is_empty() {
            laid_out.push('\n');
        }
        laid_out += &if indented { line.replace(' ', &UNBROKEN.to_string()) } else { line.to_owned() };
        in_paragraph = !indented && !line.is_empty();
    }
    laid_out
}

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
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// One of the words that an enum is written with in recipes.
fn one_of<T: DeserializeOwned + Clone + Send + Sync + 'static>() -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(words::<T>())
        .try_map(|word| Deserialize::deserialize(IntoDeserializer::<Error>::into_deserializer(word)))
}

/// How many processors are used.
#[derive(Clone, Copy, Debug, Args)]
pub struct ThreadArgs {
    /// Worker threads; 0 = all cores
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: usize,
}

/// Which queries of a folder.
#[derive(Debug, Args)]
pub struct SplitArgs {
    /// Only the queries judged in this split of a folder (qrels/SPLIT.tsv, or MS MARCO's qrels.SPLIT.tsv)
    #[arg(long, requires = "queries")]
    pub split: Option<String>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_flow_and_indented_lines_stay_whole() {
        let text = "Examples:\n  contaccum encode --model m\n\nOne\nparagraph.";
        let expected = "Examples:\n\u{a0}\u{a0}contaccum\u{a0}encode\u{a0}--model\u{a0}m\n\nOne paragraph.";
        assert_eq!(laid_out(text), expected);
    }

    #[test]
    fn every_command_can_be_read_and_told() {
        unbroken(command()).mut_subcommands(unbroken).debug_assert();
    }

    #[test]
    fn no_help_holds_a_character_that_cannot_be_typed() {
        for mut command in Cli::command().get_subcommands().cloned() {
            let help = command.render_long_help().to_string();
            assert!(help.is_ascii(), "{}: {:?}", command.get_name(), help.chars().find(|c| !c.is_ascii()));
        }
    }
}
