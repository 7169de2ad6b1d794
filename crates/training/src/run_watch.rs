//! What a user should know about a run whose loss teaches nothing, or less than its settings say: told once each, with
//! the number and what to do.

use std::fmt;

use crate::bank_watch::BankWatch;
use crate::{BankWarning, UpdateReport};

/// A loss is called that of equal vectors when it is this close to ln N, relatively: masks leave rows with different N.
const UNIFORM: f64 = 1e-2;

/// A gradient is called none below this share of the largest one of the run ...
const VANISHED_SHARE: f64 = 1e-3;

/// ... or below this norm: what rounding leaves of a gradient that is zero.
const VANISHED_NORM: f64 = 1e-4;

/// Something about a run that may surprise. Training goes on.
#[derive(Clone, Debug, PartialEq)]
pub enum RunWarning {
    /// Something about its banks.
    Bank(BankWarning),
    /// Hard negatives are asked for, and no row has one.
    NoHardNegatives {
        /// Asked for, for each row.
        wanted: usize,
        /// Training rows.
        rows: usize,
    },
    /// The learning rate never reaches its value.
    WarmupLongerThanRun {
        /// Updates of warm-up.
        warmup: usize,
        /// Updates of the run.
        updates: usize,
    },
    /// The learning rate is 0 throughout.
    NoLearningRate,
    /// Every row has the same positive passage.
    OnePositive {
        /// Training rows.
        rows: usize,
        /// Whether the passage is left out of the other rows' negatives.
        masked: bool,
    },
    /// No row of an update had a negative.
    NoNegatives {
        /// The update.
        update: usize,
        /// Its rows.
        rows: usize,
        /// Rows whose negatives were all left out as known to be relevant.
        masked_rows: usize,
    },
    /// The loss is that of vectors which are all equal, and its gradient vanishes.
    AllEqual {
        /// The update.
        update: usize,
        /// The loss over current rows.
        loss: f64,
        /// Negatives of a query.
        negatives: f64,
        /// The global gradient norm.
        grad_norm: f64,
    },
    /// One of two encoders gets no gradient.
    OneSided {
        /// The update.
        update: usize,
        /// The encoder that gets none.
        without: &'static str,
        /// The gradient norm of the other.
        grad_norm: f64,
    },
}

impl fmt::Display for RunWarning {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Bank(warning) => warning.fmt(f),
            Self::NoHardNegatives { wanted, rows } => write!(
                f,
                "no hard negatives: {wanted} a row are asked for, but none of the {rows} rows has one (give \
                 hard_negatives_file or data that has them, or set hard_negatives to 0)"
            ),
            Self::WarmupLongerThanRun { warmup, updates } => {
                let share = 100.0 * updates.saturating_sub(1) as f64 / *warmup as f64;
                write!(
                    f,
                    "warm-up longer than the run: {warmup} updates of {updates}, so the learning rate reaches \
                     {share:.0} % of learning_rate (lower warmup_steps or warmup_ratio, or train longer)"
                )
            }
            Self::NoLearningRate => {
                write!(f, "nothing is learned: learning_rate is 0 (raise it; the default is 2e-5)")
            }
            Self::OnePositive { rows, masked } => {
                let (done, remedy) = match masked {
                    true => ("no row has a negative of its batch", "give data with different passages"),
                    false => (
                        "it is its own negative",
                        "give data with different passages, and keep \
                               mask_false_negatives",
                    ),
                };
                write!(f, "one passage: all {rows} rows have the same positive, so {done} ({remedy})")
            }
            Self::NoNegatives { update, rows, masked_rows: 0 } => write!(
                f,
                "no negatives: at update {update} none of {rows} rows had any, so its loss is 0 and teaches nothing \
                 (raise local_batch_size, give hard_negatives, or use a method with banks)"
            ),
            Self::NoNegatives { update, rows, masked_rows } => write!(
                f,
                "all negatives left out: at update {update} every passage that {masked_rows} of {rows} rows met is \
                 known to be relevant to them, and no row had a negative, so its loss is 0 and teaches nothing (remove \
                 rows that repeat one another, raise local_batch_size, or set no_duplicates)"
            ),
            Self::AllEqual { update, loss, negatives, grad_norm } => write!(
                f,
                "all vectors alike: at update {update} the loss {loss:.4} is ln({:.0}), that of guessing, with a \
                 gradient norm of {grad_norm:.1e} (if the texts differ the encoder has collapsed: start again with a \
                 lower learning_rate, or with memory_bank_warmup or a smaller memory_bank_size)",
                negatives + 1.0
            ),
            Self::OneSided { update, without, grad_norm } => write!(
                f,
                "one encoder stands still: at update {update} the gradient of the {without} encoder is 0, that of the \
                 other {grad_norm:.1e}, so grad_norm_ratio is recorded as null (if it stays so: bank queries and \
                 passages, as method = \"contaccum\" does)"
            ),
        }
    }
}

