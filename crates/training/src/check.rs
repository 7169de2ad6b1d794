//! Whether settings make sense, alone and beside one another.

use std::path::Path;

use contaccum_encoder::{ModelConfig, PassageFormat, Similarity, TextTokenizer};
use contaccum_objective::Rows;

use crate::recipe::setting;
use crate::{BankWarmup, ConfigError, SETTINGS, Setting, TrainConfig};

impl TrainConfig {
    /// Checks every value, alone and beside the others.
    ///
    /// # Errors
    /// The first setting that makes no sense, in one line with its remedy.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_for_dry_run()?;
        self.check_output_dir()
    }

    /// As [`Self::validate`], but the output folder need not be given.
    ///
    /// # Errors
    /// As [`Self::validate`].
    pub fn validate_for_dry_run(&self) -> Result<(), ConfigError> {
        self.check_model()?;
        check_path("train", &self.train)?;
        self.check_values()
    }

    pub(crate) fn check_output_dir(&self) -> Result<(), ConfigError> {
        check_path("output_dir", &self.output_dir)
    }

    pub(crate) fn check_values(&self) -> Result<(), ConfigError> {
        self.check_bounds()?;
        self.check_beside()?;
        self.check_alternatives()?;
        self.resolve()?;
        self.check_updates(self.updates(1))?;
        self.max_steps.map_or(Ok(()), |updates| self.check_bank_warmup(updates))
    }

    pub(crate) fn check_model(&self) -> Result<(), ConfigError> {
        if self.model.is_empty() {
            return setting("model", "missing (give a folder or a hub name with --model or in the recipe)");
        }
        Ok(())
    }

    fn check_beside(&self) -> Result<(), ConfigError> {
        if let Some(most) = self.max_tokens
            && most < self.row_tokens()
        {
            let (row, passages) = (self.row_tokens(), self.passages_per_row());
            let (query, passage) = (self.query_max_length, self.passage_max_length);
            return setting(
                "max_tokens",
                format!(
                    "{most}, but one row may have {query} + {passages} x {passage} = {row} (give at least that)"
                ),
            );
        }
        self.check_negatives(self.hard_negatives as f64)?;
        if i64::try_from(self.seed).is_err() {
            return setting("seed", format!("{} is above {} (give a smaller one)", self.seed, i64::MAX));
        }
        if self.eval_data.is_none() && (self.eval_steps > 0 || self.max_eval_queries.is_some()) {
            return setting("eval_data", "missing although evaluation is asked for (give a BEIR folder)");
        }
        Ok(())
    }

    /// Refuses settings under which no row has a negative, if rows bring `hard_per_row` hard negatives on average.
    pub(crate) fn check_negatives(&self, hard_per_row: f64) -> Result<(), ConfigError> {
        let point = self.resolve()?;
        let teaches =
            point.rows == Rows::All || self.negatives_after(usize::MAX, hard_per_row)?.per_query > 0;
        if teaches {
            return Ok(());
        }
        let accumulation = match point.micro_steps {
            1 => "",
            _ => " (accumulation adds none)",
        };
        setting(
            "local_batch_size",
            format!(
                "1, so a query of {} has no negative{accumulation}: its loss is 0 and teaches nothing (raise it, or \
                 use hard negatives, method = \"grad-cache\" or method = \"contaccum\")",
                self.method.name()
            ),
        )
    }

    fn check_alternatives(&self) -> Result<(), ConfigError> {
        for one in SETTINGS {
            if let Some(other) = one.facts.not_with
                && one.told(self).is_some()
                && Setting::of(other).is_some_and(|other| other.told(self).is_some())
            {
                return setting(one.key, format!("given together with {other} (keep one)"));
            }
        }
        if self.no_duplicates && !self.drop_last {
            return setting(
                "drop_last",
                "false with no_duplicates, which leaves out rows that would be duplicates (keep one)",
            );
        }
        if let Some(least) = self.min_learning_rate.filter(|least| *least > self.learning_rate) {
            return setting("min_learning_rate", format!("{least} is above learning_rate (lower it)"));
        }
        if self.similarity == Similarity::Cosine && self.normalize == Some(false) {
            return setting(
                "normalize",
                "false with cosine similarity (drop it, or use similarity = \"dot\")",
            );
        }
        Ok(())
    }

    /// Checks that a run of so many updates comes to use its banks.
    ///
    /// # Errors
    /// A warm-up of the banks that is not over before the run.
    pub(crate) fn check_bank_warmup(&self, updates: usize) -> Result<(), ConfigError> {
        match self.memory_bank_warmup {
            BankWarmup::Updates(warmup) if warmup >= updates => setting(
                "memory_bank_warmup",
                format!(
                    "{warmup}, but the run has {updates} updates: the banks would never be used (lower it, or use \
                     method = \"grad-accum\")"
                ),
            ),
            BankWarmup::Updates(_) | BankWarmup::Auto => Ok(()),
        }
    }

    /// Checks that sequences are no longer than a model of this shape takes.
    ///
    /// # Errors
    /// A length beyond the model's positions.
    pub fn check_lengths(&self, shape: &ModelConfig) -> Result<(), ConfigError> {
        let positions = shape.architecture().longest;
        let lengths =
            [("query_max_length", self.query_max_length), ("passage_max_length", self.passage_max_length)];
        for (key, length) in lengths {
            if length > positions {
                return setting(
                    key,
                    format!("{length}, but the model has {positions} positions (give at most that)"),
                );
            }
        }
        Ok(())
    }

    /// Checks that sequences have room beside the special tokens of a tokenizer.
    ///
    /// # Errors
    /// A length that leaves none.
    pub fn check_frame(&self, tokenizer: &TextTokenizer, format: PassageFormat) -> Result<(), ConfigError> {
        let lengths = [
            ("query_max_length", self.query_max_length, tokenizer.shortest_query()),
            ("passage_max_length", self.passage_max_length, tokenizer.shortest_passage(format)),
        ];
        for (key, length, least) in lengths {
            if length < least {
                let reason =
                    format!("{length} leaves no room beside the special tokens (give {least} or more)");
                return setting(key, reason);
            }
        }
        Ok(())
    }
}

