//! Losses that teach nothing, or teach the wrong thing: what the program does about them.

mod common;

use std::path::Path;

use common::{contaccum, prepare, succeed};
use serde_json::Value;

const TRAIN: &str = "train --model start --train set --query-max-length 16 --passage-max-length 32 --max-steps 1 \
                     --threads 1 --dropout 0 --shuffle false";

fn write(folder: &Path, name: &str, lines: &[&str]) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, lines.join("\n") + "\n").unwrap();
}

/// The record of the last update of `run`.
fn last_record(run: &Path) -> Value {
    let lines = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    serde_json::from_str(lines.lines().last().unwrap()).unwrap()
}

/// A BEIR folder of four passages, the third equal to the first, and judgments as given.
fn write_set(folder: &Path, judgments: &[&str]) {
    let corpus = [
        r#"{"_id": "p0", "text": "red bridge"}"#,
        r#"{"_id": "p1", "text": "blue river"}"#,
        r#"{"_id": "p2", "text": "red bridge"}"#,
        r#"{"_id": "p3", "text": "dog tree"}"#,
    ];
    write(folder, "set/corpus.jsonl", &corpus);
    let queries = [
        r#"{"_id": "q0", "text": "red"}"#,
        r#"{"_id": "q1", "text": "blue"}"#,
        r#"{"_id": "q2", "text": "red"}"#,
    ];
    write(folder, "set/queries.jsonl", &queries);
    write(folder, "set/qrels/train.tsv", judgments);
}

#[test]
fn a_passage_known_to_be_relevant_is_no_negative_whatever_its_id_and_the_id_of_the_query() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    let loss = |judgments: &[&str], run: &str, more: &str| {
        write_set(folder, judgments);
        succeed(
            folder,
            &format!(
                "{TRAIN} --method full-batch --local-batch-size 2 --gradient-accumulation-steps 1 --output-dir {run} {more}"
            ),
        );
        let record = last_record(&folder.join(run));
        (record["loss"].as_f64().unwrap(), record["masked_rows"].as_f64().unwrap())
    };
    // The first row's loss vanishes: p1, the second row's positive, is known to be relevant to it as well.
    let (alone, none) = loss(&["q0\tp0\t1", "q1\tp1\t1"], "alone", "");
    let (judged, half) = loss(&["q0\tp0\t1", "q0\tp1\t1", "q1\tp1\t1"], "judged", "");
    assert!(alone > 0.0 && judged > 0.0 && judged < alone, "{judged} {alone}");
    assert_eq!((none, half), (0.0, 0.5));
    let unmasked = loss(&["q0\tp0\t1", "q0\tp1\t1", "q1\tp1\t1"], "unmasked", "--mask-false-negatives false");
    assert_eq!(unmasked, (alone, 0.0));
    // p2 is p0 under another id, q2 is q0.
    assert_eq!(loss(&["q0\tp0\t1", "q1\tp2\t1"], "twin", ""), (0.0, 1.0));
    assert_eq!(loss(&["q0\tp0\t1", "q2\tp1\t1"], "asked-twice", ""), (0.0, 1.0));
}

/// The case of the shared folder, with its right value.
#[test]
fn a_positive_of_another_row_that_is_judged_relevant_to_this_one_is_masked() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/cases");
    let cases = std::env::var_os("CONTACCUM_SHARED").map_or(cases, |shared| Path::new(&shared).join("cases"));
    if !cases.is_dir() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "no {}: set CONTACCUM_SHARED", cases.display());
        eprintln!("skipped: no {}: set CONTACCUM_SHARED", cases.display());
        return;
    }
    let run = tempfile::tempdir().unwrap();
    let out = run.path().join("x");
    succeed(
        &cases.join("01-known-positive-as-negative"),
        &format!(
            "train --model ../models/tiny-cls --train . --output-dir {} --max-steps 1 --local-batch-size 2 \
             --gradient-accumulation-steps 1 --method full-batch --threads 1 --passage-max-length 32 \
             --query-max-length 32 --dropout 0 --shuffle false",
            out.display()
        ),
    );
    let loss = last_record(&out)["loss"].as_f64().unwrap();
    assert!((loss - 0.0494).abs() < 5e-5, "{loss}");
}

