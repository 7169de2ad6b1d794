//! `contaccum study`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use contaccum_study::{Event, Options, Outcome, Recipe, Study};
use indicatif::HumanDuration;

use crate::args::StudyArgs;
use crate::failure::BadUsage;
use crate::output;
use crate::signals::Signals;

/// Does what a study's recipe asks and writes the comparison.
pub fn run(args: &StudyArgs) -> anyhow::Result<()> {
    let recipe = Recipe::read(&args.recipe)?;
    crate::use_threads(recipe.base.threads)?;
    if args.dry_run {
        return recipe.cells.iter().try_for_each(|cell| output::line(&cell.name));
    }
    let folder = args.output.clone().unwrap_or_else(|| default_folder(&args.recipe));
    let study = Study::open(recipe, &folder, &mut tell)?;
    let minutes = |minutes: u32| Duration::from_secs(60 * u64::from(minutes));
    let options = Options { program: std::env::current_exe()?, time: args.max_minutes.map(minutes) };
    let signals = Signals::catch()?;
    let Outcome { results, failures, left, stopped } = study.run(&options, &signals, &mut tell)?;
    let mut written = results.write(&folder)?.to_vec();
    let drawn = study.report_folders()?;
    if !drawn.is_empty() {
        written.push(folder.join("report.html"));
        contaccum_report::write_page(&drawn, &written[2])?;
    }
    match args.json {
        true => output::line(serde_json::to_string_pretty(&results)?)?,
        false => output::line(results.markdown().trim_end())?,
    }
    let written: Vec<String> = written.iter().map(|path| path.display().to_string()).collect();
    tracing::info!("written: {}", written.join(", "));
    if stopped {
        return signals.interrupted(format!("stopped with {left} runs left; the same command goes on"));
    }
    if left > 0 {
        tracing::info!("{left} runs left for want of time; the same command goes on");
    }
    let Some(first) = failures.first() else { return Ok(()) };
    let told = format!("{} runs failed, the first: {first}", failures.len());
    match failures.iter().all(|failure| failure.bad_usage) {
        true => Err(BadUsage(told).into()),
        false => Err(anyhow::anyhow!(told)),
    }
}

fn default_folder(recipe: &Path) -> PathBuf {
    Path::new("runs").join(recipe.file_stem().unwrap_or(recipe.as_os_str()))
}

/// Says on stderr what a study is doing.
fn tell(event: Event) {
    match event {
        Event::Waiting => tracing::info!("waiting for a process that works in this folder"),
        Event::Training { run, number, of, resumed } => {
            let verb = if resumed { "going on with" } else { "training" };
            tracing::info!("{number}/{of}: {verb} {run}");
        }
        Event::Done { run, time, measures } => {
            let measures: Vec<String> =
                measures.iter().map(|(name, value)| format!("{name} {value:.3}")).collect();
            tracing::info!("{run}: {} in {}", measures.join(", "), HumanDuration(time));
        }
        Event::Failed(failure) => tracing::warn!("{failure}"),
    }
}
