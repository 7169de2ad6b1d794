use std::path::{Path, PathBuf};

use serde::Deserialize;
use twox_hash::XxHash3_128;

use crate::corpus::missing_id;
use crate::json::{Id, parse_line};
use crate::repeats::Repeats;
use crate::source::{Lines, find, is_tsv};
use crate::store::{Ids, Store, StoreWriter};
use crate::{Error, Kind, Place, QueryIndex, Result};

const JSON_SHAPE: &str = r#"{"_id": "...", "text": "..."} (and perhaps "answers": ["..."])"#;
const TSV_SHAPE: &str = "id and text, separated by a tab";

/// Queries in file order, some with reference answers; texts stay on disk, ids in memory.
///
/// Shared between threads freely: reading takes no lock.
pub struct Queries {
    path: PathBuf,
    store: Store,
    repeats: Repeats,
}

/// A line of `queries.jsonl`.
#[derive(Deserialize)]
struct QueryLine {
    _id: Option<Id>,
    query_id: Option<Id>,
    text: String,
    answers: Option<Vec<String>>,
}

impl Queries {
    /// Reads queries: a folder with `queries.jsonl`, `.jsonl.gz` or `.jsonl.zst`, or such a file by any name,
    /// or a `.tsv` file of `id, text`.
    ///
    /// # Errors
    /// Missing, damaged or badly formed files, an empty or repeated id, a query without text, no query at
    /// all; each names its line.
    pub fn open(path: &Path) -> Result<Queries> {
        let path = find(path, "queries.jsonl")?;
        let mut queries = QueriesWriter::new(&path)?;
        let mut lines = Lines::open(&path)?;
        let tsv = is_tsv(&path);
        while let Some(line) = lines.next()? {
            if tsv {
                let columns: Vec<&str> = line.text.split('\t').collect();
                let [id, text] = columns[..] else {
                    let found = columns.len();
                    return Err(Error::Columns { place: line.place(), found, expected: TSV_SHAPE });
                };
                queries.push(|| line.place(), id, text, &[])?;
            } else {
                let QueryLine { _id, query_id, text, answers } = parse_line(&line, JSON_SHAPE)?;
                let id = _id.or(query_id).ok_or_else(|| missing_id(line.place(), JSON_SHAPE))?;
                queries.push(|| line.place(), &id.0, &text, &answers.unwrap_or_default())?;
            }
        }
        let queries = queries.finish()?;
        if queries.is_empty() {
            return Err(Error::NoRows {
                path,
                what: "holds no query",
                remedy: "give a file with one query a line",
            });
        }
        Ok(queries)
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

    /// The file that was read.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Queries being filled.
pub(crate) struct QueriesWriter {
    path: PathBuf,
    store: StoreWriter,
    texts: Vec<u128>,
}

impl QueriesWriter {
    pub fn new(path: &Path) -> Result<QueriesWriter> {
        Ok(QueriesWriter { path: path.into(), store: StoreWriter::new()?, texts: Vec::new() })
    }

    pub fn ids(&self) -> &Ids {
        self.store.ids()
    }

    pub fn push(
        &mut self,
        place: impl Fn() -> Place,
        id: &str,
        text: &str,
        answers: &[String],
    ) -> Result<QueryIndex> {
        if id.is_empty() {
            return Err(Error::EmptyId { place: place(), kind: Kind::Query });
        }
        if text.trim().is_empty() {
            return Err(Error::EmptyQuery { place: place(), id: id.into() });
        }
        let strings = std::iter::once(text).chain(answers.iter().map(String::as_str));
        match self.store.push(&self.path, id, strings)? {
            Some(number) => {
                self.texts.push(XxHash3_128::oneshot(text.as_bytes()));
                Ok(QueryIndex(number))
            }
            None => Err(Error::DuplicateId { place: place(), kind: Kind::Query, id: format!("{id:?}") }),
        }
    }

    pub fn finish(self) -> Result<Queries> {
        let repeats = Repeats::new(&self.texts);
        Ok(Queries { path: self.path, store: self.store.finish()?, repeats })
    }
}
