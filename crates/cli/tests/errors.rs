//! Wrong inputs: one line on stderr that says what, where and what to do, and the right exit code.

mod common;

use std::path::Path;

use common::{contaccum, prepare, succeed};

const FAILED: i32 = 1;
const BAD_USAGE: i32 = 2;

const TRAIN: &str = "train --model start --train data --output-dir run --max-steps 1 --passage-max-length 32 \
                     --query-max-length 16 --local-batch-size 4 --gradient-accumulation-steps 2";

/// Fails unless `line` exits with `code` after exactly one line on stderr that holds all of `words`.
fn refused(folder: &Path, line: &str, code: i32, words: &[&str]) {
    let output = contaccum(folder, &format!("{line} --quiet"));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{line}\n{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{line}\n{stderr}");
    assert!(stderr.starts_with("error: "), "{line}\n{stderr}");
    assert!(output.stdout.is_empty(), "{line}\n{}", String::from_utf8_lossy(&output.stdout));
    for word in words {
        assert!(stderr.contains(word), "{line}\n{stderr}does not say {word:?}");
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[test]
fn a_command_line_that_makes_no_sense_is_bad_usage() {
    let here = Path::new(".");
    let cases: [(&str, &[&str]); 23] = [
        (
            "train --model m --train t --output-dir o --learning-rate -1e-5",
            &["bad setting", "learning_rate", "-0.00001"],
        ),
        ("train --max-steps -1", &["--max-steps", "-1", "whole number"]),
        ("train --max-steps 1.5", &["--max-steps", "1.5", "whole number"]),
        ("train \u{2013}model m", &["\u{2013}model", "pasted dash"]),
        ("report", &["RUN"]),
        ("train --learning-rat 1", &["--learning-rat", "--learning-rate"]),
        ("trian", &["trian", "train"]),
        ("encode --corpus c", &["--model", "--output"]),
        ("encode --model m --output o", &["--corpus", "--queries"]),
        ("encode --model m --output o --corpus c --queries q", &["--queries"]),
        ("search --index i --query q", &["--model"]),
        ("search --index i --queries q --model m", &["--output"]),
        ("evaluate --run r", &["--qrels"]),
        ("evaluate --run r --qrels q --metrics nDGC@10", &["nDGC@10", "nDCG"]),
        ("evaluate --run r --qrels q --metrics P@0", &["P@0"]),
        ("train --seed -1", &["-1"]),
        ("train --local-batch-size many", &["many"]),
        ("train --warmup-steps 1 --warmup-ratio 0.1", &["--warmup-steps", "--warmup-ratio"]),
        ("train --memory-budget lots", &["lots", "11GiB"]),
        ("plan --memory-budget 0B", &["0 bytes"]),
        ("train --recompute some", &["some", "selective"]),
        ("train --resume --output-dir o --memory-budget 1GiB", &["--resume", "--memory-budget"]),
        ("demo --json --table", &["--json", "--table"]),
    ];
    for (line, words) in cases {
        refused(here, line, BAD_USAGE, words);
    }
}

#[test]
fn settings_that_contradict_each_other_are_bad_usage() {
    let here = Path::new(".");
    let cases: [(&str, &[&str]); 16] = [
        ("", &["model", "--model"]),
        ("--model m --train t", &["output_dir", "--output-dir"]),
        ("--model m --train t --output-dir o --temperature 0", &["temperature"]),
        ("--model m --train t --output-dir o --local-batch-size 0", &["local_batch_size"]),
        (
            "--model m --train t --output-dir o --method grad-accum --memory-bank-size 8",
            &["memory_bank_size"],
        ),
        ("--model m --train t --output-dir o --memory-bank-size 0", &["memory_bank_size", "grad-accum"]),
        (
            "--model m --train t --output-dir o --method grad-accum --memory-bank-warmup 8",
            &["memory_bank_warmup", "grad-accum"],
        ),
        (
            "--model m --train t --output-dir o --method grad-cache --memory-bank-dtype bf16",
            &["memory_bank_dtype", "grad-cache"],
        ),
        (
            "--model m --train t --output-dir o --memory-bank-enqueue update --keep-past false",
            &["keep_past", "memory_bank_enqueue"],
        ),
        (
            "--model m --train t --output-dir o --bank-passages false --rows current",
            &["rows", "bank_passages"],
        ),
        ("--model m --train t --output-dir o --normalize false", &["normalize", "cosine"]),
        ("--model m --train t --output-dir o --query-max-length 1", &["query_max_length"]),
        ("--model m --train t --output-dir o --max-tokens 319", &["max_tokens", "319", "64 + 1 x 256 = 320"]),
        ("--model m --train t --output-dir o --dropout 1", &["dropout"]),
        ("--model m --train t --output-dir o --eval-steps 5", &["eval_data"]),
        ("--resume", &["--resume", "--output-dir"]),
    ];
    for (settings, words) in cases {
        refused(here, &format!("train {settings}"), BAD_USAGE, words);
    }
}

#[test]
fn a_recipe_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, "unknown.toml", "seed = 1\nlocal_batch = 8\n");
    write(folder, "kind.toml", "seed = 1\nmethod = \"dpr\"\n");
    write(folder, "broken.toml", "seed = 1\nmodel = \"m\n");
    refused(folder, "train --recipe unknown.toml", BAD_USAGE, &["unknown.toml", "line 2", "local_batch"]);
    write(folder, "case.toml", "seed = 1\nMethod = \"contaccum\"\n");
    refused(folder, "train --recipe unknown.toml", BAD_USAGE, &["did you mean `local_batch_size`?"]);
    refused(folder, "train --recipe case.toml", BAD_USAGE, &["line 2", "did you mean `method`?"]);
    refused(folder, "train --recipe kind.toml", BAD_USAGE, &["kind.toml", "line 2", "dpr", "grad-cache"]);
    refused(folder, "train --recipe broken.toml", BAD_USAGE, &["broken.toml", "line 2"]);
    refused(folder, "train --recipe no.toml", FAILED, &["no.toml"]);
}

/// A study of one cell; its group begins at line 8, the cell at line 12.
const STUDY: &str = "seeds = [1]\n[base]\nmodel = \"start\"\ntrain = \"data\"\n[[evaluation]]\ndata = \"data\"\n\
                     split = \"test\"\n[[group]]\nname = \"g\"\ntitle = \"G\"\nbaseline = \"c\"\n[[cell]]\n\
                     group = \"g\"\nname = \"c\"\n";

#[test]
fn a_study_that_makes_no_sense_is_refused_with_its_line_and_cell() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let cases: [(&str, &str, &[&str]); 15] = [
        ("", "local_batch = 8\n", &["line 15", "cell \"c\"", "unknown field `local_batch`"]),
        ("", "method = \"dpr\"\n", &["line 15", "cell \"c\"", "dpr", "grad-cache"]),
        ("", "temperature = 0\n", &["line 12", "cell \"c\"", "temperature"]),
        ("", "temperature = [1.0, 0.5]\n", &["line 12", "cell \"c\"", "{temperature}"]),
        ("", "seed = 7\n", &["line 15", "seed", "decided by the study"]),
        ("", "query_max_length = 8\n", &["line 15", "query_max_length", "[base]"]),
        ("", "[[cell]]\ngroup = \"g\"\nname = \"C.\"\n[[cell]]\ngroup = \"g\"\nname = \"C.\"\n", &["folder"]),
        ("baseline = \"c\"", "baseline = \"d\"", &["line 11", "baseline \"d\""]),
        ("group = \"g\"", "group = \"h\"", &["cell \"c\"", "group \"h\""]),
        ("seeds = [1]", "seeds = [1, 1]", &["line 1", "seeds"]),
        ("seeds = [1]", "seed = [1]", &["line 1", "seed"]),
        ("seeds = [1]", "seeds = [1]\nmeasure = \"AP\"", &["line 2", "AP", "nDCG@10"]),
        ("train = \"data\"", "train = \"data\"\nlocal_batch = 8", &["line 5", "base", "local_batch"]),
        ("model = \"start\"", "tied = true", &["base", "model"]),
        ("[[evaluation]]\ndata = \"data\"\nsplit = \"test\"\n", "", &["[[evaluation]]"]),
    ];
    for (old, new, words) in cases {
        let recipe = if old.is_empty() { format!("{STUDY}{new}") } else { STUDY.replacen(old, new, 1) };
        write(folder, "study.toml", &recipe);
        refused(folder, "study study.toml", BAD_USAGE, &[words, &["study.toml"]].concat());
    }
    refused(folder, "study no.toml", FAILED, &["no.toml"]);
    refused(folder, "study", BAD_USAGE, &["RECIPE"]);
    assert!(!folder.join("runs").exists());
}

