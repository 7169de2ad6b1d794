use std::io;
use std::path::{Path, PathBuf};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What goes wrong with a file or folder, in one line with its place and remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused.
    #[error("{}: {action} failed: {source}; {}", .path.display(), remedy(.source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// Another process works on it.
    #[error("{}: in use by {holder}; wait until it is done, or give another place", .path.display())]
    InUse {
        /// The file or folder.
        path: PathBuf,
        /// Who, as far as it is known.
        holder: String,
    },
    /// A file is something else than its name says.
    #[error("{}: {what}", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is, and what to do about it.
        what: &'static str,
    },
    /// A file is not the JSON it should be.
    #[error("{}: broken JSON: {reason}; fetch the file again or mend it", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        reason: serde_json::Error,
    },
}

impl Error {
    /// Names the place and the deed of a refusal; for `map_err`.
    pub fn io<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> Self + 'a {
        move |source| Self::Io { path: path.into(), action, source }
    }
}

/// What to do about a refusal of the system.
fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "check its permissions",
        io::ErrorKind::NotFound => "check that the folder exists",
        io::ErrorKind::ReadOnlyFilesystem => "choose a place that can be written to",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "free space there, or choose another place"
        }
        io::ErrorKind::IsADirectory => "give the name of a file",
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "choose another place, or remove what is there"
        }
        _ => "check the path and the disk",
    }
}
