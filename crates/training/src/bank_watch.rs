//! What a user should know about the banks of a run, told once each, with the numbers.

use std::fmt;

use crate::UpdateReport;

/// Updates in a row that let samples go before it is told.
const EVICTING_UPDATES: usize = 10;

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
    /// The run brings fewer samples than the banks hold: they are never full.
    LargerThanRun {
        /// Samples that the banks could hold.
        bank_samples: usize,
        /// Samples that enter them in the whole run.
        entering: usize,
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
    /// The encoder changes so fast that the banks do not fill.
    NeverFull {
        /// The update.
        update: usize,
        /// Samples that left over the last updates because they had been moved too far.
        evicted: usize,
        /// Samples in the banks.
        held: usize,
        /// Their capacity.
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
            Self::LargerThanRun { bank_samples, entering } => write!(
                f,
                "bank larger than the run: {bank_samples} samples, but {entering} enter them in the whole run (set \
                 memory_bank_size to {entering} or less, or train longer)"
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
            Self::NeverFull { update, evicted, held, bank_samples } => write!(
                f,
                "banks that do not fill: in the {EVICTING_UPDATES} updates up to {update}, {evicted} samples left the \
                 banks because the encoder had changed too much since they entered; {held} of {bank_samples} are there \
                 (lower learning_rate, or set memory_bank_size to what stays; told once, every count is recorded)"
            ),
        }
    }
}

impl BankWarning {
    /// What is known beforehand of banks of `bank_samples` that `entering` samples of `rows` rows enter.
    pub(crate) fn beforehand(bank_samples: usize, entering: usize, rows: usize) -> Option<Self> {
        if bank_samples == 0 {
            None
        } else if entering < bank_samples {
            Some(Self::LargerThanRun { bank_samples, entering })
        } else if rows < bank_samples {
            Some(Self::LargerThanEpoch { bank_samples, rows })
        } else {
            None
        }
    }
}

/// Follows the updates of a run.
#[derive(Debug)]
pub(crate) struct BankWatch {
    bank_samples: usize,
    masked: bool,
    told_own_positive: bool,
    told_never_full: bool,
    /// Samples that left in the last updates, each of which let some go, and how many updates that were.
    evicted: usize,
    updates: usize,
}

impl BankWatch {
    /// For banks of `bank_samples`; `masked` says whether own positives are left out.
    pub fn new(bank_samples: usize, masked: bool) -> Self {
        Self {
            bank_samples,
            masked,
            told_own_positive: false,
            told_never_full: false,
            evicted: 0,
            updates: 0,
        }
    }

    /// What `update`, which came to `report`, is a reason to say.
    pub fn see(&mut self, update: usize, report: &UpdateReport) -> Vec<BankWarning> {
        [self.own_positive(update, report), self.never_full(update, report)].into_iter().flatten().collect()
    }

    fn own_positive(&mut self, update: usize, report: &UpdateReport) -> Option<BankWarning> {
        let pairs = report.own_positives_in_bank;
        if pairs == 0 || std::mem::replace(&mut self.told_own_positive, true) {
            return None;
        }
        Some(BankWarning::OwnPositive { update, pairs, queries: report.rows, masked: self.masked })
    }

    fn never_full(&mut self, update: usize, report: &UpdateReport) -> Option<BankWarning> {
        let evicted = report.bank_movement.map_or(0, |movement| movement.evicted);
        if evicted == 0 {
            (self.evicted, self.updates) = (0, 0);
            return None;
        }
        self.evicted += evicted;
        self.updates += 1;
        if self.updates < EVICTING_UPDATES || std::mem::replace(&mut self.told_never_full, true) {
            return None;
        }
        let (evicted, held, bank_samples) = (self.evicted, report.bank_samples, self.bank_samples);
        Some(BankWarning::NeverFull { update, evicted, held, bank_samples })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BankMovement;

    /// A bank of 24 samples of 64, of which an update let some go.
    fn report(evicted: usize, own_positives_in_bank: u64) -> UpdateReport {
        UpdateReport {
            negatives_per_query: 71.0,
            bank_mass_by_age: Some([0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]),
            bank_columns: 64,
            own_positives_in_bank,
            bank_samples: 24,
            bank_movement: Some(BankMovement { drift: 0.01, path: 0.2, evicted }),
            rows: 16,
            ..crate::run_watch::tests::report()
        }
    }

    fn told(watch: &mut BankWatch, reports: impl Iterator<Item = UpdateReport>) -> Vec<BankWarning> {
        reports.enumerate().flat_map(|(update, report)| watch.see(update + 1, &report)).collect()
    }

    #[test]
    fn a_bank_is_told_to_be_larger_than_the_run_or_than_an_epoch() {
        let told = |samples, entering, rows| BankWarning::beforehand(samples, entering, rows);
        assert_eq!(
            told(512, 320, 100),
            Some(BankWarning::LargerThanRun { bank_samples: 512, entering: 320 })
        );
        assert_eq!(told(512, 512, 100), Some(BankWarning::LargerThanEpoch { bank_samples: 512, rows: 100 }));
        assert_eq!((told(512, 512, 512), told(0, 5, 5)), (None, None));
    }

    #[test]
    fn own_positives_are_told_once_with_what_is_done_about_them() {
        for (masked, words) in [(true, "left out"), (false, "mask_false_negatives")] {
            let mut watch = BankWatch::new(64, masked);
            let found = told(&mut watch, [0, 3, 5].map(|pairs| report(0, pairs)).into_iter());
            assert_eq!(found, [BankWarning::OwnPositive { update: 2, pairs: 3, queries: 16, masked }]);
            let text = found[0].to_string();
            assert!(text.contains(words) && !text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn banks_that_let_samples_go_update_after_update_are_told_once() {
        let mut watch = BankWatch::new(64, true);
        let found = told(&mut watch, (0..40).map(|_| report(8, 0)));
        assert_eq!(found, [BankWarning::NeverFull { update: 10, evicted: 80, held: 24, bank_samples: 64 }]);
        let text = found[0].to_string();
        assert!(text.contains("24 of 64") && !text.contains('\n'), "{text}");
    }

    #[test]
    fn banks_that_lose_samples_now_and_then_or_are_not_moved_are_not_told() {
        let mut watch = BankWatch::new(64, true);
        assert!(told(&mut watch, (0..40).map(|update| report(update % 10, 0))).is_empty());
        let still = UpdateReport { bank_movement: None, ..report(0, 0) };
        assert!(told(&mut watch, (0..40).map(|_| still.clone())).is_empty());
    }
}
