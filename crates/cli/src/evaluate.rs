//! `contaccum evaluate`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use contaccum_data::{Corpus, Qrels, Queries, QueryIndex};
use contaccum_retrieval::{Answers, MeanInterval, PairedDifference, Run, evaluate, evaluate_answers};
use serde::Serialize;

use crate::args::EvaluateArgs;
use crate::notes;
use crate::output;
use crate::search::tell_of_themselves;

/// What is written: measures by name, what they were averaged over, and how a baseline differs.
#[derive(Serialize)]
struct Report {
    metrics: BTreeMap<String, f64>,
    intervals: BTreeMap<String, MeanInterval>,
    #[serde(skip_serializing_if = "Option::is_none")]
    judged: Option<Judged>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answered: Option<Answered>,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline: Option<Baseline>,
}

/// Queries behind the measures against judgments.
#[derive(Serialize)]
struct Judged {
    queries: usize,
    missing: usize,
    without_relevant: usize,
    unjudged: usize,
}

/// Questions behind the top-k accuracy.
#[derive(Serialize)]
struct Answered {
    questions: usize,
}

/// Another run, and the difference of the run from it.
#[derive(Serialize)]
struct Baseline {
    run: PathBuf,
    metrics: BTreeMap<String, f64>,
    differences: BTreeMap<String, PairedDifference>,
}

/// A run, measured.
#[derive(Default)]
struct Measured {
    measures: Vec<Values>,
    judged: Option<Judged>,
    answered: Option<Answered>,
}

/// A measure: its mean and the value of each query, in the same order for every run.
struct Values {
    name: String,
    mean: f64,
    of_queries: Vec<f64>,
}

/// Measures a run, beside a baseline where one is given, and writes the measures.
pub fn run(args: &EvaluateArgs) -> anyhow::Result<()> {
    let measured = Measured::of(args, &args.run)?;
    match &args.baseline {
        None => write(args, measured),
        Some(path) => compare(args, measured, path, &Measured::of(args, path)?),
    }
}

fn write(args: &EvaluateArgs, measured: Measured) -> anyhow::Result<()> {
    let report = Report::of(measured.judged, measured.answered, &measured.measures);
    let row = |values: &Values| {
        let MeanInterval { low, high, .. } = report.intervals[&values.name];
        [values.name.clone(), decimals(values.mean), decimals(low), decimals(high)]
    };
    let rows: Vec<[String; 4]> = measured.measures.iter().map(row).collect();
    output::write(args.format, ["measure", "value", "low", "high"], &rows, &report)
}

fn compare(args: &EvaluateArgs, measured: Measured, path: &Path, theirs: &Measured) -> anyhow::Result<()> {
    let mut report = Report::of(measured.judged, measured.answered, &measured.measures);
    let mut baseline =
        Baseline { run: path.to_owned(), metrics: means(&theirs.measures), differences: BTreeMap::new() };
    let mut rows = Vec::new();
    for (ours, theirs) in measured.measures.iter().zip(&theirs.measures) {
        let difference = PairedDifference::of(&ours.of_queries, &theirs.of_queries)
            .expect("both runs are measured on the same queries, one at least");
        let MeanInterval { low, high, .. } = report.intervals[&ours.name];
        let PairedDifference { difference: MeanInterval { mean, low: least, high: most }, p } = difference;
        let numbers = [ours.mean, low, high, theirs.mean].map(decimals);
        let signed = [mean, least, most].map(|number| format!("{number:+.4}"));
        let [value, low, high, theirs] = numbers;
        let [mean, least, most] = signed;
        rows.push([ours.name.clone(), value, low, high, theirs, mean, least, most, decimals(p)]);
        baseline.differences.insert(ours.name.clone(), difference);
    }
    report.baseline = Some(baseline);
    let headers = [
        "measure",
        "value",
        "low",
        "high",
        "baseline",
        "difference",
        "difference low",
        "difference high",
        "p",
    ];
    output::write(args.format, headers, &rows, &report)
}

fn decimals(number: f64) -> String {
    format!("{number:.4}")
}

fn means(measures: &[Values]) -> BTreeMap<String, f64> {
    measures.iter().map(|values| (values.name.clone(), values.mean)).collect()
}

impl Report {
    fn of(judged: Option<Judged>, answered: Option<Answered>, measures: &[Values]) -> Self {
        let interval = |values: &Values| {
            let interval =
                MeanInterval::bootstrap(&values.of_queries).expect("measured on one query at least");
            (values.name.clone(), interval)
        };
        Self {
            metrics: means(measures),
            intervals: measures.iter().map(interval).collect(),
            judged,
            answered,
            baseline: None,
        }
    }
}