fn check_path(key: &'static str, path: &Path) -> Result<(), ConfigError> {
    if path.as_os_str().is_empty() {
        let flag = key.replace('_', "-");
        return setting(key, format!("missing (give a path with --{flag} or in the recipe)"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::testing::{config, refusal};

    #[test]
    fn the_defaults_are_valid_once_the_required_keys_are_given() {
        config("").validate().unwrap();
        assert!(TrainConfig::default().validate().unwrap_err().to_string().contains("--model"));
    }

    #[test]
    fn impossible_values_are_refused_in_one_line_naming_the_key() {
        let cases = [
            ("local_batch_size = 0", "local_batch_size"),
            ("gradient_accumulation_steps = 0", "gradient_accumulation_steps"),
            ("temperature = 0.0", "temperature"),
            ("temperature = nan", "temperature"),
            ("learning_rate = -1.0", "learning_rate"),
            ("learning_rate = 1e-5\nmin_learning_rate = 1e-4", "min_learning_rate"),
            ("dropout = 1.0", "dropout"),
            ("adam_beta2 = 1.0", "adam_beta2"),
            ("adam_epsilon = 0.0", "adam_epsilon"),
            ("warmup_ratio = 1.5", "warmup_ratio"),
            ("warmup_ratio = 0.1\nwarmup_steps = 3", "warmup_steps"),
            ("epochs = 1.0\nmax_steps = 3", "epochs"),
            ("epochs = -1.0", "epochs"),
            ("query_max_length = 2", "query_max_length"),
            ("logging_steps = 0", "logging_steps"),
            ("normalize = false", "normalize"),
            ("no_duplicates = true\ndrop_last = false", "drop_last"),
            ("eval_steps = 3", "eval_data"),
            (
                "method = \"grad-accum\"\nlocal_batch_size = 1\ngradient_accumulation_steps = 1",
                "local_batch_size",
            ),
            ("method = \"grad-accum\"\nlocal_batch_size = 1", "local_batch_size"),
        ];
        for (recipe, key) in cases {
            let message = refusal(recipe);
            assert!(message.starts_with(&format!("bad setting: {key}: ")), "{recipe}: {message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }
}
