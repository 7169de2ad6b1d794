use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::source::{Lines, find};
use crate::{Error, Kind, Place, Result};

const SHAPE: &str = "query-id, corpus-id, score separated by tabs (BEIR), or qid 0 docid rel (TREC)";

/// Relevance judgments by string ids, queries in the order of their first line.
#[derive(Debug, Default)]
pub struct Qrels {
    queries: Vec<(String, Vec<(String, i32)>)>,
    positions: HashMap<String, usize>,
}

impl Qrels {
    /// Reads a judgment file, plain or compressed: BEIR (`query-id, corpus-id, score` with tabs, header
    /// optional) or TREC (`qid 0 docid rel` with white space). Every line must be of the kind of the first.
    ///
    /// # Errors
    /// Missing, damaged or badly formed files, an empty id, a pair judged twice, no judgment at all; each
    /// names its line.
    pub fn open(path: &Path) -> Result<Qrels> {
        let mut qrels = Qrels::default();
        read_judgments(path, |_, judgment| {
            let Qrels { queries, positions } = &mut qrels;
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
        Ok(qrels)
    }

    /// Reads the judgments of one split of a BEIR folder: `qrels/SPLIT.tsv`, `.tsv.gz` or `.tsv.zst`.
    ///
    /// # Errors
    /// As [`Qrels::open`]; a missing split names the splits that are there.
    pub fn open_split(folder: &Path, split: &str) -> Result<Qrels> {
        Qrels::open(&split_path(folder, split)?)
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

#[derive(Clone, Copy)]
enum Layout {
    Beir,
    Trec,
}

/// Gives every judgment of a file to `each`, with its place.
pub(crate) fn read_judgments(
    path: &Path,
    mut each: impl FnMut(Place, Judgment<'_>) -> Result<()>,
) -> Result<()> {
    let mut lines = Lines::open(path)?;
    let mut layout = None;
    let mut seen: HashSet<u128> = HashSet::new();
    while let Some(line) = lines.next()? {
        if layout.is_none() && line.text.starts_with("query-id\t") {
            layout = Some(Layout::Beir);
            continue;
        }
        let tabs: Vec<&str> = line.text.split('\t').collect();
        let kind = *layout.get_or_insert(if tabs.len() == 3 { Layout::Beir } else { Layout::Trec });
        let words: Vec<&str> = line.text.split_whitespace().collect();
        let (query, passage, relevance) = match (kind, &tabs[..], &words[..]) {
            (Layout::Beir, &[query, passage, relevance], _) => (query, passage, relevance),
            (Layout::Trec, _, &[query, _, passage, relevance]) => (query, passage, relevance),
            (Layout::Beir, tabs, _) => return Err(columns(line.place(), tabs.len())),
            (Layout::Trec, _, words) => return Err(columns(line.place(), words.len())),
        };
        for (id, kind) in [(query, Kind::Query), (passage, Kind::Passage)] {
            if id.is_empty() {
                return Err(Error::EmptyId { place: line.place(), kind });
            }
        }
        let relevance = relevance
            .trim()
            .parse()
            .map_err(|_| Error::Relevance { place: line.place(), value: relevance.into() })?;
        if !seen.insert(pair_hash(query, passage)) {
            let id = format!("{query:?} {passage:?}");
            return Err(Error::DuplicateId { place: line.place(), kind: Kind::Judgment, id });
        }
        each(line.place(), Judgment { query, passage, relevance })?;
    }
    if seen.is_empty() {
        let remedy = "give a file with one judgment a line";
        return Err(Error::NoRows { path: path.into(), what: "holds no judgment", remedy });
    }
    Ok(())
}

fn columns(place: Place, found: usize) -> Error {
    Error::Columns { place, found, expected: SHAPE }
}

fn pair_hash(query: &str, passage: &str) -> u128 {
    // Ids hold no tab here, so the joined pair is unambiguous.
    twox_hash::XxHash3_128::oneshot(format!("{query}\t{passage}").as_bytes())
}

/// The judgment file of a split, or an error that names the splits there are.
pub(crate) fn split_path(folder: &Path, split: &str) -> Result<PathBuf> {
    if !folder.is_dir() {
        return Err(Error::Missing {
            path: folder.into(),
            remedy: "check the path of the BEIR folder".into(),
        });
    }
    find(folder, &format!("qrels/{split}.tsv")).map_err(|missing| match splits(folder) {
        found if found.is_empty() => missing,
        found => Error::Missing {
            path: folder.join(format!("qrels/{split}.tsv")),
            remedy: format!("the folder has these splits: {}", found.join(", ")),
        },
    })
}

fn splits(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder.join("qrels")) else { return Vec::new() };
    let mut splits: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| Some(name.split_once(".tsv")?.0.to_owned()))
        .collect();
    splits.sort();
    splits
}
