//! `contaccum train`.
//!
//! A setting is a flag here, a key of a recipe and a field of `TrainConfig`, under one name; only the flags that
//! were given are laid over the recipe, so none has a default here. Defaults are told in the help.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::builder::PossibleValuesParser;
use clap::{ArgAction, Args};
use contaccum_training::BankWarmup;
use serde::Serialize;

use super::OutputArgs;

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
    pub settings: TrainFlags,
}

/// Every setting of a recipe, as far as it was given.
#[derive(Debug, Args)]
pub struct TrainFlags {
    #[command(flatten)]
    model: ModelFlags,
    #[command(flatten)]
    data: DataFlags,
    #[command(flatten)]
    batch: BatchFlags,
    #[command(flatten)]
    method: MethodFlags,
    #[command(flatten)]
    optimizer: OptimizerFlags,
    #[command(flatten)]
    run: RunFlags,
}

impl TrainFlags {
    /// The settings that were given, under the keys of a recipe.
    pub fn given(&self) -> toml::Table {
        let parts = [
            toml::Table::try_from(&self.model),
            toml::Table::try_from(&self.data),
            toml::Table::try_from(&self.batch),
            toml::Table::try_from(&self.method),
            toml::Table::try_from(&self.optimizer),
            toml::Table::try_from(&self.run),
        ];
        parts
            .into_iter()
            .flat_map(|part| part.expect("options of numbers and strings are a TOML table"))
            .collect()
    }
}

#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Model")]
struct ModelFlags {
    /// Folder of a Hugging Face or sentence-transformers model, or its name on the hub
    #[arg(long, value_name = "NAME|FOLDER")]
    model: Option<String>,
    /// One encoder for queries and passages, or two that start from the same weights [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    tied: Option<bool>,
    /// How a sequence becomes one vector [default: what the model records, else cls]
    #[arg(long, value_parser = one_of(["cls", "mean"]))]
    pooling: Option<String>,
    /// Normalise vectors to length one [default: what the model records; always with cosine]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    normalize: Option<bool>,
    /// How vectors are compared [default: cosine]
    #[arg(long, value_parser = one_of(["dot", "cosine"]))]
    similarity: Option<String>,
    /// Dropout probability on hidden states and attention [default: what the model records]
    #[arg(long, value_name = "P")]
    dropout: Option<f64>,
    /// Leave the embeddings as they are: no gradient and no optimizer state of them [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    freeze_embeddings: Option<bool>,
    /// Longest query in tokens [default: 64]
    #[arg(long, value_name = "TOKENS")]
    query_max_length: Option<u32>,
    /// Longest passage in tokens [default: 256]
    #[arg(long, value_name = "TOKENS")]
    passage_max_length: Option<u32>,
    /// Text put before every query [default: what the model records]
    #[arg(long, value_name = "TEXT")]
    query_prompt: Option<String>,
    /// Text put before every passage [default: what the model records]
    #[arg(long, value_name = "TEXT")]
    passage_prompt: Option<String>,
    /// Title and text as a segment pair, or joined in one segment [default: what the model records, else pair]
    #[arg(long, value_parser = one_of(["pair", "joined"]))]
    passage_format: Option<String>,
}

#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Data")]
struct DataFlags {
    /// BEIR folder, DPR JSON file or JSONL file (Tevatron, FlagEmbedding) to train on, plain, .gz or .zst
    #[arg(long, value_name = "PATH")]
    train: Option<PathBuf>,
    /// Split of a BEIR folder to train on: qrels/SPLIT.tsv [default: train]
    #[arg(long)]
    split: Option<String>,
    /// Hard negatives for the judged queries of a BEIR folder, a TSV of two or three columns: query-id, gold-id (need not
    /// be there, and is not looked at) and neg-ids (separated by commas), in this order or by the names of a header
    #[arg(long, value_name = "FILE")]
    hard_negatives_file: Option<PathBuf>,
    /// Passages that the training file names by id, when they lie elsewhere
    #[arg(long, value_name = "PATH")]
    corpus: Option<PathBuf>,
    /// Hard negatives per query, sampled anew each epoch [default: 0]
    #[arg(long, value_name = "N")]
    hard_negatives: Option<u32>,
    /// Let no passage be the positive of two rows of a total batch [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    no_duplicates: Option<bool>,
    /// Shuffle the rows anew each epoch [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    shuffle: Option<bool>,
    /// Which positive of a row that has several: the first, or a random one each epoch [default: first for DPR files and
    /// without shuffling, else random]
    #[arg(long, value_parser = one_of(["first", "random"]))]
    positives: Option<String>,
    /// Leave rows that fill no total batch out of an epoch; false trains on them as a smaller batch [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    drop_last: Option<bool>,
    /// Refuse data with odd lines, which are read over and counted otherwise [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    strict: Option<bool>,
    /// Leave every passage known to be relevant to a row's query out of its negatives [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    mask_false_negatives: Option<bool>,
}

