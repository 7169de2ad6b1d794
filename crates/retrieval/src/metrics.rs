//! Measures of a ranking against judgments, with trec_eval's meaning.
//!
//! * Documents are sorted by score, highest first, ties by document id, highest first (compared as bytes); the rank
//!   written in a run is not looked at. Scores are compared in 32 bits, as trec_eval's are. ([`Run`] holds them so.)
//! * A document is relevant when its judgment is above 0; one without a judgment is not relevant.
//! * nDCG has linear gains (the judgment itself, none below 0) and the discount log2(rank + 1); the ideal ranking is
//!   cut at the same depth.
//! * `P@k` divides by k and `R@k` by the number of relevant documents, however few were retrieved.
//!
//! Averages are over every judged query with at least one relevant document. One that the run does not have counts 0
//! (trec_eval's `-c`, and what ir_measures does), for else a run improves by leaving hard queries out. One without a
//! relevant document is left out: every system scores 0 on it (trec_eval and ir_measures average it in, which scales
//! all means by the same factor). [`Evaluation`] says how many there were of each.
//!
//! One difference from the Python package ir_measures: its `RR@k` breaks ties in the order of the run (it comes from MS
//! MARCO's script), where ours is trec_eval's `recip_rank` of the first k, as its `RR` is.
//!
//! The `elinor` crate has these measures but not this meaning: it breaks ties by ascending id, averages over the
//! queries of the run, fails where the run has a query without judgments, gives nDCG 1 where nothing is relevant,
//! and brings a linear-algebra library for its statistical tests. The tests compare with it where the two agree.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;

use contaccum_data::{Qrels, nearest};
use serde::{Deserialize, Serialize};

use crate::trec::{Run, ScoredDocument};

/// A measure, named as in ir_measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Measure {
    /// `nDCG`, `nDCG@k`: normalised discounted cumulative gain.
    NDcg(Option<usize>),
    /// `RR`, `RR@k`: one over the rank of the first relevant document.
    ReciprocalRank(Option<usize>),
    /// `AP`, `AP@k`: mean over the relevant documents of the precision at their ranks.
    AveragePrecision(Option<usize>),
    /// `R@k`: share of the relevant documents among the first k.
    Recall(usize),
    /// `P@k`: share of the first k that is relevant.
    Precision(usize),
    /// `Success@k`: 1 when one of the first k is relevant.
    Success(usize),
}

/// A name that is no measure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is no measure{}; there are nDCG[@k], RR[@k], AP[@k], R@k, P@k and Success@k, with k at least 1",
    .near.as_ref().map_or(String::new(), |near| format!(" (did you mean {near}?)"))
)]
pub struct ParseMeasureError {
    name: String,
    near: Option<String>,
}

/// Names of measures in lower case, with what other programs call them.
const NAMES: [(&str, &str); 11] = [
    ("ndcg", "nDCG"),
    ("rr", "RR"),
    ("mrr", "RR"),
    ("recip_rank", "RR"),
    ("ap", "AP"),
    ("map", "AP"),
    ("r", "R"),
    ("recall", "R"),
    ("p", "P"),
    ("precision", "P"),
    ("success", "Success"),
];

impl ParseMeasureError {
    /// Looks for what `name` was meant to be: `ncdg@10`, trec_eval's `ndcg_cut_10`, a depth that is missing.
    fn new(name: &str) -> Self {
        let plain = name.to_lowercase().replace("_cut_", "@").replace('_', "@");
        let (measure, depth) = plain.split_once('@').unwrap_or((&plain, "10"));
        let depth = if matches!(depth.parse(), Ok(1usize..)) { depth } else { "10" };
        let meant = nearest(measure, NAMES.map(|(known, _)| known));
        let canonical = NAMES.iter().find(|(known, _)| Some(*known) == meant);
        Self { name: name.to_owned(), near: canonical.map(|(_, measure)| format!("{measure}@{depth}")) }
    }
}

impl FromStr for Measure {
    type Err = ParseMeasureError;

