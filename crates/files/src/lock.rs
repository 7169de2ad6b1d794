//! One process per folder.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use crate::{Error, Result};

/// The file whose lock is that of its folder. It stays there: removing it would let two processes lock two files.
const LOCK_FILE: &str = ".lock";

/// The lock of a folder, held until it is dropped or the process ends, however it ends.
///
/// It is advisory: it keeps out who asks for it too. File systems that have no locks are done without.
#[derive(Debug)]
pub struct FolderLock(File);

impl FolderLock {
    /// Locks a folder, which must be there.
    ///
    /// # Errors
    /// Another process holds the lock, and which; a folder that may not be written to.
    pub fn acquire(folder: &Path) -> Result<Self> {
        let file = Self::open(folder)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(in_use(folder, &file)),
            Ok(()) | Err(TryLockError::Error(_)) => Self::sign(folder, file),
        }
    }

    /// As [`Self::acquire`], but waits where another process holds the lock, after a call of `waiting`.
    ///
    /// # Errors
    /// A folder that may not be written to.
    pub fn wait(folder: &Path, waiting: impl FnOnce()) -> Result<Self> {
        let file = Self::open(folder)?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            waiting();
            file.lock().map_err(Error::io("locking", folder))?;
        }
        Self::sign(folder, file)
    }

    /// Checks that no other process holds the lock of a folder, which need not be there. Nothing is written.
    ///
    /// # Errors
    /// Another process holds it.
    pub fn check(folder: &Path) -> Result<()> {
        let path = folder.join(LOCK_FILE);
        let Ok(file) = File::open(&path) else { return Ok(()) };
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Err(in_use(folder, &file)),
            Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
        }
    }

    /// The lock for another process, which then holds it too for as long as it lives.
    ///
    /// # Errors
    /// When the system has no more files to open.
    pub fn share(&self) -> io::Result<File> {
        self.0.try_clone()
    }

    fn open(folder: &Path) -> Result<File> {
        let path = folder.join(LOCK_FILE);
        let options = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        options.map_err(Error::io("locking", &path))
    }

    /// Says in the file who holds the lock.
    fn sign(folder: &Path, mut file: File) -> Result<Self> {
        let signed = file.set_len(0).and_then(|()| file.write_all(myself().as_bytes()));
        // A full disk keeps nobody from working where nothing is written; the name is for the message alone.
        match signed {
            Ok(()) => Ok(Self(file)),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(Self(file)),
            Err(error) => Err(Error::io("locking", folder)(error)),
        }
    }
}

fn in_use(folder: &Path, mut file: &File) -> Error {
    let mut holder = String::new();
    let read = file.rewind().and_then(|()| file.take(200).read_to_string(&mut holder));
    if read.is_err() || holder.trim().is_empty() {
        holder = "another process".into();
    }
    Error::InUse { path: folder.into(), holder: holder.trim().into() }
}

/// `process 4711 on host`.
fn myself() -> String {
    let process = format!("process {}", std::process::id());
    match host() {
        Some(host) => format!("{process} on {host}\n"),
        None => format!("{process}\n"),
    }
}

#[cfg(unix)]
fn host() -> Option<String> {
    Some(rustix::system::uname().nodename().to_str().ok()?.to_owned())
}

#[cfg(not(unix))]
fn host() -> Option<String> {
    std::env::var("COMPUTERNAME").ok()
}
