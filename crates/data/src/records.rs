//! JSON values of a file, one a line or in one array, each as a text of its own.

use std::io::BufRead;
use std::path::Path;

use crate::source::{Lines, MAX_RECORD_BYTES, Source};
use crate::{Error, Place, Result};

/// The text of one JSON value, and where it begins.
pub(crate) struct Record<'a> {
    pub text: &'a str,
    pub path: &'a Path,
    /// Line, from 1.
    pub line: u64,
}

/// The values of a file in order.
pub(crate) enum Records {
    Lines(Lines),
    Array(Array),
}

impl Records {
    /// Values of one array if the file begins with `[` and no text or number follows, for then a line is an array;
    /// else of its lines. `expected` says what each holds.
    pub fn new(mut source: Source, expected: &'static str) -> Result<Records> {
        Ok(match source.first_bytes()? {
            [Some(b'['), None | Some(b'[' | b'{' | b']')] => Records::Array(Array::new(source, expected)),
            _ => Records::Lines(Lines::new(source)),
        })
    }

    pub fn next(&mut self) -> Result<Option<Record<'_>>> {
        match self {
            Records::Lines(lines) => {
                let line = lines.next()?;
                Ok(line.map(|line| Record { text: line.text, path: line.path(), line: line.number }))
            }
            Records::Array(array) => array.next(),
        }
    }
}

/// Finds where the elements of an array begin and end; whether they are JSON is for the parser to say.
pub(crate) struct Array {
    source: Source,
    expected: &'static str,
    /// The element, without white space before it.
    buffer: Vec<u8>,
    /// Line of the next byte, from 1.
    line: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the opening bracket.
    Before,
    /// Between the brackets.
    Inside,
    /// After the closing one.
    After,
}

/// Where in an element a byte stands.
#[derive(Default)]
struct Nesting {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Nesting {
    /// Takes one byte; true if it ends the element.
    fn ends_at(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b',' | b']' if self.depth == 0 => return true,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        false
    }
}

impl Array {
    fn new(source: Source, expected: &'static str) -> Array {
        Array { source, expected, buffer: Vec::new(), line: 1, state: State::Before }
    }

    fn next(&mut self) -> Result<Option<Record<'_>>> {
        if self.state == State::Before {
            // The bracket that `Records::new` has seen.
            self.skip_space()?;
            self.source.reader.consume(1);
            self.state = State::Inside;
            if self.skip_space()? == Some(b']') {
                self.source.reader.consume(1);
                self.state = State::After;
            }
        }
        if self.state == State::After {
            return match self.skip_space()? {
                None => Ok(None),
                Some(_) => Err(self.broken("text after the end of the array")),
            };
        }
        self.skip_space()?;
        let first_line = self.line;
        if self.read_element()? == b']' {
            self.state = State::After;
        }
        let place = || Place { path: self.source.path.clone(), line: first_line };
        let text = str::from_utf8(&self.buffer).map_err(|_| Error::NotUtf8 { place: place() })?;
        Ok(Some(Record { text, path: &self.source.path, line: first_line }))
    }

    /// Fills the buffer with one element and returns the byte that ended it.
    fn read_element(&mut self) -> Result<u8> {
        self.buffer.clear();
        let mut nesting = Nesting::default();
        loop {
            let chunk = match self.source.reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) => return Err(self.source.read_error(self.line, error)),
            };
            let end = chunk.iter().position(|&byte| nesting.ends_at(byte));
            let taken = &chunk[..end.unwrap_or(chunk.len())];
            self.line += taken.iter().filter(|byte| **byte == b'\n').count() as u64;
            self.buffer.extend_from_slice(taken);
            let (length, is_end) = (taken.len(), chunk.is_empty());
            let by = end.map(|end| chunk[end]);
            self.source.reader.consume(length + usize::from(by.is_some()));
            if let Some(by) = by {
                return Ok(by);
            }
            if is_end {
                return Err(self.broken("the array has no end"));
            }
            if self.buffer.len() > MAX_RECORD_BYTES {
                let place = Place { path: self.source.path.clone(), line: self.line };
                return Err(Error::TooLong { place, max_bytes: MAX_RECORD_BYTES });
            }
        }
    }

    /// Goes to the next byte that is not white space and returns it.
    fn skip_space(&mut self) -> Result<Option<u8>> {
        loop {
            let chunk = match self.source.reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) => return Err(self.source.read_error(self.line, error)),
            };
            if chunk.is_empty() {
                return Ok(None);
            }
            let found = chunk.iter().position(|byte| !byte.is_ascii_whitespace());
            let length = found.unwrap_or(chunk.len());
            let byte = found.map(|at| chunk[at]);
            self.line += chunk[..length].iter().filter(|byte| **byte == b'\n').count() as u64;
            self.source.reader.consume(length);
            if byte.is_some() {
                return Ok(byte);
            }
        }
    }

    fn broken(&self, reason: &str) -> Error {
        let place = Place { path: self.source.path.clone(), line: self.line };
        Error::Json { place, column: 1, reason: reason.into(), expected: self.expected }
    }
}
