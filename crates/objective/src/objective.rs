//! The objective: a step, the entry of a batch into the banks, and what is reported.

use crate::bank::Bank;
use crate::batch::{Batch, Current, GradientsMut};
use crate::block_sums::BlockSums;
use crate::column_gradients::AllRows;
use crate::config::{ObjectiveConfig, Rows};
use crate::current_rows::{CurrentRows, current_rows};
use crate::state::{ObjectiveError, ObjectiveState};
use crate::worker::Worker;

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossReport {
    /// Mean loss over all rows, not scaled.
    pub loss: f64,
    /// Mean loss over the current rows: comparable between methods.
    pub current_rows_loss: f64,
    /// Rows the loss is the mean of.
    pub rows: usize,
    /// Columns besides its own positive that a current query is compared with, masked ones not counted; a mean.
    pub negatives_per_query: f64,
    /// Softmax mass of current rows on banked columns; a mean.
    pub bank_mass: f64,
    /// `bank_mass` by the age of the banked sample, in eighths of the capacity, oldest first.
    pub bank_mass_by_age: [f64; 8],
}

/// InfoNCE with its banks and every buffer it needs.
pub struct Objective {
    config: ObjectiveConfig,
    bank: Bank,
    block_sums: Option<BlockSums>,
    workers: Vec<Worker>,
    losses: Vec<f64>,
    lse: Vec<f64>,
}

impl Objective {
    /// Allocates the banks and the workspace of as many workers as the current rayon pool has threads.
    ///
    /// # Errors
    /// [`ObjectiveError::Config`] for an impossible setting.
    pub fn new(config: ObjectiveConfig) -> Result<Self, ObjectiveError> {
        config.validate()?;
        Ok(Self {
            bank: Bank::new(&config),
            block_sums: BlockSums::new(&config),
            workers: (0..rayon::current_num_threads()).map(|_| Worker::new(&config)).collect(),
            losses: vec![0.0; config.max_batch_samples],
            lse: vec![0.0; config.max_batch_samples],
            config,
        })
    }

    /// Bytes that [`Objective::new`] allocates in the current rayon pool; nothing else is allocated later but what
    /// the matrix product packs.
    pub fn memory_bytes(config: &ObjectiveConfig) -> usize {
        Bank::bytes(config)
            + BlockSums::bytes(config)
            + rayon::current_num_threads() * Worker::bytes(config)
            + 2 * config.max_batch_samples * size_of::<f64>()
    }

    /// The settings this objective was made with.
    pub fn config(&self) -> &ObjectiveConfig {
        &self.config
    }

    /// Computes the loss of a batch and overwrites `gradients` with the gradient of `loss · scale`. The banks stay
    /// as they are.
    ///
    /// # Panics
    /// When shapes do not agree with each other or exceed the sizes of the configuration.
    pub fn step(&mut self, batch: Batch, scale: f32, gradients: GradientsMut) -> LossReport {
        let current = Current::new(batch, &self.config);
        assert_eq!(gradients.queries.len(), batch.queries.len(), "gradient of queries has another shape");
        assert_eq!(
            gradients.positives.len(),
            batch.positives.len(),
            "gradient of positives has another shape"
        );
        assert_eq!(
            gradients.hard_negatives.len(),
            batch.hard_negatives.len(),
            "gradient of hard negatives has another shape"
        );
        let n = current.samples();
        let rows = n + if self.config.banks_rows() { self.bank.len() } else { 0 };
        let factor = f64::from(scale) / (rows as f64 * f64::from(self.config.temperature));
        self.workers.iter_mut().for_each(|worker| worker.excluded = 0);
        let mass = current_rows(
            &self.config,
            &mut self.workers,
            &current,
            &self.bank,
            factor,
            CurrentRows { losses: &mut self.losses, lse: &mut self.lse, gradient: gradients.queries },
        );
        let all_rows = AllRows {
            config: &self.config,
            current: &current,
            bank: &self.bank,
            block_sums: self.block_sums.as_ref(),
            losses: &self.losses,
            lse: &self.lse,
        };
        let bank_loss = all_rows.column_gradients(
            &mut self.workers,
            factor,
            gradients.positives,
            gradients.hard_negatives,
        );
        let current_loss: f64 = self.losses[..n].iter().sum();
        let excluded: u64 = self.workers.iter().map(|worker| worker.excluded).sum();
        let columns = current.columns() + self.bank.live_columns();
        LossReport {
            loss: (current_loss + bank_loss) / rows as f64,
            current_rows_loss: current_loss / n as f64,
            rows,
            negatives_per_query: columns as f64 - excluded as f64 / n as f64,
            bank_mass: mass.iter().sum::<f64>() / n as f64,
            bank_mass_by_age: mass.map(|mass| mass / n as f64),
        }
    }

    /// Takes a batch into the banks: its newest samples up to the capacity, each with its hard negatives; the
    /// oldest samples leave. Nothing happens without a bank.
    ///
    /// # Panics
    /// When shapes do not agree with each other or exceed the sizes of the configuration.
    pub fn enqueue(&mut self, batch: Batch) {
        let current = Current::new(batch, &self.config);
        let before = self.bank.live().end;
        self.bank.enter(&current);
        if let Some(sums) = &mut self.block_sums {
            sums.extend(&self.bank, before);
        }
    }

    /// Empties the banks.
    pub fn clear(&mut self) {
        self.bank.clear();
        if let Some(sums) = &mut self.block_sums {
            sums.clear();
        }
    }

    /// Samples in the banks.
    pub fn bank_len(&self) -> usize {
        self.bank.len()
    }

    /// A copy of all that later steps depend on.
    pub fn state(&self) -> ObjectiveState {
        let mut state = ObjectiveState { settings: self.settings(), ..ObjectiveState::default() };
        self.bank.save(&mut state);
        if let Some(sums) = &self.block_sums {
            sums.save(self.bank.len(), &mut state);
        }
        state
    }

    /// Takes back a state: later steps give the bits that they would have given where it was taken.
    ///
    /// # Errors
    /// [`ObjectiveError::OtherSettings`] when it was taken under settings it depends on, and
    /// [`ObjectiveError::Damaged`] when a part has a wrong length; the banks are then empty.
    pub fn restore(&mut self, state: &ObjectiveState) -> Result<(), ObjectiveError> {
        self.clear();
        if state.settings != self.settings() {
            return Err(ObjectiveError::OtherSettings);
        }
        self.bank.load(state)?;
        let loaded = match &mut self.block_sums {
            Some(sums) => sums.load(self.bank.len(), state),
            None => Ok(()),
        };
        if loaded.is_err() {
            self.clear();
        }
        loaded
    }

    /// What the values of a state depend on.
    fn settings(&self) -> Vec<u64> {
        let config = &self.config;
        let [block, entry] = BlockSums::lengths(config);
        vec![
            config.dim as u64,
            u64::from(config.temperature.to_bits()),
            u64::from(config.rows == Rows::All),
            u64::from(config.mask_false_negatives),
            config.bank_samples as u64,
            u64::from(config.bank_queries),
            u64::from(config.bank_passages),
            u64::from(config.bank_hard_negatives),
            config.bank_dtype as u64,
            config.max_hard_negatives_per_sample as u64,
            block as u64,
            entry as u64,
        ]
    }
}
