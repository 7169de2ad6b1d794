//! The bank × bank part of the matrix, as one log-sum-exp per banked row over the other banked columns.
//!
//! A row's sum gains columns when samples enter and loses columns when the oldest leave; the logits in it are those of
//! the moment they were taken, whatever has moved the representations since (see `moving.rs`). Sums cannot be taken apart again without cancellation,
//! so columns are summed in pieces that leave whole. Over the sample indices `oldest..end` of the live columns a
//! row holds
//!
//! ```text
//!  oldest      entry           block          block   ...   suffix_end     block  ...    end
//!    |-----------|---------------|--------------|--------------|-------------|------------|
//!     samples:     entries:        blocks: sum from              blocks: sum of   `open`
//!     sum to the   sum to the      each to `suffix_end`          each alone
//!     next entry   next block                                   `newer`: the sum of all these
//! ```
//!
//! so that the sum of everything from `oldest` on is at most four terms. When the last block before `suffix_end`
//! has become the oldest, the blocks behind it become the new suffixes (a queue made of two stacks). A block that
//! becomes the oldest is split once into its entries, an entry into its samples where a batch ends inside it: only
//! this takes new dot products, one per row and column, of the representations as they are then. Entries are as long as a batch, blocks about
//! `√(capacity · entry)`, so the pieces of a row are few.
//!
//! Per enqueued batch of `n`: `O(n · capacity · dim)` amortised, and `O(√(capacity / n))` stored values per row.

use std::ops::Range;

use rayon::prelude::*;

use crate::bank::{Bank, Front};
use crate::config::ObjectiveConfig;
use crate::dots::{Dots, Threads};
use crate::softmax::{log_add, log_sum_exp};
use crate::state::{ObjectiveError, ObjectiveState, expect_values};
use crate::worker::{Worker, kept_place};

/// The kinds of pieces, widest first.
#[derive(Clone, Copy)]
enum Level {
    Block,
    Entry,
    Sample,
}

/// How the columns of a bank are cut.
#[derive(Clone, Copy)]
struct Grid {
    /// Samples of a block, a multiple of `entry`, at most the capacity.
    block: usize,
    /// Samples of an entry.
    entry: usize,
    /// Whole blocks that fit in the bank.
    blocks: usize,
}

impl Grid {
    fn new(config: &ObjectiveConfig) -> Self {
        let capacity = config.bank_samples;
        // No longer than the cube root, beyond which samples would cost more room than entries save.
        let entry = config.max_batch_samples.min((capacity as f64).cbrt() as usize).max(1);
        let block = entry * (capacity / entry).isqrt();
        Self { block, entry, blocks: capacity / block }
    }

    fn length(&self, level: Level) -> usize {
        match level {
            Level::Block => self.block,
            Level::Entry => self.entry,
            Level::Sample => 1,
        }
    }

    /// Values stored per row: blocks, then the inner cuts of a block, then those of an entry.
    fn slots(&self) -> usize {
        self.blocks + self.block / self.entry - 1 + self.entry - 1
    }

    /// Where a row stores the piece that starts at sample `start`, a multiple of the level's length (and of no
    /// longer level's).
    fn slot(&self, level: Level, start: usize) -> usize {
        match level {
            Level::Block => start / self.block % self.blocks,
            Level::Entry => self.blocks + start % self.block / self.entry - 1,
            Level::Sample => self.blocks + self.block / self.entry - 1 + start % self.entry - 1,
        }
    }
}

/// What one row keeps, by reference.
struct Row<'a> {
    slots: &'a mut [f32],
    newer: &'a mut f64,
    open: &'a mut f64,
    running: &'a mut f64,
}

impl Row<'_> {
    /// Adds the sum of columns that end at sample `end`, all of one block.
    fn append(&mut self, grid: Grid, end: usize, sum: f64) {
        *self.newer = log_add(*self.newer, sum);
        *self.open = log_add(*self.open, sum);
        if end.is_multiple_of(grid.block) {
            self.slots[grid.slot(Level::Block, end - grid.block)] = *self.open as f32;
            *self.open = f64::NEG_INFINITY;
        }
    }
}

/// The sums of all rows and how their columns are cut at present.
pub(crate) struct BlockSums {
    grid: Grid,
    room: Room,
    sums: Sums,
    suffix_end: usize,
    /// The ends of the block and of the entry that are split; 0 for none.
    split: [usize; 2],
}

