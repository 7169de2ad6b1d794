//! Every format, plain, gzip and zstd.

mod common;

use std::path::PathBuf;

use common::{folder, small_beir, write};
use contaccum_data::{
    Corpus, Passage, PassageIndex, Qrels, Queries, QueryIndex, TrainingSet, TrainingSource,
};

fn passage(title: &str, text: &str) -> Passage {
    Passage { title: title.into(), text: text.into() }
}

fn open_file(path: PathBuf) -> TrainingSet {
    TrainingSet::open(&TrainingSource::File { path, corpus: None }).unwrap()
}

fn ids(set: &TrainingSet, passages: &[PassageIndex]) -> Vec<String> {
    passages.iter().map(|&passage| set.passage_id(passage).to_owned()).collect()
}

fn texts(set: &TrainingSet, passages: &[PassageIndex]) -> Vec<Passage> {
    passages.iter().map(|&passage| set.passage(passage).unwrap()).collect()
}

/// Every row as (query id, query, positive ids, negative ids).
fn rows(set: &TrainingSet) -> Vec<(String, String, Vec<String>, Vec<String>)> {
    (0..set.len())
        .map(|row| set.row(row))
        .map(|row| {
            let query = set.query_text(row.query).unwrap();
            (set.query_id(row.query).into(), query, ids(set, row.positives), ids(set, row.negatives))
        })
        .collect()
}

fn row(
    id: &str,
    query: &str,
    positives: &[&str],
    negatives: &[&str],
) -> (String, String, Vec<String>, Vec<String>) {
    let own = |list: &[&str]| list.iter().map(|id| (*id).to_owned()).collect();
    (id.into(), query.into(), own(positives), own(negatives))
}

#[test]
fn a_corpus_is_found_in_its_folder_plain_gzip_or_zstd() {
    let lines = r#"{"_id": "a", "title": "T", "text": "x\ny", "metadata": {"k": [1]}}

{"_id": 7, "text": "é"}"#;
    for name in ["corpus.jsonl", "corpus.jsonl.gz", "corpus.jsonl.zst"] {
        let folder = folder();
        write(folder.path(), name, lines);
        let corpus = Corpus::open(folder.path()).unwrap();
        assert_eq!(corpus.len(), 2, "{name}");
        assert_eq!(corpus.id(PassageIndex(1)), "7");
        assert_eq!(corpus.index_of("7"), Some(PassageIndex(1)));
        assert_eq!(corpus.index_of("b"), None);
        assert_eq!(corpus.get(PassageIndex(0)).unwrap(), passage("T", "x\ny"));
        assert_eq!(corpus.get(PassageIndex(1)).unwrap(), passage("", "é"));
    }
}

#[test]
fn compression_is_seen_from_the_content_and_not_from_the_name() {
    let folder = folder();
    let path = folder.path().join("corpus.jsonl");
    std::fs::write(&path, common::gzip(b"{\"_id\": \"a\", \"text\": \"x\"}")).unwrap();
    assert_eq!(Corpus::open(&path).unwrap().len(), 1);
}

