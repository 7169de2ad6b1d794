//! The `contaccum` program: arguments, progress, reports. No logic of its own.
#![forbid(unsafe_code)]

mod args;
mod demo;
mod encode;
mod evaluate;
mod export;
mod failure;
mod model;
mod notes;
mod output;
mod plan;
mod progress;
mod reference;
mod report;
mod search;
mod signals;
mod study;
mod texts;
mod train;

use std::process::ExitCode;

use anstream::{AutoStream, ColorChoice};
use contaccum_training::MOST_THREADS;
use tracing::Level;

use crate::args::{Command, LoggingArgs};

fn main() -> ExitCode {
    signals::fail_calmly();
    let cli = match args::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return failure::bad_usage(&error),
    };
    start_log(&cli.logging);
    let done = match cli.command {
        Command::Train(args) => train::run(*args),
        Command::Plan(args) => plan::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Encode(args) => encode::run(&args),
        Command::Search(args) => search::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Study(args) => study::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Completions(args) => reference::complete(&args),
        Command::Man(args) => reference::man(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}

/// Sizes the thread pool: 0 = as many threads as `RAYON_NUM_THREADS` says, or as there are cores.
fn use_threads(threads: usize) -> anyhow::Result<()> {
    let by_environment = || std::env::var("RAYON_NUM_THREADS").ok()?.parse().ok();
    let (name, asked) = match threads {
        0 => ("RAYON_NUM_THREADS", by_environment().unwrap_or(0)),
        threads => ("threads", threads),
    };
    if asked > MOST_THREADS {
        let what = format!("{name}: {asked}, more than {MOST_THREADS} (give at most that; 0 = all cores)");
        return Err(failure::BadUsage(what).into());
    }
    Ok(rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?)
}

fn start_log(logging: &LoggingArgs) {
    let level = match (logging.quiet, logging.verbose) {
        (true, _) => Level::WARN,
        (false, true) => Level::DEBUG,
        (false, false) => Level::INFO,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(AutoStream::choice(&std::io::stderr()) != ColorChoice::Never)
        .with_target(false)
        .without_time()
        // A stderr that is gone or full must not end the work: its errors are not told to it.
        .log_internal_errors(false)
        .init();
}
