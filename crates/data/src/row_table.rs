//! Training rows as a table, TSV or CSV: columns by the names of a header, or in the order query, positive, negative.
//!
//! The first row is a header if one of its fields is a name that queries or passages of rows go by, or if the caller
//! says what columns are called. A cell of positives, negatives or answers may hold a list.

use std::borrow::Cow;

use csv::StringRecord;

use crate::cells::{Cells, header_name, names_of, unquoted};
use crate::columns::{
    ANSWERS, Columns, NEGATIVES, POSITIVES, PROMPT, QUERY, QUERY_ID, Unmet, is_numbered_negative,
};
use crate::ids::read_id;
use crate::literal;
use crate::notes::{Oddity, Reading};
use crate::queries::answers_of_cell;
use crate::source::{Layout, Source};
use crate::training_file::{FoundRow, InlinePassage};
use crate::{Error, Kind, Result};

const SHAPE: &str = "a table of two columns (query, positive) or three (query, positive, negative), or a first line that \
                     names them, such as query, positive, negative_1, negative_2 (columns says which are meant)";
const IDS: &str = "texts; give the folder with collection.tsv, queries and qrels as train, and this file as \
                   hard_negatives_file";

/// What a column holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    QueryId,
    Query,
    Answers,
    Prompt,
    Positive,
    Negative,
}

const WITHOUT_HEADER: [Option<Role>; 3] = [Some(Role::Query), Some(Role::Positive), Some(Role::Negative)];

/// A table of rows being read.
pub(crate) struct RowTable<'n> {
    cells: Cells,
    columns: &'n Columns,
    roles: Option<Vec<Option<Role>>>,
    has_header: bool,
}

impl<'n> RowTable<'n> {
    pub fn new(source: Source, layout: Layout, columns: &'n Columns) -> RowTable<'n> {
        RowTable { cells: Cells::new(source, layout), columns, roles: None, has_header: false }
    }

    /// The next row.
    pub fn next(&mut self, reading: &mut Reading) -> Result<Option<FoundRow>> {
        if !self.cells.advance(reading)? {
            return Ok(None);
        }
        let roles = match self.roles.take() {
            Some(roles) => roles,
            None => {
                let roles = self.start(reading)?;
                if self.has_header && !self.cells.advance(reading)? {
                    return Ok(None);
                }
                roles
            }
        };
        let row = self.row(&roles, reading)?;
        self.roles = Some(roles);
        Ok(Some(row))
    }

    /// Sees from the first record how the rows are to be read.
    fn start(&mut self, reading: &mut Reading) -> Result<Vec<Option<Role>>> {
        let Cells { record, line, .. } = &self.cells;
        let mut unmet = Unmet::new(self.columns);
        unmet.meet(*line, record.iter().map(bare));
        unmet.finish(reading)?;
        let roles = roles(record, self.columns);
        self.has_header =
            roles.iter().flatten().any(|role| matches!(role, Role::Query | Role::Positive | Role::Negative));
        if !self.has_header {
            return self.without_header(reading);
        }
        for (role, missing, known) in
            [(Role::Query, "query", QUERY.as_slice()), (Role::Positive, "positive", &POSITIVES)]
        {
            if !roles.contains(&Some(role)) {
                let (place, found, known) = (reading.place(*line), names_of(record), known.join(", "));
                let known = format!("{known}, or say it in columns ({missing}=NAME)");
                return Err(Error::Header { place, found, missing, known });
            }
        }
        let names: Vec<String> = record.iter().map(header_name).collect();
        self.columns.refuse_graded(names.iter().map(String::as_str), reading.place(*line))?;
        for (name, _) in record.iter().zip(&roles).filter(|(_, role)| role.is_none()) {
            reading.tell_unused(name.trim(), *line);
        }
        Ok(roles)
    }

    fn without_header(&self, reading: &mut Reading) -> Result<Vec<Option<Role>>> {
        let Cells { record, line, .. } = &self.cells;
        let is_number = |field: &str| !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_digit());
        if record.len() == WITHOUT_HEADER.len() && record.iter().all(is_number) {
            let reason = format!("the row ({}) holds ids alone", names_of(record));
            return Err(Error::Field { place: reading.place(*line), reason, expected: IDS });
        }
        reading.tell(Oddity::WithoutHeader, *line);
        Ok(WITHOUT_HEADER.to_vec())
    }

