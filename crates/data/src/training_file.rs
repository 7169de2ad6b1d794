//! Training rows of one file: a JSON array, or one JSON object a line, in any of the known layouts.

use std::path::{Path, PathBuf};

use crate::corpus::{CorpusWriter, PASSAGE_TEXT_NAMES};
use crate::ids::read_id;
use crate::json::{Field, Fields};
use crate::notes::{Oddity, Reading, Strictness};
use crate::queries::{QueriesWriter, answers};
use crate::records::Records;
use crate::rows::RowDraft;
use crate::source::{Source, find};
use crate::training_set::{Parts, Prompts};
use crate::{Error, Kind, Passage, PassageIndex, Place, Positives, QueryIndex, Result};

const SHAPE: &str =
    "a query with its passages: query / positives / negatives, Tevatron's, FlagEmbedding's or DPR's fields";

// The layouts of a row:
// - DPR: `question, answers, positive_ctxs, negative_ctxs, hard_negative_ctxs`
//   (facebookresearch/DPR, dpr/data/biencoder_data.py)
// - Tevatron: `query_id, query, positive_passages, negative_passages`, and the newer
//   `query_id, query_text, positive_document_ids, negative_document_ids`
//   (texttron/tevatron, src/tevatron/retriever/dataset.py)
// - FlagEmbedding: `query, pos, neg, prompt`
//   (FlagOpen/FlagEmbedding, FlagEmbedding/abc/finetune/embedder/AbsDataset.py)
// - plain: `query, positives, negatives`
const QUERY_ID: [&str; 1] = ["query_id"];
const QUERY: [&str; 3] = ["query_text", "query", "question"];
const ANSWERS: [&str; 2] = ["answers", "answer"];
const PROMPT: [&str; 1] = ["prompt"];
const DPR_POSITIVES: &str = "positive_ctxs";
const POSITIVES: [&str; 4] = ["positive_passages", "pos", "positives", DPR_POSITIVES];
const POSITIVE_IDS: [&str; 1] = ["positive_document_ids"];
const NEGATIVES: [&str; 4] = ["negative_passages", "neg", "negatives", "hard_negative_ctxs"];
const NEGATIVE_IDS: [&str; 1] = ["negative_document_ids"];
/// As DPR does (`hard_neg_fallback`): a row without hard negatives uses these.
const OTHER_NEGATIVES: [&str; 1] = ["negative_ctxs"];

/// Ids of passages inside rows, as Tevatron (`docid`) and DPR (`passage_id`, `psg_id`) name them.
const INLINE_ID: [&str; 3] = ["docid", "passage_id", "psg_id"];

pub(crate) fn read(path: &Path, corpus: Option<&Path>, strictness: Strictness) -> Result<Parts> {
    let mut rows = FileRows::new(path, corpus, strictness)?;
    let mut records = Records::new(Source::open(path)?, SHAPE)?;
    let mut repaired = String::new();
    while let Some(record) = records.next()? {
        rows.reading.record();
        let fields = Fields::read(&record, &mut repaired, &mut rows.reading, SHAPE)?;
        rows.add(&fields)?;
    }
    rows.finish(path)
}

/// A passage written inside a training row: a bare string, or an object with a text.
#[derive(Debug)]
pub(crate) struct InlinePassage {
    pub id: Option<String>,
    pub passage: Passage,
}

