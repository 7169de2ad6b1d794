//! A run that goes: updates, records, checkpoints and evaluations, and what becomes of it when one of them fails.
//!
//! After each update its record is written, then a checkpoint where one is due, then the evaluation where one is due:
//! whatever happens in an evaluation, what was trained is there, and one that a kill took is made by the run that goes
//! on. A record or checkpoint that cannot be written is told and tried again after the next update; only at the end
//! of the run does it fail it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::checkpoint::{self, ModelFiles};
use crate::identity::RunIdentity;
use crate::loader::Loader;
use crate::output::{MODEL_FOLDER, OutputFolder};
use crate::run::{Observer, Outcome, update_record};
use crate::run_watch::RunWatch;
use crate::{RunRecorder, TrainConfig, TrainError, Trainer, UpdateRecord};

/// Everything a run works with.
pub(crate) struct Session<'a> {
    pub config: &'a TrainConfig,
    pub identity: &'a RunIdentity,
    pub files: ModelFiles<'a>,
    pub output: OutputFolder,
    pub trainer: Trainer,
    pub recorder: RunRecorder,
    pub watch: RunWatch,
    pub observer: &'a mut dyn Observer,
    pub saves: Saves,
    /// Records that could not be written at once.
    pub failed_records: u32,
    pub updates_per_epoch: f64,
    pub planned_bytes: usize,
}

