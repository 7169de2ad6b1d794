//! The banks: a ring of samples, each a query row and a fixed number of places for columns.
//!
//! A sample has an index, counted from 0 since the bank was last cleared or renumbered, and lives at the ring position
//! `(index - base) % capacity`. `base` is the oldest sample after the last that left for another reason than want of
//! room: those that stayed were then brought to the front. So the live positions are always `0..len`.

use std::ops::Range;

use half::bf16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use crate::batch::Current;
use crate::config::{BankDtype, NO_PASSAGE, ObjectiveConfig};
use crate::known_positives::{KnownPositives, Relevant};
use crate::moving::{Field, LONGEST_PATH, LONGEST_PATH_OF_NEWEST};
use crate::softmax::exclude;
use crate::state::{ObjectiveError, ObjectiveState, expect_values};
use crate::worker::Worker;

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

    /// The dot product of the stored values from `start` on and another's from `other_start` on.
    fn dot(&self, start: usize, other: &Self, other_start: usize, values: usize) -> f64 {
        let (ours, theirs) = (start..start + values, other_start..other_start + values);
        match (self, other) {
            (Self::F32(a), Self::F32(b)) => {
                a[ours].iter().zip(&b[theirs]).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
            }
            (Self::Bf16(a), Self::Bf16(b)) => {
                a[ours].iter().zip(&b[theirs]).map(|(x, y)| x.to_f64() * y.to_f64()).sum()
            }
            (Self::F32(_), Self::Bf16(_)) | (Self::Bf16(_), Self::F32(_)) => {
                unreachable!("a bank stores everything in one precision")
            }
        }
    }

    /// Applies `change` to the first `values` values, `tile` of them at a time, each worker to its share.
    fn change(
        &mut self,
        values: usize,
        tile: usize,
        workers: &mut [Worker],
        change: impl Fn(&mut Worker, &mut [f32]) + Sync,
    ) {
        let part = values.div_ceil(tile).div_ceil(workers.len()).max(1) * tile;
        match self {
            Self::F32(stored) => {
                let parts = stored[..values].par_chunks_mut(part);
                workers.par_iter_mut().zip(parts).for_each(|(worker, part)| {
                    part.chunks_mut(tile).for_each(|tile| change(worker, tile));
                });
            }
            Self::Bf16(stored) => {
                let parts = stored[..values].par_chunks_mut(part);
                workers.par_iter_mut().zip(parts).for_each(|(worker, part)| {
                    let mut widened = std::mem::take(&mut worker.widened);
                    for tile in part.chunks_mut(tile) {
                        let widened = &mut widened[..tile.len()];
                        tile.convert_to_f32_slice(widened);
                        change(worker, widened);
                        tile.convert_from_f32_slice(widened);
                    }
                    worker.widened = widened;
                });
            }
        }
    }

    fn rotate(&mut self, front: Front, width: usize) {
        match self {
            Self::F32(values) => front.bring(values, width),
            Self::Bf16(values) => front.bring(values, width),
        }
    }

    fn to_f32(&self, values: usize) -> Vec<f32> {
        match self {
            Self::F32(stored) => stored[..values].to_vec(),
            Self::Bf16(stored) => stored[..values].to_f32_vec(),
        }
    }
}

/// How samples were brought to the front of the ring: its first `len` positions by `by` to the left.
#[derive(Clone, Copy)]
pub(crate) struct Front {
    len: usize,
    by: usize,
}

impl Front {
    /// Does the same to values of `width` a position.
    pub(crate) fn bring<T>(self, values: &mut [T], width: usize) {
        values[..self.len * width].rotate_left(self.by * width);
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
    /// How far each sample has been moved since it entered.
    paths: Vec<f64>,
    entered: usize,
    base: usize,
    /// The first sample that has never been moved.
    unmoved: usize,
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
            paths: vec![0.0; Self::paths(config)],
            entered: 0,
            base: 0,
            unmoved: 0,
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
            + Self::paths(config) * size_of::<f64>()
    }

    fn paths(config: &ObjectiveConfig) -> usize {
        if config.compensation().is_some() { config.bank_samples } else { 0 }
    }

