//! Recipes: a flat list of the table's keys in TOML.
//!
//! A key is a flag in `kebab-case` (`local_batch_size` and `--local-batch-size`) and a field of [`TrainConfig`]. Flags win
//! over the recipe, the recipe wins over the defaults. Paths are relative to the folder the program runs in.

use std::path::{Path, PathBuf};

use contaccum_data::with_nearest;

use crate::{SETTINGS, TrainConfig};

/// What is wrong with a configuration, in one line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The recipe cannot be read.
    #[error("recipe not readable: {path}: {source} (check the path)")]
    Read {
        /// The recipe.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The recipe is not TOML, or has an unknown key or a value of the wrong kind.
    #[error("bad recipe: {place}: {message}")]
    Toml {
        /// File and line.
        place: String,
        /// What the parser said, in one line.
        message: String,
    },
    /// A value makes no sense, alone or beside another.
    #[error("bad setting: {key}: {reason}")]
    Setting {
        /// The key, as in a recipe.
        key: &'static str,
        /// What is wrong and what to do.
        reason: String,
    },
}

pub(crate) fn setting<T>(key: &'static str, reason: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Setting { key, reason: reason.into() })
}

impl TrainConfig {
    /// Reads a recipe, if there is one, lays `flags` over it and checks the result.
    ///
    /// `flags` holds only what was given, under the keys of the recipe.
    ///
    /// # Errors
    /// An unreadable recipe, an unknown key or wrong value (with its line), and all of [`Self::validate`].
    pub fn load(recipe: Option<&Path>, flags: toml::Table) -> Result<Self, ConfigError> {
        Self::layered(Self::read(recipe)?, flags)
    }

    /// As [`Self::load`], for a run that is only to be told of: the output folder need not be given.
    ///
    /// # Errors
    /// As [`Self::load`], but for it.
    pub fn load_for_dry_run(recipe: Option<&Path>, flags: toml::Table) -> Result<Self, ConfigError> {
        let config = Self::overlaid(Self::read(recipe)?, flags)?;
        config.validate_for_dry_run()?;
        Ok(config)
    }

    /// As [`Self::load`], for a plan: data and output folder need not be given; what is refused beside data is, where
    /// they are.
    ///
    /// # Errors
    /// As [`Self::load`], but for them.
    pub fn load_for_plan(recipe: Option<&Path>, flags: toml::Table) -> Result<Self, ConfigError> {
        let config = Self::overlaid(Self::read(recipe)?, flags)?;
        config.check_model()?;
        config.check_values()?;
        if config.train.exists() {
            config.source()?;
        }
        Ok(config)
    }

    fn read(recipe: Option<&Path>) -> Result<toml::Table, ConfigError> {
        let Some(path) = recipe else { return Ok(toml::Table::new()) };
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let place = path.display().to_string();
        // Parsed on its own first: only this parse knows the lines of the file.
        Self::from_toml(&text, &place)?;
        text.parse().map_err(|error| toml_error(&text, &place, &error))
    }

    /// `settings` with `flags` laid over them, checked.
    ///
    /// # Errors
    /// An unknown key, a value of the wrong kind, and all of [`Self::validate`].
    pub fn layered(settings: toml::Table, flags: toml::Table) -> Result<Self, ConfigError> {
        let config = Self::overlaid(settings, flags)?;
        config.validate()?;
        Ok(config)
    }

    fn overlaid(mut settings: toml::Table, flags: toml::Table) -> Result<Self, ConfigError> {
        for (one, other) in SETTINGS.iter().filter_map(|setting| Some((setting.key, setting.facts.not_with?)))
        {
            if flags.contains_key(one) || flags.contains_key(other) {
                settings.remove(one);
                settings.remove(other);
            }
        }
        settings.extend(flags);
        let budgeted = SETTINGS.iter().filter(|setting| setting.facts.budgeted).map(|setting| setting.key);
        let given = budgeted.filter(|key| settings.contains_key(*key)).collect();
        let config: Self = settings.try_into().map_err(|error| toml_error("", "flags", &error))?;
        Ok(Self { given, ..config })
    }

    /// Parses a recipe; `place` names it in errors. Values are not checked against one another.
    ///
    /// # Errors
    /// Text that is no TOML, an unknown key, a value of the wrong kind: with the line.
    pub fn from_toml(text: &str, place: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| toml_error(text, place, &error))
    }

    /// The configuration as a recipe that gives it back.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a flat struct of numbers and strings is TOML")
    }
}

