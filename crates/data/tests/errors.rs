//! Every bad input: one line that names the place and the remedy.

mod common;

use std::path::{Path, PathBuf};

use common::{folder, gzip, small_beir, write};
use contaccum_data::{Corpus, Error, PassageIndex, Qrels, Queries, TrainingSet, TrainingSource};

/// Asserts that a result is an error of one line that holds all of `parts`.
#[track_caller]
fn says<T>(result: Result<T, Error>, parts: &[&str]) {
    let Err(error) = result else { panic!("no error; expected {parts:?}") };
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
    assert!(!message.contains('\n'), "{message:?} is more than one line");
}

fn corpus(content: impl AsRef<[u8]>) -> Result<Corpus, Error> {
    Corpus::open(&write(folder().path(), "corpus.jsonl", content))
}

fn queries(content: impl AsRef<[u8]>) -> Result<Queries, Error> {
    Queries::open(&write(folder().path(), "queries.jsonl", content))
}

fn qrels(content: impl AsRef<[u8]>) -> Result<Qrels, Error> {
    Qrels::open(&write(folder().path(), "qrels.tsv", content))
}

fn rows(content: impl AsRef<[u8]>) -> Result<TrainingSet, Error> {
    let folder = folder();
    let path = write(folder.path(), "train.jsonl", content);
    TrainingSet::open(&TrainingSource::File { path, corpus: None })
}

fn beir(folder: &Path, hard_negatives: Option<PathBuf>) -> Result<TrainingSet, Error> {
    TrainingSet::open(&TrainingSource::Beir { folder: folder.into(), split: "train".into(), hard_negatives })
}

fn with_qrels(content: &str) -> Result<TrainingSet, Error> {
    let folder = small_beir();
    write(folder.path(), "qrels/train.tsv", content);
    beir(folder.path(), None)
}

fn with_hard_negatives(content: &str) -> Result<TrainingSet, Error> {
    let folder = small_beir();
    let hard = write(folder.path(), "hard.tsv", content);
    beir(folder.path(), Some(hard))
}

#[test]
fn missing_files_and_folders_are_named_with_what_would_do() {
    let folder = folder();
    says(Corpus::open(&folder.path().join("none.jsonl")), &["none.jsonl", "not found"]);
    says(Corpus::open(folder.path()), &["corpus.jsonl", "not found", "corpus.jsonl.zst"]);
    says(Queries::open(folder.path()), &["queries.jsonl.gz"]);
    says(Qrels::open(folder.path()), &["a file is needed"]);
    says(beir(&folder.path().join("none"), None), &["none", "not found", "BEIR folder"]);
    says(Qrels::open_split(folder.path(), "dev"), &["qrels/dev.tsv", "not found"]);
    says(Qrels::open_split(small_beir().path(), "dev"), &["qrels/dev.tsv", "these splits: train"]);
}

#[test]
fn broken_json_is_told_with_its_line_and_column() {
    let good = "{\"_id\": \"a\", \"text\": \"x\"}\n";
    says(
        corpus(format!("{good}\n{{\"_id\": \"b\"; \"text\"}}\n")),
        &["corpus.jsonl, line 3, column 12", "broken JSON"],
    );
    says(corpus(format!("{good}{{\"_id\": \"b\", \"te")), &["line 2", "broken JSON"]);
    says(queries("nonsense"), &["queries.jsonl, line 1", "broken JSON", "\"_id\""]);
    says(rows("{\"query\": \"a\", \"pos\": [\"p\"]}\n{"), &["train.jsonl, line 2", "broken JSON"]);
}

#[test]
fn a_broken_array_is_told_with_its_line() {
    let row = r#"{"question": "q", "positive_ctxs": [{"text": "p"}]}"#;
    says(rows(format!("[\n{row},\n{row}\n")), &["line 4", "broken JSON"]);
    says(rows(format!("[\n{row},\n{{\"question\" 1}}]")), &["line 3", "broken JSON"]);
    says(rows(format!("[\n{row}\n]\nmore")), &["line 4", "broken JSON"]);
    says(rows(format!("[\n{row},\n{{\"question\": 1}}]")), &["line 3", "invalid type"]);
    says(
        rows(format!("[\n{row},\n{{\"question\": \"\",\n\"positive_ctxs\": [{{\"text\": \"p\"}}]}}]")),
        &["line 4", "no text"],
    );
}

