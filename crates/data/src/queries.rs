use std::borrow::Cow;
use std::path::{Path, PathBuf};

use contaccum_files::{ContentHash, ContentHasher};
use twox_hash::XxHash3_128;

use crate::corpus::missing_id;
use crate::folder;
use crate::ids::read_id;
use crate::json::{Field, Fields};
use crate::literal;
use crate::notes::{Notes, Oddity, Reading, Strictness};
use crate::records::Records;
use crate::repeats::Repeats;
use crate::source::{Layout, Source};
use crate::store::{Store, StoreWriter, hash_record};
use crate::table::{Column, Shape, Table};
use crate::{Error, Kind, QueryIndex, Result};

const JSON_SHAPE: &str = r#"{"_id": "...", "text": "..."} (and perhaps "answers": ["..."])"#;

/// Ids as BEIR, Tevatron, MS MARCO and others name them.
pub(crate) const QUERY_ID_NAMES: [&str; 5] = ["_id", "query_id", "qid", "question_id", "id"];
const ANSWERS_NAMES: [&str; 2] = ["answers", "answer"];
pub(crate) const QUERY_TEXT_NAMES: [&str; 4] = ["text", "query_text", "query", "question"];

const ID: usize = 0;
const TEXT: usize = 1;
const ANSWERS: usize = 2;

const TABLE: Shape = Shape {
    columns: &[
        // A header without one is none.
        Column { name: "id", header_names: &QUERY_ID_NAMES, is_id: true, required: false },
        Column { name: "text", header_names: &QUERY_TEXT_NAMES, is_id: false, required: true },
        Column { name: "answers", header_names: &ANSWERS_NAMES, is_id: false, required: false },
    ],
    orders: &[&[Some(ID), Some(TEXT)]],
    listed: Some(&[Some(TEXT), Some(ANSWERS)]),
    uniform: true,
    spaces: false,
    expected: "id and text (TSV or CSV), or what the header names, or DPR's question and list of answers",
};

/// Queries in file order, some with reference answers; texts stay on disk, ids in memory.
///
/// Shared between threads freely: reading takes no lock.
pub struct Queries {
    path: PathBuf,
    store: Store,
    repeats: Repeats,
    notes: Notes,
}

impl Queries {
    /// As [`Queries::open_with`], reading over what is odd.
    ///
    /// # Errors
    /// As there.
    pub fn open(path: &Path) -> Result<Queries> {
        Queries::open_with(path, Strictness::Lenient)
    }

    /// Reads queries: a folder with `queries.jsonl` (or `queries.tsv`), `.gz` or `.zst`, or such a file by any name, or a
    /// `.tsv` or `.csv` file of `id, text`; with a header, columns go by their names. Headers and quotes are those of
    /// [`Corpus::open_with`](crate::Corpus::open_with). DPR's `qas.csv` (`question, answers` with a tab, the answers a list)
    /// has no ids: a query is known by its number, from 0.
    ///
    /// Lines without an id or text are left out, and those that repeat an id; they are in [`Queries::notes`].
    ///
    /// # Errors
    /// Missing, damaged or badly formed files, files of which most would be left out, no query at all; each
    /// names its line. Strictly, everything that would be noted as odd.
    pub fn open_with(path: &Path, strictness: Strictness) -> Result<Queries> {
        Queries::read(&folder::queries(path, None)?, strictness)
    }

    /// Reads the queries of a folder in which those of `split` are: BEIR's `queries.jsonl` with all splits, or MS MARCO's
    /// `queries.SPLIT.tsv`.
    ///
    /// # Errors
    /// As [`Queries::open_with`].
    pub fn open_split_with(folder: &Path, split: &str, strictness: Strictness) -> Result<Queries> {
        Queries::read(&folder::queries(folder, Some(split))?, strictness)
    }

