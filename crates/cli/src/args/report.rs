//! `contaccum report`.

use std::path::PathBuf;

use clap::Args;

const AFTER_HELP: &str = "\
Examples:
  contaccum report runs/squad
  contaccum report runs/grad-accum runs/contaccum runs/pre-batch --output methods.html

The page is one file without scripts; it needs no network. Runs that still go on, or were stopped, are drawn as far as
they came.";

/// Draw what runs recorded as one HTML page
///
/// Losses, gradient norms, similarity mass on the banks, speed, memory and metrics over the updates, several runs over
/// one another; the settings they differ in; final metrics with 95 % confidence intervals.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct ReportArgs {
    /// Output folders of runs
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// Page to write
    #[arg(long, short, value_name = "FILE", default_value = "report.html")]
    pub output: PathBuf,
}
