//! One run of a study: a cell with a seed, or the start of a seed; and what its folder holds of it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use contaccum_encoder::{Encoder, ModelFolder};
use contaccum_files::FolderLock;
use contaccum_retrieval::{DevSet, QueryMeasures};
use contaccum_training::{
    CONFIG_FILE, MODEL_FOLDER, PASSAGE_ENCODER, QUERY_ENCODER, Setting, TrainConfig, has_checkpoint,
    remove_checkpoints, write_settings,
};
use toml::Table;

use crate::inputs::Inputs;
use crate::{Stop, StudyError};

/// What the program said while it trained, inside the run's folder.
const LOG_FILE: &str = "train.log";

/// How often a process is asked whether it has ended.
const POLL: Duration = Duration::from_millis(20);

/// Exit code of a program that was told something that makes no sense.
const BAD_USAGE: i32 = 2;

/// A run to be trained and measured.
#[derive(Clone, Debug)]
pub(crate) struct StudyRun {
    /// Cell and seed, for messages.
    pub name: String,
    /// Its settings, seed, model and output folder included.
    pub config: TrainConfig,
}

/// How training in a process of its own ended.
pub(crate) enum Training {
    /// With a trained model.
    Done,
    /// As the caller was asked to stop, with what is needed to go on.
    Stopped,
    /// Otherwise; the last line that it said, and whether a setting was to blame.
    Failed { reason: String, bad_usage: bool },
}

/// Waits for the end of `child`, which is asked to stop when the caller is.
fn wait(child: &mut Child, stop: &dyn Stop) -> io::Result<ExitStatus> {
    let mut asked = false;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if stop.requested() && !asked {
            stop.pass_on(child);
            asked = true;
        }
        std::thread::sleep(POLL);
    }
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing that could be gone on from.
    New,
    /// A checkpoint.
    Interrupted,
    /// A trained model without all of its measures.
    Trained,
    /// Everything.
    Done,
}

impl StudyRun {
    pub fn folder(&self) -> &Path {
        &self.config.output_dir
    }

    pub fn model(&self) -> PathBuf {
        self.folder().join(MODEL_FOLDER)
    }

    /// How far the run in the folder has come; refuses one that was trained with other settings, texts or start.
    pub fn progress(&self, sets: &[DevSet], inputs: &Inputs) -> Result<Progress, StudyError> {
        let path = self.folder().join(CONFIG_FILE);
        if !path.exists() {
            return Ok(Progress::New);
        }
        self.compare(
            &TrainConfig::load(Some(&path), Table::new()).map_err(contaccum_training::TrainError::from)?,
        )?;
        let mut measured = true;
        for set in sets {
            measured &= self.measures(set)?.is_some();
        }
        let progress = match (measured, self.model().is_dir()) {
            (true, _) => Progress::Done,
            (false, true) => Progress::Trained,
            (false, false) if has_checkpoint(self.folder())? => Progress::Interrupted,
            (false, false) => return Ok(Progress::New),
        };
        inputs.check(self)?;
        Ok(progress)
    }

    fn compare(&self, stored: &TrainConfig) -> Result<(), StudyError> {
        let table = |config: &TrainConfig| Table::try_from(config).expect("a configuration is a table");
        let (stored, wanted) = (table(stored), table(&self.config));
        let mut keys: Vec<&String> = stored.keys().chain(wanted.keys()).collect();
        keys.sort();
        keys.dedup();
        let told = |value: Option<&toml::Value>| value.map_or("no value".to_owned(), ToString::to_string);
        let difference: Vec<String> = keys
            .into_iter()
            .filter(|key| Setting::of(key).is_none_or(|setting| !setting.facts.role.may_change_when_done()))
            .filter(|key| stored.get(*key) != wanted.get(*key))
            .map(|key| format!("{key} = {}, not {}", told(stored.get(key)), told(wanted.get(key))))
            .collect();
        if difference.is_empty() {
            return Ok(());
        }
        Err(StudyError::Changed {
            run: self.name.clone(),
            folder: self.folder().into(),
            difference: difference.join(", "),
        })
    }

    /// The measures of the run on `set`; `None` where there are none of these queries.
    pub fn measures(&self, set: &DevSet) -> Result<Option<QueryMeasures>, StudyError> {
        let stored = QueryMeasures::read(&QueryMeasures::path(self.folder(), &set.name()))?;
        Ok(stored.filter(|stored| set.answers(stored)))
    }

    /// Trains as a process of its own, from the beginning or from the newest checkpoint. `program` is `contaccum`;
    /// `lock` stays held for as long as the process lives, whatever becomes of the caller.
    pub fn train(
        &self,
        program: &Path,
        resume: bool,
        lock: &FolderLock,
        stop: &dyn Stop,
    ) -> Result<Training, StudyError> {
        let folder = self.folder();
        contaccum_files::create_folder(folder)?;
        let log = folder.join(LOG_FILE);
        let mut command = Command::new(program);
        command.arg("train");
        if resume {
            command.arg("--resume").arg("--output-dir").arg(folder);
        } else {
            write_settings(folder, &self.config)?;
            // What there is of the run is not what the study needs: it would have been used.
            command.arg("--recipe").arg(folder.join(CONFIG_FILE)).arg("--overwrite");
        }
        let said = File::create(&log).map_err(StudyError::io("making the log", &log))?;
        let held = lock.share().map_err(StudyError::io("sharing the lock", folder))?;
        command.stdin(held).stdout(Stdio::null()).stderr(said);
        let mut child = command.spawn().map_err(StudyError::io("starting the program", program))?;
        let status = wait(&mut child, stop).map_err(StudyError::io("waiting for the program", program))?;
        if status.success() {
            return Ok(Training::Done);
        }
        if stop.requested() {
            return Ok(Training::Stopped);
        }
        let said = fs::read_to_string(&log).map_err(StudyError::io("reading the log", &log))?;
        let last = said.lines().rev().find_map(|line| line.strip_prefix("error: "));
        let reason = last.map_or_else(|| format!("the process ended with {status}"), str::to_owned);
        Ok(Training::Failed { reason, bad_usage: status.code() == Some(BAD_USAGE) })
    }

    /// Measures the trained model on what it is not measured on yet, and stores it query by query.
    pub fn measure(&self, sets: &[DevSet]) -> Result<(), StudyError> {
        let folder = self.model();
        let untied = folder.join(QUERY_ENCODER).is_dir();
        let query = encoder(if untied { folder.join(QUERY_ENCODER) } else { folder.clone() })?;
        let passage = untied.then(|| encoder(folder.join(PASSAGE_ENCODER))).transpose()?;
        for set in sets {
            if self.measures(set)?.is_none() {
                let measured = set.measure(&query, passage.as_ref().unwrap_or(&query))?;
                measured.write(&QueryMeasures::path(self.folder(), &set.name()))?;
            }
        }
        Ok(())
    }

    /// Removes what a measured run no longer needs: its checkpoints and, unless it is to be kept, its model.
    pub fn tidy(&self, keep_model: bool) -> Result<(), StudyError> {
        // A run that was killed at its last checkpoint has its model, and is not trained again.
        contaccum_files::sweep(self.folder())?;
        remove_checkpoints(self.folder())?;
        let model = self.model();
        if !keep_model && model.is_dir() {
            contaccum_files::remove_folder(&model)?;
        }
        Ok(())
    }
}

fn encoder(folder: PathBuf) -> Result<Encoder, StudyError> {
    let folder = ModelFolder::locate(&folder.to_string_lossy())?;
    Ok(folder.encoder(folder.settings()?)?)
}