    fn read(path: &Path, strictness: Strictness) -> Result<Queries> {
        let mut queries = QueriesWriter::new(path)?;
        let mut reading = Reading::new(path, strictness);
        let mut source = Source::open(path)?;
        let layout = Layout::of(&mut source)?;
        match layout {
            Layout::Json => queries.read_json(source, &mut reading)?,
            Layout::Tsv | Layout::Csv => {
                let mut table = Table::new(source, layout, &TABLE);
                while let Some(row) = table.next(&mut reading)? {
                    reading.record();
                    let number = (reading.records() - 1).to_string();
                    let id = row.get(ID).unwrap_or(&number);
                    let answers = answers_of_cell(row.cell(ANSWERS), row.line, &mut reading)?;
                    queries.define(row.line, Some(id), row.cell(TEXT), &answers, &mut reading)?;
                }
            }
        }
        queries.notes = reading.finish()?;
        let queries = queries.finish()?;
        if queries.is_empty() {
            return Err(Error::NoRows {
                path: path.into(),
                what: "holds no query",
                remedy: "give a file with one query a line",
            });
        }
        Ok(queries)
    }

    /// What was odd in the file.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Number of queries.
    pub fn len(&self) -> usize {
        self.store.ids.len()
    }

    /// True if there is no query.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The query's id.
    ///
    /// # Panics
    /// If the index is not of these queries.
    pub fn id(&self, query: QueryIndex) -> &str {
        self.store.ids.get(query.0)
    }

    /// The query with this id.
    pub fn index_of(&self, id: &str) -> Option<QueryIndex> {
        self.store.ids.find(id).map(QueryIndex)
    }

    /// Reads the query's text from disk.
    ///
    /// # Errors
    /// [`Error::Io`] if the temporary file of texts cannot be read.
    ///
    /// # Panics
    /// If the index is not of these queries.
    pub fn text(&self, query: QueryIndex) -> Result<String> {
        Ok(self.store.read(query.0)?.into_iter().next().unwrap_or_default())
    }

    /// Reads the query's reference answers from disk; none for most data sets.
    ///
    /// # Errors
    /// [`Error::Io`] if the temporary file of texts cannot be read.
    ///
    /// # Panics
    /// If the index is not of these queries.
    pub fn answers(&self, query: QueryIndex) -> Result<Vec<String>> {
        Ok(self.store.read(query.0)?.split_off(1))
    }

    /// The first query with the same text: `query` itself where none before it has it.
    pub fn first_of_equal(&self, query: QueryIndex) -> QueryIndex {
        QueryIndex(self.repeats.first(query.0))
    }

    /// Hash of every id, text and answer in order: equal for equal queries, whatever file they came from.
    pub fn fingerprint(&self) -> ContentHash {
        self.store.fingerprint()
    }

    /// Hash of the ids and texts of some of them, in the order given; answers are left out.
    ///
    /// # Errors
    /// As [`Queries::text`].
    pub fn fingerprint_of(&self, chosen: &[QueryIndex]) -> Result<ContentHash> {
        let mut hasher = ContentHasher::new();
        for &query in chosen {
            hash_record(&mut hasher, self.id(query), [self.text(query)?.as_str()]);
        }
        Ok(hasher.finish())
    }

    /// The file that was read.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Queries being filled, from a file of their own or from the rows that ask them.
pub(crate) struct QueriesWriter {
    path: PathBuf,
    store: StoreWriter,
    contents: Vec<u128>,
    notes: Notes,
}

impl QueriesWriter {
    pub fn new(path: &Path) -> Result<QueriesWriter> {
        let store = StoreWriter::new()?;
        Ok(QueriesWriter { path: path.into(), store, contents: Vec::new(), notes: Notes::default() })
    }

    fn read_json(&mut self, source: Source, reading: &mut Reading) -> Result<()> {
        let mut records = Records::new(source, JSON_SHAPE)?;
        let mut repaired = String::new();
        while let Some(record) = records.next()? {
            reading.record();
            let fields = Fields::read(&record, &mut repaired, reading, JSON_SHAPE)?;
            let id = fields.get(&QUERY_ID_NAMES).map(|id| id.id(reading)).transpose()?;
            let Some(text) = fields.get(&QUERY_TEXT_NAMES) else {
                reading.leave_out(Oddity::WithoutText, record.line, |place| Error::Field {
                    place,
                    reason: "missing field `text`".into(),
                    expected: JSON_SHAPE,
                })?;
                continue;
            };
            let text = text.text(reading)?;
            let answers = answers(fields.get(&ANSWERS_NAMES), reading)?;
            self.define(record.line, id.as_deref(), &text, &answers, reading)?;
        }
        Ok(())
    }

