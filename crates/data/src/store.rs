//! Records of texts: on disk in one unlinked temporary file, their ids and places in memory.
//!
//! Texts are read once as a stream and written to a spool, because a source may be compressed or one huge
//! array. Reading back is one positioned read and no parsing, from any thread, without the `unsafe` of a
//! memory map. What stays in memory of a record is its id and about 25 bytes: two offsets of 8 and a hash
//! slot of 5 at a load of 7/16 to 7/8.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use contaccum_files::{ContentHash, ContentHasher};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use twox_hash::XxHash3_64;

use crate::{Error, Result};

/// Ids in order of appearance, and the way back from an id to its number.
#[derive(Default)]
pub(crate) struct Ids {
    bytes: String,
    ends: Vec<u64>,
    numbers: HashTable<u32>,
}

impl Ids {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn get(&self, number: u32) -> &str {
        text_of(&self.bytes, &self.ends, number)
    }

    pub fn find(&self, id: &str) -> Option<u32> {
        self.numbers.find(hash(id), |&number| self.get(number) == id).copied()
    }

    /// Adds `id` under the next number, or leaves everything as it is and returns false if it is known.
    fn insert(&mut self, id: &str, number: u32) -> bool {
        let Ids { bytes, ends, numbers } = self;
        let entry = numbers.entry(
            hash(id),
            |&known| text_of(bytes, ends, known) == id,
            |&known| hash(text_of(bytes, ends, known)),
        );
        match entry {
            Entry::Occupied(_) => false,
            Entry::Vacant(vacant) => {
                vacant.insert(number);
                bytes.push_str(id);
                ends.push(bytes.len() as u64);
                true
            }
        }
    }
}

fn text_of<'a>(bytes: &'a str, ends: &[u64], number: u32) -> &'a str {
    let (start, end) = span(ends, number);
    &bytes[start as usize..end as usize]
}

fn span(ends: &[u64], number: u32) -> (u64, u64) {
    let number = number as usize;
    (if number == 0 { 0 } else { ends[number - 1] }, ends[number])
}

fn hash(id: &str) -> u64 {
    XxHash3_64::oneshot(id.as_bytes())
}

/// Records of one or more strings, read back by number.
pub(crate) struct Store {
    pub ids: Ids,
    file: File,
    ends: Vec<u64>,
    fingerprint: ContentHash,
}

impl Store {
    /// Hash of all records in order.
    pub fn fingerprint(&self) -> ContentHash {
        self.fingerprint
    }

    /// The strings of a record, in the order they were given.
    pub fn read(&self, number: u32) -> Result<Vec<String>> {
        let (start, end) = span(&self.ends, number);
        let mut bytes = vec![0; (end - start) as usize];
        read_exact_at(&self.file, &mut bytes, start).and_then(|()| decode(&bytes)).map_err(spool_error)
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                bytes = &mut bytes[read..];
                offset += read as u64;
            }
        }
    }
    Ok(())
}

/// A record is its strings, each after its length in bytes (u64, little endian).
fn decode(mut bytes: &[u8]) -> io::Result<Vec<String>> {
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    let mut strings = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (text, rest) = rest.split_at_checked(u64::from_le_bytes(*length) as usize).ok_or_else(broken)?;
        strings.push(String::from_utf8(text.to_vec()).map_err(|_| broken())?);
        bytes = rest;
    }
    Ok(strings)
}

fn spool_error(source: io::Error) -> Error {
    Error::Io {
        path: std::env::temp_dir(),
        action: "keeping texts in a temporary file",
        remedy: "free space there, or set TMPDIR to a folder with space for the texts",
        source,
    }
}

/// Hashes a record: its id and its texts.
pub(crate) fn hash_record<'a>(
    hasher: &mut ContentHasher,
    id: &'a str,
    texts: impl IntoIterator<Item = &'a str>,
) {
    std::iter::once(id).chain(texts).for_each(|text| hasher.update_text(text));
}

/// A store being filled.
pub(crate) struct StoreWriter {
    ids: Ids,
    file: BufWriter<File>,
    ends: Vec<u64>,
    end: u64,
    hasher: ContentHasher,
}

impl StoreWriter {
    pub fn new() -> Result<StoreWriter> {
        let file = tempfile::tempfile().map_err(spool_error)?;
        Ok(StoreWriter {
            ids: Ids::default(),
            file: BufWriter::with_capacity(1 << 18, file),
            ends: Vec::new(),
            end: 0,
            hasher: ContentHasher::new(),
        })
    }

    pub fn ids(&self) -> &Ids {
        &self.ids
    }

    /// Adds a record; `None` if the id is already there. `path` is named if there are too many.
    pub fn push<'a>(
        &mut self,
        path: &Path,
        id: &str,
        strings: impl IntoIterator<Item = &'a str>,
    ) -> Result<Option<u32>> {
        let number = u32::try_from(self.ids.len()).map_err(|_| Error::TooMany { path: path.into() })?;
        if !self.ids.insert(id, number) {
            return Ok(None);
        }
        let strings: Vec<&str> = strings.into_iter().collect();
        hash_record(&mut self.hasher, id, strings.iter().copied());
        for text in strings {
            let length = text.len() as u64;
            self.file.write_all(&length.to_le_bytes()).map_err(spool_error)?;
            self.file.write_all(text.as_bytes()).map_err(spool_error)?;
            self.end += size_of::<u64>() as u64 + length;
        }
        self.ends.push(self.end);
        Ok(Some(number))
    }

    pub fn finish(self) -> Result<Store> {
        let file = self.file.into_inner().map_err(|error| spool_error(error.into_error()))?;
        Ok(Store { ids: self.ids, file, ends: self.ends, fingerprint: self.hasher.finish() })
    }
}
