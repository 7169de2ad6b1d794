//! Opening a file by its path, whatever its compression, and reading it line by line.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::{Error, Place, Result};

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const BUFFER_BYTES: usize = 1 << 16;
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

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
        if source.head()?.starts_with(BYTE_ORDER_MARK) {
            source.reader.consume(BYTE_ORDER_MARK.len());
        }
        Ok(source)
    }

    /// The first byte that is not white space, among those at hand.
    pub fn first_byte(&mut self) -> Result<Option<u8>> {
        Ok(self.head()?.iter().copied().find(|byte| !byte.is_ascii_whitespace()))
    }

    /// What a failed read at a line means: a damaged file if it is compressed, else the system's refusal.
    pub fn read_error(&self, line: u64, source: io::Error) -> Error {
        if self.compressed {
            Error::Damaged { place: Place { path: self.path.clone(), line }, reason: source.to_string() }
        } else {
            Error::reading(&self.path, source)
        }
    }

    fn head(&mut self) -> Result<&[u8]> {
        // Asked twice because a borrow returned in one arm would last through the other.
        if let Err(refused) = self.reader.fill_buf() {
            return Err(self.read_error(1, refused));
        }
        self.reader.fill_buf().map_err(|refused| Error::reading(&self.path, refused))
    }
}

/// One line of text without its line end.
pub(crate) struct Line<'a> {
    pub text: &'a str,
    path: &'a Path,
    number: u64,
}

impl Line<'_> {
    pub fn place(&self) -> Place {
        Place { path: self.path.into(), line: self.number }
    }
}

/// The lines of a source that are not blank, in one reused buffer.
pub(crate) struct Lines {
    source: Source,
    buffer: Vec<u8>,
    number: u64,
}

impl Lines {
    pub fn open(path: &Path) -> Result<Lines> {
        Ok(Lines::new(Source::open(path)?))
    }

    pub fn new(source: Source) -> Lines {
        Lines { source, buffer: Vec::new(), number: 0 }
    }

    /// The next line that is not blank; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Line<'_>>> {
        loop {
            self.buffer.clear();
            self.number += 1;
            let read = self.source.reader.read_until(b'\n', &mut self.buffer);
            if read.map_err(|source| self.source.read_error(self.number, source))? == 0 {
                return Ok(None);
            }
            if !self.buffer.trim_ascii().is_empty() {
                break;
            }
        }
        let place = || Place { path: self.source.path.clone(), line: self.number };
        let text = str::from_utf8(&self.buffer).map_err(|_| Error::NotUtf8 { place: place() })?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        Ok(Some(Line { text, path: &self.source.path, number: self.number }))
    }
}

/// `path` itself if it is a file, else `name` inside the folder `path`, plain, `.gz` or `.zst`.
pub(crate) fn find(path: &Path, name: &str) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.into());
    }
    ["", ".gz", ".zst"]
        .iter()
        .map(|ending| path.join(format!("{name}{ending}")))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| Error::Missing {
            path: path.join(name),
            remedy: format!("the folder needs {name}, {name}.gz or {name}.zst"),
        })
}

/// True if the path ends in `.tsv`, before any ending of compression.
pub(crate) fn is_tsv(path: &Path) -> bool {
    let name = path.to_string_lossy();
    let plain = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
    plain.ends_with(".tsv")
}