    fn define(
        &mut self,
        line: u64,
        id: Option<&str>,
        text: &str,
        answers: &[String],
        reading: &mut Reading,
    ) -> Result<()> {
        let kind = Kind::Query;
        let Some(id) = id else {
            return reading.leave_out(Oddity::WithoutId, line, |place| missing_id(place, JSON_SHAPE));
        };
        let id = read_id(id, kind, line, reading)?;
        if id.is_empty() {
            return reading.leave_out(Oddity::WithoutId, line, |place| Error::EmptyId { place, kind });
        }
        if text.trim().is_empty() {
            let refusal = |place| Error::EmptyQuery { place, id: id.into() };
            return reading.leave_out(Oddity::WithoutText, line, refusal);
        }
        if self.push(id, text, answers)?.is_none() {
            let refusal = |place| Error::DuplicateId { place, kind, id: format!("{id:?}") };
            return reading.leave_out(Oddity::RepeatedId, line, refusal);
        }
        if id.contains(' ') {
            reading.tell(Oddity::SpaceInId, line);
        }
        Ok(())
    }

    /// The number of the query of a training row. Rows that ask the same text under one id share a query; one
    /// without an id is known by its number, from 0; should an id already name another text, the query gets
    /// the id `ID#HASH`.
    pub fn intern(&mut self, id: Option<&str>, text: &str, answers: &[String]) -> Result<QueryIndex> {
        let content = content_hash(text);
        let given = id.filter(|id| !id.is_empty());
        let mut own = given.map_or_else(|| self.store.ids().len().to_string().into(), Cow::Borrowed);
        if let Some(known) = self.store.ids().find(&own) {
            if given.is_some() && self.contents[known as usize] == content {
                return Ok(QueryIndex(known));
            }
            own = Cow::Owned(format!("{own}#{content:032x}"));
            if let Some(known) = self.store.ids().find(&own) {
                return Ok(QueryIndex(known));
            }
        }
        let added = self.push(&own, text, answers)?;
        Ok(QueryIndex(added.expect("the id was just looked up and not found")))
    }

    fn push(&mut self, id: &str, text: &str, answers: &[String]) -> Result<Option<u32>> {
        let strings = std::iter::once(text).chain(answers.iter().map(String::as_str));
        let added = self.store.push(&self.path, id, strings)?;
        if added.is_some() {
            self.contents.push(content_hash(text));
        }
        Ok(added)
    }

    pub fn finish(self) -> Result<Queries> {
        let repeats = Repeats::new(&self.contents);
        Ok(Queries { path: self.path, store: self.store.finish()?, repeats, notes: self.notes })
    }
}

fn content_hash(text: &str) -> u128 {
    XxHash3_128::oneshot(text.as_bytes())
}

/// Reference answers in a cell: a list of texts, or one text; a list that is none is left out.
pub(crate) fn answers_of_cell(cell: &str, line: u64, reading: &mut Reading) -> Result<Vec<String>> {
    if cell.trim().is_empty() {
        return Ok(Vec::new());
    }
    if let Some(answers) = literal::list(cell) {
        return Ok(answers);
    }
    if !cell.trim_start().starts_with('[') {
        return Ok(vec![cell.to_owned()]);
    }
    let reason = format!("the answers ({}) are no list", cell.escape_debug());
    let expected = r#"a list of texts such as ["first", "second"]"#;
    reading.leave_out_part(Oddity::Answers, line, |place| Error::Field { place, reason, expected })?;
    Ok(Vec::new())
}

/// Reference answers: a list of texts, or one text; anything else is left out.
pub(crate) fn answers(field: Option<Field<'_>>, reading: &mut Reading) -> Result<Vec<String>> {
    let Some(field) = field else { return Ok(Vec::new()) };
    if field.is_text() {
        return Ok(vec![field.text(reading)?.into_owned()]);
    }
    let Ok(list) = field.list(reading) else {
        reading.leave_out_part(Oddity::Answers, field.line(), |place| field.wrong(place, "list of texts"))?;
        return Ok(Vec::new());
    };
    if list.iter().any(Field::is_compound) {
        reading.leave_out_part(Oddity::Answers, field.line(), |place| field.wrong(place, "list of texts"))?;
        return Ok(Vec::new());
    }
    list.iter()
        .filter(|answer| !answer.is_null())
        .map(|answer| Ok(answer.text(reading)?.into_owned()))
        .collect()
}