#[test]
fn a_study_without_its_data_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    let lengths = "model = \"start\"\nquery_max_length = 16\npassage_max_length = 32";
    let good = STUDY.replacen("model = \"start\"", lengths, 1);
    for (old, new, words) in [
        ("train = \"data\"", "train = \"nowhere\"", ["nowhere", "not found"]),
        ("data = \"data\"\nsplit", "data = \"nowhere\"\nsplit", ["nowhere", "not found"]),
        ("split = \"test\"", "split = \"dev\"", ["dev", "test"]),
        ("model = \"start\"", "model = \"./nothing\"", ["./nothing", "no such folder"]),
    ] {
        assert!(good.contains(old));
        write(folder, "study.toml", &good.replacen(old, new, 1));
        refused(folder, "study study.toml", FAILED, &words);
    }
    assert!(!folder.join("runs").exists());
}

#[test]
fn a_model_that_cannot_be_used_is_refused_by_file() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    let encode = |model: &str| format!("encode --model {model} --corpus data --output index");
    refused(folder, &encode("./nowhere"), FAILED, &["./nowhere", "no such folder"]);
    refused(folder, &encode("data/corpus.jsonl"), FAILED, &["corpus.jsonl", "is a file"]);
    refused(folder, &encode("data"), FAILED, &["config.json"]);
    refused(folder, &format!("{} --max-length 65", encode("start")), BAD_USAGE, &["65", "64 positions"]);
    refused(folder, &format!("{} --max-length 2", encode("start")), BAD_USAGE, &["2", "3"]);

    let weights = folder.join("start/model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    refused(folder, &encode("start"), FAILED, &["model.safetensors"]);
    std::fs::remove_file(&weights).unwrap();
    refused(folder, &encode("start"), FAILED, &["model.safetensors"]);
    write(folder, "start/config.json", "{\"hidden_size\": 32,");
    refused(folder, &encode("start"), FAILED, &["config.json", "line 1"]);
    assert!(!folder.join("index").exists());
}

