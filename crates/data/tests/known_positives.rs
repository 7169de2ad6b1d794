//! What a training set knows to be relevant to a query, besides the positive that a row draws.

mod common;

use std::collections::{BTreeSet, HashMap, VecDeque};

use common::{folder, write};
use contaccum_data::{
    BatchConfig, BatchPlan, PassageIndex, Positives, QueryIndex, TrainingSet, TrainingSource,
};

fn ids(set: &TrainingSet) -> BTreeSet<(&str, &str)> {
    let pairs = set.known_positives();
    pairs.map(|(query, passage)| (set.query_id(query), set.passage_id(passage))).collect()
}

fn file(lines: &str) -> TrainingSet {
    let folder = folder();
    let path = write(folder.path(), "rows.jsonl", lines);
    TrainingSet::open(&TrainingSource::file(path)).unwrap()
}

#[test]
fn all_judged_passages_of_a_query_are_known_and_equal_texts_are_one() {
    let folder = folder();
    let corpus = concat!(
        "{\"_id\": \"a\", \"title\": \"T\", \"text\": \"one\"}\n",
        "{\"_id\": \"b\", \"text\": \"one\"}\n",
        "{\"_id\": \"c\", \"title\": \"\", \"text\": \"one\"}\n",
        "{\"_id\": \"d\", \"title\": \"T\", \"text\": \"one\"}\n",
        "{\"_id\": \"e\", \"text\": \"two\"}\n",
    );
    write(folder.path(), "corpus.jsonl", corpus);
    let queries = "{\"_id\": \"q\", \"text\": \"?\"}\n{\"_id\": \"r\", \"text\": \"other\"}\n{\"_id\": \"s\", \"text\": \"?\"}\n";
    write(folder.path(), "queries.jsonl", queries);
    write(folder.path(), "qrels/train.tsv", "q\ta\t1\nq\te\t0\nr\tc\t2\ns\td\t1\ns\te\t1\n");
    let source =
        TrainingSource::Beir { folder: folder.path().into(), split: "train".into(), hard_negatives: None };
    let set = TrainingSet::open(&source).unwrap();
    // d is a under another id, c is b; s asks what q asks; q's judgment 0 of e says nothing.
    assert_eq!(ids(&set), BTreeSet::from([("q", "a"), ("q", "e"), ("r", "b")]));
    let first = |id| set.passage_id(set.corpus().first_of_equal(set.corpus().index_of(id).unwrap()));
    assert_eq!(["a", "b", "c", "d", "e"].map(first), ["a", "b", "b", "a", "e"]);
}

#[test]
fn a_file_knows_every_positive_of_every_row_with_the_query() {
    // DPR, Tevatron (texts in the row) and FlagEmbedding; a query twice, passages under ids and without.
    for lines in [
        r#"[{"question": "q", "positive_ctxs": [{"title": "", "text": "a"}, {"title": "", "text": "b"}]},
            {"question": "q", "positive_ctxs": [{"title": "", "text": "c"}]},
            {"question": "r", "positive_ctxs": [{"title": "", "text": "a"}]}]"#,
        r#"{"query_id": "1", "query": "q", "positive_passages": [{"docid": "x", "text": "a"}, {"docid": "y", "text": "b"}], "negative_passages": []}
{"query_id": "2", "query": "q", "positive_passages": [{"docid": "z", "text": "c"}], "negative_passages": []}
{"query_id": "3", "query": "r", "positive_passages": [{"docid": "w", "text": "a"}], "negative_passages": []}"#,
        r#"{"query": "q", "pos": ["a", "b"], "neg": []}
{"query": "q", "pos": ["c"], "neg": []}
{"query": "r", "pos": ["a"], "neg": []}"#,
    ] {
        let set = file(lines);
        let texts: BTreeSet<(String, String)> = set
            .known_positives()
            .map(|(query, passage)| (set.query_text(query).unwrap(), set.passage(passage).unwrap().text))
            .collect();
        let expected = [("q", "a"), ("q", "b"), ("q", "c"), ("r", "a")];
        assert_eq!(texts, expected.map(|(q, p)| (q.to_owned(), p.to_owned())).into());
        let queries: BTreeSet<QueryIndex> = set.known_positives().map(|(query, _)| query).collect();
        assert_eq!(queries.len(), 2);
    }
}

/// The share of rows that have another passage known to be relevant among their columns: the total batch, and a bank
/// of the positives before it.
fn touched(folder: &str, split: &str, total_batch: usize, bank: usize) -> Option<f64> {
    let source = common::shared_data()?.join(folder);
    let folder = tempfile::tempdir().unwrap();
    for name in ["corpus.jsonl", "queries.jsonl"] {
        std::fs::copy(source.join(name), folder.path().join(name)).unwrap();
    }
    // Cranfield judges two passages without text, which are no positives.
    let judgments = std::fs::read_to_string(source.join(format!("qrels/{split}.tsv"))).unwrap();
    let text = |line: &&str| !line.contains("\t471\t") && !line.contains("\t995\t");
    write(folder.path(), "qrels/train.tsv", judgments.lines().filter(text).collect::<Vec<_>>().join("\n"));
    let source =
        TrainingSource::Beir { folder: folder.path().into(), split: "train".into(), hard_negatives: None };
    let set = TrainingSet::open(&source).unwrap();
    let config = BatchConfig {
        seed: 1,
        total_batch,
        hard_negatives: 0,
        shuffle: true,
        positives: Positives::Random,
        no_duplicates: false,
        drop_last: true,
    };
    let plan = BatchPlan::new(set.rows().clone(), config).unwrap();
    let mut known: HashMap<QueryIndex, Vec<PassageIndex>> = HashMap::new();
    set.known_positives().for_each(|(query, passage)| known.entry(query).or_default().push(passage));
    let mut banked: VecDeque<PassageIndex> = VecDeque::new();
    let (mut rows, mut hit) = (0, 0);
    for update in 0..60 {
        let batch = plan.batch(update);
        if banked.len() == bank {
            rows += batch.len();
            let columns: BTreeSet<PassageIndex> =
                banked.iter().copied().chain(batch.iter().map(|sample| sample.positive)).collect();
            let others = batch.iter().filter(|sample| {
                let known = &known[&set.queries().first_of_equal(sample.query)];
                known.iter().any(|passage| *passage != sample.positive && columns.contains(passage))
            });
            hit += others.count();
        }
        banked.extend(batch.iter().map(|sample| sample.positive));
        banked.drain(..banked.len().saturating_sub(bank));
    }
    Some(hit as f64 / rows as f64)
}

#[test]
fn how_many_rows_have_a_known_positive_among_their_negatives_depends_on_the_data() {
    let (Some(few), Some(many)) =
        (touched("scifact", "train", 128, 512), touched("cranfield", "test", 128, 512))
    else {
        return;
    };
    println!("rows with a known positive among their negatives: SciFact {few:.3}, Cranfield {many:.3}");
    assert!((0.02..0.08).contains(&few) && (0.7..0.95).contains(&many), "{few} {many}");
}
