//! Files of pairs and triples: every format read to its rows, and every way in which one is malformed.

mod common;

use common::{folder, write};
use contaccum_data::{Columns, Error, Note, Oddity, Strictness, TrainingSet, TrainingSource};

fn open(name: &str, content: &str, columns: &str, strictness: Strictness) -> Result<TrainingSet, Error> {
    let folder = folder();
    let path = write(folder.path(), name, content);
    let columns = if columns.is_empty() { Columns::default() } else { columns.parse().unwrap() };
    TrainingSet::open_with(&TrainingSource::File { path, corpus: None, columns }, strictness)
}

/// Every row as `query > positives > negatives`, texts in lists separated by `|`.
fn rows(set: &TrainingSet) -> Vec<String> {
    let text = |passage: &_| set.passage(*passage).unwrap().text;
    let texts = |passages: &[_]| passages.iter().map(text).collect::<Vec<_>>().join("|");
    let rows = (0..set.len()).map(|row| set.row(row));
    rows.map(|row| {
        let query = set.query_text(row.query).unwrap();
        format!("{query} > {} > {}", texts(row.positives), texts(row.negatives)).trim_end().to_owned()
    })
    .collect()
}

fn notes(set: &TrainingSet) -> Vec<&Oddity> {
    set.notes().iter().map(|note: &Note| &note.oddity).collect()
}

/// A file, what `columns` says, and its rows.
const FORMATS: [(&str, &str, &str, &[&str]); 24] = [
    ("a.jsonl", "[\"q\",\"p\"]\n\n [ \"r\", \"s\" ]\n", "", &["q > p >", "r > s >"]),
    ("a.jsonl.gz", "[\"q\",\"p\",\"n\"]\n[\"r\",\"s\",\"m\",\"o\"]", "", &["q > p > n", "r > s > m|o"]),
    ("a.jsonl", "[\"q\",[\"p\",\"s\"],[\"n\",\"m\"]]\n[\"r\",\"p\",null]", "", &["q > p|s > n|m", "r > p >"]),
    ("a.json", "[\n[\"q\",\"p\"],\n[\"r\",\"s\",\"n\"]]", "", &["q > p >", "r > s > n"]),
    ("a.json.zst", " [ {\"anchor\":\"q\",\"positive\":\"p\"} ]", "", &["q > p >"]),
    ("a", "[\"q\",\"p\"]\n", "", &["q > p >"]),
    ("a.jsonl", "{\"anchor\":\"q\",\"positive\":\"p\",\"negative\":\"n\"}", "", &["q > p > n"]),
    ("a.jsonl", "{\"question\":\"q\",\"answer\":\"p\"}", "", &["q > p >"]),
    ("a.jsonl", "{\"sentence1\":\"q\",\"sentence2\":\"p\"}", "", &["q > p >"]),
    (
        "a.jsonl",
        "{\"query\":\"q\",\"positive\":\"p\",\"negative_1\":\"n\",\"negative_2\":null,\"negative_10\":\"m\"}",
        "",
        &["q > p > n|m"],
    ),
    (
        "a.jsonl",
        "{\"query\":\"q\",\"positive\":[\"p\",\"s\"],\"negative\":[\"n\",\"m\"]}",
        "",
        &["q > p|s > n|m"],
    ),
    (
        "a.jsonl",
        "{\"query\":\"x\",\"ask\":\"q\",\"yes\":\"p\",\"also\":\"s\",\"no\":[\"n\"],\"negative\":\"y\"}",
        "query=ask,positive=yes,positive=also,negative=no",
        &["q > p|s > n"],
    ),
    ("a.jsonl", "{\"question\":\"p\",\"anchor\":\"q\"}", "positive=question", &["q > p >"]),
    ("a.tsv", "q\tp\nr\ts\n", "", &["q > p >", "r > s >"]),
    ("triples.train.small.tsv", "q\t\"p\" it is\tn\nr\ts\tm\r\n", "", &["q > \"p\" it is > n", "r > s > m"]),
    ("a.txt", "q\tp\tn\n", "", &["q > p > n"]),
    ("a.csv", "q,\"p, of\ntwo lines\"\n", "", &["q > p, of\ntwo lines >"]),
    ("a.csv", "anchor,positive,negative\nq,p,n\nr,s,\n", "", &["q > p > n", "r > s >"]),
    ("a.tsv", "Positive\tid\tQuery\n\"p \"\"1\"\"\"\t7\tq\n", "", &["q > p \"1\" >"]),
    (
        "a.csv.gz",
        "query,positive,negative_1,negative_2\nq,p,n,m\nr,s,,o\n",
        "",
        &["q > p > n|m", "r > s > o"],
    ),
    ("a.csv", "question,answer,negatives\nq,p,\"['n', \"\"m's\"\"]\"\n", "", &["q > p > n|m's"]),
    ("a.tsv", "query\tpos\tneg\nq\t[\"p\", \"s\"]\t['n' 'm']\n", "", &["q > p|s > n|m"]),
    ("a.csv", "question,context,answer\nq,p,a\n", "", &["q > p >"]),
    (
        "a.csv",
        "ask,x,yes,no 1,no 2\nq,y,p,n,m\n",
        "query=ask,positive=yes,negative=no 1,negative=no 2",
        &["q > p > n|m"],
    ),
];

