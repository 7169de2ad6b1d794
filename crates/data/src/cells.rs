//! Rows of fields: lines parted by tabs or by white space, or CSV; what the fields mean is for others to say.
//!
//! Quotes: CSV has RFC 4180's, over several lines too. In a TSV without a header a quote is a character, as in MS MARCO's
//! `collection.tsv`. In one with a header a field that is quoted as a whole, with its inner quotes doubled, is unquoted, as
//! in DPR's `psgs_w100.tsv`; any other quote is a character.

use std::borrow::Cow;
use std::cell::Cell;
use std::io::Read;
use std::rc::Rc;

use csv::StringRecord;

use crate::ids::split_spaces;
use crate::notes::Reading;
use crate::source::{Bounded, Layout, Lines, MAX_RECORD_BYTES, Source, read_error};
use crate::{Error, Result};

/// Put behind the end of a CSV file: a quote that is still open takes it in.
const END: &str = "\u{1}end\u{1}";

/// A file of rows being read, one in one reused record.
pub(crate) struct Cells {
    input: Input,
    pub record: StringRecord,
    /// Where the record begins, from 1.
    pub line: u64,
    /// Fields are parted by any white space.
    by_spaces: bool,
}

enum Input {
    Tsv(Lines),
    Csv { reader: Box<csv::Reader<Box<dyn Read>>>, left: Rc<Cell<usize>>, compressed: bool },
}

impl Cells {
    pub fn new(source: Source, layout: Layout) -> Cells {
        let input =
            if layout == Layout::Csv { csv_input(source.bounded()) } else { Input::Tsv(Lines::new(source)) };
        Cells { input, record: StringRecord::new(), line: 0, by_spaces: false }
    }

    /// Parts the fields of the record at hand, and of all that follow, by any white space.
    pub fn part_by_spaces(&mut self) {
        self.by_spaces = true;
        self.record = split_spaces(&self.record[0]).collect();
    }

    /// Whether a quote in a field is a character.
    pub fn keeps_quotes(&self) -> bool {
        matches!(self.input, Input::Tsv(_))
    }

    /// Reads on to the next record that is not blank; false at the end.
    pub fn advance(&mut self, reading: &Reading) -> Result<bool> {
        match &mut self.input {
            Input::Tsv(lines) => {
                let Some(line) = lines.next()? else { return Ok(false) };
                self.line = line.number;
                self.record.clear();
                if self.by_spaces {
                    split_spaces(line.text).for_each(|field| self.record.push_field(field));
                } else {
                    line.text.split('\t').for_each(|field| self.record.push_field(field));
                }
                Ok(true)
            }
            Input::Csv { reader, left, compressed } => loop {
                left.set(MAX_RECORD_BYTES);
                let line = reader.position().line();
                let more = reader.read_record(&mut self.record);
                let more = more.map_err(|error| csv_error(reading, *compressed, line, error))?;
                self.line = line;
                if !more || self.record == *[END].as_slice() {
                    return Ok(false);
                }
                if self.record.iter().next_back().is_some_and(|field| field.ends_with(END)) {
                    return Err(Error::OpenQuote { place: reading.place(line) });
                }
                if !self.record.iter().all(|field| field.trim().is_empty()) {
                    return Ok(true);
                }
            },
        }
    }
}

fn csv_input(bounded: Bounded) -> Input {
    let (left, compressed) = (bounded.left(), bounded.compressed);
    let end = std::io::Cursor::new(format!("\n{END}"));
    let whole: Box<dyn Read> = Box::new(bounded.chain(end));
    let reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(whole);
    Input::Csv { reader: Box::new(reader), left, compressed }
}

fn csv_error(reading: &Reading, compressed: bool, line: u64, error: csv::Error) -> Error {
    match error.into_kind() {
        csv::ErrorKind::Io(source) => read_error(reading.path(), compressed, line, source),
        csv::ErrorKind::Utf8 { .. } => Error::NotUtf8 { place: reading.place(line) },
        // Rows of any length are asked for, and nothing is seeked or deserialised.
        other => read_error(reading.path(), compressed, line, std::io::Error::other(format!("{other:?}"))),
    }
}

/// The name in a field of a header: capitals do not matter, `-` and `_` are one.
pub(crate) fn header_name(field: &str) -> String {
    unquoted(field.trim()).trim().to_ascii_lowercase().replace('-', "_")
}

/// The fields of a header in one line.
pub(crate) fn names_of(fields: &StringRecord) -> String {
    fields.iter().map(|name| name.escape_debug().to_string()).collect::<Vec<_>>().join(", ")
}

/// A field without its quotes, if it is quoted as a whole and every quote inside is doubled.
pub(crate) fn unquoted(field: &str) -> Cow<'_, str> {
    let inner = field.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match inner {
        Some(inner) if !inner.replace("\"\"", "").contains('"') => Cow::Owned(inner.replace("\"\"", "\"")),
        Some(_) | None => Cow::Borrowed(field),
    }
}
