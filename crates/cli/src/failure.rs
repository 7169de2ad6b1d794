//! How a failure is told: one line on stderr, and an exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use contaccum_study::StudyError;
use contaccum_training::{ConfigError, TrainError};

use crate::args::UNBROKEN;

const FAILED: u8 = 1;
const BAD_USAGE: u8 = 2;

/// Arguments or settings that make no sense, found after parsing.
#[derive(Debug)]
pub struct BadUsage(pub String);

impl std::fmt::Display for BadUsage {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadUsage {}

/// Tells what went wrong; bad usage exits with 2, anything else with 1.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        // Whoever reads stdout has seen enough: `contaccum ... | head`.
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {}", one_line(&error.to_string()));
    let config = error.downcast_ref::<ConfigError>().or(match error.downcast_ref::<TrainError>() {
        Some(TrainError::Config(config)) => Some(config),
        _ => None,
    });
    let bad_setting = matches!(config, Some(ConfigError::Toml { .. } | ConfigError::Setting { .. }));
    let bad_study = matches!(error.downcast_ref(), Some(StudyError::Recipe { .. }));
    ExitCode::from(if bad_setting || bad_study || error.is::<BadUsage>() { BAD_USAGE } else { FAILED })
}

/// Tells what clap found, help on stdout and errors as one line on stderr.
pub fn bad_usage(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let text = error.render().ansi().to_string().replace(UNBROKEN, " ");
            // A closed pipe is no failure of ours.
            let _ = match error.use_stderr() {
                true => write!(anstream::stderr(), "{text}"),
                false => write!(anstream::stdout(), "{text}"),
            };
            ExitCode::from(error.exit_code() as u8)
        }
        _ => {
            let text = error.to_string();
            let what = text.split("\nUsage:").next().unwrap_or(&text);
            let what = what.split("\nFor more information").next().unwrap_or(what);
            let what = what.trim_start_matches("error: ").trim();
            let pasted =
                what.contains(['\u{2013}', '\u{2014}', '\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}']);
            let plain = if pasted { "; a pasted dash or quote is not the plain one: type it" } else { "" };
            eprintln!("error: {}{plain} (see --help)", in_our_words(&one_line(what)));
            ExitCode::from(BAD_USAGE)
        }
    }
}

/// What clap and the standard library say of a value, as we would.
fn in_our_words(what: &str) -> String {
    let words = [
        (" tip: ", "; "),
        ("invalid digit found in string", "not a whole number"),
        ("invalid float literal", "not a number"),
        ("is not in 0..=4294967295", "is not a whole number from 0 to 4294967295"),
    ];
    words.iter().fold(what.to_owned(), |what, (theirs, ours)| what.replace(theirs, ours))
}

/// Whatever a library said, in one line.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}