#[test]
fn every_format_is_read_to_its_rows() {
    for (name, content, columns, expected) in FORMATS {
        let set = open(name, content, columns, Strictness::Lenient)
            .unwrap_or_else(|error| panic!("{content}: {error}"));
        assert_eq!(rows(&set), expected, "{name}: {content}");
        assert_eq!(set.summary().rows, expected.len());
    }
}

#[test]
fn an_answer_beside_a_passage_is_the_answer_and_not_the_positive() {
    for (name, content) in [
        ("a.csv", "question,context,answer\nq,p,a\n"),
        ("a.csv", "question,context,answers\nq,p,\"['a']\"\n"),
        ("a.jsonl", "{\"question\": \"q\", \"context\": \"p\", \"answer\": \"a\"}"),
    ] {
        let set = open(name, content, "", Strictness::Strict).unwrap();
        assert_eq!(set.queries().answers(set.row(0).query).unwrap(), ["a"], "{content}");
    }
    let set = open("a.jsonl", "{\"question\": \"q\", \"answer\": \"p\"}", "", Strictness::Strict).unwrap();
    assert!(set.queries().answers(set.row(0).query).unwrap().is_empty());
}

#[test]
fn equal_passages_of_many_rows_are_one_passage() {
    let set = open("a.tsv", "q\tp\tn\nq\tn\tp\n", "", Strictness::Lenient).unwrap();
    assert_eq!((set.len(), set.corpus().len()), (2, 2));
}

#[test]
fn a_table_without_a_header_and_columns_that_are_not_used_are_told() {
    let set = open("a.csv", "question text,passage text\nq,p\n", "", Strictness::Strict).unwrap();
    assert_eq!((set.len(), notes(&set)), (2, vec![&Oddity::WithoutHeader]));
    let told = set.notes().iter().next().unwrap().to_string();
    assert!(told.contains("names no column") && told.contains("first: line 1"), "{told}");
    let set = open("a.csv", "query,positive,score\nq,p,1\n", "", Strictness::Strict).unwrap();
    assert_eq!(notes(&set), [&Oddity::Unused("score".into())]);
}

