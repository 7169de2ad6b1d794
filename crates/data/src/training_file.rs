//! Training rows of one file: a table, a JSON array, or one JSON value a line, each row in any of the known layouts.

use std::path::{Path, PathBuf};

use crate::columns::{Columns, Unmet};
use crate::corpus::CorpusWriter;
use crate::folder;
use crate::notes::{Oddity, Reading, Strictness};
use crate::queries::QueriesWriter;
use crate::records::Records;
use crate::row_table::RowTable;
use crate::rows::RowDraft;
use crate::source::{Layout, Source};
use crate::training_set::{Parts, Prompts};
use crate::{
    Error, Kind, Passage, PassageIndex, Place, Positives, QueryIndex, Result, row_array, row_object,
};

pub(crate) fn read(
    path: &Path,
    corpus: Option<&Path>,
    columns: &Columns,
    strictness: Strictness,
) -> Result<Parts> {
    let mut rows = FileRows::new(path, corpus, strictness)?;
    let mut source = Source::open(path)?;
    let layout = Layout::of(&mut source)?;
    match layout {
        Layout::Json => rows.read_json(source, columns)?,
        Layout::Tsv | Layout::Csv => {
            let mut table = RowTable::new(source, layout, columns);
            while let Some(row) = table.next(&mut rows.reading)? {
                rows.reading.record();
                rows.add(row)?;
            }
        }
    }
    rows.finish(path)
}

/// A row as its format gives it, nothing looked up yet.
#[derive(Debug, Default)]
pub(crate) struct FoundRow {
    pub line: u64,
    /// What its format would take.
    pub expected: &'static str,
    /// Whether its positives stand under DPR's name.
    pub is_dpr: bool,
    pub query_id: Option<String>,
    pub query: Option<String>,
    pub answers: Vec<String>,
    pub prompt: Option<String>,
    /// Whether it has a place for positives, be it empty.
    pub has_positives: bool,
    pub positives: Vec<InlinePassage>,
    pub positive_ids: Vec<String>,
    pub negatives: Vec<InlinePassage>,
    pub negative_ids: Vec<String>,
}

/// A passage written inside a training row.
#[derive(Debug)]
pub(crate) struct InlinePassage {
    pub id: Option<String>,
    pub passage: Passage,
}

impl InlinePassage {
    /// A passage of a bare text.
    pub fn of(text: String) -> InlinePassage {
        InlinePassage { id: None, passage: Passage { title: String::new(), text } }
    }
}

struct FileRows {
    corpus: CorpusWriter,
    corpus_path: Option<PathBuf>,
    queries: QueriesWriter,
    rows: Vec<RowDraft>,
    prompts: Prompts,
    /// Whether the first row has DPR's fields.
    first_is_dpr: Option<bool>,
    reading: Reading,
}

impl FileRows {
    fn new(path: &Path, corpus: Option<&Path>, strictness: Strictness) -> Result<FileRows> {
        let corpus_path = corpus.map(folder::corpus).transpose()?;
        let corpus = match &corpus_path {
            Some(corpus) => CorpusWriter::read(corpus, strictness)?,
            None => CorpusWriter::new(path)?,
        };
        Ok(FileRows {
            corpus,
            corpus_path,
            queries: QueriesWriter::new(path)?,
            rows: Vec::new(),
            prompts: Prompts::default(),
            first_is_dpr: None,
            reading: Reading::new(path, strictness),
        })
    }

    fn read_json(&mut self, source: Source, columns: &Columns) -> Result<()> {
        let mut records = Records::new(source, row_object::SHAPE)?;
        let mut unmet = Unmet::new(columns);
        let mut first_is_array = None;
        while let Some(record) = records.next()? {
            self.reading.record();
            let is_array = record.text.trim_start().starts_with('[');
            if *first_is_array.get_or_insert(is_array) != is_array {
                self.reading.read_on(Oddity::OtherShape, record.line)?;
            }
            let row = if is_array {
                unmet.meet(record.line, std::iter::empty());
                row_array::read(&record, &mut self.reading)?
            } else {
                row_object::read(&record, columns, &mut unmet, &mut self.reading)?
            };
            self.add(row)?;
        }
        unmet.finish(&self.reading)
    }

