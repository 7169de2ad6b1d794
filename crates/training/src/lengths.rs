//! How long the texts of a run are: its buffers need be no longer.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::loader::RowTokenizer;
use crate::{TrainConfig, TrainError};

/// Tokens of the longest texts of each kind, cut as the run cuts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LongestTexts {
    /// The longest query.
    pub query: usize,
    /// The longest passage.
    pub passage: usize,
}

impl LongestTexts {
    /// The longest that `config` allows, where no text is at hand.
    pub fn allowed(config: &TrainConfig) -> Self {
        Self { query: config.query_max_length, passage: config.passage_max_length }
    }

    /// The longer ones of both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self { query: self.query.max(other.query), passage: self.passage.max(other.passage) }
    }

    /// The longest among the queries, positives and hard negatives of all rows. Every text is tokenised, on all threads,
    /// until one is as long as is allowed.
    ///
    /// # Errors
    /// A text that cannot be read back or tokenised.
    pub(crate) fn of_rows(rows: &RowTokenizer, config: &TrainConfig) -> Result<Self, TrainError> {
        let set = rows.set();
        let queries: Vec<usize> = (0..set.len()).collect();
        let negatives = config.hard_negatives > 0;
        let of_row = |row: contaccum_data::Row<'_>| {
            let negatives = if negatives { row.negatives } else { &[] };
            [row.positives, negatives].concat()
        };
        let mut passages: Vec<_> = set.rows().iter().flat_map(of_row).collect();
        passages.sort_unstable_by_key(|passage| passage.0);
        passages.dedup();
        Ok(Self {
            query: longest(&queries, config.query_max_length, |&row| Ok(rows.query(row)?.ids.len()))?,
            passage: longest(&passages, config.passage_max_length, |&passage| {
                Ok(rows.passage(passage)?.ids.len())
            })?,
        })
    }
}

/// The greatest length of `texts`; no text is looked at once one has `most`.
fn longest<T: Sync>(
    texts: &[T],
    most: usize,
    length: impl Fn(&T) -> Result<usize, TrainError> + Sync,
) -> Result<usize, TrainError> {
    let longest = AtomicUsize::new(0);
    texts.par_iter().try_for_each(|text| {
        if longest.load(Ordering::Relaxed) < most {
            longest.fetch_max(length(text)?, Ordering::Relaxed);
        }
        Ok::<_, TrainError>(())
    })?;
    Ok(longest.into_inner())
}

impl TrainConfig {
    /// The settings with lengths no greater than those of the texts: for what only sizes depend on.
    pub(crate) fn within(&self, longest: LongestTexts) -> Self {
        Self {
            query_max_length: self.query_max_length.min(longest.query),
            passage_max_length: self.passage_max_length.min(longest.passage),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_is_found_and_the_search_ends_at_the_bound() {
        let lengths = [3, 9, 4, 9, 1];
        assert_eq!(longest(&lengths, 20, |&length| Ok(length)).unwrap(), 9);
        assert_eq!(longest(&lengths, 9, |&length| Ok(length)).unwrap(), 9);
        assert_eq!(longest(&lengths[..0], 9, |&length: &usize| Ok(length)).unwrap(), 0);
        let looked = AtomicUsize::new(0);
        let long = vec![7; 100_000];
        let found = longest(&long, 7, |&length| {
            looked.fetch_add(1, Ordering::Relaxed);
            Ok(length)
        });
        assert_eq!(found.unwrap(), 7);
        assert!(looked.into_inner() <= 2 * rayon::current_num_threads());
    }
}
