//! The banks: a ring of samples, each a query row and a fixed number of places for columns.
//!
//! A sample has an index, counted from 0 since the bank was last cleared, and lives at the ring position
//! `index % capacity`. A bank that is not full has never evicted, so the live positions are always `0..len`.

use std::ops::Range;

use half::bf16;
use half::slice::HalfFloatSliceExt;

use crate::batch::Current;
use crate::config::{BankDtype, NO_PASSAGE, ObjectiveConfig};
use crate::known_positives::{KnownPositives, Relevant};
use crate::softmax::exclude;
use crate::state::{ObjectiveError, ObjectiveState, expect_values};

/// The age classes that similarity mass on the bank is reported by.
pub(crate) const AGES: usize = 8;

/// Representations of one width, in the precision of the bank.
enum Store {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

impl Store {
    fn new(dtype: BankDtype, values: usize) -> Self {
        match dtype {
            BankDtype::F32 => Self::F32(contaccum_kernels::resident_zeros(values)),
            BankDtype::Bf16 => Self::Bf16(vec![bf16::ZERO; values]),
        }
    }

    fn bytes(dtype: BankDtype, values: usize) -> usize {
        match dtype {
            BankDtype::F32 => values * size_of::<f32>(),
            BankDtype::Bf16 => values * size_of::<bf16>(),
        }
    }

    /// The values as `f32`, widened into `room` where they are stored otherwise.
    fn read<'a>(&'a self, range: Range<usize>, room: &'a mut [f32]) -> &'a [f32] {
        match self {
            Self::F32(values) => &values[range],
            Self::Bf16(values) => {
                let room = &mut room[..range.len()];
                values[range].convert_to_f32_slice(room);
                room
            }
        }
    }

    fn write(&mut self, start: usize, source: &[f32]) {
        match self {
            Self::F32(values) => values[start..start + source.len()].copy_from_slice(source),
            Self::Bf16(values) => values[start..start + source.len()].convert_from_f32_slice(source),
        }
    }

    fn zero(&mut self, range: Range<usize>) {
        match self {
            Self::F32(values) => values[range].fill(0.0),
            Self::Bf16(values) => values[range].fill(bf16::ZERO),
        }
    }

    fn to_f32(&self, values: usize) -> Vec<f32> {
        match self {
            Self::F32(stored) => stored[..values].to_vec(),
            Self::Bf16(stored) => stored[..values].to_f32_vec(),
        }
    }
}

pub(crate) struct Bank {
    dtype: BankDtype,
    capacity: usize,
    dim: usize,
    /// Values of a banked query: `dim`, or 0 where queries are not banked.
    query_values: usize,
    holds_positives: bool,
    /// Columns a sample has places for: its positive, then its hard negatives.
    columns_per_sample: usize,
    mask: bool,
    temperature: f64,
    queries: Store,
    columns: Store,
    column_ids: Vec<u32>,
    row_ids: Vec<u32>,
    query_ids: Vec<u32>,
    known_positives: KnownPositives,
    own_scores: Vec<f64>,
    entered: usize,
    empty_places: usize,
}

impl Bank {
    pub(crate) fn new(config: &ObjectiveConfig) -> Self {
        let (capacity, columns_per_sample) = (config.bank_samples, config.bank_columns());
        let query_values = if config.banks_rows() { config.dim } else { 0 };
        Self {
            dtype: config.bank_dtype,
            capacity,
            dim: config.dim,
            query_values,
            holds_positives: columns_per_sample > 0 && config.bank_passages,
            columns_per_sample,
            mask: config.mask_false_negatives,
            temperature: f64::from(config.temperature),
            queries: Store::new(config.bank_dtype, capacity * query_values),
            columns: Store::new(config.bank_dtype, capacity * columns_per_sample * config.dim),
            column_ids: vec![NO_PASSAGE; capacity * columns_per_sample],
            row_ids: vec![NO_PASSAGE; capacity],
            query_ids: vec![0; capacity],
            known_positives: KnownPositives::default(),
            own_scores: vec![0.0; capacity],
            entered: 0,
            empty_places: 0,
        }
    }

