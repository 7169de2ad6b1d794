//! Every bad input, read strictly: one line that names the place and the remedy.

mod common;

use std::path::{Path, PathBuf};

use common::{folder, gzip, small_beir, write};
use contaccum_data::{
    Columns, Corpus, Error, PassageIndex, Qrels, Queries, Strictness, TrainingSet, TrainingSource,
};

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
    Corpus::open_with(&write(folder().path(), "corpus.jsonl", content), Strictness::Strict)
}

fn queries(content: impl AsRef<[u8]>) -> Result<Queries, Error> {
    Queries::open_with(&write(folder().path(), "queries.jsonl", content), Strictness::Strict)
}

fn qrels(content: impl AsRef<[u8]>) -> Result<Qrels, Error> {
    Qrels::open_with(&write(folder().path(), "qrels.tsv", content), Strictness::Strict)
}

fn rows(content: impl AsRef<[u8]>) -> Result<TrainingSet, Error> {
    let folder = folder();
    let path = write(folder.path(), "train.jsonl", content);
    TrainingSet::open_with(&TrainingSource::file(path), Strictness::Strict)
}

fn beir(folder: &Path, hard_negatives: Option<PathBuf>) -> Result<TrainingSet, Error> {
    let source = TrainingSource::Beir { folder: folder.into(), split: "train".into(), hard_negatives };
    TrainingSet::open_with(&source, Strictness::Strict)
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
    says(rows(format!("[\n{row},\n{{\"question\": [1]}}]")), &["line 3", "`question` is a list"]);
    says(rows(format!("[\n{row},\n]")), &["line 3", "broken JSON"]);
    says(rows(format!("[\n{row}\n{row}]")), &["line 3", "broken JSON"]);
    says(
        rows(format!("[\n{row},\n{{\"question\": \"\",\n\"positive_ctxs\": [{{\"text\": \"p\"}}]}}]")),
        &["line 3", "no text"],
    );
}

#[test]
fn missing_and_misshapen_fields_are_named() {
    says(corpus("{\"_id\": \"a\"}"), &["line 1", "missing field `text`", "expected {\"_id\""]);
    says(corpus("{\"text\": \"a\"}"), &["line 1", "missing field `_id`"]);
    says(corpus("{\"_id\": \"a\", \"text\": [\"x\"]}"), &["line 1", "`text` is a list where a text belongs"]);
    says(corpus("[1, 2]"), &["line 1"]);
    says(corpus("{\"_id\": {}, \"text\": \"x\"}"), &["line 1", "`_id` is an object where an id"]);
    says(queries("{\"_id\": \"a\"}"), &["line 1", "missing field `text`"]);
    says(rows("{\"query\": \"a\"}"), &["line 1", "missing field `positives`"]);
    says(rows("{\"pos\": [\"a\"]}"), &["line 1", "missing field `query`"]);
    says(rows("{\"query\": \"a\", \"pos\": [{}]}"), &["line 1", "no title and no text"]);
    says(rows("{\"query\": \"a\", \"pos\": [[\"p\"]]}"), &["line 1", "`pos` is a list where a text belongs"]);
}