    /// Reads a name in any case; `MRR`, `MAP`, `Recall` and `Precision` are other names of `RR`, `AP`, `R` and `P`.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let error = || ParseMeasureError::new(name);
        let (measure, cutoff) = match name.split_once('@') {
            Some((measure, k)) => match k.trim().parse() {
                Ok(0) | Err(_) => return Err(error()),
                Ok(k) => (measure, Some(k)),
            },
            None => (name, None),
        };
        let measure = measure.trim().to_lowercase();
        let canonical = NAMES.iter().find(|(known, _)| *known == measure).map_or("", |(_, measure)| *measure);
        match (canonical, cutoff) {
            ("nDCG", cutoff) => Ok(Self::NDcg(cutoff)),
            ("RR", cutoff) => Ok(Self::ReciprocalRank(cutoff)),
            ("AP", cutoff) => Ok(Self::AveragePrecision(cutoff)),
            ("R", Some(k)) => Ok(Self::Recall(k)),
            ("P", Some(k)) => Ok(Self::Precision(k)),
            ("Success", Some(k)) => Ok(Self::Success(k)),
            _ => Err(error()),
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (name, cutoff) = match *self {
            Self::NDcg(cutoff) => ("nDCG", cutoff),
            Self::ReciprocalRank(cutoff) => ("RR", cutoff),
            Self::AveragePrecision(cutoff) => ("AP", cutoff),
            Self::Recall(k) => ("R", Some(k)),
            Self::Precision(k) => ("P", Some(k)),
            Self::Success(k) => ("Success", Some(k)),
        };
        match cutoff {
            Some(k) => write!(f, "{name}@{k}"),
            None => f.write_str(name),
        }
    }
}

impl TryFrom<String> for Measure {
    type Error = ParseMeasureError;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse()
    }
}

impl From<Measure> for String {
    fn from(measure: Measure) -> Self {
        measure.to_string()
    }
}

impl Measure {
    /// The value for one query with at least one relevant document.
    fn of(self, judged: &JudgedRanking) -> f64 {
        let value = match self {
            Self::NDcg(k) => dcg(&judged.retrieved, k) / dcg(&judged.ideal, k),
            Self::ReciprocalRank(k) => judged.relevant_ranks(k).next().map_or(0.0, |rank| 1.0 / rank as f64),
            Self::AveragePrecision(k) => {
                let precisions =
                    (1..).zip(judged.relevant_ranks(k)).map(|(hits, rank)| hits as f64 / rank as f64);
                precisions.sum::<f64>() / judged.ideal.len() as f64
            }
            Self::Recall(k) => judged.relevant_ranks(Some(k)).count() as f64 / judged.ideal.len() as f64,
            Self::Precision(k) => judged.relevant_ranks(Some(k)).count() as f64 / k as f64,
            Self::Success(k) => f64::from(judged.relevant_ranks(Some(k)).next().is_some()),
        };
        // A sum of nothing is -0.
        value + 0.0
    }
}

/// What a measure needs of one query's ranking.
struct JudgedRanking {
    /// Gain of each retrieved document, best first; 0 where it is not relevant.
    retrieved: Vec<f64>,
    /// Gains of the relevant documents, highest first.
    ideal: Vec<f64>,
    /// Retrieved documents that have a judgment.
    judged_documents: usize,
}

impl JudgedRanking {
    /// Looks up the gains of ranked documents.
    fn new(judgments: &[(String, i32)], documents: &[ScoredDocument]) -> Self {
        let gains: HashMap<&str, f64> =
            judgments.iter().map(|(id, judgment)| (id.as_str(), f64::from(*judgment).max(0.0))).collect();
        let of_documents: Vec<Option<f64>> =
            documents.iter().map(|document| gains.get(document.id.as_str()).copied()).collect();
        let mut ideal: Vec<f64> = gains.into_values().filter(|&gain| gain > 0.0).collect();
        ideal.sort_unstable_by(|a, b| b.total_cmp(a));
        let judged_documents = of_documents.iter().flatten().count();
        let retrieved = of_documents.into_iter().map(|gain| gain.unwrap_or(0.0)).collect();
        Self { retrieved, ideal, judged_documents }
    }

    /// Ranks from 1 of the relevant documents within a depth, ascending.
    fn relevant_ranks(&self, depth: Option<usize>) -> impl Iterator<Item = usize> {
        let depth = depth.unwrap_or(usize::MAX);
        (1..).zip(&self.retrieved).take(depth).filter(|&(_, &gain)| gain > 0.0).map(|(rank, _)| rank)
    }
}

fn dcg(gains: &[f64], depth: Option<usize>) -> f64 {
    let discounted = (1..).zip(gains).map(|(rank, gain)| gain / f64::from(rank + 1).log2());
    discounted.take(depth.unwrap_or(usize::MAX)).sum()
}

/// One measure over a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasureResult {
    /// The measure.
    pub measure: Measure,
    /// Mean over [`Evaluation::queries`].
    pub mean: f64,
    /// Value of each query averaged.
    pub per_query: BTreeMap<String, f64>,
}

