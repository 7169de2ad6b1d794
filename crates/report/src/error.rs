use std::io;
use std::path::PathBuf;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// No run was named.
    #[error("no run to report on (give the output folder of at least one)")]
    NoRuns,
    /// A folder without the records of a run.
    #[error(
        "{}: no run: {} is not there (give the --output-dir of contaccum train)",
        .folder.display(),
        contaccum_training::METRICS_FILE
    )]
    NoRun {
        /// The folder.
        folder: PathBuf,
    },
    /// A file or folder of a run could not be read.
    #[error("{}: {source}; check that it is there and permitted", .path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of a run is not what it should be.
    #[error("{}: {problem}", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do, in one line.
        problem: String,
    },
    /// A figure could not be drawn.
    #[error("figure {figure:?} not drawn: {reason}")]
    Draw {
        /// Its title.
        figure: String,
        /// What the plotting library said.
        reason: String,
    },
    /// The page could not be written.
    #[error(transparent)]
    Write(#[from] contaccum_files::Error),
}
