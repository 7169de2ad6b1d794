//! A file of hard negatives beside a BEIR folder: it adds negatives to rows that the judgments define, and
//! defines none.

use std::path::Path;

use crate::beir::RowsByQuery;
use crate::ids::{read_id, trim_id};
use crate::notes::{Notes, Oddity, Reading, Strictness};
use crate::source::{Layout, Source};
use crate::table::{Column, Shape, Table};
use crate::{Error, Kind, Result};

const QUERY: usize = 0;
const NEGATIVES: usize = 2;

const TABLE: Shape = Shape {
    columns: &[
        Column {
            name: "query id",
            header_names: &["query_id", "qid", "question_id"],
            is_id: true,
            required: true,
        },
        // Named in files of others; the judgments say what is relevant.
        Column {
            name: "positive ids",
            header_names: &[
                "gold_id",
                "gold_ids",
                "pos_id",
                "pos_ids",
                "positive_id",
                "positive_ids",
                "corpus_id",
            ],
            is_id: true,
            required: false,
        },
        Column {
            name: "negative ids",
            header_names: &[
                "neg_ids",
                "neg_id",
                "negative_ids",
                "negative_id",
                "negatives",
                "neg",
                "hard_negatives",
                "hard_negative_ids",
            ],
            is_id: true,
            required: true,
        },
    ],
    orders: &[&[Some(QUERY), Some(NEGATIVES)], &[Some(QUERY), Some(1), Some(NEGATIVES)]],
    listed: None,
    uniform: true,
    spaces: false,
    expected: "query-id, neg-ids, or query-id, gold-id, neg-ids, separated by tabs (the last may be empty)",
};

/// Adds the negatives of the file to the rows of their queries; those that a row has as positives are left
/// out.
pub(crate) fn read(path: &Path, rows: &mut RowsByQuery<'_>, strictness: Strictness) -> Result<Notes> {
    let mut reading = Reading::new(path, strictness);
    let mut source = Source::open(path)?;
    let layout = match Layout::of(&mut source)? {
        Layout::Csv => Layout::Csv,
        Layout::Tsv | Layout::Json => Layout::Tsv,
    };
    let mut table = Table::new(source, layout, &TABLE);
    let mut lines = 0;
    while let Some(row) = table.next(&mut reading)? {
        reading.record();
        lines += 1;
        let id = read_id(row.cell(QUERY), Kind::Query, row.line, &mut reading)?;
        let Some(query) = rows.query(id, row.line, &mut reading, Oddity::UnusedNegatives)? else { continue };
        if rows.row(query).is_none() {
            let id = id.into();
            reading.leave_out(Oddity::UnusedNegatives, row.line, |place| Error::NotJudged { place, id })?;
            continue;
        }
        for id in ids(row.cell(NEGATIVES)) {
            let id = read_id(id, Kind::Passage, row.line, &mut reading)?;
            let Some(negative) = rows.passage(id) else {
                reading.leave_out_part(Oddity::UnknownNegative, row.line, rows.unknown_passage(id))?;
                continue;
            };
            let draft = rows.row(query).expect("the query was just seen to have a row");
            if draft.positives.contains(&negative) {
                reading.tell(Oddity::RelevantNegative, row.line);
            } else {
                draft.negatives.push(negative);
            }
        }
    }
    if lines == 0 {
        let remedy = "give a file with one query a line";
        return Err(Error::NoRows { path: path.into(), what: "holds no hard negative", remedy });
    }
    reading.finish()
}

/// The ids of a cell, separated by commas.
fn ids(cell: &str) -> impl Iterator<Item = &str> {
    cell.split(',').filter(|id| !trim_id(id).is_empty())
}