impl Measured {
    fn of(args: &EvaluateArgs, path: &Path) -> anyhow::Result<Self> {
        let mut run = Run::read(path)?;
        if args.ignore_identical_ids {
            let left_out = run.leave_out_identical_ids();
            tracing::info!("{}: left out {left_out} passages with the id of their query", path.display());
        } else {
            tell_of_themselves(&run);
        }
        let mut measured = Self::default();
        if let Some(qrels) = &args.qrels {
            measured.judge(args, path, &run, qrels)?;
        }
        if let (Some(questions), Some(corpus)) = (&args.answers, &args.corpus) {
            measured.match_answers(args, path, &run, questions, corpus)?;
        }
        Ok(measured)
    }

    fn judge(&mut self, args: &EvaluateArgs, path: &Path, run: &Run, qrels: &Path) -> anyhow::Result<()> {
        let path = path.display();
        let judgments = Qrels::open_with(qrels, args.strict.into())?;
        notes::tell(judgments.notes());
        let found = evaluate(run, &judgments, &args.metrics)
            .map_err(|error| anyhow::anyhow!("{path} by {}: {error}", qrels.display()))?;
        tracing::info!(
            "{path}: {} queries; left out: {} without a relevant passage, {} not judged",
            found.queries,
            found.without_relevant,
            found.unjudged,
        );
        if found.missing > 0 {
            let (missing, queries) = (found.missing, found.queries);
            tracing::warn!("{path}: {missing} of the {queries} judged queries are missing and count 0");
        }
        if found.judged_documents == 0 {
            tracing::warn!(
                "{path}: not one of its passages is judged; are these the ids of the same corpus?"
            );
        }
        self.measures.extend(found.results.into_iter().map(|result| Values {
            name: result.measure.to_string(),
            mean: result.mean,
            of_queries: result.per_query.into_values().collect(),
        }));
        self.judged = Some(Judged {
            queries: found.queries,
            missing: found.missing,
            without_relevant: found.without_relevant,
            unjudged: found.unjudged,
        });
        Ok(())
    }

    fn match_answers(
        &mut self,
        args: &EvaluateArgs,
        path: &Path,
        run: &Run,
        questions: &Path,
        corpus: &Path,
    ) -> anyhow::Result<()> {
        let questions = Queries::open_with(questions, args.strict.into())?;
        let corpus = Corpus::open_with(corpus, args.strict.into())?;
        [questions.notes(), corpus.notes()].into_iter().for_each(notes::tell);
        let (ids, answers) = answered(&questions)?;
        if ids.iter().all(|id| run.get(id).is_none()) {
            let (run, questions) = (path.display(), questions.path().display());
            anyhow::bail!("{run} has none of the {} questions of {questions} (give their file)", ids.len());
        }
        let passage = |question: usize, rank: usize| {
            let documents = run.get(ids[question]).unwrap_or_default();
            documents.get(rank).map(|document| text_of(&corpus, &document.id)).transpose()
        };
        let found = evaluate_answers(&answers, passage, &args.top_k)?;
        self.measures.extend(found.accuracy.iter().map(|(&k, &share)| Values {
            name: format!("Top-{k}"),
            mean: share,
            of_queries:
                found.first_match.iter().map(|rank| f64::from(rank.is_some_and(|rank| rank <= k))).collect(),
        }));
        self.answered = Some(Answered { questions: found.questions });
        Ok(())
    }
}

/// The questions that have answers: their ids, and the answers.
fn answered(questions: &Queries) -> anyhow::Result<(Vec<&str>, Vec<Answers>)> {
    let (mut ids, mut answers) = (Vec::new(), Vec::new());
    for query in (0..questions.len() as u32).map(QueryIndex) {
        let of_query = questions.answers(query)?;
        if !of_query.is_empty() {
            ids.push(questions.id(query));
            answers.push(Answers::new(of_query));
        }
    }
    if ids.is_empty() {
        let path = questions.path().display();
        anyhow::bail!(
            "{path}: no question has answers (give JSONL with a list \"answers\" beside _id and text)"
        );
    }
    Ok((ids, answers))
}

fn text_of(corpus: &Corpus, id: &str) -> anyhow::Result<String> {
    let index = corpus.index_of(id).ok_or_else(|| {
        let path = corpus.path().display();
        anyhow::anyhow!("the run's passage {id:?} is not in {path} (give the corpus that was searched)")
    })?;
    Ok(corpus.get(index)?.text)
}
