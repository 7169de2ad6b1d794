//! Data as it is: odd lines are read or left out, counted, and told once.

mod common;

use common::{folder, small_beir, write};
use contaccum_data::{
    Corpus, Notes, Oddity, PassageIndex, Qrels, Queries, QueryIndex, TrainingSet, TrainingSource,
};

fn told(notes: &Notes) -> Vec<String> {
    let line = |note: &contaccum_data::Note| {
        let file = note.path.file_name().unwrap().to_string_lossy().into_owned();
        note.to_string().replace(&note.path.display().to_string(), &file)
    };
    notes.iter().map(line).collect()
}

#[test]
fn lines_that_cannot_be_used_are_left_out_and_told_once_a_kind_with_their_first_line() {
    let folder = folder();
    let lines = concat!(
        "{\"_id\": \"a\", \"text\": \"x\"}\n",
        "{\"_id\": \"b\"}\n",
        "{\"_id\": \"c\", \"text\": null}\n",
        "{\"_id\": \"a\", \"text\": \"again\"}\n",
        "{\"text\": \"nobody\"}\n",
        "{\"_id\": \"d\", \"text\": \"y\"}\n",
        "{\"_id\": \"e\", \"title\": \"T\"}\n",
        "{\"_id\": \"f\", \"title\": \"\", \"text\": \"\"}\n",
        "{\"_id\": null, \"text\": \"x\"}\n",
        "{\"_id\": \"g\", \"text\": \"z\"}\n",
    );
    let corpus = Corpus::open(&write(folder.path(), "corpus.jsonl", lines)).unwrap();
    let ids: Vec<&str> = (0..corpus.len() as u32).map(|passage| corpus.id(PassageIndex(passage))).collect();
    assert_eq!(ids, ["a", "d", "e", "f", "g"]);
    assert_eq!(corpus.get(PassageIndex(0)).unwrap().text, "x");
    assert_eq!(corpus.get(PassageIndex(2)).unwrap().title, "T");
    assert_eq!(
        told(corpus.notes()),
        [
            "corpus.jsonl: 2 lines without text left out (first: line 2)",
            "corpus.jsonl: 1 line whose id came before left out, the first kept (first: line 4)",
            "corpus.jsonl: 2 lines without an id left out (first: line 5)",
            "corpus.jsonl: 1 passage of no title and no text, kept and ranked like any other (first: line 8)",
        ]
    );
}

#[test]
fn a_clean_file_has_no_notes() {
    let folder = folder();
    write(
        folder.path(),
        "corpus.jsonl",
        "{\"_id\": 1, \"title\": null, \"text\": \"x\", \"url\": {\"a\": [1]}}\n",
    );
    assert_eq!(Corpus::open(folder.path()).unwrap().notes().iter().len(), 0);
}

#[test]
fn what_python_writes_is_read() {
    let folder = folder();
    let lines = concat!(
        "{\"_id\": \"1\", \"title\": NaN, \"text\": \"red NaN\"}\n",
        "{\"_id\": \"2\", \"text\": \"red \\ud83d bridge\", \"score\": -Infinity}\n",
        "{\"_id\": 3.0, \"text\": 1984}\n",
        "{\"_id\": 18446744073709551617, \"text\": \"\\ud83d\\ude00\", \"metadata\": [{}]}\n",
    );
    let corpus = Corpus::open(&write(folder.path(), "corpus.jsonl", lines)).unwrap();
    let text = |id: &str| corpus.get(corpus.index_of(id).unwrap()).unwrap().text;
    assert_eq!((text("1").as_str(), text("2").as_str()), ("red NaN", "red \u{fffd} bridge"));
    assert_eq!((text("3").as_str(), text("18446744073709551617").as_str()), ("1984", "\u{1f600}"));
    assert_eq!(corpus.get(PassageIndex(0)).unwrap().title, "");
    for (oddity, count) in [
        (Oddity::NotANumber, 2),
        (Oddity::LoneSurrogate, 1),
        (Oddity::NumberAsText, 1),
        (Oddity::FractionalId, 1),
    ] {
        assert_eq!(corpus.notes().count(&oddity), count, "{oddity:?}");
    }
}

#[test]
fn a_field_that_is_not_needed_stops_nothing_whatever_it_holds() {
    let folder = folder();
    let content = r#"[{"question":"red","answers":[1, "two", null],"dataset":{"a":NaN},
  "positive_ctxs":[{"title":null,"text":"red bridge","score":NaN,"title_score":"x","passage_id":7}]}]"#;
    let path = write(folder.path(), "train.json", content);
    let set = TrainingSet::open(&TrainingSource::file(path)).unwrap();
    assert_eq!(set.passage(set.row(0).positives[0]).unwrap().text, "red bridge");
    assert_eq!(set.passage_id(set.row(0).positives[0]), "7");
    assert_eq!(set.queries().answers(QueryIndex(0)).unwrap(), ["1", "two"]);
    assert_eq!(set.notes().count(&Oddity::Unused("dataset".into())), 1);
}

