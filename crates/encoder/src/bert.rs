//! Forward and backward of the BERT family (Devlin et al., arXiv 1810.04805), post-LayerNorm, over packed tokens.

use contaccum_kernels::{
    Activation, AttentionShape, Bf16Weight, Dropout, EmbeddingGradients, EmbeddingTables, LayerNorm, Mat,
    MatMut, NoBf16, Partials, Site, activation_backward, activation_forward, add_column_sums,
    attention_backward, attention_forward, embedding_backward, embedding_forward, layer_norm_output, matmul,
    residual_layer_norm_backward, residual_layer_norm_forward, set_rows,
};

use crate::activations::{Keep, LayerActivations, Recompute};
use crate::gradient::Gradient;
use crate::parameters::LayerRanges;
use crate::pass::{Pass, Workspace};
use crate::{BertConfig, Layout};

/// The random stream of dropout: masks depend on it and on each sequence's key, not on how sequences are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropoutStream {
    /// Seed of the run.
    pub seed: u64,
    /// Number of the update.
    pub update: u64,
}

/// Both dropouts of a model in one stream.
#[derive(Clone, Copy)]
struct Rates {
    hidden: Option<Dropout>,
    attention: Option<Dropout>,
}

impl Rates {
    fn new(config: &BertConfig, stream: Option<DropoutStream>) -> Self {
        let at = |rate: f64| stream.and_then(|s| Dropout::new(rate, s.seed, s.update));
        Self { hidden: at(config.hidden_dropout_prob), attention: at(config.attention_probs_dropout_prob) }
    }
}

/// A borrowed model: shape, layout and parameters.
#[derive(Clone, Copy)]
pub(crate) struct Bert<'a> {
    pub config: &'a BertConfig,
    pub layout: &'a Layout,
    pub activation: Activation,
    pub weights: &'a [f32],
    /// The layers' weights rounded to bfloat16, where products are taken with those: forward only.
    pub bf16: Option<&'a [Bf16Layer]>,
}

/// The weights of one layer, rounded to bfloat16.
pub(crate) struct Bf16Layer {
    qkv: Bf16Weight,
    attention_output: Bf16Weight,
    intermediate: Bf16Weight,
    output: Bf16Weight,
}

impl Bf16Layer {
    pub(crate) fn new(config: &BertConfig, ranges: &LayerRanges, weights: &[f32]) -> Result<Self, NoBf16> {
        let (h, f) = (config.hidden_size, config.intermediate_size);
        let weight = |range: &std::ops::Range<usize>, outputs: usize, inputs: usize| {
            Bf16Weight::new(&weights[range.clone()], outputs, inputs)
        };
        Ok(Self {
            qkv: weight(&ranges.qkv_weight, 3 * h, h)?,
            attention_output: weight(&ranges.attention_output_weight, h, h)?,
            intermediate: weight(&ranges.intermediate_weight, f, h)?,
            output: weight(&ranges.output_weight, h, f)?,
        })
    }
}

