//! How large a setting may be, so that no product of two of them overflows and nothing is counted past its type.

use crate::recipe::setting;
use crate::{ConfigError, SETTINGS, TrainConfig};

/// Most worker threads: more than any machine has cores, and few enough to be started.
pub const MOST_THREADS: usize = 1024;

/// Most rows of a total batch: a row's place in it is 22 bits of the dropout key.
pub(crate) const MOST_ROWS: usize = 1 << 22;

/// Most hard negatives of a row: with its query and positive they are 10 bits of the dropout key.
pub(crate) const MOST_HARD_NEGATIVES: usize = (1 << 10) - 2;

/// Most tokens of a sequence: no model has more positions.
pub(crate) const MOST_LENGTH: usize = 1 << 24;

/// Most tokens, or vectors of a bank, that are in memory at once: they are counted in 32 bits.
const MOST_AT_ONCE: usize = u32::MAX as usize;

/// Most updates of a run: at a millisecond each, thirty years.
pub(crate) const MOST_UPDATES: usize = 1_000_000_000_000;

impl TrainConfig {
    /// Checks every value alone, and that sizes are not beyond what can be counted. Whether they fit in memory is the
    /// plan's to say.
    ///
    /// # Errors
    /// The first setting that makes no sense.
    pub(crate) fn check_bounds(&self) -> Result<(), ConfigError> {
        for one in SETTINGS {
            if let Some(problem) = one.problem(self) {
                return setting(one.key, problem);
            }
        }
        let (banked, most) = (self.memory_bank_size.unwrap_or(0), MOST_AT_ONCE / self.passages_per_row());
        if banked > most {
            return setting("memory_bank_size", format!("{banked} is too large (give at most {most})"));
        }
        if self.total_batch_size() > MOST_ROWS {
            let (local, steps) = (self.local_batch_size, self.gradient_accumulation_steps);
            let reason = format!(
                "{local}, times {steps} accumulation steps is more than {MOST_ROWS} rows (lower one)"
            );
            return setting("local_batch_size", reason);
        }
        let at_once = self.resolve()?.chunk_size * self.row_tokens();
        if at_once > MOST_AT_ONCE && self.max_tokens.is_none_or(|most| most > MOST_AT_ONCE) {
            let reason = format!(
                "up to {at_once} tokens at once, more than {MOST_AT_ONCE} (lower it, or give max_tokens)"
            );
            return setting("local_batch_size", reason);
        }
        Ok(())
    }

    /// Checks that a run of so many updates can be counted.
    ///
    /// # Errors
    /// More epochs than any run will see.
    pub(crate) fn check_updates(&self, updates: usize) -> Result<(), ConfigError> {
        if updates <= MOST_UPDATES {
            return Ok(());
        }
        let epochs = self.epochs.unwrap_or(1.0);
        setting("epochs", format!("{epochs:e} are {updates} updates (give at most {MOST_UPDATES})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Method;

    type Set = fn(&mut TrainConfig, usize);

    const SIZES: [(&str, Set); 10] = [
        ("threads", |c, n| c.threads = n),
        ("hard_negatives", |c, n| c.hard_negatives = n),
        ("query_max_length", |c, n| c.query_max_length = n),
        ("passage_max_length", |c, n| c.passage_max_length = n),
        ("local_batch_size", |c, n| c.local_batch_size = n),
        ("gradient_accumulation_steps", |c, n| c.gradient_accumulation_steps = n),
        ("memory_bank_size", |c, n| c.memory_bank_size = Some(n)),
        ("max_steps", |c, n| c.max_steps = Some(n)),
        ("max_tokens", |c, n| c.max_tokens = Some(n)),
        ("memory_bank_warmup", |c, n| c.memory_bank_warmup = crate::BankWarmup::Updates(n)),
    ];

    fn given() -> TrainConfig {
        TrainConfig { model: "m".into(), train: "t".into(), output_dir: "o".into(), ..TrainConfig::default() }
    }

    #[test]
    fn every_size_is_planned_or_refused_at_any_value_and_for_any_method() {
        let values = [0, 1, 2, 1023, 1 << 22, 1 << 31, u32::MAX as usize, 1 << 40, 1 << 63, usize::MAX];
        let shape =
            contaccum_encoder::ModelConfig::try_from(contaccum_encoder::BertConfig::default()).unwrap();
        for method in Method::ALL {
            for (key, set) in SIZES {
                for value in values {
                    let mut config = TrainConfig { method, ..given() };
                    set(&mut config, value);
                    match config.validate() {
                        Ok(()) => drop(crate::Trainer::memory_plan(&config, &shape, 2).unwrap()),
                        Err(error) => {
                            let error = error.to_string();
                            assert!(error.contains('(') && !error.contains('\n'), "{key} = {value}: {error}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn two_sizes_that_are_small_alone_are_refused_together() {
        let batch =
            TrainConfig { local_batch_size: 1 << 12, gradient_accumulation_steps: 1 << 12, ..given() };
        let tokens = TrainConfig {
            local_batch_size: 1 << 20,
            gradient_accumulation_steps: 1,
            hard_negatives: 100,
            memory_bank_size: Some(100),
            ..given()
        };
        let bank = TrainConfig { hard_negatives: 1000, memory_bank_size: Some(1 << 30), ..given() };
        for (config, words) in [
            (&batch, "local_batch_size: 4096, times 4096"),
            (&tokens, "max_tokens"),
            (&bank, "memory_bank_size: 1073741824 is too large (give at most 4290"),
        ] {
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
        assert!(TrainConfig { max_tokens: Some(1 << 20), ..tokens }.validate().is_ok());
    }

    #[test]
    fn numbers_that_are_none_are_refused_or_kept() {
        type Set = fn(&mut TrainConfig, f64);
        let numbers: [(&str, Set); 10] = [
            ("temperature", |c, x| c.temperature = x as f32),
            ("learning_rate", |c, x| c.learning_rate = x),
            ("weight_decay", |c, x| c.weight_decay = x),
            ("adam_beta1", |c, x| c.adam_beta1 = x),
            ("adam_beta2", |c, x| c.adam_beta2 = x),
            ("adam_epsilon", |c, x| c.adam_epsilon = x),
            ("max_grad_norm", |c, x| c.max_grad_norm = x),
            ("dropout", |c, x| c.dropout = Some(x)),
            ("warmup_ratio", |c, x| c.warmup_ratio = Some(x)),
            ("epochs", |c, x| c.epochs = Some(x)),
        ];
        for (key, set) in numbers {
            for value in [f64::NAN, f64::INFINITY, -1.0, -0.5, 1e300] {
                let mut config = given();
                set(&mut config, value);
                let refused = config.validate().and_then(|()| config.check_updates(config.updates(1000)));
                let message = refused.unwrap_err().to_string();
                assert!(message.contains(key), "{value}: {message}");
            }
        }
    }
}
