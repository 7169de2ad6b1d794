//! Data as people have it: what comes out of odd files, by the program.

mod common;

use std::path::{Path, PathBuf};

use common::{contaccum, prepare, succeed};
use serde_json::Value;

const TEXTS: &str = "--model start --passage-max-length 32 --query-max-length 16 --threads 1";

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// A folder with the model `start` of the vocabulary of `data`.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), 32);
    folder
}

/// stdout and stderr of a command that succeeds.
fn told(folder: &Path, line: &str) -> (String, String) {
    let output = contaccum(folder, line);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{line}\n{stderr}");
    (String::from_utf8(output.stdout).unwrap(), stderr)
}

/// stderr of a command that fails, in one line of error.
fn refused(folder: &Path, line: &str) -> String {
    let output = contaccum(folder, line);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{line}\n{stderr}");
    assert_eq!(stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{line}\n{stderr}");
    stderr
}

fn loss(folder: &Path, run: &str) -> f64 {
    let text = std::fs::read_to_string(folder.join(run).join("metrics.jsonl")).unwrap();
    json(text.lines().next().unwrap())["loss"].as_f64().unwrap()
}

/// The loss of one update of a full batch of all `rows` rows.
fn loss_of(folder: &Path, train: &str, rows: usize, settings: &str) -> f64 {
    let run = format!("run-{}", std::fs::read_dir(folder).unwrap().count());
    succeed(
        folder,
        &format!(
            "train {TEXTS} --train {train} --output-dir {run} --max-steps 1 --local-batch-size {rows} \
             --gradient-accumulation-steps 1 --method full-batch --dropout 0 --quiet {settings}"
        ),
    );
    loss(folder, &run)
}

#[test]
fn a_run_file_with_a_byte_order_mark_or_compressed_is_a_run_file() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, "qrels.tsv", "query-id\tcorpus-id\tscore\n1\ta\t1\n");
    let run = "\u{feff}1 Q0 a 1 0.5 t\r\n1 Q0 b 2 0.4 t\r\n";
    write(folder, "bom.trec", run);
    std::fs::write(folder.join("packed.trec.zst"), zstd::encode_all(run.as_bytes(), 0).unwrap()).unwrap();
    for name in ["bom.trec", "packed.trec.zst"] {
        let report = json(&succeed(
            folder,
            &format!("evaluate --run {name} --qrels qrels.tsv --metrics nDCG@10,RR --json"),
        ));
        assert_eq!((&report["metrics"]["nDCG@10"], &report["metrics"]["RR"]), (&1.0.into(), &1.0.into()));
    }
    write(folder, "empty.trec", "\n");
    assert!(refused(folder, "evaluate --run empty.trec --qrels qrels.tsv").contains("no line of a run"));
}

#[test]
fn tables_are_encoded_by_the_names_of_their_header() {
    let folder = folder();
    let folder = folder.path();
    write(folder, "corpus.tsv", "id\ttitle\ttext\n1\tone\twho painted\n2\ttwo\twhere is\n");
    write(
        folder,
        "corpus.jsonl",
        "{\"_id\":\"1\",\"title\":\"one\",\"text\":\"who painted\"}\n{\"_id\":\"2\",\"title\":\"two\",\"text\":\"where is\"}\n",
    );
    write(folder, "queries.csv", "qid,query\n1,who painted\n");
    let vectors = |kind: &str, name: &str| {
        succeed(folder, &format!("encode --model start --{kind} {name} --output {name}.index"));
        let index = folder.join(format!("{name}.index"));
        let ids = std::fs::read_to_string(index.join("ids-00000.txt")).unwrap();
        (ids, std::fs::read(index.join("embeddings-00000.npy")).unwrap())
    };
    assert_eq!(vectors("corpus", "corpus.tsv"), vectors("corpus", "corpus.jsonl"));
    assert_eq!(vectors("queries", "queries.csv").0.lines().collect::<Vec<_>>(), ["1"]);
}