    /// Bytes that [`Bank::new`] allocates.
    pub(crate) fn bytes(config: &ObjectiveConfig) -> usize {
        let (capacity, columns) = (config.bank_samples, config.bank_samples * config.bank_columns());
        let query_values = if config.banks_rows() { config.dim } else { 0 };
        Store::bytes(config.bank_dtype, capacity * query_values)
            + Store::bytes(config.bank_dtype, columns * config.dim)
            + columns * size_of::<u32>()
            + capacity * (2 * size_of::<u32>() + size_of::<f64>())
    }

    pub(crate) fn len(&self) -> usize {
        self.entered.min(self.capacity)
    }

    /// Indices of the samples in the bank, oldest first.
    pub(crate) fn live(&self) -> Range<usize> {
        self.entered - self.len()..self.entered
    }

    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    pub(crate) fn columns_per_sample(&self) -> usize {
        self.columns_per_sample
    }

    /// Columns that hold a passage.
    pub(crate) fn live_columns(&self) -> usize {
        self.len() * self.columns_per_sample - self.empty_places
    }

    /// The longest start of `samples` that lies in one piece: its ring positions.
    pub(crate) fn first_piece(&self, samples: Range<usize>) -> Range<usize> {
        let start = samples.start % self.capacity;
        start..(start + samples.len()).min(self.capacity)
    }

    /// The longest end of `samples` that lies in one piece: its ring positions.
    pub(crate) fn last_piece(&self, samples: Range<usize>) -> Range<usize> {
        let end = (samples.end - 1) % self.capacity + 1;
        end.saturating_sub(samples.len())..end
    }

    /// The age class of the sample at `position` (0 oldest, by eighths of the capacity), and how many positions
    /// from there on share it.
    pub(crate) fn age_class(&self, position: usize) -> (usize, usize) {
        let newest = (self.entered - 1) % self.capacity;
        let age = (newest + self.capacity - position) % self.capacity;
        let class = age * AGES / self.capacity;
        let youngest = (class * self.capacity).div_ceil(AGES);
        (AGES - 1 - class, age - youngest + 1)
    }

    pub(crate) fn queries<'a>(&'a self, positions: Range<usize>, room: &'a mut [f32]) -> &'a [f32] {
        self.queries.read(positions.start * self.dim..positions.end * self.dim, room)
    }

    pub(crate) fn columns<'a>(&'a self, positions: Range<usize>, room: &'a mut [f32]) -> &'a [f32] {
        let values = self.columns_per_sample * self.dim;
        self.columns.read(positions.start * values..positions.end * values, room)
    }

    pub(crate) fn know_positives(&mut self, known_positives: KnownPositives) {
        self.known_positives = known_positives;
    }

    /// What the banked row at `position` does not count as negatives.
    pub(crate) fn relevant_to(&self, position: usize) -> Relevant<'_> {
        let known = self.known_positives.of(self.query_ids[position]);
        Relevant { positive: self.row_ids[position], known }
    }

    pub(crate) fn own_scores(&self, positions: Range<usize>) -> &[f64] {
        &self.own_scores[positions]
    }

    /// Leaves out of a row over the columns at `positions` what its query does not count: empty places and, with
    /// the mask, what is `relevant`. Returns how many passages were left out.
    pub(crate) fn exclude(&self, row: &mut [f32], positions: Range<usize>, relevant: Relevant) -> u32 {
        let ids = &self.column_ids
            [positions.start * self.columns_per_sample..positions.end * self.columns_per_sample];
        if self.empty_places > 0 {
            exclude(row, ids, NO_PASSAGE);
        }
        if self.mask { relevant.exclude(row, ids) } else { 0 }
    }

    /// Columns at `positions` that hold what is `relevant`.
    pub(crate) fn count(&self, positions: Range<usize>, relevant: Relevant) -> u32 {
        let ids = &self.column_ids
            [positions.start * self.columns_per_sample..positions.end * self.columns_per_sample];
        relevant.count(ids)
    }

    /// [`Bank::exclude`] for the banked row at `position`, whose own positive is left out as well.
    pub(crate) fn exclude_for_banked(&self, row: &mut [f32], positions: Range<usize>, position: usize) {
        self.exclude(row, positions.clone(), self.relevant_to(position));
        if self.holds_positives && positions.contains(&position) {
            row[(position - positions.start) * self.columns_per_sample] = f32::NEG_INFINITY;
        }
    }