#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Batch")]
struct BatchFlags {
    /// Rows computed at once: what has to fit in memory [default: 8]
    #[arg(long, value_name = "ROWS", visible_aliases = ["per-device-batch-size", "per-device-train-batch-size"])]
    local_batch_size: Option<u32>,
    /// Local batches per update; the total batch is the product [default: 16]
    #[arg(long, value_name = "N")]
    gradient_accumulation_steps: Option<u32>,
    /// Tokens computed at once, queries and passages together; a local batch of more is encoded twice, in chunks, for
    /// the same gradient [default: as many as a local batch may have]
    #[arg(long, value_name = "TOKENS")]
    max_tokens: Option<u32>,
    /// What is computed a second time instead of kept: inputs of attention and GELU (selective), or whole layers; the
    /// gradient is the same [default: none]
    #[arg(long, value_parser = one_of(["none", "selective", "layer"]))]
    recompute: Option<String>,
    /// Most memory the run may take, such as 11GiB: where the settings take more, chooses the local batch and --recompute if
    /// they were not given, for the same total batch [default: no limit]
    #[arg(long, value_name = "BYTES", value_parser = byte_size)]
    memory_budget: Option<String>,
}

#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Method")]
struct MethodFlags {
    /// Where negatives come from: a table is at the top of --help [default: contaccum]
    #[arg(long, value_parser = one_of(
        ["full-batch", "grad-accum", "grad-cache", "pre-batch", "contaccum", "contaccum-grad-cache"]
    ))]
    method: Option<String>,
    /// Capacity of each bank in samples, for the methods with banks [default: four total batches]
    #[arg(long, value_name = "SAMPLES")]
    memory_bank_size: Option<u32>,
    /// How banked vectors are stored: bf16 takes half the memory, rounded to 8 significant bits [default: f32]
    #[arg(long, value_parser = one_of(["f32", "bf16"]))]
    memory_bank_dtype: Option<String>,
    /// First updates that leave the banks out: a number, or auto, until the loss says that the encoder has learned enough
    /// (at most a third of the run) [default: auto]
    #[arg(long, value_name = "UPDATES")]
    memory_bank_warmup: Option<BankWarmup>,
    /// Banked vectors when the encoder changes: moved with it, by a few rows encoded again after each update, or left as
    /// they are, as in the paper [default: compensate]
    #[arg(long, value_parser = one_of(["compensate", "none"]))]
    bank_drift: Option<String>,
    /// When vectors enter the banks: after each micro-batch, or all at the end of the update [default: micro-batch]
    #[arg(long, value_parser = one_of(["micro-batch", "update"]))]
    memory_bank_enqueue: Option<String>,
    /// Bank past queries, with the score of their own positive [default: by method]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    bank_queries: Option<bool>,
    /// Bank past passages, as negatives of every row of the loss [default: by method]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    bank_passages: Option<bool>,
    /// Bank past hard negatives [default: by method, where there are any and past passages are banked]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    bank_hard_negatives: Option<bool>,
    /// Keep the banks across updates, or clear them after each [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    keep_past: Option<bool>,
    /// Queries in the loss: current and banked, or current alone [default: by method]
    #[arg(long, value_parser = one_of(["all", "current"]))]
    rows: Option<String>,
    /// What a micro-batch's summed loss is divided by for the gradient: its current rows, or all its rows, banked ones
    /// included, as in the paper [default: current]
    #[arg(long, value_parser = one_of(["current", "all"]))]
    row_scale: Option<String>,
    /// Divisor of the similarities [default: 0.05]
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,
}