/// A TOML error as one line with its place; `text` is what was parsed, to find the line in.
fn toml_error(text: &str, place: &str, error: &toml::de::Error) -> ConfigError {
    let place = match error.span() {
        Some(span) => {
            let line = 1 + text.as_bytes().iter().take(span.start).filter(|&&byte| byte == b'\n').count();
            format!("{place}: line {line}")
        }
        None => place.to_owned(),
    };
    let message = with_nearest(error.message());
    ConfigError::Toml { place, message }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// The settings of a recipe that gives what is required.
    pub fn config(recipe: &str) -> TrainConfig {
        let required = "model = \"m\"\ntrain = \"t\"\noutput_dir = \"o\"\n";
        TrainConfig::from_toml(&format!("{required}{recipe}"), "recipe.toml").unwrap()
    }

    /// What such settings are refused with.
    pub fn refusal(recipe: &str) -> String {
        config(recipe).validate().unwrap_err().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::config;
    use super::*;
    use crate::BankWarmup;

    #[test]
    fn a_stored_configuration_is_read_back_as_it_was() {
        let config = config(
            "temperature = 0.05\nlearning_rate = 1e-4\nwarmup_ratio = 0.1\npooling = \"cls\"\nkeep_past = false",
        );
        assert_eq!(TrainConfig::from_toml(&config.to_toml(), "config.toml").unwrap(), config);
        assert!(config.to_toml().contains("temperature = 0.05\n"), "{}", config.to_toml());
    }

    #[test]
    fn columns_are_kept_as_they_are_written_and_a_role_that_is_none_names_its_line() {
        let given = config("columns = \"query=question,positive=context\"");
        assert_eq!(given.columns.as_ref().unwrap().to_string(), "query=question,positive=context");
        assert_eq!(TrainConfig::from_toml(&given.to_toml(), "config.toml").unwrap(), given);
        let message = TrainConfig::from_toml("\ncolumns = \"anchor=a\"", "r.toml").unwrap_err().to_string();
        assert!(message.contains("r.toml: line 2") && message.contains("query=NAME"), "{message}");
    }

    #[test]
    fn an_unknown_key_names_its_line() {
        let message = TrainConfig::from_toml("seed = 1\nsead = 2\n", "recipe.toml").unwrap_err().to_string();
        assert!(message.contains("recipe.toml: line 2") && message.contains("sead"), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }

    #[test]
    fn a_warm_up_of_the_banks_is_auto_or_a_number() {
        assert_eq!(config("").memory_bank_warmup, BankWarmup::Auto);
        let given = config("memory_bank_warmup = 3");
        assert_eq!(given.memory_bank_warmup, BankWarmup::Updates(3));
        assert_eq!(TrainConfig::from_toml(&given.to_toml(), "config.toml").unwrap(), given);
        for wrong in ["\"soon\"", "-1", "0.5"] {
            let recipe = format!("memory_bank_warmup = {wrong}");
            let message = TrainConfig::from_toml(&recipe, "r.toml").unwrap_err().to_string();
            assert!(message.contains("line 1") && message.contains("\"auto\" or a number"), "{message}");
        }
    }

    #[test]
    fn a_value_of_the_wrong_kind_names_its_line() {
        let message = TrainConfig::from_toml("\nmethod = \"dpr\"\n", "r.toml").unwrap_err().to_string();
        assert!(message.contains("r.toml: line 2") && message.contains("contaccum-grad-cache"), "{message}");
    }

    #[test]
    fn flags_win_over_the_recipe() {
        let folder = tempfile::tempdir().unwrap();
        let recipe = folder.path().join("recipe.toml");
        std::fs::write(&recipe, "model = \"m\"\ntrain = \"t\"\nseed = 1\nwarmup_steps = 5\n").unwrap();
        let flags = "output_dir = \"o\"\nseed = 2\nwarmup_ratio = 0.5".parse().unwrap();
        let config = TrainConfig::load(Some(&recipe), flags).unwrap();
        assert_eq!((config.model.as_str(), config.seed), ("m", 2));
        assert_eq!((config.warmup_steps, config.warmup_ratio), (None, Some(0.5)));
    }

    #[test]
    fn a_missing_recipe_is_named() {
        let message = TrainConfig::load(Some(Path::new("no/such.toml")), toml::Table::new()).unwrap_err();
        assert!(message.to_string().contains("no/such.toml"), "{message}");
    }
}
