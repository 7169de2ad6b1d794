//! What layers leave behind on the way forward, and what of it is kept for the way back.

use std::ops::Range;

use contaccum_kernels::resident_zeros;
use serde::{Deserialize, Serialize};

use crate::Architecture;
use crate::blocks::{Attended, Attention, FeedForward, Norm, Normalised, Residual, Saved};

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
    /// Of how many tokens every layer keeps a buffer of its own, if it does.
    fn tokens_of(self, saved: Saved) -> Option<usize> {
        match self {
            Self::ForBackward { tokens, recompute } => {
                saved.kept_under.contains(&recompute).then_some(tokens)
            }
            Self::Nothing => None,
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
    fn new(saved: Saved, layers: usize, pass_tokens: usize, keep: Keep) -> Self {
        let kept_tokens = keep.tokens_of(saved);
        let (count, tokens) = kept_tokens.map_or((1, pass_tokens), |tokens| (layers, tokens));
        let buffers = (0..count).map(|_| resident_zeros(saved.width * tokens)).collect();
        Self { buffers, width: saved.width, kept: kept_tokens.is_some() }
    }

    /// Numbers that [`Slots::new`] allocates. The largest shapes and packs that are let through multiply to more than
    /// there are addresses.
    fn numbers(saved: Saved, layers: usize, pass_tokens: usize, keep: Keep) -> usize {
        let rows = keep.tokens_of(saved).map_or(pass_tokens, |tokens| layers.saturating_mul(tokens));
        rows.saturating_mul(saved.width)
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
    attention: [Slots; 3],
    attention_norm: [Slots; 2],
    feed_forward: [Slots; 1],
    feed_forward_norm: [Slots; 2],
    /// Only where it is kept: nobody takes turns in it.
    stream: Option<Slots>,
    final_norm: [Slots; 2],
}

/// One layer's activations of one pass, by block.
pub(crate) struct LayerActivations<'a> {
    pub attention: Attended<'a>,
    pub attention_norm: Normalised<'a>,
    pub preactivation: &'a mut [f32],
    pub feed_forward_norm: Normalised<'a>,
}

impl Activations {
    pub fn new(architecture: &Architecture, pass_tokens: usize, keep: Keep) -> Self {
        let layers = architecture.layers.len();
        let slots = |saved: Saved| Slots::new(saved, layers, pass_tokens, keep);
        Self {
            keep,
            attention: Attention::saved(architecture).map(slots),
            attention_norm: Norm::saved_of_attention(architecture).map(slots),
            feed_forward: FeedForward::saved(architecture).map(slots),
            feed_forward_norm: Norm::saved_of_feed_forward(architecture).map(slots),
            stream: kept_stream(architecture, keep).map(slots),
            final_norm: Norm::saved_at_the_end(architecture)
                .map(|saved| Slots::new(saved, 1, pass_tokens, keep)),
        }
    }

    /// Bytes that [`Activations::new`] allocates.
    pub fn memory_bytes(architecture: &Architecture, pass_tokens: usize, keep: Keep) -> usize {
        let of_layers = Attention::saved(architecture)
            .into_iter()
            .chain(Norm::saved_of_attention(architecture))
            .chain(FeedForward::saved(architecture))
            .chain(Norm::saved_of_feed_forward(architecture))
            .chain(kept_stream(architecture, keep))
            .map(|saved| (saved, architecture.layers.len()));
        let at_the_end = Norm::saved_at_the_end(architecture).map(|saved| (saved, 1));
        let numbers = of_layers
            .chain(at_the_end)
            .map(|(saved, layers)| Slots::numbers(saved, layers, pass_tokens, keep));
        numbers.fold(0, usize::saturating_add).saturating_mul(size_of::<f32>())
    }

    pub fn layer(&mut self, layer: usize, rows: &Range<usize>) -> LayerActivations<'_> {
        let [qkv, context, log_sum_exp] = self.attention.each_mut().map(|slots| slots.of(layer, rows));
        let [preactivation] = self.feed_forward.each_mut().map(|slots| slots.of(layer, rows));
        let [attention_xhat, attention_rstd] =
            self.attention_norm.each_mut().map(|slots| slots.of(layer, rows));
        let [xhat, rstd] = self.feed_forward_norm.each_mut().map(|slots| slots.of(layer, rows));
        LayerActivations {
            attention: Attended { qkv, context, log_sum_exp },
            attention_norm: Normalised { xhat: attention_xhat, rstd: attention_rstd },
            preactivation,
            feed_forward_norm: Normalised { xhat, rstd },
        }
    }

    /// Keeps the stream at the beginning of a layer, where the layer is made again from it.
    pub fn keep_stream(&mut self, layer: usize, rows: &Range<usize>, stream: &[f32]) {
        if let Some(slots) = &mut self.stream {
            slots.of(layer, rows).copy_from_slice(stream);
        }
    }

    /// The stream that was kept.
    pub fn stream(&self, layer: usize, rows: &Range<usize>) -> &[f32] {
        let slots = self.stream.as_ref().expect("a layer that is made again has its stream kept");
        &slots.buffers[layer][slots.span(rows)]
    }

    /// What the norm behind the last layer leaves behind.
    pub fn final_norm(&mut self, rows: &Range<usize>) -> Normalised<'_> {
        let [xhat, rstd] = self.final_norm.each_mut().map(|slots| slots.of(0, rows));
        Normalised { xhat, rstd }
    }

    /// The normalised rows of a layer's output, with the norm behind it: kept for every backward pass.
    pub fn output_xhat(&self, layer: usize, rows: &Range<usize>) -> &[f32] {
        let [xhat, _] = &self.feed_forward_norm;
        assert!(xhat.kept, "activations without a backward pass");
        &xhat.buffers[layer][xhat.span(rows)]
    }
}

fn kept_stream(architecture: &Architecture, keep: Keep) -> Option<Saved> {
    Some(Residual::saved_stream(architecture)).filter(|saved| keep.tokens_of(*saved).is_some())
}
