//! How a failure is told: one line on stderr, and an exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use contaccum_study::StudyError;
use contaccum_training::{ConfigError, TrainError};

use crate::args::UNBROKEN;
use crate::output::ReaderGone;
use crate::signals::Interrupted;

const FAILED: u8 = 1;
const BAD_USAGE: u8 = 2;
/// What a shell says of a program that SIGPIPE ended.
const NO_READER: u8 = 128 + 13;

/// Arguments or settings that make no sense, found after parsing.
#[derive(Debug)]
pub struct BadUsage(pub String);

impl std::fmt::Display for BadUsage {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadUsage {}

/// Tells what went wrong; bad usage exits with 2, what a signal ended with 128 and its number, anything else with 1.
/// A reader of stdout that is gone needs to be told nothing.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(interrupted) = error.downcast_ref::<Interrupted>() {
        tell(&interrupted.to_string());
        return ExitCode::from(interrupted.code);
    }
    if error.is::<ReaderGone>() {
        return ExitCode::from(NO_READER);
    }
    tell(&format!("error: {}", one_line(&error.to_string())));
    ExitCode::from(if is_bad_usage(error) { BAD_USAGE } else { FAILED })
}

/// A bad setting is bad usage whichever command finds it.
fn is_bad_usage(error: &anyhow::Error) -> bool {
    let study = error.downcast_ref::<StudyError>();
    let training = error.downcast_ref::<TrainError>().or(match study {
        Some(StudyError::Train(error)) => Some(error),
        _ => None,
    });
    let config = error.downcast_ref::<ConfigError>().or(match training {
        Some(TrainError::Config(error)) => Some(error),
        _ => None,
    });
    let bad_setting = matches!(config, Some(ConfigError::Toml { .. } | ConfigError::Setting { .. }));
    bad_setting || matches!(study, Some(StudyError::Recipe { .. })) || error.is::<BadUsage>()
}

/// Writes a line to stderr; one that cannot be written is no reason to fail otherwise.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Tells what clap found, help on stdout and errors as one line on stderr.
pub fn bad_usage(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let text = error.render().ansi().to_string().replace(UNBROKEN, " ");
            if error.use_stderr() {
                let _ = write!(anstream::stderr(), "{text}");
            } else if let Err(reason) =
                write!(anstream::stdout(), "{text}").and_then(|()| io::stdout().flush())
            {
                return report(&crate::output::lost(reason));
            }
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
            tell(&format!("error: {}{plain} (see --help)", in_our_words(&one_line(what))));
            ExitCode::from(BAD_USAGE)
        }
    }
}

/// What clap and the standard library say of a value, as we would.
fn in_our_words(what: &str) -> String {
    let words = [
        (" tip: ", "; "),
        ("invalid digit found in string", "not a whole number from 0 on"),
        ("invalid float literal", "not a number"),
        ("is not in 0..=4294967295", "is not a whole number from 0 to 4294967295"),
    ];
    words.iter().fold(what.to_owned(), |what, (theirs, ours)| what.replace(theirs, ours))
}

/// Whatever a library said, in one line.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}
