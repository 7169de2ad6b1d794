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

use contaccum_data::Qrels;
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
    "{name:?} is no measure; there are nDCG[@k], RR[@k], AP[@k], R@k, P@k and Success@k, with k at least 1"
)]
pub struct ParseMeasureError {
    name: String,
}

impl FromStr for Measure {
    type Err = ParseMeasureError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let error = || ParseMeasureError { name: name.to_owned() };
        let (measure, cutoff) = match name.split_once('@') {
            Some((measure, k)) => match k.parse() {
                Ok(0) | Err(_) => return Err(error()),
                Ok(k) => (measure, Some(k)),
            },
            None => (name, None),
        };
        match (measure, cutoff) {
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
}

impl JudgedRanking {
    /// Looks up the gains of ranked documents.
    fn new(judgments: &[(String, i32)], documents: &[ScoredDocument]) -> Self {
        let relevant = judgments.iter().filter(|(_, judgment)| *judgment > 0);
        let gains: HashMap<&str, f64> =
            relevant.map(|(id, judgment)| (id.as_str(), f64::from(*judgment))).collect();
        let gain = |document: &ScoredDocument| gains.get(document.id.as_str()).copied().unwrap_or(0.0);
        let retrieved = documents.iter().map(gain).collect();
        let mut ideal: Vec<f64> = gains.values().copied().collect();
        ideal.sort_unstable_by(|a, b| b.total_cmp(a));
        Self { retrieved, ideal }
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
    /// Results, in the order the measures were given.
    pub results: Vec<MeasureResult>,
}

/// Why nothing could be measured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// No query has a relevant document.
    #[error("no query of the judgments has a relevant document; give the qrels of these queries")]
    NothingRelevant,
}

/// Measures a run against judgments; the module's page says how exactly.
///
/// # Errors
/// When no judged query has a relevant document.
pub fn evaluate(run: &Run, qrels: &Qrels, measures: &[Measure]) -> Result<Evaluation, EvaluationError> {
    let mut evaluation = Evaluation {
        queries: 0,
        missing: 0,
        without_relevant: 0,
        unjudged: run.iter().filter(|(query, _)| qrels.judgments(query).is_empty()).count(),
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
        for result in &mut evaluation.results {
            result.per_query.insert(query.to_owned(), result.measure.of(&judged));
        }
    }
    if evaluation.queries == 0 {
        return Err(EvaluationError::NothingRelevant);
    }
    for result in &mut evaluation.results {
        result.mean = result.per_query.values().sum::<f64>() / evaluation.queries as f64;
    }
    Ok(evaluation)
}