impl Session<'_> {
    /// Trains to the end, or until the observer asks to stop.
    pub fn run(mut self, mut batches: Loader) -> Result<Outcome, TrainError> {
        let (first, updates) = (self.trainer.updates_done(), self.identity.updates);
        if first == updates {
            self.finish()?;
        }
        if first > 0 && self.evaluation_due(first) && !self.evaluated(first) {
            self.evaluate(first)?;
        }
        let mut last = None;
        for update in first + 1..=updates {
            let batch = match batches.next().expect("the loader prepares every update") {
                Ok(batch) => batch,
                Err(error) => {
                    // What was trained is not lost with the data; the first error is the one to tell.
                    _ = (update > first + 1).then(|| self.save(true));
                    return Err(error);
                }
            };
            let mut record = self.update(update, &batch)?;
            let stop = self.observer.stop_requested();
            let saved = if update == updates {
                Some(self.finish()?)
            } else if stop || self.saves.due(update) {
                self.save(stop)?
            } else {
                None
            };
            let evaluate = self.evaluation_due(update);
            if let (true, Some(checkpoint)) = (stop && (update < updates || evaluate), saved) {
                return Ok(Outcome::Stopped { update, checkpoint });
            }
            if evaluate {
                record.dev = self.evaluate(update)?;
            }
            last = Some(Box::new(record));
        }
        Ok(Outcome::Finished { model: self.output.path.join(MODEL_FOLDER), last })
    }

    fn update(
        &mut self,
        update: usize,
        batch: &[crate::TokenizedSample],
    ) -> Result<UpdateRecord, TrainError> {
        let started = Instant::now();
        let report = self.trainer.update(batch)?;
        let mut record = update_record(update, &report, started);
        record.epoch = update as f64 / self.updates_per_epoch;
        record.planned_bytes = self.planned_bytes;
        for warning in &self.watch.see(update, &report) {
            self.observer.warned(warning);
        }
        if let Err(error) = self.recorder.record(&record) {
            self.failed_records += 1;
            tell(self.failed_records, self.observer, &error.into());
        }
        self.observer.updated(&record, self.identity.updates);
        Ok(record)
    }

    /// Writes a checkpoint. One that cannot be written is told and due again, unless it `must` be.
    fn save(&mut self, must: bool) -> Result<Option<PathBuf>, TrainError> {
        self.trainer.check_weights()?;
        // Every update of a checkpoint has its record.
        let saved =
            self.recorder.sync().map_err(TrainError::from).and_then(|()| {
                checkpoint::save(&self.output.path, self.identity, &self.trainer, &self.files)
            });
        match saved {
            Ok(path) => {
                self.saves.saved();
                self.failed_records = 0;
                self.observer.saved(&path);
                if self.config.save_total_limit > 0 {
                    self.keep(self.config.save_total_limit);
                }
                Ok(Some(path))
            }
            Err(error) if must => Err(error),
            Err(error) => {
                self.saves.failures += 1;
                tell(self.saves.failures, self.observer, &error);
                Ok(None)
            }
        }
    }

    /// Writes the model and, where it is not there, the last checkpoint. Returns the checkpoint.
    fn finish(&mut self) -> Result<PathBuf, TrainError> {
        self.trainer.check_weights()?;
        let model = checkpoint::save_model(&self.output.path.join(MODEL_FOLDER), &self.trainer, &self.files);
        // Where one of the two finds no space, the other may.
        let checkpoint = match checkpoint::newest(&self.output.path)? {
            Some(there) if there == checkpoint::path(&self.output.path, self.trainer.updates_done()) => there,
            Some(_) | None => self.save(true)?.expect("a checkpoint that must be written"),
        };
        model?;
        if self.config.save_total_limit > 0 {
            self.keep(1);
        }
        Ok(checkpoint)
    }

    fn keep(&mut self, checkpoints: usize) {
        if let Err(error) = checkpoint::keep(&self.output.path, checkpoints) {
            tell(1, self.observer, &error);
        }
    }

    fn evaluation_due(&self, update: usize) -> bool {
        let steps = self.config.eval_steps;
        let due = update == self.identity.updates || steps > 0 && update.is_multiple_of(steps);
        self.config.eval_data.is_some() && due
    }

    /// Whether the evaluation after `update`, from which the run goes on, was made and stored.
    fn evaluated(&self, update: usize) -> bool {
        self.recorder.evaluated(update) && (update < self.identity.updates || self.observer.measured())
    }

    /// Evaluates and records. One that fails is told and the run goes on, unless it is the last.
    fn evaluate(&mut self, update: usize) -> Result<BTreeMap<String, f64>, TrainError> {
        let last = update == self.identity.updates;
        let evaluated = self.observer.evaluate(&mut self.trainer, last).map_err(TrainError::Evaluation);
        let recorded = evaluated.and_then(|dev| {
            self.recorder.record_evaluation(update, &dev)?;
            Ok(dev)
        });
        match recorded {
            Ok(dev) => {
                self.observer.evaluated(update, &dev);
                Ok(dev)
            }
            Err(error) if last => Err(error),
            Err(error) => {
                tell(1, self.observer, &error);
                Ok(Default::default())
            }
        }
    }
}

/// When checkpoints are due.
pub(crate) struct Saves {
    updates: usize,
    time: Option<Duration>,
    last: Instant,
    /// Tries that failed since the last checkpoint.
    failures: u32,
}

impl Saves {
    /// Every so many updates and every so many minutes, as the configuration says; from now on.
    pub fn new(config: &TrainConfig) -> Self {
        let time = Duration::try_from_secs_f64(60.0 * config.save_minutes).ok();
        Self {
            updates: config.save_steps,
            time: time.filter(|time| !time.is_zero()),
            last: Instant::now(),
            failures: 0,
        }
    }

    fn due(&self, update: usize) -> bool {
        let by_updates = self.updates > 0 && update.is_multiple_of(self.updates);
        self.failures > 0 || by_updates || self.time.is_some_and(|time| self.last.elapsed() >= time)
    }

    fn saved(&mut self) {
        (self.last, self.failures) = (Instant::now(), 0);
    }
}

/// Tells a failure that is tried again: the first, second, fourth, … time, as a disk may stay full for long.
fn tell(times: u32, observer: &mut dyn Observer, error: &TrainError) {
    if times.is_power_of_two() {
        observer.failed_for_now(error);
    }
}