    fn add(&mut self, row: FoundRow) -> Result<()> {
        let (line, expected) = (row.line, row.expected);
        let missing = |field: &str, place: Place| Error::Field {
            place,
            reason: format!("missing field `{field}`"),
            expected,
        };
        let Some(query) = row.query.as_deref() else {
            return self.reading.leave_out(Oddity::WithoutText, line, |place| missing("query", place));
        };
        if query.trim().is_empty() {
            let refusal = |place| Error::EmptyQuery { place, id: String::new() };
            return self.reading.leave_out(Oddity::WithoutText, line, refusal);
        }
        let without_positive = |place| missing("positives", place);
        if !row.has_positives {
            return self.reading.leave_out(Oddity::WithoutPositive, line, without_positive);
        }
        if row.positives.is_empty() && row.positive_ids.is_empty() {
            // DPR's own reader leaves these out too.
            self.reading.tell(Oddity::WithoutPositive, line);
            return Ok(());
        }
        let mut positives = self.inline(&row.positives, line)?;
        positives.extend(self.by_id(&row.positive_ids, line)?);
        self.leave_out_blank(line, &mut positives)?;
        if positives.is_empty() {
            return self.reading.leave_out(Oddity::WithoutPositive, line, without_positive);
        }
        let mut negatives = self.inline(&row.negatives, line)?;
        negatives.extend(self.by_id(&row.negative_ids, line)?);
        self.first_is_dpr.get_or_insert(row.is_dpr);
        let query = self.query(&row, query)?;
        self.rows.push(RowDraft { query, positives, negatives });
        Ok(())
    }

    /// The query of a row, and the prompt it brings.
    fn query(&mut self, row: &FoundRow, text: &str) -> Result<QueryIndex> {
        if row.prompt.is_some() {
            self.reading.tell(Oddity::OwnPrompt, row.line);
        }
        self.prompts.push(row.prompt.as_deref());
        self.queries.intern(row.query_id.as_deref(), text, &row.answers)
    }

    /// Passages written in the row; those of no text are left out.
    fn inline(&mut self, inline: &[InlinePassage], line: u64) -> Result<Vec<PassageIndex>> {
        let mut passages = Vec::with_capacity(inline.len());
        for one in inline {
            if one.passage.is_blank() {
                let id = one.id.clone().unwrap_or_default();
                self.reading
                    .leave_out_part(Oddity::BlankInRow, line, |place| Error::WithoutText { place, id })?;
            } else {
                passages.push(self.corpus.intern(one)?);
            }
        }
        Ok(passages)
    }

    /// Passages of the corpus; those that it lacks are left out.
    fn by_id(&mut self, ids: &[String], line: u64) -> Result<Vec<PassageIndex>> {
        let mut passages = Vec::with_capacity(ids.len());
        for id in ids {
            match (self.corpus.ids().find(id), &self.corpus_path) {
                (Some(found), _) => passages.push(PassageIndex(found)),
                (None, None) => {
                    return Err(Error::NoCorpus { place: self.reading.place(line), id: id.clone() });
                }
                (None, Some(searched)) => {
                    let (id, searched) = (id.clone(), searched.clone());
                    self.reading.leave_out_part(Oddity::UnknownPassage, line, |place| Error::UnknownId {
                        place,
                        kind: Kind::Passage,
                        id,
                        searched,
                    })?;
                }
            }
        }
        Ok(passages)
    }

    /// Leaves out positives of the corpus that have no text.
    fn leave_out_blank(&mut self, line: u64, positives: &mut Vec<PassageIndex>) -> Result<()> {
        let Some(blank) = positives.iter().copied().find(|&positive| self.corpus.is_blank(positive)) else {
            return Ok(());
        };
        let id = self.corpus.ids().get(blank.0).into();
        self.reading.leave_out_part(Oddity::BlankInRow, line, |place| Error::EmptyPositive { place, id })?;
        positives.retain(|&positive| !self.corpus.is_blank(positive));
        Ok(())
    }

    fn finish(self, path: &Path) -> Result<Parts> {
        let passages_renamed = self.corpus.renamed;
        let corpus = self.corpus.finish()?;
        let mut notes = corpus.notes().clone();
        notes.append(self.reading.finish()?);
        Ok(Parts {
            passages_renamed,
            corpus,
            queries: self.queries.finish()?,
            rows: self.rows,
            prompts: self.prompts,
            // DPR's first positive is its gold passage, the others are found by their answer.
            positives: if self.first_is_dpr == Some(true) { Positives::First } else { Positives::Random },
            notes,
            path: path.into(),
        })
    }
}
