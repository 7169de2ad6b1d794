//! What a training run is told: the keys of a TOML recipe, which are also the program's flags.
//!
//! A recipe is one flat list of keys in `snake_case`; each key is a flag in `kebab-case` (`local_batch_size`
//! and `--local-batch-size`) and a field of [`TrainConfig`], under one name everywhere. Flags win over the
//! recipe, the recipe wins over the defaults of [`TrainConfig::default`]. Paths are relative to the folder
//! the program runs in.

use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use contaccum_data::{BatchConfig, Positives, TrainingSource, with_nearest};
use contaccum_encoder::{ModelConfig, PassageFormat, Pooling, Recompute, Similarity};
use serde::{Deserialize, Serialize};

use crate::schedule::Scheduler;
use crate::warmup::BankWarmup;

/// Pairs of keys that say one thing in two units: a flag for one of them replaces the recipe's other one.
const ALTERNATIVES: [(&str, &str); 2] = [("warmup_steps", "warmup_ratio"), ("epochs", "max_steps")];

/// Bank capacity, in total batches, of a method with banks when `memory_bank_size` is not given.
const DEFAULT_BANK_TOTAL_BATCHES: usize = 4;

/// The keys that a memory budget may choose, those that were given excepted.
pub(crate) const CHOSEN_BY_BUDGET: [&str; 3] =
    ["local_batch_size", "gradient_accumulation_steps", "recompute"];