#[test]
fn odd_lines_are_told_once_and_refused_with_strict() {
    let folder = folder();
    let folder = folder.path();
    write(
        folder,
        "corpus.jsonl",
        "{\"_id\": \"1\", \"title\": NaN, \"text\": \"red \\ud83d bridge\"}\n{\"_id\": \"2\", \"text\": \"a\"}\n{\"_id\": \"2\", \"text\": \"b\"}\n",
    );
    let (_, stderr) = told(folder, "encode --model start --corpus corpus.jsonl --output index");
    let notes: Vec<&str> = stderr.lines().filter(|line| line.contains("corpus.jsonl: 1 ")).collect();
    assert_eq!(notes.len(), 3, "{stderr}");
    assert!(
        stderr.contains("1 line whose id came before left out") && stderr.contains("(first: line 3)"),
        "{stderr}"
    );
    assert_eq!(std::fs::read_to_string(folder.join("index/ids-00000.txt")).unwrap(), "1\n2\n");
    let stderr = refused(folder, "encode --model start --corpus corpus.jsonl --output other --strict");
    assert!(stderr.contains("corpus.jsonl, line 1") && stderr.contains("NaN"), "{stderr}");
    assert!(!folder.join("other").exists());
}

#[test]
fn judgments_of_what_is_not_there_are_left_out_of_training_and_counted() {
    let folder = folder();
    let folder = folder.path();
    write(
        folder,
        "d/corpus.jsonl",
        "{\"_id\":\"p0\",\"text\":\"who painted\"}\n{\"_id\":\"p1\",\"text\":\"where is\"}\n",
    );
    write(
        folder,
        "d/queries.jsonl",
        "{\"_id\":\"q0\",\"text\":\"who\"}\n{\"_id\":\"q1\",\"text\":\"where\"}\n",
    );
    let good = "query-id\tcorpus-id\tscore\nq0\tp0\t1\nq1\tp1\t1\n";
    write(folder, "d/qrels/train.tsv", good);
    let expected = loss_of(folder, "d", 2, "--shuffle false");
    write(folder, "d/qrels/train.tsv", &format!("{good}q1\tNOPE\t1\nPLAIN-2\tp1\t1\n"));
    assert_eq!(loss_of(folder, "d", 2, "--shuffle false"), expected);
    let train = format!(
        "train {TEXTS} --train d --output-dir x --max-steps 1 --local-batch-size 2 --gradient-accumulation-steps 1 --method full-batch"
    );
    let (_, stderr) = told(folder, &format!("{train} --dry-run"));
    for said in ["train.tsv: 1 line left out, naming a passage", "train.tsv: 1 line left out, naming a query"]
    {
        assert!(stderr.contains(said), "{stderr}");
    }
    let stderr = refused(folder, &format!("{train} --strict"));
    assert!(stderr.contains("train.tsv, line 4") && stderr.contains("NOPE"), "{stderr}");
    write(folder, "d/qrels/train.tsv", "query-id\tcorpus-id\tscore\nq0\tx\t1\nq1\ty\t1\n");
    assert!(refused(folder, &train).contains("2 of 2 records"));
}

#[test]
fn the_prompt_of_a_row_stands_in_for_the_query_prompt_of_that_row() {
    let folder = folder();
    let folder = folder.path();
    let rows = |prompts: [&str; 2]| {
        format!(
            "{{\"query\": \"who\", \"pos\": [\"who painted\"], \"neg\": [\"where is\"]{}}}\n\
             {{\"query\": \"where\", \"pos\": [\"where was\"], \"neg\": [\"where is\"], \"pos_scores\": [1]{}}}\n",
            prompts[0], prompts[1]
        )
    };
    let own = ", \"prompt\": \"find the passage that says \"";
    write(folder, "none.jsonl", &rows(["", ""]));
    write(folder, "own.jsonl", &rows([own, own]));
    write(folder, "one.jsonl", &rows([own, ""]));
    let by_flag =
        loss_of(folder, "none.jsonl", 2, "--query-prompt 'find the passage that says ' --shuffle false");
    let other = "--query-prompt 'another thing ' --shuffle false";
    assert_eq!(loss_of(folder, "own.jsonl", 2, other), by_flag);
    let mixed = loss_of(folder, "one.jsonl", 2, "--shuffle false");
    assert!(mixed != by_flag && mixed != loss_of(folder, "none.jsonl", 2, "--shuffle false"));
    let (_, stderr) = told(
        folder,
        &format!(
            "train {TEXTS} --train own.jsonl --output-dir x --local-batch-size 2 --gradient-accumulation-steps 1 --dry-run"
        ),
    );
    assert!(
        stderr.contains("2 rows with a prompt of its own") && stderr.contains("1 row with \"pos_scores\""),
        "{stderr}"
    );
}

