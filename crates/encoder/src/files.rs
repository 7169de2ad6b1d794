//! Reading small files with the place in every error; writing files whole or not at all.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::EncoderError;

/// The bytes of a file, or `None` where there is no such file.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, EncoderError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(reason) if reason.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(reason) => Err(EncoderError::Read { path: path.into(), reason }),
    }
}

/// A JSON file, or `None` where there is no such file.
pub(crate) fn read_json_if_there<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, EncoderError> {
    let Some(bytes) = read_if_there(path)? else { return Ok(None) };
    parse_json(path, &bytes).map(Some)
}

/// Parses the bytes of the JSON file at `path`.
pub(crate) fn parse_json<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, EncoderError> {
    serde_json::from_slice(bytes).map_err(|reason| EncoderError::Json { path: path.into(), reason })
}

/// Writes a file whole or not at all: to a temporary name beside it, synced, renamed, the folder synced.
pub(crate) fn write_atomically(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), EncoderError> {
    let partial = sibling(path, "partial");
    let written = || -> io::Result<()> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&partial)?);
        content(&mut file)?;
        file.into_inner()?.sync_all()?;
        fs::rename(&partial, path)?;
        sync_folder(parent(path))
    }();
    written.map_err(|reason| {
        // The first error is the one to tell; a leftover is overwritten by the next try.
        let _ = fs::remove_file(&partial);
        EncoderError::Write { path: path.into(), reason }
    })
}

/// Writes indented JSON, whole or not at all.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), EncoderError> {
    write_atomically(path, |file| {
        serde_json::to_writer_pretty(&mut *file, value)?;
        file.write_all(b"\n")
    })
}

/// `folder/name` as `folder/.name.suffix`.
pub(crate) fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    parent(path).join(format!(".{name}.{suffix}"))
}

/// The folder that holds `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Makes renames in a folder last; systems other than Unix cannot open a folder and do so by themselves.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}
