//! Batches in which no passage is positive twice.
//!
//! Let c(p) be the number of rows whose positive is p, and B batches of T rows be wanted. A passage fills at
//! most one place of a batch, so B batches need Σ min(c(p), B) ≥ B·T. That is also enough: call a passage
//! tight if it has as many rows left as there are batches left. A batch that takes all tight passages (or T
//! of them) and anything else for the rest leaves the condition true for the batches after it. So [`arrange`]
//! goes through the rows in order, postpones repeats, takes tight passages first, and always fills every
//! batch.

use std::collections::VecDeque;

use crate::{Error, PassageIndex, Result, Rows};

/// The largest number of batches that can be filled whichever positive each row draws.
///
/// With C(p) the rows that have p among their positives, c(p) ≤ C(p) and Σ min(c(p), B) ≥ rows − Σ max(0,
/// C(p) − B); for rows of one positive both are equal, so nothing is given away.
pub(crate) fn batches_possible(rows: &Rows, total_batch: usize) -> Result<usize> {
    let mut positives: Vec<PassageIndex> = rows.iter().flat_map(|row| row.positives).copied().collect();
    positives.sort_unstable();
    let mut counts: Vec<usize> = positives.chunk_by(|a, b| a == b).map(<[_]>::len).collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let excess = |batches: usize| -> usize {
        counts.iter().take_while(|&&count| count > batches).map(|count| count - batches).sum()
    };
    (1..=rows.len() / total_batch)
        .rev()
        .find(|&batches| rows.len() >= batches * total_batch + excess(batches))
        .ok_or(Error::TooFewPositives { total_batch, distinct: counts.len() })
}

/// Positions of `positives` batch after batch, `batches` of `total_batch`, each position at most once and no
/// passage twice in a batch.
pub(crate) fn arrange(positives: &[PassageIndex], batches: usize, total_batch: usize) -> Vec<usize> {
    let mut arrangement = Arrangement::new(positives);
    for batch in 0..batches {
        arrangement.fill(batch, batches - batch, total_batch);
    }
    arrangement.chosen
}

struct Arrangement {
    /// The positions of each passage in order; passages are renumbered from 0.
    groups: Vec<Group>,
    passage_at: Vec<usize>,
    /// Passages, those with most rows first.
    by_count: Vec<usize>,
    /// Passages with rows that the walk has passed and no batch has taken, first passed first.
    postponed: VecDeque<usize>,
    /// Where the walk over all rows stands.
    next: usize,
    chosen: Vec<usize>,
}

struct Group {
    positions: Vec<usize>,
    taken: usize,
    passed: usize,
    last_batch: Option<usize>,
    is_postponed: bool,
}

impl Arrangement {
    fn new(positives: &[PassageIndex]) -> Arrangement {
        let mut passages = positives.to_vec();
        passages.sort_unstable();
        passages.dedup();
        let passage_at: Vec<usize> = positives
            .iter()
            .map(|passage| passages.binary_search(passage).expect("the list holds every positive"))
            .collect();
        let mut groups: Vec<Group> = passages
            .iter()
            .map(|_| Group {
                positions: Vec::new(),
                taken: 0,
                passed: 0,
                last_batch: None,
                is_postponed: false,
            })
            .collect();
        for (position, &passage) in passage_at.iter().enumerate() {
            groups[passage].positions.push(position);
        }
        let mut by_count: Vec<usize> = (0..groups.len()).collect();
        by_count.sort_by_key(|&passage| std::cmp::Reverse(groups[passage].positions.len()));
        Arrangement { groups, passage_at, by_count, postponed: VecDeque::new(), next: 0, chosen: Vec::new() }
    }

    /// Adds one batch, `left` batches before the end (itself included).
    fn fill(&mut self, batch: usize, left: usize, total_batch: usize) {
        let end = self.chosen.len() + total_batch;
        self.take_tight(batch, left, end);
        self.take_postponed(batch, end);
        while self.chosen.len() < end {
            let position = self.next;
            let passage = self.passage_at[position];
            self.next += 1;
            let group = &mut self.groups[passage];
            group.passed += 1;
            // The group's rows are taken in order, so this one may have been taken ahead as a tight
            // passage's.
            if group.passed <= group.taken {
                continue;
            }
            if group.last_batch != Some(batch) {
                self.take(passage, batch);
            } else if !group.is_postponed {
                group.is_postponed = true;
                self.postponed.push_back(passage);
            }
        }
    }

    fn take_tight(&mut self, batch: usize, left: usize, end: usize) {
        let mut rank = 0;
        while self.chosen.len() < end && rank < self.by_count.len() {
            let passage = self.by_count[rank];
            let group = &self.groups[passage];
            if group.positions.len() < left {
                break;
            }
            if group.positions.len() - group.taken >= left {
                self.take(passage, batch);
            }
            rank += 1;
        }
    }

    fn take_postponed(&mut self, batch: usize, end: usize) {
        let mut kept = Vec::new();
        while self.chosen.len() < end {
            let Some(passage) = self.postponed.pop_front() else { break };
            if self.groups[passage].last_batch != Some(batch) && self.is_waiting(passage) {
                self.take(passage, batch);
            }
            if self.is_waiting(passage) {
                kept.push(passage);
            } else {
                self.groups[passage].is_postponed = false;
            }
        }
        for passage in kept.into_iter().rev() {
            self.postponed.push_front(passage);
        }
    }

    fn is_waiting(&self, passage: usize) -> bool {
        self.groups[passage].passed > self.groups[passage].taken
    }

    fn take(&mut self, passage: usize, batch: usize) {
        let group = &mut self.groups[passage];
        self.chosen.push(group.positions[group.taken]);
        group.taken += 1;
        group.last_batch = Some(batch);
    }
}
