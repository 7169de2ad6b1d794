//! Training rows of one file: a JSON array, or one JSON object a line, in any of the known layouts.

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer as _, Error as _, SeqAccess, Visitor};

use crate::corpus::CorpusWriter;
use crate::json::{Id, InlinePassage, explain, parse_line};
use crate::queries::QueriesWriter;
use crate::rows::RowDraft;
use crate::source::{Lines, Source, find};
use crate::training_set::Parts;
use crate::{Error, Kind, PassageIndex, Place, Result};

const SHAPE: &str =
    "a query with its passages: query / positives / negatives, Tevatron's, FlagEmbedding's or DPR's fields";

pub(crate) fn read(path: &Path, corpus: Option<&Path>) -> Result<Parts> {
    let mut source = Source::open(path)?;
    let mut rows = FileRows::new(path, corpus)?;
    if source.first_byte()? == Some(b'[') {
        for_each_of_array(source, |place, row| rows.add(place, row))?;
    } else {
        let mut lines = Lines::new(source);
        while let Some(line) = lines.next()? {
            rows.add(&|| line.place(), parse_line(&line, SHAPE)?)?;
        }
    }
    rows.finish(path)
}

/// A training row in any layout; fields of other names are ignored.
///
/// - DPR: `question, answers, positive_ctxs, negative_ctxs, hard_negative_ctxs`
///   (facebookresearch/DPR, dpr/data/biencoder_data.py)
/// - Tevatron: `query_id, query, positive_passages, negative_passages`, and the newer
///   `query_id, query_text, positive_document_ids, negative_document_ids`
///   (texttron/tevatron, src/tevatron/retriever/dataset.py)
/// - FlagEmbedding: `query, pos, neg`
/// - plain: `query, positives, negatives`
#[derive(Deserialize)]
struct FileRow {
    query_id: Option<Id>,
    query: Option<String>,
    query_text: Option<String>,
    question: Option<String>,
    answers: Option<Vec<String>>,
    #[serde(alias = "pos", alias = "positives", alias = "positive_ctxs")]
    positive_passages: Option<Vec<InlinePassage>>,
    positive_document_ids: Option<Vec<Id>>,
    #[serde(alias = "neg", alias = "negatives", alias = "hard_negative_ctxs")]
    negative_passages: Option<Vec<InlinePassage>>,
    negative_document_ids: Option<Vec<Id>>,
    negative_ctxs: Option<Vec<InlinePassage>>,
}

struct FileRows {
    corpus: CorpusWriter,
    corpus_path: Option<PathBuf>,
    queries: QueriesWriter,
    rows: Vec<RowDraft>,
    without_positives: usize,
}

impl FileRows {
    fn new(path: &Path, corpus: Option<&Path>) -> Result<FileRows> {
        let corpus_path = corpus.map(|corpus| find(corpus, "corpus.jsonl")).transpose()?;
        let corpus = match &corpus_path {
            Some(corpus) => CorpusWriter::read(corpus)?,
            None => CorpusWriter::new(path)?,
        };
        let queries = QueriesWriter::new(path)?;
        Ok(FileRows { corpus, corpus_path, queries, rows: Vec::new(), without_positives: 0 })
    }

