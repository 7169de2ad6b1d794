//! `contaccum evaluate`.

use std::collections::BTreeMap;
use std::path::Path;

use contaccum_data::{Corpus, Qrels, Queries, QueryIndex};
use contaccum_retrieval::{Answers, Run, evaluate, evaluate_answers};
use serde::Serialize;

use crate::args::EvaluateArgs;
use crate::output;

/// What is written: measures by name, and what they were averaged over.
#[derive(Default, Serialize)]
struct Report {
    metrics: BTreeMap<String, f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    judged: Option<Judged>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answered: Option<Answered>,
    #[serde(skip)]
    rows: Vec<[String; 2]>,
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

impl Report {
    fn add(&mut self, name: String, value: f64) {
        self.rows.push([name.clone(), format!("{value:.4}")]);
        self.metrics.insert(name, value);
    }
}

/// Measures a run and writes the measures.
pub fn run(args: &EvaluateArgs) -> anyhow::Result<()> {
    let run = Run::read(&args.run)?;
    let mut report = Report::default();
    if let Some(qrels) = &args.qrels {
        judge(args, &run, qrels, &mut report)?;
    }
    if let (Some(questions), Some(corpus)) = (&args.answers, &args.corpus) {
        match_answers(args, &run, questions, corpus, &mut report)?;
    }
    output::write(args.format, ["measure", "value"], &report.rows, &report)
}

fn judge(args: &EvaluateArgs, run: &Run, qrels: &Path, report: &mut Report) -> anyhow::Result<()> {
    let found = evaluate(run, &Qrels::open(qrels)?, &args.metrics)?;
    for result in &found.results {
        report.add(result.measure.to_string(), result.mean);
    }
    tracing::info!(
        "{} queries, {} of them missing in the run (count 0); left out: {} without a relevant passage, {} not judged",
        found.queries,
        found.missing,
        found.without_relevant,
        found.unjudged,
    );
    report.judged = Some(Judged {
        queries: found.queries,
        missing: found.missing,
        without_relevant: found.without_relevant,
        unjudged: found.unjudged,
    });
    Ok(())
}

fn match_answers(
    args: &EvaluateArgs,
    run: &Run,
    questions: &Path,
    corpus: &Path,
    report: &mut Report,
) -> anyhow::Result<()> {
    let questions = Queries::open(questions)?;
    let corpus = Corpus::open(corpus)?;
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
    let passage = |question: usize, rank: usize| {
        let documents = run.get(ids[question]).unwrap_or_default();
        documents.get(rank).map(|document| text_of(&corpus, &document.id)).transpose()
    };
    let found = evaluate_answers(&answers, passage, &args.top_k)?;
    for (k, share) in &found.accuracy {
        report.add(format!("Top-{k}"), *share);
    }
    report.answered = Some(Answered { questions: found.questions });
    Ok(())
}

fn text_of(corpus: &Corpus, id: &str) -> anyhow::Result<String> {
    let index = corpus.index_of(id).ok_or_else(|| {
        let path = corpus.path().display();
        anyhow::anyhow!("the run's passage {id:?} is not in {path} (give the corpus that was searched)")
    })?;
    Ok(corpus.get(index)?.text)
}