#[test]
fn missing_and_misshapen_fields_are_named() {
    says(corpus("{\"_id\": \"a\"}"), &["line 1", "missing field `text`", "expected {\"_id\""]);
    says(corpus("{\"text\": \"a\"}"), &["line 1", "missing field `_id`"]);
    says(corpus("{\"_id\": \"a\", \"text\": [\"x\"]}"), &["line 1", "invalid type"]);
    says(corpus("[1, 2]"), &["line 1"]);
    says(queries("{\"_id\": \"a\"}"), &["line 1", "missing field `text`"]);
    says(rows("{\"query\": \"a\"}"), &["line 1", "missing field `positives`"]);
    says(rows("{\"pos\": [\"a\"]}"), &["line 1", "missing field `query`"]);
    says(rows("{\"query\": \"a\", \"pos\": [{\"title\": \"a\"}]}"), &["line 1", "missing field `text`"]);
    says(rows("{\"query\": \"a\", \"pos\": \"p\"}"), &["line 1", "invalid type"]);
}

#[test]
fn empty_ids_and_texts_are_refused_where_they_matter() {
    says(corpus("{\"_id\": \"\", \"text\": \"x\"}"), &["line 1", "passage id is empty"]);
    says(queries("{\"_id\": \"\", \"text\": \"x\"}"), &["line 1", "query id is empty"]);
    says(queries("{\"_id\": \"q7\", \"text\": \" \"}"), &["line 1", "\"q7\" has no text"]);
    says(rows("{\"query\": \"\", \"pos\": [\"p\"]}"), &["line 1", "no text"]);
    says(
        rows("{\"query\": \"a\", \"pos\": [{\"docid\": \"d\", \"text\": \"\"}]}"),
        &["line 1", "\"d\" has neither"],
    );
    says(qrels("q1\t\t1\n"), &["line 1", "passage id is empty"]);
}

#[test]
fn an_empty_passage_is_kept_in_the_corpus_and_refused_as_a_positive() {
    let folder = small_beir();
    let corpus = Corpus::open(folder.path()).unwrap();
    assert!(corpus.is_blank(corpus.index_of("d4").unwrap()));
    assert!(!corpus.is_blank(PassageIndex(0)));
    says(
        with_qrels("query-id\tcorpus-id\tscore\nq1\td4\t1\n"),
        &["train.tsv, line 2", "\"d4\" has neither title nor text"],
    );
    says(with_hard_negatives("q1\td4\t\n"), &["hard.tsv, line 1", "\"d4\" has neither title nor text"]);
    assert!(with_hard_negatives("q1\td1\td4\n").is_ok());
}

#[test]
fn unknown_ids_are_named_with_the_file_that_lacks_them() {
    says(
        with_qrels("query-id\tcorpus-id\tscore\nq1\td9\t1\n"),
        &["train.tsv, line 2", "passage \"d9\"", "corpus.jsonl"],
    );
    says(with_qrels("q1\td1\t1\nq9\td1\t1\n"), &["train.tsv, line 2", "query \"q9\"", "queries.jsonl"]);
    says(with_hard_negatives("q1\td1\td2,d9\n"), &["hard.tsv, line 1", "passage \"d9\"", "corpus.jsonl"]);
    says(with_hard_negatives("q1\td9\t\n"), &["hard.tsv, line 1", "passage \"d9\""]);
    says(
        rows("{\"query\": \"a\", \"positive_document_ids\": [\"d9\"]}"),
        &["line 1", "\"d9\"", "name the corpus"],
    );
    let folder = small_beir();
    let path = write(folder.path(), "t.jsonl", "{\"query\": \"a\", \"positive_document_ids\": [\"d9\"]}");
    let source = TrainingSource::File { path, corpus: Some(folder.path().into()) };
    says(TrainingSet::open(&source), &["t.jsonl, line 1", "passage \"d9\" is not in", "corpus.jsonl"]);
}

