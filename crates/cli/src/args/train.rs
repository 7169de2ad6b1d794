//! `contaccum train`.

use std::path::PathBuf;

use clap::Args;

use super::OutputArgs;
use super::settings::SettingFlags;

const ABOUT: &str = "Train an encoder (or two) on questions and passages";

const LONG_ABOUT: &str = "\
Train an encoder (or two) on questions and passages.

Settings come from a TOML recipe (--recipe) and from flags; flags win. A key of a recipe is the flag with _ for -:
local_batch_size = 8 is --local-batch-size 8. The settings a run ends up with are stored in its --output-dir.

Methods, and how many negatives they give a query (N_local, N_total: rows of the local and of the total batch,
N_mem: size of the memory bank):
  full-batch            N_total - 1          the total batch at once, in the memory that takes
  grad-accum            N_local - 1          one local batch after the other
  grad-cache            N_total - 1          in the memory of a local batch, every text encoded twice
  pre-batch             N_local + N_mem - 1  with a bank of past passages
  contaccum             N_local + N_mem - 1  with banks of past queries and passages
  contaccum-grad-cache  N_total + N_mem - 1  both";

const AFTER_HELP: &str = "\
Examples:
  See what would happen, without training:
    contaccum train --recipe recipes/squad-minilm.toml --dry-run
  Train with a bank of 512 past samples and one hard negative per query:
    contaccum train --model sentence-transformers/all-MiniLM-L6-v2 --train data/squad \\
      --hard-negatives-file data/squad/derived/train.bm25_hardneg.tsv --hard-negatives 1 \\
      --local-batch-size 8 --gradient-accumulation-steps 4 --memory-bank-size 512 --output-dir runs/squad
  Let the settings follow from the memory there is:
    contaccum train --model sentence-transformers/all-MiniLM-L6-v2 --train data/squad --memory-budget 2GiB \\
      --output-dir runs/squad
  Go on after an interruption (Ctrl-C, a signal or a crash):
    contaccum train --resume --output-dir runs/squad";

/// Arguments of `contaccum train`.
#[derive(Debug, Args)]
#[command(about = ABOUT, long_about = LONG_ABOUT, after_help = AFTER_HELP, args_override_self = true)]
pub struct TrainArgs {
    /// TOML file with any of the settings below
    #[arg(long, value_name = "FILE", visible_alias = "config")]
    pub recipe: Option<PathBuf>,
    /// Print what would be trained (model, rows, updates, negatives, memory) and stop; checks all that the run needs,
    /// and needs no --output-dir
    #[arg(long)]
    pub dry_run: bool,
    /// Go on from the last checkpoint in --output-dir, with the settings stored there
    #[arg(long, conflicts_with_all = ["recipe", "dry_run", "memory_budget"])]
    pub resume: bool,
    /// Train although the machine, or the container, has less memory than is planned
    #[arg(long)]
    pub ignore_memory_limit: bool,
    /// Train anew where --output-dir holds a run: its checkpoints, model and evaluations are removed
    #[arg(long, conflicts_with = "resume")]
    pub overwrite: bool,
    #[command(flatten)]
    pub format: OutputArgs,
    #[command(flatten)]
    pub settings: SettingFlags,
}
