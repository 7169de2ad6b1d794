//! The objective: a step, the entry of a batch into the banks, and what is reported.

use crate::bank::{AGES, Bank};
use crate::batch::{Batch, Current, GradientsMut};
use crate::block_sums::BlockSums;
use crate::column_gradients::AllRows;
use crate::config::{ObjectiveConfig, RowScale, Rows};
use crate::current_rows::{BankUse, CurrentRows, Met, current_rows};
use crate::known_positives::KnownPositives;
use crate::moving::{BankMovement, Field, Probe};
use crate::state::{ObjectiveError, ObjectiveState};
use crate::worker::{CURRENT, Worker};

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossReport {
    /// Mean loss over all rows, not scaled, whatever [`RowScale`] says: comparable between the two.
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
    /// Softmax mass of current rows on their negatives among the current columns; a mean.
    pub in_batch_mass: f64,
    /// Banked columns that took part.
    pub bank_columns: usize,
    /// Pairs of a current query and a banked column that holds its own positive or another passage known to be
    /// relevant: left out with the mask, counted as negatives without it.
    pub own_positives_in_bank: u64,
    /// Share of the current rows that the mask left columns out of, besides their own positive.
    pub masked_rows: f64,
    /// Current rows that no negative was left to: their loss is 0 whatever the encoder does.
    pub rows_without_negatives: usize,
}

