//! What a plan promises about its batches.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::{folder, write};
use contaccum_data::{
    BatchConfig, BatchPlan, Error, PassageIndex, Positives, Rows, Sample, TrainingSet, TrainingSource,
};
use proptest::prelude::*;
use serde_json::json;

/// Rows whose passages are named by number.
fn rows(lists: &[(Vec<usize>, Vec<usize>)]) -> Arc<Rows> {
    let folder = folder();
    let names = |list: &[usize]| list.iter().map(|number| format!("passage {number}")).collect::<Vec<_>>();
    let lines: Vec<String> = lists
        .iter()
        .map(|(pos, neg)| json!({"query": "q", "pos": names(pos), "neg": names(neg)}).to_string())
        .collect();
    let path = write(folder.path(), "rows.jsonl", lines.join("\n"));
    TrainingSet::open(&TrainingSource::file(path)).unwrap().rows().clone()
}

/// Rows of one positive each, all different, without negatives.
fn simple(count: usize) -> Arc<Rows> {
    rows(&(0..count).map(|row| (vec![row], vec![])).collect::<Vec<_>>())
}

fn config(total_batch: usize) -> BatchConfig {
    BatchConfig {
        seed: 7,
        total_batch,
        hard_negatives: 0,
        shuffle: true,
        positives: Positives::Random,
        no_duplicates: false,
        drop_last: true,
    }
}

fn epoch(plan: &BatchPlan, number: u64) -> Vec<Vec<Sample>> {
    let updates = plan.updates_per_epoch();
    (number * updates..(number + 1) * updates).map(|update| plan.batch(update)).collect()
}

fn row_order(batches: &[Vec<Sample>]) -> Vec<usize> {
    batches.iter().flatten().map(|sample| sample.row).collect()
}

#[test]
fn epochs_differ_in_order_and_cover_the_same_number_of_rows() {
    let plan = BatchPlan::new(simple(103), config(10)).unwrap();
    assert_eq!((plan.updates_per_epoch(), plan.rows_left_out()), (10, 3));
    let (first, second) = (row_order(&epoch(&plan, 0)), row_order(&epoch(&plan, 1)));
    assert_ne!(first, second);
    for order in [first, second] {
        assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), 100);
    }
}

#[test]
fn another_seed_is_another_order() {
    let order =
        |seed| row_order(&epoch(&BatchPlan::new(simple(50), BatchConfig { seed, ..config(5) }).unwrap(), 0));
    assert_eq!(order(1), order(1));
    assert_ne!(order(1), order(2));
}

#[test]
fn a_batch_is_the_same_whatever_was_asked_before() {
    let rows = rows(&(0..40).map(|row| (vec![row, 100 + row], (200..208).collect())).collect::<Vec<_>>());
    let config = BatchConfig { hard_negatives: 3, no_duplicates: true, ..config(8) };
    let straight = BatchPlan::new(rows.clone(), config.clone()).unwrap();
    let batches: Vec<Vec<Sample>> = (0..23).map(|update| straight.batch(update)).collect();
    let resumed = BatchPlan::new(rows, config).unwrap();
    for update in [22, 3, 17, 3, 0] {
        assert_eq!(resumed.batch(update), batches[update as usize]);
    }
}

#[test]
fn without_shuffling_rows_come_in_file_order_with_their_first_passages() {
    let lists: Vec<(Vec<usize>, Vec<usize>)> =
        (0..5).map(|row| (vec![row, 50], vec![100, 101, 102])).collect();
    let all = rows(&lists);
    let in_order =
        BatchConfig { shuffle: false, positives: Positives::First, hard_negatives: 2, ..config(2) };
    let plan = BatchPlan::new(all.clone(), in_order).unwrap();
    for number in 0..2 {
        assert_eq!(row_order(&epoch(&plan, number)), [0, 1, 2, 3]);
    }
    for sample in plan.batch(1) {
        let row = all.get(sample.row);
        assert_eq!(sample.positive, row.positives[0]);
        assert_eq!(sample.negatives, row.negatives[..2]);
    }
}

