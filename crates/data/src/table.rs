//! Tables: lines of fields parted by tabs, or CSV; columns by the names of a header, or by their order
//! without one.
//!
//! The first line is a header if one of its fields is a name that ids go by (`id`, `pid`, `query-id`, ...:
//! capitals do not matter, `-` and `_` are one). Columns are then found by their names, and those of other
//! names are not used.
//!
//! Quotes: CSV has RFC 4180's, over several lines too. In a TSV without a header a quote is a character, as
//! in MS MARCO's
//! `collection.tsv`. In one with a header a field that is quoted as a whole, with its inner quotes doubled, is unquoted, as
//! in DPR's `psgs_w100.tsv`; any other quote is a character.

use std::borrow::Cow;
use std::cell::Cell;
use std::rc::Rc;

use csv::StringRecord;

use crate::ids::split_spaces;
use crate::notes::Reading;
use crate::source::{Bounded, Layout, Lines, MAX_RECORD_BYTES, Source, read_error};
use crate::{Error, Place, Result};

/// A column: its name in messages, and the names it goes by in headers, with `_` for `-`.
pub(crate) struct Column {
    pub name: &'static str,
    pub header_names: &'static [&'static str],
    /// A header is known by such a column.
    pub is_id: bool,
    pub required: bool,
}

/// Column of each field; `None` for a field that is not looked at.
type Order = Vec<Option<usize>>;

/// What a kind of table holds.
pub(crate) struct Shape {
    pub columns: &'static [Column],
    /// Orders of columns without a header, one for each number of fields.
    pub orders: &'static [&'static [Option<usize>]],
    /// Whether all rows without a header must have as many fields as the first.
    pub uniform: bool,
    /// Whether fields are parted by any white space if the first line has no tab.
    pub spaces: bool,
    /// In words.
    pub expected: &'static str,
}

/// One row, its cells in the order of [`Shape::columns`].
pub(crate) struct TableRow<'a> {
    pub line: u64,
    cells: Vec<Option<Cow<'a, str>>>,
}

impl TableRow<'_> {
    /// A cell; empty if the row does not have it.
    pub fn cell(&self, column: usize) -> &str {
        self.cells[column].as_deref().unwrap_or("")
    }
}

/// A table being read.
pub(crate) struct Table {
    input: Input,
    record: StringRecord,
    line: u64,
    started: bool,
    /// Fields are parted by any white space.
    by_spaces: bool,
    has_header: bool,
    /// The same for every row; by the row's number of fields without.
    order: Option<Order>,
    shape: &'static Shape,
}

enum Input {
    Tsv(Lines),
    Csv { reader: Box<csv::Reader<Bounded>>, left: Rc<Cell<usize>>, compressed: bool },
}

