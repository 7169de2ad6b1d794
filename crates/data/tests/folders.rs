//! MS MARCO's files and those of other collections: folders, id triples, questions with answers.

mod common;

use common::{folder, small_beir, write};
use contaccum_data::{
    Corpus, Oddity, PassageIndex, Qrels, Queries, QueryIndex, Strictness, TrainingSet, TrainingSource,
};

/// A folder as MS MARCO's passages are unpacked, with a split `train` and a split `dev.small`.
fn ms_marco() -> tempfile::TempDir {
    let folder = folder();
    let files = [
        ("collection.tsv.gz", "0\tThe \"first\" passage.\n1\tThe second.\n2\tThe third.\n"),
        ("queries.train.tsv", "31\twho is first\n32\twho is second\n33\tnot judged\n"),
        ("queries.dev.small.tsv", "51\twho is third\n"),
        ("qrels.train.tsv", "31\t0\t0\t1\n32\t0\t1\t1\n"),
        ("qrels.dev.small.tsv", "51\t0\t2\t1\n"),
        ("qidpidtriples.train.small.tsv", "31\t0\t1\n31\t0\t2\n32\t1\t0\n33\t1\t0\n32\t1\t9\n"),
    ];
    for (name, content) in files {
        write(folder.path(), name, content);
    }
    folder
}

fn open(folder: &tempfile::TempDir, split: &str, hard_negatives: Option<&str>) -> TrainingSet {
    let hard_negatives = hard_negatives.map(|name| folder.path().join(name));
    let source = TrainingSource::Beir { folder: folder.path().into(), split: split.into(), hard_negatives };
    TrainingSet::open(&source).unwrap()
}

#[test]
fn a_folder_of_ms_marco_is_read_as_one_of_beir() {
    let folder = ms_marco();
    let set = open(&folder, "train", None);
    let queries: Vec<String> =
        (0..set.len()).map(|row| set.query_text(set.row(row).query).unwrap()).collect();
    assert_eq!(queries, ["who is first", "who is second"]);
    assert_eq!(set.passage(set.row(0).positives[0]).unwrap().text, "The \"first\" passage.");
    assert_eq!((set.summary().passages, set.notes().iter().len()), (3, 0));
    let dev = open(&folder, "dev.small", None);
    assert_eq!((dev.len(), dev.passage_id(dev.row(0).positives[0])), (1, "2"));
    assert_eq!(Corpus::open(folder.path()).unwrap().len(), 3);
}

#[test]
fn triples_of_ids_are_hard_negatives_of_the_judged_queries() {
    let set = open(&ms_marco(), "train", Some("qidpidtriples.train.small.tsv"));
    let negatives = |row| set.row(row).negatives.iter().map(|one| set.passage_id(*one)).collect::<Vec<_>>();
    assert_eq!((negatives(0), negatives(1)), (vec!["1", "2"], vec!["0"]));
    assert_eq!(set.notes().count(&Oddity::UnusedNegatives), 1);
    assert_eq!(set.notes().count(&Oddity::UnknownNegative), 1);
}

#[test]
fn a_split_that_is_not_there_is_told_with_those_that_are() {
    let folder = ms_marco();
    let message = Qrels::open_split(folder.path(), "dev").unwrap_err().to_string();
    assert!(message.contains("these splits: dev.small, train"), "{message}");
    let message = Queries::open(folder.path()).err().unwrap().to_string();
    assert!(message.contains("queries.jsonl") && message.contains("queries.tsv as in MS MARCO"), "{message}");
    let missing =
        Queries::open_split_with(folder.path(), "dev", Strictness::Lenient).err().unwrap().to_string();
    assert!(missing.contains("queries.dev.tsv"), "{missing}");
}

#[test]
fn files_of_beir_come_before_those_of_ms_marco() {
    let folder = small_beir();
    write(folder.path(), "collection.tsv", "0\tother\n");
    write(folder.path(), "queries.train.tsv", "0\tother\n");
    write(folder.path(), "qrels.train.tsv", "0\t0\t0\t1\n");
    assert_eq!(open(&folder, "train", None).len(), 2);
}

#[test]
fn questions_with_answers_of_dpr_are_queries_by_their_number() {
    let content = "who, or what?\t['A', \"B's\"]\n\t['nobody']\nwhere\t\"[\"\"C\"\"]\"\nhow\t[broken\n";
    for name in ["nq-test.qas.csv", "nq-test.csv.gz", "qas.tsv", "qas"] {
        let folder = folder();
        let queries = Queries::open(&write(folder.path(), name, content)).unwrap();
        let ids: Vec<&str> = (0..3).map(|query| queries.id(QueryIndex(query))).collect();
        assert_eq!(ids, ["0", "2", "3"], "{name}");
        assert_eq!(queries.text(QueryIndex(0)).unwrap(), "who, or what?");
        let answers = [0, 1, 2].map(|query| queries.answers(QueryIndex(query)).unwrap());
        assert_eq!(answers, [vec!["A".to_owned(), "B's".into()], vec!["C".into()], vec![]]);
        assert_eq!(queries.notes().count(&Oddity::Answers), 1);
    }
}

#[test]
fn answers_stand_in_a_column_of_a_table_too() {
    let folder = folder();
    let path = write(
        folder.path(),
        "q.csv",
        "id,question,answers\n7,who?,\"[\"\"A\"\", \"\"B\"\"]\"\n8,what?,C\n9,how?,\n",
    );
    let queries = Queries::open(&path).unwrap();
    let answers = [0, 1, 2].map(|query| queries.answers(QueryIndex(query)).unwrap().join("|"));
    assert_eq!((queries.id(QueryIndex(0)), answers), ("7", ["A|B", "C", ""].map(str::to_owned)));
}

#[test]
fn the_contents_of_pyserini_are_the_text() {
    let folder = folder();
    let path = write(folder.path(), "docs.jsonl", "{\"id\": \"d\", \"contents\": \"first line\\nsecond\"}");
    let passage = Corpus::open(&path).unwrap().get(PassageIndex(0)).unwrap();
    assert_eq!((passage.title.as_str(), passage.text.as_str()), ("", "first line\nsecond"));
}