#[test]
fn repeated_ids_are_named_at_their_second_line() {
    let line = "{\"_id\": \"a\", \"text\": \"x\"}\n";
    says(corpus(line.repeat(2)), &["corpus.jsonl, line 2", "passage \"a\"", "second time"]);
    says(queries(line.repeat(2)), &["queries.jsonl, line 2", "query \"a\"", "second time"]);
    says(qrels("q\td\t1\nq\te\t1\nq\td\t2\n"), &["line 3", "judgment \"q\" \"d\"", "second time"]);
    says(
        rows("{\"query_id\": 1, \"query\": \"a\", \"pos\": [\"p\"]}\n".repeat(2)),
        &["line 2", "query \"1\""],
    );
}

#[test]
fn text_that_is_not_utf8_is_told_with_its_line() {
    says(
        corpus(b"{\"_id\": \"a\", \"text\": \"x\"}\n{\"_id\": \"b\", \"text\": \"\xe9\"}"),
        &["line 2", "not UTF-8", "iconv"],
    );
    says(qrels(b"q\t\xff\t1"), &["line 1", "not UTF-8"]);
}

#[test]
fn cut_and_damaged_compression_is_told() {
    let folder = folder();
    let text: String =
        (0..2000u64).map(|i| format!("{{\"_id\": \"{i}\", \"text\": \"{}\"}}\n", i * i * 7919)).collect();
    let cut = |name: &str, mut bytes: Vec<u8>, keep: usize| {
        bytes.truncate(keep);
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        says(Corpus::open(&path), &[name, "line", "cut short or damaged", "download"]);
    };
    let (gz, zst) = (gzip(text.as_bytes()), zstd::encode_all(text.as_bytes(), 0).unwrap());
    for keep in [5, gz.len() / 2, gz.len() - 1] {
        cut("c.jsonl.gz", gz.clone(), keep);
    }
    for keep in [5, zst.len() / 2, zst.len() - 1] {
        cut("c.jsonl.zst", zst.clone(), keep);
    }
    let mut damaged = gz.clone();
    // Within the checksum, which ends the file before the length of four bytes.
    damaged[gz.len() - 6] ^= 0x55;
    cut("d.jsonl.gz", damaged, gz.len());
    let array = format!("[{}]", [r#"{"question": "q", "positive_ctxs": [{"text": "p"}]}"#; 9].join(",\n"));
    let path = write(folder.path(), "a.json.gz", array);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 12]).unwrap();
    says(
        TrainingSet::open(&TrainingSource::File { path, corpus: None }),
        &["a.json.gz", "cut short or damaged"],
    );
}

#[test]
fn files_with_nothing_in_them_are_told() {
    says(corpus(""), &["corpus.jsonl", "no passage"]);
    says(queries("\n\n"), &["queries.jsonl", "no query"]);
    says(qrels("query-id\tcorpus-id\tscore\n"), &["qrels.tsv", "no judgment"]);
    says(rows(""), &["train.jsonl", "no training row"]);
    says(rows("[]"), &["train.jsonl", "no training row"]);
    says(rows("{\"query\": \"a\", \"pos\": []}"), &["train.jsonl", "no training row"]);
    says(with_qrels("q1\td1\t0\n"), &["train.tsv", "no training row"]);
    says(with_hard_negatives("query-id\tgold-id\tneg-ids\n"), &["hard.tsv", "no training row"]);
}

#[test]
fn lines_with_the_wrong_columns_are_told() {
    says(qrels("query-id\tcorpus-id\tscore\nq1\td1\n"), &["line 2", "2 columns", "TREC"]);
    says(qrels("q1 0 d1 1\nq1 d1 1\n"), &["line 2", "3 columns"]);
    says(qrels("q1\td1\t0.5\n"), &["line 1", "\"0.5\" is not a whole number"]);
    says(with_hard_negatives("q1\td1\n"), &["hard.tsv, line 1", "2 columns", "gold-id"]);
    let folder = folder();
    says(Corpus::open(&write(folder.path(), "c.tsv", "a\nb\tx")), &["c.tsv, line 1", "1 columns"]);
    says(Queries::open(&write(folder.path(), "q.tsv", "a\tb\tc")), &["q.tsv, line 1", "3 columns"]);
}