#[test]
fn dpr_files_train_on_their_gold_passage_unless_a_random_one_is_asked_for() {
    let folder = folder();
    let folder = folder.path();
    write(
        folder,
        "train.json",
        r#"[{"question": "who", "positive_ctxs": [{"title": "", "text": "who painted", "score": NaN}, {"text": "where"}, {"text": "was built"}], "hard_negative_ctxs": []},
            {"question": "where", "positive_ctxs": [{"title": "", "text": "where is"}], "hard_negative_ctxs": []}]"#,
    );
    let losses = |settings: &str| -> Vec<u64> {
        let loss = |seed| {
            (loss_of(folder, "train.json", 2, &format!("--seed {seed} {settings}")) * 1e4).round() as u64
        };
        let mut losses: Vec<u64> = (0..6).map(loss).collect();
        losses.sort_unstable();
        losses.dedup();
        losses
    };
    assert_eq!(losses("").len(), 1);
    assert!(losses("--positives random").len() > 1);
}

#[test]
fn a_passage_with_the_id_of_its_query_is_left_out_where_it_is_asked_for() {
    let folder = folder();
    let folder = folder.path();
    write(
        folder,
        "d/corpus.jsonl",
        "{\"_id\":\"x1\",\"text\":\"who painted\"}\n{\"_id\":\"x2\",\"text\":\"who painted where\"}\n",
    );
    write(folder, "d/queries.jsonl", "{\"_id\":\"x1\",\"text\":\"who painted\"}\n");
    write(folder, "d/qrels/test.tsv", "query-id\tcorpus-id\tscore\nx1\tx2\t1\n");
    write(folder, "d/qrels/train.tsv", "query-id\tcorpus-id\tscore\nx1\tx2\t1\n");
    succeed(folder, "encode --model start --corpus d --output index");
    let search = "search --model start --index index --queries d --split test";
    let (_, stderr) = told(folder, &format!("{search} --top-k 2 --output all.trec"));
    assert!(stderr.contains("1 of 1 queries find the passage with their own id first"), "{stderr}");
    let (_, stderr) = told(folder, &format!("{search} --top-k 1 --ignore-identical-ids --output left.trec"));
    assert!(stderr.contains("left out 1 passages"), "{stderr}");
    let ids = |name: &str| -> Vec<String> {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        text.lines().map(|line| line.split(' ').nth(2).unwrap().to_owned()).collect()
    };
    assert_eq!((ids("all.trec"), ids("left.trec")), (vec!["x1".into(), "x2".into()], vec!["x2".into()]));
    let measure = |settings: &str| {
        let line = format!("evaluate --run all.trec --qrels d/qrels/test.tsv --metrics RR --json {settings}");
        json(&succeed(folder, &line))["metrics"]["RR"].as_f64().unwrap()
    };
    assert_eq!((measure(""), measure("--ignore-identical-ids")), (0.5, 1.0));
    let train = format!(
        "train {TEXTS} --train d --eval-data d --eval-split test --max-steps 1 --local-batch-size 1 \
         --memory-bank-size 2 --gradient-accumulation-steps 1 --learning-rate 0"
    );
    for (settings, expected) in [("", 0.5), ("--ignore-identical-ids", 1.0)] {
        let run = format!("run{settings}");
        succeed(folder, &format!("{train} {settings} --output-dir {run}"));
        let text = std::fs::read_to_string(folder.join(&run).join("metrics.jsonl")).unwrap();
        assert_eq!(json(text.trim())["dev"]["RR@10"], expected, "{settings}");
    }
}