/// The values of all rows, by ring position.
struct Sums {
    slots_per_row: usize,
    slots: Vec<f32>,
    newer: Vec<f64>,
    open: Vec<f64>,
    /// The result: the sum over all live columns but the row's own. A running sum during [`BlockSums::extend`].
    total: Vec<f64>,
}

impl Sums {
    fn new(rows: usize, slots_per_row: usize) -> Self {
        Self {
            slots_per_row,
            slots: contaccum_kernels::resident_zeros(rows * slots_per_row),
            newer: vec![0.0; rows],
            open: vec![0.0; rows],
            total: vec![0.0; rows],
        }
    }

    fn rows(&mut self, positions: Range<usize>) -> impl IndexedParallelIterator<Item = Row<'_>> {
        let slots = positions.start * self.slots_per_row..positions.end * self.slots_per_row;
        let slots = self.slots[slots].par_chunks_mut(self.slots_per_row);
        let sums = self.newer[positions.clone()].par_iter_mut().zip(&mut self.open[positions.clone()]);
        let rows = slots.zip(sums).zip(&mut self.total[positions]);
        rows.map(|((slots, (newer, open)), running)| Row { slots, newer, open, running })
    }
}

/// The keeper whose share `position` is in.
fn keeper_of(keepers: &[Worker], position: usize) -> &Worker {
    let keeper = keepers.iter().find(|keeper| keeper.share.contains(&position));
    keeper.expect("the shares of a step are the whole bank")
}

/// The end of `columns` where a pass goes on, as far as its logits are one keeper's, or nobody's: logits against the
/// samples from `entered` on were not kept.
fn source<'a>(
    keepers: &'a [Worker],
    bank: &Bank,
    entered: usize,
    columns: &Range<usize>,
    order: Order,
) -> (Option<&'a Worker>, Range<usize>) {
    if keepers.is_empty() {
        return (None, columns.clone());
    }
    let next = match order {
        Order::OldestFirst => columns.start,
        Order::NewestFirst => columns.end - 1,
    };
    if next >= entered {
        return (None, columns.start.max(entered)..columns.end);
    }
    let position = bank.first_piece(next..next + 1).start;
    let keeper = keeper_of(keepers, position);
    let (start, end) = (next - (position - keeper.share.start), next + (keeper.share.end - position));
    (Some(keeper), columns.start.max(start)..columns.end.min(end).min(entered))
}

/// The next tile of a pass over `columns`: its samples and their ring positions.
fn next_tile(
    bank: &Bank,
    columns: Range<usize>,
    lines_in_cache: usize,
    order: Order,
) -> (Range<usize>, Range<usize>) {
    match order {
        Order::OldestFirst => {
            let positions = bank.first_piece(columns.start..columns.end.min(columns.start + lines_in_cache));
            (columns.start..columns.start + positions.len(), positions)
        }
        Order::NewestFirst => {
            let first = columns.start.max(columns.end.saturating_sub(lines_in_cache));
            let positions = bank.last_piece(first..columns.end);
            (columns.end - positions.len()..columns.end, positions)
        }
    }
}

/// Sizes of the tile that passes over rows and columns share, and its buffers.
struct Room {
    logits: Vec<f32>,
    dots: Dots,
    widened_rows: Vec<f32>,
    widened_columns: Vec<f32>,
    rows_at_least: usize,
    values: usize,
}

impl Room {
    fn sizes(config: &ObjectiveConfig) -> [usize; 3] {
        let threads = rayon::current_num_threads();
        let widened = config.widened_room() * threads;
        [config.tile_room() * threads, widened, widened]
    }

    fn new(config: &ObjectiveConfig) -> Self {
        let [logits, widened_rows, widened_columns] = Self::sizes(config);
        Self {
            logits: vec![0.0; logits],
            dots: Dots::new(Threads::All, config.dim, config.temperature.recip(), logits),
            widened_rows: vec![0.0; widened_rows],
            widened_columns: vec![0.0; widened_columns],
            rows_at_least: config.tile_side(),
            values: ObjectiveConfig::TILE_VALUES * rayon::current_num_threads(),
        }
    }

    /// Rows and samples of the columns of one tile, for that many in all.
    fn tile(&self, rows: usize, samples: usize, dim: usize, columns_per_sample: usize) -> (usize, usize) {
        let wanted = self.rows_at_least.max(self.logits.len() / (samples * columns_per_sample));
        let tile_rows = rows.min(wanted).min(self.values / dim).max(1);
        let fitting = self.logits.len() / (tile_rows * columns_per_sample);
        let lines_in_cache = samples.min(fitting).min(self.values / (dim * columns_per_sample)).max(1);
        (tile_rows, lines_in_cache)
    }
}

