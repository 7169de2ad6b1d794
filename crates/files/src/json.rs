//! Small JSON files, read with the place in every error and written whole.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, Format, Result, refuse_foreign, write};

/// The largest file that is read whole: far above any `tokenizer.json`, far below what exhausts a machine.
const LARGEST_BYTES: u64 = 256 << 20;

/// The bytes of a file, or `None` where there is no such file.
///
/// # Errors
/// When it is there and cannot be read.
pub fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match File::open(path) {
        Ok(file) => read_whole(path, file).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("reading", path)(error)),
    }
}

/// Devices and pipes have no length to look at first, so it is the reading that stops.
fn read_whole(path: &Path, file: File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(LARGEST_BYTES + 1).read_to_end(&mut bytes).map_err(Error::io("reading", path))?;
    if bytes.len() as u64 > LARGEST_BYTES {
        let what = "is larger than 256 MiB, which no file of its kind is; fetch it again";
        return Err(Error::Foreign { path: path.into(), what });
    }
    Ok(bytes)
}

/// Parses the bytes of the JSON file at `path`, a byte order mark before them left out.
///
/// # Errors
/// With line and column, when they are not the JSON of a `T`; by its name, when they are a file of another kind.
pub fn parse_json<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T> {
    let json = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    serde_json::from_slice(json).map_err(|reason| match refuse_foreign(path, bytes, Format::Text) {
        Err(foreign) => foreign,
        Ok(()) => Error::Json { path: path.into(), reason },
    })
}

/// A JSON file.
///
/// # Errors
/// When it cannot be read, or is not the JSON of a `T`.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let file = File::open(path).map_err(Error::io("reading", path))?;
    parse_json(path, &read_whole(path, file)?)
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
/// As [`write()`].
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write(path, |file| {
        serde_json::to_writer_pretty(&mut *file, value)?;
        file.write_all(b"\n")
    })
}