    /// Takes in the newest samples of a batch, as many as there is room for at most; the oldest leave.
    pub(crate) fn enter(&mut self, batch: &Current) {
        let kept = batch.samples().saturating_sub(self.capacity)..batch.samples();
        let mut hard_negatives = 0..0;
        for sample in 0..batch.samples() {
            hard_negatives = hard_negatives.end..hard_negatives.end + batch.hard_negatives_of(sample);
            if kept.contains(&sample) {
                self.enter_sample(batch, sample, hard_negatives.clone());
            }
        }
    }

    fn enter_sample(&mut self, batch: &Current, sample: usize, hard_negatives: Range<usize>) {
        let position = self.entered % self.capacity;
        let places = position * self.columns_per_sample..(position + 1) * self.columns_per_sample;
        let empty = |ids: &[u32]| ids.iter().filter(|&&id| id == NO_PASSAGE).count();
        if self.entered >= self.capacity {
            self.empty_places -= empty(&self.column_ids[places.clone()]);
        }
        let (query, positive, id) = (batch.query(sample), batch.positive(sample), batch.positive_id(sample));
        if self.query_values > 0 {
            self.queries.write(position * self.dim, query);
        }
        self.column_ids[places.clone()].fill(NO_PASSAGE);
        let mut place = places.start;
        if self.holds_positives {
            self.columns.write(place * self.dim, positive);
            self.column_ids[place] = id;
            place += 1;
        }
        // Places are fewer where hard negatives are not banked: the zip ends with them.
        for (place, hard_negative) in (place..places.end).zip(hard_negatives) {
            self.columns.write(place * self.dim, batch.hard_negative(hard_negative));
            self.column_ids[place] = batch.hard_negative_id(hard_negative);
        }
        let used = places.end - empty(&self.column_ids[places.clone()]);
        self.columns.zero(used * self.dim..places.end * self.dim);
        self.row_ids[position] = id;
        self.query_ids[position] = batch.query_id(sample);
        self.own_scores[position] = self.score(query, positive);
        self.empty_places += places.end - used;
        self.entered += 1;
    }

    /// The logit of a query and a passage as the bank would store them.
    fn score(&self, query: &[f32], passage: &[f32]) -> f64 {
        let stored = |x: f32| match self.dtype {
            BankDtype::F32 => f64::from(x),
            BankDtype::Bf16 => bf16::from_f32(x).to_f64(),
        };
        let dot: f64 = query.iter().zip(passage).map(|(&q, &p)| stored(q) * stored(p)).sum();
        dot / self.temperature
    }

    pub(crate) fn clear(&mut self) {
        self.entered = 0;
        self.empty_places = 0;
    }

    pub(crate) fn save(&self, state: &mut ObjectiveState) {
        let len = self.len();
        state.entered = self.entered as u64;
        state.queries = self.queries.to_f32(len * self.query_values);
        state.columns = self.columns.to_f32(len * self.columns_per_sample * self.dim);
        state.column_ids = self.column_ids[..len * self.columns_per_sample].to_vec();
        state.row_ids = self.row_ids[..len].to_vec();
        state.query_ids = self.query_ids[..len].to_vec();
        state.own_scores = self.own_scores[..len].to_vec();
    }

    /// Takes back what [`Bank::save`] gave, or refuses it unchanged.
    pub(crate) fn load(&mut self, state: &ObjectiveState) -> Result<(), ObjectiveError> {
        let len = state.entered.min(self.capacity as u64) as usize;
        expect_values("queries", state.queries.len(), len * self.query_values)?;
        expect_values("columns", state.columns.len(), len * self.columns_per_sample * self.dim)?;
        expect_values("column_ids", state.column_ids.len(), len * self.columns_per_sample)?;
        expect_values("row_ids", state.row_ids.len(), len)?;
        expect_values("query_ids", state.query_ids.len(), len)?;
        expect_values("own_scores", state.own_scores.len(), len)?;
        self.entered = state.entered as usize;
        self.queries.write(0, &state.queries);
        self.columns.write(0, &state.columns);
        self.column_ids[..state.column_ids.len()].copy_from_slice(&state.column_ids);
        self.row_ids[..len].copy_from_slice(&state.row_ids);
        self.query_ids[..len].copy_from_slice(&state.query_ids);
        self.own_scores[..len].copy_from_slice(&state.own_scores);
        self.empty_places = state.column_ids.iter().filter(|&&id| id == NO_PASSAGE).count();
        Ok(())
    }
}
