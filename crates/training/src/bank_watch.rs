//! What a user should know about the banks of a run, told once each, with the numbers.

use std::fmt;

use crate::UpdateReport;

/// Updates over which mass is summed before banks are called stale.
const STALE_UPDATES: usize = 10;

/// Banks are called stale when a column of the oldest eighth holds less than this share of the softmax mass that a
/// negative of the batch holds, both on average. Of samples that are the same but for the encoder's age, the share
/// is about 1.
const STALE_SHARE: f64 = 1e-3;

/// Something about the banks that may surprise. Training goes on.
#[derive(Clone, Debug, PartialEq)]
pub enum BankWarning {
    /// The banks are larger than the training rows: they hold samples more than once.
    LargerThanEpoch {
        /// Samples in a full bank.
        bank_samples: usize,
        /// Training rows.
        rows: usize,
    },
    /// Passages known to be relevant to current queries are in the banks.
    OwnPositive {
        /// The update.
        update: usize,
        /// Pairs of a current query and a banked column that holds such a passage, in that update.
        pairs: u64,
        /// Current queries of the update.
        queries: usize,
        /// Whether they are left out of the negatives.
        masked: bool,
    },
    /// Softmax mass on the oldest eighth of the banks has all but vanished.
    Stale {
        /// The update.
        update: usize,
        /// Mass of a banked column of the oldest eighth over that of a negative of the batch.
        share: f64,
        /// Samples in the banks.
        bank_samples: usize,
    },
}

impl fmt::Display for BankWarning {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::LargerThanEpoch { bank_samples, rows } => write!(
                f,
                "bank larger than an epoch: {bank_samples} samples, but the data has {rows} rows, so a sample is in \
                 it more than once, older copies from older encoders (set memory_bank_size to {rows} or less)"
            ),
            Self::OwnPositive { update, pairs, queries, masked } => {
                let (done, remedy) = match masked {
                    true => ("they are left out of the query's negatives", "nothing to do"),
                    false => ("they count as negatives of that query", "mask_false_negatives = true"),
                };
                write!(
                    f,
                    "known positives in the bank: at update {update}, {pairs} banked passages were relevant to one \
                     of {queries} current queries; {done} ({remedy}; told once, every count is recorded)"
                )
            }
            Self::Stale { update, share, bank_samples } => write!(
                f,
                "stale banks: up to update {update}, a passage of the oldest eighth of {bank_samples} banked samples \
                 held {share:.1e} of the softmax mass of a negative of the batch (lower memory_bank_size or \
                 learning_rate, or raise memory_bank_warmup)"
            ),
        }
    }
}

/// Follows the updates of a run.
#[derive(Debug)]
pub(crate) struct BankWatch {
    bank_samples: usize,
    masked: bool,
    told_own_positive: bool,
    told_stale: bool,
    updates: usize,
    oldest: f64,
    in_batch: f64,
}

impl BankWatch {
    /// For banks of `bank_samples`; `masked` says whether own positives are left out.
    pub fn new(bank_samples: usize, masked: bool) -> Self {
        Self {
            bank_samples,
            masked,
            told_own_positive: false,
            told_stale: false,
            updates: 0,
            oldest: 0.0,
            in_batch: 0.0,
        }
    }

    /// What `update`, which came to `report`, is a reason to say.
    pub fn see(&mut self, update: usize, report: &UpdateReport) -> Vec<BankWarning> {
        [self.own_positive(update, report), self.stale(update, report)].into_iter().flatten().collect()
    }

    fn own_positive(&mut self, update: usize, report: &UpdateReport) -> Option<BankWarning> {
        let pairs = report.own_positives_in_bank;
        if pairs == 0 || std::mem::replace(&mut self.told_own_positive, true) {
            return None;
        }
        Some(BankWarning::OwnPositive { update, pairs, queries: report.rows, masked: self.masked })
    }

    fn stale(&mut self, update: usize, report: &UpdateReport) -> Option<BankWarning> {
        let mass = report.bank_mass_by_age?;
        let in_batch_negatives = report.negatives_per_query - report.bank_columns as f64;
        if self.told_stale || report.bank_samples < self.bank_samples || in_batch_negatives < 0.5 {
            return None;
        }
        self.oldest += mass[0] / (report.bank_columns as f64 / mass.len() as f64);
        self.in_batch += report.in_batch_mass / in_batch_negatives;
        self.updates += 1;
        if self.updates < STALE_UPDATES {
            return None;
        }
        let share = self.oldest / self.in_batch;
        (self.updates, self.oldest, self.in_batch) = (0, 0.0, 0.0);
        self.told_stale = share < STALE_SHARE;
        self.told_stale.then_some(BankWarning::Stale { update, share, bank_samples: self.bank_samples })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GradientNorms;

    /// A full bank of 64 samples, 7 other negatives.
    fn report(oldest: f64, own_positives_in_bank: u64) -> UpdateReport {
        UpdateReport {
            micro_losses: vec![1.0],
            current_rows_loss: 1.0,
            gradient_norms: GradientNorms { query: 1.0, passage: 1.0, global: 1.0 },
            learning_rate: 1.0,
            negatives_per_query: 71.0,
            bank_mass_by_age: Some([oldest, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]),
            in_batch_mass: 0.1,
            bank_columns: 64,
            own_positives_in_bank,
            masked_rows: 0.0,
            rows_without_negatives: 0,
            bank_samples: 64,
            rows: 16,
            tokens: 1,
            objective_seconds: 0.0,
        }
    }

    fn told(watch: &mut BankWatch, reports: impl Iterator<Item = UpdateReport>) -> Vec<BankWarning> {
        reports.enumerate().flat_map(|(update, report)| watch.see(update + 1, &report)).collect()
    }

    #[test]
    fn own_positives_are_told_once_with_what_is_done_about_them() {
        for (masked, words) in [(true, "left out"), (false, "mask_false_negatives")] {
            let mut watch = BankWatch::new(64, masked);
            let found = told(&mut watch, [0, 3, 5].map(|pairs| report(0.1, pairs)).into_iter());
            assert_eq!(found, [BankWarning::OwnPositive { update: 2, pairs: 3, queries: 16, masked }]);
            let text = found[0].to_string();
            assert!(text.contains(words) && !text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn a_bank_whose_oldest_eighth_holds_no_mass_is_told_once_to_be_stale() {
        let mut watch = BankWatch::new(64, true);
        let found = told(&mut watch, (0..40).map(|_| report(1e-6, 0)));
        let [BankWarning::Stale { update: STALE_UPDATES, share, bank_samples: 64 }] = found[..] else {
            panic!("{found:?}");
        };
        // A column of the eighth holds 1e-6 / 8, a negative of the batch 0.1 / 7.
        assert!((share - 7.0 * 1e-5 / 8.0).abs() < 1e-12, "{share}");
    }

    #[test]
    fn a_bank_that_is_used_filling_or_left_out_is_not_stale() {
        let still = |report: &dyn Fn() -> UpdateReport| {
            told(&mut BankWatch::new(64, true), (0..40).map(|_| report())).is_empty()
        };
        assert!(still(&|| report(1e-3, 0)));
        assert!(still(&|| UpdateReport { bank_samples: 63, ..report(0.0, 0) }));
        assert!(still(&|| UpdateReport { bank_mass_by_age: None, ..report(0.0, 0) }));
    }
}
