//! The warm-up of banks: first updates that leave them out.
//!
//! While an encoder has learned little, nearly everything that banked vectors add to the gradient is noise on what all
//! vectors have in common, and the encoder collapses or falls behind. How long that is depends on the weights a run
//! starts from, so by default the loss decides: once its mean over the current rows, which the banks have no part in
//! during the warm-up, is a small part of that of guessing, the banks come in.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// The loss over current rows at which banks come in, as a part of that of guessing, `ln(1 + negatives)`.
const LOSS_SHARE: f64 = 0.3;

/// Weight of the last update in the running mean of that part.
const LAST_WEIGHT: f64 = 0.1;

/// The part of a run after which banks come in whatever the loss.
const LONGEST_SHARE: usize = 3;

/// How long banks are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BankWarmup {
    /// Until the loss says that the encoder has learned enough, at most a third of the run.
    Auto,
    /// So many updates.
    Updates(usize),
}

impl fmt::Display for BankWarmup {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Updates(updates) => updates.fmt(f),
        }
    }
}

impl FromStr for BankWarmup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            number => match number.parse::<u32>() {
                Ok(updates) => Ok(Self::Updates(updates as usize)),
                Err(_) => Err("give auto or a number of updates".into()),
            },
        }
    }
}

impl Serialize for BankWarmup {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Updates(updates) => serializer.serialize_u64(*updates as u64),
        }
    }
}

impl<'de> Deserialize<'de> for BankWarmup {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AutoOrUpdates;

        impl Visitor<'_> for AutoOrUpdates {
            type Value = BankWarmup;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("\"auto\" or a number of updates")
            }

            fn visit_i64<E: serde::de::Error>(self, updates: i64) -> Result<BankWarmup, E> {
                match usize::try_from(updates) {
                    Ok(updates) => Ok(BankWarmup::Updates(updates)),
                    Err(_) => Err(E::invalid_value(serde::de::Unexpected::Signed(updates), &self)),
                }
            }

            fn visit_u64<E: serde::de::Error>(self, updates: u64) -> Result<BankWarmup, E> {
                Ok(BankWarmup::Updates(updates as usize))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<BankWarmup, E> {
                text.parse().map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(AutoOrUpdates)
    }
}

/// Decides when banks come in, and remembers it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct WarmupGate {
    /// The running mean of the loss over current rows, as a part of that of guessing.
    loss_share: Option<f64>,
    open: bool,
}

impl WarmupGate {
    /// For a run of so many updates.
    pub fn new(updates: usize) -> Self {
        Self { loss_share: None, open: latest(updates) == 0 }
    }

    pub fn is_open(self) -> bool {
        self.open
    }

    /// Takes in an update: the `done`th of `updates`, with its loss over current rows and their negatives. Where a
    /// query has no negative without the banks, nothing can be learned without them.
    pub fn see(&mut self, loss: f64, negatives: f64, done: usize, updates: usize) {
        if self.open {
            return;
        }
        let share = if negatives > 0.0 { loss / negatives.ln_1p() } else { 0.0 };
        let mean = self.loss_share.map_or(share, |mean| mean + LAST_WEIGHT * (share - mean));
        self.loss_share = Some(mean);
        self.open = mean < LOSS_SHARE || done >= latest(updates);
    }

    /// As numbers, for a checkpoint.
    pub fn to_values(self) -> [f64; 2] {
        [self.loss_share.unwrap_or(f64::NAN), if self.open { 1.0 } else { 0.0 }]
    }

    /// From the numbers of [`WarmupGate::to_values`].
    pub fn from_values([loss_share, open]: [f64; 2]) -> Self {
        Self { loss_share: (!loss_share.is_nan()).then_some(loss_share), open: open > 0.0 }
    }
}

/// The update after which banks are used at the latest, in a run of so many.
fn latest(updates: usize) -> usize {
    updates / LONGEST_SHARE
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The update after which banks are used, for losses that are `loss(update)` of 7 negatives.
    fn opens(updates: usize, loss: impl Fn(usize) -> f64) -> usize {
        let mut gate = WarmupGate::new(updates);
        (0..updates)
            .find(|&done| {
                if done > 0 {
                    gate.see(loss(done), 7.0, done, updates);
                }
                gate.is_open()
            })
            .unwrap()
    }

    #[test]
    fn an_encoder_that_knows_its_data_uses_its_banks_after_one_update() {
        assert_eq!(opens(300, |_| 0.2), 1);
    }

    #[test]
    fn one_that_guesses_waits_a_third_of_the_run_and_one_that_learns_until_it_has() {
        let guessing = 8f64.ln();
        assert_eq!(opens(300, |_| guessing), 100);
        let learned = opens(300, |update| if update < 20 { guessing } else { 0.1 });
        assert!((25..50).contains(&learned), "{learned}");
        // One lucky batch is not enough.
        assert_eq!(opens(300, |update| if update == 20 { 0.0 } else { guessing }), 100);
        assert_eq!(opens(2, |_| guessing), 0);
    }

    #[test]
    fn without_a_negative_of_its_own_a_batch_needs_the_banks_at_once() {
        let mut gate = WarmupGate::new(300);
        gate.see(0.0, 0.0, 1, 300);
        assert!(gate.is_open());
    }

    #[test]
    fn a_gate_is_restored_as_it_was() {
        let mut gate = WarmupGate::new(300);
        assert_eq!(WarmupGate::from_values(gate.to_values()), gate);
        gate.see(2.0, 7.0, 1, 300);
        assert_eq!(WarmupGate::from_values(gate.to_values()), gate);
    }
}
