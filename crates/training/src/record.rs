//! What a run writes down after every update: one JSON line, and one TensorBoard event.
//!
//! A resumed run reads as one run: records past the update it resumes from are dropped from `metrics.jsonl`,
//! and the new event file tells TensorBoard to forget them too.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::append::AppendFile;
use crate::events::EventFile;

/// The records of a run, inside its output folder: one JSON object a line, one line an update.
pub const METRICS_FILE: &str = "metrics.jsonl";
const EVENTS_FOLDER: &str = "tensorboard";

/// What is recorded of one update. Numbers that are not finite are written as `null`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct UpdateRecord {
    /// The update this is about; 1 is the first.
    pub update: usize,
    /// Passes over the training rows so far.
    pub epoch: f64,
    /// Mean of the micro-steps' losses, over all rows of the method.
    pub loss: f64,
    /// The same over current queries alone: comparable between methods.
    pub current_rows_loss: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Gradient norm of the query encoder, before clipping.
    pub grad_norm_query: f64,
    /// Gradient norm of the passage encoder, before clipping.
    pub grad_norm_passage: f64,
    /// Passage norm over query norm; `None` where the query encoder gets no gradient.
    pub grad_norm_ratio: Option<f64>,
    /// Learning rate of this update.
    pub learning_rate: f64,
    /// Mean negatives of a current query, at the last micro-step.
    pub negatives_per_query: f64,
    /// Samples in the banks after the update.
    pub bank_samples: usize,
    /// Share of the softmax of current queries that lies on bank entries, 0..=1; a mean over the micro-steps.
    pub bank_mass: f64,
    /// The same by the entries' age, in eighths of the capacity, oldest first; `None` without such entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bank_mass_by_age: Option<[f64; 8]>,
    /// How far the update moved the encoder: the mean of one minus the cosine of a few vectors before and after it;
    /// `None` where banks are not moved with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bank_drift: Option<f64>,
    /// How far the oldest sample in the banks has been moved since it entered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bank_path: Option<f64>,
    /// Samples that left the banks because they had been moved too far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bank_evicted: Option<usize>,
    /// Pairs of a current query and a bank entry that holds its own positive or another passage known to be relevant.
    pub own_positives_in_bank: u64,
    /// Share of the rows that the false-negative mask left passages out of, besides their own positive, 0..=1.
    pub masked_rows: f64,
    /// Tokens of the update, queries and passages.
    pub tokens: u64,
    /// Tokens over seconds.
    pub tokens_per_second: f64,
    /// Wall time of the update.
    pub seconds: f64,
    /// Bytes planned before the run for all that is allocated at its start.
    pub planned_bytes: usize,
    /// Resident memory after the update, where the system tells it.
    pub resident_bytes: Option<u64>,
    /// Highest resident memory so far, where the system tells it.
    pub peak_resident_bytes: Option<u64>,
    /// Metrics of an evaluation after this update, by name (`nDCG@10`); empty without one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dev: BTreeMap<String, f64>,
}

