//! Reading what a run left in its folder, finished or not.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use contaccum_training::{CONFIG_FILE, METRICS_FILE, MODEL_FOLDER};
use serde::Deserialize;

use crate::ReportError;

/// Folder of the evaluations of a finished run, inside its output folder: `NAME.json` by data set.
const EVALUATIONS: &str = "evaluations";

/// What was recorded of one update: the fields of [`contaccum_training::UpdateRecord`] that are drawn. One that an
/// older version did not write, or that was not finite, is `None`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields are those of UpdateRecord")]
pub struct Update {
    pub update: usize,
    pub loss: Option<f64>,
    pub current_rows_loss: Option<f64>,
    pub grad_norm_query: Option<f64>,
    pub grad_norm_passage: Option<f64>,
    pub grad_norm_ratio: Option<f64>,
    pub learning_rate: Option<f64>,
    pub negatives_per_query: Option<f64>,
    pub bank_samples: Option<f64>,
    pub bank_mass: Option<f64>,
    pub bank_mass_by_age: Vec<Option<f64>>,
    pub bank_drift: Option<f64>,
    pub bank_path: Option<f64>,
    pub bank_evicted: Option<f64>,
    pub tokens_per_second: Option<f64>,
    pub seconds: Option<f64>,
    pub planned_bytes: Option<f64>,
    pub resident_bytes: Option<f64>,
    pub peak_resident_bytes: Option<f64>,
    pub dev: BTreeMap<String, Option<f64>>,
}

/// Values of a finished run on one data set, query by query.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Evaluation {
    /// Split of the data set.
    pub split: String,
    /// Ids of the queries.
    pub queries: Vec<String>,
    /// Measure → its value for each query.
    pub measures: BTreeMap<String, Vec<f64>>,
}

/// Everything that a page tells of one run.
#[derive(Clone, Debug)]
pub struct RunFolder {
    /// The shortest end of the folder's path that no other run of the page has.
    pub name: String,
    /// Settings, as in a recipe; empty where the folder has none.
    pub settings: toml::Table,
    /// What was recorded, in the order of updates.
    pub updates: Vec<Update>,
    /// Lines of the records that could not be read, from 1; a killed run leaves one at the end.
    pub unreadable_lines: Vec<usize>,
    /// Whether the run came to its end.
    pub finished: bool,
    /// Evaluations after the end, by data set.
    pub evaluations: BTreeMap<String, Evaluation>,
}

impl RunFolder {
    /// Reads the folders of runs. One that is given twice, under whatever path, is read once.
    ///
    /// # Errors
    /// See [`ReportError`].
    pub fn open_all(folders: &[PathBuf]) -> Result<Vec<Self>, ReportError> {
        let mut paths: Vec<PathBuf> = Vec::new();
        for folder in folders {
            let path = folder.canonicalize().map_err(failed(folder))?;
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        if paths.is_empty() {
            return Err(ReportError::NoRuns);
        }
        let names = short_names(&paths);
        paths.iter().zip(names).map(|(path, name)| Self::open(path, name)).collect()
    }

    fn open(folder: &Path, name: String) -> Result<Self, ReportError> {
        let metrics = folder.join(METRICS_FILE);
        let records = match fs::read(&metrics) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(ReportError::NoRun { folder: folder.to_owned() });
            }
            records => records.map_err(failed(&metrics))?,
        };
        let (updates, unreadable_lines) = read_updates(&records);
        let evaluations = read_evaluations(&folder.join(EVALUATIONS))?;
        Ok(Self {
            name,
            settings: read_settings(&folder.join(CONFIG_FILE))?,
            updates,
            unreadable_lines,
            // A model may have been removed since to save space.
            finished: folder.join(MODEL_FOLDER).is_dir() || !evaluations.is_empty(),
            evaluations,
        })
    }

    /// A setting as it is shown, `None` where it is not set.
    pub fn setting(&self, key: &str) -> Option<String> {
        self.settings.get(key).map(|value| match value {
            toml::Value::String(text) => text.clone(),
            value => value.to_string(),
        })
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> ReportError {
    let path = path.to_owned();
    move |source| ReportError::Read { path, source }
}

/// The records that can be read, in the order of updates, and the numbers of the lines that cannot. Of an update that
/// is there twice, the later line counts.
fn read_updates(records: &[u8]) -> (Vec<Update>, Vec<usize>) {
    let mut updates = BTreeMap::new();
    let mut unreadable = Vec::new();
    for (line, text) in (1..).zip(records.split(|&byte| byte == b'\n')) {
        match serde_json::from_slice::<Update>(text) {
            Ok(update) => drop(updates.insert(update.update, update)),
            Err(_) if text.trim_ascii().is_empty() => {}
            Err(_) => unreadable.push(line),
        }
    }
    (updates.into_values().collect(), unreadable)
}

fn read_settings(path: &Path) -> Result<toml::Table, ReportError> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(toml::Table::new()),
        text => text.map_err(failed(path))?,
    };
    text.parse().map_err(|error: toml::de::Error| ReportError::Corrupt {
        path: path.to_owned(),
        problem: format!("not TOML: {} (restore the file, or remove it)", error.message()),
    })
}

