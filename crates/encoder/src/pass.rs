//! One pass's sequences, and the buffers that passes share.

use std::ops::Range;

use contaccum_kernels::{BUCKETS, Partials, Rotary, TokenRows, attention_scratch_len, resident_zeros};

use crate::activations::{Activations, Keep};
use crate::architecture::{NormPlace, PositionTable};
use crate::blocks::DenseRows;
use crate::{Architecture, ModelConfig, PackedTokens};

/// The largest pack a pass can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassLimits {
    /// Tokens over all sequences.
    pub tokens: usize,
    /// Number of sequences.
    pub sequences: usize,
    /// Tokens of the longest sequence.
    pub longest: usize,
}

impl PassLimits {
    /// The limits that cover both.
    pub fn union(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.max(other.tokens),
            sequences: self.sequences.max(other.sequences),
            longest: self.longest.max(other.longest),
        }
    }
}

/// One pass over packed sequences: its tokens and its vectors. Its activations lie in the workspace.
pub struct Pass {
    limits: PassLimits,
    first_row: usize,
    pub(crate) tokens: PackedTokens,
    pub(crate) sequence_keys: Vec<u32>,
    token_keys: Vec<u32>,
    positions: Vec<u32>,
    /// The row of each token's position in the table of the model.
    position_rows: Vec<u32>,
    table: Option<PositionTable>,
    pub(crate) vectors: Vec<f32>,
    pub(crate) lengths: Vec<f32>,
    /// Of max pooling, the token that each value came from.
    pub(crate) winners: Vec<u32>,
    pub(crate) dense: DenseRows,
}

impl Pass {
    /// Allocates a pass for packs within `limits`.
    pub fn new(config: &ModelConfig, limits: PassLimits) -> Self {
        let &Architecture { width, positions: table, .. } = config.architecture();
        Self {
            limits,
            first_row: 0,
            tokens: PackedTokens::with_capacity(limits.tokens, limits.sequences),
            sequence_keys: Vec::with_capacity(limits.sequences),
            token_keys: Vec::with_capacity(limits.tokens),
            positions: Vec::with_capacity(limits.tokens),
            position_rows: Vec::with_capacity(limits.tokens),
            table,
            vectors: resident_zeros(limits.sequences * config.dim()),
            lengths: resident_zeros(limits.sequences),
            winners: vec![u32::MAX; limits.sequences * width],
            dense: DenseRows::new(config.dense(), width, limits.sequences),
        }
    }

    /// Bytes that [`Pass::new`] allocates.
    pub fn memory_bytes(config: &ModelConfig, limits: PassLimits) -> usize {
        let width = config.architecture().width;
        let of_one = config.dim() + width + 1 + DenseRows::floats(config.dense(), width);
        let floats = limits.sequences * of_one;
        let token_words = 4 * limits.tokens + 2 * limits.sequences + 1;
        (floats + token_words) * size_of::<f32>() + limits.tokens
    }

    /// The largest pack it takes.
    pub fn limits(&self) -> PassLimits {
        self.limits
    }

    /// Empties the pass for new sequences.
    pub fn clear(&mut self) {
        self.first_row = 0;
        self.tokens.clear();
        self.sequence_keys.clear();
        self.token_keys.clear();
        self.positions.clear();
        self.position_rows.clear();
    }

    /// Lays the activations of this pass behind those of `other`, so that both can wait for their backward passes.
    pub fn follow(&mut self, other: &Self) {
        self.first_row = other.rows_kept().end;
    }

    /// Adds a sequence whose dropout masks depend on `key`.
    ///
    /// # Panics
    /// When the pack would exceed the limits.
    pub fn push(&mut self, sequence: &crate::TokenSequence, key: u32) {
        let length = sequence.ids.len();
        assert!(
            self.tokens.tokens() + length <= self.limits.tokens
                && self.tokens.sequences() < self.limits.sequences
                && length <= self.limits.longest,
            "pack exceeds the limits of its pass"
        );
        self.tokens.push(sequence);
        self.sequence_keys.push(key);
        self.token_keys.resize(self.tokens.tokens(), key);
        self.place(&sequence.ids);
    }

    /// Adds the positions of a sequence.
    fn place(&mut self, ids: &[u32]) {
        self.positions.extend(0..ids.len() as u32);
        let Some(table) = self.table else { return };
        let mut next = table.first();
        self.position_rows.extend(ids.iter().map(|id| {
            let padding = table.padding_row.filter(|row| row == id);
            padding.unwrap_or_else(|| {
                next += 1;
                next - 1
            })
        }));
    }

    /// Replaces the sequences by those of `tokens`, for a pass without dropout.
    pub(crate) fn set(&mut self, tokens: &PackedTokens) {
        self.clear();
        let longest = tokens.offsets().windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0) as usize;
        assert!(
            tokens.tokens() <= self.limits.tokens
                && tokens.sequences() <= self.limits.sequences
                && longest <= self.limits.longest,
            "pack exceeds the limits of its pass"
        );
        self.tokens.clone_from(tokens);
        self.sequence_keys.resize(tokens.sequences(), 0);
        self.token_keys.resize(tokens.tokens(), 0);
        for span in tokens.offsets().windows(2) {
            self.place(&tokens.ids()[span[0] as usize..span[1] as usize]);
        }
    }

    /// The sequences in the pass.
    pub fn tokens(&self) -> &PackedTokens {
        &self.tokens
    }

    pub(crate) fn rows(&self) -> TokenRows<'_> {
        TokenRows { keys: &self.token_keys, positions: &self.positions }
    }

    /// The rows of the tokens' positions in the table of the model; empty where it has none.
    pub(crate) fn position_rows(&self) -> &[u32] {
        &self.position_rows
    }

    /// The rows of the workspace's activations that are this pass's.
    pub(crate) fn rows_kept(&self) -> Range<usize> {
        self.first_row..self.first_row + self.tokens.tokens()
    }
}

