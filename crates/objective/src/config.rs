//! The space of objectives.

use crate::state::ObjectiveError;

/// The passage id that no passage may have: it marks empty places in the bank.
pub const NO_PASSAGE: u32 = u32::MAX;

/// Which rows of the similarity matrix the loss is the mean of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum Rows {
    /// Current queries and, where queries are banked, banked queries (ContAccum).
    All,
    /// Current queries alone (pre-batch negatives).
    Current,
}

/// How banked representations are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum BankDtype {
    /// Four bytes a value, exact.
    F32,
    /// Two bytes a value, rounded to 8 significant bits when a sample enters.
    Bf16,
}

/// What the summed loss of the rows is divided by for the gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum RowScale {
    /// The current rows: a row counts the same however full the banks are.
    Current,
    /// All rows, as the paper does: the gradient is that of the mean, and shrinks while the banks fill.
    All,
}

/// What becomes of banked representations when the encoder changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BankDrift {
    /// They stay as they entered, as in the paper.
    None,
    /// [`crate::Objective::move_banks`] takes them along.
    Compensate(Compensation),
}

/// How banked representations are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compensation {
    /// Samples that are encoded again after an update, at most.
    pub probe_samples: usize,
    /// Queries and passages are of one encoder: their displacements are pooled, and what banked rows say of banked
    /// columns stays. With two encoders, whose vectors drift apart, it is made again.
    pub one_encoder: bool,
    /// Representations have length one, and keep it.
    pub unit_length: bool,
}

/// A point in the space of objectives, and the sizes its buffers are made for.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectiveConfig {
    /// Values of a representation.
    pub dim: usize,
    /// τ in `logits = Q Pᵀ / τ`.
    pub temperature: f32,
    /// Which rows count.
    pub rows: Rows,
    /// Leaves out of a row every column that holds the passage of the row's positive or another one known to be
    /// relevant to its query ([`crate::KnownPositives`]), but the positive itself.
    pub mask_false_negatives: bool,
    /// Capacity of the banks in samples, first in first out; 0 for no bank.
    pub bank_samples: usize,
    /// Banked queries are rows of the loss (with [`Rows::All`]; else they are not stored).
    pub bank_queries: bool,
    /// Banked positives are columns of every row. Without it, a banked query keeps its own positive's score.
    pub bank_passages: bool,
    /// Banked hard negatives are columns of every row.
    pub bank_hard_negatives: bool,
    /// How the banks are stored.
    pub bank_dtype: BankDtype,
    /// What the banks do when the encoder changes.
    pub bank_drift: BankDrift,
    /// What the gradient is scaled by.
    pub row_scale: RowScale,
    /// Samples of the largest batch.
    pub max_batch_samples: usize,
    /// Most hard negatives that one sample brings.
    pub max_hard_negatives_per_sample: usize,
    /// Most logits a thread holds at a time; [`ObjectiveConfig::TILE_LOGITS`] suits every size.
    pub tile_logits: usize,
}

impl ObjectiveConfig {
    /// A tile of 256 KiB, a part of a core's second-level cache.
    pub const TILE_LOGITS: usize = 1 << 16;

    /// Most values of representations that a tile covers per thread: 256 KiB.
    pub(crate) const TILE_VALUES: usize = 1 << 16;

    /// Plain in-batch InfoNCE over `max_batch_samples` samples: no bank, all rows, no mask.
    pub fn in_batch(
        dim: usize,
        temperature: f32,
        max_batch_samples: usize,
        max_hard_negatives_per_sample: usize,
    ) -> Self {
        Self {
            dim,
            temperature,
            rows: Rows::All,
            mask_false_negatives: false,
            bank_samples: 0,
            bank_queries: false,
            bank_passages: false,
            bank_hard_negatives: false,
            bank_dtype: BankDtype::F32,
            bank_drift: BankDrift::None,
            row_scale: RowScale::All,
            max_batch_samples,
            max_hard_negatives_per_sample,
            tile_logits: Self::TILE_LOGITS,
        }
    }

