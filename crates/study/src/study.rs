//! Doing what a recipe asks: run after run, each a process of its own, measured by this one.
//!
//! Seed by seed, all cells of a seed before the next: what is there after an interruption compares cells evenly. A run
//! that fails is reported and does not end the study.
//!
//! ```text
//! FOLDER/start/seed-1/        the fresh encoder of seed 1 in training, as `contaccum train` writes it
//! FOLDER/<cell>/seed-1/       a run: config.toml, metrics.jsonl, train.log, evaluations/<data>.json
//! ```

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use contaccum_files::FolderLock;
use contaccum_retrieval::{DevSet, DevSource};
use contaccum_training::TrainConfig;

use crate::grid::folder_name;
use crate::inputs::Inputs;
use crate::recipe::{EvaluationData, Recipe};
use crate::run::{Progress, StudyRun, Training};
use crate::start::{start_run, text_settings, write_random_model};
use crate::{Results, StudyError};

/// A recipe with its folder and data opened.
pub struct Study {
    pub(crate) recipe: Recipe,
    pub(crate) folder: PathBuf,
    pub(crate) sets: Vec<DevSet>,
    inputs: Inputs,
    /// A run holds it too, as its standard input: one that outlives an interrupted study is waited for, so that no two
    /// processes write one run.
    lock: FolderLock,
}

/// How a study is done.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `contaccum` program.
    pub program: PathBuf,
    /// After so long no run is started any more.
    pub time: Option<Duration>,
}

/// How a study is asked to stop.
pub trait Stop {
    /// Whether it is to stop where nothing is lost.
    fn requested(&self) -> bool;

    /// Asks a process that the study started to stop where nothing is lost.
    fn pass_on(&self, child: &Child);
}

/// What a study tells its caller while it goes.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// Another process works in the folder; the study waits for it.
    Waiting,
    /// A run is about to be trained.
    Training {
        /// Cell and seed.
        run: &'a str,
        /// Its number among all runs, from 1.
        number: usize,
        /// All runs.
        of: usize,
        /// It goes on from a checkpoint.
        resumed: bool,
    },
    /// A run is trained and measured.
    Done {
        /// Cell and seed.
        run: &'a str,
        /// Wall time, measuring included.
        time: Duration,
        /// The measure of the tables on each data set, by name.
        measures: Vec<(String, f64)>,
    },
    /// A run failed.
    Failed(&'a Failure),
}

/// A run that failed, and why.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Failure {
    /// Cell and seed.
    pub run: String,
    /// One line.
    pub reason: String,
    /// Whether a setting was to blame.
    #[serde(skip)]
    pub bad_usage: bool,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}: {}", self.run, self.reason)
    }
}

/// What came of a study.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The comparison of what is there.
    pub results: Results,
    /// Runs that failed.
    pub failures: Vec<Failure>,
    /// Runs that were not started for want of time, or as the study was asked to stop.
    pub left: usize,
    /// It was asked to stop.
    pub stopped: bool,
}

impl Study {
    /// Reads everything the study needs: the queries to measure on, the training data of its cells.
    ///
    /// # Errors
    /// Anything missing or broken, before any work is done.
    pub fn open(recipe: Recipe, folder: &Path, tell: &mut dyn FnMut(Event)) -> Result<Self, StudyError> {
        let (tokenizer, settings) = text_settings(&recipe)?;
        let open = |evaluation: &EvaluationData| {
            let EvaluationData { data, split, max_queries } = evaluation.clone();
            let source = DevSource {
                folder: data,
                split,
                max_queries,
                query_max_length: recipe.base.query_max_length,
                passage_max_length: recipe.base.passage_max_length,
                passage_format: settings.passage_format,
                ignore_identical_ids: recipe.base.ignore_identical_ids,
                strictness: recipe.base.strict.into(),
            };
            Ok::<_, StudyError>(DevSet::open(source, &settings, &tokenizer)?)
        };
        let sets = recipe.evaluations.iter().map(open).collect::<Result<_, _>>()?;
        let inputs = Inputs::open(&recipe)?;
        contaccum_files::create_folder(folder)?;
        let lock = FolderLock::wait(folder, || tell(Event::Waiting))?;
        if let Some(start) = &recipe.start {
            for &seed in &recipe.seeds {
                write_random_model(start, &tokenizer, folder, seed)?;
            }
        }
        Ok(Self { recipe, folder: folder.into(), sets, inputs, lock })
    }

    /// The start of a seed, where the recipe has one.
    pub(crate) fn start(&self, seed: u64) -> Option<StudyRun> {
        self.recipe.start.as_ref().map(|start| start_run(start, &self.folder, seed))
    }

