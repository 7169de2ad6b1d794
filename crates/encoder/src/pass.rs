//! The buffers of a pass: what the backward pass keeps, and the workspace that passes share.

use contaccum_kernels::{Partials, TokenRows, attention_scratch_len};

use crate::{BertConfig, PackedTokens};

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

/// What a pass keeps of its activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Every layer's, for a backward pass.
    ForBackward,
    /// One layer's at a time.
    Nothing,
}

/// What one layer keeps per token: query, key and value, the attention's output and log-sum-exp, the feed-forward
/// layer's preactivation, and both LayerNorms' normalised rows and reciprocal standard deviations. Everything else
/// is made again from these.
pub(crate) struct LayerActivations {
    pub qkv: Vec<f32>,
    pub context: Vec<f32>,
    pub log_sum_exp: Vec<f32>,
    pub attention_xhat: Vec<f32>,
    pub attention_rstd: Vec<f32>,
    pub preactivation: Vec<f32>,
    pub output_xhat: Vec<f32>,
    pub output_rstd: Vec<f32>,
}

impl LayerActivations {
    fn new(config: &BertConfig, tokens: usize) -> Self {
        let zeros = |width: usize| vec![0.0; width * tokens];
        let h = config.hidden_size;
        Self {
            qkv: zeros(3 * h),
            context: zeros(h),
            log_sum_exp: zeros(config.num_attention_heads),
            attention_xhat: zeros(h),
            attention_rstd: zeros(1),
            preactivation: zeros(config.intermediate_size),
            output_xhat: zeros(h),
            output_rstd: zeros(1),
        }
    }

    fn floats_per_token(config: &BertConfig) -> usize {
        6 * config.hidden_size + config.num_attention_heads + config.intermediate_size + 2
    }
}

/// One pass over packed sequences: its tokens, and the activations its backward pass needs.
pub struct Pass {
    pub(crate) limits: PassLimits,
    pub(crate) keep: Keep,
    pub(crate) tokens: PackedTokens,
    pub(crate) sequence_keys: Vec<u32>,
    pub(crate) token_keys: Vec<u32>,
    pub(crate) positions: Vec<u32>,
    pub(crate) layers: Vec<LayerActivations>,
    pub(crate) vectors: Vec<f32>,
    pub(crate) lengths: Vec<f32>,
}

impl Pass {
    /// Allocates a pass for packs within `limits`.
    pub fn new(config: &BertConfig, limits: PassLimits, keep: Keep) -> Self {
        let layers = match keep {
            Keep::ForBackward => config.num_hidden_layers,
            Keep::Nothing => 1,
        };
        Self {
            limits,
            keep,
            tokens: PackedTokens::with_capacity(limits.tokens, limits.sequences),
            sequence_keys: Vec::with_capacity(limits.sequences),
            token_keys: Vec::with_capacity(limits.tokens),
            positions: Vec::with_capacity(limits.tokens),
            layers: (0..layers).map(|_| LayerActivations::new(config, limits.tokens)).collect(),
            vectors: vec![0.0; limits.sequences * config.hidden_size],
            lengths: vec![0.0; limits.sequences],
        }
    }

    /// Bytes that [`Pass::new`] allocates.
    pub fn memory_bytes(config: &BertConfig, limits: PassLimits, keep: Keep) -> usize {
        let layers = match keep {
            Keep::ForBackward => config.num_hidden_layers,
            Keep::Nothing => 1,
        };
        let floats = layers * limits.tokens * LayerActivations::floats_per_token(config)
            + limits.sequences * (config.hidden_size + 1);
        let token_words = 3 * limits.tokens + 2 * limits.sequences + 1;
        (floats + token_words) * size_of::<f32>() + limits.tokens
    }

    /// Empties the pass for new sequences.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.sequence_keys.clear();
        self.token_keys.clear();
        self.positions.clear();
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
        self.positions.extend(0..length as u32);
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
            self.positions.extend(0..span[1] - span[0]);
        }
    }

    /// The sequences in the pass.
    pub fn tokens(&self) -> &PackedTokens {
        &self.tokens
    }

    pub(crate) fn rows(&self) -> TokenRows<'_> {
        TokenRows { keys: &self.token_keys, positions: &self.positions }
    }
}

/// Buffers that passes use one after the other.
pub struct Workspace {
    pub(crate) hidden: Vec<f32>,
    pub(crate) gradient: Vec<f32>,
    pub(crate) branch: Vec<f32>,
    pub(crate) wide: Vec<f32>,
    pub(crate) scratch: Vec<f32>,
    pub(crate) partials: Partials,
}

impl Workspace {
    /// Allocates a workspace for passes within `limits`; without a backward pass it is smaller.
    pub fn new(config: &BertConfig, limits: PassLimits, keep: Keep) -> Self {
        let backward = backward_tokens(limits, keep);
        Self {
            hidden: vec![0.0; limits.tokens * config.hidden_size],
            gradient: vec![0.0; backward * config.hidden_size],
            branch: vec![0.0; backward * config.hidden_size],
            wide: vec![0.0; limits.tokens * wide(config)],
            scratch: vec![0.0; attention_scratch_len(limits.longest, contaccum_kernels::threads())],
            partials: Partials::new(wide(config)),
        }
    }

    /// Bytes that [`Workspace::new`] allocates in a pool of `threads`.
    pub fn memory_bytes(config: &BertConfig, limits: PassLimits, keep: Keep, threads: usize) -> usize {
        let floats = limits.tokens * (config.hidden_size + wide(config))
            + 2 * backward_tokens(limits, keep) * config.hidden_size
            + attention_scratch_len(limits.longest, threads);
        floats * size_of::<f32>() + Partials::memory_bytes(wide(config), threads)
    }
}

fn backward_tokens(limits: PassLimits, keep: Keep) -> usize {
    match keep {
        Keep::ForBackward => limits.tokens,
        Keep::Nothing => 0,
    }
}

/// Width of the buffer that holds the feed-forward activation, or query, key and value gradients.
fn wide(config: &BertConfig) -> usize {
    config.intermediate_size.max(3 * config.hidden_size)
}