/// Everything a training run is told. See the field docs for units and defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    // -- model
    /// Folder of a Hugging Face or sentence-transformers model, or its name on the hub. Required.
    pub model: String,
    /// One encoder for queries and passages (default), or two that start from the same weights.
    pub tied: bool,
    /// How a sequence becomes one vector; default: what the model folder records, else the
    /// first token.
    pub pooling: Option<Pooling>,
    /// Whether vectors are normalised to length one; default: what the model folder records, and always
    /// with cosine similarity.
    pub normalize: Option<bool>,
    /// How vectors are compared; default: cosine.
    pub similarity: Similarity,
    /// Dropout probability on hidden states and attention; default: what the model's `config.json` says.
    pub dropout: Option<f64>,
    /// Leave the embeddings as they are: no gradient and no optimizer state of them; default false.
    pub freeze_embeddings: bool,
    /// Longest query in tokens, special tokens included; default 64.
    pub query_max_length: usize,
    /// Longest passage in tokens, special tokens included; default 256.
    pub passage_max_length: usize,
    /// Text put before every query; default: what the model folder records.
    pub query_prompt: Option<String>,
    /// Text put before every passage; default: what the model folder records.
    pub passage_prompt: Option<String>,
    /// How a passage's title and text are joined; default: what the model folder records, else as a segment pair.
    pub passage_format: Option<PassageFormat>,

    // -- data
    /// Training data: a BEIR folder, a DPR JSON file or a JSONL file, plain or compressed. Required.
    pub train: PathBuf,
    /// Split of a BEIR folder to train on (`qrels/<split>.tsv`); default `train`.
    pub split: String,
    /// Hard negatives of a BEIR folder's judged queries: query id, (gold id,) negative ids, tab-separated.
    pub hard_negatives_file: Option<PathBuf>,
    /// Passages the training file refers to by id, when they lie elsewhere.
    pub corpus: Option<PathBuf>,
    /// Hard negatives per query; default 0.
    pub hard_negatives: usize,
    /// Keep a passage from being the positive of two rows of one total batch; default false.
    pub no_duplicates: bool,
    /// Shuffle the rows anew each epoch; default true.
    pub shuffle: bool,
    /// Which positive of a row that has several is trained on; default: the first of a DPR file and without
    /// shuffling, else a random one each epoch.
    pub positives: Option<Positives>,
    /// Leave rows that fill no total batch out of an epoch (default), or train on them as a smaller last
    /// batch.
    pub drop_last: bool,
    /// Refuse data with odd lines instead of reading over them; default false.
    pub strict: bool,
    /// Leave every passage known to be relevant to a row's query, and equal texts under other ids, out of its negatives;
    /// default true. Known are the positives of all rows with the query's text.
    pub mask_false_negatives: bool,

    // -- batch
    /// Rows computed at once, with their activations in memory; default 8.
    pub local_batch_size: usize,
    /// Local batches per update; default 16.
    pub gradient_accumulation_steps: usize,
    /// Most tokens whose activations are in memory at once, queries and passages together; default: those of
    /// a local batch at its longest. A local batch of more tokens is encoded twice, in chunks, for the same
    /// gradient.
    pub max_tokens: Option<usize>,
    /// What backward passes make again instead of keeping it; default none.
    pub recompute: Recompute,
    /// Most memory the run may take. Where the settings would take more, those of `local_batch_size`,
    /// `gradient_accumulation_steps` and `recompute` that were not given are chosen, for the same total batch. Default:
    /// no limit.
    pub memory_budget: Option<ByteSize>,
    /// Which of the keys that a memory budget chooses were given and are kept; not a key itself.
    #[serde(skip)]
    pub given: Vec<&'static str>,

    // -- method
    /// Name of the method: a point of the space that the keys from `bank_queries` to `rows` span; default
    /// `contaccum`.
    pub method: Method,
    /// Capacity of each bank in samples (not batches); default four total batches for the methods with
    /// banks.
    pub memory_bank_size: Option<usize>,
    /// How banked vectors are stored; default f32.
    pub memory_bank_dtype: BankDtype,
    /// First updates that leave the banks out, as rows and as columns; default `auto`: until the loss says that the
    /// encoder has learned enough, at most a third of the run. Given as a number, the last of them fill the banks, which
    /// are then full of recent vectors when they are first used.
    pub memory_bank_warmup: BankWarmup,
    /// What becomes of banked vectors when the encoder changes; default they are moved with it.
    pub bank_drift: BankDrift,
    /// When vectors enter the banks; default after each micro-batch.
    pub memory_bank_enqueue: Enqueue,
    /// Bank past queries, with the score of their own positive; default by method.
    pub bank_queries: Option<bool>,
    /// Bank past passages, as negatives of every row of the loss; default by method.
    pub bank_passages: Option<bool>,
    /// Bank past hard negatives; default by method, when there are hard negatives and past passages are
    /// banked.
    pub bank_hard_negatives: Option<bool>,
    /// Keep the banks across updates (true) or clear them after each (false); default true.
    pub keep_past: Option<bool>,
    /// Rows of the loss: `all` (current and banked queries) or `current`; default by method.
    pub rows: Option<Rows>,
    /// What the summed loss of a micro-batch's rows is divided by for the gradient, where banked queries are rows;
    /// default the current rows. The loss told is the mean over all rows either way.
    pub row_scale: RowScale,

    // -- loss
    /// Divisor of the similarities; default 0.05 (a scale of 20). The paper uses 1 with dot products.
    pub temperature: f32,

    // -- optimizer
    /// Learning rate at the end of the warm-up; default 2e-5.
    pub learning_rate: f64,
    /// Decoupled weight decay of AdamW, not applied to biases and LayerNorm; default 0.
    pub weight_decay: f64,
    /// AdamW's decay of the first moment; default 0.9.
    pub adam_beta1: f64,
    /// AdamW's decay of the second moment; default 0.999.
    pub adam_beta2: f64,
    /// AdamW's denominator constant; default 1e-8.
    pub adam_epsilon: f64,
    /// Global gradient norm over both encoders above which gradients are scaled down; 0 = off; default 2.
    pub max_grad_norm: f64,

    // -- schedule
    /// Shape of the learning rate after the warm-up; default linear.
    pub scheduler: Scheduler,
    /// Updates of linear warm-up; default 0.
    pub warmup_steps: Option<usize>,
    /// Warm-up as a share of all updates, in 0..1. Not together with `warmup_steps`.
    pub warmup_ratio: Option<f64>,
    /// Passes over the training rows, fractions allowed; default 1.
    pub epochs: Option<f64>,
    /// Number of updates. Not together with `epochs`.
    pub max_steps: Option<usize>,

    // -- run
    /// Folder of checkpoints, metrics and the resolved configuration. Required.
    pub output_dir: PathBuf,
    /// Seed of shuffling, sampling, dropout and fresh weights; default 42.
    pub seed: u64,
    /// Worker threads; 0 (default) = all cores.
    pub threads: usize,
    /// Updates between checkpoints; 0 = only at the end; default 500.
    pub save_steps: usize,
    /// Minutes between checkpoints, beside those of `save_steps`; 0 = none by time; default 10.
    pub save_minutes: f64,
    /// Checkpoints kept while the run goes on, the oldest deleted first, and one when it is finished; 0 = all; default 2.
    pub save_total_limit: usize,
    /// Updates between lines of the log; every update is recorded all the same; default 10.
    pub logging_steps: usize,
    /// Updates between evaluations on `eval_data`; 0 = only at the end; default 0.
    pub eval_steps: usize,
    /// BEIR folder to evaluate on during training; default: no evaluation.
    pub eval_data: Option<PathBuf>,
    /// Split of `eval_data`; default `dev`.
    pub eval_split: String,
    /// Evaluate on the first so many queries of the split; default: all of them.
    pub max_eval_queries: Option<usize>,
    /// Leave the passage with the id of its query out of what is evaluated, as BEIR does; default false.
    pub ignore_identical_ids: bool,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            model: String::new(),
            tied: true,
            pooling: None,
            normalize: None,
            similarity: Similarity::Cosine,
            dropout: None,
            freeze_embeddings: false,
            query_max_length: 64,
            passage_max_length: 256,
            query_prompt: None,
            passage_prompt: None,
            passage_format: None,
            train: PathBuf::new(),
            split: "train".into(),
            hard_negatives_file: None,
            corpus: None,
            hard_negatives: 0,
            no_duplicates: false,
            shuffle: true,
            positives: None,
            drop_last: true,
            strict: false,
            mask_false_negatives: true,
            local_batch_size: 8,
            gradient_accumulation_steps: 16,
            max_tokens: None,
            recompute: Recompute::None,
            memory_budget: None,
            given: Vec::new(),
            method: Method::Contaccum,
            memory_bank_size: None,
            memory_bank_dtype: BankDtype::F32,
            memory_bank_warmup: BankWarmup::Auto,
            bank_drift: BankDrift::Compensate,
            memory_bank_enqueue: Enqueue::MicroBatch,
            bank_queries: None,
            bank_passages: None,
            bank_hard_negatives: None,
            keep_past: None,
            rows: None,
            row_scale: RowScale::Current,
            temperature: 0.05,
            learning_rate: 2e-5,
            weight_decay: 0.0,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            adam_epsilon: 1e-8,
            max_grad_norm: 2.0,
            scheduler: Scheduler::Linear,
            warmup_steps: None,
            warmup_ratio: None,
            epochs: None,
            max_steps: None,
            output_dir: PathBuf::new(),
            seed: 42,
            threads: 0,
            save_steps: 500,
            save_minutes: 10.0,
            save_total_limit: 2,
            logging_steps: 10,
            eval_steps: 0,
            eval_data: None,
            eval_split: "dev".into(),
            max_eval_queries: None,
            ignore_identical_ids: false,
        }
    }
}