/// Follows the updates of a run: its banks, and losses that teach nothing.
#[derive(Debug)]
pub(crate) struct RunWatch {
    banks: BankWatch,
    told: [bool; 3],
    largest_norm: f64,
}

impl RunWatch {
    /// For banks of `bank_samples`; `masked` says whether what is known to be relevant is left out.
    pub fn new(bank_samples: usize, masked: bool) -> Self {
        Self { banks: BankWatch::new(bank_samples, masked), told: [false; 3], largest_norm: 0.0 }
    }

    /// What `update`, which came to `report`, is a reason to say.
    pub fn see(&mut self, update: usize, report: &UpdateReport) -> Vec<RunWarning> {
        self.largest_norm = self.largest_norm.max(report.gradient_norms.global);
        let found = [
            self.no_negatives(update, report),
            self.all_equal(update, report),
            self.one_sided(update, report),
        ];
        let told = self.told.iter_mut().zip(found);
        let of_losses = told.filter_map(|(told, found)| found.filter(|_| !std::mem::replace(told, true)));
        self.banks.see(update, report).into_iter().map(RunWarning::Bank).chain(of_losses).collect()
    }

    fn no_negatives(&self, update: usize, report: &UpdateReport) -> Option<RunWarning> {
        let (rows, lonely) = (report.rows, report.rows_without_negatives);
        // The first rows of a run fill empty banks.
        let waiting = update == 1 && report.masked_rows == 0.0 && report.bank_samples > 0;
        (lonely == rows && !waiting).then(|| RunWarning::NoNegatives {
            update,
            rows,
            masked_rows: (report.masked_rows * rows as f64).round() as usize,
        })
    }

    fn all_equal(&self, update: usize, report: &UpdateReport) -> Option<RunWarning> {
        let grad_norm = report.gradient_norms.global;
        let vanished = grad_norm < VANISHED_NORM || grad_norm < VANISHED_SHARE * self.largest_norm;
        (vanished && report.negatives_per_query > 0.0 && report.distance_from_uniform < UNIFORM).then_some(
            RunWarning::AllEqual {
                update,
                loss: report.current_rows_loss,
                negatives: report.negatives_per_query,
                grad_norm,
            },
        )
    }

