//! The table of settings: everything a training run is told, one entry a setting.
//!
//! An entry is `key: type = default, facts, help;`. From it come the field of [`TrainConfig`], the key of a recipe, the
//! flag of `train` and `plan` with its help, the check of its value alone, and what checkpoints, studies, reports and
//! memory budgets do with it: all by its [`Facts`]. What settings mean beside one another is in `check.rs` and
//! `method.rs`. A word that a setting may be is a variant of its enum, and an enum is named once more, in `kind.rs`.

mod facts;
mod kind;

use std::path::PathBuf;

use bytesize::ByteSize;
use contaccum_data::{Columns, Positives};
use contaccum_encoder::{PassageFormat, Pooling, Recompute, Similarity};
use contaccum_objective::{BankDtype, RowScale, Rows};
use serde::{Deserialize, Serialize};

pub use facts::{Facts, Role, Scope};
pub use kind::{Kind, word, words};

use crate::bounds::{MOST_HARD_NEGATIVES, MOST_LENGTH, MOST_ROWS, MOST_THREADS, MOST_UPDATES};
use crate::settings::facts::{
    ABOVE_ZERO, BANKS, BELOW_ONE, CONTENT, EVALUATION, FREE, FROM_ZERO, PLACE, RECORDS, RESULT, SHARE, TEXTS,
};
use crate::settings::kind::Valued;
use crate::{BankDrift, BankWarmup, Enqueue, Method, Scheduler};

