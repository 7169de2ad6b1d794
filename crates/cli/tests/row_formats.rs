//! The same rows in every format that people have: the same count, the same weights, also of a run that was stopped.

mod common;

use std::fs;
use std::path::Path;

use common::{contaccum, prepare, succeed};
use serde_json::{Value, json};

const ROWS: usize = 8;
const TRIPLES: usize = 3 * ROWS;

/// The texts of the first lines of a file of the small data set.
fn texts(path: &Path) -> Vec<String> {
    let lines = fs::read_to_string(path).unwrap();
    let text = |line: &str| serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().to_owned();
    lines.lines().map(text).collect()
}

/// Query, positive and negative of each row.
fn triples(folder: &Path) -> Vec<[String; 3]> {
    let (queries, passages) =
        (texts(&folder.join("data/queries.jsonl")), texts(&folder.join("data/corpus.jsonl")));
    (0..ROWS).map(|row| [&queries[row], &passages[row], &passages[row + ROWS]].map(String::clone)).collect()
}

fn lines(rows: &[[String; 3]], line: impl Fn(&[String; 3]) -> String) -> String {
    rows.iter().map(|row| line(row) + "\n").collect()
}

/// Writes the rows in every format; returns what `--train` is given for each.
fn write_formats(folder: &Path, rows: &[[String; 3]]) -> Vec<&'static str> {
    let csv = |header: &str, rows: String| format!("{header}\n{rows}");
    let quoted = |row: &[String; 3]| row.clone().map(|text| format!("\"{text}\"")).join(",");
    let by_id = |row: &dyn Fn(usize) -> String| (0..ROWS).map(row).collect::<String>();
    fs::create_dir(folder.join("msmarco")).unwrap();
    let files = [
        ("arrays.jsonl", lines(rows, |row| json!(row).to_string())),
        ("array.json", json!(rows).to_string()),
        (
            "objects.jsonl",
            lines(rows, |[q, p, n]| json!({"anchor": q, "positive": p, "negative_1": n}).to_string()),
        ),
        ("named.jsonl", lines(rows, |[q, p, n]| json!({"ask": q, "yes": p, "no": [n]}).to_string())),
        ("header.csv", csv("question,answer,negative", lines(rows, quoted))),
        ("named.csv", csv("ask,yes,no", lines(rows, quoted))),
        ("triples.train.small.tsv", lines(rows, |row| row.join("\t"))),
        ("msmarco/queries.train.tsv", by_id(&|row| format!("q{row}\t{}\n", rows[row][0]))),
        ("msmarco/collection.tsv", {
            let passages = |side: usize| by_id(&|row| format!("{side}-{row}\t{}\n", rows[row][side]));
            passages(1) + &passages(2)
        }),
        ("msmarco/qrels.train.tsv", by_id(&|row| format!("q{row}\t0\t1-{row}\t1\n"))),
        ("qidpidtriples.tsv", by_id(&|row| format!("q{row}\t1-{row}\t2-{row}\n"))),
    ];
    for (name, content) in files {
        fs::write(folder.join(name), content).unwrap();
    }
    vec![
        "arrays.jsonl",
        "array.json",
        "objects.jsonl",
        "named.jsonl --columns query=ask,positive=yes,negative=no",
        "header.csv",
        "named.csv --columns query=ask,positive=yes,negative=no",
        "triples.train.small.tsv",
        "msmarco --hard-negatives-file qidpidtriples.tsv",
    ]
}

fn train(data: &str, rest: &str) -> String {
    format!(
        "train --model start --train {data} --max-steps 3 --save-steps 1 --save-total-limit 0 --local-batch-size 2 \
         --gradient-accumulation-steps 2 --memory-bank-size 4 --memory-bank-warmup 0 --hard-negatives 1 \
         --query-max-length 16 --passage-max-length 32 --learning-rate 1e-3 --threads 1 {rest}"
    )
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(path, target).unwrap();
        }
    }
}

/// Copies a finished run of three updates as it was after its second.
fn stopped_after_two(finished: &Path, stopped: &Path) {
    copy(finished, stopped);
    fs::remove_dir_all(stopped.join("checkpoint-000003")).unwrap();
    fs::remove_dir_all(stopped.join("model")).unwrap();
}

#[test]
fn the_same_rows_in_every_format_train_the_same_weights_also_when_stopped_and_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    let rows = triples(folder);
    assert_eq!(rows.iter().flatten().collect::<std::collections::BTreeSet<_>>().len(), TRIPLES);
    let weights = |run: &str| fs::read(folder.join(run).join("model/model.safetensors")).unwrap();
    let mut first = None;
    for (number, data) in write_formats(folder, &rows).into_iter().enumerate() {
        let plan: Value = serde_json::from_str(&succeed(folder, &train(data, "--dry-run --json"))).unwrap();
        assert_eq!(plan["rows"], "8, up to 1 hard negatives each", "{data}");
        let (run, stopped) = (format!("run-{number}"), format!("stopped-{number}"));
        succeed(folder, &train(data, &format!("--output-dir {run}")));
        assert!(weights(&run) == *first.get_or_insert_with(|| weights(&run)), "{data} trains other weights");
        stopped_after_two(&folder.join(&run), &folder.join(&stopped));
        succeed(folder, &format!("train --resume --output-dir {stopped}"));
        assert!(weights(&run) == weights(&stopped), "{data} resumes to other weights");
    }
}

#[test]
fn other_columns_are_refused_when_a_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    write_formats(folder, &triples(folder));
    let columns = |columns: &str| format!("named.csv --columns {columns} --output-dir run");
    succeed(folder, &train(&columns("query=ask,positive=yes,negative=no"), ""));
    let output =
        contaccum(folder, "train --resume --output-dir run --columns query=ask,positive=no,negative=yes");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && stderr.contains("columns"), "{stderr}");
    let wrong = contaccum(folder, &train("named.csv --columns ask", "--output-dir other"));
    let stderr = String::from_utf8(wrong.stderr).unwrap();
    assert_eq!(wrong.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("query=question,positive=context"), "{stderr}");
}

#[test]
fn questions_with_answers_of_dpr_are_searched_and_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    fs::write(
        folder.join("passages.tsv"),
        "id\ttext\ttitle\n1\tthe capital is Rome\tItaly\n2\tno answer\tb\n",
    )
    .unwrap();
    fs::write(folder.join("test.qas.csv"), "what is the capital\t['Rome', \"Roma\"]\n").unwrap();
    succeed(folder, "encode --model start --corpus passages.tsv --output index");
    succeed(folder, "search --model start --index index --queries test.qas.csv --output run.trec");
    let report = succeed(
        folder,
        "evaluate --run run.trec --answers test.qas.csv --corpus passages.tsv --top-k 2 --json",
    );
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["answered"]["questions"], 1);
    assert!(report["metrics"].as_object().unwrap().values().all(|value| *value == 1.0), "{report}");
}
