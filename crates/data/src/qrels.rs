use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::folder;
use crate::ids::read_id;
use crate::notes::{Notes, Oddity, Reading, Strictness};
use crate::source::{Layout, Source};
use crate::table::{Column, Shape, Table};
use crate::{Error, Kind, Result};

const QUERY: usize = 0;
const PASSAGE: usize = 1;
const RELEVANCE: usize = 2;

const TABLE: Shape = Shape {
    columns: &[
        Column {
            name: "query id",
            header_names: &["query_id", "qid", "question_id", "queryid", "topic"],
            is_id: true,
            required: true,
        },
        Column {
            name: "passage id",
            header_names: &[
                "corpus_id",
                "docid",
                "doc_id",
                "pid",
                "passage_id",
                "psg_id",
                "document_id",
                "docno",
                "corpusid",
            ],
            is_id: true,
            required: true,
        },
        Column {
            name: "relevance",
            header_names: &["score", "relevance", "rel", "label", "relevancy", "grade"],
            is_id: false,
            required: true,
        },
    ],
    orders: &[
        &[Some(QUERY), Some(PASSAGE), Some(RELEVANCE)],
        &[Some(QUERY), None, Some(PASSAGE), Some(RELEVANCE)],
    ],
    listed: None,
    uniform: true,
    spaces: true,
    expected: "query-id, corpus-id, score separated by tabs (BEIR), or qid 0 docid rel (TREC)",
};

/// Relevance judgments by string ids, queries in the order of their first line.
#[derive(Debug, Default)]
pub struct Qrels {
    queries: Vec<(String, Vec<(String, i32)>)>,
    positions: HashMap<String, usize>,
    notes: Notes,
}

impl Qrels {
    /// As [`Qrels::open_with`], reading over what is odd.
    ///
    /// # Errors
    /// As there.
    pub fn open(path: &Path) -> Result<Qrels> {
        Qrels::open_with(path, Strictness::Lenient)
    }

    /// Reads a judgment file, plain or compressed: BEIR (`query-id, corpus-id, score` with tabs, header
    /// optional; by the names of the header if there is one, in a `.csv` too) or TREC (`qid 0 docid rel` with
    /// white space). Without a header every line must be of the kind of the first.
    ///
    /// Lines that judge a pair again are left out, and those without an id; they are in [`Qrels::notes`].
    ///
    /// # Errors
    /// Missing, damaged or badly formed files, no judgment at all; each names its line. Strictly, everything
    /// that would be noted as odd.
    pub fn open_with(path: &Path, strictness: Strictness) -> Result<Qrels> {
        let mut qrels = Qrels::default();
        let mut reading = Reading::new(path, strictness);
        read_judgments(&mut reading, |_, _, judgment| {
            let Qrels { queries, positions, .. } = &mut qrels;
            let position = match positions.get(judgment.query) {
                Some(&position) => position,
                None => {
                    positions.insert(judgment.query.into(), queries.len());
                    queries.push((judgment.query.into(), Vec::new()));
                    queries.len() - 1
                }
            };
            queries[position].1.push((judgment.passage.into(), judgment.relevance));
            Ok(())
        })?;
        qrels.notes = reading.finish()?;
        Ok(qrels)
    }

    /// Reads the judgments of one split of a folder: `qrels/SPLIT.tsv` as in BEIR, or `qrels.SPLIT.tsv` as in MS MARCO,
    /// plain, `.gz` or `.zst`.
    ///
    /// # Errors
    /// As [`Qrels::open`]; a missing split names the splits that are there.
    pub fn open_split(folder: &Path, split: &str) -> Result<Qrels> {
        Qrels::open_split_with(folder, split, Strictness::Lenient)
    }

    /// As [`Qrels::open_split`], with a choice of what becomes of odd lines.
    ///
    /// # Errors
    /// As there.
    pub fn open_split_with(folder: &Path, split: &str, strictness: Strictness) -> Result<Qrels> {
        Qrels::open_with(&folder::judgments(folder, split)?, strictness)
    }

    /// What was odd in the file.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Number of queries with at least one judgment.
    pub fn len(&self) -> usize {
        self.queries.len()
    }

    /// True if nothing is judged.
    pub fn is_empty(&self) -> bool {
        self.queries.is_empty()
    }

    /// Every query with its judgments (passage id, relevance), both in file order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &[(String, i32)])> {
        self.queries.iter().map(|(query, judgments)| (query.as_str(), judgments.as_slice()))
    }

    /// The judgments of a query (passage id, relevance) in file order; none for an unknown query.
    pub fn judgments(&self, query_id: &str) -> &[(String, i32)] {
        self.positions.get(query_id).map_or(&[], |&position| &self.queries[position].1)
    }
}

/// One line of a judgment file.
pub(crate) struct Judgment<'a> {
    pub query: &'a str,
    pub passage: &'a str,
    pub relevance: i32,
}

/// Gives every judgment of the file that is read to `each`, with its line.
pub(crate) fn read_judgments(
    reading: &mut Reading,
    mut each: impl FnMut(&mut Reading, u64, Judgment<'_>) -> Result<()>,
) -> Result<()> {
    let path = reading.path().to_owned();
    let mut source = Source::open(&path)?;
    let layout = match Layout::of(&mut source)? {
        Layout::Csv => Layout::Csv,
        // Its fields may be parted by spaces, under any name.
        Layout::Tsv | Layout::Json => Layout::Tsv,
    };
    let mut table = Table::new(source, layout, &TABLE);
    let mut seen: HashSet<u128> = HashSet::new();
    while let Some(row) = table.next(reading)? {
        reading.record();
        let query = read_id(row.cell(QUERY), Kind::Query, row.line, reading)?;
        let passage = read_id(row.cell(PASSAGE), Kind::Passage, row.line, reading)?;
        if let Some((_, kind)) =
            [(query, Kind::Query), (passage, Kind::Passage)].into_iter().find(|(id, _)| id.is_empty())
        {
            reading.leave_out(Oddity::WithoutId, row.line, |place| Error::EmptyId { place, kind })?;
            continue;
        }
        let value = row.cell(RELEVANCE).trim();
        let relevance = relevance(value)
            .ok_or_else(|| Error::Relevance { place: reading.place(row.line), value: value.into() })?;
        if !seen.insert(pair_hash(query, passage)) {
            let id = format!("{query:?} {passage:?}");
            let refusal = |place| Error::DuplicateId { place, kind: Kind::Judgment, id };
            reading.leave_out_part(Oddity::RepeatedJudgment, row.line, refusal)?;
            continue;
        }
        each(reading, row.line, Judgment { query, passage, relevance })?;
    }
    if seen.is_empty() && !reading.left_out_any() {
        let remedy = "give a file with one judgment a line";
        return Err(Error::NoRows { path, what: "holds no judgment", remedy });
    }
    Ok(())
}

/// A whole number, also with a fraction of 0, as pandas writes it.
fn relevance(value: &str) -> Option<i32> {
    let whole = value.split_once('.').map_or(value, |(whole, fraction)| {
        if !fraction.is_empty() && fraction.bytes().all(|digit| digit == b'0') { whole } else { value }
    });
    whole.parse().ok()
}

fn pair_hash(query: &str, passage: &str) -> u128 {
    // Ids hold no tab, so the joined pair is unambiguous.
    twox_hash::XxHash3_128::oneshot(format!("{query}\t{passage}").as_bytes())
}
