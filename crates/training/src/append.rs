//! Files that grow by whole records, on a disk that may be full for a while.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

/// A file of whole records. What cannot be written waits in memory, and goes before the next record.
#[derive(Debug)]
pub(crate) struct AppendFile {
    file: File,
    /// Bytes of the records in the file.
    length: u64,
    /// What the file's last record is to become.
    replacement: Option<Replacement>,
    waiting: Vec<u8>,
}

#[derive(Debug)]
struct Replacement {
    old: Vec<u8>,
    new: Vec<u8>,
}

impl AppendFile {
    /// Appends to a file that is open for writing and holds `length` bytes of records.
    pub fn new(file: File, length: u64) -> Self {
        Self { file, length, replacement: None, waiting: Vec::new() }
    }

    /// Appends a record, and those that still wait.
    pub fn append(&mut self, record: &[u8]) -> io::Result<()> {
        self.waiting.extend_from_slice(record);
        self.write_waiting()
    }

    /// Puts `new` in place of `old`, the last record. On failure the file holds the old one until the next call.
    pub fn replace_last(&mut self, old: &[u8], new: &[u8]) -> io::Result<()> {
        self.write_waiting()?;
        self.replacement = Some(Replacement { old: old.to_vec(), new: new.to_vec() });
        self.replace()
    }

    /// Makes all records outlast a crash of the machine.
    pub fn sync(&mut self) -> io::Result<()> {
        self.write_waiting()?;
        self.file.sync_data()
    }

    fn replace(&mut self) -> io::Result<()> {
        let Some(replacement) = self.replacement.take() else {
            return Ok(());
        };
        let Replacement { old, new } = &replacement;
        let start = self.length - old.len() as u64;
        let end = start + new.len() as u64;
        let written = self.write_at(start, new).and_then(|()| self.file.set_len(end));
        match written {
            Ok(()) => self.length = end,
            Err(_) => {
                // Bytes that were there need no new space; the first error is the one to tell.
                _ = self.write_at(start, old).and_then(|()| self.file.set_len(self.length));
                self.replacement = Some(replacement);
            }
        }
        written
    }

    fn write_waiting(&mut self) -> io::Result<()> {
        self.replace()?;
        if self.waiting.is_empty() {
            return Ok(());
        }
        let waiting = std::mem::take(&mut self.waiting);
        let written = self.write_at(self.length, &waiting);
        match written {
            Ok(()) => self.length += waiting.len() as u64,
            Err(_) => {
                // Half a record would spoil the next one.
                let _ = self.file.set_len(self.length);
                self.waiting = waiting;
            }
        }
        written
    }

    /// One write: a killed process leaves at most one torn record, at the end.
    fn write_at(&mut self, start: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(start))?;
        self.file.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &tempfile::TempDir) -> (std::path::PathBuf, AppendFile) {
        let path = folder.path().join("records");
        let file = File::create(&path).unwrap();
        (path, AppendFile::new(file, 0))
    }

    #[test]
    fn the_last_record_is_replaced_by_a_longer_or_a_shorter_one() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut records) = file(&folder);
        records.append(b"one\n").unwrap();
        records.append(b"two\n").unwrap();
        records.replace_last(b"two\n", b"twice as long\n").unwrap();
        records.replace_last(b"twice as long\n", b"2\n").unwrap();
        records.append(b"three\n").unwrap();
        assert_eq!(std::fs::read(path).unwrap(), b"one\n2\nthree\n");
    }

    #[test]
    fn a_record_that_could_not_be_written_goes_before_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut records) = file(&folder);
        records.append(b"one\n").unwrap();
        let writable = std::mem::replace(&mut records.file, File::open(&path).unwrap());
        assert!(records.append(b"two\n").is_err());
        assert!(records.sync().is_err());
        records.file = writable;
        records.append(b"three\n").unwrap();
        assert_eq!(std::fs::read(path).unwrap(), b"one\ntwo\nthree\n");
    }

    #[test]
    fn a_record_that_could_not_be_replaced_is_replaced_before_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut records) = file(&folder);
        records.append(b"one\n").unwrap();
        records.append(b"two\n").unwrap();
        let writable = std::mem::replace(&mut records.file, File::open(&path).unwrap());
        assert!(records.replace_last(b"two\n", b"twice\n").is_err());
        assert!(records.sync().is_err());
        records.file = writable;
        records.append(b"three\n").unwrap();
        assert_eq!(std::fs::read(path).unwrap(), b"one\ntwice\nthree\n");
    }
}
