//! The learning rate over a run: linear warm-up, then one of three shapes.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// Shape of the learning rate after the warm-up.
///
/// The formulas are those of `get_linear_schedule_with_warmup`, `get_cosine_schedule_with_warmup` (half a
/// wave) and `get_constant_schedule_with_warmup` in Hugging Face transformers' `optimization.py`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheduler {
    /// Down to 0 in a straight line.
    Linear,
    /// Down to 0 along half a cosine wave.
    Cosine,
    /// Stays.
    Constant,
}

impl Scheduler {
    /// What the learning rate is multiplied by at update `update` (0 is the first) of `total` updates, the
    /// first `warmup` of them warming up: in 0..=1, and 0 at the first update when there is a warm-up.
    /// Past the end the decaying shapes stay at 0.
    pub fn factor(self, update: usize, total: usize, warmup: usize) -> f64 {
        if update < warmup {
            return update as f64 / warmup as f64;
        }
        let decay_updates = total.saturating_sub(warmup).max(1) as f64;
        let left = total.saturating_sub(update) as f64;
        match self {
            Self::Linear => left / decay_updates,
            Self::Cosine => 0.5 * (1.0 + (PI * (1.0 - left / decay_updates)).cos()),
            Self::Constant => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Scheduler; 3] = [Scheduler::Linear, Scheduler::Cosine, Scheduler::Constant];

    #[test]
    fn the_reference_schedule_is_reproduced() {
        let factors: Vec<f64> = (0..6).map(|t| Scheduler::Linear.factor(t, 6, 2)).collect();
        assert_eq!(factors, [0.0, 0.5, 1.0, 0.75, 0.5, 0.25]);
    }

    #[test]
    fn cosine_is_half_way_down_in_the_middle() {
        assert_eq!(Scheduler::Cosine.factor(10, 30, 10), 1.0);
        assert!((Scheduler::Cosine.factor(20, 30, 10) - 0.5).abs() < 1e-15);
        // 0.5 * (1 + cos(3 pi / 4)), three quarters of the way.
        assert!((Scheduler::Cosine.factor(25, 30, 10) - 0.146_446_609_406_726_24).abs() < 1e-15);
    }

    #[test]
    fn without_warmup_the_first_update_has_the_whole_rate() {
        for scheduler in ALL {
            assert_eq!(scheduler.factor(0, 7, 0), 1.0);
        }
    }

    proptest! {
        #[test]
        fn a_factor_is_always_a_share(update in 0usize..200, total in 0usize..100, warmup in 0usize..150) {
            for scheduler in ALL {
                let factor = scheduler.factor(update, total, warmup);
                prop_assert!((0.0..=1.0).contains(&factor), "{scheduler:?}: {factor}");
            }
        }

        #[test]
        fn the_rate_rises_to_one_and_never_rises_again(total in 1usize..100, share in 0.0..1.0f64) {
            let warmup = (share * total as f64) as usize;
            for scheduler in ALL {
                prop_assert_eq!(scheduler.factor(warmup, total, warmup), 1.0);
                for t in 0..total {
                    let step = scheduler.factor(t + 1, total, warmup) - scheduler.factor(t, total, warmup);
                    let right_way = if t < warmup { step > 0.0 } else { step <= 0.0 };
                    prop_assert!(right_way, "{:?} at {}: {}", scheduler, t, step);
                }
            }
        }

        #[test]
        fn decaying_shapes_end_at_zero(total in 1usize..100, beyond in 0usize..50) {
            prop_assert_eq!(Scheduler::Linear.factor(total + beyond, total, 0), 0.0);
            prop_assert!(Scheduler::Cosine.factor(total + beyond, total, 0) < 1e-15);
        }
    }
}