#[test]
fn training_measures_what_evaluate_measures_where_a_judged_query_is_missing() {
    let folder = folder();
    let folder = folder.path();
    write(
        folder,
        "d/corpus.jsonl",
        "{\"_id\":\"p0\",\"text\":\"who painted\"}\n{\"_id\":\"p1\",\"text\":\"where is\"}\n{\"_id\":\"p2\",\"text\":\"was built\"}\n",
    );
    write(
        folder,
        "d/queries.jsonl",
        "{\"_id\":\"q0\",\"text\":\"who\"}\n{\"_id\":\"q1\",\"text\":\"where\"}\n",
    );
    write(folder, "d/qrels/train.tsv", "query-id\tcorpus-id\tscore\nq0\tp0\t1\nq1\tp1\t1\n");
    write(folder, "d/qrels/dev.tsv", "query-id\tcorpus-id\tscore\nq0\tp0\t1\nPLAIN-2\tp1\t1\nq1\tp0\t0\n");
    let (_, stderr) = told(
        folder,
        &format!(
            "train {TEXTS} --train d --eval-data d --max-steps 1 --local-batch-size 2 --gradient-accumulation-steps 1 \
             --method full-batch --output-dir run"
        ),
    );
    assert!(stderr.contains("1 judged queries are not in the queries and count 0"), "{stderr}");
    let text = std::fs::read_to_string(folder.join("run/metrics.jsonl")).unwrap();
    let trained = json(text.trim())["dev"]["nDCG@10"].as_f64().unwrap();
    succeed(folder, "encode --model run/model --corpus d --output index --max-length 32");
    succeed(
        folder,
        "search --model run/model --index index --queries d --split dev --output run.trec --max-length 16",
    );
    let report =
        json(&succeed(folder, "evaluate --run run.trec --qrels d/qrels/dev.tsv --metrics nDCG@10 --json"));
    assert_eq!(report["metrics"]["nDCG@10"].as_f64().unwrap(), trained);
    assert_eq!((&report["judged"]["queries"], &report["judged"]["missing"]), (&2.into(), &1.into()));
    assert!(trained <= 0.5);
}