/// The named methods. [`TrainConfig::resolve`] says which point of the space each name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// One forward and backward of the total batch at once (DPR).
    FullBatch,
    /// Local batches one after the other, each with its own negatives.
    GradAccum,
    /// The total batch's negatives in chunks of the local batch (arXiv 2101.06983).
    GradCache,
    /// Gradient accumulation with a bank of passages (arXiv 2106.07351).
    PreBatch,
    /// Gradient accumulation with banks of queries and passages (arXiv 2406.12356).
    Contaccum,
    /// Both banks on top of gradient caching.
    ContaccumGradCache,
}

impl Method {
    /// All methods, in the order of the documentation.
    pub const ALL: [Self; 6] = [
        Self::FullBatch,
        Self::GradAccum,
        Self::GradCache,
        Self::PreBatch,
        Self::Contaccum,
        Self::ContaccumGradCache,
    ];

    /// The name used in recipes, flags and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::FullBatch => "full-batch",
            Self::GradAccum => "grad-accum",
            Self::GradCache => "grad-cache",
            Self::PreBatch => "pre-batch",
            Self::Contaccum => "contaccum",
            Self::ContaccumGradCache => "contaccum-grad-cache",
        }
    }

    /// Whether a query's current negatives are those of its local batch; otherwise they are the total
    /// batch's.
    pub(crate) fn negatives_are_local(self) -> bool {
        match self {
            Self::FullBatch | Self::GradCache | Self::ContaccumGradCache => false,
            Self::GradAccum | Self::PreBatch | Self::Contaccum => true,
        }
    }

    fn is_chunked(self) -> bool {
        match self {
            Self::GradCache | Self::ContaccumGradCache => true,
            Self::FullBatch | Self::GradAccum | Self::PreBatch | Self::Contaccum => false,
        }
    }

    fn has_banks(self) -> bool {
        match self {
            Self::PreBatch | Self::Contaccum | Self::ContaccumGradCache => true,
            Self::FullBatch | Self::GradAccum | Self::GradCache => false,
        }
    }
}

/// Rows of the similarity matrix that enter the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rows {
    /// Current and banked queries.
    All,
    /// Current queries alone.
    Current,
}

/// How banked vectors are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BankDtype {
    /// Four bytes a value, exact.
    F32,
    /// Two bytes a value, rounded to 8 significant bits.
    Bf16,
}

/// What becomes of banked vectors when the encoder changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BankDrift {
    /// A few rows are encoded again after each update, and banked vectors take the displacement of those most like them.
    Compensate,
    /// They stay as they were encoded (the paper's banks).
    None,
}

/// What the summed loss of a micro-batch's rows is divided by for the gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RowScale {
    /// The current rows: the gradient does not shrink while the banks fill.
    Current,
    /// All rows, banked ones included (the paper's).
    All,
}

/// When the vectors of an update enter the banks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enqueue {
    /// After each micro-batch: the next one of the same update sees them.
    MicroBatch,
    /// All at the end of the update: its micro-batches see the same banks.
    Update,
}

/// A point of the space of methods: what a [`Method`] and its overrides come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MethodPoint {
    /// A micro-step is computed in chunks of `chunk_size`, with a second pass (gradient caching).
    pub chunked: bool,
    /// Rows of a micro-step.
    pub micro_batch_size: usize,
    /// Micro-steps of an update.
    pub micro_steps: usize,
    /// Rows whose activations are in memory at once.
    pub chunk_size: usize,
    /// Capacity of each bank in samples; 0 = no bank.
    pub bank_samples: usize,
    /// Past queries are banked.
    pub bank_queries: bool,
    /// Past passages are banked.
    pub bank_passages: bool,
    /// Past hard negatives are banked.
    pub bank_hard_negatives: bool,
    /// Banks live across updates; cleared after each otherwise.
    pub keep_past: bool,
    /// Rows of the loss.
    pub rows: Rows,
    /// What becomes of banked vectors; [`BankDrift::None`] where none outlives an update.
    pub bank_drift: BankDrift,
    /// What the gradient is divided by.
    pub row_scale: RowScale,
}

impl MethodPoint {
    /// Whether there are banks that are moved with the encoder.
    pub fn moves_banks(&self) -> bool {
        self.bank_samples > 0 && self.bank_drift == BankDrift::Compensate
    }
}

/// What is wrong with a configuration, in one line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The recipe cannot be read.
    #[error("recipe not readable: {path}: {source} (check the path)")]
    Read {
        /// The recipe.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The recipe is not TOML, or has an unknown key or a value of the wrong kind.
    #[error("bad recipe: {place}: {message}")]
    Toml {
        /// File and line.
        place: String,
        /// What the parser said, in one line.
        message: String,
    },
    /// A value makes no sense, alone or beside another.
    #[error("bad setting: {key}: {reason}")]
    Setting {
        /// The key, as in a recipe.
        key: &'static str,
        /// What is wrong and what to do.
        reason: String,
    },
}

fn check_path(key: &'static str, path: &Path) -> Result<(), ConfigError> {
    if path.as_os_str().is_empty() {
        let flag = key.replace('_', "-");
        return setting(key, format!("missing (give a path with --{flag} or in the recipe)"));
    }
    Ok(())
}

pub(crate) fn setting<T>(key: &'static str, reason: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Setting { key, reason: reason.into() })
}

impl TrainConfig {
    /// Reads a recipe, if there is one, lays `flags` over it and checks the result.
    ///
    /// `flags` holds only what was given, under the keys of the recipe.
    ///
    /// # Errors
    /// An unreadable recipe, an unknown key or wrong value (with its line), and all of [`Self::validate`].
    pub fn load(recipe: Option<&Path>, flags: toml::Table) -> Result<Self, ConfigError> {
        Self::layered(Self::read(recipe)?, flags)
    }