macro_rules! settings {
    ($($group:literal { $($key:ident: $type:ty = $default:expr, $facts:expr, $help:literal;)* })*) => {
        /// Everything a training run is told: the keys of a recipe, which are also the flags of the program. The fields
        /// are those of the table in this module; what is `None` is decided by the model's folder, the data or the
        /// method.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct TrainConfig {
            $($(#[doc = concat!($help, ".")] pub $key: $type,)*)*
            /// Which of the keys that a memory budget chooses were given and are kept; not a key itself.
            #[serde(skip)]
            pub given: Vec<&'static str>,
        }

        impl Default for TrainConfig {
            fn default() -> Self {
                Self { $($($key: $default,)*)* given: Vec::new() }
            }
        }

        /// The table, in the order of the help and of `config.toml`.
        pub const SETTINGS: &[Setting] = &[$($(Setting {
            key: stringify!($key),
            group: $group,
            help: $help,
            facts: $facts,
            kind: <$type as Valued>::kind,
            told: |config| config.$key.told(),
            number: |config| config.$key.number(),
        },)*)*];
    };
}

settings! {
"Model" {
    model: String = String::new(), CONTENT.value("NAME|FOLDER").of(Scope::Base),
        "Folder of a Hugging Face or sentence-transformers model, or its name on the hub";
    tied: bool = true, RESULT, "One encoder for queries and passages, or two that start from the same weights";
    pooling: Option<Pooling> = None, RESULT.default("what the model records, else cls"),
        "How a sequence becomes one vector";
    normalize: Option<bool> = None, RESULT.default("what the model records; always with cosine"),
        "Normalise vectors to length one";
    similarity: Similarity = Similarity::Cosine, RESULT, "How vectors are compared";
    dropout: Option<f64> = None, RESULT.value("P").bounds(BELOW_ONE).default("what the model records"),
        "Dropout probability on hidden states and attention";
    freeze_embeddings: bool = false, RESULT,
        "Leave the embeddings as they are: no gradient and no optimizer state of them";
    query_max_length: usize = 64, TEXTS.value("TOKENS").length(MOST_LENGTH), "Longest query in tokens, whatever more the model takes";
    passage_max_length: usize = 256, TEXTS.value("TOKENS").length(MOST_LENGTH), "Longest passage in tokens, whatever more the model takes";
    query_prompt: Option<String> = None, TEXTS.value("TEXT").default("what the model records"),
        "Text put before every query";
    passage_prompt: Option<String> = None, TEXTS.value("TEXT").default("what the model records"),
        "Text put before every passage";
    passage_format: Option<PassageFormat> = None, TEXTS.default("what the model records, else pair"),
        "Title and text as a segment pair, or joined in one segment";
}
"Data" {
    train: PathBuf = PathBuf::new(), CONTENT.value("PATH"),
        "What to train on: a BEIR or MS MARCO folder, or a file of rows, as JSON or JSONL (sentence-transformers, Tevatron, \
         FlagEmbedding, DPR), TSV or CSV (query, positive, negatives), plain, .gz or .zst";
    split: String = "train".into(), RESULT,
        "Split of a folder to train on: qrels/SPLIT.tsv, or MS MARCO's qrels.SPLIT.tsv";
    columns: Option<Columns> = None, RESULT.value("ROLE=NAME,...").default("names known in the field"),
        "Which fields or columns of a training file are meant: query=question,positive=context,negative=hard, each of \
         positive and negative as often as there are";
    hard_negatives_file: Option<PathBuf> = None, CONTENT.value("FILE"),
        "Hard negatives for the judged queries of a folder, a TSV of two or three columns: query-id, gold-id (need not be \
         there, and is not looked at) and neg-ids (separated by commas), in this order or by the names of a header; MS \
         MARCO's triples of ids are such a file";
    corpus: Option<PathBuf> = None, CONTENT.value("PATH"),
        "Passages that the training file names by id, when they lie elsewhere";
    hard_negatives: usize = 0, RESULT.value("N").count(0, MOST_HARD_NEGATIVES),
        "Hard negatives per query, sampled anew each epoch";
    no_duplicates: bool = false, RESULT, "Let no passage be the positive of two rows of a total batch";
    shuffle: bool = true, RESULT, "Shuffle the rows anew each epoch";
    positives: Option<Positives> = None, RESULT.default("first for DPR files and without shuffling, else random"),
        "Which positive of a row that has several: the first, or a random one each epoch";
    drop_last: bool = true, RESULT,
        "Leave rows that fill no total batch out of an epoch; false trains on them as a smaller batch";
    strict: bool = false, FREE, "Refuse data with odd lines, which are read over and counted otherwise";
    mask_false_negatives: bool = true, RESULT,
        "Leave every passage known to be relevant to a row's query out of its negatives";
}
"Batch" {
    local_batch_size: usize = 8, RESULT.value("ROWS").count(1, MOST_ROWS).budgeted()
        .aliases(&["per-device-batch-size", "per-device-train-batch-size"]),
        "Rows computed at once: what has to fit in memory";
    gradient_accumulation_steps: usize = 16, RESULT.value("N").count(1, MOST_ROWS).budgeted(),
        "Local batches per update; the total batch is the product";
    max_tokens: Option<usize> = None, RESULT.value("TOKENS").default("as many as a local batch may have"),
        "Tokens computed at once, queries and passages together; a local batch of more is encoded twice, in chunks, for \
         the same gradient";
    recompute: Recompute = Recompute::None, FREE.budgeted(),
        "What is computed a second time instead of kept: inputs of attention and GELU (selective), or whole layers; the \
         gradient is the same";
    memory_budget: Option<ByteSize> = None, RESULT.value("BYTES").default("no limit"),
        "Most memory the run may take, such as 11GiB: where the settings take more, chooses the local batch and \
         --recompute if they were not given, for the same total batch";
}
"Method" {
    method: Method = Method::Contaccum, RESULT, "Where negatives come from: a table is at the top of --help";
    memory_bank_size: Option<usize> = None, BANKS.off("0").value("SAMPLES").default("four total batches"),
        "Capacity of each bank in samples, for the methods with banks";
    memory_bank_dtype: BankDtype = BankDtype::F32, BANKS,
        "How banked vectors are stored: bf16 takes half the memory, rounded to 8 significant bits";
    memory_bank_warmup: BankWarmup = BankWarmup::Auto, BANKS.value("UPDATES"),
        "First updates that leave the banks out: a number, or auto, until the loss says that the encoder has learned \
         enough (at most a third of the run)";
    bank_drift: BankDrift = BankDrift::Compensate, BANKS,
        "Banked vectors when the encoder changes: moved with it, by a few rows encoded again after each update, or left \
         as they are, as in the paper";
    memory_bank_enqueue: Enqueue = Enqueue::MicroBatch, BANKS,
        "When vectors enter the banks: after each micro-batch, or all at the end of the update";
    bank_queries: Option<bool> = None, BANKS.off("false").default("by method"),
        "Bank past queries, with the score of their own positive";
    bank_passages: Option<bool> = None, BANKS.off("false").default("by method"),
        "Bank past passages, as negatives of every row of the loss";
    bank_hard_negatives: Option<bool> = None,
        BANKS.off("false").default("by method, where there are any and past passages are banked"),
        "Bank past hard negatives";
    keep_past: Option<bool> = None, BANKS.off("false").default("true"),
        "Keep the banks across updates, or clear them after each";
    rows: Option<Rows> = None, BANKS.off("current").default("by method"),
        "Queries in the loss: current and banked, or current alone";
    row_scale: RowScale = RowScale::Current, BANKS,
        "What a micro-batch's summed loss is divided by for the gradient: its current rows, or all its rows, banked ones \
         included, as in the paper";
    temperature: f32 = 0.05, RESULT.value("T").bounds(ABOVE_ZERO), "Divisor of the similarities";
}
"Optimizer and schedule" {
    learning_rate: f64 = 2e-5, RESULT.value("RATE").bounds(FROM_ZERO), "Learning rate at the end of the warm-up";
    weight_decay: f64 = 0.0, RESULT.value("DECAY").bounds(FROM_ZERO),
        "Weight decay of AdamW, not for biases and LayerNorm";
    adam_beta1: f64 = 0.9, RESULT.value("BETA").bounds(BELOW_ONE), "AdamW's decay of the first moment";
    adam_beta2: f64 = 0.999, RESULT.value("BETA").bounds(BELOW_ONE), "AdamW's decay of the second moment";
    adam_epsilon: f64 = 1e-8, RESULT.value("EPSILON").bounds(ABOVE_ZERO), "AdamW's denominator constant";
    max_grad_norm: f64 = 2.0, RESULT.value("NORM").bounds(FROM_ZERO),
        "Scale gradients down to this global norm; 0 = never";
    scheduler: Scheduler = Scheduler::Linear, RESULT.aliases(&["lr-scheduler-type"]),
        "Learning rate after the warm-up";
    min_learning_rate: Option<f64> = None, RESULT.value("RATE").bounds(FROM_ZERO).default("0"),
        "What the learning rate falls to at the end of the run, where it falls";
    warmup_steps: Option<usize> = None, RESULT.value("UPDATES").not_with("warmup_ratio").default("none"),
        "Updates of warm-up";
    warmup_ratio: Option<f64> = None, RESULT.value("SHARE").bounds(SHARE), "Warm-up as a share of all updates";
    epochs: Option<f64> = None,
        RESULT.bounds(ABOVE_ZERO).not_with("max_steps").aliases(&["num-train-epochs"]).default("one"),
        "Passes over the training rows, fractions allowed";
    max_steps: Option<usize> = None, RESULT.value("UPDATES").count(1, MOST_UPDATES), "Number of updates";
}
"Run" {
    output_dir: PathBuf = PathBuf::new(), PLACE.value("FOLDER"),
        "Folder for checkpoints, metrics and the settings of the run";
    seed: u64 = 42, RESULT.of(Scope::Study), "Seed of shuffling, sampling and dropout";
    threads: usize = 0, FREE.value("N").count(0, MOST_THREADS), "Worker threads; 0 = all cores";
    save_steps: usize = 500, RECORDS.value("UPDATES"), "Updates between checkpoints; 0 = only at the end";
    save_minutes: f64 = 10.0, RECORDS.value("MINUTES").bounds(FROM_ZERO),
        "Minutes between checkpoints, beside those of --save-steps; 0 = none by time";
    save_total_limit: usize = 2, RECORDS.value("N"),
        "Checkpoints kept while the run goes on, the oldest deleted first; the last one when it is finished; 0 = all";
    logging_steps: usize = 10, RECORDS.value("UPDATES").count(1, usize::MAX),
        "Updates between log lines; every update is recorded all the same";
    eval_steps: usize = 0, EVALUATION.value("UPDATES"),
        "Updates between evaluations on --eval-data; 0 = only at the end";
    eval_data: Option<PathBuf> = None, EVALUATION.value("FOLDER").default("no evaluation"),
        "BEIR folder to evaluate on";
    eval_split: String = "dev".into(), EVALUATION.value("SPLIT"), "Split of --eval-data";
    max_eval_queries: Option<usize> = None, EVALUATION.value("QUERIES").count(1, usize::MAX)
        .below(" (give at least 1, or leave it out for all queries)").default("all"),
        "Evaluate on the first so many queries of the split";
    ignore_identical_ids: bool = false, EVALUATION.of(Scope::Base),
        "Leave the passage with the id of its query out of what is evaluated, as BEIR does";
}
}

/// An entry of the table.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The key of a recipe and the field of [`TrainConfig`]; the flag has `-` for `_`.
    pub key: &'static str,
    /// The heading of its flag.
    pub group: &'static str,
    /// What it is, in a line without a full stop and without its default.
    pub help: &'static str,
    /// What is done with it.
    pub facts: Facts,
    kind: fn() -> Kind,
    told: fn(&TrainConfig) -> Option<String>,
    number: fn(&TrainConfig) -> Option<f64>,
}

