//! The one reader of text files: any compression, any line end, with or without a byte order mark, line by
//! line with a bound on a line's length; a file of another kind is called by its name.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;

use crate::{Error, Place, Result, foreign};

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const BUFFER_BYTES: usize = 1 << 16;
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Longest line, row of a table or element of an array: a file of a few kilobytes may decompress to one of
/// gigabytes.
pub(crate) const MAX_RECORD_BYTES: usize = 64 << 20;

/// A file being read as text, decompressed if its first bytes say that it is gzip or zstd.
pub(crate) struct Source {
    pub path: PathBuf,
    pub reader: Box<dyn BufRead>,
    compressed: bool,
}

impl Source {
    pub fn open(path: &Path) -> Result<Source> {
        let file = File::open(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::Missing { path: path.into(), remedy: "check the path".into() },
            _ => Error::reading(path, source),
        })?;
        if path.is_dir() {
            let remedy = "this is a folder, and a file is needed".into();
            return Err(Error::Missing { path: path.into(), remedy });
        }
        let mut raw = BufReader::with_capacity(BUFFER_BYTES, file);
        let head = raw.fill_buf().map_err(|source| Error::reading(path, source))?;
        let (gzip, zstd) = (head.starts_with(GZIP_MAGIC), head.starts_with(ZSTD_MAGIC));
        let reader: Box<dyn BufRead> = if gzip {
            Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(raw)))
        } else if zstd {
            let decoder = zstd::stream::read::Decoder::with_buffer(raw)
                .map_err(|source| Error::reading(path, source))?;
            Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder))
        } else {
            Box::new(raw)
        };
        let mut source = Source { path: path.into(), reader, compressed: gzip || zstd };
        if let Some(foreign) = foreign::recognise(source.head()?) {
            return Err(Error::Foreign { path: path.into(), name: foreign.name, remedy: foreign.remedy });
        }
        if source.head()?.starts_with(BYTE_ORDER_MARK) {
            source.reader.consume(BYTE_ORDER_MARK.len());
        }
        Ok(source)
    }

    /// The first two bytes that are not white space, among those at hand.
    pub fn first_bytes(&mut self) -> Result<[Option<u8>; 2]> {
        let mut bytes = self.head()?.iter().copied().filter(|byte| !byte.is_ascii_whitespace());
        Ok([bytes.next(), bytes.next()])
    }

    /// Whether the first line, as far as it is at hand, holds a tab.
    pub fn first_line_has_tab(&mut self) -> Result<bool> {
        Ok(self.head()?.iter().take_while(|byte| **byte != b'\n').any(|byte| *byte == b'\t'))
    }

    /// Whether the first line, as far as it is at hand, holds a tab that is in no quotes.
    fn first_line_is_parted_by_tabs(&mut self) -> Result<bool> {
        let mut in_quotes = false;
        let line = self.head()?.iter().take_while(|byte| **byte != b'\n');
        Ok(line.copied().any(|byte| {
            in_quotes ^= byte == b'"';
            byte == b'\t' && !in_quotes
        }))
    }

    /// What a failed read at a line means: a damaged file if it is compressed, else the system's refusal.
    pub fn read_error(&self, line: u64, source: io::Error) -> Error {
        read_error(&self.path, self.compressed, line, source)
    }

    /// As a reader that fails once a record is longer than any should be.
    pub fn bounded(self) -> Bounded {
        let left = Rc::new(Cell::new(MAX_RECORD_BYTES));
        Bounded { reader: self.reader, left, compressed: self.compressed }
    }

    fn head(&mut self) -> Result<&[u8]> {
        // Asked twice because a borrow returned in one arm would last through the other.
        if let Err(refused) = self.reader.fill_buf() {
            return Err(self.read_error(1, refused));
        }
        self.reader.fill_buf().map_err(|refused| Error::reading(&self.path, refused))
    }
}

/// What a failed read at a line of `path` means.
pub(crate) fn read_error(path: &Path, compressed: bool, line: u64, source: io::Error) -> Error {
    let place = Place { path: path.into(), line };
    if source.get_ref().is_some_and(|reason| reason.is::<RecordTooLong>()) {
        Error::TooLong { place, max_bytes: MAX_RECORD_BYTES }
    } else if compressed {
        Error::Damaged { place, reason: source.to_string() }
    } else {
        Error::reading(path, source)
    }
}

