//! One run of a study: a cell with a seed, or the start of a seed; and what its folder holds of it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use contaccum_encoder::{Encoder, Layout, ModelFolder};
use contaccum_files::FolderLock;
use contaccum_retrieval::{DevSet, QueryMeasures};
use contaccum_training::{
    CONFIG_FILE, MODEL_FOLDER, PASSAGE_ENCODER, QUERY_ENCODER, TrainConfig, has_checkpoint,
    remove_checkpoints,
};
use toml::Table;

use crate::StudyError;

/// What the program said while it trained, inside the run's folder.
const LOG_FILE: &str = "train.log";

/// Settings that may change between a run and its recipe: they decide no result.
const FREE: [&str; 4] = ["output_dir", "save_steps", "save_total_limit", "logging_steps"];

/// A run to be trained and measured.
#[derive(Clone, Debug)]
pub(crate) struct StudyRun {
    /// Cell and seed, for messages.
    pub name: String,
    /// Its settings, seed, model and output folder included.
    pub config: TrainConfig,
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

    /// How far the run in the folder has come; refuses one that was trained with other settings.
    pub fn progress(&self, sets: &[DevSet]) -> Result<Progress, StudyError> {
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
        Ok(match (measured, self.model().is_dir()) {
            (true, _) => Progress::Done,
            (false, true) => Progress::Trained,
            (false, false) if has_checkpoint(self.folder())? => Progress::Interrupted,
            (false, false) => Progress::New,
        })
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
            .filter(|key| !FREE.contains(&key.as_str()) && stored.get(*key) != wanted.get(*key))
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
    ///
    /// Returns the last line that a failed process said.
    pub fn train(
        &self,
        program: &Path,
        resume: bool,
        lock: &FolderLock,
    ) -> Result<Result<(), String>, StudyError> {
        let folder = self.folder();
        contaccum_files::create_folder(folder)?;
        let recipe = folder.join(CONFIG_FILE);
        let log = folder.join(LOG_FILE);
        let mut command = Command::new(program);
        command.arg("train");
        if resume {
            command.arg("--resume").arg("--output-dir").arg(folder);
        } else {
            let text = self.config.to_toml();
            contaccum_files::write(&recipe, |file| file.write_all(text.as_bytes()))?;
            command.arg("--recipe").arg(&recipe);
        }
        let said = File::create(&log).map_err(StudyError::io("making the log", &log))?;
        let held = lock.share().map_err(StudyError::io("sharing the lock", folder))?;
        command.stdin(held).stdout(Stdio::null()).stderr(said);
        let status = command.status().map_err(StudyError::io("starting the program", program))?;
        if status.success() {
            return Ok(Ok(()));
        }
        let said = fs::read_to_string(&log).map_err(StudyError::io("reading the log", &log))?;
        let last = said.lines().rev().find_map(|line| line.strip_prefix("error: "));
        Ok(Err(last.map_or_else(|| format!("the process ended with {status}"), str::to_owned)))
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
    let config = folder.config()?;
    let weights = folder.weights(&Layout::new(&config))?;
    Ok(Encoder::new(config, folder.settings()?, weights))
}
