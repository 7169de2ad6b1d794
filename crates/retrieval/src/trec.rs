//! Rankings, and the TREC files that carry them: `qid Q0 docid rank score tag`, one retrieved document a line.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::path::Path;

use contaccum_data::{Lines, Place, fits_trec, split_spaces};

use crate::search::Hit;

/// What goes wrong with a run file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The file could not be written.
    #[error(transparent)]
    Write(#[from] contaccum_files::Error),
    /// The file could not be read.
    #[error(transparent)]
    Read(#[from] contaccum_data::Error),
    /// A line is not `qid Q0 docid rank score tag`.
    #[error("{place}: {problem}")]
    Line {
        /// Where.
        place: Place,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A file without a line.
    #[error("{path}: holds no line of a run; give a file of lines qid Q0 docid rank score tag")]
    Empty {
        /// The file.
        path: String,
    },
    /// A query has the same document twice.
    #[error("query {query:?} has document {document:?} twice; keep one of them")]
    Duplicate {
        /// Id of the query.
        query: String,
        /// Id of the document.
        document: String,
    },
    /// A score is not a number to sort by.
    #[error("query {query:?} gives document {document:?} the score {score}; scores must be finite numbers")]
    NotFinite {
        /// Id of the query.
        query: String,
        /// Id of the document.
        document: String,
        /// The score.
        score: f32,
    },
    /// A query is in a run twice.
    #[error("query {query:?} is ranked twice; give each query its own id")]
    DuplicateQuery {
        /// Id of the query.
        query: String,
    },
    /// A TREC file parts its fields by white space.
    #[error("{what} {id:?} is empty or has white space, which a TREC file cannot hold; rename it")]
    WhiteSpace {
        /// Query id, document id or tag.
        what: &'static str,
        /// The name.
        id: String,
    },
}

/// A document retrieved for a query.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredDocument {
    /// Its id.
    pub id: String,
    /// Its score. trec_eval holds scores in 32 bits too, which decides what is a tie.
    pub score: f32,
}

/// The documents retrieved for each query, sorted as trec_eval sorts them whatever order they came in: by score,
/// highest first, ties by id, highest first (compared as bytes). So a rank means one thing here, in files and in
/// measures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    queries: BTreeMap<String, Vec<ScoredDocument>>,
}

impl Run {
    /// A run without queries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names what a search found: `query_ids[i]` is the query of `found[i]`, `passage_ids` the corpus in order.
    ///
    /// # Errors
    /// When a query id or, for one query, a passage id comes twice, or a score is not finite.
    ///
    /// # Panics
    /// When there are not as many query ids as results, or a passage beyond `passage_ids`.
    pub fn from_hits(
        query_ids: &[String],
        passage_ids: &[String],
        found: &[Vec<Hit>],
    ) -> Result<Self, RunError> {
        assert_eq!(query_ids.len(), found.len(), "a query id for each result");
        let mut run = Self::new();
        for (query, hits) in query_ids.iter().zip(found) {
            let document = |hit: &Hit| ScoredDocument {
                id: passage_ids[hit.passage as usize].clone(),
                score: hit.score,
            };
            run.insert(query.clone(), hits.iter().map(document).collect())?;
        }
        Ok(run)
    }

    /// Adds a query and its documents, in any order.
    ///
    /// # Errors
    /// When the query is there already, has a document twice, or a score is not finite.
    pub fn insert(&mut self, query: String, mut documents: Vec<ScoredDocument>) -> Result<(), RunError> {
        if self.queries.contains_key(&query) {
            return Err(RunError::DuplicateQuery { query });
        }
        if let Some(ScoredDocument { id, score }) =
            documents.iter().find(|document| !document.score.is_finite())
        {
            return Err(RunError::NotFinite { document: id.clone(), score: *score, query });
        }
        if let Some(document) = first_duplicate(&documents) {
            return Err(RunError::Duplicate { document: document.to_owned(), query });
        }
        documents.sort_unstable_by(better_first);
        self.queries.insert(query, documents);
        Ok(())
    }

    /// The documents of a query, best first; `None` where the run does not have the query.
    pub fn get(&self, query: &str) -> Option<&[ScoredDocument]> {
        self.queries.get(query).map(Vec::as_slice)
    }

