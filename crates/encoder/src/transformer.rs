//! The walk over an encoder's layers, forward and back, over packed tokens: of every family, by its [`Architecture`].
//!
//! The backward pass is written by hand. What a layer left behind is used up on the way back; what it did not keep
//! ([`Recompute`]) is made again by the operations that made it first.

use contaccum_kernels::{AttentionShape, Dropout, Rotary, Site, TokenDropout, layer_norm_forward};

use crate::activations::{Keep, LayerActivations, Recompute};
use crate::architecture::NormPlace;
use crate::blocks::{Attention, Embedding, FeedForward, Linear, Norm, Normalised, Residual, Weights};
use crate::gradient::Gradient;
use crate::pass::{Pass, Workspace};
use crate::{Architecture, Layout};

/// The random stream of dropout: masks depend on it and on each sequence's key, not on how sequences are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropoutStream {
    /// Seed of the run.
    pub seed: u64,
    /// Number of the update.
    pub update: u64,
}

/// Every dropout of a model in one stream.
#[derive(Clone, Copy)]
struct Dropouts {
    embeddings: Option<Dropout>,
    attention: Option<Dropout>,
    attention_output: Option<Dropout>,
    feed_forward_inner: Option<Dropout>,
    feed_forward_output: Option<Dropout>,
}

impl Dropouts {
    fn new(architecture: &Architecture, stream: Option<DropoutStream>) -> Self {
        let at = |rate: f64| stream.and_then(|s| Dropout::new(rate, s.seed, s.update));
        let rates = architecture.dropout;
        Self {
            embeddings: at(rates.embeddings),
            attention: at(rates.attention),
            attention_output: at(rates.attention_output),
            feed_forward_inner: at(rates.feed_forward_inner),
            feed_forward_output: at(rates.feed_forward_output),
        }
    }
}

/// A borrowed model.
#[derive(Clone, Copy)]
pub(crate) struct Transformer<'a> {
    pub architecture: &'a Architecture,
    pub layout: &'a Layout,
    pub weights: Weights<'a>,
}