    /// Checks what the type system cannot.
    ///
    /// # Errors
    /// [`ObjectiveError::Config`] names the field and the remedy.
    pub fn validate(&self) -> Result<(), ObjectiveError> {
        let refuse = |message: String| Err(ObjectiveError::Config(message));
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return refuse(format!("temperature is {}: it must be above 0", self.temperature));
        }
        for (name, value) in [
            ("dim", self.dim),
            ("max_batch_samples", self.max_batch_samples),
            ("tile_logits", self.tile_logits),
        ] {
            if value == 0 {
                return refuse(format!("{name} is 0: it must be at least 1"));
            }
        }
        if self.bank_drift != BankDrift::None && self.probe_vectors() == 0 {
            return refuse("probe_samples is 0: it must be at least 1".into());
        }
        if self.bank_samples > 0 && !self.banks_rows() && self.bank_columns() == 0 {
            return refuse(format!(
                "a bank of {} samples would hold nothing: bank queries (with all rows), passages or hard \
                 negatives, or set bank_samples to 0",
                self.bank_samples
            ));
        }
        Ok(())
    }

    /// Whether banked queries are rows of the loss.
    pub fn banks_rows(&self) -> bool {
        self.bank_samples > 0 && self.bank_queries && self.rows == Rows::All
    }

    /// Columns that a banked sample holds places for.
    pub(crate) fn bank_columns(&self) -> usize {
        if self.bank_samples == 0 {
            return 0;
        }
        let hard_negatives = if self.bank_hard_negatives { self.max_hard_negatives_per_sample } else { 0 };
        usize::from(self.bank_passages) + hard_negatives
    }

    /// Whether [`crate::Objective::step_and_enqueue`] keeps the logits between a batch and the banks: they are then
    /// those of the stored representations, all columns enter, and they take no more room than the banks.
    pub(crate) fn keeps_logits(&self) -> bool {
        self.banks_rows()
            && self.bank_passages
            && (self.bank_hard_negatives || self.max_hard_negatives_per_sample == 0)
            && self.bank_dtype == BankDtype::F32
            && self.max_batch_samples <= self.dim
    }

    /// How banked representations are moved; `None` where they stay or there are none.
    pub(crate) fn compensation(&self) -> Option<Compensation> {
        match self.bank_drift {
            BankDrift::Compensate(compensation) if self.bank_samples > 0 => Some(compensation),
            BankDrift::Compensate(_) | BankDrift::None => None,
        }
    }

    /// Representations that a bank is moved by, at most: the query and the positive of every sample probed.
    pub(crate) fn probe_vectors(&self) -> usize {
        match self.bank_drift {
            BankDrift::Compensate(compensation) => 2 * compensation.probe_samples,
            BankDrift::None => 0,
        }
    }

    /// Lines of a tile of that many values each: as many as stay in a cache, at least one.
    pub(crate) fn lines_in_cache(&self, values: usize) -> usize {
        (Self::TILE_VALUES / values).max(1)
    }

    /// Rows or columns of a square tile.
    pub(crate) fn tile_side(&self) -> usize {
        self.tile_logits.isqrt().max(1)
    }

    /// Rows or columns whose weighted sums a thread holds at most.
    pub(crate) fn tile_lines(&self) -> usize {
        self.tile_side().min(self.max_batch_samples * (1 + self.max_hard_negatives_per_sample))
    }

    /// Logits a thread's tile has room for: at least one sample's columns for a tile's rows, and one banked
    /// representation's weights on those probed.
    pub(crate) fn tile_room(&self) -> usize {
        self.tile_logits.max(self.tile_side() * self.bank_columns()).max(self.probe_vectors())
    }

    /// Values of bank representations that a thread holds widened to `f32`.
    pub(crate) fn widened_room(&self) -> usize {
        match self.bank_dtype {
            BankDtype::F32 => 0,
            BankDtype::Bf16 => Self::TILE_VALUES.max(self.dim * self.bank_columns().max(1)),
        }
    }
}
