//! Tables: lines of fields parted by tabs, or CSV; columns by the names of a header, or by their order
//! without one.
//!
//! The first line is a header if one of its fields is a name that ids go by (`id`, `pid`, `query-id`, ...:
//! capitals do not matter, `-` and `_` are one). Columns are then found by their names, and those of other
//! names are not used.

use std::borrow::Cow;

use csv::StringRecord;

use crate::cells::{Cells, header_name, names_of, unquoted};
use crate::literal;
use crate::notes::Reading;
use crate::source::{Layout, Source};
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
    /// Order of columns without a header if the last field of the first row is a list, whose fields are quoted as a whole.
    pub listed: Option<&'static [Option<usize>]>,
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
        self.get(column).unwrap_or("")
    }

    /// A cell, if the row has it.
    pub fn get(&self, column: usize) -> Option<&str> {
        self.cells[column].as_deref()
    }
}

/// A table being read.
pub(crate) struct Table {
    cells: Cells,
    started: bool,
    has_header: bool,
    /// Whether fields may be quoted as a whole.
    unquote: bool,
    /// The same for every row; by the row's number of fields without.
    order: Option<Order>,
    shape: &'static Shape,
}

impl Table {
    pub fn new(source: Source, layout: Layout, shape: &'static Shape) -> Table {
        Table {
            cells: Cells::new(source, layout),
            started: false,
            has_header: false,
            unquote: false,
            order: None,
            shape,
        }
    }

    /// The next row that is not blank.
    pub fn next(&mut self, reading: &mut Reading) -> Result<Option<TableRow<'_>>> {
        if !self.cells.advance(reading)? {
            return Ok(None);
        }
        if !std::mem::replace(&mut self.started, true) {
            self.start(reading)?;
            if self.has_header && !self.cells.advance(reading)? {
                return Ok(None);
            }
        }
        self.row(reading).map(Some)
    }

    /// Sees from the first record how the rows are to be read.
    fn start(&mut self, reading: &mut Reading) -> Result<()> {
        if self.shape.spaces && self.cells.record.len() == 1 {
            self.cells.part_by_spaces();
        }
        let Cells { record, line, .. } = &self.cells;
        if let Some(order) = header(record, self.shape) {
            check_header(record, &order, self.shape, || reading.place(*line))?;
            for (name, _) in record.iter().zip(&order).filter(|(_, column)| column.is_none()) {
                reading.tell_unused(name.trim(), *line);
            }
            (self.has_header, self.unquote, self.order) = (true, true, Some(order));
        } else if let Some(order) = self.shape.listed.filter(|order| is_listed(record, order)) {
            (self.unquote, self.order) = (true, Some(order.to_vec()));
        } else if self.shape.uniform {
            self.order = self.order_by_count().map(<[_]>::to_vec);
        }
        Ok(())
    }

    fn row(&self, reading: &Reading) -> Result<TableRow<'_>> {
        let (shape, Cells { record, line, .. }) = (self.shape, &self.cells);
        let wrong =
            || Error::Columns { place: reading.place(*line), found: record.len(), expected: shape.expected };
        let order = match &self.order {
            Some(order) => order.as_slice(),
            None => self.order_by_count().ok_or_else(wrong)?,
        };
        // Fields beyond the header's must be empty: an unescaped tab in a text would cut it.
        if record.iter().skip(order.len()).any(|field| !field.is_empty()) {
            return Err(wrong());
        }
        let unquote = self.unquote && self.cells.keeps_quotes();
        let mut cells = vec![None; shape.columns.len()];
        for (field, column) in record.iter().zip(order) {
            let Some(column) = *column else { continue };
            cells[column] = Some(if unquote { unquoted(field) } else { Cow::Borrowed(field) });
        }
        if shape.columns.iter().zip(&cells).any(|(column, cell)| column.required && cell.is_none()) {
            return Err(wrong());
        }
        Ok(TableRow { line: *line, cells })
    }

    /// The order of columns for as many fields as the record has.
    fn order_by_count(&self) -> Option<&'static [Option<usize>]> {
        self.shape.orders.iter().copied().find(|order| order.len() == self.cells.record.len())
    }
}

/// The column of each field, if the fields are a header.
fn header(fields: &StringRecord, shape: &Shape) -> Option<Order> {
    let mut taken = vec![false; shape.columns.len()];
    let column_of = |field: &str| {
        let name = header_name(field);
        let column = shape.columns.iter().position(|column| column.header_names.contains(&name.as_str()))?;
        (!std::mem::replace(&mut taken[column], true)).then_some(column)
    };
    let order: Order = fields.iter().map(column_of).collect();
    order.iter().flatten().any(|&column| shape.columns[column].is_id).then_some(order)
}

/// Whether a record has as many fields as `order`, the last of them a list.
fn is_listed(record: &StringRecord, order: &[Option<usize>]) -> bool {
    let last = record.iter().next_back().filter(|_| record.len() == order.len());
    last.is_some_and(|last| literal::list(&unquoted(last)).is_some())
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
        found: names_of(fields),
        missing: name,
        known: header_names.join(", "),
    })
}
