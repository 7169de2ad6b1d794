//! What follows from the settings: sizes, batches, updates.

use contaccum_data::{BatchConfig, Positives, TrainingSource};

use crate::recipe::setting;
use crate::{ConfigError, TrainConfig};

impl TrainConfig {
    /// Where the training rows come from: a folder is read as BEIR, a file by its content.
    ///
    /// # Errors
    /// `corpus`, `columns` or `hard_negatives_file` beside data of the other kind.
    pub fn source(&self) -> Result<TrainingSource, ConfigError> {
        if self.train.is_dir() {
            if self.corpus.is_some() {
                return setting("corpus", "given beside a BEIR folder, which has its own (drop it)");
            }
            if self.columns.is_some() {
                return setting(
                    "columns",
                    "given beside a folder, whose files are known by their names (drop it)",
                );
            }
            return Ok(TrainingSource::Beir {
                folder: self.train.clone(),
                split: self.split.clone(),
                hard_negatives: self.hard_negatives_file.clone(),
            });
        }
        if self.hard_negatives_file.is_some() {
            return setting(
                "hard_negatives_file",
                "given beside a file whose rows bring their own (drop it)",
            );
        }
        Ok(TrainingSource::File {
            path: self.train.clone(),
            corpus: self.corpus.clone(),
            columns: self.columns.clone().unwrap_or_default(),
        })
    }

    /// Rows of an update: local batch size times accumulation steps.
    pub fn total_batch_size(&self) -> usize {
        self.local_batch_size * self.gradient_accumulation_steps
    }

    /// How rows become batches; `positives` is the rule of the data where none is given.
    pub fn batches(&self, positives: Positives) -> BatchConfig {
        let positives = if self.shuffle { positives } else { Positives::First };
        BatchConfig {
            seed: self.seed,
            total_batch: self.total_batch_size(),
            hard_negatives: self.hard_negatives,
            shuffle: self.shuffle,
            positives: self.positives.unwrap_or(positives),
            no_duplicates: self.no_duplicates,
            drop_last: self.drop_last,
        }
    }

    /// Updates of the whole run, given those of an epoch (of a [`BatchPlan`](contaccum_data::BatchPlan)).
    pub fn updates(&self, updates_per_epoch: usize) -> usize {
        let by_epochs = || self.epochs.unwrap_or(1.0) * updates_per_epoch as f64;
        self.max_steps.unwrap_or_else(|| by_epochs().round() as usize)
    }

    /// Updates of warm-up in a run of `updates` updates; a ratio is rounded up, as transformers does.
    pub fn warmup_updates(&self, updates: usize) -> usize {
        match self.warmup_ratio {
            Some(ratio) => (ratio * updates as f64).ceil() as usize,
            None => self.warmup_steps.unwrap_or(0),
        }
    }

    /// Learning rate of update `update` (0 is the first) of `updates`, the first `warmup` of them warming up.
    pub(crate) fn learning_rate_at(&self, update: usize, updates: usize, warmup: usize) -> f64 {
        let least = if update < warmup { 0.0 } else { self.min_learning_rate.unwrap_or(0.0) };
        least + (self.learning_rate - least) * self.scheduler.factor(update, updates, warmup)
    }

    /// Passages of a row: its positive and its hard negatives.
    pub fn passages_per_row(&self) -> usize {
        1 + self.hard_negatives
    }

    /// Tokens of a row at its longest: its query and its passages.
    pub fn row_tokens(&self) -> usize {
        self.query_max_length + self.passages_per_row() * self.passage_max_length
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::testing::config;

    #[test]
    fn updates_come_from_epochs_or_from_steps() {
        let steps = |recipe: &str| config(recipe).updates(7);
        assert_eq!(steps(""), 7);
        assert_eq!(steps("epochs = 2.5"), 18);
        assert_eq!(steps("max_steps = 300"), 300);
        assert_eq!(config("warmup_ratio = 0.1").warmup_updates(15), 2);
        assert_eq!(config("warmup_steps = 4").warmup_updates(15), 4);
    }

    #[test]
    fn the_learning_rate_rises_from_zero_and_falls_to_its_least() {
        let config = config("learning_rate = 1.0\nmin_learning_rate = 0.5");
        let rates: Vec<f64> = (0..=6).map(|update| config.learning_rate_at(update, 6, 2)).collect();
        assert_eq!(rates, [0.0, 0.5, 1.0, 0.875, 0.75, 0.625, 0.5]);
    }

    #[test]
    fn a_folder_is_read_as_beir_and_a_file_by_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let beir = TrainConfig { train: folder.path().into(), ..config("") };
        assert!(matches!(beir.source().unwrap(), TrainingSource::Beir { .. }));
        assert!(matches!(config("").source().unwrap(), TrainingSource::File { .. }));
        let columns = Some("query=q".parse().unwrap());
        let misplaced = TrainConfig { columns, ..beir.clone() }.source().unwrap_err().to_string();
        assert!(misplaced.contains("columns"), "{misplaced}");
        let misplaced = TrainConfig { corpus: Some("c".into()), ..beir };
        assert!(misplaced.source().unwrap_err().to_string().contains("corpus"));
        let misplaced = config("hard_negatives_file = \"n.tsv\"").source().unwrap_err().to_string();
        assert!(misplaced.contains("hard_negatives_file"), "{misplaced}");
    }
}