impl<'a> Bert<'a> {
    fn tables(&self) -> EmbeddingTables<'a> {
        let (l, w) = (self.layout, self.weights);
        EmbeddingTables {
            words: &w[l.words.clone()],
            positions: &w[l.positions.clone()],
            types: &w[l.types.clone()],
            norm: self.norm(&l.embedding_norm_weight, &l.embedding_norm_bias),
        }
    }

    fn norm(&self, weight: &std::ops::Range<usize>, bias: &std::ops::Range<usize>) -> LayerNorm<'a> {
        LayerNorm {
            weight: &self.weights[weight.clone()],
            bias: &self.weights[bias.clone()],
            epsilon: self.config.layer_norm_eps as f32,
        }
    }

    fn attention(&self) -> AttentionShape {
        let heads = self.config.num_attention_heads;
        AttentionShape { heads, head_width: self.config.hidden_size / heads }
    }

    /// Hidden states of the last layer, `[tokens, hidden_size]`, in `workspace.hidden`.
    pub fn forward(&self, pass: &Pass, workspace: &mut Workspace, stream: Option<DropoutStream>) {
        let rates = Rates::new(self.config, stream);
        let n = pass.tokens.tokens();
        embedding_forward(
            self.tables(),
            pass.tokens.ids(),
            pass.tokens.types(),
            pass.rows(),
            rates.hidden.as_ref(),
            &mut workspace.hidden[..n * self.config.hidden_size],
        );
        for layer in 0..self.config.num_hidden_layers {
            self.layer_forward(layer, pass, workspace, rates);
        }
    }

    fn layer_forward(&self, layer: usize, pass: &Pass, workspace: &mut Workspace, rates: Rates) {
        self.attention_inputs(layer, pass, workspace);
        self.attention_block_forward(layer, pass, workspace, rates);
        self.feed_forward_inputs(layer, pass, workspace);
        self.feed_forward_forward(layer, pass, workspace, rates);
    }

    /// Query, key and value of a layer whose input is in `workspace.hidden`.
    fn attention_inputs(&self, layer: usize, pass: &Pass, workspace: &mut Workspace) {
        let (n, h) = (pass.tokens.tokens(), self.config.hidden_size);
        let (ranges, w) = (&self.layout.layers[layer], self.weights);
        let LayerActivations { qkv, .. } = workspace.activations.layer(layer, &pass.rows_kept());
        set_rows(qkv, &w[ranges.qkv_bias.clone()]);
        let hidden = &workspace.hidden[..n * h];
        match self.bf16 {
            Some(layers) => layers[layer].qkv.multiply(hidden, true, qkv),
            None => linear(hidden, &w[ranges.qkv_weight.clone()], (n, h, 3 * h), true, qkv),
        }
    }

    /// From query, key and value to the attention block's output in place of the layer's input in `workspace.hidden`.
    fn attention_block_forward(&self, layer: usize, pass: &Pass, workspace: &mut Workspace, rates: Rates) {
        let (n, h) = (pass.tokens.tokens(), self.config.hidden_size);
        let (ranges, w) = (&self.layout.layers[layer], self.weights);
        let a = workspace.activations.layer(layer, &pass.rows_kept());
        attention_forward(
            self.attention(),
            a.qkv,
            pass.tokens.offsets(),
            &pass.sequence_keys,
            rates.attention.as_ref().map(|d| (d, Site::attention(layer))),
            a.context,
            a.log_sum_exp,
            &mut workspace.scratch,
        );
        let branch = a.attention_xhat;
        match self.bf16 {
            Some(layers) => layers[layer].attention_output.multiply(a.context, false, branch),
            None => linear(a.context, &w[ranges.attention_output_weight.clone()], (n, h, h), false, branch),
        }
        residual_layer_norm_forward(
            self.norm(&ranges.attention_norm_weight, &ranges.attention_norm_bias),
            branch,
            &w[ranges.attention_output_bias.clone()],
            rates.hidden.as_ref().map(|d| (d, Site::attention_output(layer), pass.rows())),
            &mut workspace.hidden[..n * h],
            a.attention_rstd,
        );
    }

    /// The feed-forward layer's preactivation, and its activation in `workspace.wide`, from the attention block's
    /// output in `workspace.hidden`.
    fn feed_forward_inputs(&self, layer: usize, pass: &Pass, workspace: &mut Workspace) {
        let (n, h, f) = (pass.tokens.tokens(), self.config.hidden_size, self.config.intermediate_size);
        let (ranges, w) = (&self.layout.layers[layer], self.weights);
        let LayerActivations { preactivation, .. } = workspace.activations.layer(layer, &pass.rows_kept());
        let hidden = &workspace.hidden[..n * h];
        match self.bf16 {
            Some(layers) => layers[layer].intermediate.multiply(hidden, false, preactivation),
            None => linear(hidden, &w[ranges.intermediate_weight.clone()], (n, h, f), false, preactivation),
        }
        activation_forward(
            self.activation,
            preactivation,
            &w[ranges.intermediate_bias.clone()],
            &mut workspace.wide[..n * f],
        );
    }

    /// From the activation in `workspace.wide` to the layer's output in place of the attention block's in
    /// `workspace.hidden`.
    fn feed_forward_forward(&self, layer: usize, pass: &Pass, workspace: &mut Workspace, rates: Rates) {
        let (n, h, f) = (pass.tokens.tokens(), self.config.hidden_size, self.config.intermediate_size);
        let (ranges, w) = (&self.layout.layers[layer], self.weights);
        let a = workspace.activations.layer(layer, &pass.rows_kept());
        let branch = a.output_xhat;
        let wide = &workspace.wide[..n * f];
        match self.bf16 {
            Some(layers) => layers[layer].output.multiply(wide, false, branch),
            None => linear(wide, &w[ranges.output_weight.clone()], (n, f, h), false, branch),
        }
        residual_layer_norm_forward(
            self.norm(&ranges.output_norm_weight, &ranges.output_norm_bias),
            branch,
            &w[ranges.output_bias.clone()],
            rates.hidden.as_ref().map(|d| (d, Site::feed_forward_output(layer), pass.rows())),
            &mut workspace.hidden[..n * h],
            a.output_rstd,
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
        let rates = Rates::new(self.config, stream);
        for layer in (0..self.config.num_hidden_layers).rev() {
            match recompute {
                Recompute::None => self.attention_block_output(layer, pass, workspace),
                Recompute::Selective => {
                    self.attention_block_output(layer, pass, workspace);
                    self.feed_forward_inputs(layer, pass, workspace);
                }
                Recompute::Layer => {
                    self.layer_input(layer, pass, workspace, rates);
                    self.attention_inputs(layer, pass, workspace);
                    self.attention_block_forward(layer, pass, workspace, rates);
                    self.feed_forward_inputs(layer, pass, workspace);
                }
            }
            self.feed_forward_backward(layer, pass, workspace, rates, gradient);
            match recompute {
                Recompute::None | Recompute::Layer => {}
                Recompute::Selective => {
                    self.layer_input(layer, pass, workspace, rates);
                    self.attention_inputs(layer, pass, workspace);
                }
            }
            self.attention_block_backward(layer, pass, workspace, rates, gradient);
        }
        if !gradient.has_embeddings() {
            return;
        }
        let n = pass.tokens.tokens() * self.config.hidden_size;
        let l = self.layout;
        let [words, positions, types, norm_weight, norm_bias] = gradient.disjoint([
            &l.words,
            &l.positions,
            &l.types,
            &l.embedding_norm_weight,
            &l.embedding_norm_bias,
        ]);
        embedding_backward(
            self.tables(),
            pass.tokens.ids(),
            pass.tokens.types(),
            pass.rows(),
            rates.hidden.as_ref(),
            &mut workspace.gradient[..n],
            &mut workspace.branch[..n],
            EmbeddingGradients { words, positions, types, norm_weight, norm_bias },
            &mut workspace.partials,
        );
    }

    /// Expects the attention block's output in `workspace.hidden`.
    fn feed_forward_backward(
        &self,
        layer: usize,
        pass: &Pass,
        workspace: &mut Workspace,
        rates: Rates,
        gradient: &mut Gradient,
    ) {
        let (n, h, f) = (pass.tokens.tokens(), self.config.hidden_size, self.config.intermediate_size);
        let (ranges, w) = (&self.layout.layers[layer], self.weights);
        let Workspace { activations, hidden, gradient: upstream, branch, wide, partials, .. } = workspace;
        let a = activations.layer(layer, &pass.rows_kept());
        let (hidden, upstream) = (&hidden[..n * h], &mut upstream[..n * h]);
        let (branch, wide) = (&mut branch[..n * h], &mut wide[..n * f]);

        norm_backward(
            (&w[ranges.output_norm_weight.clone()], a.output_xhat, a.output_rstd),
            rates.hidden.as_ref().map(|d| (d, Site::feed_forward_output(layer), pass.rows())),
            (upstream, branch),
            [&ranges.output_norm_weight, &ranges.output_norm_bias, &ranges.output_bias],
            gradient,
            partials,
        );
        input_gradient(branch, &w[ranges.output_weight.clone()], (n, f, h), false, wide);
        let saved = a.preactivation;
        activation_backward(
            self.activation,
            saved,
            wide,
            &mut gradient[ranges.intermediate_bias.clone()],
            partials,
        );
        weight_gradient(branch, saved, (n, f, h), &mut gradient[ranges.output_weight.clone()]);
        weight_gradient(wide, hidden, (n, h, f), &mut gradient[ranges.intermediate_weight.clone()]);
        input_gradient(wide, &w[ranges.intermediate_weight.clone()], (n, h, f), true, upstream);
    }

    fn attention_block_backward(
        &self,
        layer: usize,
        pass: &Pass,
        workspace: &mut Workspace,
        rates: Rates,
        gradient: &mut Gradient,
    ) {
        let (n, h) = (pass.tokens.tokens(), self.config.hidden_size);
        let (ranges, w) = (&self.layout.layers[layer], self.weights);
        {
            let Workspace { activations, hidden, gradient: upstream, branch, wide, scratch, partials } =
                workspace;
            let a = activations.layer(layer, &pass.rows_kept());
            let (hidden, upstream) = (&mut hidden[..n * h], &mut upstream[..n * h]);
            let (branch, qkv_gradient) = (&mut branch[..n * h], &mut wide[..n * 3 * h]);
            norm_backward(
                (&w[ranges.attention_norm_weight.clone()], a.attention_xhat, a.attention_rstd),
                rates.hidden.as_ref().map(|d| (d, Site::attention_output(layer), pass.rows())),
                (upstream, branch),
                [&ranges.attention_norm_weight, &ranges.attention_norm_bias, &ranges.attention_output_bias],
                gradient,
                partials,
            );
            let output_weight = ranges.attention_output_weight.clone();
            weight_gradient(branch, a.context, (n, h, h), &mut gradient[output_weight.clone()]);
            input_gradient(branch, &w[output_weight], (n, h, h), false, hidden);
            attention_backward(
                self.attention(),
                a.qkv,
                a.context,
                a.log_sum_exp,
                pass.tokens.offsets(),
                &pass.sequence_keys,
                rates.attention.as_ref().map(|d| (d, Site::attention(layer))),
                hidden,
                qkv_gradient,
                scratch,
            );
            add_column_sums(qkv_gradient, &mut gradient[ranges.qkv_bias.clone()], partials);
        }
        self.layer_input(layer, pass, workspace, rates);
        let Workspace { hidden, gradient: upstream, wide, .. } = workspace;
        let (hidden, upstream, qkv_gradient) = (&hidden[..n * h], &mut upstream[..n * h], &wide[..n * 3 * h]);
        weight_gradient(qkv_gradient, hidden, (n, h, 3 * h), &mut gradient[ranges.qkv_weight.clone()]);
        input_gradient(qkv_gradient, &w[ranges.qkv_weight.clone()], (n, h, 3 * h), true, upstream);
    }

    /// Makes the attention block's output again, in `workspace.hidden`.
    fn attention_block_output(&self, layer: usize, pass: &Pass, workspace: &mut Workspace) {
        let LayerRanges { attention_norm_weight, attention_norm_bias, .. } = &self.layout.layers[layer];
        let a = workspace.activations.layer(layer, &pass.rows_kept());
        let out = &mut workspace.hidden[..a.attention_xhat.len()];
        layer_norm_output(self.norm(attention_norm_weight, attention_norm_bias), a.attention_xhat, out);
    }

    /// Makes the input of a layer again, in `workspace.hidden`: the output of the one below, or of the embeddings.
    fn layer_input(&self, layer: usize, pass: &Pass, workspace: &mut Workspace, rates: Rates) {
        let out = &mut workspace.hidden[..pass.tokens.tokens() * self.config.hidden_size];
        match layer.checked_sub(1) {
            Some(below) => {
                let LayerRanges { output_norm_weight, output_norm_bias, .. } = &self.layout.layers[below];
                let xhat = workspace.activations.output_xhat(below, &pass.rows_kept());
                layer_norm_output(self.norm(output_norm_weight, output_norm_bias), xhat, out);
            }
            None => embedding_forward(
                self.tables(),
                pass.tokens.ids(),
                pass.tokens.types(),
                pass.rows(),
                rates.hidden.as_ref(),
                out,
            ),
        }
    }
}