#[test]
fn a_corpus_or_queries_that_cannot_be_read_are_refused_with_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    let good = "{\"_id\": \"a\", \"text\": \"x\"}\n";
    write(folder, "broken.jsonl", &format!("{good}{{\"_id\": \"b\", \n"));
    write(folder, "twice.jsonl", &format!("{good}{good}"));
    write(folder, "noid.jsonl", &format!("{good}{{\"text\": \"x\"}}\n"));
    write(folder, "empty.jsonl", "");
    write(folder, "blank.jsonl", "{\"_id\": \"a\", \"text\": \" \"}\n");
    std::fs::write(folder.join("latin.jsonl"), b"{\"_id\": \"a\", \"text\": \"caf\xe9\"}\n").unwrap();
    std::fs::write(folder.join("cut.jsonl.gz"), [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x4b]).unwrap();
    let encode = |kind: &str, file: &str| format!("encode --model start --{kind} {file} --output index");
    refused(folder, &encode("corpus", "nothing.jsonl"), FAILED, &["nothing.jsonl"]);
    refused(folder, &encode("corpus", "broken.jsonl"), FAILED, &["broken.jsonl", "line 2", "JSON"]);
    refused(folder, &encode("corpus", "twice.jsonl --strict"), FAILED, &["twice.jsonl", "line 2", "\"a\""]);
    refused(folder, &encode("corpus", "noid.jsonl --strict"), FAILED, &["noid.jsonl", "line 2", "_id"]);
    refused(folder, &encode("corpus", "empty.jsonl"), FAILED, &["empty.jsonl"]);
    refused(folder, &encode("corpus", "latin.jsonl"), FAILED, &["latin.jsonl", "line 1", "UTF-8"]);
    refused(folder, &encode("corpus", "cut.jsonl.gz"), FAILED, &["cut.jsonl.gz"]);
    refused(folder, &encode("queries", "blank.jsonl"), FAILED, &["blank.jsonl", "line 1"]);
    refused(
        folder,
        &format!("{} --split test", encode("queries", "data/queries.jsonl")),
        BAD_USAGE,
        &["--split"],
    );
    refused(folder, &format!("{} --split dev", encode("queries", "data")), FAILED, &["dev", "test"]);
    refused(folder, &encode("corpus", "start"), FAILED, &["start", "corpus.jsonl"]);
    assert!(!folder.join("index").exists());
}