#[test]
fn a_gzip_file_of_several_members_is_read_to_its_end() {
    let folder = folder();
    let path = folder.path().join("corpus.jsonl.gz");
    let mut bytes = common::gzip(b"{\"_id\": \"a\", \"text\": \"x\"}\n");
    bytes.extend(common::gzip(b"{\"_id\": \"b\", \"text\": \"y\"}\n"));
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(Corpus::open(&path).unwrap().len(), 2);
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_not_text() {
    let folder = folder();
    let path = write(folder.path(), "c.tsv", "\u{feff}a\tfirst\r\nb\tsecond\r\n");
    let corpus = Corpus::open(&path).unwrap();
    assert_eq!(corpus.index_of("a"), Some(PassageIndex(0)));
    assert_eq!(corpus.get(PassageIndex(1)).unwrap(), passage("", "second"));
}

#[test]
fn a_tsv_without_a_header_keeps_its_quotes_as_characters() {
    let folder = folder();
    let path = write(folder.path(), "collection.tsv.gz", "0\t\"so\" he said\n1\t\"all quoted\"\tTitle\n");
    let corpus = Corpus::open(&path).unwrap();
    assert_eq!(corpus.get(PassageIndex(0)).unwrap(), passage("", "\"so\" he said"));
    assert_eq!(corpus.get(PassageIndex(1)).unwrap(), passage("Title", "\"all quoted\""));
}

#[test]
fn a_tsv_with_a_header_has_quoted_fields() {
    let folder = folder();
    let path = write(folder.path(), "psgs.tsv", "id\ttext\ttitle\n1\t\"the \"\"big\"\" one\"\tAaron\n");
    let corpus = Corpus::open(&path).unwrap();
    assert_eq!(corpus.len(), 1);
    assert_eq!(corpus.get(PassageIndex(0)).unwrap(), passage("Aaron", "the \"big\" one"));
}

#[test]
fn queries_bring_their_answers() {
    let folder = small_beir();
    let queries = Queries::open(folder.path()).unwrap();
    assert_eq!(queries.len(), 2);
    assert_eq!(queries.text(QueryIndex(0)).unwrap(), "one?");
    assert_eq!(queries.answers(QueryIndex(0)).unwrap(), ["first", "1"]);
    assert!(queries.answers(QueryIndex(1)).unwrap().is_empty());
    assert_eq!(queries.index_of("q2"), Some(QueryIndex(1)));
    let tsv = write(folder.path(), "queries.tsv.zst", "q9\tnine?\n");
    assert_eq!(Queries::open(&tsv).unwrap().text(QueryIndex(0)).unwrap(), "nine?");
}

#[test]
fn judgments_read_the_same_from_both_layouts_and_all_compressions() {
    let beir = "query-id\tcorpus-id\tscore\nq2\td2\t1\nq1\td1\t0\nq2\td3\t-1\n";
    let bare = beir.split_once('\n').unwrap().1;
    let trec = "q2 0 d2 1\nq1\t0\td1\t0\nq2  0  d3  -1\n";
    let folder = folder();
    for name in ["q", "q.gz", "q.zst"] {
        for content in [beir, bare, trec] {
            let qrels = Qrels::open(&write(folder.path(), name, content)).unwrap();
            let order: Vec<&str> = qrels.iter().map(|(query, _)| query).collect();
            assert_eq!(order, ["q2", "q1"]);
            assert_eq!(qrels.judgments("q2"), [("d2".into(), 1), ("d3".into(), -1)]);
            assert_eq!(qrels.judgments("q1"), [("d1".into(), 0)]);
            assert!(qrels.judgments("q3").is_empty());
        }
    }
}

#[test]
fn the_rows_of_a_beir_folder_are_the_queries_with_a_relevant_passage_in_file_order() {
    for ending in ["", ".gz", ".zst"] {
        let folder = small_beir();
        let plain = folder.path().join("qrels/train.tsv");
        let content = std::fs::read(&plain).unwrap();
        std::fs::remove_file(&plain).unwrap();
        write(folder.path(), &format!("qrels/train.tsv{ending}"), content);
        let source = TrainingSource::Beir {
            folder: folder.path().into(),
            split: "train".into(),
            hard_negatives: None,
        };
        let set = TrainingSet::open(&source).unwrap();
        assert_eq!(rows(&set), [row("q2", "two?", &["d2", "d3"], &[]), row("q1", "one?", &["d1"], &[])]);
        assert_eq!(set.summary().rows_with_several_positives, 1);
        assert_eq!(set.summary().rows_without_negatives, 2);
        assert_eq!(set.summary().passages, 4);
    }
}

#[test]
fn the_rows_of_a_hard_negative_file_are_its_queries_and_its_gold_passages() {
    let folder = small_beir();
    let content = "query-id\tgold-id\tneg-ids\nq1\td1\td2,d3,d2\nq2\td2\t\nq1\td3\t\n";
    for name in ["hard.tsv", "hard.tsv.gz", "hard.tsv.zst"] {
        let hard = write(folder.path(), name, content);
        let source = TrainingSource::Beir {
            folder: folder.path().into(),
            split: "train".into(),
            hard_negatives: Some(hard),
        };
        let set = TrainingSet::open(&source).unwrap();
        // d3 is a positive of q1 on a later line, and d2 is named twice.
        assert_eq!(rows(&set), [row("q1", "one?", &["d1", "d3"], &["d2"]), row("q2", "two?", &["d2"], &[])]);
        assert_eq!(set.summary().negatives_left_out, 2);
        assert_eq!(set.summary().rows_without_negatives, 1);
    }
}

#[test]
fn dpr_rows_fall_back_on_plain_negatives_and_leave_out_rows_without_positives() {
    let content = r#"[
  {"dataset": "nq", "question": "who?", "answers": ["A", "B"],
   "positive_ctxs": [{"title": "T", "text": "p", "score": 1000, "passage_id": "11"}],
   "negative_ctxs": [{"title": "N", "text": "n", "passage_id": "12"}],
   "hard_negative_ctxs": [{"title": "H", "text": "h", "psg_id": 13},
                          {"title": "T", "text": "p", "passage_id": "11"}]},
  {"question": "nothing?", "answers": [], "positive_ctxs": [], "negative_ctxs": [], "hard_negative_ctxs": []},
  {"question": "what?", "answers": [], "positive_ctxs": [{"title": "H", "text": "h", "passage_id": "13"}],
   "negative_ctxs": [{"title": "N", "text": "n", "passage_id": "12"}], "hard_negative_ctxs": []}
]"#;
    let folder = folder();
    for name in ["train.json", "train.json.gz", "train.json.zst"] {
        let set = open_file(write(folder.path(), name, content));
        assert_eq!(rows(&set), [row("0", "who?", &["11"], &["13"]), row("1", "what?", &["13"], &["12"])]);
        assert_eq!(set.queries().answers(set.row(0).query).unwrap(), ["A", "B"]);
        assert_eq!(texts(&set, set.row(1).positives), [passage("H", "h")]);
        assert_eq!(set.summary().rows_without_positives, 1);
        assert_eq!(set.summary().negatives_left_out, 1);
        assert_eq!(set.corpus().len(), 3);
    }
}