impl<'a> Transformer<'a> {
    fn embedding(&self, dropouts: &Dropouts) -> Embedding<'a> {
        Embedding { layout: &self.layout.embedding, dropout: dropouts.embeddings }
    }

    fn attention<'d>(
        &'d self,
        layer: usize,
        dropouts: &'d Dropouts,
        rotaries: &'d [Rotary],
    ) -> Attention<'d> {
        let (parameters, shape) = (&self.layout.layers[layer], self.architecture.layers[layer]);
        Attention {
            shape: AttentionShape {
                heads: self.architecture.heads,
                head_width: self.architecture.head_width(),
                window: shape.window,
            },
            inputs: &parameters.attention_inputs,
            output: &parameters.attention_output,
            rotary: shape.rotary.map(|base| &rotaries[base]),
            relative_bias: self.layout.relative_bias.as_ref(),
            dropout: dropouts.attention.as_ref().map(|d| (d, Site::attention(layer))),
        }
    }

    fn attention_residual<'d>(
        &'d self,
        layer: usize,
        pass: &'d Pass,
        dropouts: &'d Dropouts,
    ) -> Residual<'d> {
        let parameters = &self.layout.layers[layer];
        let dropout = dropouts.attention_output.as_ref();
        let dropout = dropout.map(|d| (d, Site::attention_output(layer), pass.rows()));
        self.residual(parameters.attention_norm.as_ref(), &parameters.attention_output, dropout)
    }

    fn feed_forward<'d>(&'d self, layer: usize, pass: &'d Pass, dropouts: &'d Dropouts) -> FeedForward<'d> {
        let parameters = &self.layout.layers[layer];
        let dropout = dropouts.feed_forward_inner.as_ref();
        FeedForward {
            shape: self.architecture.feed_forward,
            input: &parameters.feed_forward_input,
            output: &parameters.feed_forward_output,
            dropout: dropout.map(|d| (d, Site::feed_forward_inner(layer), pass.rows())),
        }
    }

    fn feed_forward_residual<'d>(
        &'d self,
        layer: usize,
        pass: &'d Pass,
        dropouts: &'d Dropouts,
    ) -> Residual<'d> {
        let parameters = &self.layout.layers[layer];
        let dropout = dropouts.feed_forward_output.as_ref();
        let dropout = dropout.map(|d| (d, Site::feed_forward_output(layer), pass.rows()));
        self.residual(Some(&parameters.feed_forward_norm), &parameters.feed_forward_output, dropout)
    }

    fn residual<'d>(
        &self,
        norm: Option<&'d Norm>,
        last: &'d Linear,
        dropout: TokenDropout<'d>,
    ) -> Residual<'d> {
        let (place, width) = (self.architecture.norm.place, self.architecture.width);
        Residual { place, norm, last, dropout, width }
    }

    /// Numbers of the pass's hidden states, and of its activations between the feed-forward products.
    fn lengths(&self, pass: &Pass) -> (usize, usize) {
        let tokens = pass.tokens.tokens();
        (tokens * self.architecture.width, tokens * self.architecture.feed_forward.width)
    }

    /// Hidden states of the last layer, `[tokens, width]`, in `workspace.hidden`.
    pub fn forward(&self, pass: &Pass, workspace: &mut Workspace, stream: Option<DropoutStream>) {
        let dropouts = &Dropouts::new(self.architecture, stream);
        let (n, _) = self.lengths(pass);
        self.embedding(dropouts).forward(self.weights, pass, &mut workspace.hidden[..n]);
        for layer in 0..self.architecture.layers.len() {
            workspace.activations.keep_stream(layer, &pass.rows_kept(), &workspace.hidden[..n]);
            self.attention_inputs(layer, pass, workspace, dropouts);
            self.attention_forward(layer, pass, workspace, dropouts);
            self.feed_forward_inputs(layer, pass, workspace, dropouts);
            self.feed_forward_forward(layer, pass, workspace, dropouts);
        }
        if let Some(norm) = &self.layout.final_norm {
            let Workspace { activations, hidden, branch, .. } = workspace;
            let Normalised { xhat, rstd } = activations.final_norm(&pass.rows_kept());
            layer_norm_forward(norm.parameters(self.weights), &hidden[..n], xhat, rstd, &mut branch[..n]);
            std::mem::swap(hidden, branch);
        }
    }

    /// Query, key and value of a layer, from the stream in `workspace.hidden`.
    fn attention_inputs(&self, layer: usize, pass: &Pass, workspace: &mut Workspace, dropouts: &Dropouts) {
        let (n, _) = self.lengths(pass);
        let Workspace { activations, hidden, branch, rotaries, .. } = workspace;
        let LayerActivations { attention: saved, mut attention_norm, .. } =
            activations.layer(layer, &pass.rows_kept());
        let residual = self.attention_residual(layer, pass, dropouts);
        let input = residual.input(self.weights, &hidden[..n], &mut attention_norm, lent(branch, n));
        self.attention(layer, dropouts, rotaries).project(self.weights, pass, input, saved.qkv);
    }

    /// From query, key and value to the stream behind attention, in `workspace.hidden`.
    fn attention_forward(&self, layer: usize, pass: &Pass, workspace: &mut Workspace, dropouts: &Dropouts) {
        let (n, _) = self.lengths(pass);
        let Workspace { activations, hidden, branch, rotaries, scratch, .. } = workspace;
        let LayerActivations { attention: saved, mut attention_norm, .. } =
            activations.layer(layer, &pass.rows_kept());
        let (residual, branch) = (self.attention_residual(layer, pass, dropouts), lent(branch, n));
        let product = residual.product(&mut attention_norm, branch);
        self.attention(layer, dropouts, rotaries).forward(self.weights, pass, saved, product, scratch);
        residual.add(self.weights, &mut attention_norm, branch, &mut hidden[..n]);
    }

    /// The feed-forward block's preactivation, and what it is activated to in `workspace.wide`, from the stream in
    /// `workspace.hidden`.
    fn feed_forward_inputs(&self, layer: usize, pass: &Pass, workspace: &mut Workspace, dropouts: &Dropouts) {
        let (n, f) = self.lengths(pass);
        let Workspace { activations, hidden, branch, wide, .. } = workspace;
        let LayerActivations { preactivation, mut feed_forward_norm, .. } =
            activations.layer(layer, &pass.rows_kept());
        let residual = self.feed_forward_residual(layer, pass, dropouts);
        let input = residual.input(self.weights, &hidden[..n], &mut feed_forward_norm, lent(branch, n));
        let feed_forward = self.feed_forward(layer, pass, dropouts);
        feed_forward.project(self.weights, input, preactivation, &mut wide[..f]);
    }

    /// From what is activated in `workspace.wide` to the stream behind the layer, in `workspace.hidden`.
    fn feed_forward_forward(
        &self,
        layer: usize,
        pass: &Pass,
        workspace: &mut Workspace,
        dropouts: &Dropouts,
    ) {
        let (n, f) = self.lengths(pass);
        let Workspace { activations, hidden, branch, wide, .. } = workspace;
        let mut saved = activations.layer(layer, &pass.rows_kept()).feed_forward_norm;
        let (residual, branch) = (self.feed_forward_residual(layer, pass, dropouts), lent(branch, n));
        let product = residual.product(&mut saved, branch);
        self.feed_forward(layer, pass, dropouts).forward(self.weights, &wide[..f], product);
        residual.add(self.weights, &mut saved, branch, &mut hidden[..n]);
    }

    /// Adds the parameters' gradients to `gradient`, from the gradient of the last layer's hidden states in
    /// `workspace.gradient`. Uses up the pass's activations, after making again those that were not kept.
    pub fn backward(
        &self,
        pass: &Pass,
        workspace: &mut Workspace,
        stream: Option<DropoutStream>,
        gradient: &mut Gradient,
    ) {
        let Keep::ForBackward { recompute, .. } = workspace.activations.keep else {
            panic!("a workspace that keeps no activations has no backward");
        };
        let dropouts = &Dropouts::new(self.architecture, stream);
        self.final_norm_backward(pass, workspace, gradient);
        for layer in (0..self.architecture.layers.len()).rev() {
            match recompute {
                Recompute::None => self.feed_forward_input_again(layer, pass, workspace, dropouts),
                Recompute::Selective => {
                    self.feed_forward_input_again(layer, pass, workspace, dropouts);
                    self.preactivation_again(layer, pass, workspace, dropouts);
                }
                Recompute::Layer => self.layer_again(layer, pass, workspace, dropouts),
            }
            self.feed_forward_backward(layer, pass, workspace, dropouts, gradient);
            match recompute {
                Recompute::None | Recompute::Layer => {}
                Recompute::Selective => self.qkv_again(layer, pass, workspace, dropouts),
            }
            self.attention_backward(layer, pass, workspace, dropouts, gradient);
        }
        if !gradient.has_embeddings() {
            return;
        }
        let (n, _) = self.lengths(pass);
        let Workspace { gradient: upstream, branch, partials, .. } = workspace;
        let (upstream, scratch) = (&mut upstream[..n], &mut branch[..n]);
        self.embedding(dropouts).backward(self.weights, pass, upstream, scratch, gradient, partials);
    }

    fn final_norm_backward(&self, pass: &Pass, workspace: &mut Workspace, gradient: &mut Gradient) {
        let Some(norm) = &self.layout.final_norm else { return };
        let (n, _) = self.lengths(pass);
        let Workspace { activations, gradient: upstream, branch, partials, .. } = workspace;
        std::mem::swap(upstream, branch);
        let (upstream, out) = (&mut upstream[..n], &mut branch[..n]);
        upstream.fill(0.0);
        let saved = activations.final_norm(&pass.rows_kept());
        norm.backward(self.weights, &saved, out, upstream, gradient, partials);
    }

    /// Expects the feed-forward block's input in `workspace.hidden`.
    fn feed_forward_backward(
        &self,
        layer: usize,
        pass: &Pass,
        workspace: &mut Workspace,
        dropouts: &Dropouts,
        gradient: &mut Gradient,
    ) {
        let (n, f) = self.lengths(pass);
        let Workspace { activations, hidden, gradient: upstream, branch, wide, partials, .. } = workspace;
        let (upstream, branch, wide) = (&mut upstream[..n], &mut branch[..n], &mut wide[..f]);
        let LayerActivations { preactivation, feed_forward_norm: saved, .. } =
            activations.layer(layer, &pass.rows_kept());
        let residual = self.feed_forward_residual(layer, pass, dropouts);
        residual.add_backward(self.weights, &saved, upstream, branch, gradient, partials);
        let block = self.feed_forward(layer, pass, dropouts);
        let input = &hidden[..n];
        let dy = block.backward(self.weights, input, preactivation, branch, wide, gradient, partials);
        residual.input_backward(self.weights, block.input, dy, &saved, upstream, branch, gradient, partials);
    }

    fn attention_backward(
        &self,
        layer: usize,
        pass: &Pass,
        workspace: &mut Workspace,
        dropouts: &Dropouts,
        gradient: &mut Gradient,
    ) {
        let (n, _) = self.lengths(pass);
        let residual = self.attention_residual(layer, pass, dropouts);
        {
            let Workspace {
                activations,
                hidden,
                gradient: upstream,
                branch,
                wide,
                scratch,
                bias_parts,
                rotaries,
                partials,
            } = workspace;
            let (upstream, branch) = (&mut upstream[..n], &mut branch[..n]);
            let LayerActivations { attention: saved, attention_norm, .. } =
                activations.layer(layer, &pass.rows_kept());
            residual.add_backward(self.weights, &attention_norm, upstream, branch, gradient, partials);
            self.attention(layer, dropouts, rotaries).backward(
                self.weights,
                pass,
                saved,
                branch,
                &mut hidden[..n],
                &mut wide[..3 * n],
                gradient,
                scratch,
                bias_parts,
                partials,
            );
        }
        self.attention_input_again(layer, pass, workspace, dropouts);
        let Workspace { activations, hidden, gradient: upstream, branch, wide, partials, .. } = workspace;
        let (upstream, branch, dy) = (&mut upstream[..n], &mut branch[..n], &wide[..3 * n]);
        let saved = activations.layer(layer, &pass.rows_kept()).attention_norm;
        let first = &self.layout.layers[layer].attention_inputs;
        first.weight_gradient(dy, &hidden[..n], gradient);
        residual.input_backward(self.weights, first, dy, &saved, upstream, branch, gradient, partials);
    }

    /// Makes the feed-forward block's input again, in `workspace.hidden`, from normalised rows.
    fn feed_forward_input_again(
        &self,
        layer: usize,
        pass: &Pass,
        workspace: &mut Workspace,
        dropouts: &Dropouts,
    ) {
        let (n, _) = self.lengths(pass);
        let Workspace { activations, hidden, .. } = workspace;
        let LayerActivations { attention_norm, feed_forward_norm, .. } =
            activations.layer(layer, &pass.rows_kept());
        match self.architecture.norm.place {
            NormPlace::After => {
                let residual = self.attention_residual(layer, pass, dropouts);
                residual.input_again(self.weights, &attention_norm, &mut hidden[..n]);
            }
            NormPlace::Before => {
                let residual = self.feed_forward_residual(layer, pass, dropouts);
                residual.input_again(self.weights, &feed_forward_norm, &mut hidden[..n]);
            }
        }
    }

    /// Makes attention's input again, in `workspace.hidden`: of normalised rows of this layer, or with norms behind the
    /// blocks of the one below, or of the embeddings.
    fn attention_input_again(
        &self,
        layer: usize,
        pass: &Pass,
        workspace: &mut Workspace,
        dropouts: &Dropouts,
    ) {
        let (n, _) = self.lengths(pass);
        let Workspace { activations, hidden, .. } = workspace;
        let (rows, out) = (pass.rows_kept(), &mut hidden[..n]);
        match (self.architecture.norm.place, layer.checked_sub(1)) {
            (NormPlace::Before, _) => {
                let saved = activations.layer(layer, &rows).attention_norm;
                self.attention_residual(layer, pass, dropouts).input_again(self.weights, &saved, out);
            }
            (NormPlace::After, Some(below)) => {
                let xhat = activations.output_xhat(below, &rows);
                self.layout.layers[below].feed_forward_norm.output(self.weights, xhat, out);
            }
            (NormPlace::After, None) => self.embedding(dropouts).forward(self.weights, pass, out),
        }
    }

    /// Makes query, key and value again.
    fn qkv_again(&self, layer: usize, pass: &Pass, workspace: &mut Workspace, dropouts: &Dropouts) {
        let (n, _) = self.lengths(pass);
        self.attention_input_again(layer, pass, workspace, dropouts);
        let Workspace { activations, hidden, rotaries, .. } = workspace;
        let qkv = activations.layer(layer, &pass.rows_kept()).attention.qkv;
        self.attention(layer, dropouts, rotaries).project(self.weights, pass, &hidden[..n], qkv);
    }

    /// Makes the feed-forward block's preactivation again, from its input in `workspace.hidden`.
    fn preactivation_again(&self, layer: usize, pass: &Pass, workspace: &mut Workspace, dropouts: &Dropouts) {
        let (n, f) = self.lengths(pass);
        let Workspace { activations, hidden, wide, .. } = workspace;
        let preactivation = activations.layer(layer, &pass.rows_kept()).preactivation;
        let feed_forward = self.feed_forward(layer, pass, dropouts);
        feed_forward.project(self.weights, &hidden[..n], preactivation, &mut wide[..f]);
    }

    /// Makes a layer again up to its feed-forward block's preactivation, whose input comes to lie in `workspace.hidden`.
    fn layer_again(&self, layer: usize, pass: &Pass, workspace: &mut Workspace, dropouts: &Dropouts) {
        let (n, _) = self.lengths(pass);
        match self.architecture.norm.place {
            NormPlace::After => self.attention_input_again(layer, pass, workspace, dropouts),
            NormPlace::Before => {
                let Workspace { activations, hidden, .. } = workspace;
                hidden[..n].copy_from_slice(activations.stream(layer, &pass.rows_kept()));
            }
        }
        self.attention_inputs(layer, pass, workspace, dropouts);
        self.attention_forward(layer, pass, workspace, dropouts);
        self.feed_forward_inputs(layer, pass, workspace, dropouts);
        match self.architecture.norm.place {
            NormPlace::After => {}
            NormPlace::Before => std::mem::swap(&mut workspace.hidden, &mut workspace.branch),
        }
    }
}

/// The first numbers of a buffer; none of one that is not there, which nothing is to be written to.
fn lent(buffer: &mut [f32], length: usize) -> &mut [f32] {
    buffer.get_mut(..length).unwrap_or_default()
}
