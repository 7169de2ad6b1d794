//! Where a path leads, and the names of what is not complete yet.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::hash::ContentHasher;

/// End of the names of files and folders that are not complete, or no longer.
pub(crate) const UNFINISHED: &str = ".contaccum-partial";
/// End of the name under which a folder waits while it is replaced.
pub(crate) const PREVIOUS: &str = ".contaccum-previous";
/// Longest name, in bytes, that an ending is put to: file systems take 255.
const LONGEST_NAME: usize = 200;
/// Links followed before giving up, as the kernel does.
const MOST_LINKS: usize = 40;

/// The name under which `path` is written before it is complete: `.NAME.contaccum-partial` beside it.
pub fn leftover(path: &Path) -> PathBuf {
    beside(path, UNFINISHED)
}

/// `folder/name` as `folder/.name<ending>`.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = match name.len() <= LONGEST_NAME {
        true => name.into_owned(),
        false => ContentHasher::of(name.as_bytes()).to_string(),
    };
    parent(path).join(format!(".{name}{ending}"))
}

/// The folder that holds `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

/// The path that a chain of links ends at, whether something is there or not.
pub(crate) fn follow_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&path) {
            Ok(next) => path = parent(&path).join(next),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many links"))
}

/// Makes renames in a folder last; systems other than Unix cannot open a folder and do so by themselves.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Whether `path` still names the open file or folder.
#[cfg(unix)]
pub(crate) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let open = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(not(unix))]
pub(crate) fn is_at(_: &File, path: &Path) -> io::Result<bool> {
    path.try_exists()
}