#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Optimizer and schedule")]
struct OptimizerFlags {
    /// Learning rate at the end of the warm-up [default: 0.00002]
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,
    /// Weight decay of AdamW, not for biases and LayerNorm [default: 0.0]
    #[arg(long, value_name = "DECAY")]
    weight_decay: Option<f64>,
    /// AdamW's decay of the first moment [default: 0.9]
    #[arg(long, value_name = "BETA")]
    adam_beta1: Option<f64>,
    /// AdamW's decay of the second moment [default: 0.999]
    #[arg(long, value_name = "BETA")]
    adam_beta2: Option<f64>,
    /// AdamW's denominator constant [default: 0.00000001]
    #[arg(long, value_name = "EPSILON")]
    adam_epsilon: Option<f64>,
    /// Scale gradients down to this global norm; 0 = never [default: 2.0]
    #[arg(long, value_name = "NORM")]
    max_grad_norm: Option<f64>,
    /// Learning rate after the warm-up [default: linear]
    #[arg(long, visible_alias = "lr-scheduler-type", value_parser = one_of(["linear", "cosine", "constant"]))]
    scheduler: Option<String>,
    /// Updates of warm-up [default: none]
    #[arg(long, value_name = "UPDATES", conflicts_with = "warmup_ratio")]
    warmup_steps: Option<u32>,
    /// Warm-up as a share of all updates
    #[arg(long, value_name = "SHARE")]
    warmup_ratio: Option<f64>,
    /// Passes over the training rows, fractions allowed [default: one]
    #[arg(long, visible_alias = "num-train-epochs", conflicts_with = "max_steps")]
    epochs: Option<f64>,
    /// Number of updates
    #[arg(long, value_name = "UPDATES")]
    max_steps: Option<u32>,
}

#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Run")]
struct RunFlags {
    /// Folder for checkpoints, metrics and the settings of the run
    #[arg(long, value_name = "FOLDER")]
    output_dir: Option<PathBuf>,
    /// Seed of shuffling, sampling and dropout [default: 42]
    #[arg(long, value_parser = clap::value_parser!(i64).range(0..))]
    seed: Option<i64>,
    /// Worker threads; 0 = all cores [default: 0]
    #[arg(long, value_name = "N")]
    threads: Option<u32>,
    /// Updates between checkpoints; 0 = only at the end [default: 500]
    #[arg(long, value_name = "UPDATES")]
    save_steps: Option<u32>,
    /// Minutes between checkpoints, beside those of --save-steps; 0 = none by time [default: 10]
    #[arg(long, value_name = "MINUTES")]
    save_minutes: Option<f64>,
    /// Checkpoints kept while the run goes on, the oldest deleted first; the last one when it is finished; 0 = all
    /// [default: 2]
    #[arg(long, value_name = "N")]
    save_total_limit: Option<u32>,
    /// Updates between log lines; every update is recorded all the same [default: 10]
    #[arg(long, value_name = "UPDATES")]
    logging_steps: Option<u32>,
    /// Updates between evaluations on --eval-data; 0 = only at the end [default: 0]
    #[arg(long, value_name = "UPDATES")]
    eval_steps: Option<u32>,
    /// BEIR folder to evaluate on [default: no evaluation]
    #[arg(long, value_name = "FOLDER")]
    eval_data: Option<PathBuf>,
    /// Split of --eval-data [default: dev]
    #[arg(long, value_name = "SPLIT")]
    eval_split: Option<String>,
    /// Evaluate on the first so many queries of the split [default: all]
    #[arg(long, value_name = "QUERIES")]
    max_eval_queries: Option<u32>,
    /// Leave the passage with the id of its query out of what is evaluated, as BEIR does [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    ignore_identical_ids: Option<bool>,
}