/// Which way a pass goes over columns.
#[derive(Clone, Copy)]
enum Order {
    OldestFirst,
    NewestFirst,
}

impl BlockSums {
    /// None where no banked row has a banked column.
    pub(crate) fn new(config: &ObjectiveConfig) -> Option<Self> {
        Self::wanted(config).then(|| {
            let (grid, capacity) = (Grid::new(config), config.bank_samples);
            Self {
                grid,
                room: Room::new(config),
                sums: Sums::new(capacity, grid.slots()),
                suffix_end: 0,
                split: [0; 2],
            }
        })
    }

    /// Bytes that [`BlockSums::new`] allocates.
    pub(crate) fn bytes(config: &ObjectiveConfig) -> usize {
        if !Self::wanted(config) {
            return 0;
        }
        let room = Room::sizes(config);
        let values = room.iter().sum::<usize>() + config.bank_samples * Grid::new(config).slots();
        values * size_of::<f32>() + Dots::bytes(room[0]) + 3 * config.bank_samples * size_of::<f64>()
    }

    /// Samples of a block and of an entry; 0 where nothing is summed.
    pub(crate) fn lengths(config: &ObjectiveConfig) -> [usize; 2] {
        if !Self::wanted(config) {
            return [0; 2];
        }
        let grid = Grid::new(config);
        [grid.block, grid.entry]
    }

    fn wanted(config: &ObjectiveConfig) -> bool {
        config.banks_rows() && config.bank_columns() > 0
    }

    /// For each row at `positions`: the log-sum-exp over all banked columns but its own positive.
    pub(crate) fn totals(&self, positions: Range<usize>) -> &[f64] {
        &self.sums.total[positions]
    }

    pub(crate) fn clear(&mut self) {
        self.suffix_end = 0;
        self.split = [0; 2];
    }

    /// Brings the sums up to date after samples from index `before` on have entered `bank`, in part from the logits
    /// that `keepers` kept of the step before; without keepers all are made here.
    pub(crate) fn extend(&mut self, bank: &Bank, before: usize, keepers: &[Worker]) {
        let live = bank.live();
        let old = live.start..before.max(live.start);
        let new = old.end..live.end;
        let one_block = new.start / self.grid.block == (new.end - 1) / self.grid.block;
        if one_block && !keepers.is_empty() {
            self.append_kept(bank, old.clone(), new.clone(), keepers);
        } else {
            self.append(bank, old.clone(), new.clone(), &[]);
        }
        self.renew_suffixes(bank, live.clone());
        self.split(bank, old);
        let (after_entry, after_block) = self.cuts(live.start);
        self.set(new.clone(), bank, |row| {
            // What the row before left behind is never read, but would be saved.
            row.slots.fill(0.0);
            *row.newer = f64::NEG_INFINITY;
            *row.open = f64::NEG_INFINITY;
        });
        self.sum_suffixes(bank, new.clone(), Level::Block, after_block..self.suffix_end, keepers);
        self.sum_suffixes(bank, new.clone(), Level::Entry, after_entry..after_block, keepers);
        self.sum_suffixes(bank, new.clone(), Level::Sample, live.start..after_entry, keepers);
        self.append(bank, new, self.suffix_end..live.end, keepers);
        self.sum_pieces(bank, live);
    }

    /// Brings the sums up to date after the oldest samples have left `bank` for another reason than want of room, and
    /// the others were brought to the `front`. False where that cannot be told from what is kept: where all that is
    /// left lies in the block that is being filled.
    #[must_use]
    pub(crate) fn shorten(&mut self, bank: &Bank, front: Front) -> bool {
        let live = bank.live();
        if self.cuts(live.start).1 > live.end {
            return false;
        }
        front.bring(&mut self.sums.slots, self.sums.slots_per_row);
        for sums in [&mut self.sums.newer, &mut self.sums.open, &mut self.sums.total] {
            front.bring(sums, 1);
        }
        self.renew_suffixes(bank, live.clone());
        self.split(bank, live.clone());
        self.sum_pieces(bank, live);
        true
    }

