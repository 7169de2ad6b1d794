//! `contaccum plan`.

use std::path::PathBuf;

use clap::Args;

use super::OutputArgs;
use super::settings::SettingFlags;

const ABOUT: &str = "Tell what a training run will hold in memory, and what fits a budget";

const LONG_ABOUT: &str = "\
Tell what a training run will hold in memory, and what fits a budget.

Takes the settings of `contaccum train`; data and output folder are not needed, of the model only config.json. With
--memory-budget that they exceed, those that were not given are chosen as `train --memory-budget` chooses them: the
largest local batch and the fastest --recompute that fit, for the same total batch. Else they are planned as they are.

The index of the data is not known here; `train --dry-run` measures it.";

const AFTER_HELP: &str = "\
Example:
  contaccum plan --model sentence-transformers/all-MiniLM-L6-v2 --tied false --hard-negatives 1 --memory-budget 2GiB";

/// Arguments of `contaccum plan`.
#[derive(Debug, Args)]
#[command(about = ABOUT, long_about = LONG_ABOUT, after_help = AFTER_HELP, args_override_self = true)]
pub struct PlanArgs {
    /// TOML file with any of the settings below
    #[arg(long, value_name = "FILE", visible_alias = "config")]
    pub recipe: Option<PathBuf>,
    #[command(flatten)]
    pub format: OutputArgs,
    #[command(flatten)]
    pub settings: SettingFlags,
}
