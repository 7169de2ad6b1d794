//! The real data sets, where they are at hand.

mod common;

use std::collections::BTreeSet;

use contaccum_data::{
    BatchConfig, BatchPlan, Corpus, PassageIndex, Positives, Qrels, Queries, TrainingSet, TrainingSource,
};

#[test]
fn squad_has_the_counts_its_readme_gives() {
    let Some(data) = common::shared_data() else { return };
    let folder = data.join("squad");
    let source = TrainingSource::Beir { folder: folder.clone(), split: "train".into(), hard_negatives: None };
    let set = TrainingSet::open(&source).unwrap();
    assert_eq!((set.corpus().len(), set.queries().len(), set.len()), (20_958, 98_169, 87_599));
    assert_eq!(set.summary().rows_without_negatives, 87_599);
    assert_eq!(Qrels::open_split(&folder, "test").unwrap().len(), 10_570);
    let first = set.row(0);
    assert_eq!(set.query_id(first.query), "train-0-0-0");
    assert_eq!(set.passage(first.positives[0]).unwrap().title, "University of Notre Dame");
    assert_eq!(set.queries().answers(first.query).unwrap(), ["Saint Bernadette Soubirous"]);
}

#[test]
fn squad_with_hard_negatives_plans_epochs_without_duplicates() {
    let Some(data) = common::shared_data() else { return };
    let folder = data.join("squad");
    let hard_negatives = Some(folder.join("derived/train.bm25_hardneg.tsv"));
    let source = TrainingSource::Beir { folder, split: "train".into(), hard_negatives };
    let set = TrainingSet::open(&source).unwrap();
    assert_eq!(set.len(), 87_599);
    assert_eq!((set.summary().rows_without_negatives, set.summary().negatives_left_out), (190, 0));
    let first = set.row(0);
    assert_eq!(set.passage_id(first.negatives[0]), "train-154-20");
    assert_eq!(first.negatives.len(), 8);

    let config = BatchConfig {
        seed: 1,
        total_batch: 128,
        hard_negatives: 1,
        shuffle: true,
        positives: Positives::Random,
        no_duplicates: true,
        drop_last: true,
    };
    let plan = BatchPlan::new(set.rows().clone(), config).unwrap();
    assert_eq!((plan.updates_per_epoch(), plan.rows_left_out()), (684, 47));
    for update in 0..plan.updates_per_epoch() {
        let batch = plan.batch(update);
        let positives: BTreeSet<PassageIndex> = batch.iter().map(|sample| sample.positive).collect();
        assert_eq!(positives.len(), 128);
        assert!(batch.iter().all(|sample| sample.negatives.len() <= 1));
    }
}

#[test]
fn cranfield_keeps_its_two_empty_passages() {
    let Some(data) = common::shared_data() else { return };
    let folder = data.join("cranfield");
    let corpus = Corpus::open(&folder).unwrap();
    let blank: Vec<&str> = (0..corpus.len() as u32)
        .map(PassageIndex)
        .filter(|&passage| corpus.is_blank(passage))
        .map(|passage| corpus.id(passage))
        .collect();
    assert_eq!((corpus.len(), blank), (1_400, vec!["471", "995"]));
    assert_eq!(Queries::open(&folder).unwrap().len(), 225);
    let judged: usize =
        Qrels::open_split(&folder, "test").unwrap().iter().map(|(_, judgments)| judgments.len()).sum();
    assert_eq!(judged, 1_612);
}

#[test]
fn scifact_rows_have_several_positives() {
    let Some(data) = common::shared_data() else { return };
    let folder = data.join("scifact");
    let source = TrainingSource::Beir { folder, split: "train".into(), hard_negatives: None };
    let set = TrainingSet::open(&source).unwrap();
    assert_eq!((set.corpus().len(), set.len()), (5_183, 809));
    assert_eq!(set.rows().iter().map(|row| row.positives.len()).sum::<usize>(), 919);
}