#[test]
fn few_negatives_are_all_used_and_then_repeated_in_turn() {
    let all = rows(&[(vec![0], vec![10, 11]), (vec![1], vec![])]);
    for shuffle in [false, true] {
        let plan =
            BatchPlan::new(all.clone(), BatchConfig { shuffle, hard_negatives: 5, ..config(2) }).unwrap();
        for sample in plan.batch(0) {
            let negatives = &sample.negatives;
            if sample.row == 1 {
                assert!(negatives.is_empty());
            } else {
                assert_eq!(negatives.len(), 5);
                assert_ne!(negatives[0], negatives[1]);
                assert_eq!([negatives[0], negatives[1], negatives[0]], negatives[2..5]);
            }
        }
    }
}

#[test]
fn over_epochs_every_positive_and_every_negative_has_its_turn() {
    let all = rows(&[(vec![0, 1, 2], (10..18).collect())]);
    let plan = BatchPlan::new(all, BatchConfig { hard_negatives: 2, ..config(1) }).unwrap();
    let samples: Vec<Sample> = (0..100).flat_map(|update| plan.batch(update)).collect();
    let positives: BTreeSet<PassageIndex> = samples.iter().map(|sample| sample.positive).collect();
    let negatives: BTreeSet<PassageIndex> =
        samples.iter().flat_map(|sample| sample.negatives.clone()).collect();
    assert_eq!((positives.len(), negatives.len()), (3, 8));
    assert!(samples.iter().all(|sample| sample.negatives[0] != sample.negatives[1]));
}

#[test]
fn the_first_positive_is_taken_in_every_epoch_where_it_is_asked_for_and_rows_are_shuffled_all_the_same() {
    let all = rows(&(0..30).map(|row| (vec![row, 100 + row, 200 + row], vec![])).collect::<Vec<_>>());
    let plan = BatchPlan::new(all.clone(), BatchConfig { positives: Positives::First, ..config(5) }).unwrap();
    let samples: Vec<Sample> = (0..18).flat_map(|update| plan.batch(update)).collect();
    assert!(samples.iter().all(|sample| sample.positive == all.get(sample.row).positives[0]));
    assert_ne!(row_order(&epoch(&plan, 0)), row_order(&epoch(&plan, 1)));
}

#[test]
fn an_epoch_that_drops_nothing_ends_with_a_smaller_batch_and_has_every_row_once() {
    let plan = BatchPlan::new(simple(103), BatchConfig { drop_last: false, ..config(10) }).unwrap();
    assert_eq!((plan.updates_per_epoch(), plan.rows_left_out(), plan.last_batch_rows()), (11, 0, 3));
    for number in 0..3 {
        let batches = epoch(&plan, number);
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [[10; 10].as_slice(), &[3]].concat());
        assert_eq!(row_order(&batches).iter().collect::<BTreeSet<_>>().len(), 103);
    }
    let dropping = BatchPlan::new(simple(103), config(10)).unwrap();
    assert_eq!(dropping.batch(3), plan.batch(3));
    assert_eq!(dropping.last_batch_rows(), 10);
    let few = BatchPlan::new(simple(3), BatchConfig { drop_last: false, ..config(4) }).unwrap();
    assert_eq!((few.updates_per_epoch(), few.batch(0).len(), few.last_batch_rows()), (1, 3, 3));
    let whole = BatchPlan::new(simple(20), BatchConfig { drop_last: false, ..config(10) }).unwrap();
    assert_eq!((whole.updates_per_epoch(), whole.batch(1).len(), whole.last_batch_rows()), (2, 10, 10));
}

#[test]
fn leaving_no_row_out_and_no_duplicates_is_refused_for_it_cannot_be() {
    let both = BatchConfig { drop_last: false, no_duplicates: true, ..config(2) };
    let refused = BatchPlan::new(simple(9), both).err().unwrap().to_string();
    assert!(refused.contains("drop_last") && refused.contains("no_duplicates"), "{refused}");
}

