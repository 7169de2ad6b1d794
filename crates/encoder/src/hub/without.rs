//! In place of the hub, where the feature `hub` is off: the cache serves alone.

use std::path::{Path, PathBuf};

const REASON: &str = "this build has no hub (its feature `hub` is off)";

pub(super) struct Remote;

pub(super) struct Listing {
    pub commit: String,
    pub files: Vec<String>,
}

impl Remote {
    pub(super) fn new(_endpoint: Option<&str>, _token: Option<String>) -> Self {
        Self
    }

    pub(super) fn listing(&self, _name: &str) -> Result<Listing, String> {
        Err(REASON.to_owned())
    }

    pub(super) fn fetch(
        &self,
        _cache: &Path,
        _name: &str,
        _commit: &str,
        _file: &str,
    ) -> Result<PathBuf, String> {
        Err(REASON.to_owned())
    }
}
