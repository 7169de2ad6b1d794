//! Folders: written, replaced and removed whole.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::place::{PREVIOUS, UNFINISHED, beside, follow_links, is_at, leftover, parent, sync_folder};
use crate::{Error, Result, write};

/// Makes a folder and those above it, where they are missing.
///
/// # Errors
/// When something else is there, or the system refuses.
pub fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::io("making the folder", path))
}

/// Writes a folder whole or not at all, in place of one that is there.
///
/// `fill` fills a folder of another name ([`leftover`]`(path)`) with files of [`write()`], which is synced and renamed;
/// what is replaced goes only when the new one stands. Links are followed to their end.
///
/// # Errors
/// What `fill` returns, a refusal of the system, another process that writes the same folder. `path` is then as it was.
pub fn write_folder<E: From<Error>>(path: &Path, fill: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    let failed = Error::io("writing", path);
    let target = follow_links(path).map_err(&failed)?;
    if target.file_name().is_none() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "not a name of a folder")).into());
    }
    create_folder(parent(&target))?;
    restore(&target).map_err(&failed)?;
    let unfinished = UnfinishedFolder::create(leftover(&target), path)?;
    fill(&unfinished.path)?;
    sync_folders(&unfinished.path).and_then(|()| replace(&unfinished.path, &target)).map_err(failed)?;
    Ok(())
}

/// Removes a folder: it is given another name first, so that what stands under its own is never half gone.
///
/// # Errors
/// When the system refuses.
pub fn remove_folder(path: &Path) -> Result<()> {
    let failed = Error::io("removing", path);
    let doomed = leftover(path);
    remove_leftover(&doomed, path)?;
    fs::rename(path, &doomed).and_then(|()| sync_folder(parent(path))).map_err(&failed)?;
    fs::remove_dir_all(&doomed).map_err(failed)
}

/// Removes what killed processes left unfinished in `folder`, of those that no living one is writing; a folder that
/// was being replaced is put back where the new one did not come to stand.
///
/// # Errors
/// When the folder cannot be read or a leftover not removed. No folder at all is no error.
pub fn sweep(folder: &Path) -> Result<()> {
    let failed = Error::io("looking for leftovers", folder);
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(&failed)?,
    };
    for entry in entries {
        let path = entry.map_err(&failed)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_prefix('.')) else { continue };
        if let Some(of) = name.strip_suffix(PREVIOUS) {
            restore(&folder.join(of)).map_err(&failed)?;
        } else if name.ends_with(UNFINISHED) {
            match remove_leftover(&path, &path) {
                Ok(()) | Err(Error::InUse { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Copies the files and folders of one folder into another, which is made. Links are followed, and everything gets
/// the permissions that the umask says.
///
/// # Errors
/// When something cannot be read or written.
pub fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    create_folder(to)?;
    let failed = Error::io("reading", from);
    for entry in fs::read_dir(from).map_err(&failed)? {
        let entry = entry.map_err(&failed)?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_folder(&source, &target)?;
        } else {
            let mut file = File::open(&source).map_err(Error::io("reading", &source))?;
            write(&target, |out| io::copy(&mut file, out).map(drop))?;
        }
    }
    Ok(())
}

/// Checks that files could be made in `folder`, or it itself where it is not there yet. Nothing is written.
///
/// # Errors
/// A file in its place, or a folder that may not be written to.
pub fn check_writable(folder: &Path) -> Result<()> {
    let failed = Error::io("writing to the folder", folder);
    let mut there = folder;
    while !there.try_exists().map_err(&failed)? {
        there = parent(there);
    }
    if !there.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    may_write(there).map_err(failed)
}

#[cfg(unix)]
fn may_write(folder: &Path) -> io::Result<()> {
    use rustix::fs::{Access, access};
    Ok(access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
}

#[cfg(not(unix))]
fn may_write(folder: &Path) -> io::Result<()> {
    match fs::metadata(folder)?.permissions().readonly() {
        true => Err(io::ErrorKind::PermissionDenied.into()),
        false => Ok(()),
    }
}

/// A folder under its unfinished name, locked for as long as it is being filled; removed unless renamed.
struct UnfinishedFolder {
    path: PathBuf,
    _lock: Option<File>,
}

impl UnfinishedFolder {
    fn create(path: PathBuf, asked: &Path) -> Result<Self> {
        let failed = Error::io("writing", asked);
        loop {
            match fs::create_dir(&path) {
                Ok(()) => {
                    if let Some(lock) = hold(&path, asked)? {
                        return Ok(Self { path, _lock: lock });
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => remove_leftover(&path, asked)?,
                Err(error) => return Err(failed(error)),
            }
        }
    }
}

impl Drop for UnfinishedFolder {
    fn drop(&mut self) {
        // The first error is the one to tell; after an exchange this is the folder that was replaced.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes what an interrupted write of `asked` left at `path`, file or folder.
fn remove_leftover(path: &Path, asked: &Path) -> Result<()> {
    let failed = Error::io("removing", path);
    let is_dir = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        there => there.map_err(&failed)?.is_dir(),
    };
    let Some(_lock) = hold(path, asked)? else { return Ok(()) };
    if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) }.map_err(failed)
}

/// The lock of the file or folder at `path`, which says that it is being written; `None` where it is gone. The inner
/// `None` is a system that cannot lock it.
fn hold(path: &Path, asked: &Path) -> Result<Option<Option<File>>> {
    let failed = Error::io("locking", path);
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // Only Unix opens folders; a link or a file that may not be read is not ours to wait for.
        Err(_) => return Ok(Some(None)),
        Ok(file) => file,
    };
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        let holder = "another process that is writing it".into();
        return Err(Error::InUse { path: asked.into(), holder });
    }
    Ok(is_at(&file, path).map_err(failed)?.then_some(Some(file)))
}

/// Puts a finished folder in the target's place.
fn replace(finished: &Path, target: &Path) -> io::Result<()> {
    if !target.try_exists()? {
        fs::rename(finished, target)?;
    } else if exchange(finished, target).is_err() {
        let previous = beside(target, PREVIOUS);
        fs::rename(target, &previous)?;
        if let Err(error) = fs::rename(finished, target) {
            fs::rename(&previous, target)?;
            return Err(error);
        }
        sync_folder(parent(target))?;
        return fs::remove_dir_all(&previous);
    }
    sync_folder(parent(target))
}

/// Swaps two names at once, where the system can.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn exchange(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// After a crash in the middle of a replacement: the old folder again, or gone where the new one stands.
fn restore(target: &Path) -> io::Result<()> {
    let previous = beside(target, PREVIOUS);
    match (previous.try_exists()?, target.try_exists()?) {
        (false, _) => Ok(()),
        (true, true) => fs::remove_dir_all(&previous),
        (true, false) => fs::rename(&previous, target),
    }
}

/// Makes the names in a folder outlast a crash of the machine; the files in it are synced already.
fn sync_folders(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    sync_folder(folder)
}