/// Buffers that passes share: activations, where each pass has rows of its own, and scratch that they use one after
/// the other.
pub struct Workspace {
    pub(crate) activations: Activations,
    /// Hidden states, `[tokens, width]`, and so are the next two.
    pub(crate) hidden: Vec<f32>,
    pub(crate) gradient: Vec<f32>,
    pub(crate) branch: Vec<f32>,
    pub(crate) wide: Vec<f32>,
    pub(crate) scratch: Vec<f32>,
    /// Of every head of every sequence, the gradient of the relative bias.
    pub(crate) bias_parts: Vec<f32>,
    pub(crate) rotaries: Vec<Rotary>,
    pub(crate) partials: Partials,
}

/// Numbers in the buffers of a workspace beside its activations.
struct Sizes {
    hidden: usize,
    gradient: usize,
    branch: usize,
    wide: usize,
    bias_parts: usize,
}

impl Sizes {
    fn new(a: &Architecture, limits: PassLimits, keep: Keep) -> Self {
        let (hidden, backward) = (limits.tokens * a.width, matches!(keep, Keep::ForBackward { .. }));
        let bias_parts = limits.sequences * a.heads * BUCKETS;
        Self {
            hidden,
            gradient: if backward { hidden } else { 0 },
            branch: if backward || a.norm.place == NormPlace::Before { hidden } else { 0 },
            wide: limits.tokens * a.wide(),
            bias_parts: if backward && a.relative_bias.is_some() { bias_parts } else { 0 },
        }
    }
}

impl Workspace {
    /// Allocates a workspace for passes within `limits` each; without a backward pass it is smaller.
    pub fn new(config: &ModelConfig, limits: PassLimits, keep: Keep) -> Self {
        let a = config.architecture();
        let sizes = Sizes::new(a, limits, keep);
        let rotary = |base: &f64| Rotary::new(*base, a.head_width(), limits.longest);
        Self {
            activations: Activations::new(a, limits.tokens, keep),
            hidden: resident_zeros(sizes.hidden),
            gradient: resident_zeros(sizes.gradient),
            branch: resident_zeros(sizes.branch),
            wide: resident_zeros(sizes.wide),
            scratch: resident_zeros(attention_scratch_len(limits.longest, contaccum_kernels::threads())),
            bias_parts: resident_zeros(sizes.bias_parts),
            rotaries: a.rotary_bases.iter().map(rotary).collect(),
            partials: Partials::new(a.widest()),
        }
    }

    /// Bytes of activations that [`Workspace::new`] allocates.
    pub fn activations_bytes(config: &ModelConfig, limits: PassLimits, keep: Keep) -> usize {
        Activations::memory_bytes(config.architecture(), limits.tokens, keep)
    }

    /// Bytes of scratch that [`Workspace::new`] allocates in a pool of `threads`.
    pub fn scratch_bytes(config: &ModelConfig, limits: PassLimits, keep: Keep, threads: usize) -> usize {
        let a = config.architecture();
        let Sizes { hidden, gradient, branch, wide, bias_parts } = Sizes::new(a, limits, keep);
        let scratch = attention_scratch_len(limits.longest, threads);
        let rotaries = a.rotary_bases.len() * Rotary::memory_bytes(a.head_width(), limits.longest);
        (hidden + gradient + branch + wide + bias_parts + scratch) * size_of::<f32>()
            + rotaries
            + Partials::memory_bytes(a.widest(), threads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TokenSequence;

    fn position_rows(fields: serde_json::Value, ids: &[u32]) -> Vec<u32> {
        let config = ModelConfig::from_fields(fields.as_object().unwrap()).unwrap();
        let mut pass = Pass::new(&config, PassLimits { tokens: 16, sequences: 2, longest: 8 });
        pass.push(&TokenSequence { ids: vec![4, 4], second_segment: 2 }, 0);
        pass.push(&TokenSequence { ids: ids.to_vec(), second_segment: ids.len() }, 0);
        assert_eq!(pass.rows().positions[2..], (0..ids.len() as u32).collect::<Vec<_>>());
        pass.position_rows().to_vec()
    }

    #[test]
    fn a_padding_token_inside_a_text_takes_the_row_of_padding_and_no_position() {
        let ids = [0, 1, 5, 1, 1, 7, 2];
        let roberta = serde_json::json!({ "model_type": "roberta" });
        assert_eq!(position_rows(roberta, &ids), [2, 3, 2, 1, 3, 1, 1, 4, 5]);
        let moved = serde_json::json!({ "model_type": "roberta", "pad_token_id": 5 });
        assert_eq!(position_rows(moved, &ids), [6, 7, 6, 7, 5, 8, 9, 10, 11]);
        let bert = serde_json::json!({ "model_type": "bert", "pad_token_id": 1 });
        assert_eq!(position_rows(bert, &ids), [0, 1, 0, 1, 2, 3, 4, 5, 6]);
        let modernbert = serde_json::json!({ "model_type": "modernbert" });
        assert!(position_rows(modernbert, &ids).is_empty());
    }
}