/// InfoNCE with its banks and every buffer it needs.
pub struct Objective {
    config: ObjectiveConfig,
    known_positives: KnownPositives,
    bank: Bank,
    block_sums: Option<BlockSums>,
    field: Option<Field>,
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
            known_positives: KnownPositives::default(),
            bank: Bank::new(&config),
            block_sums: BlockSums::new(&config),
            field: Field::new(&config),
            workers: (0..rayon::current_num_threads()).map(|_| Worker::new(&config)).collect(),
            losses: vec![0.0; config.max_batch_samples],
            lse: vec![0.0; config.max_batch_samples],
            config,
        })
    }

    /// The same objective with what is known to be relevant besides each row's own positive, by query id. The banks
    /// must be empty: sums over them are made with it.
    ///
    /// # Panics
    /// When the banks hold samples.
    #[must_use]
    pub fn with_known_positives(mut self, known_positives: KnownPositives) -> Self {
        assert_eq!(self.bank.len(), 0, "known positives are told to empty banks");
        self.bank.know_positives(known_positives.clone());
        Self { known_positives, ..self }
    }

    /// Bytes that [`Objective::new`] allocates in the current rayon pool; nothing else is allocated later but what
    /// the matrix product packs.
    pub fn memory_bytes(config: &ObjectiveConfig) -> usize {
        Bank::bytes(config)
            + BlockSums::bytes(config)
            + Field::bytes(config)
            + rayon::current_num_threads() * Worker::bytes(config)
            + 2 * config.max_batch_samples * size_of::<f64>()
    }

    /// The settings this objective was made with.
    pub fn config(&self) -> &ObjectiveConfig {
        &self.config
    }

    /// Computes the loss of a batch and overwrites `gradients` with the gradient of `scale` times the rows' summed loss
    /// over as many rows as [`RowScale`] says. The banks stay as they are.
    ///
    /// # Panics
    /// When shapes do not agree with each other or exceed the sizes of the configuration.
    pub fn step(&mut self, batch: Batch, scale: f32, gradients: GradientsMut) -> LossReport {
        let banked = BankUse { samples: self.bank.len(), keep_logits: false };
        self.step_with(banked, batch, scale, gradients)
    }

    /// [`Objective::step`] and then, unless the loss is not finite, [`Objective::enqueue`] of the same batch, which
    /// does not make again the logits between the batch and the banks. Later steps are those after the two calls, to
    /// the rounding of `f64` sums.
    ///
    /// # Panics
    /// As [`Objective::step`].
    pub fn step_and_enqueue(&mut self, batch: Batch, scale: f32, gradients: GradientsMut) -> LossReport {
        let keep = self.config.keeps_logits();
        let banked = BankUse { samples: self.bank.len(), keep_logits: keep };
        let report = self.step_with(banked, batch, scale, gradients);
        if report.loss.is_finite() {
            self.enter(batch, keep);
        }
        report
    }

    /// [`Objective::step`] with the banks left out: whatever they hold is neither row nor column.
    ///
    /// # Panics
    /// As [`Objective::step`].
    pub fn step_without_banks(&mut self, batch: Batch, scale: f32, gradients: GradientsMut) -> LossReport {
        let banked = BankUse { samples: 0, keep_logits: false };
        self.step_with(banked, batch, scale, gradients)
    }

    fn step_with(
        &mut self,
        banked: BankUse,
        batch: Batch,
        scale: f32,
        gradients: GradientsMut,
    ) -> LossReport {
        let current = Current::new(batch, &self.config, &self.known_positives);
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
        let bank_rows = if self.config.banks_rows() { banked.samples } else { 0 };
        let bank_columns = if banked.samples > 0 { self.bank.live_columns() } else { 0 };
        let rows = n + bank_rows;
        let divisor = match self.config.row_scale {
            RowScale::All => rows,
            RowScale::Current => n,
        };
        let factor = f64::from(scale) / (divisor as f64 * f64::from(self.config.temperature));
        self.workers.iter_mut().for_each(|worker| worker.own_positives = 0);
        let Met { mass, left_out, masked_rows, rows_without_negatives } = current_rows(
            &self.config,
            &mut self.workers,
            &current,
            &self.bank,
            banked,
            factor,
            CurrentRows { losses: &mut self.losses, lse: &mut self.lse, gradient: gradients.queries },
        );
        let all_rows = AllRows {
            config: &self.config,
            current: &current,
            bank: &self.bank,
            bank_rows,
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
        let (bank_mass, in_batch_mass) = (&mass[..AGES], mass[CURRENT]);
        LossReport {
            loss: (current_loss + bank_loss) / rows as f64,
            current_rows_loss: current_loss / n as f64,
            rows,
            negatives_per_query: (current.columns() + bank_columns) as f64 - left_out as f64 / n as f64,
            bank_mass: bank_mass.iter().sum::<f64>() / n as f64,
            bank_mass_by_age: std::array::from_fn(|age| bank_mass[age] / n as f64),
            in_batch_mass: in_batch_mass / n as f64,
            bank_columns,
            own_positives_in_bank: self.workers.iter().map(|worker| worker.own_positives).sum(),
            masked_rows: masked_rows as f64 / n as f64,
            rows_without_negatives,
        }
    }

    /// Takes a batch into the banks: its newest samples up to the capacity, each with its hard negatives; the
    /// oldest samples leave. Nothing happens without a bank.
    ///
    /// # Panics
    /// When shapes do not agree with each other or exceed the sizes of the configuration.
    pub fn enqueue(&mut self, batch: Batch) {
        self.enter(batch, false);
    }

    /// The entry of a batch; `kept` when the workers hold its logits, from a step with the banks as they still are.
    fn enter(&mut self, batch: Batch, kept: bool) {
        let current = Current::new(batch, &self.config, &self.known_positives);
        let before = self.bank.live().end;
        self.bank.enter(&current);
        if let Some(sums) = &mut self.block_sums {
            // A batch larger than the bank enters in part only.
            let kept = kept && current.samples() <= self.config.bank_samples;
            sums.extend(&self.bank, before, if kept { &self.workers } else { &[] });
        }
    }

    /// Moves what is banked along with the encoder, after an update, and lets go what has been moved too far (see
    /// [`crate::BankDrift`]). `None`, and nothing happens, where banked representations stay as they entered.
    ///
    /// # Panics
    /// When the shapes of the probe do not agree with each other or exceed the sizes of the configuration.
    pub fn move_banks(&mut self, probe: Probe) -> Option<BankMovement> {
        let (how, field) = (self.config.compensation()?, self.field.as_mut()?);
        let drift = field.take(probe);
        let tile = (self.config.tile_room() / self.config.probe_vectors())
            .min(self.config.lines_in_cache(self.config.dim))
            .max(1);
        self.bank.carry(&mut self.workers, field, tile);
        let evicted = self.bank.lengthen_paths((2.0 * drift).sqrt());
        let mut as_they_were = how.one_encoder;
        if evicted > 0 {
            let front = self.bank.leave(evicted);
            as_they_were &= self.block_sums.as_mut().is_none_or(|sums| sums.shorten(&self.bank, front));
        }
        if !how.one_encoder {
            self.bank.score_again();
        }
        if !as_they_were {
            self.sum_again();
        }
        Some(BankMovement { drift, path: self.bank.longest_path(), evicted })
    }

    /// Makes the sums over banked columns from what the banks hold now.
    fn sum_again(&mut self) {
        self.bank.renumber();
        if let Some(sums) = &mut self.block_sums {
            sums.clear();
            if self.bank.len() > 0 {
                sums.extend(&self.bank, 0, &[]);
            }
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
            config.compensation().map_or(0, |how| 1 + u64::from(how.one_encoder)),
        ]
    }
}
