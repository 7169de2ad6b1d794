//! What a query is compared with: of a method in general, and of a run over given data at its end.

use crate::{ConfigError, Enqueue, TrainConfig};

/// Negatives of a query at the last micro-step of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negatives {
    /// Columns of its row but its own, a mean.
    pub per_query: usize,
    /// Samples in the banks.
    pub bank_samples: usize,
    /// The most they could hold.
    pub bank_capacity: usize,
}

impl TrainConfig {
    /// Negatives of one current query once the banks are full: every column of its row but its own.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn negatives_per_query(&self) -> Result<usize, ConfigError> {
        let hard = self.hard_negatives as f64;
        Ok(self.negatives_after(usize::MAX, hard)?.per_query)
    }

    /// Negatives of one current query at the end of a run of `updates` updates, whose rows bring `hard_per_row` hard
    /// negatives on average: banks hold no more than has entered them.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn negatives_after(&self, updates: usize, hard_per_row: f64) -> Result<Negatives, ConfigError> {
        let point = self.resolve()?;
        let samples = point.micro_batch_size;
        // The last micro-step does not see itself in the banks, nor its update where that enters as one.
        let before = match (point.keep_past, self.memory_bank_enqueue) {
            (false, _) => samples * (point.micro_steps - 1),
            (true, Enqueue::MicroBatch) => {
                self.total_batch_size().saturating_mul(updates).saturating_sub(samples)
            }
            (true, Enqueue::Update) => self.total_batch_size().saturating_mul(updates.saturating_sub(1)),
        };
        let banked = point.bank_samples.min(before);
        let positives = samples + if point.bank_passages { banked } else { 0 };
        let hard = samples + if point.bank_hard_negatives { banked } else { 0 };
        let per_query = positives - 1 + (hard as f64 * hard_per_row).round() as usize;
        Ok(Negatives { per_query, bank_samples: banked, bank_capacity: point.bank_samples })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Method;

    #[test]
    fn banks_hold_no_more_than_has_entered_them_and_rows_bring_the_hard_negatives_they_have() {
        let config = TrainConfig {
            local_batch_size: 4,
            gradient_accumulation_steps: 2,
            memory_bank_size: Some(512),
            hard_negatives: 2,
            ..TrainConfig::default()
        };
        let after = |config: &TrainConfig, updates, hard| {
            let found = config.negatives_after(updates, hard).unwrap();
            (found.per_query, found.bank_samples)
        };
        assert_eq!(config.negatives_per_query().unwrap(), 1547);
        assert_eq!(after(&config, 1000, 0.0), (515, 512));
        assert_eq!(after(&config, 1000, 0.5), (515 + 258, 512));
        // Three updates of eight rows, the last four of which see the others.
        assert_eq!(after(&config, 3, 0.0), (4 + 20 - 1, 20));
        let at_once = TrainConfig { memory_bank_enqueue: Enqueue::Update, ..config.clone() };
        assert_eq!(after(&at_once, 3, 0.0), (4 + 16 - 1, 16));
        let cleared = TrainConfig { keep_past: Some(false), ..config };
        assert_eq!(after(&cleared, 3, 0.0), (4 + 4 - 1, 4));
        let without = TrainConfig { method: Method::GradCache, ..TrainConfig::default() };
        assert_eq!(after(&without, 3, 0.0), (127, 0));
    }
}