#[test]
fn empty_ids_and_texts_are_refused_where_they_matter() {
    says(corpus("{\"_id\": \"\", \"text\": \"x\"}"), &["line 1", "passage id is empty"]);
    says(queries("{\"_id\": \"\", \"text\": \"x\"}"), &["line 1", "query id is empty"]);
    says(queries("{\"_id\": \"q7\", \"text\": \" \"}"), &["line 1", "\"q7\" has no text"]);
    says(rows("{\"query\": \"\", \"pos\": [\"p\"]}"), &["line 1", "no text"]);
    says(
        rows("{\"query\": \"a\", \"pos\": [{\"docid\": \"d\", \"text\": \"\"}]}"),
        &["line 1", "\"d\" has no title and no text"],
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
    says(with_hard_negatives("q9\td1\td2\n"), &["hard.tsv, line 1", "query \"q9\"", "queries.jsonl"]);
    let folder = small_beir();
    write(folder.path(), "qrels/train.tsv", "q2\td2\t1\nq1\td1\t0\n");
    let hard = write(folder.path(), "hard.tsv", "q1\td1\td2\n");
    says(beir(folder.path(), Some(hard)), &["hard.tsv, line 1", "\"q1\" has no passage judged relevant"]);
    says(
        rows("{\"query\": \"a\", \"positive_document_ids\": [\"d9\"]}"),
        &["line 1", "\"d9\"", "name the corpus"],
    );
    let folder = small_beir();
    let path = write(folder.path(), "t.jsonl", "{\"query\": \"a\", \"positive_document_ids\": [\"d9\"]}");
    let source =
        TrainingSource::File { path, corpus: Some(folder.path().into()), columns: Columns::default() };
    says(TrainingSet::open(&source), &["t.jsonl, line 1", "passage \"d9\" is not in", "corpus.jsonl"]);
}

#[test]
fn repeated_ids_are_named_at_their_second_line() {
    let line = "{\"_id\": \"a\", \"text\": \"x\"}\n";
    says(corpus(line.repeat(2)), &["corpus.jsonl, line 2", "passage \"a\"", "second time"]);
    says(queries(line.repeat(2)), &["queries.jsonl, line 2", "query \"a\"", "second time"]);
    says(qrels("q\td\t1\nq\te\t1\nq\td\t2\n"), &["line 3", "judgment \"q\" \"d\"", "second time"]);
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
    says(TrainingSet::open(&TrainingSource::file(path)), &["a.json.gz", "cut short or damaged"]);
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
    says(with_hard_negatives("query-id\tgold-id\tneg-ids\n"), &["hard.tsv", "no hard negative"]);
}

#[test]
fn lines_with_the_wrong_columns_are_told() {
    says(qrels("query-id\tcorpus-id\tscore\nq1\td1\n"), &["line 2", "2 columns", "TREC"]);
    says(qrels("q1 0 d1 1\nq1 d1 1\n"), &["line 2", "3 columns"]);
    says(qrels("q1\td1\t0.5\n"), &["line 1", "\"0.5\" is not a whole number"]);
    says(with_hard_negatives("q1\n"), &["hard.tsv, line 1", "1 columns", "gold-id"]);
    says(with_hard_negatives("query-id\tgold-id\nq1\td1\n"), &["line 1", "negative ids", "neg_ids"]);
    says(qrels("query-id\tcorpus-id\tworth\nq1\td1\t1\n"), &["line 1", "worth", "relevance", "score"]);
    let folder = folder();
    says(Corpus::open(&write(folder.path(), "c.tsv", "a\nb\tx")), &["c.tsv, line 1", "1 columns"]);
    says(Queries::open(&write(folder.path(), "q.tsv", "a\tb\tc")), &["q.tsv, line 1", "3 columns"]);
    let headed = write(folder.path(), "h.tsv", "id\ttext\n1\tx\n2\ta tab\tinside\n");
    says(Corpus::open(&headed), &["h.tsv, line 3", "3 columns"]);
    let unknown = write(folder.path(), "u.tsv", "pid\tcontent_of_it\n1\tx\n");
    says(Corpus::open(&unknown), &["u.tsv, line 1", "content_of_it", "text, contents"]);
}

#[test]
fn a_quote_of_csv_that_is_not_closed_is_told_with_the_line_it_is_opened_in() {
    let folder = folder();
    let open = |content: &str| Corpus::open(&write(folder.path(), "c.csv", content));
    says(open("id,text\n1,x\n2,\"open\n3,z\n"), &["c.csv, line 3", "a quote is opened", "close it"]);
    says(open("id,text\n1,\"open"), &["c.csv, line 2", "never closed"]);
    says(open("\"id,text"), &["c.csv, line 1", "never closed"]);
    for closed in ["id,text\n1,\"x\"", "id,text\n1,\"x\"\n\n", "id,text\n1,a \" inside\n", "id,text\r\n1,x\r"]
    {
        assert_eq!(open(closed).unwrap().len(), 1, "{closed:?}");
    }
}

#[test]
fn a_file_that_is_no_text_is_called_by_its_name() {
    let folder = folder();
    let mut tar = vec![b'a'; 600];
    tar[257..262].copy_from_slice(b"ustar");
    let utf_16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let cases: [(&[u8], &str, &str); 11] = [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
            "Git LFS pointer",
            "git lfs pull",
        ),
        (b"PAR1\x15\x04\x15", "Parquet", "JSONL"),
        (b"PK\x03\x04\x14\0\0\0", "zip archive", "unpack"),
        (b"\n <!DOCTYPE html>\n<html>", "HTML", "download the file itself"),
        (b"<HTML><body>", "HTML", "download"),
        (b"\xfd7zXZ\0\0\x04", "xz", "unpack"),
        (b"BZh91AY&SY\x9b\0", "bzip2", "unpack"),
        (b"\x93NUMPY\x01\0", "NumPy", "texts"),
        (&tar, "tar archive", "unpack"),
        (&utf_16("{\"_id\": \"a\"}"), "UTF-16", "iconv"),
        (&[b"\xff\xfe", utf_16("a\tb").as_slice()].concat(), "UTF-16", "iconv"),
    ];
    for (bytes, name, remedy) in cases {
        for (file, bytes) in
            [("f.jsonl", bytes.to_vec()), ("f.tsv", bytes.to_vec()), ("f.gz", common::gzip(bytes))]
        {
            let path = folder.path().join(file);
            std::fs::write(&path, bytes).unwrap();
            says(Corpus::open(&path), &[file, name, remedy]);
            says(Queries::open(&path), &[file, name, remedy]);
            says(Qrels::open(&path), &[file, name, remedy]);
            says(TrainingSet::open(&TrainingSource::file(path)), &[file, name, remedy]);
        }
    }
}

