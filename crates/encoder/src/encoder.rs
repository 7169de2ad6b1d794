//! An encoder: texts' tokens in, one vector each out, and the way back.

use contaccum_kernels::{
    Bf16Weight, NoBf16, normalize_backward, normalize_forward, pool_backward, pool_forward,
};

use crate::activations::Keep;
use crate::blocks::{Dense, Weights};
use crate::gradient::Gradient;
use crate::pass::{Pass, PassLimits, Workspace};
use crate::transformer::{DropoutStream, Transformer};
use crate::{Layout, ModelConfig, ModelSettings, PackedTokens};

/// A model with its parameters in one flat buffer, and what makes a vector of its hidden states.
pub struct Encoder {
    config: ModelConfig,
    layout: Layout,
    settings: ModelSettings,
    weights: Vec<f32>,
}

impl Encoder {
    /// An encoder of these parts.
    ///
    /// # Panics
    /// When `weights` is not as long as the configuration's layout.
    pub fn new(config: ModelConfig, settings: ModelSettings, weights: Vec<f32>) -> Self {
        let layout = Layout::new(&config);
        assert_eq!(weights.len(), layout.parameters(), "weights of another layout");
        Self { config, layout, settings, weights }
    }

    /// Shape and constants.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where each tensor lies in [`Encoder::weights`].
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Pooling, normalisation, prompts.
    pub fn settings(&self) -> &ModelSettings {
        &self.settings
    }

    /// All parameters.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// All parameters, to be changed by an optimizer.
    pub fn weights_mut(&mut self) -> &mut [f32] {
        &mut self.weights
    }

    /// Width of a vector.
    pub fn dim(&self) -> usize {
        self.config.dim()
    }

    fn dense(&self) -> Dense<'_> {
        Dense {
            shapes: self.config.dense(),
            linears: &self.layout.dense,
            weights: Weights { values: &self.weights, rounded: None },
        }
    }

    fn transformer<'a>(&'a self, rounded: Option<&'a [Bf16Weight]>) -> Transformer<'a> {
        Transformer {
            architecture: self.config.architecture(),
            layout: &self.layout,
            weights: Weights { values: &self.weights, rounded },
        }
    }

    /// The vectors of the sequences in `pass`, `[sequences, dim]` into `out`. Without `dropout` none is applied.
    ///
    /// # Panics
    /// When `out` is shorter than that, or the workspace smaller than the pass.
    pub fn represent(
        &self,
        pass: &mut Pass,
        workspace: &mut Workspace,
        dropout: Option<DropoutStream>,
        out: &mut [f32],
    ) {
        self.represent_by(self.transformer(None), pass, workspace, dropout, out);
    }

    fn represent_by(
        &self,
        transformer: Transformer,
        pass: &mut Pass,
        workspace: &mut Workspace,
        dropout: Option<DropoutStream>,
        out: &mut [f32],
    ) {
        let sequences = pass.tokens().sequences();
        if sequences == 0 {
            return;
        }
        transformer.forward(pass, workspace, dropout);
        let out = &mut out[..sequences * self.dim()];
        let (hidden, offsets, width) =
            (&workspace.hidden, pass.tokens.offsets(), self.config.architecture().width);
        let (pooling, winners) = (self.settings.pooling, &mut pass.winners);
        match pass.dense.pooled(sequences, width) {
            None => pool_forward(pooling, hidden, offsets, width, out, winners),
            Some(pooled) => {
                pool_forward(pooling, hidden, offsets, width, pooled, winners);
                self.dense().forward(&mut pass.dense, sequences, out);
            }
        }
        if self.settings.normalize {
            normalize_forward(out, &mut pass.lengths[..sequences]);
            pass.vectors[..out.len()].copy_from_slice(out);
        }
    }

    /// The vectors of `tokens` without dropout, `[sequences, dim]` into `out`; what `pass` held is gone.
    ///
    /// # Panics
    /// When `tokens` exceed the limits of the pass, or the workspace or `out` is smaller.
    pub fn embed(&self, pass: &mut Pass, workspace: &mut Workspace, tokens: &PackedTokens, out: &mut [f32]) {
        pass.set(tokens);
        self.represent(pass, workspace, None, out);
    }

    /// Adds the parameters' gradients to `gradient`, from that of the vectors of the last [`Encoder::represent`] of
    /// this pass with the same dropout stream. `vector_gradient` `[sequences, dim]` is used up, and so are the
    /// activations of the pass. `gradient` is in the layout of the weights; as long as those behind
    /// [`Layout::embeddings`], it leaves the embeddings out: they are frozen.
    ///
    /// # Panics
    /// When the workspace keeps nothing for a backward pass, or `gradient` has another length.
    pub fn backpropagate(
        &self,
        pass: &mut Pass,
        workspace: &mut Workspace,
        dropout: Option<DropoutStream>,
        vector_gradient: &mut [f32],
        gradient: &mut [f32],
    ) {
        let sequences = pass.tokens().sequences();
        if sequences == 0 {
            return;
        }
        let vector_gradient = &mut vector_gradient[..sequences * self.dim()];
        if self.settings.normalize {
            let vectors = &pass.vectors[..vector_gradient.len()];
            normalize_backward(vectors, &pass.lengths[..sequences], vector_gradient);
        }
        let gradient = &mut Gradient::new(&self.layout, gradient);
        let pooled_gradient = match self.config.dense() {
            [] => vector_gradient,
            _ => self.dense().backward(&mut pass.dense, sequences, vector_gradient, gradient),
        };
        let (offsets, width) = (pass.tokens.offsets(), self.config.architecture().width);
        let (pooling, into) = (self.settings.pooling, &mut workspace.gradient);
        pool_backward(pooling, pooled_gradient, offsets, width, &pass.winners, into);
        self.transformer(None).backward(pass, workspace, dropout, gradient);
    }
}