    /// Splits the block that the oldest sample is in, and the entry, for `rows`, where they are not yet.
    fn split(&mut self, bank: &Bank, rows: Range<usize>) {
        let oldest = bank.live().start;
        let (after_entry, after_block) = self.cuts(oldest);
        if oldest < after_block && self.split[0] != after_block {
            self.split[0] = after_block;
            self.sum_suffixes(bank, rows.clone(), Level::Entry, after_entry..after_block, &[]);
        }
        if oldest < after_entry && self.split[1] != after_entry {
            self.split[1] = after_entry;
            self.sum_suffixes(bank, rows, Level::Sample, oldest..after_entry, &[]);
        }
    }

    /// The first cuts at or after `oldest`: of an entry, of a block.
    fn cuts(&self, oldest: usize) -> (usize, usize) {
        (oldest.next_multiple_of(self.grid.entry), oldest.next_multiple_of(self.grid.block))
    }

    /// Adds the newest `columns` to the sums of `rows`.
    fn append(&mut self, bank: &Bank, rows: Range<usize>, columns: Range<usize>, keepers: &[Worker]) {
        let grid = self.grid;
        self.pass(
            bank,
            rows,
            columns,
            Order::OldestFirst,
            keepers,
            move |mut row, samples, logits, per_sample| {
                let mut start = samples.start;
                while start < samples.end {
                    let end = samples.end.min((start / grid.block + 1) * grid.block);
                    let part = (start - samples.start) * per_sample..(end - samples.start) * per_sample;
                    row.append(grid, end, log_sum_exp(&logits[part]));
                    start = end;
                }
            },
        );
    }

    /// [`BlockSums::append`] of columns in one block, whose sums are what each of `keepers` has of its share of rows.
    fn append_kept(
        &mut self,
        bank: &Bank,
        mut rows: Range<usize>,
        columns: Range<usize>,
        keepers: &[Worker],
    ) {
        let grid = self.grid;
        while !rows.is_empty() {
            let piece = bank.first_piece(rows.clone());
            let keeper = keeper_of(keepers, piece.start);
            let positions = piece.start..piece.end.min(keeper.share.end);
            rows.start += positions.len();
            let places = positions.start - keeper.share.start..positions.end - keeper.share.start;
            let sums = self.sums.rows(positions).zip(&keeper.batch_lse[places]).with_min_len(256);
            sums.for_each(|(mut row, &sum)| row.append(grid, columns.end, sum));
        }
    }

    /// Stores for `rows` the sums from each cut of `columns` to their end.
    fn sum_suffixes(
        &mut self,
        bank: &Bank,
        rows: Range<usize>,
        level: Level,
        columns: Range<usize>,
        keepers: &[Worker],
    ) {
        let grid = self.grid;
        let length = grid.length(level);
        self.set(rows.clone(), bank, |row| *row.running = f64::NEG_INFINITY);
        self.pass(
            bank,
            rows,
            columns,
            Order::NewestFirst,
            keepers,
            move |row, samples, logits, per_sample| {
                let mut end = samples.end;
                while end > samples.start {
                    let start = samples.start.max((end - 1) / length * length);
                    let part = (start - samples.start) * per_sample..(end - samples.start) * per_sample;
                    *row.running = log_add(*row.running, log_sum_exp(&logits[part]));
                    if start.is_multiple_of(length) {
                        row.slots[grid.slot(level, start)] = *row.running as f32;
                    }
                    end = start;
                }
            },
        );
    }

    /// When no block before `suffix_end` is whole any more, turns the blocks behind it into suffixes.
    fn renew_suffixes(&mut self, bank: &Bank, live: Range<usize>) {
        let grid = self.grid;
        let (_, first) = self.cuts(live.start);
        if first <= self.suffix_end {
            return;
        }
        // A full bank is no shorter than a block, and one cut shorter has `first` in it: `first <= suffix_end` now.
        self.suffix_end = live.end / grid.block * grid.block;
        let blocks = first / grid.block..self.suffix_end / grid.block;
        self.set(live, bank, |row| {
            let mut sum = f64::NEG_INFINITY;
            for block in blocks.clone().rev() {
                let slot = &mut row.slots[grid.slot(Level::Block, block * grid.block)];
                sum = log_add(sum, f64::from(*slot));
                *slot = sum as f32;
            }
            *row.newer = *row.open;
        });
    }

    /// Sums the pieces of every live row.
    fn sum_pieces(&mut self, bank: &Bank, live: Range<usize>) {
        let grid = self.grid;
        let (after_entry, after_block) = self.cuts(live.start);
        let pieces = [
            (Level::Block, after_block, self.suffix_end),
            (Level::Entry, after_entry, after_block),
            (Level::Sample, live.start, after_entry),
        ];
        self.set(live, bank, |row| {
            *row.running = *row.newer;
            for (level, start, end) in pieces {
                if start < end {
                    *row.running = log_add(*row.running, f64::from(row.slots[grid.slot(level, start)]));
                }
            }
        });
    }