#[test]
fn a_length_without_room_beside_the_special_tokens_of_a_pair_is_refused_at_the_door() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    let encode = "encode --model start --corpus data --output index";
    let search = "search --model start --index index --query x";
    let train = |length: usize| format!("{TRAIN} --passage-max-length {length}");
    // BERT's pair has three special tokens.
    succeed(folder, &format!("{encode} --max-length 3"));
    succeed(folder, "plan --model start --query-max-length 3 --passage-max-length 3");
    let path = folder.join("start/tokenizer.json");
    let mut tokenizer: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let special = |token: &str| serde_json::json!({ "SpecialToken": { "id": token, "type_id": 0 } });
    let text = |name: &str| serde_json::json!({ "Sequence": { "id": name, "type_id": 0 } });
    let token = |token: &str, id: u32| serde_json::json!({ "id": token, "ids": [id], "tokens": [token] });
    tokenizer["post_processor"] = serde_json::json!({
        "type": "TemplateProcessing",
        "single": [special("[CLS]"), text("A"), special("[SEP]")],
        "pair": [special("[CLS]"), text("A"), special("[SEP]"), special("[SEP]"), text("B"), special("[SEP]")],
        "special_tokens": { "[CLS]": token("[CLS]", 2), "[SEP]": token("[SEP]", 3) },
    });
    write(folder, "start/tokenizer.json", &tokenizer.to_string());
    write(folder, "start/tokenizer_config.json", r#"{ "tokenizer_class": "PreTrainedTokenizerFast" }"#);

    let words = ["room beside the special tokens", "4 or more"];
    refused(folder, &train(3), BAD_USAGE, &[&["passage_max_length: 3"], &words[..]].concat());
    refused(
        folder,
        "plan --model start --query-max-length 16 --passage-max-length 3",
        BAD_USAGE,
        &[&["passage_max_length: 3"], &words[..]].concat(),
    );
    refused(folder, &format!("{encode} --max-length 3 --overwrite"), BAD_USAGE, &words);
    refused(folder, &format!("{search} --max-length 2"), BAD_USAGE, &["special tokens", "3 or more"]);
    // Title and text in one segment need no more than a query.
    succeed(folder, &format!("{} --passage-format joined --dry-run", train(3)));
    succeed(folder, &format!("{encode} --max-length 3 --passage-format joined --overwrite"));
    succeed(folder, &format!("{encode} --max-length 4 --overwrite"));
    succeed(folder, &format!("{search} --max-length 3"));
    // A plan needs no tokenizer.
    std::fs::remove_file(path).unwrap();
    succeed(folder, "plan --model start --query-max-length 16 --passage-max-length 3");
}