impl Table {
    pub fn new(source: Source, layout: Layout, shape: &'static Shape) -> Table {
        let input = if layout == Layout::Csv {
            let bounded = source.bounded();
            let (left, compressed) = (bounded.left(), bounded.compressed);
            let reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bounded);
            Input::Csv { reader: Box::new(reader), left, compressed }
        } else {
            Input::Tsv(Lines::new(source))
        };
        Table {
            input,
            record: StringRecord::new(),
            line: 0,
            started: false,
            by_spaces: false,
            has_header: false,
            order: None,
            shape,
        }
    }

    /// The next row that is not blank.
    pub fn next(&mut self, reading: &mut Reading) -> Result<Option<TableRow<'_>>> {
        if !self.advance(reading)? {
            return Ok(None);
        }
        if !std::mem::replace(&mut self.started, true) {
            self.start(reading)?;
            if self.has_header && !self.advance(reading)? {
                return Ok(None);
            }
        }
        self.row(reading).map(Some)
    }

    /// Sees from the first record how the rows are to be read.
    fn start(&mut self, reading: &mut Reading) -> Result<()> {
        if self.shape.spaces && self.record.len() == 1 {
            self.by_spaces = true;
            self.record = split_spaces(&self.record[0]).collect();
        }
        if let Some(order) = header(&self.record, self.shape) {
            check_header(&self.record, &order, self.shape, || reading.place(self.line))?;
            for (name, _) in self.record.iter().zip(&order).filter(|(_, column)| column.is_none()) {
                reading.tell_unused(name.trim(), self.line);
            }
            (self.has_header, self.order) = (true, Some(order));
        } else if self.shape.uniform {
            self.order = self.order_by_count().map(<[_]>::to_vec);
        }
        Ok(())
    }

    /// Reads on to the next record that is not blank; false at the end.
    fn advance(&mut self, reading: &Reading) -> Result<bool> {
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
                if !more || !self.record.iter().all(|field| field.trim().is_empty()) {
                    return Ok(more);
                }
            },
        }
    }

    fn row(&self, reading: &Reading) -> Result<TableRow<'_>> {
        let shape = self.shape;
        let wrong = || Error::Columns {
            place: reading.place(self.line),
            found: self.record.len(),
            expected: shape.expected,
        };
        let order = match &self.order {
            Some(order) => order.as_slice(),
            None => self.order_by_count().ok_or_else(wrong)?,
        };
        // Fields beyond the header's must be empty: an unescaped tab in a text would cut it.
        if self.record.iter().skip(order.len()).any(|field| !field.is_empty()) {
            return Err(wrong());
        }
        let unquote = self.has_header && matches!(self.input, Input::Tsv(_));
        let mut cells = vec![None; shape.columns.len()];
        for (field, column) in self.record.iter().zip(order) {
            let Some(column) = *column else { continue };
            cells[column] = Some(if unquote { unquoted(field) } else { Cow::Borrowed(field) });
        }
        if shape.columns.iter().zip(&cells).any(|(column, cell)| column.required && cell.is_none()) {
            return Err(wrong());
        }
        Ok(TableRow { line: self.line, cells })
    }

    /// The order of columns for as many fields as the record has.
    fn order_by_count(&self) -> Option<&'static [Option<usize>]> {
        self.shape.orders.iter().copied().find(|order| order.len() == self.record.len())
    }
}

fn csv_error(reading: &Reading, compressed: bool, line: u64, error: csv::Error) -> Error {
    match error.into_kind() {
        csv::ErrorKind::Io(source) => read_error(reading.path(), compressed, line, source),
        csv::ErrorKind::Utf8 { .. } => Error::NotUtf8 { place: reading.place(line) },
        // Rows of any length are asked for, and nothing is seeked or deserialised.
        other => read_error(reading.path(), compressed, line, std::io::Error::other(format!("{other:?}"))),
    }
}

/// The column of each field, if the fields are a header.
fn header(fields: &StringRecord, shape: &Shape) -> Option<Order> {
    let mut taken = vec![false; shape.columns.len()];
    let column_of = |field: &str| {
        let name = unquoted(field.trim()).trim().to_ascii_lowercase().replace('-', "_");
        let column = shape.columns.iter().position(|column| column.header_names.contains(&name.as_str()))?;
        (!std::mem::replace(&mut taken[column], true)).then_some(column)
    };
    let order: Order = fields.iter().map(column_of).collect();
    order.iter().flatten().any(|&column| shape.columns[column].is_id).then_some(order)
}

fn check_header(
    fields: &StringRecord,
    order: &Order,
    shape: &Shape,
    place: impl FnOnce() -> Place,
) -> Result<()> {
    let is_missing = |&column: &usize| shape.columns[column].required && !order.contains(&Some(column));
    let Some(missing) = (0..shape.columns.len()).find(is_missing) else { return Ok(()) };
    let Column { name, header_names, .. } = &shape.columns[missing];
    Err(Error::Header {
        place: place(),
        found: fields.iter().map(|name| name.escape_debug().to_string()).collect::<Vec<_>>().join(", "),
        missing: name,
        known: header_names.join(", "),
    })
}

/// A field without its quotes, if it is quoted as a whole and every quote inside is doubled.
fn unquoted(field: &str) -> Cow<'_, str> {
    let inner = field.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match inner {
        Some(inner) if !inner.replace("\"\"", "").contains('"') => Cow::Owned(inner.replace("\"\"", "\"")),
        Some(_) | None => Cow::Borrowed(field),
    }
}