/// `y (+)= x Wᵀ` for `x` `[n, inputs]`, `W` `[outputs, inputs]`.
fn linear(
    x: &[f32],
    weight: &[f32],
    (n, inputs, outputs): (usize, usize, usize),
    accumulate: bool,
    y: &mut [f32],
) {
    let (x, weight) = (Mat::new(x, n, inputs), Mat::new(weight, outputs, inputs));
    matmul(MatMut::new(y, n, outputs), x, weight.t(), 1.0, accumulate);
}

/// `dx (+)= dy W`, shapes as in [`linear`].
fn input_gradient(
    dy: &[f32],
    weight: &[f32],
    (n, inputs, outputs): (usize, usize, usize),
    accumulate: bool,
    dx: &mut [f32],
) {
    let (dy, weight) = (Mat::new(dy, n, outputs), Mat::new(weight, outputs, inputs));
    matmul(MatMut::new(dx, n, inputs), dy, weight, 1.0, accumulate);
}

/// `dW += dyᵀ x`, shapes as in [`linear`].
fn weight_gradient(dy: &[f32], x: &[f32], (n, inputs, outputs): (usize, usize, usize), dw: &mut [f32]) {
    let (dy, x) = (Mat::new(dy, n, outputs), Mat::new(x, n, inputs));
    matmul(MatMut::new(dw, outputs, inputs), dy.t(), x, 1.0, true);
}

/// [`residual_layer_norm_backward`] with the parameters' gradients at their ranges of one buffer.
fn norm_backward(
    (weight, xhat, rstd): (&[f32], &[f32], &[f32]),
    dropout: Option<(&Dropout, Site, contaccum_kernels::TokenRows)>,
    (upstream, branch): (&mut [f32], &mut [f32]),
    ranges: [&std::ops::Range<usize>; 3],
    gradient: &mut Gradient,
    partials: &mut Partials,
) {
    let [dw, db, dbranch] = gradient.disjoint(ranges);
    residual_layer_norm_backward(weight, xhat, rstd, dropout, upstream, branch, (dw, db, dbranch), partials);
}