    /// The run of a cell with a seed.
    pub(crate) fn run_of(&self, cell: usize, seed: u64) -> StudyRun {
        let cell = &self.recipe.cells[cell];
        let output_dir = self.folder.join(folder_name(&cell.name)).join(format!("seed-{seed}"));
        let model = match self.start(seed) {
            Some(start) => start.model().to_string_lossy().into_owned(),
            None => cell.config.model.clone(),
        };
        StudyRun {
            name: format!("{}, seed {seed}", cell.name),
            config: TrainConfig { seed, model, output_dir, ..cell.config.clone() },
        }
    }

    /// Trains and measures what is not done yet, and compares what is there.
    ///
    /// # Errors
    /// A run of other settings in the folder, a file that cannot be read or written. A run that fails is no error.
    pub fn run(
        &self,
        options: &Options,
        stop: &dyn Stop,
        tell: &mut dyn FnMut(Event),
    ) -> Result<Outcome, StudyError> {
        let begun = Instant::now();
        let runs = self.runs();
        for (run, _) in &runs {
            run.progress(&self.sets, &self.inputs)?;
        }
        let (mut failures, mut left) = (Vec::<Failure>::new(), 0);
        for (index, (run, keep)) in runs.iter().enumerate() {
            let progress = run.progress(&self.sets, &self.inputs)?;
            if progress == Progress::Done {
                run.tidy(*keep)?;
                continue;
            }
            if stop.requested() || options.time.is_some_and(|time| begun.elapsed() >= time) {
                left += 1;
                continue;
            }
            let started = Instant::now();
            let number = (index + 1, runs.len());
            match self.train_and_measure(run, progress, number, options, stop, tell)? {
                Training::Done => {
                    run.tidy(*keep)?;
                    let measures = self.means(run)?;
                    tell(Event::Done { run: &run.name, time: started.elapsed(), measures });
                }
                Training::Stopped => left += 1,
                Training::Failed { reason, bad_usage } => {
                    let failure = Failure { run: run.name.clone(), reason, bad_usage };
                    tell(Event::Failed(&failure));
                    failures.push(failure);
                }
            }
        }
        let stopped = left > 0 && stop.requested();
        Ok(Outcome { results: Results::collect(self, &failures)?, failures, left, stopped })
    }

    /// Folders of the first seed's runs of the first table, as far as they are done: what a report overlays.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn report_folders(&self) -> Result<Vec<PathBuf>, StudyError> {
        let mut folders = Vec::new();
        for &cell in &self.recipe.groups[0].cells {
            let run = self.run_of(cell, self.recipe.seeds[0]);
            if run.progress(&self.sets, &self.inputs)? == Progress::Done {
                folders.push(run.folder().to_owned());
            }
        }
        Ok(folders)
    }

    /// All runs in the order they are done, and whether their models are kept.
    fn runs(&self) -> Vec<(StudyRun, bool)> {
        let of_seed = |&seed: &u64| {
            let cells = (0..self.recipe.cells.len())
                .map(move |cell| (self.run_of(cell, seed), self.recipe.keep_models));
            self.start(seed).map(|start| (start, true)).into_iter().chain(cells)
        };
        self.recipe.seeds.iter().flat_map(of_seed).collect()
    }

    /// Does what is left of a run.
    fn train_and_measure(
        &self,
        run: &StudyRun,
        progress: Progress,
        (number, of): (usize, usize),
        options: &Options,
        stop: &dyn Stop,
        tell: &mut dyn FnMut(Event),
    ) -> Result<Training, StudyError> {
        match progress {
            Progress::Done => return Ok(Training::Done),
            Progress::Trained => {}
            Progress::New | Progress::Interrupted => {
                let resumed = progress == Progress::Interrupted;
                tell(Event::Training { run: &run.name, number, of, resumed });
                match run.train(&options.program, resumed, &self.lock, stop)? {
                    Training::Done => {}
                    ended @ (Training::Stopped | Training::Failed { .. }) => return Ok(ended),
                }
            }
        }
        Ok(match run.measure(&self.sets) {
            Ok(()) => Training::Done,
            Err(error) => Training::Failed { reason: error.to_string(), bad_usage: false },
        })
    }

    fn means(&self, run: &StudyRun) -> Result<Vec<(String, f64)>, StudyError> {
        let measure = self.recipe.measure.to_string();
        let mut means = Vec::new();
        for set in &self.sets {
            let measured = run.measures(set)?;
            means.extend(measured.map(|measured| (set.name(), measured.means()[&measure])));
        }
        Ok(means)
    }
}