impl InlinePassage {
    fn read(field: &Field<'_>, reading: &mut Reading) -> Result<InlinePassage> {
        let Some(fields) = field.object(reading)? else {
            let text = if field.is_null() { String::new() } else { field.text(reading)?.into_owned() };
            return Ok(InlinePassage { id: None, passage: Passage { title: String::new(), text } });
        };
        let id = match fields.get(&INLINE_ID) {
            Some(id) => {
                let id = id.id(reading)?;
                Some(read_id(&id, Kind::Passage, field.line(), reading)?.to_owned())
            }
            None => None,
        };
        let mut text = |names: &[&'static str]| -> Result<String> {
            fields.get(names).map_or_else(|| Ok(String::new()), |text| Ok(text.text(reading)?.into_owned()))
        };
        let passage = Passage { title: text(&["title"])?, text: text(&PASSAGE_TEXT_NAMES)? };
        Ok(InlinePassage { id: id.filter(|id| !id.is_empty()), passage })
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
        let corpus_path = corpus.map(|corpus| find(corpus, "corpus.jsonl")).transpose()?;
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

    fn add(&mut self, fields: &Fields<'_>) -> Result<()> {
        let line = fields.line();
        let text = match fields.get(&QUERY) {
            Some(text) => text.text(&mut self.reading)?,
            None => {
                return self.reading.leave_out(Oddity::WithoutText, line, |place| missing("query", place));
            }
        };
        if text.trim().is_empty() {
            let refusal = |place| Error::EmptyQuery { place, id: String::new() };
            return self.reading.leave_out(Oddity::WithoutText, line, refusal);
        }
        let (positives, positive_ids) = (fields.get(&POSITIVES), fields.get(&POSITIVE_IDS));
        if positives.is_none() && positive_ids.is_none() {
            return self
                .reading
                .leave_out(Oddity::WithoutPositive, line, |place| missing("positives", place));
        }
        let given = [self.elements(positives)?, self.elements(positive_ids)?];
        if given.iter().all(Vec::is_empty) {
            // DPR's own reader leaves these out too.
            self.reading.tell(Oddity::WithoutPositive, line);
            return Ok(());
        }
        let [inline, by_id] = given;
        let mut positives = self.inline(&inline)?;
        positives.extend(self.by_id(&by_id)?);
        self.leave_out_blank(line, &mut positives)?;
        if positives.is_empty() {
            return self
                .reading
                .leave_out(Oddity::WithoutPositive, line, |place| missing("positives", place));
        }
        let mut negatives = self.elements(fields.get(&NEGATIVES))?;
        if negatives.is_empty() {
            negatives = self.elements(fields.get(&OTHER_NEGATIVES))?;
        }
        let mut negatives = self.inline(&negatives)?;
        let by_id = self.elements(fields.get(&NEGATIVE_IDS))?;
        negatives.extend(self.by_id(&by_id)?);
        self.first_is_dpr.get_or_insert(fields.get(&[DPR_POSITIVES]).is_some());
        self.tell_unused(fields);
        let query = self.query(fields, &text)?;
        self.rows.push(RowDraft { query, positives, negatives });
        Ok(())
    }

    /// The query of a row, and the prompt it brings.
    fn query(&mut self, fields: &Fields<'_>, text: &str) -> Result<QueryIndex> {
        let line = fields.line();
        let id = match fields.get(&QUERY_ID) {
            Some(id) => {
                let id = id.id(&mut self.reading)?;
                Some(read_id(&id, Kind::Query, line, &mut self.reading)?.to_owned())
            }
            None => None,
        };
        let answers = answers(fields.get(&ANSWERS), &mut self.reading)?;
        let prompt = match fields.get(&PROMPT) {
            Some(prompt) => {
                self.reading.tell(Oddity::OwnPrompt, line);
                Some(prompt.text(&mut self.reading)?)
            }
            None => None,
        };
        self.prompts.push(prompt.as_deref());
        self.queries.intern(id.as_deref(), text, &answers)
    }

    fn tell_unused(&mut self, fields: &Fields<'_>) {
        let lists: [&[&str]; 9] = [
            &QUERY_ID,
            &QUERY,
            &ANSWERS,
            &PROMPT,
            &POSITIVES,
            &POSITIVE_IDS,
            &NEGATIVES,
            &NEGATIVE_IDS,
            &OTHER_NEGATIVES,
        ];
        for name in fields.names().filter(|name| !lists.iter().any(|list| list.contains(name))) {
            self.reading.tell_unused(name, fields.line());
        }
    }

    /// The elements of a list that may be missing.
    fn elements<'a>(&self, list: Option<Field<'a>>) -> Result<Vec<Field<'a>>> {
        list.map_or_else(|| Ok(Vec::new()), |list| list.list(&self.reading))
    }

    /// Passages written in the row; those of no text are left out.
    fn inline(&mut self, elements: &[Field<'_>]) -> Result<Vec<PassageIndex>> {
        let mut passages = Vec::with_capacity(elements.len());
        for element in elements {
            let inline = InlinePassage::read(element, &mut self.reading)?;
            if inline.passage.is_blank() {
                let id = inline.id.unwrap_or_default();
                self.reading.leave_out_part(Oddity::BlankInRow, element.line(), |place| {
                    Error::WithoutText { place, id }
                })?;
            } else {
                passages.push(self.corpus.intern(&inline)?);
            }
        }
        Ok(passages)
    }

    /// Passages of the corpus; those that it lacks are left out.
    fn by_id(&mut self, ids: &[Field<'_>]) -> Result<Vec<PassageIndex>> {
        let mut passages = Vec::with_capacity(ids.len());
        for field in ids {
            let id = field.id(&mut self.reading)?;
            let id = read_id(&id, Kind::Passage, field.line(), &mut self.reading)?;
            match (self.corpus.ids().find(id), &self.corpus_path) {
                (Some(found), _) => passages.push(PassageIndex(found)),
                (None, None) => {
                    return Err(Error::NoCorpus { place: self.reading.place(field.line()), id: id.into() });
                }
                (None, Some(searched)) => {
                    let (id, searched) = (id.into(), searched.clone());
                    self.reading.leave_out_part(Oddity::UnknownPassage, field.line(), |place| {
                        Error::UnknownId { place, kind: Kind::Passage, id, searched }
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

fn missing(field: &str, place: Place) -> Error {
    Error::Field { place, reason: format!("missing field `{field}`"), expected: SHAPE }
}
