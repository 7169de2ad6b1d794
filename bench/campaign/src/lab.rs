//! Where trials are made: inputs, undisturbed runs to hold them against, and the counting of both.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

use crate::program::Program;
use crate::tree::Tree;
use crate::trial::copy_folder;
use crate::{Deed, Scenario, Trial, fixture};

/// A scratch folder with inputs and the program under test.
#[derive(Debug)]
pub struct Lab {
    folder: TempDir,
    program: Program,
}

/// A scenario, run once undisturbed.
#[derive(Debug)]
pub struct Bench {
    pub scenario: &'static Scenario,
    /// The folder the command starts from.
    base: PathBuf,
    pub before: Tree,
    pub after: Tree,
    /// The files of a model.
    pub model: Tree,
    /// Its calls that change files: `number name subject`.
    pub calls: Vec<String>,
}

impl Bench {
    /// Makes the folder of a trial as the command finds it.
    pub fn lay_out(&self, folder: &Path) -> anyhow::Result<()> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        copy_folder(&self.base, folder)
    }
}

/// What came of the trials of a scenario.
#[derive(Debug)]
pub struct Tally {
    /// Name of the scenario.
    pub scenario: &'static str,
    /// Calls that change files in the undisturbed run.
    pub calls: usize,
    /// Trials made, by the name of the call.
    pub trials: BTreeMap<String, usize>,
    /// Trials after which something was wrong.
    pub failures: Vec<Trial>,
}

impl Lab {
    /// Writes the inputs and compiles the shim, in a temporary folder.
    ///
    /// # Errors
    /// A program that is not there, no C compiler, or a full disk.
    pub fn new(program: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("campaign").tempdir()?;
        fs::create_dir_all(folder.path().join("trials"))?;
        fixture::write(&folder.path().join("in"))?;
        let program = Program::new(program, folder.path())?;
        Ok(Self { folder, program })
    }

    /// Keeps the folder for a look, and says where it is.
    pub fn keep(self) -> PathBuf {
        self.folder.keep()
    }

    fn trial_folder(&self, name: &str) -> PathBuf {
        self.folder.path().join("trials").join(name)
    }

    fn bench(&self, scenario: &'static Scenario) -> anyhow::Result<Bench> {
        let base = self.trial_folder(&format!("{}-base", scenario.name));
        fs::create_dir_all(&base)?;
        for line in scenario.before {
            let ended = self.program.run(&base, line)?;
            anyhow::ensure!(ended.well(), "{line}: {}", ended.told());
        }
        let whole = self.trial_folder(&format!("{}-whole", scenario.name));
        copy_folder(&base, &whole)?;
        let (ended, calls) = self.program.count(&whole, scenario.command)?;
        anyhow::ensure!(ended.well(), "{}: {}", scenario.command, ended.told());
        let (before, after) = (Tree::read(&base)?, Tree::read(&whole)?);
        let model = Tree::read(&self.folder.path().join("in/start"))?;
        Ok(Bench { scenario, base, before, after, model, calls })
    }

    /// Does each of `deeds` at up to `points` calls of the scenario, evenly spread, `jobs` trials at a time.
    ///
    /// # Errors
    /// When the undisturbed run fails already.
    pub fn run(
        &self,
        scenario: &'static Scenario,
        deeds: &[Deed],
        points: usize,
        jobs: usize,
    ) -> anyhow::Result<Tally> {
        let bench = self.bench(scenario)?;
        let calls = bench.calls.len();
        let chosen = points.min(calls);
        let wanted: Vec<(Deed, usize)> = (0..chosen)
            .flat_map(|index| deeds.iter().map(move |&deed| (deed, 1 + index * calls / chosen)))
            .collect();
        let (next, trials) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            let work = |job: usize| {
                let folder = self.trial_folder(&format!("{}-{job}", scenario.name));
                while let Some(&(deed, point)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let trial = Trial::run(&self.program, &bench, deed, point, &folder)?;
                    trials.lock().expect("no trial panics").push(trial);
                }
                anyhow::Ok(())
            };
            let workers: Vec<_> = (0..jobs.max(1)).map(|job| scope.spawn(move || work(job))).collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("no trial panics"))
        })?;
        let trials = trials.into_inner().expect("no trial panics");
        let mut tally =
            Tally { scenario: scenario.name, calls, trials: BTreeMap::new(), failures: Vec::new() };
        for trial in trials {
            let name = trial.call.split(' ').nth(1).unwrap_or("none").to_owned();
            *tally.trials.entry(name).or_default() += 1;
            if trial.wrong.is_some() {
                tally.failures.push(trial);
            }
        }
        tally.failures.sort_by_key(|trial| trial.point);
        Ok(tally)
    }

    /// One trial, its folder left for a look.
    ///
    /// # Errors
    /// As [`Lab::run`].
    pub fn one(&self, scenario: &'static Scenario, deed: Deed, point: usize) -> anyhow::Result<Trial> {
        let bench = self.bench(scenario)?;
        Trial::run(&self.program, &bench, deed, point, &self.trial_folder(scenario.name))
    }
}
