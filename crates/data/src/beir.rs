//! Training rows of a BEIR folder.

use std::path::Path;

use crate::qrels::{read_judgments, split_path};
use crate::rows::RowDraft;
use crate::source::Lines;
use crate::training_set::Parts;
use crate::{Corpus, Error, Kind, PassageIndex, Place, Queries, QueryIndex, Result};

const HARD_NEGATIVE_SHAPE: &str = "query-id, gold-id, neg-ids separated by tabs (the last may be empty)";

pub(crate) fn read(folder: &Path, split: &str, hard_negatives: Option<&Path>) -> Result<Parts> {
    // A wrong path is told before minutes of reading.
    let path = match hard_negatives {
        Some(path) => path.to_owned(),
        None => split_path(folder, split)?,
    };
    if !folder.is_dir() {
        return Err(Error::Missing {
            path: folder.into(),
            remedy: "check the path of the BEIR folder".into(),
        });
    }
    let (corpus, queries) = (Corpus::open(folder)?, Queries::open(folder)?);
    let mut rows = RowsByQuery { corpus: &corpus, queries: &queries, drafts: Vec::new(), row_of: Vec::new() };
    rows.row_of.resize(queries.len(), None);
    if hard_negatives.is_some() {
        rows.read_hard_negatives(&path)?;
    } else {
        rows.read_qrels(&path)?;
    }
    let rows = rows.drafts;
    Ok(Parts { corpus, queries, rows, rows_without_positives: 0, passages_renamed: 0, path })
}

/// One row a query, in the order of the queries' first lines.
struct RowsByQuery<'a> {
    corpus: &'a Corpus,
    queries: &'a Queries,
    drafts: Vec<RowDraft>,
    row_of: Vec<Option<u32>>,
}

impl RowsByQuery<'_> {
    fn read_qrels(&mut self, path: &Path) -> Result<()> {
        read_judgments(path, |place, judgment| {
            let query = self.query(&place, judgment.query)?;
            let passage = self.passage(&place, judgment.passage)?;
            if judgment.relevance >= 1 {
                self.refuse_blank(&place, passage)?;
                self.row(query).positives.push(passage);
            }
            Ok(())
        })
    }

    fn read_hard_negatives(&mut self, path: &Path) -> Result<()> {
        let mut lines = Lines::open(path)?;
        let mut first = true;
        while let Some(line) = lines.next()? {
            if std::mem::take(&mut first) && line.text.starts_with("query-id\t") {
                continue;
            }
            let place = line.place();
            let columns: Vec<&str> = line.text.split('\t').collect();
            let [query, gold, negatives] = columns[..] else {
                return Err(Error::Columns { place, found: columns.len(), expected: HARD_NEGATIVE_SHAPE });
            };
            let query = self.query(&place, query)?;
            let gold = self.passage(&place, gold)?;
            self.refuse_blank(&place, gold)?;
            let negatives: Vec<PassageIndex> = negatives
                .split(',')
                .filter(|id| !id.is_empty())
                .map(|id| self.passage(&place, id))
                .collect::<Result<_>>()?;
            let row = self.row(query);
            row.positives.push(gold);
            row.negatives.extend(negatives);
        }
        Ok(())
    }

    fn row(&mut self, query: QueryIndex) -> &mut RowDraft {
        let drafts = &mut self.drafts;
        let row = *self.row_of[query.0 as usize].get_or_insert_with(|| {
            drafts.push(RowDraft { query, positives: Vec::new(), negatives: Vec::new() });
            (drafts.len() - 1) as u32
        });
        &mut drafts[row as usize]
    }

    fn query(&self, place: &Place, id: &str) -> Result<QueryIndex> {
        self.queries.index_of(id).ok_or_else(|| Error::UnknownId {
            place: place.clone(),
            kind: Kind::Query,
            id: id.into(),
            searched: self.queries.path().into(),
        })
    }

    fn passage(&self, place: &Place, id: &str) -> Result<PassageIndex> {
        self.corpus.index_of(id).ok_or_else(|| Error::UnknownId {
            place: place.clone(),
            kind: Kind::Passage,
            id: id.into(),
            searched: self.corpus.path().into(),
        })
    }

    fn refuse_blank(&self, place: &Place, passage: PassageIndex) -> Result<()> {
        if self.corpus.is_blank(passage) {
            let id = self.corpus.id(passage).into();
            return Err(Error::EmptyPositive { place: place.clone(), id });
        }
        Ok(())
    }
}