    /// Applies `change` to every one of `rows`.
    fn set(&mut self, mut rows: Range<usize>, bank: &Bank, change: impl Fn(Row) + Sync) {
        while !rows.is_empty() {
            let positions = bank.first_piece(rows.clone());
            rows.start += positions.len();
            self.sums.rows(positions).with_min_len(256).for_each(&change);
        }
    }

    /// Calls `take(row, samples, logits, columns per sample)` for every row and every tile of `columns`. With
    /// `keepers` the rows are those that have just entered, all of them.
    fn pass(
        &mut self,
        bank: &Bank,
        mut rows_left: Range<usize>,
        columns: Range<usize>,
        order: Order,
        keepers: &[Worker],
        take: impl Fn(Row, Range<usize>, &[f32], usize) + Sync,
    ) {
        if rows_left.is_empty() || columns.is_empty() {
            return;
        }
        let (dim, per_sample, entered) = (bank.dim(), bank.columns_per_sample(), rows_left.start);
        let (tile_rows, lines_in_cache) = self.room.tile(rows_left.len(), columns.len(), dim, per_sample);
        while !rows_left.is_empty() {
            let first_row = rows_left.start - entered;
            let piece = bank.first_piece(rows_left.clone());
            let positions = piece.start..piece.end.min(piece.start + tile_rows);
            rows_left.start += positions.len();
            let queries = bank.queries(positions.clone(), &mut self.room.widened_rows);
            let mut left = columns.clone();
            while !left.is_empty() {
                let (keeper, source) = source(keepers, bank, entered, &left, order);
                let (samples, at) = next_tile(bank, source, lines_in_cache, order);
                match order {
                    Order::OldestFirst => left.start = samples.end,
                    Order::NewestFirst => left.end = samples.start,
                }
                let width = at.len() * per_sample;
                let logits = &mut self.room.logits[..positions.len() * width];
                if keeper.is_none() {
                    let passages = bank.columns(at.clone(), &mut self.room.widened_columns);
                    self.room.dots.write(queries, passages, logits, width);
                }
                let rows = self.sums.rows(positions.clone()).zip(logits.par_chunks_mut(width));
                let rows = rows.enumerate().with_min_len((4096 / width).max(1));
                rows.for_each(|(line, (row, logits))| {
                    match keeper {
                        Some(keeper) => {
                            let place = kept_place(&keeper.share, first_row + line, &at, per_sample);
                            logits.copy_from_slice(&keeper.kept_logits[place]);
                        }
                        None => bank.exclude_for_banked(logits, at.clone(), positions.start + line),
                    }
                    take(row, samples.clone(), logits, per_sample);
                });
            }
        }
    }

    pub(crate) fn save(&self, len: usize, state: &mut ObjectiveState) {
        state.block_sums = self.sums.slots[..len * self.sums.slots_per_row].to_vec();
        state.newer_sums = self.sums.newer[..len].to_vec();
        state.open_sums = self.sums.open[..len].to_vec();
        state.total_sums = self.sums.total[..len].to_vec();
        state.cuts = vec![self.suffix_end as u64, self.split[0] as u64, self.split[1] as u64];
    }

    /// Takes back what [`BlockSums::save`] gave, or refuses it unchanged.
    pub(crate) fn load(&mut self, len: usize, state: &ObjectiveState) -> Result<(), ObjectiveError> {
        expect_values("block_sums", state.block_sums.len(), len * self.sums.slots_per_row)?;
        expect_values("newer_sums", state.newer_sums.len(), len)?;
        expect_values("open_sums", state.open_sums.len(), len)?;
        expect_values("total_sums", state.total_sums.len(), len)?;
        expect_values("cuts", state.cuts.len(), 3)?;
        self.sums.slots[..state.block_sums.len()].copy_from_slice(&state.block_sums);
        self.sums.newer[..len].copy_from_slice(&state.newer_sums);
        self.sums.open[..len].copy_from_slice(&state.open_sums);
        self.sums.total[..len].copy_from_slice(&state.total_sums);
        self.suffix_end = state.cuts[0] as usize;
        self.split = [state.cuts[1] as usize, state.cuts[2] as usize];
        Ok(())
    }
}
