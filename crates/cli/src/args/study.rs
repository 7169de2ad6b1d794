//! `contaccum study`.

use std::path::PathBuf;

use clap::Args;

const ABOUT: &str = "Train a grid of methods, settings and seeds, and compare what they reach";

const LONG_ABOUT: &str = "\
Train a grid of methods, settings and seeds, and compare what they reach.

Each run is a process of its own; what is done already is skipped, and what was interrupted goes on from its last
checkpoint. A run that fails is reported and does not end the study. The comparison is written to stdout, and to
study.md, study.json and report.html in the output folder.

The recipe is a TOML file; recipes/study.toml shows every key.";

const AFTER_HELP: &str = "\
Examples:
  See what would be trained:
    contaccum study recipes/study.toml --dry-run
  Train for at most fifty minutes; the same command goes on later:
    contaccum study recipes/study.toml --output runs/study --max-minutes 50";

/// Arguments of `contaccum study`.
#[derive(Debug, Args)]
#[command(about = ABOUT, long_about = LONG_ABOUT, after_help = AFTER_HELP)]
pub struct StudyArgs {
    /// TOML file of the study
    #[arg(value_name = "RECIPE")]
    pub recipe: PathBuf,
    /// Folder of the runs and the comparison [default: runs/ and the recipe's name]
    #[arg(long, value_name = "FOLDER")]
    pub output: Option<PathBuf>,
    /// Start no run after so many minutes; the comparison is of what is there
    #[arg(long, value_name = "N")]
    pub max_minutes: Option<u32>,
    /// Print the runs, in their order, and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Write the comparison as JSON
    #[arg(long)]
    pub json: bool,
}