    fn add(&mut self, place: &dyn Fn() -> Place, row: FileRow) -> Result<()> {
        let missing = |field: &str| Error::Field {
            place: place(),
            reason: format!("missing field `{field}`"),
            expected: SHAPE,
        };
        let text = row.query_text.or(row.query).or(row.question).ok_or_else(|| missing("query"))?;
        if row.positive_passages.is_none() && row.positive_document_ids.is_none() {
            return Err(missing("positives"));
        }
        let positives = row.positive_passages.unwrap_or_default();
        let positive_ids = row.positive_document_ids.unwrap_or_default();
        if positives.is_empty() && positive_ids.is_empty() {
            // DPR's own reader leaves these out too.
            self.without_positives += 1;
            return Ok(());
        }
        let mut negatives = row.negative_passages.unwrap_or_default();
        if negatives.is_empty() {
            // As DPR does (`hard_neg_fallback`): a row without hard negatives uses its other negatives.
            negatives = row.negative_ctxs.unwrap_or_default();
        }
        // A query without an id is known by the number of its row among those kept, from 0.
        let id = row.query_id.map_or_else(|| self.queries.ids().len().to_string(), |id| id.0);
        let query = self.queries.push(place, &id, &text, &row.answers.unwrap_or_default())?;
        let positives = self.passages(place, &positives, &positive_ids)?;
        if let Some(blank) = positives.iter().find(|positive| self.corpus.is_blank(**positive)) {
            return Err(Error::EmptyPositive { place: place(), id: self.corpus.ids().get(blank.0).into() });
        }
        let negatives = self.passages(place, &negatives, &row.negative_document_ids.unwrap_or_default())?;
        self.rows.push(RowDraft { query, positives, negatives });
        Ok(())
    }

    fn passages(
        &mut self,
        place: &dyn Fn() -> Place,
        inline: &[InlinePassage],
        ids: &[Id],
    ) -> Result<Vec<PassageIndex>> {
        let mut passages: Vec<PassageIndex> =
            inline.iter().map(|inline| self.corpus.intern(inline)).collect::<Result<_>>()?;
        for Id(id) in ids {
            let found = self.corpus.ids().find(id).map(PassageIndex);
            passages.push(found.ok_or_else(|| match &self.corpus_path {
                None => Error::NoCorpus { place: place(), id: id.clone() },
                Some(path) => Error::UnknownId {
                    place: place(),
                    kind: Kind::Passage,
                    id: id.clone(),
                    searched: path.clone(),
                },
            })?);
        }
        Ok(passages)
    }

    fn finish(self, path: &Path) -> Result<Parts> {
        Ok(Parts {
            passages_renamed: self.corpus.renamed,
            rows_without_positives: self.without_positives,
            corpus: self.corpus.finish()?,
            queries: self.queries.finish()?,
            rows: self.rows,
            path: path.into(),
        })
    }
}

/// Gives the objects of one JSON array to `each` as they are read, with the line on which each ends.
fn for_each_of_array(
    mut source: Source,
    mut each: impl FnMut(&dyn Fn() -> Place, FileRow) -> Result<()>,
) -> Result<()> {
    let path = source.path.clone();
    let line = Cell::new(1);
    let mut refused = None;
    // Buffered once more, so that the parser's reads of single bytes stay in this function's code.
    let reader = LineCounter { inner: BufReader::new(&mut source.reader), line: &line };
    let mut parser = serde_json::Deserializer::from_reader(reader);
    let visitor = ArrayVisitor(|row| {
        each(&|| Place { path: path.clone(), line: line.get() }, row).map_err(|error| refused = Some(error))
    });
    let parsed = parser.deserialize_seq(visitor).and_then(|()| parser.end());
    drop(parser);
    match (refused, parsed) {
        (Some(error), _) => Err(error),
        (None, Ok(())) => Ok(()),
        (None, Err(error)) if error.is_io() => Err(source.read_error(line.get(), error.into())),
        (None, Err(error)) => Err(explain(Place { path, line: error.line() as u64 }, &error, SHAPE)),
    }
}

/// Hands each element to a function that answers `Err(())` to stop.
struct ArrayVisitor<F>(F);

impl<'de, F: FnMut(FileRow) -> std::result::Result<(), ()>> Visitor<'de> for ArrayVisitor<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of training rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut array: A) -> std::result::Result<(), A::Error> {
        while let Some(row) = array.next_element()? {
            (self.0)(row).map_err(|()| A::Error::custom("stopped"))?;
        }
        Ok(())
    }
}

/// Counts the lines a byte-wise reader has passed.
struct LineCounter<'a, R> {
    inner: R,
    line: &'a Cell<u64>,
}

impl<R: Read> Read for LineCounter<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        let ends = bytes[..read].iter().filter(|byte| **byte == b'\n').count();
        self.line.set(self.line.get() + ends as u64);
        Ok(read)
    }
}