/// Buffers to encode texts with, without a backward pass.
pub struct Embedder {
    pass: Pass,
    workspace: Workspace,
}

impl Embedder {
    /// Buffers for packs within `limits`.
    pub fn new(config: &ModelConfig, limits: PassLimits) -> Self {
        let pass = Pass::new(config, limits);
        Self { pass, workspace: Workspace::new(config, limits, Keep::Nothing) }
    }

    /// Bytes that [`Embedder::new`] allocates in a pool of `threads`.
    pub fn memory_bytes(config: &ModelConfig, limits: PassLimits, threads: usize) -> usize {
        Pass::memory_bytes(config, limits)
            + Workspace::activations_bytes(config, limits, Keep::Nothing)
            + Workspace::scratch_bytes(config, limits, Keep::Nothing, threads)
    }

    /// The vectors of `tokens`, `[sequences, dim]` into `out`.
    ///
    /// # Panics
    /// When `tokens` exceed the limits, or `out` is shorter.
    pub fn embed(&mut self, encoder: &Encoder, tokens: &PackedTokens, out: &mut [f32]) {
        encoder.embed(&mut self.pass, &mut self.workspace, tokens, out);
    }
}

/// An encoder whose layers multiply in bfloat16: for vectors, not for training.
///
/// Weights and what they are multiplied with are rounded to 8 significant bits; sums, attention and LayerNorm are `f32`.
pub struct Bf16Encoder<'a> {
    encoder: &'a Encoder,
    rounded: Vec<Bf16Weight>,
}

impl<'a> Bf16Encoder<'a> {
    /// Rounds the weights of `encoder`.
    ///
    /// # Errors
    /// On a processor that cannot multiply them.
    pub fn new(encoder: &'a Encoder) -> Result<Self, NoBf16> {
        let rounded = encoder.layout.linears().map(|linear| linear.round(&encoder.weights));
        Ok(Self { encoder, rounded: rounded.collect::<Result<_, _>>()? })
    }

    /// [`Embedder::embed`] in bfloat16.
    ///
    /// # Panics
    /// As there.
    pub fn embed(&self, buffers: &mut Embedder, tokens: &PackedTokens, out: &mut [f32]) {
        buffers.pass.set(tokens);
        let transformer = self.encoder.transformer(Some(&self.rounded));
        self.encoder.represent_by(transformer, &mut buffers.pass, &mut buffers.workspace, None, out);
    }
}
