//! Which passages are known to be relevant to which query: they are nobody's negatives of that query.

use std::sync::Arc;

use crate::softmax::exclude;

/// Sets up to this size are looked for id by id over all columns at once, larger ones column by column.
const SCANNED: usize = 16;

/// For each query id, the ids of all passages known to be relevant to it. Clones share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownPositives {
    /// Where the set of each query ends in `passages`.
    ends: Arc<[usize]>,
    passages: Arc<[u32]>,
}

impl KnownPositives {
    /// From pairs of a query id and a passage id, in any order, repeated or not.
    pub fn new(pairs: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut pairs: Vec<(u32, u32)> = pairs.into_iter().collect();
        pairs.sort_unstable();
        pairs.dedup();
        let mut ends = vec![0; pairs.last().map_or(0, |&(query, _)| query as usize + 1)];
        for (number, &(query, _)) in (1..).zip(&pairs) {
            ends[query as usize] = number;
        }
        // A query without passages ends where the one before it does.
        let mut end = 0;
        for slot in &mut ends {
            end = end.max(*slot);
            *slot = end;
        }
        Self { ends: ends.into(), passages: pairs.into_iter().map(|(_, passage)| passage).collect() }
    }

    /// The passages of a query, ascending; none for a query that nothing is known of.
    pub fn of(&self, query: u32) -> &[u32] {
        let query = query as usize;
        let Some(&end) = self.ends.get(query) else { return &[] };
        &self.passages[if query == 0 { 0 } else { self.ends[query - 1] }..end]
    }
}

/// What a row does not count as negatives: the passage of its own positive, and all others known to be relevant.
#[derive(Clone, Copy)]
pub(crate) struct Relevant<'a> {
    pub(crate) positive: u32,
    pub(crate) known: &'a [u32],
}

impl Relevant<'_> {
    /// Sets the logits of columns that hold such a passage to −∞ and returns how many.
    pub(crate) fn exclude(&self, row: &mut [f32], ids: &[u32]) -> u32 {
        let mut excluded = exclude(row, ids, self.positive);
        if self.known.len() <= SCANNED {
            for &id in self.known.iter().filter(|&&id| id != self.positive) {
                excluded += exclude(row, ids, id);
            }
            return excluded;
        }
        for (x, id) in row.iter_mut().zip(ids) {
            if *id != self.positive && self.known.binary_search(id).is_ok() {
                *x = f32::NEG_INFINITY;
                excluded += 1;
            }
        }
        excluded
    }

    /// Columns that hold such a passage.
    pub(crate) fn count(&self, ids: &[u32]) -> u32 {
        let relevant = |id: &u32| *id == self.positive || self.known.binary_search(id).is_ok();
        ids.iter().map(|id| u32::from(relevant(id))).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_found_by_query_whatever_the_order_of_the_pairs() {
        let known = KnownPositives::new([(4, 9), (1, 7), (4, 2), (1, 7), (4, 9)]);
        let sets: Vec<&[u32]> = (0..7).map(|query| known.of(query)).collect();
        assert_eq!(sets, [&[][..], &[7], &[], &[], &[2, 9], &[], &[]]);
        assert_eq!(KnownPositives::new([]), KnownPositives::default());
        assert_eq!(KnownPositives::default().of(u32::MAX), [0; 0]);
    }

    #[test]
    fn small_and_large_sets_leave_out_the_same_columns() {
        let ids: Vec<u32> = (0..200).map(|i| i * 7 % 60).collect();
        for size in [0, 1, SCANNED, SCANNED + 1, 50] {
            let known: Vec<u32> = (0..size as u32).collect();
            for positive in [3, 55] {
                let relevant = Relevant { positive, known: &known };
                let mut row = vec![1.0; ids.len()];
                let excluded = relevant.exclude(&mut row, &ids);
                for (x, id) in row.iter().zip(&ids) {
                    assert_eq!(*x == f32::NEG_INFINITY, *id == positive || known.contains(id), "{size}");
                }
                assert_eq!(excluded as usize, row.iter().filter(|x| x.is_infinite()).count());
                assert_eq!(excluded, relevant.count(&ids));
            }
        }
    }
}
