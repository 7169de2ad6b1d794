//! Readers under arbitrary content: what is written is read back, and no bytes make them panic.

mod common;

use std::collections::BTreeMap;

use common::{folder, write};
use contaccum_data::{Corpus, PassageIndex, Qrels, Queries, QueryIndex, TrainingSet, TrainingSource};
use proptest::prelude::*;
use serde_json::json;

const ENDINGS: [&str; 3] = ["", ".gz", ".zst"];

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof!["\\PC{0,20}", any::<String>()]
}

/// Arbitrary bytes after a compressed file's first ones.
fn after(magic: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..60).prop_map(move |tail| [magic, &tail].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_unicode_passages_come_back_as_written(
        passages in prop::collection::btree_map("[^\\p{C} ]{1,8}", (any_text(), any_text()), 1..20),
        ending in prop::sample::select(&ENDINGS[..]),
    ) {
        let folder = folder();
        let lines: Vec<String> = passages
            .iter()
            .map(|(id, (title, text))| json!({"_id": id, "title": title, "text": text}).to_string())
            .collect();
        let path = write(folder.path(), &format!("c.jsonl{ending}"), lines.join("\n"));
        let corpus = Corpus::open(&path).unwrap();
        prop_assert_eq!(corpus.len(), passages.len());
        for (number, (id, (title, text))) in (0..).zip(&passages) {
            let index = PassageIndex(number);
            let passage = corpus.get(index).unwrap();
            prop_assert_eq!((corpus.id(index), corpus.index_of(id)), (id.as_str(), Some(index)));
            prop_assert_eq!((&passage.title, &passage.text), (title, text));
            prop_assert_eq!(corpus.is_blank(index), title.trim().is_empty() && text.trim().is_empty());
        }
    }

    #[test]
    fn any_unicode_queries_and_answers_come_back_as_written(
        queries in prop::collection::btree_map(
            "[^\\p{C} ]{1,8}",
            ("a\\PC{0,20}", prop::collection::vec(any_text(), 0..4)),
            1..20,
        ),
    ) {
        let folder = folder();
        let lines: Vec<String> = queries
            .iter()
            .map(|(id, (text, answers))| json!({"_id": id, "text": text, "answers": answers}).to_string())
            .collect();
        let read = Queries::open(&write(folder.path(), "q.jsonl", lines.join("\n"))).unwrap();
        for (number, (id, (text, answers))) in (0..).zip(&queries) {
            prop_assert_eq!(read.index_of(id), Some(QueryIndex(number)));
            prop_assert_eq!(&read.text(QueryIndex(number)).unwrap(), text);
            prop_assert_eq!(&read.answers(QueryIndex(number)).unwrap(), answers);
        }
    }

    #[test]
    fn judgments_come_back_as_written(
        judged in prop::collection::btree_map(
            ("[^\\s\\p{C}]{1,6}", "[^\\s\\p{C}]{1,6}"),
            any::<i32>(),
            1..30,
        ),
        trec: bool,
    ) {
        let folder = folder();
        let lines: Vec<String> = judged
            .iter()
            .map(|((query, passage), relevance)| {
                let separator = if trec { " 0 " } else { "\t" };
                format!("{query}{separator}{passage}{}{relevance}", if trec { " " } else { "\t" })
            })
            .collect();
        let qrels = Qrels::open(&write(folder.path(), "qrels", lines.join("\n"))).unwrap();
        let mut expected: BTreeMap<&str, Vec<(String, i32)>> = BTreeMap::new();
        for ((query, passage), relevance) in &judged {
            expected.entry(query).or_default().push((passage.clone(), *relevance));
        }
        let read: Vec<(&str, Vec<(String, i32)>)> =
            qrels.iter().map(|(query, list)| (query, list.to_vec())).collect();
        prop_assert_eq!(read, expected.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_row_reads_the_same_in_an_array_and_on_a_line(
        rows in prop::collection::vec(
            (
                "a\\PC{0,10}",
                prop::collection::vec("b\\PC{0,6}", 1..4),
                prop::collection::vec(any_text(), 0..4),
            ),
            1..12,
        ),
    ) {
        let folder = folder();
        let objects: Vec<serde_json::Value> = rows
            .iter()
            .map(|(query, pos, neg)| json!({"query": query, "pos": pos, "neg": neg}))
            .collect();
        let lines: Vec<String> = objects.iter().map(ToString::to_string).collect();
        let open = |name, content: String| {
            let path = write(folder.path(), name, content);
            TrainingSet::open(&TrainingSource::file(path)).unwrap()
        };
        let by_line = open("rows.jsonl", lines.join("\n"));
        let array = open("rows.json", serde_json::to_string_pretty(&objects).unwrap());
        prop_assert_eq!(by_line.len(), rows.len());
        prop_assert_eq!(by_line.rows_fingerprint(), array.rows_fingerprint());
        prop_assert_eq!(by_line.texts_fingerprint(), array.texts_fingerprint());
        for (number, (query, pos, _)) in rows.iter().enumerate() {
            let row = array.row(number);
            prop_assert_eq!(&array.query_text(row.query).unwrap(), query);
            prop_assert_eq!(&array.passage(row.positives[0]).unwrap().text, &pos[0]);
            prop_assert!(row.negatives.iter().all(|negative| !row.positives.contains(negative)));
        }
    }

    #[test]
    fn no_bytes_make_a_reader_panic(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            prop::collection::vec(prop::sample::select(&b"[]{}\":,\t\n 01aq\\"[..]), 0..200),
            after(&[0x1f, 0x8b, 8, 0]),
            after(&[0x28, 0xb5, 0x2f, 0xfd]),
        ],
    ) {
        let folder = folder();
        for name in ["x.jsonl", "x.tsv", "x.csv", "x"] {
            let path = folder.path().join(name);
            std::fs::write(&path, &bytes).unwrap();
            let messages = [
                Corpus::open(&path).err(),
                Queries::open(&path).err(),
                Qrels::open(&path).err(),
                TrainingSet::open(&TrainingSource::file(path)).err(),
            ];
            for error in messages.into_iter().flatten() {
                prop_assert!(!error.to_string().contains('\n'), "{:?}", error);
            }
        }
    }
}