#[test]
fn training_data_that_cannot_be_used_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    write(folder, "qrels.tsv", "");
    let train = |flags: &str| format!("{TRAIN} {flags}");
    refused(folder, &train("--split dev"), FAILED, &["dev"]);
    refused(folder, &train("--gradient-accumulation-steps 100"), BAD_USAGE, &["400", "200"]);
    refused(folder, &train("--memory-bank-warmup 1"), BAD_USAGE, &["memory_bank_warmup", "1 updates"]);
    refused(folder, &train("--passage-max-length 65"), BAD_USAGE, &["passage_max_length", "64 positions"]);
    refused(
        folder,
        &train("--memory-budget 1MiB"),
        BAD_USAGE,
        &["memory_budget", "1.0 MiB", "least", "weights"],
    );
    refused(folder, "plan --model start --passage-max-length 65", BAD_USAGE, &["64 positions"]);
    refused(folder, "plan --model nowhere/at/all", FAILED, &["nowhere/at/all"]);
    refused(folder, "plan", BAD_USAGE, &["--model"]);
    refused(folder, &train("--corpus data"), BAD_USAGE, &["corpus"]);
    refused(folder, &train("--hard-negatives-file none.tsv --hard-negatives 1"), FAILED, &["none.tsv"]);
    refused(folder, &train("--eval-data data --eval-split dev"), FAILED, &["dev"]);
    refused(folder, "train --resume --output-dir run", FAILED, &["run", "config.toml"]);

    let train =
        |file: &str| format!("train --model start --train {file} --output-dir run --passage-max-length 32");
    write(folder, "rows.jsonl", "{\"query\": \"a\", \"positives\": [\"b\"]}\n{\"query\": \"c\"}\n");
    refused(folder, &train("rows.jsonl --strict"), FAILED, &["rows.jsonl", "line 2", "positives"]);
    write(
        folder,
        "ids.jsonl",
        "{\"query_id\": \"1\", \"query\": \"a\", \"positive_document_ids\": [\"x\"]}\n",
    );
    refused(folder, &train("ids.jsonl"), FAILED, &["ids.jsonl", "line 1"]);
    refused(folder, &train("nowhere"), FAILED, &["nowhere"]);
    assert!(!folder.join("run").exists());
}

#[test]
fn an_output_folder_in_use_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    common::succeed(folder, TRAIN);
    let before = std::fs::read(folder.join("run/metrics.jsonl")).unwrap();
    refused(folder, TRAIN, FAILED, &["run", "checkpoint-000001", "--resume"]);
    assert_eq!(std::fs::read(folder.join("run/metrics.jsonl")).unwrap(), before);
    refused(folder, "export --checkpoint nowhere --output exported", FAILED, &["nowhere"]);
    refused(folder, "export --checkpoint run --output data", FAILED, &["data", "exists"]);
}

#[test]
fn a_search_that_does_not_fit_its_index_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    common::succeed(folder, "encode --model start --corpus data --output index");
    let other = tempfile::tempdir().unwrap();
    prepare(other.path(), 16);
    let model = other.path().join("start");
    let search = format!("search --model {} --query q", model.display());
    refused(folder, &format!("{search} --index index"), FAILED, &["16", "32", "same model"]);
    refused(folder, &format!("{search} --index nowhere"), FAILED, &["nowhere", "encode"]);
    refused(folder, "search --model start --query ' ' --index index", BAD_USAGE, &["--query", "empty"]);
    refused(folder, "search --model start --query q --index index --top-k 0", FAILED, &["at least 1"]);
    let shard = folder.join("index/embeddings-00000.npy");
    let bytes = std::fs::read(&shard).unwrap();
    std::fs::write(&shard, &bytes[..bytes.len() - 4]).unwrap();
    refused(folder, "search --model start --query q --index index", FAILED, &["embeddings-00000.npy"]);
}

