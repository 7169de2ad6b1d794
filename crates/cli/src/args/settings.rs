//! The settings of `train` and `plan` as flags, made from the table of settings.
//!
//! Only the flags that were given are laid over the recipe, so none has a default here. Defaults are told in the help.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::builder::{
    BoolValueParser, PathBufValueParser, PossibleValuesParser, StringValueParser, TypedValueParser,
    ValueParser,
};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};
use contaccum_training::{BankWarmup, Kind, SETTINGS, Setting};
use toml::Value;

/// The settings that were given, under the keys of a recipe.
#[derive(Clone, Debug)]
pub struct SettingFlags(toml::Table);

impl SettingFlags {
    /// The settings that were given, under the keys of a recipe.
    pub fn given(&self) -> toml::Table {
        self.0.clone()
    }
}

impl Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        command.args(SETTINGS.iter().map(flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |setting: &Setting| {
            let value = matches.get_one::<Value>(setting.key)?;
            Some((setting.key.to_owned(), value.clone()))
        };
        Ok(Self(SETTINGS.iter().filter_map(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.extend(Self::from_arg_matches(matches)?.0);
        Ok(())
    }
}

fn flag(setting: &Setting) -> Arg {
    let facts = &setting.facts;
    let kind = setting.kind();
    let value_name = match (facts.value, kind) {
        (Some(name), _) => name.to_owned(),
        (None, Kind::Switch) => "BOOL".to_owned(),
        (None, _) => setting.key.to_uppercase(),
    };
    let help = match setting.default_told() {
        Some(default) => format!("{} [default: {default}]", setting.help),
        None => setting.help.to_owned(),
    };
    let arg = Arg::new(setting.key)
        .long(setting.key.replace('_', "-"))
        .visible_aliases(facts.aliases)
        .value_name(value_name)
        .help(help)
        .help_heading(setting.group)
        .action(ArgAction::Set)
        .value_parser(parser(kind))
        .conflicts_with_all(facts.not_with);
    match kind {
        Kind::Switch => arg.num_args(0..=1).default_missing_value("true"),
        // What clap takes for a negative number is none with an exponent below 0, as learning rates have.
        Kind::Number => arg.allow_hyphen_values(true),
        _ => arg,
    }
}

/// Reads a word as the value that stands in a recipe: checked here, read with the other settings.
fn parser(kind: Kind) -> ValueParser {
    match kind {
        Kind::Switch => BoolValueParser::new().map(Value::from).into(),
        Kind::Count => value_parser!(u32).map(Value::from).into(),
        Kind::Seed => value_parser!(i64).range(0..).map(Value::from).into(),
        Kind::Number => ValueParser::new(|text: &str| text.parse::<f64>().map(Value::from)),
        Kind::Word(words) => PossibleValuesParser::new(words).map(Value::from).into(),
        Kind::AutoOrCount => ValueParser::new(auto_or_count),
        Kind::Text => StringValueParser::new().map(Value::from).into(),
        Kind::Path => PathBufValueParser::new().try_map(path).into(),
        Kind::Bytes => StringValueParser::new().try_map(byte_size).into(),
    }
}

fn auto_or_count(text: &str) -> Result<Value, String> {
    Ok(match text.parse()? {
        BankWarmup::Auto => Value::from("auto"),
        BankWarmup::Updates(updates) => Value::from(updates as i64),
    })
}

fn path(path: PathBuf) -> Result<Value, &'static str> {
    path.into_os_string().into_string().map(Value::from).map_err(|_| "not UTF-8, as a recipe is")
}

fn byte_size(text: String) -> Result<Value, &'static str> {
    let size: ByteSize = text.parse().map_err(|_| "not a size; give a number and a unit, such as 11GiB")?;
    if size.as_u64() == 0 { Err("nothing fits in 0 bytes") } else { Ok(Value::from(text)) }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};
    use contaccum_training::{SETTINGS, TrainConfig};

    use crate::args::{Cli, Command};

    fn given(flags: &[&str]) -> toml::Table {
        let cli = Cli::try_parse_from(["contaccum", "train"].iter().chain(flags)).unwrap();
        let Command::Train(args) = cli.command else { panic!("not train") };
        args.settings.given()
    }

    #[test]
    fn only_the_flags_that_were_given_are_laid_over_the_recipe() {
        assert!(given(&[]).is_empty());
        let expected: toml::Table = "seed = 7\ntied = true\nshuffle = false\ntrain = \"x\"".parse().unwrap();
        assert_eq!(given(&["--seed", "7", "--tied", "--shuffle", "false", "--train", "x"]), expected);
    }

    #[test]
    fn every_setting_is_a_key_of_a_recipe_and_a_flag_that_tells_its_default() {
        let command = Cli::command();
        let train = command.find_subcommand("train").unwrap();
        for setting in SETTINGS {
            let unknown =
                TrainConfig::from_toml(&format!("{} = []", setting.key), "r").unwrap_err().to_string();
            assert!(!unknown.contains("unknown field"), "{unknown}");
            let flag = train.get_arguments().find(|flag| flag.get_id() == setting.key).unwrap();
            assert_eq!(flag.get_long().unwrap().replace('-', "_"), setting.key);
            let help = flag.get_help().unwrap().to_string();
            assert!(setting.default_told().is_none_or(|told| help.ends_with(&format!("[default: {told}]"))));
        }
    }

    #[test]
    fn a_flag_gives_what_the_same_text_gives_in_a_recipe() {
        for (flag, text, key) in [
            ("--memory-bank-warmup", "3", "memory_bank_warmup = 3"),
            ("--memory-bank-warmup", "auto", "memory_bank_warmup = \"auto\""),
            ("--memory-budget", "2GiB", "memory_budget = \"2GiB\""),
            ("--seed", "9223372036854775807", "seed = 9223372036854775807"),
            ("--learning-rate", "1e-4", "learning_rate = 1e-4"),
            ("--query-prompt", "", "query_prompt = \"\""),
            ("--method", "pre-batch", "method = \"pre-batch\""),
        ] {
            assert_eq!(given(&[flag, text]), key.parse().unwrap());
        }
    }

    #[test]
    fn the_names_of_other_trainers_are_understood() {
        let settings = given(&["--per-device-train-batch-size", "4", "--num-train-epochs", "2"]);
        assert_eq!(settings, "local_batch_size = 4\nepochs = 2.0".parse().unwrap());
    }
}
