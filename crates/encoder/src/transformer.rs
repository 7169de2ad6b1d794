//! The walk over an encoder's layers, forward and back, over packed tokens: of every family, by its [`Architecture`].
//!
//! The backward pass is written by hand. What a layer left behind is used up on the way back; what it did not keep
//! ([`Recompute`]) is made again by the operations that made it first.

use contaccum_kernels::{AttentionShape, Dropout, Site};

use crate::activations::{Keep, LayerActivations, Recompute};
use crate::blocks::{Attention, BranchDropout, Embedding, FeedForward, Weights};
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
            feed_forward_output: at(rates.feed_forward_output),
        }
    }

    fn of_attention_output<'a>(&'a self, layer: usize, pass: &'a Pass) -> BranchDropout<'a> {
        self.attention_output.as_ref().map(|d| (d, Site::attention_output(layer), pass.rows()))
    }

    fn of_feed_forward_output<'a>(&'a self, layer: usize, pass: &'a Pass) -> BranchDropout<'a> {
        self.feed_forward_output.as_ref().map(|d| (d, Site::feed_forward_output(layer), pass.rows()))
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

    fn attention<'d>(&self, layer: usize, dropouts: &'d Dropouts) -> Attention<'d>
    where
        'a: 'd,
    {
        let parameters = &self.layout.layers[layer];
        Attention {
            shape: AttentionShape {
                heads: self.architecture.heads,
                head_width: self.architecture.head_width(),
            },
            inputs: &parameters.attention_inputs,
            output: &parameters.attention_output,
            dropout: dropouts.attention.as_ref().map(|d| (d, Site::attention(layer))),
        }
    }

    fn feed_forward(&self, layer: usize) -> FeedForward<'a> {
        let parameters = &self.layout.layers[layer];
        FeedForward {
            activation: self.architecture.feed_forward.activation,
            input: &parameters.feed_forward_input,
            output: &parameters.feed_forward_output,
        }
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
            self.attention_inputs(layer, pass, workspace, dropouts);
            self.attention_block_forward(layer, pass, workspace, dropouts);
            self.feed_forward_inputs(layer, pass, workspace);
            self.feed_forward_forward(layer, pass, workspace, dropouts);
        }
    }

    /// Query, key and value of a layer whose input is in `workspace.hidden`.
    fn attention_inputs(&self, layer: usize, pass: &Pass, workspace: &mut Workspace, dropouts: &Dropouts) {
        let (n, _) = self.lengths(pass);
        let Workspace { activations, hidden, .. } = workspace;
        let qkv = activations.layer(layer, &pass.rows_kept()).attention.qkv;
        self.attention(layer, dropouts).project(self.weights, &hidden[..n], qkv);
    }

    /// From query, key and value to the attention block's output in place of the layer's input in `workspace.hidden`.
    fn attention_block_forward(
        &self,
        layer: usize,
        pass: &Pass,
        workspace: &mut Workspace,
        dropouts: &Dropouts,
    ) {
        let (n, _) = self.lengths(pass);
        let Workspace { activations, hidden, scratch, .. } = workspace;
        let LayerActivations { attention: saved, attention_norm: normalised, .. } =
            activations.layer(layer, &pass.rows_kept());
        let attention = self.attention(layer, dropouts);
        attention.forward(self.weights, pass, saved, normalised.xhat, scratch);
        self.layout.layers[layer].attention_norm.forward(
            self.weights,
            attention.output,
            dropouts.of_attention_output(layer, pass),
            normalised,
            &mut hidden[..n],
        );
    }

    /// The feed-forward block's preactivation, and its activation in `workspace.wide`, from the attention block's
    /// output in `workspace.hidden`.
    fn feed_forward_inputs(&self, layer: usize, pass: &Pass, workspace: &mut Workspace) {
        let (n, f) = self.lengths(pass);
        let Workspace { activations, hidden, wide, .. } = workspace;
        let preactivation = activations.layer(layer, &pass.rows_kept()).preactivation;
        self.feed_forward(layer).project(self.weights, &hidden[..n], preactivation, &mut wide[..f]);
    }

    /// From the activation in `workspace.wide` to the layer's output in place of the attention block's in
    /// `workspace.hidden`.
    fn feed_forward_forward(
        &self,
        layer: usize,
        pass: &Pass,
        workspace: &mut Workspace,
        dropouts: &Dropouts,
    ) {
        let (n, f) = self.lengths(pass);
        let Workspace { activations, hidden, wide, .. } = workspace;
        let normalised = activations.layer(layer, &pass.rows_kept()).feed_forward_norm;
        let feed_forward = self.feed_forward(layer);
        feed_forward.forward(self.weights, &wide[..f], normalised.xhat);
        self.layout.layers[layer].feed_forward_norm.forward(
            self.weights,
            feed_forward.output,
            dropouts.of_feed_forward_output(layer, pass),
            normalised,
            &mut hidden[..n],
        );
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
        for layer in (0..self.architecture.layers.len()).rev() {
            match recompute {
                Recompute::None => self.attention_block_output(layer, pass, workspace),
                Recompute::Selective => {
                    self.attention_block_output(layer, pass, workspace);
                    self.feed_forward_inputs(layer, pass, workspace);
                }
                Recompute::Layer => {
                    self.layer_input(layer, pass, workspace, dropouts);
                    self.attention_inputs(layer, pass, workspace, dropouts);
                    self.attention_block_forward(layer, pass, workspace, dropouts);
                    self.feed_forward_inputs(layer, pass, workspace);
                }
            }
            self.feed_forward_backward(layer, pass, workspace, dropouts, gradient);
            match recompute {
                Recompute::None | Recompute::Layer => {}
                Recompute::Selective => {
                    self.layer_input(layer, pass, workspace, dropouts);
                    self.attention_inputs(layer, pass, workspace, dropouts);
                }
            }
            self.attention_block_backward(layer, pass, workspace, dropouts, gradient);
        }
        if !gradient.has_embeddings() {
            return;
        }
        let (n, _) = self.lengths(pass);
        let Workspace { gradient: upstream, branch, partials, .. } = workspace;
        let (upstream, scratch) = (&mut upstream[..n], &mut branch[..n]);
        self.embedding(dropouts).backward(self.weights, pass, upstream, scratch, gradient, partials);
    }

    /// Expects the attention block's output in `workspace.hidden`.
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
        let LayerActivations { preactivation, feed_forward_norm: normalised, .. } =
            activations.layer(layer, &pass.rows_kept());
        let feed_forward = self.feed_forward(layer);
        self.layout.layers[layer].feed_forward_norm.backward(
            self.weights,
            feed_forward.output,
            dropouts.of_feed_forward_output(layer, pass),
            normalised,
            upstream,
            branch,
            gradient,
            partials,
        );
        let input = &hidden[..n];
        feed_forward.backward(self.weights, input, preactivation, branch, wide, gradient, partials);
        feed_forward.input.input_gradient(self.weights, wide, true, upstream);
    }

    fn attention_block_backward(
        &self,
        layer: usize,
        pass: &Pass,
        workspace: &mut Workspace,
        dropouts: &Dropouts,
        gradient: &mut Gradient,
    ) {
        let (n, _) = self.lengths(pass);
        let attention = self.attention(layer, dropouts);
        let Workspace { activations, hidden, gradient: upstream, branch, wide, scratch, partials } =
            workspace;
        let (upstream, branch) = (&mut upstream[..n], &mut branch[..n]);
        let LayerActivations { attention: saved, attention_norm: normalised, .. } =
            activations.layer(layer, &pass.rows_kept());
        self.layout.layers[layer].attention_norm.backward(
            self.weights,
            attention.output,
            dropouts.of_attention_output(layer, pass),
            normalised,
            upstream,
            branch,
            gradient,
            partials,
        );
        let (hidden, qkv) = (&mut hidden[..n], &mut wide[..3 * n]);
        attention.backward(self.weights, pass, saved, branch, hidden, qkv, gradient, scratch, partials);
        self.layer_input(layer, pass, workspace, dropouts);
        let Workspace { hidden, gradient: upstream, wide, .. } = workspace;
        let (hidden, upstream, qkv) = (&hidden[..n], &mut upstream[..n], &wide[..3 * n]);
        attention.inputs.weight_gradient(qkv, hidden, gradient);
        attention.inputs.input_gradient(self.weights, qkv, true, upstream);
    }

    /// Makes the attention block's output again, in `workspace.hidden`.
    fn attention_block_output(&self, layer: usize, pass: &Pass, workspace: &mut Workspace) {
        let (n, _) = self.lengths(pass);
        let Workspace { activations, hidden, .. } = workspace;
        let normalised = activations.layer(layer, &pass.rows_kept()).attention_norm;
        self.layout.layers[layer].attention_norm.output(self.weights, normalised.xhat, &mut hidden[..n]);
    }

    /// Makes the input of a layer again, in `workspace.hidden`: the output of the one below, or of the embeddings.
    fn layer_input(&self, layer: usize, pass: &Pass, workspace: &mut Workspace, dropouts: &Dropouts) {
        let (n, _) = self.lengths(pass);
        let Workspace { activations, hidden, .. } = workspace;
        let out = &mut hidden[..n];
        match layer.checked_sub(1) {
            Some(below) => {
                let xhat = activations.output_xhat(below, &pass.rows_kept());
                self.layout.layers[below].feed_forward_norm.output(self.weights, xhat, out);
            }
            None => self.embedding(dropouts).forward(self.weights, pass, out),
        }
    }
}