#[test]
fn runs_and_judgments_that_cannot_be_read_are_refused_with_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, "run.trec", "1 Q0 a 1 0.5 t\n");
    write(folder, "others.trec", "2 Q0 a 1 0.5 t\n");
    write(folder, "short.trec", "1 Q0 a 1 0.5 t\n1 Q0 b 2\n");
    write(folder, "nan.trec", "1 Q0 a 1 NaN t\n");
    write(folder, "twice.trec", "1 Q0 a 1 0.5 t\n1 Q0 a 2 0.4 t\n");
    write(folder, "qrels.tsv", "query-id\tcorpus-id\tscore\n1\ta\t1\n");
    write(folder, "grade.tsv", "query-id\tcorpus-id\tscore\n1\ta\tgood\n");
    write(folder, "zero.tsv", "query-id\tcorpus-id\tscore\n1\ta\t0\n");
    write(folder, "unanswered.jsonl", "{\"_id\": \"1\", \"text\": \"x\"}\n");
    write(folder, "answered.jsonl", "{\"_id\": \"1\", \"text\": \"x\", \"answers\": [\"y\"]}\n");
    write(folder, "corpus.jsonl", "{\"_id\": \"b\", \"text\": \"x\"}\n");
    let evaluate = |run: &str, qrels: &str| format!("evaluate --run {run} --qrels {qrels}");
    refused(folder, &evaluate("no.trec", "qrels.tsv"), FAILED, &["no.trec"]);
    refused(folder, &evaluate("short.trec", "qrels.tsv"), FAILED, &["short.trec", "line 2", "qid"]);
    refused(folder, &evaluate("nan.trec", "qrels.tsv"), FAILED, &["nan.trec", "line 1", "NaN"]);
    refused(folder, &evaluate("twice.trec", "qrels.tsv"), FAILED, &["twice.trec", "line 2"]);
    refused(folder, &evaluate("run.trec", "no.tsv"), FAILED, &["no.tsv"]);
    refused(folder, &evaluate("run.trec", "grade.tsv"), FAILED, &["grade.tsv", "line 2", "good"]);
    refused(folder, &evaluate("run.trec", "zero.tsv"), FAILED, &["relevant"]);
    refused(
        folder,
        &evaluate("others.trec", "qrels.tsv"),
        FAILED,
        &["others.trec", "none", "\"1\"", "\"2\""],
    );
    let baseline = format!("{} --baseline others.trec", evaluate("run.trec", "qrels.tsv"));
    refused(folder, &baseline, FAILED, &["others.trec", "none"]);
    refused(folder, "evaluate --run run.trec --qrels qrels.tsv --metrics ncdg@10", BAD_USAGE, &["nDCG@10?"]);
    let answers = |file: &str| format!("evaluate --run run.trec --answers {file} --corpus corpus.jsonl");
    refused(folder, &answers("unanswered.jsonl"), FAILED, &["unanswered.jsonl", "answers"]);
    refused(folder, &answers("answered.jsonl"), FAILED, &["\"a\"", "corpus.jsonl"]);
}

#[test]
fn a_report_names_what_is_no_run_and_leaves_no_page() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, "good/metrics.jsonl", "{\"update\": 1, \"loss\": 1.0}\n");
    write(folder, "bad/metrics.jsonl", "");
    write(folder, "bad/config.toml", "method = \n");
    write(folder, "short/metrics.jsonl", "");
    let short = r#"{"data": "d", "split": "test", "queries": ["a", "b"], "measures": {"RR@10": [1.0]}}"#;
    write(folder, "short/evaluations/d.json", short);
    write(folder, "torn/metrics.jsonl", "");
    write(folder, "torn/evaluations/d.json", &short[..40]);
    std::fs::create_dir(folder.join("empty")).unwrap();
    refused(folder, "report good nowhere", FAILED, &["nowhere"]);
    refused(folder, "report good empty", FAILED, &["empty", "no run", "metrics.jsonl", "--output-dir"]);
    refused(folder, "report good good/metrics.jsonl", FAILED, &["metrics.jsonl", "no run"]);
    refused(folder, "report good bad", FAILED, &["config.toml"]);
    refused(folder, "report good short", FAILED, &["d.json", "RR@10", "2 queries"]);
    refused(folder, "report good torn", FAILED, &["d.json", "remove"]);
    assert!(!folder.join("report.html").exists());
    refused(folder, "report good --output no/where.html", FAILED, &["no/where.html", "folder exists"]);
}