#[test]
fn the_first_of_one_is_the_first_of_three_where_passages_are_equal() {
    let folder = folder();
    let folder = folder.path();
    let lines: String =
        ["b", "d", "a", "c"].map(|id| format!("{{\"_id\":\"{id}\",\"text\":\"who painted\"}}\n")).concat();
    write(folder, "corpus.jsonl", &lines);
    succeed(folder, "encode --model start --corpus corpus.jsonl --output index --batch-size 1");
    let found = |k: usize| -> Vec<String> {
        let hits = json(&succeed(
            folder,
            &format!("search --model start --index index --query who --top-k {k} --json"),
        ));
        hits.as_array().unwrap().iter().map(|hit| hit["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(
        (found(1), found(3)),
        (vec!["d".to_owned()], vec!["d".to_owned(), "c".to_owned(), "b".to_owned()])
    );
}

#[test]
fn an_id_that_a_run_file_cannot_hold_is_refused_before_anything_is_encoded() {
    let folder = folder();
    let folder = folder.path();
    write(
        folder,
        "c.jsonl",
        "{\"_id\":\"two words\",\"text\":\"who painted\"}\n{\"_id\":\"b\",\"text\":\"where\"}\n",
    );
    write(folder, "q.jsonl", "{\"_id\":\"q\",\"text\":\"who\"}\n");
    let (_, stderr) = told(folder, "encode --model start --corpus c.jsonl --output index");
    assert!(
        stderr.contains("1 id with a space inside, which no TREC run file can hold (first: line 1)"),
        "{stderr}"
    );
    let stderr = refused(folder, "search --model start --index index --queries q.jsonl --output run.trec");
    assert!(stderr.contains("\"two words\"") && !stderr.contains("model start"), "{stderr}");
    succeed(folder, "search --model start --index index --query who --corpus c.jsonl");
}

#[test]
fn rows_left_out_of_an_epoch_are_told_and_trained_on_where_nothing_is_to_be_dropped() {
    let folder = folder();
    let folder = folder.path();
    let rows: String = (0..7)
        .map(|i| {
            format!("{{\"query\": \"who {i}\", \"pos\": [\"who painted {}\"]}}\n", if i < 2 { 0 } else { i })
        })
        .collect();
    write(folder, "t.jsonl", &rows);
    let train = format!(
        "train {TEXTS} --train t.jsonl --method grad-accum --local-batch-size 2 --gradient-accumulation-steps 2"
    );
    let updates = |settings: &str| {
        let plan = json(&succeed(folder, &format!("{train} --output-dir x --dry-run --json {settings}")));
        plan["updates"].as_str().unwrap().to_owned()
    };
    assert!(updates("").ends_with("1 an epoch, which leaves 3 rows out"), "{}", updates(""));
    assert!(
        updates("--drop-last false").ends_with("2 an epoch, the last of 3 rows"),
        "{}",
        updates("--drop-last false")
    );
    succeed(folder, &format!("{train} --drop-last false --epochs 2 --output-dir run"));
    let text = std::fs::read_to_string(folder.join("run/metrics.jsonl")).unwrap();
    let epochs: Vec<f64> = text.lines().map(|line| json(line)["epoch"].as_f64().unwrap()).collect();
    assert_eq!(epochs, [0.5, 1.0, 1.5, 2.0]);
    let both = contaccum(folder, &format!("{train} --drop-last false --no-duplicates --output-dir y"));
    assert_eq!(both.status.code(), Some(2));
}

#[test]
fn the_updates_told_are_those_made_where_no_duplicates_may_be_in_a_batch() {
    let folder = folder();
    let folder = folder.path();
    // Three rows of one positive: batches of two different ones can take two of them.
    let rows: String = (0..5)
        .map(|row| format!("{{\"query\": \"who {row}\", \"pos\": [\"was {}\"]}}\n", [0, 0, 0, 1, 2][row]))
        .collect();
    write(folder, "t.jsonl", &rows);
    let train = format!(
        "train {TEXTS} --train t.jsonl --method full-batch --local-batch-size 2 --gradient-accumulation-steps 1 --no-duplicates --output-dir run"
    );
    let plan = json(&succeed(folder, &format!("{train} --dry-run --json")));
    assert!(
        plan["updates"].as_str().unwrap().ends_with("2 an epoch, which leaves 1 rows out"),
        "{}",
        plan["updates"]
    );
    succeed(folder, &train);
    let made = std::fs::read_to_string(folder.join("run/metrics.jsonl")).unwrap().lines().count();
    assert_eq!(made, 2);
}

/// The cases folder of the shared data, or `None` with a line that says so; on CI its absence is a failure.
fn shared_cases() -> Option<PathBuf> {
    let root = std::env::var_os("CONTACCUM_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let cases = root.join("cases");
    if cases.is_dir() {
        return Some(std::fs::canonicalize(cases).unwrap());
    }
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{} is missing", cases.display());
    println!("skipped: {} is missing; set CONTACCUM_SHARED to the folder that holds cases/", cases.display());
    None
}

#[test]
fn the_prompts_of_flag_embedding_give_the_loss_they_should() {
    let Some(cases) = shared_cases() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (model, train) = (cases.join("models/tiny-cls"), cases.join("08-flagembedding-prompt/train.jsonl"));
    let line = format!(
        "train --model {} --train {} --output-dir x --max-steps 1 --local-batch-size 2 --gradient-accumulation-steps 1 \
         --method full-batch --threads 1 --passage-max-length 32 --query-max-length 32 --dropout 0 --shuffle false",
        model.display(),
        train.display()
    );
    succeed(folder.path(), &line);
    assert!((loss(folder.path(), "x") - 0.6936).abs() < 5e-5, "{}", loss(folder.path(), "x"));
}

#[test]
fn a_line_of_gigabytes_in_a_small_file_is_refused() {
    let Some(cases) = shared_cases() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (model, corpus) = (cases.join("models/tiny"), cases.join("reliability/endless-line.jsonl.zst"));
    let line = format!("encode --model {} --corpus {} --output x", model.display(), corpus.display());
    let stderr = refused(folder.path(), &line);
    assert!(stderr.contains("line 1") && stderr.contains("64 MiB"), "{stderr}");
}
