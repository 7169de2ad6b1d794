//! Methods as points of one space.

use serde::{Deserialize, Serialize};

use contaccum_objective::{RowScale, Rows};

use crate::recipe::setting;
use crate::{ConfigError, SETTINGS, TrainConfig, words};

/// Bank capacity, in total batches, of a method with banks when `memory_bank_size` is not given.
const DEFAULT_BANK_TOTAL_BATCHES: usize = 4;

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
        words::<Self>()[self as usize]
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

/// What becomes of banked vectors when the encoder changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BankDrift {
    /// A few rows are encoded again after each update, and banked vectors take the displacement of those most like them.
    Compensate,
    /// They stay as they were encoded (the paper's banks).
    None,
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

impl TrainConfig {
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

    fn refuse_bank_overrides(&self) -> Result<(), ConfigError> {
        let defaults = Self::default();
        match SETTINGS.iter().find(|one| one.asks_for_banks(self, &defaults)) {
            None => Ok(()),
            Some(asking) => {
                let method = self.method.name();
                setting(
                    asking.key,
                    format!("{method} keeps no bank (drop it, or use method = \"contaccum\")"),
                )
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::testing::{config, refusal};

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
    fn every_method_is_read_by_its_name() {
        for method in Method::ALL {
            assert_eq!(config(&format!("method = \"{}\"", method.name())).method, method);
        }
    }
}