/// A file, what `columns` says, and what the refusal says, read strictly.
const REFUSED: [(&str, &str, &str, &[&str]); 24] = [
    // A field is missing.
    (
        "a.jsonl",
        "[\"q\",\"p\"]\n[\"q\"]",
        "",
        &["line 2", "missing field `positives`", "[\"query\", \"positive\"]"],
    ),
    (
        "a.jsonl",
        "{\"positive\":\"p\"}",
        "",
        &["line 1", "missing field `query`", "{\"query\": \"...\", \"positive\""],
    ),
    ("a.jsonl", "{\"anchor\":\"q\",\"b\":\"p\"}", "", &["line 1", "missing field `positives`", "columns"]),
    // A value is of the wrong type.
    (
        "a.jsonl",
        "[\"q\",\"p\"]\n[{},\"p\"]",
        "",
        &["line 2", "`query` is an object where a text belongs", "expected"],
    ),
    ("a.jsonl", "{\"query\":\"q\",\"positive\":7}", "", &["line 1", "number", "strict"]),
    (
        "a.jsonl",
        "{\"query\":[\"q\"],\"positive\":\"p\"}",
        "",
        &["line 1", "`query` is a list where a text belongs"],
    ),
    ("a.jsonl", "\"q\"", "", &["line 1", "expected a JSON row such as"]),
    // There are too few columns, or too many.
    ("a.tsv", "q\tp\nr\n", "", &["line 2", "1 columns", "two columns (query, positive)"]),
    ("a.csv", "query,n,positive\nq,n\n", "", &["line 2", "2 columns", "negative_1"]),
    ("a.tsv", "q\tp\tn\tm\n", "", &["line 1", "4 columns", "a first line that names them"]),
    ("a.tsv", "query\tpositive\nq\tp\tcut\n", "", &["line 2", "3 columns"]),
    // A text is empty.
    ("a.csv", "query,positive\n ,p\n", "", &["line 2", "has no text"]),
    ("a.csv", "query,positive\nq,\n", "", &["line 2", "no title and no text"]),
    ("a.jsonl", "[\"q\",\"p\"]\n[\"q\",\"p\",\" \"]", "", &["line 2", "no title and no text"]),
    // JSON is broken.
    ("a.jsonl", "[\"q\",\"p\"]\n[\"q\",\"p\"", "", &["line 2", "broken JSON", "[\"query\", \"positive\"]"]),
    ("a.json", "[[\"q\",\"p\"],\n[\"q\",\"p\"]", "", &["line 2", "broken JSON"]),
    // A header names nothing that is known.
    (
        "a.csv",
        "question,reply\nq,p\n",
        "",
        &["line 1", "question, reply", "positive", "columns (positive=NAME)"],
    ),
    ("a.csv", "one,two,three,four\nq,p,n,m\n", "", &["line 1", "4 columns", "columns"]),
    // What columns says is not there.
    (
        "a.csv",
        "question,reply\nq,p\n",
        "positive=repl",
        &["line 1", "\"repl\"", "question, reply", "correct columns"],
    ),
    (
        "a.jsonl",
        "[\"q\",\"p\"]",
        "query=ask",
        &["line 1", "\"ask\"", "lists without names", "correct columns"],
    ),
    // A quote is not closed.
    ("a.csv", "query,positive\nq,p\nr,\"s\n", "", &["line 3", "a quote is opened", "close it"]),
    // Arrays and objects are mixed.
    (
        "a.jsonl",
        "[\"q\",\"p\"]\n{\"query\":\"q\",\"positive\":\"p\"}",
        "",
        &["line 2", "another shape", "strict"],
    ),
    // There are no rows.
    ("a.csv", "query,positive\n", "", &["a.csv", "no training row"]),
    // Ids are no texts.
    (
        "qidpidtriples.tsv",
        "12\t0\t345\n",
        "",
        &["line 1", "12, 0, 345", "ids", "collection.tsv", "hard_negatives_file"],
    ),
];

#[test]
fn every_malformed_file_is_refused_strictly_with_its_line_and_what_would_do() {
    for (name, content, columns, parts) in REFUSED {
        let Err(error) = open(name, content, columns, Strictness::Strict) else {
            panic!("{content} is read")
        };
        let message = error.to_string();
        for part in parts.iter().chain(&[name]) {
            assert!(message.contains(part), "{content:?}: {message:?} does not say {part:?}");
        }
        assert!(!message.contains('\n'), "{message:?} is more than one line");
    }
}

