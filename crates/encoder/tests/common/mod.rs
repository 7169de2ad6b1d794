//! Where the shared models and data lie.

use std::path::PathBuf;

/// The folder of shared files: `CONTACCUM_SHARED`, else `../shared` beside the workspace. Without it a test is
/// skipped, but on CI it fails.
pub fn shared() -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let folder = std::env::var_os("CONTACCUM_SHARED").map_or_else(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    let line = format!("{} is missing; set CONTACCUM_SHARED to the shared folder", folder.display());
    assert!(std::env::var("CI").is_err(), "{line}");
    eprintln!("skipped: {line}");
    None
}
