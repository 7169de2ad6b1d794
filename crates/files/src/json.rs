//! Small JSON files, read with the place in every error and written whole.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, Result, write};

/// The bytes of a file, or `None` where there is no such file.
///
/// # Errors
/// When it is there and cannot be read.
pub fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("reading", path)(error)),
    }
}

/// Parses the bytes of the JSON file at `path`.
///
/// # Errors
/// With line and column, when they are not the JSON of a `T`.
pub fn parse_json<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|reason| Error::Json { path: path.into(), reason })
}

/// A JSON file.
///
/// # Errors
/// When it cannot be read, or is not the JSON of a `T`.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    parse_json(path, &fs::read(path).map_err(Error::io("reading", path))?)
}

/// A JSON file, or `None` where there is no such file.
///
/// # Errors
/// As [`read_json`].
pub fn read_json_if_there<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    read_if_there(path)?.map(|bytes| parse_json(path, &bytes)).transpose()
}

/// Writes indented JSON, whole or not at all.
///
/// # Errors
/// As [`write`].
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write(path, |file| {
        serde_json::to_writer_pretty(&mut *file, value)?;
        file.write_all(b"\n")
    })
}