#[test]
fn answers_of_any_shape_stop_no_query() {
    let folder = folder();
    let lines = concat!(
        "{\"_id\": \"a\", \"text\": \"x\", \"answers\": {\"text\": [\"y\"]}}\n",
        "{\"_id\": \"b\", \"text\": \"x\", \"answers\": \"one\"}\n",
        "{\"_id\": \"c\", \"text\": \"x\", \"answers\": null}\n",
        "{\"_id\": \"d\", \"text\": \"x\", \"answers\": [[\"z\"]]}\n",
    );
    let queries = Queries::open(&write(folder.path(), "q.jsonl", lines)).unwrap();
    let answers: Vec<Vec<String>> = (0..4).map(|query| queries.answers(QueryIndex(query)).unwrap()).collect();
    assert_eq!(answers, [vec![], vec!["one".to_owned()], vec![], vec![]]);
    assert_eq!(queries.notes().count(&Oddity::Answers), 2);
}

#[test]
fn judgments_that_name_what_is_not_there_are_left_out_and_counted() {
    let folder = small_beir();
    let qrels = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t1\nq2\tNOPE\t1\nPLAIN-2\td1\t1\n";
    write(folder.path(), "qrels/train.tsv", qrels);
    let source =
        TrainingSource::Beir { folder: folder.path().into(), split: "train".into(), hard_negatives: None };
    let set = TrainingSet::open(&source).unwrap();
    assert_eq!((set.len(), set.row(1).positives.len()), (2, 1));
    let told = told(set.notes());
    assert!(
        told.contains(
            &"train.tsv: 1 line left out, naming a passage that is not in the corpus (first: line 4)".into()
        ),
        "{told:?}"
    );
    assert!(
        told.contains(
            &"train.tsv: 1 line left out, naming a query that is not in the queries (first: line 5)".into()
        ),
        "{told:?}"
    );
}

#[test]
fn a_pair_judged_again_keeps_its_first_judgment() {
    let folder = folder();
    let qrels = Qrels::open(&write(folder.path(), "a.tsv", "q\td\t1\nq\td\t0\nq\td\t1\nq\te\t2\n")).unwrap();
    assert_eq!(qrels.judgments("q"), [("d".to_owned(), 1), ("e".to_owned(), 2)]);
    assert_eq!(qrels.notes().count(&Oddity::RepeatedJudgment), 2);
}

#[test]
fn hard_negatives_that_are_not_there_are_left_out_and_counted() {
    let folder = small_beir();
    let hard = write(folder.path(), "hard.tsv", "q1\td1\td9,d2\nq2\td1\td8\nq7\td1\td2\n");
    let source = TrainingSource::Beir {
        folder: folder.path().into(),
        split: "train".into(),
        hard_negatives: Some(hard),
    };
    let set = TrainingSet::open(&source).unwrap();
    assert_eq!(set.summary().negatives, 1);
    assert_eq!(set.notes().count(&Oddity::UnknownNegative), 2);
    assert_eq!(set.notes().count(&Oddity::UnusedNegatives), 1);
}

#[test]
fn a_query_asked_twice_is_two_rows() {
    let folder = folder();
    let lines = concat!(
        "{\"query_id\": 1, \"query\": \"a\", \"positive_passages\": [{\"docid\": \"p\", \"text\": \"p\"}]}\n",
        "{\"query_id\": 1, \"query\": \"a\", \"positive_passages\": [{\"docid\": \"q\", \"text\": \"q\"}]}\n",
        "{\"query_id\": 1, \"query\": \"b\", \"positive_passages\": [{\"docid\": \"p\", \"text\": \"p\"}]}\n",
        "{\"query\": \"b\", \"positive_passages\": [{\"docid\": \"p\", \"text\": \"p\"}]}\n",
    );
    let path = write(folder.path(), "t.jsonl", lines);
    let set = TrainingSet::open(&TrainingSource::file(path)).unwrap();
    assert_eq!(set.len(), 4);
    assert_eq!(set.row(0).query, set.row(1).query);
    assert_eq!(set.query_text(set.row(2).query).unwrap(), "b");
    assert!(set.query_id(set.row(2).query).starts_with("1#"));
    assert_ne!(set.row(2).query, set.row(3).query);
}

#[test]
fn passages_of_rows_without_text_are_left_out_and_a_row_goes_with_its_last_positive() {
    let folder = folder();
    let lines = concat!(
        "{\"query\": \"a\", \"pos\": [\"\", \"p\", null], \"neg\": [\"n\", \" \"]}\n",
        "{\"query\": \"b\", \"pos\": [\"\"], \"neg\": [\"n\"]}\n",
        "{\"query\": \"c\", \"pos\": [\"p\"], \"prompt\": null}\n",
    );
    let path = write(folder.path(), "t.jsonl", lines);
    let set = TrainingSet::open(&TrainingSource::file(path)).unwrap();
    assert_eq!((set.len(), set.row(0).positives.len(), set.row(0).negatives.len()), (2, 1, 1));
    assert_eq!(set.notes().count(&Oddity::BlankInRow), 4);
    assert_eq!(set.notes().count(&Oddity::WithoutPositive), 1);
}

#[test]
fn fields_of_any_number_of_names_are_told_in_few_lines() {
    let folder = folder();
    let lines: String = (0..100)
        .map(|i| format!("{{\"query\": \"a\", \"pos\": [\"p\"], \"field{i}\": 1, \"x\": 2}}\n"))
        .collect();
    let path = write(folder.path(), "t.jsonl", lines);
    let set = TrainingSet::open(&TrainingSource::file(path)).unwrap();
    assert_eq!(set.notes().iter().len(), 17);
    assert_eq!(set.notes().count(&Oddity::Unused("x".into())), 100);
}
