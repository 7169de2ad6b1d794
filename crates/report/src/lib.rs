//! What runs recorded, drawn as one page.
//!
//! In the order data moves: [`RunFolder`] reads what a run left in its folder, `series` thins and smooths what was
//! recorded of every update, `figures` says what is drawn, `chart` draws it (each thing in a colour that stands for
//! its role, which `palette` gives the colours and dashes that are seen), and `page` puts it all in one HTML file.
//!
//! Nothing here fetches anything, and the page holds no script: it can be mailed, printed and archived.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod axis;
mod chart;
mod error;
mod figures;
mod page;
mod palette;
mod run;
mod series;
mod settings;

use std::io::Write;
use std::path::{Path, PathBuf};

pub use error::ReportError;
pub use run::{Evaluation, RunFolder, Update};

/// Reads the folders of runs, in the order they are to be told, and writes one self-contained HTML page on them. A
/// folder that is given twice is drawn once. The same files give the same page, byte for byte.
///
/// # Errors
/// No folder, one that holds no run, a file that cannot be read or written. Nothing half-written is left.
pub fn write_page(runs: &[PathBuf], output: &Path) -> Result<(), ReportError> {
    let page = page::render(&RunFolder::open_all(runs)?)?;
    Ok(contaccum_files::write(output, |file| file.write_all(page.as_bytes()))?)
}
