//! `contaccum man`.

use clap::Args;

const AFTER_HELP: &str = "\
Examples:
  contaccum man train | man -l -
  contaccum man train > ~/.local/share/man/man1/contaccum-train.1";

/// Write a manual page, as man reads it
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct ManArgs {
    /// The command whose page it is [default: contaccum, which lists the others]
    #[arg(value_name = "COMMAND")]
    pub command: Option<String>,
}