    /// Queries in the order of their ids, with their documents, best first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[ScoredDocument])> {
        self.queries.iter().map(|(query, documents)| (query.as_str(), documents.as_slice()))
    }

    /// Number of queries.
    pub fn len(&self) -> usize {
        self.queries.len()
    }

    /// Whether the run has no query.
    pub fn is_empty(&self) -> bool {
        self.queries.is_empty()
    }

    /// Writes a TREC file, ranks counted from 1; scores are written so that reading gives the same bits.
    ///
    /// # Errors
    /// When an id or the tag is empty or has white space, before anything is written; or the file cannot be written.
    pub fn write(&self, path: &Path, tag: &str) -> Result<(), RunError> {
        let documents = self.iter().flat_map(|(_, documents)| documents);
        let documents = documents.map(|document| document.id.as_str());
        check_names(tag, self.iter().map(|(query, _)| query), documents)?;
        contaccum_files::write(path, |out| {
            for (query, documents) in self.iter() {
                for (rank, ScoredDocument { id, score }) in (1..).zip(documents) {
                    writeln!(out, "{query} Q0 {id} {rank} {score} {tag}")?;
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Reads a TREC file, plain, gzip or zstd. The second field, the rank and the tag are not looked at; lines may come in
    /// any order; empty lines are skipped.
    ///
    /// # Errors
    /// When the file cannot be read or has no line, or at the first line that has not six fields, whose score is no finite
    /// number, or that repeats a document of its query.
    pub fn read(path: &Path) -> Result<Self, RunError> {
        let mut lines = Lines::open(path)?;
        let mut run = Self::new();
        let mut seen: BTreeMap<String, HashSet<String>> = BTreeMap::new();
        while let Some(line) = lines.next()? {
            let bad = |problem: String| RunError::Line { place: line.place(), problem };
            let (query, document) = parse_line(line.text).map_err(bad)?;
            if !seen.entry(query.to_owned()).or_default().insert(document.id.clone()) {
                let problem =
                    format!("query {query:?} has document {:?} twice; keep one of them", document.id);
                return Err(bad(problem));
            }
            run.queries.entry(query.to_owned()).or_default().push(document);
        }
        if run.is_empty() {
            return Err(RunError::Empty { path: path.display().to_string() });
        }
        run.queries.values_mut().for_each(|documents| documents.sort_unstable_by(better_first));
        Ok(run)
    }

    /// Leaves out the documents that have the id of their query, as BEIR does (a passage that is its own query: ArguAna,
    /// Quora), and counts them.
    pub fn leave_out_identical_ids(&mut self) -> usize {
        let mut left_out = 0;
        for (query, documents) in &mut self.queries {
            let before = documents.len();
            documents.retain(|document| document.id != *query);
            left_out += before - documents.len();
        }
        left_out
    }

    /// Keeps the best `k` documents of each query.
    pub fn truncate(&mut self, k: usize) {
        self.queries.values_mut().for_each(|documents| documents.truncate(k));
    }

    /// Queries whose first document has their own id.
    pub fn queries_that_find_themselves(&self) -> usize {
        self.iter()
            .filter(|(query, documents)| documents.first().is_some_and(|first| first.id == *query))
            .count()
    }
}

/// Checks that a TREC file can hold a tag, query ids and document ids, before there is anything to write.
///
/// # Errors
/// The first that is empty or has white space.
pub fn check_names<'a>(
    tag: &str,
    queries: impl IntoIterator<Item = &'a str>,
    documents: impl IntoIterator<Item = &'a str>,
) -> Result<(), RunError> {
    check_name("tag", tag)?;
    queries.into_iter().try_for_each(|id| check_name("query id", id))?;
    documents.into_iter().try_for_each(|id| check_name("document id", id))
}

/// Higher score first, then higher id.
fn better_first(a: &ScoredDocument, b: &ScoredDocument) -> Ordering {
    b.score.partial_cmp(&a.score).expect("scores are finite").then_with(|| b.id.cmp(&a.id))
}

/// Query and document of a line.
fn parse_line(line: &str) -> Result<(&str, ScoredDocument), String> {
    let fields: Vec<&str> = split_spaces(line).collect();
    let &[query, _, id, _, score, _] = fields.as_slice() else {
        return Err(format!("{} fields; a run has six: qid Q0 docid rank score tag", fields.len()));
    };
    // By way of 64 bits, as trec_eval does: rounding twice decides a few ties.
    match score.parse::<f64>().map(|score| score as f32) {
        Ok(score) if score.is_finite() => Ok((query, ScoredDocument { id: id.to_owned(), score })),
        Ok(_) | Err(_) => Err(format!("score {score:?} is not a finite number")),
    }
}

fn first_duplicate(documents: &[ScoredDocument]) -> Option<&str> {
    let mut seen = HashSet::with_capacity(documents.len());
    documents.iter().map(|document| document.id.as_str()).find(|&id| !seen.insert(id))
}

fn check_name(what: &'static str, id: &str) -> Result<(), RunError> {
    if fits_trec(id) { Ok(()) } else { Err(RunError::WhiteSpace { what, id: id.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn document(id: &str, score: f32) -> ScoredDocument {
        ScoredDocument { id: id.to_owned(), score }
    }

    fn read(text: &str) -> Result<Run, RunError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.run");
        std::fs::write(&path, text).unwrap();
        Run::read(&path)
    }

    fn failure(text: &str) -> String {
        let message = read(text).unwrap_err().to_string();
        assert!(!message.contains('\n'), "{message}");
        message
    }

    #[test]
    fn documents_are_ranked_by_score_then_by_higher_id_whatever_the_file_says() {
        let run = read("q Q0 a 1 0.5 t\nq Q0 c 9 0.5 t\n\nother 0 x 1 7 t\nq Q0 b 3 1e1 t\n").unwrap();
        let ids: Vec<&str> = run.get("q").unwrap().iter().map(|document| document.id.as_str()).collect();
        assert_eq!(ids, ["b", "c", "a"]);
        assert_eq!((run.len(), run.get("none")), (2, None));
    }

    #[test]
    fn scores_that_differ_beyond_32_bits_are_ties() {
        let run = read("q Q0 a 1 1.00000001 t\nq Q0 b 2 1.0 t\n").unwrap();
        assert_eq!(run.get("q").unwrap()[0].id, "b");
    }

    #[test]
    fn a_bad_line_is_named_with_its_number_and_reason() {
        assert!(
            failure("q Q0 a 1 0.5 t\nq Q0 b 2 t\n")
                .ends_with("test.run, line 2: 5 fields; a run has six: qid Q0 docid rank score tag")
        );
        assert!(failure("q Q0 a 1 high t\n").ends_with(r#"line 1: score "high" is not a finite number"#));
        assert!(failure("q Q0 a 1 NaN t\n").ends_with(r#"line 1: score "NaN" is not a finite number"#));
        assert!(
            failure("q Q0 a 1 1 t\np Q0 a 1 1 t\nq Q0 a 2 1 t\n")
                .ends_with(r#"line 3: query "q" has document "a" twice; keep one of them"#)
        );
        let missing = Run::read(Path::new("no/such.run")).unwrap_err().to_string();
        assert!(missing.starts_with("no/such.run: "), "{missing}");
    }

    #[test]
    fn an_id_with_white_space_is_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.run");
        let mut run = Run::new();
        run.insert("q".into(), vec![document("two words", 1.0)]).unwrap();
        assert_eq!(
            run.write(&path, "t").unwrap_err().to_string(),
            r#"document id "two words" is empty or has white space, which a TREC file cannot hold; rename it"#
        );
        assert!(run.write(&path, "my tag").unwrap_err().to_string().starts_with("tag \"my tag\""));
        assert!(!path.exists());
    }

    #[test]
    fn what_cannot_be_ranked_is_refused() {
        let mut run = Run::new();
        run.insert("q".into(), vec![document("a", 1.0)]).unwrap();
        assert!(matches!(run.insert("q".into(), vec![]), Err(RunError::DuplicateQuery { .. })));
        let twice = vec![document("a", 1.0), document("a", 2.0)];
        assert!(matches!(run.insert("p".into(), twice), Err(RunError::Duplicate { .. })));
        let nan = vec![document("a", f32::NAN)];
        assert!(matches!(run.insert("p".into(), nan), Err(RunError::NotFinite { .. })));
    }

    #[test]
    fn hits_are_named_by_the_ids_of_their_rows() {
        let ids = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect::<Vec<_>>();
        let hits = vec![vec![Hit { passage: 2, score: 1.5 }], vec![]];
        let run = Run::from_hits(&ids(&["q1", "q2"]), &ids(&["x", "y", "z"]), &hits).unwrap();
        assert_eq!(run.get("q1"), Some(&[document("z", 1.5)][..]));
        assert_eq!(run.get("q2"), Some(&[][..]));
    }

    proptest! {
        #[test]
        fn a_run_survives_its_file(
            queries in prop::collection::btree_map(
                "[!-~é]{1,6}",
                prop::collection::btree_map("[!-~ü]{1,4}", prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL, 1..8),
                1..6,
            ),
        ) {
            let mut run = Run::new();
            for (query, documents) in queries {
                let documents = documents.iter().map(|(id, score)| document(id, *score)).collect();
                run.insert(query, documents).unwrap();
            }
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("test.run");
            run.write(&path, "tag").unwrap();
            prop_assert_eq!(Run::read(&path).unwrap(), run);
        }
    }
}