fn read_evaluations(folder: &Path) -> Result<BTreeMap<String, Evaluation>, ReportError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        entries => entries.map_err(failed(folder))?,
    };
    let mut evaluations = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(failed(folder))?.path();
        if path.extension().is_some_and(|extension| extension == "json")
            && let Some(name) = path.file_stem()
        {
            evaluations.insert(name.to_string_lossy().into_owned(), read_evaluation(&path)?);
        }
    }
    Ok(evaluations)
}

fn read_evaluation(path: &Path) -> Result<Evaluation, ReportError> {
    let corrupt = |problem: String| ReportError::Corrupt {
        path: path.to_owned(),
        problem: format!("{problem} (evaluate the run again, or remove the file)"),
    };
    let text = fs::read(path).map_err(failed(path))?;
    let evaluation: Evaluation =
        serde_json::from_slice(&text).map_err(|error| corrupt(format!("no evaluation: {error}")))?;
    for (measure, values) in &evaluation.measures {
        if values.len() != evaluation.queries.len() {
            let (values, queries) = (values.len(), evaluation.queries.len());
            return Err(corrupt(format!("{measure} has {values} values for {queries} queries")));
        }
    }
    Ok(evaluation)
}

/// For each path the shortest end of it that is no other path's end.
fn short_names(paths: &[PathBuf]) -> Vec<String> {
    let end = |path: &Path, parts: usize| -> PathBuf {
        let all: Vec<_> = path.components().collect();
        all[all.len().saturating_sub(parts)..].iter().collect()
    };
    let shortest = |path: &PathBuf| {
        let alone = |&parts: &usize| {
            let of_path = end(path, parts);
            paths.iter().filter(|other| end(other, parts) == of_path).count() == 1
        };
        let parts = (1..path.components().count()).find(alone).unwrap_or(usize::MAX);
        end(path, parts).display().to_string()
    };
    paths.iter().map(shortest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_short_as_tells_the_runs_apart() {
        let paths = ["/r/a/seed-1", "/r/b/seed-1", "/r/b/seed-2"].map(PathBuf::from);
        assert_eq!(short_names(&paths), ["a/seed-1", "b/seed-1", "seed-2"]);
        assert_eq!(short_names(&["/x".into(), "/r/x".into()]), ["/x", "r/x"]);
    }

    #[test]
    fn torn_and_repeated_lines_leave_one_record_of_each_update_in_order() {
        let lines = b"{\"update\":2,\"loss\":9}\n{\"update\":1,\"loss\":null}\n{\"upd\n{\"update\":2,\"loss\":3}\n{\"up";
        let (updates, unreadable) = read_updates(lines);
        let seen: Vec<_> = updates.iter().map(|update| (update.update, update.loss)).collect();
        assert_eq!(seen, [(1, None), (2, Some(3.0))]);
        assert_eq!(unreadable, [3, 5]);
    }

    #[test]
    fn every_number_that_training_records_and_the_page_draws_is_read_back() {
        let text = serde_json::to_string(&contaccum_training::UpdateRecord {
            update: 7,
            grad_norm_ratio: Some(0.0),
            resident_bytes: Some(1),
            peak_resident_bytes: Some(2),
            dev: BTreeMap::from([("nDCG@10".into(), 0.5)]),
            ..Default::default()
        });
        let update: Update = serde_json::from_str(&text.unwrap()).unwrap();
        let zero = Some(0.0);
        let expected = Update {
            update: 7,
            loss: zero,
            current_rows_loss: zero,
            grad_norm_query: zero,
            grad_norm_passage: zero,
            grad_norm_ratio: zero,
            learning_rate: zero,
            negatives_per_query: zero,
            bank_samples: zero,
            bank_mass: zero,
            tokens_per_second: zero,
            seconds: zero,
            resident_bytes: Some(1.0),
            peak_resident_bytes: Some(2.0),
            dev: BTreeMap::from([("nDCG@10".into(), Some(0.5))]),
            // Written by later versions of the record, and not by all runs.
            planned_bytes: update.planned_bytes,
            bank_mass_by_age: update.bank_mass_by_age.clone(),
            bank_drift: update.bank_drift,
            bank_path: update.bank_path,
            bank_evicted: update.bank_evicted,
        };
        assert_eq!(update, expected);
    }
}