/// A record that could not be written or read back.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A file or folder of the records.
    #[error("record not {action}: {path}: {source} (check the folder's permissions and free space)")]
    Io {
        /// What failed: `written`, `read`, ...
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Dropping the records past the resumed update.
    #[error(transparent)]
    Rewrite(#[from] contaccum_files::Error),
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RecordError {
    let path = path.to_owned();
    move |source| RecordError::Io { action, path, source }
}

/// Writes the records of a run into its folder: `metrics.jsonl` and `tensorboard/`.
#[derive(Debug)]
pub struct RunRecorder {
    metrics: AppendFile,
    metrics_path: PathBuf,
    /// The last line, of which update it is and whether an evaluation is in it.
    last: Line,
    lost: usize,
    events: EventFile,
    events_path: PathBuf,
}

/// A line of `metrics.jsonl`.
#[derive(Debug, Default)]
struct Line {
    text: String,
    update: usize,
    evaluated: bool,
}

impl RunRecorder {
    /// Opens the records of the run in `folder` to go on after update `resumed_update` (0: from the start);
    /// later records, of updates that are about to be done again, are dropped, and so are damaged ones.
    ///
    /// # Errors
    /// When the folder cannot be read or written.
    pub fn open(folder: &Path, resumed_update: usize) -> Result<Self, RecordError> {
        let metrics_path = folder.join(METRICS_FILE);
        let events_folder = folder.join(EVENTS_FOLDER);
        contaccum_files::create_folder(&events_folder)?;
        let Kept { text, records, last } =
            kept_lines(&metrics_path, resumed_update).map_err(failed("read", &metrics_path))?;
        contaccum_files::write(&metrics_path, |file| file.write_all(text.as_bytes()))?;
        let metrics = File::options().write(true).open(&metrics_path);
        let metrics = AppendFile::new(metrics.map_err(failed("opened", &metrics_path))?, text.len() as u64);
        let (events, events_path) =
            EventFile::create(&events_folder, resumed_update).map_err(failed("created", &events_folder))?;
        let lost = resumed_update.saturating_sub(records);
        Ok(Self { metrics, metrics_path, last, lost, events, events_path })
    }

    /// Records of updates before the one resumed from that are damaged or missing.
    pub fn lost(&self) -> usize {
        self.lost
    }

    /// Whether the record of `update`, the last one, holds an evaluation.
    pub fn evaluated(&self, update: usize) -> bool {
        self.last.update == update && self.last.evaluated
    }

    /// Appends the record of one update.
    ///
    /// # Errors
    /// When a file cannot be written; what could not be written goes before the next record.
    pub fn record(&mut self, record: &UpdateRecord) -> Result<(), RecordError> {
        let fields = serde_json::to_value(record).expect("numbers under string keys are JSON");
        let text = serde_json::to_string(record).expect("numbers under string keys are JSON") + "\n";
        let written = self.metrics.append(text.as_bytes());
        self.last = Line { text, update: record.update, evaluated: !record.dev.is_empty() };
        self.write_scalars(record.update, scalars("train", &fields))?;
        written.map_err(failed("written", &self.metrics_path))
    }

    /// Adds the metrics of an evaluation to the record of `update`, the last one.
    ///
    /// # Errors
    /// When a file cannot be written; the metrics then go into the record before the next.
    pub fn record_evaluation(
        &mut self,
        update: usize,
        dev: &BTreeMap<String, f64>,
    ) -> Result<(), RecordError> {
        let fields = serde_json::to_value(dev).expect("numbers under string keys are JSON");
        let mut replaced = Ok(());
        if self.last.update == update && !self.last.evaluated {
            let fields = serde_json::to_string(dev).expect("numbers under string keys are JSON");
            let record = self.last.text.trim_end();
            let record = record.strip_suffix('}').expect("a record is a JSON object");
            let text = format!("{record},\"dev\":{fields}}}\n");
            replaced = self.metrics.replace_last(self.last.text.as_bytes(), text.as_bytes());
            self.last = Line { text, update, evaluated: true };
        }
        self.write_scalars(update, scalars("dev", &fields))?;
        replaced.map_err(failed("written", &self.metrics_path))
    }

    fn write_scalars(&mut self, update: usize, scalars: Vec<(String, f32)>) -> Result<(), RecordError> {
        let written = self.events.write_scalars(SystemTime::now(), update, scalars);
        written.map_err(failed("written", &self.events_path))
    }

    /// Makes everything recorded so far outlast a crash of the machine; for use with each checkpoint.
    ///
    /// # Errors
    /// When the system cannot write or sync a file.
    pub fn sync(&mut self) -> Result<(), RecordError> {
        self.metrics.sync().map_err(failed("synced", &self.metrics_path))?;
        self.events.sync().map_err(failed("synced", &self.events_path))
    }
}

/// The numbers of a record under the tags TensorBoard groups them by: `train/loss`, `dev/nDCG@10`, and those of a
/// list by their place from 1 on, `bank_mass_by_age/1`.
fn scalars(group: &str, fields: &serde_json::Value) -> Vec<(String, f32)> {
    let mut tagged = Vec::new();
    for (name, value) in fields.as_object().into_iter().flatten() {
        if value.is_object() {
            tagged.extend(scalars(name, value));
        } else if let Some(list) = value.as_array() {
            let numbers = list.iter().filter_map(serde_json::Value::as_f64);
            tagged
                .extend((1..).zip(numbers).map(|(place, number)| (format!("{name}/{place}"), number as f32)));
        } else if let Some(number) = value.as_f64()
            && name != "update"
        {
            tagged.push((format!("{group}/{name}"), number as f32));
        }
    }
    tagged
}

/// What is left of `metrics.jsonl`.
#[derive(Default)]
struct Kept {
    text: String,
    records: usize,
    last: Line,
}

/// The whole lines of `path` up to update `last_update`; nothing where the file does not exist.
fn kept_lines(path: &Path, last_update: usize) -> io::Result<Kept> {
    #[derive(Deserialize)]
    struct Fields {
        update: usize,
        #[serde(default)]
        dev: BTreeMap<String, serde::de::IgnoredAny>,
    }
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kept::default()),
        file => BufReader::new(file?),
    };
    let (mut kept, mut line) = (Kept::default(), Vec::new());
    while file.read_until(b'\n', &mut line)? > 0 {
        // A line that cannot be read is one record lost; a torn one is the last, of an update that is done again.
        if let Ok(Fields { update, dev }) = serde_json::from_slice(&line)
            && update <= last_update
            && line.ends_with(b"\n")
        {
            let text = String::from_utf8_lossy(&line).into_owned();
            kept.text.push_str(&text);
            kept.records += 1;
            kept.last = Line { text, update, evaluated: !dev.is_empty() };
        }
        line.clear();
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::testing::{TestEvent, read_events};

    fn record(update: usize, loss: f64) -> UpdateRecord {
        UpdateRecord { update, loss, ..UpdateRecord::default() }
    }

    fn updates_and_losses(folder: &Path) -> Vec<(u64, f64)> {
        let text = std::fs::read_to_string(folder.join(METRICS_FILE)).unwrap();
        let parse = |line| serde_json::from_str::<serde_json::Value>(line).unwrap();
        let pair = |v: serde_json::Value| (v["update"].as_u64().unwrap(), v["loss"].as_f64().unwrap());
        text.lines().map(|line| pair(parse(line))).collect()
    }

    /// What TensorBoard would show: event files in the order of their names, purged at each session start.
    fn shown_losses(folder: &Path) -> Vec<(i64, f32)> {
        let mut files: Vec<_> = std::fs::read_dir(folder.join(EVENTS_FOLDER))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        let mut shown = Vec::new();
        for event in files.iter().flat_map(|file| read_events(file)) {
            match event {
                TestEvent::Version(version) => assert_eq!(version, "brain.Event:2"),
                TestEvent::SessionStart(step) => shown.retain(|&(shown_step, _)| shown_step < step),
                TestEvent::Scalars(step, scalars) => {
                    shown.extend(scalars.iter().filter(|s| s.0 == "train/loss").map(|s| (step, s.1)));
                }
            }
        }
        shown
    }

    #[test]
    fn a_resumed_run_reads_as_one_run() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = RunRecorder::open(folder.path(), 0).unwrap();
        for update in 1..=4 {
            first.record(&record(update, 0.5)).unwrap();
        }
        drop(first);
        let mut second = RunRecorder::open(folder.path(), 2).unwrap();
        second.record(&record(3, 0.25)).unwrap();
        second.sync().unwrap();
        assert_eq!(updates_and_losses(folder.path()), [(1, 0.5), (2, 0.5), (3, 0.25)]);
        assert_eq!(shown_losses(folder.path()), [(1, 0.5), (2, 0.5), (3, 0.25)]);
    }

    #[test]
    fn a_torn_last_line_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        RunRecorder::open(folder.path(), 0).unwrap().record(&record(1, 0.5)).unwrap();
        let path = folder.path().join(METRICS_FILE);
        File::options().append(true).open(&path).unwrap().write_all(b"{\"update\":2,\"los").unwrap();
        RunRecorder::open(folder.path(), 2).unwrap().record(&record(3, 0.25)).unwrap();
        assert_eq!(updates_and_losses(folder.path()), [(1, 0.5), (3, 0.25)]);
    }

    #[test]
    fn a_damaged_line_costs_that_line_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = RunRecorder::open(folder.path(), 0).unwrap();
        (1..=5).for_each(|update| recorder.record(&record(update, 0.5)).unwrap());
        let path = folder.path().join(METRICS_FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        let second = bytes.iter().position(|&byte| byte == b'\n').unwrap() + 5;
        bytes[second] = 0xff;
        std::fs::write(&path, &bytes).unwrap();
        let resumed = RunRecorder::open(folder.path(), 4).unwrap();
        assert_eq!(resumed.lost(), 1);
        assert_eq!(updates_and_losses(folder.path()), [(1, 0.5), (3, 0.5), (4, 0.5)]);
    }

    #[test]
    fn an_evaluation_made_after_a_resumption_enters_the_record_of_its_update() {
        let folder = tempfile::tempdir().unwrap();
        RunRecorder::open(folder.path(), 0).unwrap().record(&record(1, 0.5)).unwrap();
        let mut resumed = RunRecorder::open(folder.path(), 1).unwrap();
        assert!(!resumed.evaluated(1));
        resumed.record_evaluation(1, &BTreeMap::from([("nDCG@10".to_owned(), 0.75)])).unwrap();
        resumed.record(&record(2, 0.25)).unwrap();
        let text = std::fs::read_to_string(folder.path().join(METRICS_FILE)).unwrap();
        let whole = UpdateRecord { dev: BTreeMap::from([("nDCG@10".to_owned(), 0.75)]), ..record(1, 0.5) };
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines, [&whole, &record(2, 0.25)].map(|record| serde_json::to_string(record).unwrap()));
        assert!(RunRecorder::open(folder.path(), 1).unwrap().evaluated(1));
    }

    #[test]
    fn dev_metrics_are_recorded_under_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let dev = BTreeMap::from([("nDCG@10".to_owned(), 0.75)]);
        let mut recorder = RunRecorder::open(folder.path(), 0).unwrap();
        recorder.record(&UpdateRecord { dev, ..record(1, 0.5) }).unwrap();
        let events = read_events(&recorder.events_path);
        let Some(TestEvent::Scalars(1, scalars)) = events.last() else { panic!("{events:?}") };
        assert!(scalars.contains(&("dev/nDCG@10".into(), 0.75)));
        assert!(scalars.iter().all(|(tag, _)| tag != "train/update"));
        let text = std::fs::read_to_string(folder.path().join(METRICS_FILE)).unwrap();
        assert!(text.contains(r#""dev":{"nDCG@10":0.75}"#), "{text}");
    }

    #[test]
    fn mass_by_age_is_a_list_in_the_lines_and_eight_scalars_and_absent_without_banks() {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = RunRecorder::open(folder.path(), 0).unwrap();
        let bank_mass_by_age = Some([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.25, 0.5]);
        recorder.record(&UpdateRecord { bank_mass_by_age, ..record(1, 0.5) }).unwrap();
        recorder.record(&record(2, 0.5)).unwrap();
        let text = std::fs::read_to_string(folder.path().join(METRICS_FILE)).unwrap();
        let (with, without) = text.split_once('\n').unwrap();
        assert!(with.contains(r#""bank_mass_by_age":[0.0,0.0,0.0,0.0,0.0,0.0,0.25,0.5]"#), "{with}");
        assert!(!without.contains("bank_mass_by_age"), "{without}");
        let events = read_events(&recorder.events_path);
        let Some(TestEvent::Scalars(1, scalars)) = events.get(events.len() - 2) else { panic!("{events:?}") };
        assert!(scalars.contains(&("bank_mass_by_age/8".into(), 0.5)), "{scalars:?}");
    }

    #[test]
    fn a_number_that_is_not_finite_is_null_and_no_scalar() {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = RunRecorder::open(folder.path(), 0).unwrap();
        recorder.record(&UpdateRecord { grad_norm: f64::INFINITY, ..record(1, 0.5) }).unwrap();
        let text = std::fs::read_to_string(folder.path().join(METRICS_FILE)).unwrap();
        assert!(text.contains(r#""grad_norm":null"#) && text.contains(r#""grad_norm_ratio":null"#), "{text}");
        let events = read_events(&recorder.events_path);
        let Some(TestEvent::Scalars(1, scalars)) = events.last() else { panic!("{events:?}") };
        assert!(scalars.iter().all(|(tag, _)| tag != "train/grad_norm" && tag != "train/grad_norm_ratio"));
    }

    #[test]
    fn a_folder_that_is_a_file_is_one_line_naming_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let message = RunRecorder::open(file.path(), 0).unwrap_err().to_string();
        assert!(message.contains(&file.path().display().to_string()) && !message.contains('\n'), "{message}");
    }
}
