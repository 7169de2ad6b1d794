//! What lies in a trial's folder, and whether it may lie there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// Fields of records that tell times and memory, not results.
const TIMES: [&str; 6] = [
    "seconds",
    "seconds_per_update",
    "tokens_per_second",
    "planned_bytes",
    "resident_bytes",
    "peak_resident_bytes",
];

/// Files by their path in a folder; times taken out.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    files: BTreeMap<String, Vec<u8>>,
}

impl Tree {
    /// Reads everything under `folder`.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut tree = Self::default();
        tree.add(folder, "")?;
        Ok(tree)
    }

    fn add(&mut self, folder: &Path, prefix: &str) -> anyhow::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                self.add(&entry.path(), &format!("{name}/"))?;
            } else if !free(&name) {
                let bytes = without_times(&name, fs::read(entry.path())?);
                self.files.insert(name, bytes);
            }
        }
        Ok(())
    }

    /// The tree without what has a temporary name.
    pub fn without_hidden(&self) -> Self {
        let shown = self.files.iter().filter(|(name, _)| !hidden(name));
        Self { files: shown.map(|(name, bytes)| (name.clone(), bytes.clone())).collect() }
    }

    /// The first difference from `expected`, in words.
    pub fn difference(&self, expected: &Self) -> Option<String> {
        let missing = expected.files.keys().find(|name| !self.files.contains_key(*name));
        if let Some(name) = missing {
            return Some(format!("{name} is missing"));
        }
        self.files.iter().find_map(|(name, bytes)| match expected.files.get(name) {
            None => Some(format!("{name} is left over")),
            Some(other) if other != bytes => Some(format!("{name} has other contents")),
            Some(_) => None,
        })
    }

    /// The first thing under a final name that is neither of `before` nor of `after` nor on the way between them.
    /// `model` holds the files that each folder of a model has.
    pub fn half_written(&self, before: &Self, after: &Self, model: &Self) -> Option<String> {
        let known = |name: &str, bytes: &[u8]| {
            [before, after].iter().any(|tree| tree.files.get(name).is_some_and(|other| other == bytes))
        };
        let torn = |name: &str, bytes: &[u8]| match name.rsplit('/').next().unwrap_or(name) {
            // Whole lines, without the measures that are added when an update was evaluated.
            "metrics.jsonl" => !after.files.get(name).is_some_and(|whole| {
                let of_all = without(&["dev"], whole_lines(whole));
                of_all.starts_with(&without(&["dev"], whole_lines(bytes)))
            }),
            // An index is described first, and said to be complete at its end; a study with failed runs tells the rest.
            "manifest.json" | "study.json" => serde_json::from_slice::<Value>(bytes).is_err(),
            _ => true,
        };
        let suspect = |name: &str, bytes: &[u8]| !hidden(name) && !known(name, bytes);
        let unknown = self.files.iter().filter(|(name, bytes)| suspect(name, bytes));
        for (name, bytes) in unknown {
            let what = match passing(name) {
                Some(folder) => self.lacks(folder, model).map(|file| format!("{folder} lacks {file}")),
                None => torn(name, bytes).then(|| format!("{name} is half-written")),
            };
            if what.is_some() {
                return what;
            }
        }
        None
    }

    /// What a checkpoint or a model lacks. Its contents are checked by going on from it.
    fn lacks(&self, folder: &str, model: &Self) -> Option<String> {
        let has = |file: &str| self.files.contains_key(&format!("{folder}{file}"));
        let state: &[&str] = if checkpoint(folder) { &["state.json", "state.safetensors"] } else { &[] };
        let inside = if checkpoint(folder) { "model/" } else { "" };
        let encoders = match has(&format!("{inside}config.json")) {
            true => vec![inside.to_owned()],
            false => {
                ["query_encoder/", "passage_encoder/"].map(|encoder| format!("{inside}{encoder}")).to_vec()
            }
        };
        let of_models =
            encoders.iter().flat_map(|place| model.files.keys().map(move |file| format!("{place}{file}")));
        state.iter().map(|&file| file.to_owned()).chain(of_models).find(|file| !has(file))
    }
}

/// The checkpoint or the model that a file lies in: these come and go whole while a command runs.
fn passing(name: &str) -> Option<&str> {
    let folders = name.match_indices('/').map(|(at, _)| &name[..=at]);
    folders.into_iter().find(|folder| checkpoint(folder) || folder.ends_with("/model/"))
}

fn checkpoint(folder: &str) -> bool {
    folder.trim_end_matches('/').rsplit('/').next().is_some_and(|name| name.starts_with("checkpoint-"))
}

fn hidden(name: &str) -> bool {
    name.split('/').any(|part| part.starts_with('.'))
}

/// Logs, whose names and contents hold times.
fn free(name: &str) -> bool {
    name.contains("/tensorboard/") || name.ends_with("/train.log") || name.ends_with(".lock")
}

fn whole_lines(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    &bytes[..end]
}

/// JSON lines without some fields.
fn without(fields: &[&str], lines: &[u8]) -> Vec<u8> {
    let mut kept = String::new();
    for part in String::from_utf8_lossy(lines).split_inclusive('\n') {
        match serde_json::from_str::<Value>(part) {
            Ok(mut value) => {
                remove(fields, &mut value);
                kept += &value.to_string();
                kept += if part.ends_with('\n') { "\n" } else { "" };
            }
            Err(_) => kept += part,
        }
    }
    kept.into_bytes()
}

fn without_times(name: &str, bytes: Vec<u8>) -> Vec<u8> {
    // A study's tables and charts tell times among results; the results are in its JSON.
    if name.ends_with("/report.html") && bytes.ends_with(b"</html>")
        || name.ends_with("/study.md") && bytes.ends_with(b"\n")
    {
        return b"whole".to_vec();
    }
    if name.ends_with(".jsonl") {
        return without(&TIMES, &bytes);
    }
    match serde_json::from_slice::<Value>(&bytes) {
        Ok(mut value) if name.ends_with(".json") => {
            remove(&TIMES, &mut value);
            value.to_string().into_bytes()
        }
        Ok(_) | Err(_) => bytes,
    }
}

fn remove(names: &[&str], value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !names.contains(&key.as_str()));
            fields.values_mut().for_each(|value| remove(names, value));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| remove(names, value)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