#[test]
fn a_plan_is_shared_between_threads() {
    let plan = BatchPlan::new(simple(64), config(8)).unwrap();
    let expected: Vec<Vec<Sample>> = (0..32).map(|update| plan.batch(update)).collect();
    std::thread::scope(|scope| {
        for start in 0..4 {
            let (plan, expected) = (&plan, &expected);
            scope.spawn(move || {
                for update in (start..32).step_by(4) {
                    assert_eq!(plan.batch(update as u64), expected[update]);
                }
            });
        }
    });
}

#[test]
fn plans_that_can_make_no_batch_are_refused() {
    assert!(matches!(BatchPlan::new(simple(3), config(0)), Err(Error::EmptyBatch)));
    let refused = BatchPlan::new(simple(3), config(4)).err().unwrap();
    assert!(refused.to_string().contains("total batch of 4") && refused.to_string().contains("there are 3"));
    let one_passage = rows(&[(vec![0], vec![]), (vec![0], vec![])]);
    let refused =
        BatchPlan::new(one_passage, BatchConfig { no_duplicates: true, ..config(2) }).err().unwrap();
    assert!(refused.to_string().contains("2 different positives (1 in all)"), "{refused}");
}

fn different_positives(batch: &[Sample]) -> usize {
    batch.iter().map(|sample| sample.positive).collect::<BTreeSet<PassageIndex>>().len()
}

/// The most batches of `total` different passages that rows of one positive can make.
fn most_batches(counts: &BTreeMap<usize, usize>, total: usize) -> usize {
    let rows: usize = counts.values().sum();
    (0..=rows / total)
        .rev()
        .find(|&batches| counts.values().map(|&count| count.min(batches)).sum::<usize>() >= batches * total)
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_duplicates_holds_and_an_epoch_is_as_long_as_it_can_be(
        positives in prop::collection::vec(prop_oneof![0usize..3, 0usize..40], 1..120),
        total in 1usize..8,
        shuffle: bool,
        seed: u64,
    ) {
        let mut counts = BTreeMap::new();
        for &passage in &positives {
            *counts.entry(passage).or_default() += 1;
        }
        let all = rows(&positives.iter().map(|&passage| (vec![passage], vec![])).collect::<Vec<_>>());
        let config = BatchConfig { seed, shuffle, no_duplicates: true, ..config(total) };
        let expected = most_batches(&counts, total);
        match BatchPlan::new(all, config) {
            Err(_) => prop_assert_eq!(expected, 0),
            Ok(plan) => {
                prop_assert_eq!(plan.updates_per_epoch(), expected as u64);
                for number in 0..2 {
                    let batches = epoch(&plan, number);
                    for batch in &batches {
                        prop_assert_eq!(different_positives(batch), total);
                    }
                    let order = row_order(&batches);
                    prop_assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), order.len());
                }
            }
        }
    }

    #[test]
    fn no_duplicates_holds_for_every_draw_of_several_positives(
        lists in prop::collection::vec(prop::collection::btree_set(0usize..25, 1..4), 8..80),
        total in 1usize..6,
        seed: u64,
    ) {
        let lists: Vec<_> = lists.into_iter().map(|list| (list.into_iter().collect(), vec![])).collect();
        let all = rows(&lists);
        let config = BatchConfig { seed, no_duplicates: true, ..config(total) };
        if let Ok(plan) = BatchPlan::new(all.clone(), config) {
            for number in 0..4 {
                let batches = epoch(&plan, number);
                for batch in &batches {
                    prop_assert_eq!(different_positives(batch), total);
                    for sample in batch {
                        prop_assert!(all.get(sample.row).positives.contains(&sample.positive));
                    }
                }
                let order = row_order(&batches);
                prop_assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), order.len());
            }
        }
    }
}