/// What a run that succeeds writes to stderr.
fn told(folder: &Path, settings: &str) -> String {
    let output = contaccum(folder, &format!("{TRAIN} {settings}"));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    stderr
}

#[test]
fn a_run_in_which_no_query_would_have_a_negative_is_refused_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    write_set(folder, &["q0\tp0\t1", "q1\tp1\t1"]);
    // Hard negatives that the data has not are no negatives either.
    for more in ["", "--hard-negatives 2"] {
        let line = format!(
            "{TRAIN} --method grad-accum --local-batch-size 1 --gradient-accumulation-steps 2 --output-dir run {more}"
        );
        let output = contaccum(folder, &line);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        for word in ["local_batch_size", "no negative", "accumulation adds none", "contaccum"] {
            assert!(stderr.contains(word), "{word}: {stderr}");
        }
        assert!(!folder.join("run").exists());
    }
}

#[test]
fn the_numbers_told_before_a_run_are_those_of_its_data_and_its_length() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    write_set(folder, &["q0\tp0\t1", "q1\tp1\t1"]);
    let settings = "--local-batch-size 1 --gradient-accumulation-steps 2 --hard-negatives 2 --memory-bank-size 512 \
                    --warmup-steps 100 --output-dir run --dry-run --json";
    let output = contaccum(folder, &format!("{TRAIN} {settings}"));
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["negatives per query"], "1 at the end, banks of 512 samples holding 1");
    assert!(plan["rows"].as_str().unwrap().contains("none of them with a hard negative"), "{plan}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    for words in [
        "no hard negatives: 2 a row are asked for, but none of the 2 rows",
        "larger than the run: 512 samples, but 2 enter",
        "warm-up longer than the run: 100 updates of 1",
    ] {
        assert_eq!(stderr.matches(words).count(), 1, "{words}: {stderr}");
    }
    succeed(
        folder,
        &format!("{TRAIN} --local-batch-size 1 --gradient-accumulation-steps 2 --output-dir run"),
    );
    assert_eq!(last_record(&folder.join("run"))["negatives_per_query"], 1.0);
}

#[test]
fn losses_that_teach_nothing_are_told_once_with_the_number_and_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    let of_two = "--method full-batch --local-batch-size 2 --gradient-accumulation-steps 1 --max-steps 3";
    write_set(folder, &["q0\tp0\t1", "q1\tp2\t1"]);
    let stderr = told(folder, &format!("{of_two} --output-dir one-passage"));
    for words in ["one passage: all 2 rows", "all negatives left out: at update 1", "no_duplicates"] {
        assert_eq!(stderr.matches(words).count(), 1, "{words}: {stderr}");
    }
    assert_eq!(last_record(&folder.join("one-passage"))["loss"], 0.0);
    // Both rows are the same texts, and nothing is masked: the loss is ln 2 and stays so.
    write_set(folder, &["q0\tp0\t1", "q2\tp2\t1"]);
    let stderr = told(folder, &format!("{of_two} --mask-false-negatives false --output-dir alike"));
    assert_eq!(
        stderr.matches("all vectors alike: at update 1 the loss 0.6931 is ln(2)").count(),
        1,
        "{stderr}"
    );
    let record = last_record(&folder.join("alike"));
    println!("gradient norm of equal vectors: {}", record["grad_norm"]);
    assert!((record["loss"].as_f64().unwrap() - 2f64.ln()).abs() < 1e-6);
    // Where something is learned nothing is told.
    write_set(folder, &["q0\tp0\t1", "q1\tp1\t1"]);
    let stderr = told(folder, &format!("{of_two} --output-dir sound"));
    assert!(!stderr.contains("WARN") && !stderr.contains("warning"), "{stderr}");
}
