//! What layers leave behind on the way forward, and what of it is kept for the way back.

use std::ops::Range;

use contaccum_kernels::resident_zeros;
use serde::{Deserialize, Serialize};

use crate::BertConfig;

/// What a backward pass makes again instead of finding it in memory. The gradients are the same bits: everything is
/// made again by the operations, and from the dropout masks, that made it first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recompute {
    /// Nothing that costs a matrix product.
    #[default]
    None,
    /// The inputs of attention and of GELU: two of a layer's four products.
    Selective,
    /// The whole layer but its output: three products and the attention.
    Layer,
}

impl Recompute {
    /// All policies, from the fastest to the leanest.
    pub const ALL: [Self; 3] = [Self::None, Self::Selective, Self::Layer];

    /// The name used in recipes, flags and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Selective => "selective",
            Self::Layer => "layer",
        }
    }
}

/// What is kept of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// What backward passes need and do not make again.
    ForBackward {
        /// Tokens over all passes that wait for their backward pass at once.
        tokens: usize,
        /// What backward passes make again.
        recompute: Recompute,
    },
    /// Nothing: layers write over each other.
    Nothing,
}

impl Keep {
    /// Whether every layer's inputs of attention and GELU, attention block and output are kept, and of how many tokens.
    fn kept(self) -> ([bool; 3], usize) {
        match self {
            Self::ForBackward { tokens, recompute } => match recompute {
                Recompute::None => ([true, true, true], tokens),
                Recompute::Selective => ([false, true, true], tokens),
                Recompute::Layer => ([false, false, true], tokens),
            },
            Self::Nothing => ([false; 3], 0),
        }
    }
}

/// Buffers of one shape: one for every layer where they are kept, else one that layers take turns in.
struct Slots {
    buffers: Vec<Vec<f32>>,
    width: usize,
    kept: bool,
}

impl Slots {
    fn new(width: usize, layers: usize, kept_tokens: Option<usize>, pass_tokens: usize) -> Self {
        let (count, tokens) = kept_tokens.map_or((1, pass_tokens), |tokens| (layers, tokens));
        let buffers = (0..count).map(|_| resident_zeros(width * tokens)).collect();
        Self { buffers, width, kept: kept_tokens.is_some() }
    }

    fn span(&self, rows: &Range<usize>) -> Range<usize> {
        let first = if self.kept { rows.start } else { 0 };
        first * self.width..(first + rows.len()) * self.width
    }

    fn of(&mut self, layer: usize, rows: &Range<usize>) -> &mut [f32] {
        let span = self.span(rows);
        &mut self.buffers[if self.kept { layer } else { 0 }][span]
    }
}

/// The activations of passes, each at rows (tokens) of its own.
pub(crate) struct Activations {
    pub keep: Keep,
    qkv: Slots,
    preactivation: Slots,
    context: Slots,
    log_sum_exp: Slots,
    attention_xhat: Slots,
    attention_rstd: Slots,
    output_xhat: Slots,
    output_rstd: Slots,
}

/// One layer's activations of one pass: query, key and value; the attention's output and log-sum-exp; the
/// feed-forward layer's preactivation; both LayerNorms' normalised rows and reciprocal standard deviations.
pub(crate) struct LayerActivations<'a> {
    pub qkv: &'a mut [f32],
    pub preactivation: &'a mut [f32],
    pub context: &'a mut [f32],
    pub log_sum_exp: &'a mut [f32],
    pub attention_xhat: &'a mut [f32],
    pub attention_rstd: &'a mut [f32],
    pub output_xhat: &'a mut [f32],
    pub output_rstd: &'a mut [f32],
}

/// Floats per token of a layer: inputs of attention and GELU, attention block, output.
fn widths(config: &BertConfig) -> [usize; 3] {
    let h = config.hidden_size;
    [3 * h + config.intermediate_size, 2 * h + config.num_attention_heads + 1, h + 1]
}

impl Activations {
    pub fn new(config: &BertConfig, pass_tokens: usize, keep: Keep) -> Self {
        let ([inputs, attention, output], tokens) = keep.kept();
        let (h, layers) = (config.hidden_size, config.num_hidden_layers);
        let slots = |width: usize, kept: bool| Slots::new(width, layers, kept.then_some(tokens), pass_tokens);
        Self {
            keep,
            qkv: slots(3 * h, inputs),
            preactivation: slots(config.intermediate_size, inputs),
            context: slots(h, attention),
            log_sum_exp: slots(config.num_attention_heads, attention),
            attention_xhat: slots(h, attention),
            attention_rstd: slots(1, attention),
            output_xhat: slots(h, output),
            output_rstd: slots(1, output),
        }
    }

    /// Bytes that [`Activations::new`] allocates.
    pub fn memory_bytes(config: &BertConfig, pass_tokens: usize, keep: Keep) -> usize {
        let (kept, tokens) = keep.kept();
        let floats = widths(config).into_iter().zip(kept).map(|(width, kept)| match kept {
            true => (config.num_hidden_layers * tokens).saturating_mul(width),
            false => pass_tokens * width,
        });
        // The largest shapes and packs that are let through multiply to more than there are addresses.
        floats.fold(0, usize::saturating_add).saturating_mul(size_of::<f32>())
    }

    pub fn layer(&mut self, layer: usize, rows: &Range<usize>) -> LayerActivations<'_> {
        LayerActivations {
            qkv: self.qkv.of(layer, rows),
            preactivation: self.preactivation.of(layer, rows),
            context: self.context.of(layer, rows),
            log_sum_exp: self.log_sum_exp.of(layer, rows),
            attention_xhat: self.attention_xhat.of(layer, rows),
            attention_rstd: self.attention_rstd.of(layer, rows),
            output_xhat: self.output_xhat.of(layer, rows),
            output_rstd: self.output_rstd.of(layer, rows),
        }
    }

    /// The normalised rows of a layer's output: kept for every backward pass.
    pub fn output_xhat(&self, layer: usize, rows: &Range<usize>) -> &[f32] {
        assert!(self.output_xhat.kept, "activations without a backward pass");
        &self.output_xhat.buffers[layer][self.output_xhat.span(rows)]
    }
}