/// A size as it is written in a recipe: checked here, read with the other settings.
fn byte_size(text: &str) -> Result<String, String> {
    let size: ByteSize =
        text.parse().map_err(|_| "not a size; give a number and a unit, such as 11GiB".to_owned())?;
    if size.as_u64() == 0 { Err("nothing fits in 0 bytes".to_owned()) } else { Ok(text.to_owned()) }
}

fn one_of<const N: usize>(names: [&'static str; N]) -> PossibleValuesParser {
    PossibleValuesParser::new(names)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};
    use contaccum_training::TrainConfig;

    use crate::args::{Cli, Command};

    fn given(flags: &[&str]) -> toml::Table {
        let cli = Cli::try_parse_from(["contaccum", "train"].iter().chain(flags)).unwrap();
        let Command::Train(args) = cli.command else { panic!("not train") };
        args.settings.given()
    }

    /// Every setting, with a value that differs from nothing: what a complete recipe holds.
    fn every_key() -> Vec<String> {
        let mut keys: Vec<String> =
            toml::Table::try_from(TrainConfig::default()).unwrap().into_iter().map(|e| e.0).collect();
        let unset = [
            "pooling",
            "normalize",
            "dropout",
            "max_tokens",
            "memory_budget",
            "query_prompt",
            "passage_prompt",
            "passage_format",
            "hard_negatives_file",
            "positives",
            "corpus",
            "memory_bank_size",
            "bank_queries",
            "bank_passages",
            "bank_hard_negatives",
            "keep_past",
            "rows",
            "warmup_steps",
            "warmup_ratio",
            "epochs",
            "max_steps",
            "eval_data",
            "max_eval_queries",
        ];
        keys.extend(unset.map(String::from));
        keys.sort();
        keys
    }

    #[test]
    fn only_the_flags_that_were_given_are_laid_over_the_recipe() {
        assert!(given(&[]).is_empty());
        let expected: toml::Table = "seed = 7\ntied = true\nshuffle = false\ntrain = \"x\"".parse().unwrap();
        assert_eq!(given(&["--seed", "7", "--tied", "--shuffle", "false", "--train", "x"]), expected);
    }

    #[test]
    fn every_setting_is_a_flag_of_the_same_name_and_the_other_way_round() {
        let command = Cli::command();
        let train = command.find_subcommand("train").unwrap();
        let not_settings = [
            "recipe",
            "dry_run",
            "resume",
            "overwrite",
            "ignore_memory_limit",
            "json",
            "table",
            "verbose",
            "quiet",
            "help",
        ];
        let mut flags: Vec<String> = train
            .get_arguments()
            .map(|argument| argument.get_long().unwrap().replace('-', "_"))
            .filter(|name| !not_settings.contains(&name.as_str()))
            .collect();
        flags.sort();
        assert_eq!(flags, every_key());
        for key in every_key() {
            let unknown = TrainConfig::from_toml(&format!("{key} = []"), "r").unwrap_err().to_string();
            assert!(!unknown.contains("unknown field"), "{unknown}");
        }
    }

    #[test]
    fn the_defaults_told_are_the_defaults() {
        let command = Cli::command();
        let train = command.find_subcommand("train").unwrap();
        for (key, value) in toml::Table::try_from(TrainConfig::default()).unwrap() {
            if ["model", "train", "output_dir"].contains(&key.as_str()) {
                continue;
            }
            let argument = train.get_arguments().find(|a| a.get_id() == key.as_str()).unwrap();
            let help = argument.get_help().unwrap().to_string();
            let told = help.rsplit_once("[default: ").unwrap().1.trim_end_matches(']').to_owned();
            let same = match &value {
                toml::Value::Float(number) => (told.parse::<f64>().unwrap() - number).abs() < 1e-9,
                toml::Value::String(text) => told == *text,
                other => told == other.to_string(),
            };
            assert!(same, "--{key}: told {told}, is {value}");
        }
    }

    #[test]
    fn the_names_of_other_trainers_are_understood() {
        let settings = given(&["--per-device-train-batch-size", "4", "--num-train-epochs", "2"]);
        assert_eq!(settings, "local_batch_size = 4\nepochs = 2.0".parse().unwrap());
    }
}