/// A run measured against judgments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Queries averaged over: all that have a relevant document.
    pub queries: usize,
    /// Those of them that the run does not have; they count 0.
    pub missing: usize,
    /// Judged queries left out because no document is relevant.
    pub without_relevant: usize,
    /// Queries of the run left out because they have no judgments.
    pub unjudged: usize,
    /// Ranked documents of the queries averaged that have a judgment, whatever it is.
    pub judged_documents: usize,
    /// Results, in the order the measures were given.
    pub results: Vec<MeasureResult>,
}

/// Why nothing could be measured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluationError {
    /// No query has a relevant document.
    #[error("no query of the judgments has a relevant document; give the qrels of these queries")]
    NothingRelevant,
    /// The run has none of the judged queries.
    #[error(
        "none of the {queries} judged queries is in the run (judged: {judged:?}, {}); give the qrels of these queries",
        .ranked.as_ref().map_or("the run is empty".to_owned(), |id| format!("in the run: {id:?}"))
    )]
    NoCommonQuery {
        /// Judged queries with a relevant document.
        queries: usize,
        /// One of them.
        judged: String,
        /// A query of the run, if it has any.
        ranked: Option<String>,
    },
}

/// Measures a run against judgments; the module's page says how exactly.
///
/// # Errors
/// When no judged query has a relevant document, or the run has none of those that have one.
pub fn evaluate(run: &Run, qrels: &Qrels, measures: &[Measure]) -> Result<Evaluation, EvaluationError> {
    let mut evaluation = Evaluation {
        queries: 0,
        missing: 0,
        without_relevant: 0,
        unjudged: run.iter().filter(|(query, _)| qrels.judgments(query).is_empty()).count(),
        judged_documents: 0,
        results: measures
            .iter()
            .map(|&measure| MeasureResult { measure, mean: 0.0, per_query: BTreeMap::new() })
            .collect(),
    };
    for (query, judgments) in qrels.iter() {
        let retrieved = run.get(query);
        let judged = JudgedRanking::new(judgments, retrieved.unwrap_or_default());
        if judged.ideal.is_empty() {
            evaluation.without_relevant += 1;
            continue;
        }
        evaluation.queries += 1;
        evaluation.missing += usize::from(retrieved.is_none());
        evaluation.judged_documents += judged.judged_documents;
        for result in &mut evaluation.results {
            result.per_query.insert(query.to_owned(), result.measure.of(&judged));
        }
    }
    if evaluation.queries == 0 {
        return Err(EvaluationError::NothingRelevant);
    }
    if evaluation.missing == evaluation.queries {
        let judged = evaluation.results.first().and_then(|result| result.per_query.keys().next());
        return Err(EvaluationError::NoCommonQuery {
            queries: evaluation.queries,
            judged: judged.cloned().unwrap_or_default(),
            ranked: run.iter().next().map(|(query, _)| query.to_owned()),
        });
    }
    for result in &mut evaluation.results {
        result.mean = result.per_query.values().sum::<f64>() / evaluation.queries as f64;
    }
    Ok(evaluation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measure_is_known_in_any_case_and_by_the_names_of_other_programs() {
        for (typed, meant) in [
            ("ndcg@10", "nDCG@10"),
            ("NDCG@10", "nDCG@10"),
            ("MRR@10", "RR@10"),
            ("map", "AP"),
            ("Recall@100", "R@100"),
            ("p@5", "P@5"),
            ("SUCCESS@20", "Success@20"),
            (" nDCG@10 ", "nDCG@10"),
        ] {
            assert_eq!(typed.parse::<Measure>().unwrap().to_string(), meant, "{typed}");
        }
    }

    #[test]
    fn a_name_that_is_no_measure_is_refused_with_the_nearest() {
        for (typed, meant) in [
            ("ncdg@10", "nDCG@10"),
            ("ndcg_cut_10", "nDCG@10"),
            ("recall_100", "R@100"),
            ("P_10", "P@10"),
            ("recall", "R@10"),
            ("nDCG@0", "nDCG@10"),
            ("sucess@5", "Success@5"),
        ] {
            let refused = typed.parse::<Measure>().unwrap_err().to_string();
            assert!(refused.contains(&format!("did you mean {meant}?")), "{typed}: {refused}");
        }
        let refused = "F1@10".parse::<Measure>().unwrap_err().to_string();
        assert!(refused.contains("no measure;") && refused.contains("nDCG"), "{refused}");
    }
}
