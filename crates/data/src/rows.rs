use crate::{PassageIndex, QueryIndex};

/// A training row: a query, its relevant passages, and hard negatives if it has any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// The query.
    pub query: QueryIndex,
    /// At least one relevant passage, no two the same.
    pub positives: &'a [PassageIndex],
    /// Hard negatives, possibly none, no two the same and none of them a positive.
    pub negatives: &'a [PassageIndex],
}

/// Training rows as indices, in file order: 20 bytes a row and 4 a passage named.
#[derive(Debug, Default)]
pub struct Rows {
    queries: Vec<QueryIndex>,
    positive_ends: Vec<usize>,
    positives: Vec<PassageIndex>,
    negative_ends: Vec<usize>,
    negatives: Vec<PassageIndex>,
}

/// A row as a reader found it.
#[derive(Debug)]
pub(crate) struct RowDraft {
    pub query: QueryIndex,
    pub positives: Vec<PassageIndex>,
    pub negatives: Vec<PassageIndex>,
}

impl Rows {
    /// Rows without their repeated passages and the negatives that are their own positives; the second value
    /// counts the negatives left out. `passages` is the length of the corpus.
    pub(crate) fn new(drafts: Vec<RowDraft>, passages: usize) -> (Rows, usize) {
        let mut rows = Rows::default();
        let mut left_out = 0;
        let mut last_row_with = vec![u32::MAX; passages];
        for (row, draft) in (0u32..).zip(drafts) {
            let mut is_new = |passage: &PassageIndex| {
                std::mem::replace(&mut last_row_with[passage.0 as usize], row) != row
            };
            rows.positives.extend(draft.positives.into_iter().filter(&mut is_new));
            let before = rows.negatives.len() + draft.negatives.len();
            rows.negatives.extend(draft.negatives.into_iter().filter(&mut is_new));
            left_out += before - rows.negatives.len();
            rows.queries.push(draft.query);
            rows.positive_ends.push(rows.positives.len());
            rows.negative_ends.push(rows.negatives.len());
        }
        (rows, left_out)
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.queries.len()
    }

    /// True if there is no row.
    pub fn is_empty(&self) -> bool {
        self.queries.is_empty()
    }

    /// The row at a position, from 0 in file order.
    ///
    /// # Panics
    /// If `row` is not below [`Rows::len`].
    pub fn get(&self, row: usize) -> Row<'_> {
        let span = |ends: &[usize]| if row == 0 { 0 } else { ends[row - 1] }..ends[row];
        Row {
            query: self.queries[row],
            positives: &self.positives[span(&self.positive_ends)],
            negatives: &self.negatives[span(&self.negative_ends)],
        }
    }

    /// All rows in file order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Row<'_>> {
        (0..self.len()).map(|row| self.get(row))
    }
}