    pub(crate) fn len(&self) -> usize {
        (self.entered - self.base).min(self.capacity)
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

    fn position(&self, sample: usize) -> usize {
        (sample - self.base) % self.capacity
    }

    /// The longest start of `samples` that lies in one piece: its ring positions.
    pub(crate) fn first_piece(&self, samples: Range<usize>) -> Range<usize> {
        let start = self.position(samples.start);
        start..(start + samples.len()).min(self.capacity)
    }

    /// The longest end of `samples` that lies in one piece: its ring positions.
    pub(crate) fn last_piece(&self, samples: Range<usize>) -> Range<usize> {
        let end = self.position(samples.end - 1) + 1;
        end.saturating_sub(samples.len())..end
    }

    /// The age class of the sample at `position` (0 oldest, by eighths of the capacity), and how many positions
    /// from there on share it.
    pub(crate) fn age_class(&self, position: usize) -> (usize, usize) {
        let newest = self.position(self.entered - 1);
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
        let position = self.position(self.entered);
        let places = position * self.columns_per_sample..(position + 1) * self.columns_per_sample;
        let empty = |ids: &[u32]| ids.iter().filter(|&&id| id == NO_PASSAGE).count();
        if self.len() == self.capacity {
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
        if let Some(path) = self.paths.get_mut(position) {
            *path = 0.0;
        }
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

    /// Moves every vector by the displacements of `field`; `tile` vectors at a time.
    pub(crate) fn carry(&mut self, workers: &mut [Worker], field: &Field, tile: usize) {
        let (len, tile) = (self.len(), tile * self.dim);
        self.queries.change(len * self.query_values, tile, workers, |worker, vectors| {
            field.carry(worker, vectors, field.of_queries());
        });
        self.columns.change(len * self.columns_per_sample * self.dim, tile, workers, |worker, vectors| {
            field.carry(worker, vectors, field.of_passages());
        });
    }

    /// Adds `step` to the path of every sample and returns how many, the oldest, have now been moved too far.
    pub(crate) fn lengthen_paths(&mut self, step: f64) -> usize {
        let live = self.live();
        self.paths[..live.len()].iter_mut().for_each(|path| *path += step);
        let too_far = |&sample: &usize| {
            let longest = if sample < self.unmoved { LONGEST_PATH } else { LONGEST_PATH_OF_NEWEST };
            self.paths[self.position(sample)] > longest
        };
        let leaving = live.clone().take_while(too_far).count();
        self.unmoved = live.end;
        leaving
    }

    /// The path of the oldest sample.
    pub(crate) fn longest_path(&self) -> f64 {
        self.live().next().map_or(0.0, |oldest| self.paths[self.position(oldest)])
    }

    /// Lets the `leaving` oldest samples go; the others come to the front of the ring.
    pub(crate) fn leave(&mut self, leaving: usize) -> Front {
        let live = self.live();
        let oldest = live.start + leaving;
        let by = if oldest < live.end { self.position(oldest) } else { 0 };
        let front = Front { len: live.len(), by };
        self.queries.rotate(front, self.query_values);
        self.columns.rotate(front, self.columns_per_sample * self.dim);
        front.bring(&mut self.column_ids, self.columns_per_sample);
        front.bring(&mut self.row_ids, 1);
        front.bring(&mut self.query_ids, 1);
        front.bring(&mut self.own_scores, 1);
        front.bring(&mut self.paths, 1);
        self.base = oldest;
        let columns = &self.column_ids[..self.len() * self.columns_per_sample];
        self.empty_places = columns.iter().filter(|&&id| id == NO_PASSAGE).count();
        front
    }

    /// Counts the samples from 0 again; they come to the front of the ring.
    pub(crate) fn renumber(&mut self) {
        self.leave(0);
        self.unmoved = self.unmoved.saturating_sub(self.base);
        self.entered -= self.base;
        self.base = 0;
    }

    /// Takes the scores of banked rows' own positives anew, where both are stored.
    pub(crate) fn score_again(&mut self) {
        if self.query_values == 0 || !self.holds_positives {
            return;
        }
        for position in 0..self.len() {
            let (query, positive) = (position * self.dim, position * self.columns_per_sample * self.dim);
            let dot = self.queries.dot(query, &self.columns, positive, self.dim);
            self.own_scores[position] = dot / self.temperature;
        }
    }

    pub(crate) fn clear(&mut self) {
        (self.entered, self.base, self.unmoved) = (0, 0, 0);
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
        state.paths = self.paths[..len.min(self.paths.len())].to_vec();
        state.marks = vec![self.base as u64, self.unmoved as u64];
    }

    /// Takes back what [`Bank::save`] gave, or refuses it unchanged.
    pub(crate) fn load(&mut self, state: &ObjectiveState) -> Result<(), ObjectiveError> {
        expect_values("marks", state.marks.len(), 2)?;
        let [base, unmoved] = [state.marks[0], state.marks[1]];
        let len = state.entered.saturating_sub(base).min(self.capacity as u64) as usize;
        expect_values("queries", state.queries.len(), len * self.query_values)?;
        expect_values("columns", state.columns.len(), len * self.columns_per_sample * self.dim)?;
        expect_values("column_ids", state.column_ids.len(), len * self.columns_per_sample)?;
        expect_values("row_ids", state.row_ids.len(), len)?;
        expect_values("query_ids", state.query_ids.len(), len)?;
        expect_values("own_scores", state.own_scores.len(), len)?;
        expect_values("paths", state.paths.len(), len.min(self.paths.len()))?;
        self.entered = state.entered as usize;
        (self.base, self.unmoved) = (base as usize, unmoved as usize);
        self.paths[..state.paths.len()].copy_from_slice(&state.paths);
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