#[test]
fn a_line_that_does_not_end_is_refused_before_it_fills_memory() {
    let folder = folder();
    let long = |opening: &str| {
        let mut bytes = opening.as_bytes().to_vec();
        bytes.resize((64 << 20) + 100_000, b'x');
        zstd::encode_all(bytes.as_slice(), 1).unwrap()
    };
    for (name, opening) in [
        ("a.jsonl", "{\"_id\": \""),
        ("a.tsv", "a\t"),
        ("a.csv", "id,text\n1,\""),
        ("a.json", "[{\"query\": \""),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, long(opening)).unwrap();
        let said = &[name, "line", "64 MiB", "check"];
        if name == "a.json" {
            says(TrainingSet::open(&TrainingSource::file(path)), said);
        } else {
            says(Corpus::open(&path), said);
        }
    }
}

#[test]
fn an_id_with_a_line_end_or_a_tab_inside_is_refused() {
    says(
        corpus("{\"_id\": \"a\\nb\", \"text\": \"x\"}"),
        &["line 1", "passage id \"a\\nb\"", "tab or a line end"],
    );
    says(queries("{\"_id\": \"a\\tb\", \"text\": \"x\"}"), &["line 1", "query id", "another id"]);
}

#[test]
fn what_is_read_over_otherwise_is_refused_strictly() {
    let says_odd = |result, what: &str| says::<Corpus>(result, &["line 1", what, "strict"]);
    says_odd(corpus("{\"_id\": \"a\", \"title\": NaN, \"text\": \"x\"}"), "NaN");
    says_odd(corpus("{\"_id\": \"a\", \"text\": \"\\ud83d\"}"), "surrogate");
    says_odd(corpus("{\"_id\": \"a\", \"text\": 7}"), "number");
    says_odd(corpus("{\"_id\": 7.0, \"text\": \"x\"}"), "7.0");
    says_odd(corpus("{\"_id\": \" a\", \"text\": \"x\"}"), "white space");
    says(
        queries("{\"_id\": \"a\", \"text\": \"x\", \"answers\": {}}"),
        &["line 1", "`answers` is an object"],
    );
}

#[test]
fn a_file_of_which_most_would_be_left_out_is_refused_with_the_first_reason_and_the_count() {
    let folder = folder();
    let good = "{\"_id\": \"a\", \"text\": \"x\"}\n";
    let lines = format!("{good}{{\"_id\": \"b\"}}\n{{\"text\": \"y\"}}\n");
    says(
        Corpus::open(&write(folder.path(), "c.jsonl", lines)),
        &["c.jsonl, line 2", "missing field `text`", "2 of 3 records"],
    );
    says(
        Corpus::open(&write(folder.path(), "d.jsonl", good.repeat(3))),
        &["d.jsonl, line 2", "second time", "2 of 3 records"],
    );
    let folder = small_beir();
    write(folder.path(), "qrels/train.tsv", "q1\td1\t1\nq8\td1\t1\nq1\td9\t1\n");
    let source =
        TrainingSource::Beir { folder: folder.path().into(), split: "train".into(), hard_negatives: None };
    says(TrainingSet::open(&source), &["train.tsv, line 2", "\"q8\"", "2 of 3 records"]);
}
