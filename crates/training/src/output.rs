//! The output folder of a run: whose it is, what is in it, and that nobody else writes there.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use contaccum_encoder::check_export_target;
use contaccum_files::{FolderLock, check_writable, create_folder, remove_folder, sweep, write};

use crate::checkpoint::{self, PASSAGE_ENCODER, QUERY_ENCODER};
use crate::{METRICS_FILE, TrainConfig, TrainError};

/// The resolved configuration of a run, inside its output folder: a recipe.
pub const CONFIG_FILE: &str = "config.toml";
/// The folder of a run's final model, inside its output folder.
pub const MODEL_FOLDER: &str = "model";
/// The folder of a run's measures per query, inside its output folder.
const EVALUATIONS: &str = "evaluations";
/// How `config.toml` begins where this program wrote it: one that a user wrote is not replaced.
const CONFIG_HEADER: &str = "# The settings of this run as contaccum resolved them\n";

/// How a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// In a folder that holds no other run that could be gone on from, or is finished.
    Anew,
    /// In place of the run that the folder holds, which is removed.
    Over,
    /// Where the newest checkpoint in the folder left off.
    Resume,
}

/// The output folder of a run that goes on: no other process writes there.
pub(crate) struct OutputFolder {
    pub path: PathBuf,
    _lock: FolderLock,
}

impl OutputFolder {
    /// Takes hold of the folder, and says which checkpoint there is to go on from.
    pub fn open(path: &Path, begin: Begin) -> Result<(Self, Option<PathBuf>), TrainError> {
        check_output(path, begin)?;
        create_folder(path)?;
        let lock = FolderLock::acquire(path)?;
        // Another process may have been here in between.
        check_contents(path, begin)?;
        sweep(path)?;
        sweep(&path.join(EVALUATIONS))?;
        let resumed = match begin {
            Begin::Anew => None,
            Begin::Over => {
                remove_run(path)?;
                None
            }
            Begin::Resume => checkpoint::newest(path)?,
        };
        Ok((Self { path: path.into(), _lock: lock }, resumed))
    }
}

/// Checks that a run may begin in a folder, which need not be there. Nothing is written.
///
/// # Errors
/// A run that is there and not to be touched, files that are not of a run, another process, a folder that may not be
/// written to.
pub fn check_output(folder: &Path, begin: Begin) -> Result<(), TrainError> {
    FolderLock::check(folder)?;
    check_contents(folder, begin)?;
    Ok(check_writable(folder)?)
}

fn check_contents(folder: &Path, begin: Begin) -> Result<(), TrainError> {
    let newest = checkpoint::newest(folder)?;
    let exists = |what: String, remedy| Err(TrainError::RunExists { path: folder.into(), what, remedy });
    match (begin, newest) {
        (Begin::Resume, None) => {
            let remedy = "give the output folder of a run; a new run starts without --resume";
            return Err(TrainError::NoCheckpoint { path: folder.into(), remedy });
        }
        (Begin::Anew, Some(newest)) => {
            let name = newest.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return exists(name, "give --resume to go on");
        }
        (Begin::Anew | Begin::Over, None) | (Begin::Over | Begin::Resume, Some(_)) => {}
    }
    check_model(&folder.join(MODEL_FOLDER))?;
    if begin == Begin::Resume {
        return Ok(());
    }
    checkpoint::check_ours(folder)?;
    check_settings(&folder.join(CONFIG_FILE))?;
    check_records(&folder.join(METRICS_FILE))?;
    // What a killed process left there begins with a dot.
    let finished = [MODEL_FOLDER, EVALUATIONS].into_iter().find(|name| {
        let entries = fs::read_dir(folder.join(name)).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
    });
    match (begin, finished) {
        (Begin::Anew, Some(name)) => {
            exists(format!("the {name} of a finished run"), "give --overwrite to train it again")
        }
        (Begin::Anew | Begin::Over | Begin::Resume, _) => Ok(()),
    }
}

fn foreign(path: &Path) -> TrainError {
    TrainError::Foreign { path: path.into() }
}

/// The folder of a model, or of two encoders: nothing, or an earlier export.
fn check_model(path: &Path) -> Result<(), TrainError> {
    let encoders = [QUERY_ENCODER, PASSAGE_ENCODER].map(|name| path.join(name));
    if !encoders.iter().any(|encoder| encoder.is_dir()) {
        return Ok(check_export_target(path)?);
    }
    for entry in fs::read_dir(path).map_err(contaccum_files::Error::io("reading", path))? {
        let entry = entry.map_err(contaccum_files::Error::io("reading", path))?.path();
        if !encoders.contains(&entry) {
            return Err(foreign(&entry));
        }
        check_export_target(&entry)?;
    }
    Ok(())
}

fn check_settings(path: &Path) -> Result<(), TrainError> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(text) if text.starts_with(CONFIG_HEADER.as_bytes()) => Ok(()),
        Ok(_) => Err(foreign(path)),
        Err(error) => Err(contaccum_files::Error::io("reading", path)(error).into()),
    }
}

fn check_records(path: &Path) -> Result<(), TrainError> {
    let failed = contaccum_files::Error::io("reading", path);
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file.map_err(&failed)?,
    };
    let mut line = Vec::new();
    // A torn record is still one of ours.
    let read = BufReader::new(file).take(256).read_until(b'\n', &mut line).map_err(failed)?;
    if read == 0 || line.starts_with(b"{\"update\":") { Ok(()) } else { Err(foreign(path)) }
}

/// Removes the run that the folder holds.
fn remove_run(folder: &Path) -> Result<(), TrainError> {
    checkpoint::remove_checkpoints(folder)?;
    for name in [MODEL_FOLDER, EVALUATIONS] {
        let path = folder.join(name);
        if path.is_dir() {
            remove_folder(&path)?;
        }
    }
    Ok(())
}

/// Stores the resolved configuration of a run in its folder, which is made.
///
/// # Errors
/// When it cannot be written.
pub fn write_settings(folder: &Path, config: &TrainConfig) -> Result<(), TrainError> {
    create_folder(folder)?;
    let text = config.to_toml();
    write(&folder.join(CONFIG_FILE), |file| {
        file.write_all(CONFIG_HEADER.as_bytes())?;
        file.write_all(text.as_bytes())
    })?;
    Ok(())
}