#[test]
fn dpr_rows_one_a_line_are_read_as_well() {
    let folder = folder();
    let line =
        r#"{"question": "q", "positive_ctxs": [{"title": null, "text": "p"}], "hard_negative_ctxs": []}"#;
    let set = open_file(write(folder.path(), "train.jsonl", line));
    assert_eq!(texts(&set, set.row(0).positives), [passage("", "p")]);
}

#[test]
fn tevatron_rows_with_their_passages() {
    let folder = folder();
    let line = concat!(
        r#"{"query_id": "q", "query": "who", "answers": ["a"], "#,
        r#""positive_passages": [{"docid": "1", "title": "T", "text": "p"}], "#,
        r#""negative_passages": [{"docid": "2", "text": "n"}]}"#,
    );
    for name in ["t.jsonl", "t.jsonl.gz", "t.jsonl.zst"] {
        let set = open_file(write(folder.path(), name, line));
        assert_eq!(rows(&set), [row("q", "who", &["1"], &["2"])]);
        assert_eq!(texts(&set, set.row(0).negatives), [passage("", "n")]);
    }
}

#[test]
fn tevatron_rows_by_id_with_a_corpus() {
    let folder = folder();
    let corpus = write(
        folder.path(),
        "docs.jsonl.gz",
        "{\"docid\": 1, \"title\": \"T\", \"text\": \"p\"}\n{\"docid\": \"2\", \"text\": \"n\"}\n",
    );
    let lines = concat!(
        r#"{"query_id": 5, "query_text": "who", "query_image": null, "#,
        r#""positive_document_ids": ["1"], "negative_document_ids": [2]}"#,
        "\n",
        r#"{"query_id": 6, "query": "what", "positive_document_ids": ["2"], "negative_document_ids": []}"#,
    );
    let path = write(folder.path(), "t.jsonl", lines);
    let set = TrainingSet::open(&TrainingSource::File { path, corpus: Some(corpus) }).unwrap();
    assert_eq!(rows(&set), [row("5", "who", &["1"], &["2"]), row("6", "what", &["2"], &[])]);
    assert_eq!(texts(&set, set.row(0).positives), [passage("T", "p")]);
}