#[test]
fn rows_that_cannot_be_used_are_left_out_and_counted() {
    let good = "[\"q\",\"p\",\"n\"]\n".repeat(9);
    let odd = [
        ("[\"q\"]", Oddity::WithoutPositive),
        ("[]", Oddity::WithoutText),
        ("[\" \",\"p\"]", Oddity::WithoutText),
        ("[\"q\",\"\"]", Oddity::BlankInRow),
        ("[\"q\",[]]", Oddity::WithoutPositive),
        ("{\"query\":\"q\"}", Oddity::OtherShape),
    ];
    for (line, oddity) in odd {
        let set = open("a.jsonl", &format!("{good}{line}"), "", Strictness::Lenient).unwrap();
        assert_eq!((set.len(), set.notes().count(&oddity)), (9, 1), "{line}");
        assert_eq!(set.notes().iter().next().unwrap().first_line, 10);
    }
    let set = open("a.csv", "query,positive,negative\nq,p,\nr,s,n\n,p,n\n", "", Strictness::Lenient).unwrap();
    assert_eq!((set.len(), set.summary().negatives), (2, 1));
    assert_eq!(notes(&set), [&Oddity::WithoutText]);
}

#[test]
fn a_name_that_no_row_has_is_told_with_the_names_there_are_and_one_that_some_have_will_do() {
    let lines = "{\"ask\":\"q\",\"reply\":\"p\"}\n{\"ask\":\"r\",\"reply\":\"s\",\"no\":\"n\"}";
    let columns = "query=ask,positive=reply,negative=no";
    let set = open("a.jsonl", lines, columns, Strictness::Strict).unwrap();
    assert_eq!(rows(&set), ["q > p >", "r > s > n"]);
    let refused =
        open("a.jsonl", lines, "query=ask,positive=replies", Strictness::Lenient).err().unwrap().to_string();
    for part in ["line 1", "\"replies\"", "ask, reply", "correct columns"] {
        assert!(refused.contains(part), "{refused:?} does not say {part:?}");
    }
}

#[test]
fn the_json_rows_of_the_documentation_are_rows() {
    let documentation = include_str!("../../../docs/data.md");
    let section = documentation.split("## ").find(|section| section.starts_with("Training rows")).unwrap();
    let examples: Vec<&str> = section
        .lines()
        .flat_map(|line| line.split('`'))
        .filter(|code| code.starts_with(['[', '{']))
        .collect();
    assert_eq!(examples.len(), 8);
    let folder = folder();
    let corpus = write(folder.path(), "corpus.tsv", "7\ttext\n");
    for example in examples {
        let path = write(folder.path(), "rows.jsonl", example);
        let (corpus, columns) = (Some(corpus.clone()), Columns::default());
        let set = TrainingSet::open_with(&TrainingSource::File { path, corpus, columns }, Strictness::Strict);
        let set = set.unwrap_or_else(|error| panic!("{example}: {error}"));
        assert_eq!(set.len(), if example.starts_with("[[") { 2 } else { 1 }, "{example}");
    }
}

#[test]
fn graded_pairs_are_refused_unless_columns_says_that_all_belong_together() {
    let small = "query=sentence1,positive=sentence2";
    let files = [
        ("pairs.csv", small, 2, "sentence1,sentence2,score\na,b,0.2\nc,d,0.9\n"),
        ("capitals.csv", "query=Sentence1,positive=Sentence2", 1, "Sentence1,Sentence2,Score\na,b,0.2\n"),
        ("pairs.jsonl", small, 1, "{\"sentence1\": \"a\", \"sentence2\": \"b\", \"label\": 0}\n"),
    ];
    for (name, columns, rows, content) in files {
        let message = open(name, content, "", Strictness::Lenient).err().unwrap().to_string();
        assert!(message.contains("belong together") && message.contains("line 1"), "{message}");
        assert_eq!(open(name, content, columns, Strictness::Lenient).unwrap().len(), rows);
    }
}