    fn one_sided(&self, update: usize, report: &UpdateReport) -> Option<RunWarning> {
        let norms = report.gradient_norms;
        let (without, grad_norm) = match (norms.query == 0.0, norms.passage == 0.0) {
            (true, false) => ("query", norms.passage),
            (false, true) => ("passage", norms.query),
            (true, true) | (false, false) => return None,
        };
        Some(RunWarning::OneSided { update, without, grad_norm })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::GradientNorms;

    /// An update that is as it should be: eight rows, seven negatives each.
    pub(crate) fn report() -> UpdateReport {
        UpdateReport {
            micro_losses: vec![1.0],
            micro_rows: vec![8],
            current_rows_loss: 1.0,
            gradient_norms: GradientNorms { query: 1.0, passage: 1.0, global: 1.0 },
            learning_rate: 1.0,
            negatives_per_query: 7.0,
            distance_from_uniform: 0.5,
            bank_mass_by_age: None,
            in_batch_mass: 0.1,
            bank_columns: 0,
            own_positives_in_bank: 0,
            masked_rows: 0.0,
            rows_without_negatives: 0,
            bank_samples: 0,
            bank_movement: None,
            rows: 8,
            tokens: 1,
            objective_seconds: 0.0,
        }
    }

    fn norms(query: f64, passage: f64) -> GradientNorms {
        GradientNorms { query, passage, global: query.hypot(passage) }
    }

    fn told(reports: &[UpdateReport]) -> Vec<RunWarning> {
        let mut watch = RunWatch::new(0, true);
        (1..).zip(reports).flat_map(|(update, report)| watch.see(update, report)).collect()
    }

    #[test]
    fn an_update_whose_rows_have_no_negative_is_told_once_and_says_whether_they_were_masked() {
        let none = UpdateReport { rows_without_negatives: 8, current_rows_loss: 0.0, ..report() };
        let masked = UpdateReport { masked_rows: 1.0, ..none.clone() };
        let some = UpdateReport { rows_without_negatives: 7, ..report() };
        for (found, masked_rows, words) in
            [(&none, 0, "local_batch_size"), (&masked, 8, "known to be relevant")]
        {
            let warnings = told(&[report(), some.clone(), found.clone(), found.clone()]);
            assert_eq!(warnings, [RunWarning::NoNegatives { update: 3, rows: 8, masked_rows }]);
            assert!(warnings[0].to_string().contains(words), "{}", warnings[0]);
        }
        // A first row of one that fills an empty bank.
        assert_eq!(told(&[UpdateReport { bank_samples: 1, ..none }]), []);
    }

    #[test]
    fn a_loss_of_ln_n_is_told_when_its_gradient_vanishes_and_only_then() {
        let alike = UpdateReport {
            current_rows_loss: 8f64.ln(),
            distance_from_uniform: 1e-4,
            gradient_norms: norms(1e-4, 1e-4),
            ..report()
        };
        let warnings = told(&[report(), alike.clone(), alike.clone()]);
        let [RunWarning::AllEqual { update: 2, .. }] = warnings[..] else { panic!("{warnings:?}") };
        let text = warnings[0].to_string();
        assert!(text.contains("2.0794 is ln(8)") && text.contains("1.4e-4"), "{text}");
        // Fresh weights guess as well, with a gradient; a solved batch has none, at another loss.
        assert_eq!(told(&[UpdateReport { gradient_norms: norms(0.3, 0.3), ..alike.clone() }]), []);
        let solved = UpdateReport { distance_from_uniform: 1.0, ..alike };
        assert_eq!(told(&[report(), solved]), []);
    }

    #[test]
    fn an_encoder_without_gradient_is_named() {
        let still = UpdateReport { gradient_norms: norms(0.0, 2.0), ..report() };
        let warnings = told(&[still.clone(), still]);
        assert_eq!(warnings, [RunWarning::OneSided { update: 1, without: "query", grad_norm: 2.0 }]);
    }

    #[test]
    fn every_warning_is_one_line_with_a_remedy() {
        let warnings = [
            RunWarning::NoHardNegatives { wanted: 2, rows: 5 },
            RunWarning::WarmupLongerThanRun { warmup: 100, updates: 31 },
            RunWarning::NoLearningRate,
            RunWarning::OnePositive { rows: 5, masked: true },
            RunWarning::OnePositive { rows: 5, masked: false },
            RunWarning::NoNegatives { update: 1, rows: 5, masked_rows: 0 },
            RunWarning::OneSided { update: 1, without: "query", grad_norm: 1.0 },
        ];
        for warning in warnings {
            let text = warning.to_string();
            assert!(!text.contains('\n') && !text.contains("  ") && text.ends_with(')'), "{text}");
        }
        let text = RunWarning::WarmupLongerThanRun { warmup: 100, updates: 31 }.to_string();
        assert!(text.contains("30 %"), "{text}");
    }
}
