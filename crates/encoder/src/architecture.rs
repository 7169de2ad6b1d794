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

/// A LayerNorm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormShape {
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
    /// Whether they have biases.
    pub bias: bool,
}

/// What one layer has of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerShape {}

/// Dropout rates, by what is dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DropoutRates {
    /// The embeddings, normalised.
    pub embeddings: f64,
    /// Attention probabilities.
    pub attention: f64,
    /// The attention block's output.
    pub attention_output: f64,
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
        self.feed_forward.width.max(3 * self.width)
    }
}