    /// As [`Self::load`], for a run that is only to be told of: the output folder need not be given.
    ///
    /// # Errors
    /// As [`Self::load`], but for it.
    pub fn load_for_dry_run(recipe: Option<&Path>, flags: toml::Table) -> Result<Self, ConfigError> {
        let config = Self::overlaid(Self::read(recipe)?, flags)?;
        config.validate_for_dry_run()?;
        Ok(config)
    }

    /// As [`Self::load`], for a plan: data and output folder need not be given.
    ///
    /// # Errors
    /// As [`Self::load`], but for them.
    pub fn load_for_plan(recipe: Option<&Path>, flags: toml::Table) -> Result<Self, ConfigError> {
        let config = Self::overlaid(Self::read(recipe)?, flags)?;
        config.check_model()?;
        config.check_values()?;
        Ok(config)
    }

    fn read(recipe: Option<&Path>) -> Result<toml::Table, ConfigError> {
        let Some(path) = recipe else { return Ok(toml::Table::new()) };
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let place = path.display().to_string();
        // Parsed on its own first: only this parse knows the lines of the file.
        Self::from_toml(&text, &place)?;
        text.parse().map_err(|error| toml_error(&text, &place, &error))
    }

    /// `settings` with `flags` laid over them, checked.
    ///
    /// # Errors
    /// An unknown key, a value of the wrong kind, and all of [`Self::validate`].
    pub fn layered(settings: toml::Table, flags: toml::Table) -> Result<Self, ConfigError> {
        let config = Self::overlaid(settings, flags)?;
        config.validate()?;
        Ok(config)
    }

    fn overlaid(mut settings: toml::Table, flags: toml::Table) -> Result<Self, ConfigError> {
        for (one, other) in ALTERNATIVES {
            if flags.contains_key(one) || flags.contains_key(other) {
                settings.remove(one);
                settings.remove(other);
            }
        }
        settings.extend(flags);
        let given = CHOSEN_BY_BUDGET.into_iter().filter(|key| settings.contains_key(*key)).collect();
        let config: Self = settings.try_into().map_err(|error| toml_error("", "flags", &error))?;
        Ok(Self { given, ..config })
    }

