//! One training row as tokens.

use contaccum_encoder::TokenSequence;

/// A query with its positive and hard negatives, tokenised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizedSample {
    /// The query.
    pub query: TokenSequence,
    /// Its positive passage.
    pub positive: TokenSequence,
    /// Its hard negatives; rows may bring different numbers.
    pub hard_negatives: Vec<TokenSequence>,
    /// Id of the query, for the false-negative mask: the same for equal texts.
    pub query_id: u32,
    /// Passage id of the positive, for the false-negative mask: the same for equal passages.
    pub positive_id: u32,
    /// Passage ids of the hard negatives.
    pub hard_negative_ids: Vec<u32>,
}

impl TokenizedSample {
    /// Tokens over the query and all passages.
    pub fn tokens(&self) -> usize {
        let hard: usize = self.hard_negatives.iter().map(|s| s.ids.len()).sum();
        self.query.ids.len() + self.positive.ids.len() + hard
    }
}

/// What a sequence is to its row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    Query,
    Positive,
    HardNegative(usize),
}

/// The dropout key of a sequence within its update: the same however the total batch is cut. [`crate::bounds`] keeps
/// rows and parts within their bits.
pub(crate) fn sequence_key(row: usize, role: Role) -> u32 {
    let part = match role {
        Role::Query => 0,
        Role::Positive => 1,
        Role::HardNegative(index) => 2 + index,
    };
    ((row as u32) << 10) | part as u32
}
