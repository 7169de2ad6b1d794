//! Training rows of a folder as BEIR's or MS MARCO's: one for each query with a passage judged relevant, in the order of the
//! judgments.

use std::path::Path;

use crate::folder::judgments;
use crate::hard_negatives;
use crate::notes::{Oddity, Reading, Strictness};
use crate::qrels::read_judgments;
use crate::rows::RowDraft;
use crate::training_set::{Parts, Prompts};
use crate::{Corpus, Error, Kind, PassageIndex, Positives, Queries, QueryIndex, Result};

pub(crate) fn read(
    folder: &Path,
    split: &str,
    hard_negatives: Option<&Path>,
    strictness: Strictness,
) -> Result<Parts> {
    // A wrong path is told before minutes of reading.
    let path = judgments(folder, split)?;
    if let Some(path) = hard_negatives.filter(|path| !path.exists()) {
        return Err(Error::Missing {
            path: path.into(),
            remedy: "check the path of the hard negatives".into(),
        });
    }
    let corpus = Corpus::open_with(folder, strictness)?;
    let queries = Queries::open_split_with(folder, split, strictness)?;
    let mut notes = corpus.notes().clone();
    notes.append(queries.notes().clone());
    let mut rows = RowsByQuery::new(&corpus, &queries);
    let mut reading = Reading::new(&path, strictness);
    rows.read_qrels(&mut reading)?;
    notes.append(reading.finish()?);
    if let Some(path) = hard_negatives {
        notes.append(hard_negatives::read(path, &mut rows, strictness)?);
    }
    let rows = rows.drafts;
    let prompts = Prompts::default();
    Ok(Parts {
        corpus,
        queries,
        rows,
        prompts,
        positives: Positives::Random,
        passages_renamed: 0,
        notes,
        path,
    })
}

/// One row a query, in the order of the queries' first relevant judgments.
pub(crate) struct RowsByQuery<'a> {
    corpus: &'a Corpus,
    queries: &'a Queries,
    drafts: Vec<RowDraft>,
    row_of: Vec<Option<u32>>,
}

impl<'a> RowsByQuery<'a> {
    fn new(corpus: &'a Corpus, queries: &'a Queries) -> RowsByQuery<'a> {
        RowsByQuery { corpus, queries, drafts: Vec::new(), row_of: vec![None; queries.len()] }
    }

    fn read_qrels(&mut self, reading: &mut Reading) -> Result<()> {
        read_judgments(reading, |reading, line, judgment| {
            let query = self.query(judgment.query, line, reading, Oddity::UnknownQuery)?;
            let Some(query) = query else { return Ok(()) };
            let Some(passage) = self.corpus.index_of(judgment.passage) else {
                let refusal = self.unknown_passage(judgment.passage);
                return reading.leave_out(Oddity::UnknownPassage, line, refusal);
            };
            if judgment.relevance < 1 {
                return Ok(());
            }
            if self.corpus.is_blank(passage) {
                let id = self.corpus.id(passage).into();
                return reading
                    .leave_out(Oddity::BlankInRow, line, |place| Error::EmptyPositive { place, id });
            }
            let drafts = &mut self.drafts;
            let row = *self.row_of[query.0 as usize].get_or_insert_with(|| {
                drafts.push(RowDraft { query, positives: Vec::new(), negatives: Vec::new() });
                (drafts.len() - 1) as u32
            });
            drafts[row as usize].positives.push(passage);
            Ok(())
        })
    }

    /// The query of a line, or the line is left out as `unknown`.
    pub fn query(
        &self,
        id: &str,
        line: u64,
        reading: &mut Reading,
        unknown: Oddity,
    ) -> Result<Option<QueryIndex>> {
        let found = self.queries.index_of(id);
        if found.is_none() {
            let (id, searched) = (id.into(), self.queries.path().into());
            reading.leave_out(unknown, line, |place| Error::UnknownId {
                place,
                kind: Kind::Query,
                id,
                searched,
            })?;
        }
        Ok(found)
    }

    /// The row of a query, if it has one.
    pub fn row(&mut self, query: QueryIndex) -> Option<&mut RowDraft> {
        self.row_of[query.0 as usize].map(|row| &mut self.drafts[row as usize])
    }

    /// The passage with this id.
    pub fn passage(&self, id: &str) -> Option<PassageIndex> {
        self.corpus.index_of(id)
    }

    /// What to refuse an unknown passage with.
    pub fn unknown_passage(&self, id: &str) -> impl FnOnce(crate::Place) -> Error + use<> {
        let (id, searched) = (id.to_owned(), self.corpus.path().to_owned());
        move |place| Error::UnknownId { place, kind: Kind::Passage, id, searched }
    }
}