    /// Parses a recipe; `place` names it in errors. Values are not checked against one another.
    ///
    /// # Errors
    /// Text that is no TOML, an unknown key, a value of the wrong kind: with the line.
    pub fn from_toml(text: &str, place: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| toml_error(text, place, &error))
    }

    /// The configuration as a recipe that gives it back.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a flat struct of numbers and strings is TOML")
    }

    /// Where the training rows come from: a folder is read as BEIR, a file by its content.
    ///
    /// # Errors
    /// `corpus` or `hard_negatives_file` beside data of the other kind.
    pub fn source(&self) -> Result<TrainingSource, ConfigError> {
        if self.train.is_dir() {
            if self.corpus.is_some() {
                return setting("corpus", "given beside a BEIR folder, which has its own (drop it)");
            }
            return Ok(TrainingSource::Beir {
                folder: self.train.clone(),
                split: self.split.clone(),
                hard_negatives: self.hard_negatives_file.clone(),
            });
        }
        if self.hard_negatives_file.is_some() {
            return setting(
                "hard_negatives_file",
                "given beside a file whose rows bring their own (drop it)",
            );
        }
        Ok(TrainingSource::File { path: self.train.clone(), corpus: self.corpus.clone() })
    }

    /// Rows of an update: local batch size times accumulation steps.
    pub fn total_batch_size(&self) -> usize {
        self.local_batch_size * self.gradient_accumulation_steps
    }

    /// How rows become batches; `positives` is the rule of the data where none is given.
    pub fn batches(&self, positives: Positives) -> BatchConfig {
        let positives = if self.shuffle { positives } else { Positives::First };
        BatchConfig {
            seed: self.seed,
            total_batch: self.total_batch_size(),
            hard_negatives: self.hard_negatives,
            shuffle: self.shuffle,
            positives: self.positives.unwrap_or(positives),
            no_duplicates: self.no_duplicates,
            drop_last: self.drop_last,
        }
    }

    /// Updates of the whole run, given those of an epoch (of a [`BatchPlan`](contaccum_data::BatchPlan)).
    pub fn updates(&self, updates_per_epoch: usize) -> usize {
        let by_epochs = || self.epochs.unwrap_or(1.0) * updates_per_epoch as f64;
        self.max_steps.unwrap_or_else(|| by_epochs().round() as usize)
    }

    /// Updates of warm-up in a run of `updates` updates; a ratio is rounded up, as transformers does.
    pub fn warmup_updates(&self, updates: usize) -> usize {
        match self.warmup_ratio {
            Some(ratio) => (ratio * updates as f64).ceil() as usize,
            None => self.warmup_steps.unwrap_or(0),
        }
    }

    /// Passages of a row: its positive and its hard negatives.
    pub fn passages_per_row(&self) -> usize {
        1 + self.hard_negatives
    }

    /// Tokens of a row at its longest: its query and its passages.
    pub fn row_tokens(&self) -> usize {
        self.query_max_length + self.passages_per_row() * self.passage_max_length
    }

    /// Checks that sequences are no longer than a model of this shape takes.
    ///
    /// # Errors
    /// A length beyond the model's positions.
    pub fn check_lengths(&self, shape: &ModelConfig) -> Result<(), ConfigError> {
        let positions = shape.architecture().longest;
        let lengths =
            [("query_max_length", self.query_max_length), ("passage_max_length", self.passage_max_length)];
        for (key, length) in lengths {
            if length > positions {
                return setting(
                    key,
                    format!("{length}, but the model has {positions} positions (give at most that)"),
                );
            }
        }
        Ok(())
    }

    /// The point of the space of methods that `method` and its overrides name.
    ///
    /// # Errors
    /// Overrides that contradict the method or one another.
    pub fn resolve(&self) -> Result<MethodPoint, ConfigError> {
        let method = self.method;
        let (micro_batch_size, micro_steps) = match method.negatives_are_local() {
            true => (self.local_batch_size, self.gradient_accumulation_steps),
            false => (self.total_batch_size(), 1),
        };
        let chunked = method.is_chunked();
        let without_banks = MethodPoint {
            chunked,
            micro_batch_size,
            micro_steps,
            chunk_size: if chunked { self.local_batch_size } else { micro_batch_size },
            bank_samples: 0,
            bank_queries: false,
            bank_passages: false,
            bank_hard_negatives: false,
            keep_past: false,
            rows: Rows::Current,
            bank_drift: BankDrift::None,
            row_scale: RowScale::All,
        };
        if !method.has_banks() {
            self.refuse_bank_overrides()?;
            return Ok(without_banks);
        }
        let bank_queries = self.bank_queries.unwrap_or(method != Method::PreBatch);
        let bank_passages = self.bank_passages.unwrap_or(true);
        let default_samples = DEFAULT_BANK_TOTAL_BATCHES * self.total_batch_size();
        let keep_past = self.keep_past.unwrap_or(true);
        let point = MethodPoint {
            bank_samples: self.memory_bank_size.unwrap_or(default_samples),
            bank_queries,
            bank_passages,
            bank_hard_negatives: self.bank_hard_negatives.unwrap_or(bank_passages && self.hard_negatives > 0),
            keep_past,
            bank_drift: if keep_past { self.bank_drift } else { BankDrift::None },
            row_scale: self.row_scale,
            rows: self.rows.unwrap_or(if bank_queries { Rows::All } else { Rows::Current }),
            ..without_banks
        };
        self.check_banks(&point)?;
        Ok(point)
    }

    /// Checks every value, alone and beside the others.
    ///
    /// # Errors
    /// The first setting that makes no sense, in one line with its remedy.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_for_dry_run()?;
        self.check_output_dir()
    }

    /// As [`Self::validate`], but the output folder need not be given.
    ///
    /// # Errors
    /// As [`Self::validate`].
    pub fn validate_for_dry_run(&self) -> Result<(), ConfigError> {
        self.check_model()?;
        check_path("train", &self.train)?;
        self.check_values()
    }

    pub(crate) fn check_output_dir(&self) -> Result<(), ConfigError> {
        check_path("output_dir", &self.output_dir)
    }

    fn check_values(&self) -> Result<(), ConfigError> {
        self.check_counts()?;
        self.check_numbers()?;
        self.check_alternatives()?;
        self.resolve().map(|_| ())
    }

    fn check_model(&self) -> Result<(), ConfigError> {
        if self.model.is_empty() {
            return setting("model", "missing (give a folder or a hub name with --model or in the recipe)");
        }
        Ok(())
    }

    fn check_counts(&self) -> Result<(), ConfigError> {
        let positive = [
            ("local_batch_size", self.local_batch_size),
            ("gradient_accumulation_steps", self.gradient_accumulation_steps),
            ("logging_steps", self.logging_steps),
        ];
        for (key, value) in positive {
            if value == 0 {
                return setting(key, "0 (give at least 1)");
            }
        }
        if self.max_eval_queries == Some(0) {
            return setting("max_eval_queries", "0 (give at least 1, or leave it out for all queries)");
        }
        self.check_bounds()?;
        for (key, value) in
            [("query_max_length", self.query_max_length), ("passage_max_length", self.passage_max_length)]
        {
            if value < 3 {
                return setting(
                    key,
                    format!("{value} leaves no room beside the special tokens (give 3 or more)"),
                );
            }
        }
        if let Some(most) = self.max_tokens
            && most < self.row_tokens()
        {
            let (row, passages) = (self.row_tokens(), self.passages_per_row());
            let (query, passage) = (self.query_max_length, self.passage_max_length);
            return setting(
                "max_tokens",
                format!(
                    "{most}, but one row may have {query} + {passages} x {passage} = {row} (give at least that)"
                ),
            );
        }
        self.check_negatives(self.hard_negatives as f64)?;
        if i64::try_from(self.seed).is_err() {
            return setting("seed", format!("{} is above {} (give a smaller one)", self.seed, i64::MAX));
        }
        if self.eval_data.is_none() && (self.eval_steps > 0 || self.max_eval_queries.is_some()) {
            return setting("eval_data", "missing although evaluation is asked for (give a BEIR folder)");
        }
        Ok(())
    }

    /// Refuses settings under which no row has a negative, if rows bring `hard_per_row` hard negatives on average.
    pub(crate) fn check_negatives(&self, hard_per_row: f64) -> Result<(), ConfigError> {
        let point = self.resolve()?;
        let teaches =
            point.rows == Rows::All || self.negatives_after(usize::MAX, hard_per_row)?.per_query > 0;
        if teaches {
            return Ok(());
        }
        let accumulation = match point.micro_steps {
            1 => "",
            _ => " (accumulation adds none)",
        };
        setting(
            "local_batch_size",
            format!(
                "1, so a query of {} has no negative{accumulation}: its loss is 0 and teaches nothing (raise it, or \
                 use hard negatives, method = \"grad-cache\" or method = \"contaccum\")",
                self.method.name()
            ),
        )
    }

    fn check_numbers(&self) -> Result<(), ConfigError> {
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            return setting("temperature", format!("{} (give a number above 0)", self.temperature));
        }
        // Computed with in f32: what is infinite there is no number here.
        let is_number = |value: f64| (value as f32).is_finite();
        let at_least_zero = [
            ("learning_rate", self.learning_rate),
            ("weight_decay", self.weight_decay),
            ("max_grad_norm", self.max_grad_norm),
            ("save_minutes", self.save_minutes),
        ];
        for (key, value) in at_least_zero {
            if !(value >= 0.0 && is_number(value)) {
                return setting(key, format!("{value:?} (give 0 or a number above, at most 3e38)"));
            }
        }
        if let Some(epochs) = self.epochs
            && !(epochs >= 0.0 && epochs.is_finite())
        {
            return setting("epochs", format!("{epochs} (give 0 or a number above)"));
        }
        if !(self.adam_epsilon > 0.0 && is_number(self.adam_epsilon)) {
            return setting(
                "adam_epsilon",
                format!("{:?} (give a number above 0, at most 3e38)", self.adam_epsilon),
            );
        }
        let shares = [
            ("adam_beta1", self.adam_beta1),
            ("adam_beta2", self.adam_beta2),
            ("dropout", self.dropout.unwrap_or(0.0)),
        ];
        for (key, value) in shares {
            if !(0.0..1.0).contains(&value) {
                return setting(key, format!("{value} (give 0 or more and less than 1)"));
            }
        }
        if let Some(ratio) = self.warmup_ratio
            && !(0.0..=1.0).contains(&ratio)
        {
            return setting("warmup_ratio", format!("{ratio} (give a share from 0 to 1)"));
        }
        Ok(())
    }

    fn check_alternatives(&self) -> Result<(), ConfigError> {
        if self.warmup_steps.is_some() && self.warmup_ratio.is_some() {
            return setting("warmup_steps", "given together with warmup_ratio (keep one)");
        }
        if self.epochs.is_some() && self.max_steps.is_some() {
            return setting("epochs", "given together with max_steps (keep one)");
        }
        if self.no_duplicates && !self.drop_last {
            return setting(
                "drop_last",
                "false with no_duplicates, which leaves out rows that would be duplicates (keep one)",
            );
        }
        if self.similarity == Similarity::Cosine && self.normalize == Some(false) {
            return setting(
                "normalize",
                "false with cosine similarity (drop it, or use similarity = \"dot\")",
            );
        }
        Ok(())
    }

    fn refuse_bank_overrides(&self) -> Result<(), ConfigError> {
        let given = [
            ("memory_bank_size", self.memory_bank_size.is_some_and(|samples| samples > 0)),
            ("memory_bank_dtype", self.memory_bank_dtype == BankDtype::Bf16),
            ("memory_bank_warmup", self.memory_bank_warmup != BankWarmup::Auto),
            ("memory_bank_enqueue", self.memory_bank_enqueue == Enqueue::Update),
            ("bank_drift", self.bank_drift == BankDrift::None),
            ("row_scale", self.row_scale == RowScale::All),
            ("bank_queries", self.bank_queries == Some(true)),
            ("bank_passages", self.bank_passages == Some(true)),
            ("bank_hard_negatives", self.bank_hard_negatives == Some(true)),
            ("keep_past", self.keep_past == Some(true)),
            ("rows", self.rows == Some(Rows::All)),
        ];
        for (key, given) in given {
            if given {
                let method = self.method.name();
                return setting(
                    key,
                    format!("{method} keeps no bank (drop it, or use method = \"contaccum\")"),
                );
            }
        }
        Ok(())
    }

    fn check_banks(&self, point: &MethodPoint) -> Result<(), ConfigError> {
        if point.bank_samples == 0 {
            let plain = if point.chunked { "grad-cache" } else { "grad-accum" };
            return setting("memory_bank_size", format!("0 (without a bank, use method = \"{plain}\")"));
        }
        if !point.bank_queries && !point.bank_passages && !point.bank_hard_negatives {
            return setting(
                "bank_passages",
                "no bank is left on (switch one on, or use method = \"grad-accum\")",
            );
        }
        if point.rows == Rows::All && !point.bank_queries {
            return setting(
                "rows",
                "\"all\", but queries are not banked (use \"current\", or bank_queries = true)",
            );
        }
        if point.rows == Rows::Current && !point.bank_passages && !point.bank_hard_negatives {
            return setting(
                "rows",
                "\"current\", but only queries are banked, and they are no rows (use \"all\", or bank_passages = true)",
            );
        }
        if point.bank_hard_negatives && self.hard_negatives == 0 {
            return setting("bank_hard_negatives", "true, but hard_negatives is 0 (give at least 1)");
        }
        if !point.keep_past && point.micro_steps == 1 {
            return setting(
                "keep_past",
                "false with one micro-step per update: the banks would always be empty",
            );
        }
        if !point.keep_past && self.memory_bank_enqueue == Enqueue::Update {
            return setting(
                "keep_past",
                "false with memory_bank_enqueue = \"update\": the banks would always be empty (use \"micro-batch\")",
            );
        }
        Ok(())
    }
}

