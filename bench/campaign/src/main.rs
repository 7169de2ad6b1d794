//! The long form: `cargo run --release -p contaccum-campaign -- kill`, and `faults`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use contaccum_campaign::{Deed, Lab, SCENARIOS, Scenario, Tally};

/// Kills the program and lets its system calls fail, at every call that changes a file
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// SIGKILL before each call; the same command again must end with the bits of an undisturbed run
    Kill(Wanted),
    /// EIO at each call, and a full disk from it on: one line and a code, or success with the same bits
    Faults(Wanted),
    /// One trial, its folder kept
    One {
        #[arg(long)]
        scenario: String,
        #[arg(long)]
        deed: DeedName,
        #[arg(long)]
        point: usize,
        #[arg(long, default_value_os_t = beside())]
        program: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Wanted {
    /// Only the scenario of this name
    #[arg(long)]
    scenario: Option<String>,
    /// Calls disturbed in each scenario, evenly spread [default: all]
    #[arg(long)]
    points: Option<usize>,
    /// Trials at a time
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// The program under test
    #[arg(long, default_value_os_t = beside())]
    program: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DeedName {
    Kill,
    Fail,
    Full,
}

impl From<DeedName> for Deed {
    fn from(name: DeedName) -> Self {
        match name {
            DeedName::Kill => Self::Kill,
            DeedName::Fail => Self::Fail,
            DeedName::Full => Self::Full,
        }
    }
}

/// The `contaccum` that lies beside this program.
fn beside() -> PathBuf {
    std::env::current_exe().unwrap_or_default().with_file_name("contaccum")
}

fn main() -> ExitCode {
    run(Cli::parse().command).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Kill(wanted) => campaign(&wanted, &[Deed::Kill]),
        Command::Faults(wanted) => campaign(&wanted, &[Deed::Fail, Deed::Full]),
        Command::One { scenario, deed, point, program } => {
            let lab = Lab::new(&program)?;
            println!("{}", lab.one(named(&scenario)?, deed.into(), point)?);
            println!("kept: {}", lab.keep().display());
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn named(name: &str) -> anyhow::Result<&'static Scenario> {
    let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
    Scenario::named(name).ok_or_else(|| anyhow::anyhow!("no scenario {name:?} (one of {})", names.join(", ")))
}

fn campaign(wanted: &Wanted, deeds: &[Deed]) -> anyhow::Result<ExitCode> {
    let lab = Lab::new(&wanted.program)?;
    let scenarios: Vec<&'static Scenario> = match &wanted.scenario {
        Some(name) => vec![named(name)?],
        None => SCENARIOS.iter().collect(),
    };
    let mut tallies = Vec::new();
    println!("| scenario | calls | trials | failures | trials by call |\n|---|--:|--:|--:|---|");
    for scenario in scenarios {
        let tally = lab.run(scenario, deeds, wanted.points.unwrap_or(usize::MAX), wanted.jobs)?;
        println!("{}", row(&tally));
        tallies.push(tally);
    }
    let trials: usize = tallies.iter().flat_map(|tally| tally.trials.values()).sum();
    let failures: Vec<_> = tallies.iter().flat_map(|tally| &tally.failures).collect();
    println!("\n{trials} trials, {} failures", failures.len());
    failures.iter().for_each(|failure| println!("{failure}"));
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn row(tally: &Tally) -> String {
    let trials: usize = tally.trials.values().sum();
    let by_call: Vec<String> = tally.trials.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let Tally { scenario, calls, failures, .. } = tally;
    format!("| {scenario} | {calls} | {trials} | {} | {} |", failures.len(), by_call.join(", "))
}
