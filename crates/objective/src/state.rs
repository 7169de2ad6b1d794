//! What an objective carries from step to step, as plain values, and what can be wrong with it.

/// The banks and the sums over them. A restored objective goes on with the same bits.
///
/// Rows are by ring position, live positions only.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObjectiveState {
    /// The settings that the values depend on: a state fits only an objective with the same.
    pub settings: Vec<u64>,
    /// Samples that have entered since the bank was last cleared.
    pub entered: u64,
    /// Banked queries, `len × dim`.
    pub queries: Vec<f32>,
    /// Banked positives and hard negatives, `len × places × dim`.
    pub columns: Vec<f32>,
    /// Passage ids of `columns`; [`crate::NO_PASSAGE`] where a place is empty.
    pub column_ids: Vec<u32>,
    /// Passage ids of the banked samples' positives.
    pub row_ids: Vec<u32>,
    /// Ids of the banked samples' queries.
    pub query_ids: Vec<u32>,
    /// Logits of the banked samples' own positives.
    pub own_scores: Vec<f64>,
    /// How far each banked sample has been moved; empty where none is.
    pub paths: Vec<f64>,
    /// The sample at the ring's first position, and the first that was never moved.
    pub marks: Vec<u64>,
    /// Log-sum-exps of banked rows over pieces of the bank.
    pub block_sums: Vec<f32>,
    /// The same over the columns behind the last suffix.
    pub newer_sums: Vec<f64>,
    /// The same over the block that is being filled.
    pub open_sums: Vec<f64>,
    /// The same over all banked columns.
    pub total_sums: Vec<f64>,
    /// Where the pieces end: the suffixes, the split block, the split entry.
    pub cuts: Vec<u64>,
}

impl ObjectiveState {
    /// The state with its samples `times` over, to measure full banks without filling them: as long and as costly as
    /// that of a bank that holds so many samples, though sums are those of this one.
    pub fn repeated(&self, times: usize) -> Self {
        Self {
            settings: self.settings.clone(),
            entered: self.entered * times as u64,
            queries: self.queries.repeat(times),
            columns: self.columns.repeat(times),
            column_ids: self.column_ids.repeat(times),
            row_ids: self.row_ids.repeat(times),
            query_ids: self.query_ids.repeat(times),
            own_scores: self.own_scores.repeat(times),
            paths: self.paths.repeat(times),
            marks: self.marks.clone(),
            block_sums: self.block_sums.repeat(times),
            newer_sums: self.newer_sums.repeat(times),
            open_sums: self.open_sums.repeat(times),
            total_sums: self.total_sums.repeat(times),
            cuts: self.cuts.clone(),
        }
    }
}

/// Why an objective cannot be made or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectiveError {
    /// A setting has an impossible value.
    #[error("objective: {0}")]
    Config(String),
    /// A state was saved under other settings.
    #[error(
        "saved banks were made with other settings (dimension, temperature, mask, bank size, contents or \
         drift, batch size or hard negatives per sample): resume with the settings of the checkpoint, or start with empty banks"
    )]
    OtherSettings,
    /// A part of a state has a wrong length.
    #[error(
        "saved banks are damaged: {name} has {found} values where {expected} belong; use another checkpoint"
    )]
    Damaged {
        /// The field of [`ObjectiveState`].
        name: &'static str,
        /// Its length.
        found: usize,
        /// The length it should have.
        expected: usize,
    },
}

pub(crate) fn expect_values(name: &'static str, found: usize, expected: usize) -> Result<(), ObjectiveError> {
    if found == expected { Ok(()) } else { Err(ObjectiveError::Damaged { name, found, expected }) }
}
