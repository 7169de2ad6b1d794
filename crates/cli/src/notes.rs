//! What was odd in files, told on stderr.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use contaccum_data::Notes;

/// Tells notes, each once however often its file is read.
pub fn tell(notes: &Notes) {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    for note in notes.iter() {
        let line = note.to_string();
        if !told.contains(&line) {
            tracing::warn!("{line}");
            told.insert(line);
        }
    }
}