/// A TOML error as one line with its place; `text` is what was parsed, to find the line in.
fn toml_error(text: &str, place: &str, error: &toml::de::Error) -> ConfigError {
    let place = match error.span() {
        Some(span) => {
            let line = 1 + text.as_bytes().iter().take(span.start).filter(|&&byte| byte == b'\n').count();
            format!("{place}: line {line}")
        }
        None => place.to_owned(),
    };
    let message = with_nearest(error.message());
    ConfigError::Toml { place, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(recipe: &str) -> TrainConfig {
        let required = "model = \"m\"\ntrain = \"t\"\noutput_dir = \"o\"\n";
        TrainConfig::from_toml(&format!("{required}{recipe}"), "recipe.toml").unwrap()
    }

    fn refusal(recipe: &str) -> String {
        config(recipe).validate().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_valid_once_the_required_keys_are_given() {
        config("").validate().unwrap();
        assert!(TrainConfig::default().validate().unwrap_err().to_string().contains("--model"));
    }

    #[test]
    fn a_stored_configuration_is_read_back_as_it_was() {
        let config = config(
            "temperature = 0.05\nlearning_rate = 1e-4\nwarmup_ratio = 0.1\npooling = \"cls\"\nkeep_past = false",
        );
        assert_eq!(TrainConfig::from_toml(&config.to_toml(), "config.toml").unwrap(), config);
        assert!(config.to_toml().contains("temperature = 0.05\n"), "{}", config.to_toml());
    }

    #[test]
    fn an_unknown_key_names_its_line() {
        let message = TrainConfig::from_toml("seed = 1\nsead = 2\n", "recipe.toml").unwrap_err().to_string();
        assert!(message.contains("recipe.toml: line 2") && message.contains("sead"), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }

    #[test]
    fn a_warm_up_of_the_banks_is_auto_or_a_number() {
        assert_eq!(config("").memory_bank_warmup, BankWarmup::Auto);
        let given = config("memory_bank_warmup = 3");
        assert_eq!(given.memory_bank_warmup, BankWarmup::Updates(3));
        assert_eq!(TrainConfig::from_toml(&given.to_toml(), "config.toml").unwrap(), given);
        for wrong in ["\"soon\"", "-1", "0.5"] {
            let recipe = format!("memory_bank_warmup = {wrong}");
            let message = TrainConfig::from_toml(&recipe, "r.toml").unwrap_err().to_string();
            assert!(message.contains("line 1") && message.contains("\"auto\" or a number"), "{message}");
        }
    }

    #[test]
    fn a_value_of_the_wrong_kind_names_its_line() {
        let message = TrainConfig::from_toml("\nmethod = \"dpr\"\n", "r.toml").unwrap_err().to_string();
        assert!(message.contains("r.toml: line 2") && message.contains("contaccum-grad-cache"), "{message}");
    }

    #[test]
    fn flags_win_over_the_recipe() {
        let folder = tempfile::tempdir().unwrap();
        let recipe = folder.path().join("recipe.toml");
        std::fs::write(&recipe, "model = \"m\"\ntrain = \"t\"\nseed = 1\nwarmup_steps = 5\n").unwrap();
        let flags = "output_dir = \"o\"\nseed = 2\nwarmup_ratio = 0.5".parse().unwrap();
        let config = TrainConfig::load(Some(&recipe), flags).unwrap();
        assert_eq!((config.model.as_str(), config.seed), ("m", 2));
        assert_eq!((config.warmup_steps, config.warmup_ratio), (None, Some(0.5)));
    }

    #[test]
    fn a_missing_recipe_is_named() {
        let message = TrainConfig::load(Some(Path::new("no/such.toml")), toml::Table::new()).unwrap_err();
        assert!(message.to_string().contains("no/such.toml"), "{message}");
    }

    #[test]
    fn impossible_values_are_refused_in_one_line_naming_the_key() {
        let cases = [
            ("local_batch_size = 0", "local_batch_size"),
            ("gradient_accumulation_steps = 0", "gradient_accumulation_steps"),
            ("temperature = 0.0", "temperature"),
            ("temperature = nan", "temperature"),
            ("learning_rate = -1.0", "learning_rate"),
            ("dropout = 1.0", "dropout"),
            ("adam_beta2 = 1.0", "adam_beta2"),
            ("adam_epsilon = 0.0", "adam_epsilon"),
            ("warmup_ratio = 1.5", "warmup_ratio"),
            ("warmup_ratio = 0.1\nwarmup_steps = 3", "warmup_steps"),
            ("epochs = 1.0\nmax_steps = 3", "epochs"),
            ("epochs = -1.0", "epochs"),
            ("query_max_length = 2", "query_max_length"),
            ("logging_steps = 0", "logging_steps"),
            ("normalize = false", "normalize"),
            ("no_duplicates = true\ndrop_last = false", "drop_last"),
            ("eval_steps = 3", "eval_data"),
            (
                "method = \"grad-accum\"\nlocal_batch_size = 1\ngradient_accumulation_steps = 1",
                "local_batch_size",
            ),
            ("method = \"grad-accum\"\nlocal_batch_size = 1", "local_batch_size"),
        ];
        for (recipe, key) in cases {
            let message = refusal(recipe);
            assert!(message.starts_with(&format!("bad setting: {key}: ")), "{recipe}: {message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn overrides_that_contradict_the_method_are_refused() {
        let cases = [
            ("method = \"grad-accum\"\nmemory_bank_size = 8", "memory_bank_size"),
            ("method = \"grad-cache\"\nbank_queries = true", "bank_queries"),
            ("method = \"full-batch\"\nrows = \"all\"", "rows"),
            ("memory_bank_size = 0", "memory_bank_size"),
            ("method = \"grad-accum\"\nmemory_bank_dtype = \"bf16\"", "memory_bank_dtype"),
            ("method = \"grad-accum\"\nmemory_bank_warmup = 3", "memory_bank_warmup"),
            ("method = \"grad-accum\"\nmemory_bank_enqueue = \"update\"", "memory_bank_enqueue"),
            ("method = \"grad-accum\"\nbank_drift = \"none\"", "bank_drift"),
            ("method = \"grad-cache\"\nrow_scale = \"all\"", "row_scale"),
            ("memory_bank_enqueue = \"update\"\nkeep_past = false", "keep_past"),
            ("bank_passages = false\nrows = \"current\"", "rows"),
            ("bank_queries = false\nrows = \"all\"", "rows"),
            ("bank_hard_negatives = true", "bank_hard_negatives"),
            ("method = \"contaccum-grad-cache\"\nkeep_past = false", "keep_past"),
            ("method = \"pre-batch\"\nbank_passages = false", "bank_passages"),
        ];
        for (recipe, key) in cases {
            let message = refusal(recipe);
            assert!(message.starts_with(&format!("bad setting: {key}: ")), "{recipe}: {message}");
        }
    }

    /// The table of the design, at local batch 8, total 32, bank 100; then with 2 hard negatives a query.
    #[test]
    fn negatives_per_query_follow_the_method() {
        let cases = [
            ("full-batch", "", 31, 31 + 64),
            ("grad-accum", "", 7, 7 + 16),
            ("grad-cache", "", 31, 31 + 64),
            ("pre-batch", "memory_bank_size = 100", 107, 107 + 216),
            ("contaccum", "memory_bank_size = 100", 107, 107 + 216),
            ("contaccum-grad-cache", "memory_bank_size = 100", 131, 131 + 264),
            ("contaccum", "memory_bank_size = 100\nkeep_past = false", 31, 31 + 64),
            ("contaccum", "memory_bank_size = 100\nbank_hard_negatives = false", 107, 107 + 16),
            ("contaccum", "memory_bank_size = 100\nbank_passages = false", 7, 7 + 16),
            ("contaccum", "memory_bank_size = 100\nmemory_bank_enqueue = \"update\"", 107, 107 + 216),
        ];
        for (method, overrides, plain, hard) in cases {
            let recipe = format!("method = \"{method}\"\ngradient_accumulation_steps = 4\n{overrides}");
            assert_eq!(config(&recipe).negatives_per_query().unwrap(), plain, "{recipe}");
            let recipe = format!("{recipe}\nhard_negatives = 2");
            assert_eq!(config(&recipe).negatives_per_query().unwrap(), hard, "{recipe}");
        }
    }

    #[test]
    fn a_bank_holds_four_total_batches_unless_told_otherwise() {
        let samples = |recipe: &str| config(recipe).resolve().unwrap().bank_samples;
        assert_eq!(samples(""), 4 * 8 * 16);
        assert_eq!(samples("local_batch_size = 4\ngradient_accumulation_steps = 2"), 32);
        assert_eq!(samples("memory_bank_size = 7"), 7);
    }

    #[test]
    fn banks_that_no_update_outlives_are_not_moved() {
        let drift = |recipe: &str| config(recipe).resolve().unwrap().bank_drift;
        assert_eq!(drift(""), BankDrift::Compensate);
        assert_eq!(drift("keep_past = false"), BankDrift::None);
        assert_eq!(drift("bank_drift = \"none\""), BankDrift::None);
    }

    #[test]
    fn a_micro_step_is_what_the_method_sees_at_once() {
        let shape = |method: Method| {
            let point =
                TrainConfig { method, ..config("gradient_accumulation_steps = 4") }.resolve().unwrap();
            (point.micro_batch_size, point.micro_steps, point.chunk_size)
        };
        assert_eq!(
            Method::ALL.map(shape),
            [(32, 1, 32), (8, 4, 8), (32, 1, 8), (8, 4, 8), (8, 4, 8), (32, 1, 8)]
        );
    }

    #[test]
    fn without_a_query_bank_the_rows_are_current() {
        let point = config("bank_queries = false").resolve().unwrap();
        assert_eq!((point.rows, point.bank_passages), (Rows::Current, true));
    }

    #[test]
    fn without_a_passage_bank_banked_queries_stay_rows_and_no_banked_passage_is_a_column() {
        let point = config("bank_passages = false\nhard_negatives = 1").resolve().unwrap();
        assert_eq!((point.rows, point.bank_queries), (Rows::All, true));
        assert_eq!((point.bank_passages, point.bank_hard_negatives), (false, false));
    }

    #[test]
    fn updates_come_from_epochs_or_from_steps() {
        let steps = |recipe: &str| config(recipe).updates(7);
        assert_eq!(steps(""), 7);
        assert_eq!(steps("epochs = 2.5"), 18);
        assert_eq!(steps("max_steps = 300"), 300);
        assert_eq!(config("warmup_ratio = 0.1").warmup_updates(15), 2);
        assert_eq!(config("warmup_steps = 4").warmup_updates(15), 4);
    }

    #[test]
    fn a_folder_is_read_as_beir_and_a_file_by_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let beir = TrainConfig { train: folder.path().into(), ..config("") };
        assert!(matches!(beir.source().unwrap(), TrainingSource::Beir { .. }));
        assert!(matches!(config("").source().unwrap(), TrainingSource::File { .. }));
        let misplaced = TrainConfig { corpus: Some("c".into()), ..beir };
        assert!(misplaced.source().unwrap_err().to_string().contains("corpus"));
        let misplaced = config("hard_negatives_file = \"n.tsv\"").source().unwrap_err().to_string();
        assert!(misplaced.contains("hard_negatives_file"), "{misplaced}");
    }

    #[test]
    fn every_method_is_read_by_its_name() {
        for method in Method::ALL {
            assert_eq!(config(&format!("method = \"{}\"", method.name())).method, method);
        }
    }
}
