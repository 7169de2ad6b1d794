//! The contents of a checkpoint, hashed: what a disk, a copy or a hand changed is found before it trains on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use contaccum_files::{ContentHash, ContentHasher, hash_file, read_json, write_json};
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// The file of the hashes, inside the checkpoint.
pub(crate) const CONTENTS: &str = "contents.json";

/// `contents.json`: the hash of every other file by its path in the checkpoint, and that of all these.
#[derive(Serialize, Deserialize)]
struct Contents {
    files: BTreeMap<String, ContentHash>,
    seal: ContentHash,
}

impl Contents {
    fn new(files: BTreeMap<String, ContentHash>) -> Self {
        let mut hasher = ContentHasher::new();
        for (name, hash) in &files {
            hasher.update_text(name);
            hasher.update_text(&hash.to_string());
        }
        Self { files, seal: hasher.finish() }
    }
}

/// Hashes every file of `folder` into its `contents.json`.
pub(crate) fn seal(folder: &Path) -> Result<(), TrainError> {
    let mut files = BTreeMap::new();
    for path in files_in(folder)? {
        let name = path.strip_prefix(folder).expect("a file of the folder").to_string_lossy().into_owned();
        files.insert(name, hash_file(&path)?);
    }
    Ok(write_json(&folder.join(CONTENTS), &Contents::new(files))?)
}

/// Checks every file of `folder` against its `contents.json`.
pub(crate) fn verify(folder: &Path) -> Result<(), TrainError> {
    let path = folder.join(CONTENTS);
    let Contents { files, seal } = read_json(&path).map_err(|error| match error {
        contaccum_files::Error::Json { reason, .. } => changed(&path, &reason.to_string()),
        error => error.into(),
    })?;
    let sealed = Contents::new(files);
    if sealed.seal != seal {
        return Err(changed(&path, "its hashes do not belong together"));
    }
    for (name, hash) in &sealed.files {
        let path = folder.join(name);
        if !path.try_exists().map_err(contaccum_files::Error::io("reading", &path))? {
            return Err(changed(&path, "it is missing"));
        }
        if hash_file(&path)? != *hash {
            return Err(changed(&path, "its content is not what was written"));
        }
    }
    Ok(())
}

fn changed(path: &Path, what: &str) -> TrainError {
    let remedy = "copy the checkpoint again, or remove it: the one before it is then gone on from";
    TrainError::Checkpoint { action: "read", path: path.into(), reason: format!("{what} ({remedy})") }
}

/// The files of a folder and of those in it.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let failed = contaccum_files::Error::io("reading", folder);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(&failed)? {
        let path = entry.map_err(&failed)?.path();
        if path.is_dir() { found.extend(files_in(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every bit of every file, the hashes' own included: nothing is accepted but what was written.
    #[test]
    fn a_bit_flipped_anywhere_is_refused_with_the_file_it_is_in() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::create_dir(folder.join("model")).unwrap();
        fs::write(folder.join("model/weights"), [1, 2, 3, 4]).unwrap();
        fs::write(folder.join("state.json"), "{}").unwrap();
        seal(folder).unwrap();
        verify(folder).unwrap();
        for name in ["model/weights", "state.json", CONTENTS] {
            let path = folder.join(name);
            let whole = fs::read(&path).unwrap();
            for bit in 0..8 * whole.len() {
                let mut bytes = whole.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                fs::write(&path, &bytes).unwrap();
                let blamed = verify(folder).unwrap_err().to_string();
                assert!(blamed.contains(name) || name == CONTENTS, "{name}, bit {bit}: {blamed}");
            }
            fs::write(&path, whole).unwrap();
        }
        fs::remove_file(folder.join("state.json")).unwrap();
        assert!(verify(folder).unwrap_err().to_string().contains("it is missing"));
    }
}
