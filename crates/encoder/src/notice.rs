//! What a user should know about a model although it is read: a line of warning, each once.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

static TOLD: Mutex<Option<HashSet<String>>> = Mutex::new(None);

/// Warns with one line; a second time in this process it is not said again, however often a model is opened.
pub(crate) fn warn_once(line: &str) {
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if told.get_or_insert_default().insert(line.to_owned()) {
        tracing::warn!("{line}");
    }
}