    fn row(&self, roles: &[Option<Role>], reading: &mut Reading) -> Result<FoundRow> {
        let Cells { record, line, .. } = &self.cells;
        let has_both = |count: usize| {
            [Role::Query, Role::Positive]
                .iter()
                .all(|role| roles.iter().take(count).any(|one| *one == Some(*role)))
        };
        // Fields beyond the header's must be empty: an unescaped tab in a text would cut it.
        if !has_both(record.len()) || record.iter().skip(roles.len()).any(|field| !field.is_empty()) {
            let place = reading.place(*line);
            return Err(Error::Columns { place, found: record.len(), expected: SHAPE });
        }
        let mut row = FoundRow { line: *line, expected: SHAPE, has_positives: true, ..FoundRow::default() };
        let unquote = self.has_header && self.cells.keeps_quotes();
        for (field, role) in record.iter().zip(roles) {
            let Some(role) = role else { continue };
            let cell = if unquote { unquoted(field) } else { Cow::Borrowed(field) };
            add(&mut row, *role, &cell, reading)?;
        }
        Ok(row)
    }
}

fn add(row: &mut FoundRow, role: Role, cell: &str, reading: &mut Reading) -> Result<()> {
    let texts = || literal::list(cell).unwrap_or_else(|| vec![cell.to_owned()]).into_iter();
    let is_empty = cell.trim().is_empty();
    match role {
        Role::Query => row.query = Some(cell.into()),
        Role::Positive => row.positives.extend(texts().map(InlinePassage::of)),
        // Tables have a cell for every column: an empty one is a negative less.
        Role::QueryId | Role::Answers | Role::Prompt | Role::Negative if is_empty => {}
        Role::Negative => row.negatives.extend(texts().map(InlinePassage::of)),
        Role::Answers => row.answers = answers_of_cell(cell, row.line, reading)?,
        Role::Prompt => row.prompt = Some(cell.into()),
        Role::QueryId => row.query_id = Some(read_id(cell, Kind::Query, row.line, reading)?.to_owned()),
    }
    Ok(())
}

/// The role of each column of a header: as was said, or by the names known in the field.
fn roles(header: &StringRecord, columns: &Columns) -> Vec<Option<Role>> {
    let names: Vec<String> = header.iter().map(header_name).collect();
    let first_of =
        |known: &[&str]| known.iter().find_map(|known| names.iter().position(|name| name == known));
    let mut roles = vec![None; names.len()];
    let mut take = |place: Option<usize>, role| {
        if let Some(free @ None) = place.map(|place| &mut roles[place]) {
            *free = Some(role);
        }
    };
    let given = |name: &String| header.iter().position(|field| bare(field) == name);
    columns.query.iter().for_each(|name| take(given(name), Role::Query));
    columns.positives.iter().for_each(|name| take(given(name), Role::Positive));
    columns.negatives.iter().for_each(|name| take(given(name), Role::Negative));
    if columns.query.is_none() {
        take(first_of(&columns.free(&QUERY)), Role::Query);
    }
    if columns.positives.is_empty() {
        take(first_of(&columns.free(&POSITIVES)), Role::Positive);
    }
    if columns.negatives.is_empty() {
        take(first_of(&columns.free(&NEGATIVES)), Role::Negative);
        let numbered = (0..names.len()).filter(|&place| is_numbered_negative(&names[place]));
        numbered.for_each(|place| take(Some(place), Role::Negative));
    }
    take(first_of(&columns.free(&ANSWERS)), Role::Answers);
    take(first_of(&columns.free(&PROMPT)), Role::Prompt);
    take(first_of(&columns.free(&QUERY_ID)), Role::QueryId);
    roles
}

/// A name in a header, as it is spelled there.
fn bare(field: &str) -> &str {
    field.trim().trim_matches('"')
}
