//! Every format, plain, gzip and zstd.

mod common;

use std::path::PathBuf;

use common::{folder, small_beir, write};
use contaccum_data::{
    Columns, Corpus, Oddity, Passage, PassageIndex, Positives, Qrels, Queries, QueryIndex, TrainingSet,
    TrainingSource,
};

fn passage(title: &str, text: &str) -> Passage {
    Passage { title: title.into(), text: text.into() }
}

fn open_file(path: PathBuf) -> TrainingSet {
    TrainingSet::open(&TrainingSource::file(path)).unwrap()
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
fn a_hard_negative_file_adds_to_the_judged_rows_and_makes_none() {
    let folder = small_beir();
    let contents = [
        "query-id\tgold-id\tneg-ids\nq1\td1\td2,d3,d2\nq2\td1\td3\nq1\td9\t\n",
        "neg-ids\tqid\nd2,d3,d2\tq1\nd3\tq2\n",
        "q1\td2,d3,d2\nq2\td3\n",
    ];
    for (name, content) in ["hard.tsv", "hard.tsv.gz", "hard.tsv.zst"].into_iter().zip(contents) {
        let hard = write(folder.path(), name, content);
        let source = TrainingSource::Beir {
            folder: folder.path().into(),
            split: "train".into(),
            hard_negatives: Some(hard),
        };
        let set = TrainingSet::open(&source).unwrap();
        // Rows in the order of the judgments; d3 is judged relevant to q2, and d2 is named twice.
        assert_eq!(
            rows(&set),
            [row("q2", "two?", &["d2", "d3"], &[]), row("q1", "one?", &["d1"], &["d2", "d3"])]
        );
        assert_eq!(set.summary().negatives_left_out, 1);
        assert_eq!(set.notes().count(&Oddity::RelevantNegative), 1);
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
        assert_eq!(set.notes().count(&Oddity::WithoutPositive), 1);
        assert_eq!(set.default_positives(), Positives::First);
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
    let set =
        TrainingSet::open(&TrainingSource::File { path, corpus: Some(corpus), columns: Columns::default() })
            .unwrap();
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
    assert_eq!(set.default_positives(), Positives::Random);
    assert_eq!((set.row_prompt(0), set.row_prompt(1), set.row_prompt(9)), (Some("x"), None, None));
    let notes: Vec<String> = set.notes().iter().map(ToString::to_string).collect();
    let said = |what: &str| notes.iter().any(|note| note.contains("f.jsonl: 1 row ") && note.contains(what));
    assert!(notes.len() == 2 && said("pos_scores") && said("prompt of its own"), "{notes:?}");
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
    let fingerprint = |name, content: &str| {
        let set = open_file(write(folder.path(), name, content));
        (set.rows_fingerprint(), set.texts_fingerprint())
    };
    let plain = fingerprint("a.jsonl", line);
    assert_eq!(plain, fingerprint("a.jsonl.zst", line));
    assert_ne!(plain, fingerprint("b.jsonl", line.split_once('\n').unwrap().0));
    assert_ne!(plain, fingerprint("c.jsonl", &line.replace("\"n\"", "\"o\"")));
    assert_ne!(plain, fingerprint("d.jsonl", &line.replacen("\"neg\"", "\"not\"", 1)));
    let other_query = fingerprint("e.jsonl", &line.replace("\"b\"", "\"c\""));
    assert_eq!((plain.0, plain.1 != other_query.1), (other_query.0, true), "texts alone differ");
}

#[test]
fn texts_under_the_same_ids_and_of_the_same_length_are_told_apart() {
    let folder = folder();
    let corpus =
        |content: &str| Corpus::open(&write(folder.path(), "c.jsonl", content)).unwrap().fingerprint();
    let line = r#"{"_id": "1", "title": "ab", "text": "c"}"#;
    let same = r#"{"text": "c", "_id": "1", "more": 5, "title": "ab"}"#;
    assert_eq!(corpus(line), corpus(same));
    assert_ne!(corpus(line), corpus(r#"{"_id": "1", "title": "a", "text": "bc"}"#));
    assert_ne!(corpus(line), corpus(r#"{"_id": "1", "title": "ab", "text": "d"}"#));
    assert_ne!(corpus(line), corpus(r#"{"_id": "2", "title": "ab", "text": "c"}"#));
    let (a, b) = (r#"{"_id": "1", "text": "a"}"#, r#"{"_id": "2", "text": "b"}"#);
    assert_ne!(corpus(&format!("{a}\n{b}")), corpus(&format!("{b}\n{a}")));
    let path = write(folder.path(), "q.jsonl", format!("{a}\n{b}"));
    let queries = Queries::open(&path).unwrap();
    let both = [QueryIndex(0), QueryIndex(1)];
    assert_eq!(queries.fingerprint_of(&both).unwrap(), queries.fingerprint());
    assert_ne!(queries.fingerprint_of(&both[..1]).unwrap(), queries.fingerprint());
}

#[test]
fn the_summary_is_one_line_that_tells_only_what_is_so() {
    let folder = folder();
    let set =
        open_file(write(folder.path(), "a.jsonl", "{\"query\": \"a\", \"pos\": [\"p\"], \"neg\": [\"n\"]}"));
    assert_eq!(set.summary().to_string(), "1 rows, 2 passages, 1 hard negatives");
}

#[test]
fn columns_go_by_the_names_of_a_header_in_any_order_with_others_between() {
    let folder = folder();
    let tables = [
        ("c.tsv", "id\ttitle\ttext\n1\tT\tred bridge\n\n2\t\t\"blue\" river\n"),
        ("c.tsv", "URL\tContents\tTitle\tDocID\nu\tred bridge\tT\t1\nu\t\"blue\" river\t\t2\r\n"),
        ("c.csv", "text,title,_id,rank\nred bridge,T,1,9\n\"\"\"blue\"\" river\",,2,8\n"),
        ("c.csv.gz", "\u{feff}pid,passage,title\r\n1,red bridge,T\r\n2,\"\"\"blue\"\" river\",\r\n"),
        ("c.txt", "id\ttext\ttitle\n1\tred bridge\tT\n2\t\"blue\" river\n"),
    ];
    for (name, content) in tables {
        let corpus = Corpus::open(&write(folder.path(), name, content)).unwrap();
        assert_eq!(
            (corpus.len(), corpus.id(PassageIndex(0)), corpus.id(PassageIndex(1))),
            (2, "1", "2"),
            "{name}"
        );
        assert_eq!(corpus.get(PassageIndex(0)).unwrap(), passage("T", "red bridge"), "{content}");
        assert_eq!(corpus.get(PassageIndex(1)).unwrap(), passage("", "\"blue\" river"), "{content}");
    }
    let queries = Queries::open(&write(folder.path(), "q.tsv", "qid\tquery\n1\tRed bridge\n")).unwrap();
    assert_eq!((queries.len(), queries.text(QueryIndex(0)).unwrap().as_str()), (1, "Red bridge"));
}

#[test]
fn a_quoted_field_of_csv_runs_over_lines_and_one_that_is_not_closed_swallows_nothing_in_a_tsv() {
    let folder = folder();
    let csv = write(folder.path(), "c.csv", "id,text\n1,\"two\nlines, one field\"\n2,next\n");
    let corpus = Corpus::open(&csv).unwrap();
    assert_eq!(corpus.get(PassageIndex(0)).unwrap().text, "two\nlines, one field");
    assert_eq!(corpus.len(), 2);
    for content in ["id\ttext\n1\t\"open\n2\tnext\n", "1\t\"open\n2\tnext\n"] {
        let corpus = Corpus::open(&write(folder.path(), "c.tsv", content)).unwrap();
        assert_eq!(corpus.get(PassageIndex(0)).unwrap().text, "\"open");
        assert_eq!(corpus.len(), 2);
    }
}

#[test]
fn a_carriage_return_inside_a_line_is_a_character() {
    let folder = folder();
    let corpus = Corpus::open(&write(folder.path(), "c.tsv", "1\ta\rb\r\n2\tc\n")).unwrap();
    assert_eq!(corpus.get(PassageIndex(0)).unwrap().text, "a\rb");
}

#[test]
fn json_is_read_whatever_the_file_is_called_and_as_an_array_too() {
    let folder = folder();
    let lines = "{\"docid\": 1, \"text\": \"x\"}\n{\"docid\": 2, \"text\": \"y\"}\n";
    let array = "[{\"docid\": 1, \"text\": \"x\"},\n {\"docid\": 2, \"text\": \"y\"}]";
    for (name, content) in
        [("c.tsv", lines), ("c.txt", lines), ("corpus", lines), ("c.json", array), ("c", array)]
    {
        let corpus = Corpus::open(&write(folder.path(), name, content)).unwrap();
        assert_eq!((corpus.len(), corpus.index_of("2")), (2, Some(PassageIndex(1))), "{name}");
    }
}

#[test]
fn judgments_are_found_by_the_names_of_their_columns_and_between_blank_lines() {
    let folder = folder();
    let expected = [("q1".to_owned(), vec![("d1".to_owned(), 1), ("d2".to_owned(), 0)])];
    let files = [
        ("a.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t1\n\n  \nq1\td2\t0\n\n"),
        ("a.tsv", "query_id\titeration\tdoc_id\trelevance\nq1\t0\td1\t1.0\nq1\t0\td2\t0\n"),
        ("a.csv", "score,qid,pid\n1,q1,d1\n0,q1,d2\n"),
        ("a.qrels", "q1 0 d1 1\nq1\t0  d2 0\r\n"),
        ("a.qrels", "q1\t0\td1\t1\nq1\t0\td2\t0\n"),
        ("a", "query-id corpus-id score\nq1 d1 1\nq1 d2 0\n"),
    ];
    for (name, content) in files {
        let qrels = Qrels::open(&write(folder.path(), name, content)).unwrap();
        let read: Vec<_> = qrels.iter().map(|(query, judged)| (query.to_owned(), judged.to_vec())).collect();
        assert_eq!(read, expected, "{content}");
    }
}

#[test]
fn ids_mean_the_same_in_every_file() {
    let folder = folder();
    let corpus = write(
        folder.path(),
        "corpus.jsonl",
        "{\"_id\": \" d 1\", \"text\": \"x\"}\n{\"_id\": \"\u{a0}\", \"text\": \"y\"}\n",
    );
    write(
        folder.path(),
        "queries.jsonl",
        "{\"_id\": \"q 1 \", \"text\": \"x?\"}\n{\"_id\": 2, \"text\": \"y?\"}\n",
    );
    write(folder.path(), "qrels/train.tsv", "query-id\tcorpus-id\tscore\n q 1\td 1 \t1\n2\t\u{a0}\t1\n");
    let hard = write(folder.path(), "hard.tsv", "q 1 \td 1\t \u{a0} , d 1\n");
    let source = TrainingSource::Beir {
        folder: folder.path().into(),
        split: "train".into(),
        hard_negatives: Some(hard),
    };
    let set = TrainingSet::open(&source).unwrap();
    assert_eq!(rows(&set), [row("q 1", "x?", &["d 1"], &["\u{a0}"]), row("2", "y?", &["\u{a0}"], &[])]);
    let corpus = Corpus::open(&corpus).unwrap();
    assert_eq!((corpus.notes().count(&Oddity::PaddedId), corpus.notes().count(&Oddity::SpaceInId)), (1, 1));
}