/// Why a [`Bounded`] reader stopped.
#[derive(Debug, thiserror::Error)]
#[error("a record has no end")]
struct RecordTooLong;

/// A reader for parsers that collect a record of any length: it gives no more than [`MAX_RECORD_BYTES`] until
/// it is told that a record has ended.
pub(crate) struct Bounded {
    reader: Box<dyn BufRead>,
    left: Rc<Cell<usize>>,
    pub compressed: bool,
}

impl Bounded {
    /// What is left of the present record; set it to [`MAX_RECORD_BYTES`] when one ends.
    pub fn left(&self) -> Rc<Cell<usize>> {
        Rc::clone(&self.left)
    }
}

impl Read for Bounded {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.left.get() == 0 {
            return Err(io::Error::other(RecordTooLong));
        }
        let read = self.reader.read(bytes)?;
        self.left.set(self.left.get().saturating_sub(read));
        Ok(read)
    }
}

/// One line of text without its line end.
pub struct Line<'a> {
    /// The text.
    pub text: &'a str,
    /// Its number, from 1.
    pub number: u64,
    path: &'a Path,
}

impl Line<'_> {
    /// Where it stands.
    pub fn place(&self) -> Place {
        Place { path: self.path.into(), line: self.number }
    }
}

impl<'a> Line<'a> {
    pub(crate) fn path(&self) -> &'a Path {
        self.path
    }
}

/// The lines of a text file that are not blank, in one reused buffer: plain, gzip or zstd (seen from the
/// first bytes), with or without a byte order mark, with the line ends of any system.
pub struct Lines {
    source: Source,
    buffer: Vec<u8>,
    number: u64,
}

impl Lines {
    /// Opens a file.
    ///
    /// # Errors
    /// A file that is not there, cannot be read, or is of a kind that is not text.
    pub fn open(path: &Path) -> Result<Lines> {
        Ok(Lines::new(Source::open(path)?))
    }

    pub(crate) fn new(source: Source) -> Lines {
        Lines { source, buffer: Vec::new(), number: 0 }
    }

    /// The next line that is not blank; `None` at the end.
    ///
    /// # Errors
    /// A damaged or unreadable file, a line that is not UTF-8, or one longer than 64 MiB.
    // Not an iterator: a line borrows the buffer.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Line<'_>>> {
        loop {
            self.buffer.clear();
            self.number += 1;
            let mut bounded = (&mut self.source.reader).take(MAX_RECORD_BYTES as u64 + 1);
            let read = bounded.read_until(b'\n', &mut self.buffer);
            if read.map_err(|source| self.source.read_error(self.number, source))? == 0 {
                return Ok(None);
            }
            if self.buffer.len() > MAX_RECORD_BYTES {
                let place = Place { path: self.source.path.clone(), line: self.number };
                return Err(Error::TooLong { place, max_bytes: MAX_RECORD_BYTES });
            }
            if !self.buffer.trim_ascii().is_empty() {
                break;
            }
        }
        let place = || Place { path: self.source.path.clone(), line: self.number };
        let text = str::from_utf8(&self.buffer).map_err(|_| Error::NotUtf8 { place: place() })?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        Ok(Some(Line { text, number: self.number, path: &self.source.path }))
    }
}

/// How a text file holds its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// JSON values, one a line or in one array.
    Json,
    /// Lines of fields parted by tabs.
    Tsv,
    /// Rows of fields parted by commas.
    Csv,
}

impl Layout {
    /// A file is JSON if it begins with `{`, whatever its name; else its name says `.tsv`, `.csv` or JSON's
    /// endings, before any ending of compression (a `.csv` whose fields are parted by tabs, as DPR's `qas.csv`, is TSV);
    /// under any other name it is JSON if it begins with `[`, and TSV if its first line has a tab.
    pub fn of(source: &mut Source) -> Result<Layout> {
        let [first, _] = source.first_bytes()?;
        if first == Some(b'{') {
            return Ok(Layout::Json);
        }
        let name = source.path.to_string_lossy().to_ascii_lowercase();
        let plain = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
        Ok(match plain.rsplit('.').next() {
            Some("tsv") => Layout::Tsv,
            Some("csv") if source.first_line_is_parted_by_tabs()? => Layout::Tsv,
            Some("csv") => Layout::Csv,
            Some("json" | "jsonl" | "ndjson") => Layout::Json,
            _ if first != Some(b'[') && source.first_line_has_tab()? => Layout::Tsv,
            _ => Layout::Json,
        })
    }
}
