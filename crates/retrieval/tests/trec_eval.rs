//! Measures against values of existing implementations.

use std::collections::BTreeMap;
use std::path::Path;

use contaccum_data::Qrels;
use contaccum_retrieval::{Evaluation, Measure, Run, ScoredDocument, evaluate};
use proptest::prelude::*;

const QUERIES: [&str; 6] = ["7", "q1", "q2", "q3", "q4", "q5"];

/// Values of each query of [`QUERIES`], from ir_measures 0.4.3 with pytrec_eval-terrier 0.5.11, by
/// `ir_measures --by_query --places 12 judged.qrels ranked.run "nDCG nDCG@3 ... Success@3"`.
///
/// Two are not its: RR@2 and RR@10 of q2, where it breaks a tie in the run's order and gives 1; here they are
/// pytrec_eval's `recip_rank`.
const EXPECTED: [(&str, [f64; 6]); 14] = [
    ("nDCG", [0.56544954324, 0.342498503185, 0.693426403617, 0.0, 0.0, 0.5]),
    ("nDCG@3", [0.296081910966, 0.342498503185, 0.693426403617, 0.0, 0.0, 0.5]),
    ("nDCG@10", [0.56544954324, 0.342498503185, 0.693426403617, 0.0, 0.0, 0.5]),
    ("RR", [0.5, 0.5, 0.5, 0.0, 0.0, 0.333333333333]),
    ("RR@2", [0.5, 0.5, 0.5, 0.0, 0.0, 0.0]),
    ("RR@10", [0.5, 0.5, 0.5, 0.0, 0.0, 0.333333333333]),
    ("R@2", [0.25, 0.333333333333, 0.5, 0.0, 0.0, 0.0]),
    ("R@10", [0.75, 0.666666666667, 1.0, 0.0, 0.0, 1.0]),
    ("P@2", [0.5, 0.5, 0.5, 0.0, 0.0, 0.0]),
    ("P@10", [0.3, 0.2, 0.2, 0.0, 0.0, 0.1]),
    ("AP", [0.4, 0.388888888889, 0.583333333333, 0.0, 0.0, 0.333333333333]),
    ("AP@3", [0.125, 0.388888888889, 0.583333333333, 0.0, 0.0, 0.333333333333]),
    ("Success@1", [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
    ("Success@3", [1.0, 1.0, 1.0, 0.0, 0.0, 1.0]),
];

fn measures(names: impl IntoIterator<Item = &'static str>) -> Vec<Measure> {
    names.into_iter().map(|name| name.parse().unwrap()).collect()
}

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn evaluated_fixture() -> Evaluation {
    let run = Run::read(&fixture("ranked.run")).unwrap();
    let qrels = Qrels::open(&fixture("judged.qrels")).unwrap();
    evaluate(&run, &qrels, &measures(EXPECTED.map(|(name, _)| name))).unwrap()
}

fn qrels(lines: &str) -> Qrels {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.qrels");
    std::fs::write(&path, lines).unwrap();
    Qrels::open(&path).unwrap()
}

#[test]
fn every_measure_of_every_query_is_that_of_trec_eval() {
    for (result, (name, values)) in evaluated_fixture().results.iter().zip(EXPECTED) {
        assert_eq!(result.measure.to_string(), name);
        // q4 has no relevant document and is not averaged.
        let expected: BTreeMap<&str, f64> =
            QUERIES.into_iter().zip(values).filter(|&(query, _)| query != "q4").collect();
        assert!(result.per_query.keys().map(String::as_str).eq(expected.keys().copied()));
        for (query, value) in &result.per_query {
            let expected = expected[query.as_str()];
            assert!(value.is_sign_positive(), "{name} of {query}: {value}");
            assert!((value - expected).abs() < 1e-11, "{name} of {query}: {value}, trec_eval {expected}");
        }
        let mean = expected.values().sum::<f64>() / 5.0;
        assert!((result.mean - mean).abs() < 1e-11, "mean {name}: {}, expected {mean}", result.mean);
    }
}

#[test]
fn queries_left_out_or_missing_are_counted() {
    let found = evaluated_fixture();
    let counts = (found.queries, found.missing, found.without_relevant, found.unjudged);
    assert_eq!(counts, (5, 1, 1, 1));
}

#[test]
fn an_evaluation_survives_json_with_the_names_of_its_measures() {
    let found = evaluated_fixture();
    let json = serde_json::to_string(&found).unwrap();
    assert!(json.contains(r#""measure":"nDCG@10""#), "{json}");
    assert_eq!(serde_json::from_str::<Evaluation>(&json).unwrap(), found);
}

#[test]
fn judgments_without_a_relevant_document_measure_nothing() {
    let nothing = evaluate(&Run::new(), &qrels("q 0 d 0\n"), &measures(["AP"])).unwrap_err();
    assert!(nothing.to_string().starts_with("no query of the judgments has a relevant document"));
}

#[test]
fn names_of_measures_are_those_of_ir_measures_and_others_are_refused() {
    for name in ["nDCG", "nDCG@10", "RR", "RR@10", "AP", "AP@100", "R@100", "P@5", "Success@20"] {
        assert_eq!(name.parse::<Measure>().unwrap().to_string(), name);
    }
    for (name, canonical) in [("ndcg@10", "nDCG@10"), ("MRR@10", "RR@10"), ("map", "AP"), ("Recall@5", "R@5")]
    {
        assert_eq!(name.parse::<Measure>().unwrap().to_string(), canonical);
    }
    for name in ["", "R", "P", "Success", "R@0", "R@-1", "R@x", "nDCG@", "AP@1@2"] {
        let message = name.parse::<Measure>().unwrap_err().to_string();
        assert!(message.starts_with(&format!("{name:?} is no measure")), "{message}");
        assert!(message.contains("; there are nDCG[@k]"), "{message}");
    }
}

/// Judgments and a ranking of documents `0 .. n` for each query, without ties.
fn cases() -> impl Strategy<Value = Vec<(Vec<i32>, Vec<usize>)>> {
    let query = (1usize..30).prop_flat_map(|documents| {
        let judgments = prop::collection::vec(prop_oneof![3 => Just(-1), 1 => 0..=3], documents);
        let ranking = Just((0..documents).collect::<Vec<_>>()).prop_shuffle();
        (judgments, ranking, 1..=documents).prop_map(|(judgments, mut ranking, retrieved)| {
            ranking.truncate(retrieved);
            (judgments, ranking)
        })
    });
    let relevant = query.prop_filter("nothing relevant", |(judgments, _)| judgments.iter().any(|&j| j > 0));
    prop::collection::vec(relevant, 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn elinor_agrees_where_its_conventions_do(cases in cases()) {
        let mut lines = String::new();
        let mut run = Run::new();
        let mut judged = elinor::TrueRelStoreBuilder::new();
        let mut ranked = elinor::PredRelStoreBuilder::new();
        for (query, (judgments, ranking)) in cases.iter().enumerate() {
            for (document, &judgment) in judgments.iter().enumerate().filter(|&(_, &judgment)| judgment >= 0) {
                lines += &format!("{query} 0 {document} {judgment}\n");
                judged.add_record(query.to_string(), document.to_string(), judgment as u32).unwrap();
            }
            let documents = ranking.iter().enumerate().map(|(rank, document)| {
                let score = 100.0 - rank as f32;
                ranked.add_record(query.to_string(), document.to_string(), f64::from(score).into()).unwrap();
                ScoredDocument { id: document.to_string(), score }
            });
            run.insert(query.to_string(), documents.collect()).unwrap();
        }
        let (judged, ranked) = (judged.build(), ranked.build());
        let pairs = [
            ("nDCG", "ndcg"), ("nDCG@5", "ndcg@5"), ("RR", "rr"), ("RR@3", "rr@3"), ("AP", "ap"), ("AP@5", "ap@5"),
            ("R@4", "recall@4"), ("P@4", "precision@4"), ("Success@2", "success@2"),
        ];
        let ours = evaluate(&run, &qrels(&lines), &measures(pairs.map(|(ours, _)| ours))).unwrap();
        for (ours, (_, theirs)) in ours.results.iter().zip(pairs) {
            let theirs = elinor::evaluate(&judged, &ranked, theirs.parse().unwrap()).unwrap();
            prop_assert!((ours.mean - theirs.mean()).abs() < 1e-12, "{}", ours.measure);
            for (query, value) in theirs.scores() {
                prop_assert!((ours.per_query[query] - value).abs() < 1e-12, "{} of {}", ours.measure, query);
            }
        }
    }
}
