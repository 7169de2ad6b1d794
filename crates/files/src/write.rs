//! One file, written whole; streams and devices written through.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::place::{follow_links, is_at, leftover, parent, sync_folder};
use crate::{Error, Result};

/// Bytes gathered before they are written.
const BUFFER: usize = 1 << 18;

/// Writes a file so that a reader, or a crash, sees the old content or the new one and nothing between.
///
/// The content goes to [`leftover`]`(path)`, is synced and renamed over `path`, and the folder is synced. On failure
/// `path` is as it was. Links are followed to their end. What is not a regular file (a device, a FIFO, a terminal),
/// and this program's own stdout and stderr under whatever name, are written to as they are, never replaced.
///
/// # Errors
/// A folder that is missing, a full disk, a read-only file, whatever `content` returns; another process that is
/// writing the same file.
pub fn write(path: &Path, content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    let failed = Error::io("writing", path);
    match Target::of(path).map_err(&failed)? {
        Target::Stream(file) => {
            let mut out = BufWriter::with_capacity(BUFFER, file);
            content(&mut out).and_then(|()| out.flush()).map_err(failed)
        }
        Target::Regular(target, permissions) => {
            let unfinished = Unfinished::create(leftover(&target)).map_err(|error| match error {
                CreateError::InUse => {
                    Error::InUse { path: path.into(), holder: "another process that is writing it".into() }
                }
                CreateError::Io(error) => failed(error),
            })?;
            unfinished.complete(&target, permissions, content).map_err(failed)
        }
    }
}

/// Whether `path` leads to this program's own stdout: what is written there must not be followed by anything else.
pub fn is_stdout(path: &Path) -> bool {
    let same = fs::metadata(path).and_then(|there| is_same(&there, &own_stdout()?));
    same.unwrap_or(false)
}

/// What a path leads to.
enum Target {
    /// Something that is written to as it is.
    Stream(File),
    /// The name of a file to be replaced, with the permissions it has if it is there.
    Regular(PathBuf, Option<Permissions>),
}

impl Target {
    fn of(path: &Path) -> io::Result<Self> {
        let there = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let target = follow_links(path)?;
                return match target.file_name() {
                    Some(_) => Ok(Self::Regular(target, None)),
                    None => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file name")),
                };
            }
            there => there?,
        };
        if there.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if let Some(stream) = own_stream(&there)? {
            return Ok(Self::Stream(stream));
        }
        if !there.is_file() {
            return Ok(Self::Stream(File::options().write(true).open(path)?));
        }
        if there.permissions().readonly() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the file is read-only"));
        }
        Ok(Self::Regular(path.canonicalize()?, Some(there.permissions())))
    }
}

/// This program's stdout or stderr, if that is what was found. Opened anew, a file behind it would be written from its
/// start; replaced, whoever else writes to it would write into nothing.
fn own_stream(there: &fs::Metadata) -> io::Result<Option<File>> {
    io::stdout().flush()?;
    for stream in [own_stdout()?, own_stderr()?] {
        if is_same(there, &stream)? {
            return Ok(Some(stream));
        }
    }
    Ok(None)
}

#[cfg(unix)]
fn own_stdout() -> io::Result<File> {
    Ok(std::os::fd::AsFd::as_fd(&io::stdout()).try_clone_to_owned()?.into())
}

#[cfg(unix)]
fn own_stderr() -> io::Result<File> {
    Ok(std::os::fd::AsFd::as_fd(&io::stderr()).try_clone_to_owned()?.into())
}

#[cfg(unix)]
fn is_same(there: &fs::Metadata, open: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let open = open.metadata()?;
    Ok((open.dev(), open.ino()) == (there.dev(), there.ino()))
}

#[cfg(not(unix))]
fn own_stdout() -> io::Result<File> {
    Ok(std::os::windows::io::AsHandle::as_handle(&io::stdout()).try_clone_to_owned()?.into())
}

#[cfg(not(unix))]
fn own_stderr() -> io::Result<File> {
    Ok(std::os::windows::io::AsHandle::as_handle(&io::stderr()).try_clone_to_owned()?.into())
}

/// Without numbers of files no two names are known to be one file.
#[cfg(not(unix))]
fn is_same(_: &fs::Metadata, _: &File) -> io::Result<bool> {
    Ok(false)
}

enum CreateError {
    InUse,
    Io(io::Error),
}

impl From<io::Error> for CreateError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A file under its unfinished name, locked for as long as it is being written; removed unless completed.
struct Unfinished {
    path: PathBuf,
    file: Option<File>,
}

impl Unfinished {
    /// Makes the file anew; one that a killed process left is removed, one that is being written is not.
    fn create(path: PathBuf) -> Result<Self, CreateError> {
        loop {
            match File::create_new(&path) {
                Ok(file) => {
                    lock(&file)?;
                    // Between the two a process that looked for leftovers may have removed it.
                    if is_at(&file, &path)? {
                        return Ok(Self { path, file: Some(file) });
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => remove_leftover(&path)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn complete(
        mut self,
        target: &Path,
        permissions: Option<Permissions>,
        content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> io::Result<()> {
        let file = self.file.take().expect("a file that was just created");
        let mut out = BufWriter::with_capacity(BUFFER, file);
        content(&mut out)?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        if let Some(permissions) = permissions {
            file.set_permissions(permissions)?;
        }
        file.sync_all()?;
        fs::rename(&self.path, target)?;
        self.path = PathBuf::new();
        sync_folder(parent(target))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            // The first error is the one to tell; what stays is removed by the next write.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Takes the lock that says a file or folder is being written. File systems without locks do without.
fn lock(file: &File) -> Result<(), CreateError> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(CreateError::InUse),
        Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
    }
}

/// Removes the unfinished file at `path`, unless a living process writes it.
fn remove_leftover(path: &Path) -> Result<(), CreateError> {
    if fs::symlink_metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists).into());
    }
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    lock(&file)?;
    if is_at(&file, path)? {
        fs::remove_file(path)?;
    }
    Ok(())
}
