use std::sync::{Arc, Mutex, PoisonError};

use rand::seq::{SliceRandom, index};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{Error, PassageIndex, Positives, QueryIndex, Result, Row, Rows, distinct};

/// How rows become batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchConfig {
    /// Seed of every draw.
    pub seed: u64,
    /// Rows of one update, over all its micro-batches.
    pub total_batch: usize,
    /// Hard negatives each row brings.
    pub hard_negatives: usize,
    /// True: rows in a new random order each epoch, negatives drawn for each row and epoch. False: rows in
    /// file order, each with its first negatives.
    pub shuffle: bool,
    /// Which positive of a row that has several is taken.
    pub positives: Positives,
    /// True: no passage is the positive of two rows of one total batch.
    pub no_duplicates: bool,
    /// True: an epoch is of full batches, and rows that fill none are left out of it. False: they are its
    /// last batch, a smaller one.
    pub drop_last: bool,
}

/// One row of a batch with the passages drawn for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Position of the row in [`Rows`].
    pub row: usize,
    /// Its query.
    pub query: QueryIndex,
    /// The positive drawn for this epoch.
    pub positive: PassageIndex,
    /// As many hard negatives as asked for (all the row has, then again from the first), or none if it has
    /// none.
    pub negatives: Vec<PassageIndex>,
}

/// Says which rows make which update. A batch depends on the rows, the configuration and its number alone, so
/// a resumed run needs nothing but the number of its next update.
///
/// An epoch is a fixed number of batches. Rows that do not fill a batch are left out of that epoch, and with
/// shuffling others are left out of the next; or they are its last batch (`drop_last` false). With
/// `no_duplicates` a row whose positive is already in the batch waits for the next one, and the epoch is as
/// long as it can be for every draw of positives; rows still waiting at its end are left out too.
pub struct BatchPlan {
    rows: Arc<Rows>,
    config: BatchConfig,
    updates_per_epoch: u64,
    current: Mutex<Option<Epoch>>,
}

/// The rows of one epoch, batch after batch.
#[derive(Clone)]
struct Epoch {
    number: u64,
    order: Arc<[u32]>,
}

/// What a draw is for; part of its generator's key.
#[derive(Clone, Copy)]
enum Draw {
    Order,
    Positive,
    Negatives,
}

impl BatchPlan {
    /// A plan over all rows.
    ///
    /// # Errors
    /// [`Error::EmptyBatch`], [`Error::BatchTooLarge`], with `no_duplicates` [`Error::TooFewPositives`], and
    /// [`Error::DuplicatesLeft`] if no row is to be left out all the same.
    pub fn new(rows: Arc<Rows>, config: BatchConfig) -> Result<BatchPlan> {
        let BatchConfig { total_batch, no_duplicates, drop_last, .. } = config;
        if total_batch == 0 {
            return Err(Error::EmptyBatch);
        }
        if total_batch > rows.len() && drop_last {
            return Err(Error::BatchTooLarge { total_batch, rows: rows.len() });
        }
        let updates_per_epoch = match (no_duplicates, drop_last) {
            (true, false) => return Err(Error::DuplicatesLeft),
            (true, true) => distinct::batches_possible(&rows, total_batch)?,
            (false, true) => rows.len() / total_batch,
            (false, false) => rows.len().div_ceil(total_batch),
        } as u64;
        Ok(BatchPlan { rows, config, updates_per_epoch, current: Mutex::new(None) })
    }

    /// Batches in an epoch; the same for every epoch, at least 1.
    pub fn updates_per_epoch(&self) -> u64 {
        self.updates_per_epoch
    }

    /// Rows that each epoch leaves out because they fill no batch.
    pub fn rows_left_out(&self) -> usize {
        self.rows.len().saturating_sub(self.updates_per_epoch as usize * self.config.total_batch)
    }

    /// Rows of the last batch of an epoch.
    pub fn last_batch_rows(&self) -> usize {
        let full = (self.updates_per_epoch as usize - 1) * self.config.total_batch;
        (self.rows.len() - full).min(self.config.total_batch)
    }

    /// The samples of an update, counted from 0 over all epochs: `total_batch` of them, but for the last
    /// batch of an epoch that leaves none out.
    ///
    /// Updates of the epoch asked for last cost no more than their samples; another epoch is put in order
    /// first.
    pub fn batch(&self, update: u64) -> Vec<Sample> {
        let number = update / self.updates_per_epoch;
        let first = (update % self.updates_per_epoch) as usize * self.config.total_batch;
        let order = self.order(number);
        let end = order.len().min(first + self.config.total_batch);
        order[first..end].iter().map(|&row| self.sample(number, row)).collect()
    }

    fn order(&self, number: u64) -> Arc<[u32]> {
        // A panic elsewhere cannot leave a half-written epoch: it is replaced whole.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some(epoch) if epoch.number == number => epoch.order.clone(),
            Some(_) | None => {
                let order = self.arrange(number);
                *current = Some(Epoch { number, order: order.clone() });
                order
            }
        }
    }

    fn arrange(&self, epoch: u64) -> Arc<[u32]> {
        let mut order: Vec<u32> = (0..self.rows.len() as u32).collect();
        if self.config.shuffle {
            order.shuffle(&mut self.generator(epoch, 0, Draw::Order));
        }
        if self.config.no_duplicates {
            let positives: Vec<PassageIndex> =
                order.iter().map(|&row| self.positive(epoch, row, self.rows.get(row as usize))).collect();
            let positions =
                distinct::arrange(&positives, self.updates_per_epoch as usize, self.config.total_batch);
            positions.into_iter().map(|position| order[position]).collect()
        } else {
            order.into()
        }
    }

    fn sample(&self, epoch: u64, number: u32) -> Sample {
        let row = self.rows.get(number as usize);
        Sample {
            row: number as usize,
            query: row.query,
            positive: self.positive(epoch, number, row),
            negatives: self.negatives(epoch, number, row),
        }
    }

    fn positive(&self, epoch: u64, number: u32, row: Row<'_>) -> PassageIndex {
        if row.positives.len() == 1 || self.config.positives == Positives::First {
            return row.positives[0];
        }
        row.positives[self.generator(epoch, number, Draw::Positive).random_range(0..row.positives.len())]
    }

    fn negatives(&self, epoch: u64, number: u32, row: Row<'_>) -> Vec<PassageIndex> {
        let (wanted, available) = (self.config.hard_negatives, row.negatives.len());
        let drawn: Vec<usize> = if self.config.shuffle {
            let mut generator = self.generator(epoch, number, Draw::Negatives);
            index::sample(&mut generator, available, wanted.min(available)).into_vec()
        } else {
            (0..wanted.min(available)).collect()
        };
        drawn.iter().cycle().take(wanted).map(|&negative| row.negatives[negative]).collect()
    }

    /// ChaCha keyed by (seed, epoch, row, purpose): a draw depends on nothing drawn before it.
    fn generator(&self, epoch: u64, row: u32, draw: Draw) -> ChaCha8Rng {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&self.config.seed.to_le_bytes());
        key[8..16].copy_from_slice(&epoch.to_le_bytes());
        key[16..20].copy_from_slice(&row.to_le_bytes());
        key[20] = draw as u8;
        ChaCha8Rng::from_seed(key)
    }
}
