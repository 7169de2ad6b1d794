//! What a transformer encoder looks like, whatever family it is of: the one description that layout, walk and memory
//! plan read.

use contaccum_kernels::Activation;

/// Shape and constants of an encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// Width of a hidden state.
    pub width: usize,
    /// Rows of the word embedding table.
    pub vocabulary: usize,
    /// Id of the padding token.
    pub padding: u32,
    /// Longest sequence in tokens.
    pub longest: usize,
    /// The table of positions, where they are learned.
    pub positions: Option<PositionTable>,
    /// The bases of rotary positions: layers name one by its place here.
    pub rotary_bases: Vec<f64>,
    /// Rows of the table that attention adds to its scores by distance, shared by all layers; those behind the first
    /// [`contaccum_kernels::BUCKETS`] are not used.
    pub relative_bias: Option<usize>,
    /// Rows of the token type table; 0 where there is none.
    pub token_types: usize,
    /// Every LayerNorm.
    pub norm: NormShape,
    /// Attention heads; they divide `width`.
    pub heads: usize,
    /// Whether the products around attention have biases.
    pub attention_bias: bool,
    /// The feed-forward half of every layer.
    pub feed_forward: FeedForwardShape,
    /// The layers, from the embeddings on.
    pub layers: Vec<LayerShape>,
    /// Dropout rates.
    pub dropout: DropoutRates,
    /// Standard deviation of freshly initialised weights.
    pub initializer_range: f64,
}

/// A learned table of positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PositionTable {
    /// Its rows.
    pub rows: usize,
    /// Where padding has a row of its own, which a padding token inside of a text gets too: the others count on from
    /// the row behind it.
    pub padding_row: Option<u32>,
}

impl PositionTable {
    /// The row of a sequence's first token.
    pub fn first(&self) -> u32 {
        self.padding_row.map_or(0, |row| row + 1)
    }
}

/// Where the LayerNorms of a layer stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlace {
    /// Behind each block, over the sum of its output and its input. Blocks and norms have biases.
    After,
    /// Before each block, whose output is added to a stream that no norm replaces but the one behind the last layer.
    Before,
}

/// A LayerNorm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormShape {
    /// Where it stands.
    pub place: NormPlace,
    /// Whether it has a bias.
    pub bias: bool,
    /// Added to the variance.
    pub epsilon: f64,
}

/// The feed-forward half of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedForwardShape {
    /// Width between its two products.
    pub width: usize,
    /// What stands between them.
    pub activation: Activation,
    /// Whether the first product makes a value and a gate of that width each, and the activated value is multiplied by
    /// the gate. Where it does not, the products have biases.
    pub gated: bool,
    /// Whether the products have biases.
    pub bias: bool,
}

impl FeedForwardShape {
    /// Outputs of the first product.
    pub fn outputs(&self) -> usize {
        if self.gated { 2 * self.width } else { self.width }
    }
}

/// What one layer has of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerShape {
    /// The greatest distance at which a token attends to another; any where there is none.
    pub window: Option<usize>,
    /// The rotary positions of its queries and keys, by their place in [`Architecture::rotary_bases`].
    pub rotary: Option<usize>,
    /// Whether there is a norm before attention, where norms stand there.
    pub attention_norm: bool,
}

impl LayerShape {
    /// A layer whose tokens attend to all others, positions being in the embeddings.
    pub const PLAIN: Self = Self { window: None, rotary: None, attention_norm: true };
}

/// Dropout rates, by what is dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DropoutRates {
    /// The embeddings, normalised.
    pub embeddings: f64,
    /// Attention probabilities.
    pub attention: f64,
    /// The attention block's output.
    pub attention_output: f64,
    /// What stands between the feed-forward products; only of gated ones.
    pub feed_forward_inner: f64,
    /// The feed-forward block's output.
    pub feed_forward_output: f64,
}

impl Architecture {
    /// Width of a head.
    pub fn head_width(&self) -> usize {
        self.width / self.heads
    }

    /// Outputs of the widest product.
    pub fn widest(&self) -> usize {
        self.feed_forward.outputs().max(3 * self.width)
    }

    /// Width of a buffer that holds the feed-forward activation, or query, key and value.
    pub(crate) fn wide(&self) -> usize {
        self.feed_forward.width.max(3 * self.width)
    }
}