#[test]
fn flag_embedding_and_plain_rows_are_joined_by_content() {
    let folder = folder();
    let lines = concat!(
        r#"{"query": "a", "pos": ["p"], "neg": ["n", "m"], "pos_scores": [0.5], "prompt": "x"}"#,
        "\n",
        r#"{"query": "b", "positives": ["n", {"title": "T", "text": "p"}], "negatives": ["p"]}"#,
        "\n",
        r#"{"query": "c", "positives": ["m"]}"#,
    );
    let set = open_file(write(folder.path(), "f.jsonl", lines));
    assert_eq!(set.corpus().len(), 4);
    assert_eq!(set.row(0).negatives[0], set.row(1).positives[0]);
    assert_eq!(set.row(0).positives[0], set.row(1).negatives[0]);
    assert_eq!(set.summary().rows_without_negatives, 1);
    assert_eq!(set.query_id(set.row(2).query), "2");
}

#[test]
fn an_id_that_names_two_texts_gives_two_passages() {
    let folder = folder();
    let lines = concat!(
        "{\"query\": \"a\", \"positives\": [{\"docid\": \"0\", \"text\": \"x\"}]}\n",
        "{\"query\": \"b\", \"positives\": [{\"docid\": \"0\", \"text\": \"y\"}]}\n",
        "{\"query\": \"c\", \"positives\": [{\"docid\": \"0\", \"text\": \"y\"}]}\n",
    );
    let set = open_file(write(folder.path(), "f.jsonl", lines));
    assert_eq!(set.corpus().len(), 2);
    assert_eq!(texts(&set, set.row(1).positives), [passage("", "y")]);
    assert_eq!(set.row(1).positives, set.row(2).positives);
    assert_eq!(set.summary().passages_renamed, 1);
    assert!(set.passage_id(set.row(1).positives[0]).starts_with("0#"));
}

#[test]
fn the_fingerprint_is_of_the_data_and_not_of_its_compression() {
    let line = r#"{"query": "a", "pos": ["p"], "neg": ["n"]}
{"query": "b", "pos": ["p"], "neg": ["n"]}"#;
    let folder = folder();
    let fingerprint = |name, content: &str| open_file(write(folder.path(), name, content)).fingerprint();
    let plain = fingerprint("a.jsonl", line);
    assert_eq!(plain, fingerprint("a.jsonl.zst", line));
    assert_ne!(plain, fingerprint("b.jsonl", line.split_once('\n').unwrap().0));
    assert_ne!(plain, fingerprint("c.jsonl", &line.replace("\"n\"", "\"o\"")));
    assert_ne!(plain, fingerprint("d.jsonl", &line.replacen("\"neg\"", "\"not\"", 1)));
}

#[test]
fn the_summary_is_one_line_that_tells_only_what_is_so() {
    let folder = folder();
    let set =
        open_file(write(folder.path(), "a.jsonl", "{\"query\": \"a\", \"pos\": [\"p\"], \"neg\": [\"n\"]}"));
    assert_eq!(set.summary().to_string(), "1 rows, 2 passages, 1 hard negatives");
}