impl Setting {
    /// The entry of a key.
    pub fn of(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }

    /// What it may be.
    pub fn kind(&self) -> Kind {
        (self.kind)()
    }

    /// Its value, as in a recipe but without quotes; `None` where it is not set.
    pub fn told(&self, config: &TrainConfig) -> Option<String> {
        (self.told)(config)
    }

    /// Its default in words; `None` where it has none.
    pub fn default_told(&self) -> Option<String> {
        let words = self.facts.default.map(str::to_owned);
        words.or_else(|| self.told(&TrainConfig::default()).filter(|told| !told.is_empty()))
    }

    /// Whether it decides numbers and is not at its default.
    pub fn is_changed(&self, config: &TrainConfig, defaults: &TrainConfig) -> bool {
        !self.facts.role.may_change_on_resume() && self.told(config) != self.told(defaults)
    }

    /// What is wrong with its value alone, with the remedy; `None` for nothing.
    pub(crate) fn problem(&self, config: &TrainConfig) -> Option<String> {
        let wrong = self.facts.bounds.problem((self.number)(config)?)?;
        Some(format!("{}{wrong}", self.told(config).unwrap_or_default()))
    }

    /// Whether it asks for something of banks that a method without banks does not do.
    pub(crate) fn asks_for_banks(&self, config: &TrainConfig, defaults: &TrainConfig) -> bool {
        let told = self.told(config);
        self.facts.role == Role::Banks && told != self.told(defaults) && told.as_deref() != self.facts.off
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_one_entry_and_a_help_that_is_one_line_without_a_full_stop() {
        let fields = toml::Table::try_from(TrainConfig::default()).unwrap();
        assert!(fields.keys().all(|key| Setting::of(key).is_some()));
        for (index, setting) in SETTINGS.iter().enumerate() {
            assert_eq!(SETTINGS.iter().position(|other| other.key == setting.key), Some(index));
            assert!(!setting.help.contains(['\n', '[']) && !setting.help.ends_with('.'), "{}", setting.key);
        }
    }

    #[test]
    fn a_key_that_another_entry_names_is_one() {
        for other in SETTINGS.iter().filter_map(|setting| setting.facts.not_with) {
            assert!(Setting::of(other).is_some(), "{other}");
        }
    }
}
