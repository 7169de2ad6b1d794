//! A LayerNorm behind a block, fused with the block's last bias, its dropout and its residual.

use std::ops::Range;

use contaccum_kernels::{
    Dropout, LayerNorm, Partials, Site, TokenRows, layer_norm_output, residual_layer_norm_backward,
    residual_layer_norm_forward,
};

use super::{Linear, Saved, Weights};
use crate::Recompute;
use crate::gradient::Gradient;

/// Where a LayerNorm's parameters lie, and its constant.
#[derive(Clone, Debug)]
pub(crate) struct Norm {
    pub weight: Range<usize>,
    pub bias: Range<usize>,
    pub epsilon: f32,
}

/// What is dropped of a block's output, if anything is.
pub(crate) type BranchDropout<'a> = Option<(&'a Dropout, Site, TokenRows<'a>)>;

/// What a LayerNorm leaves behind: normalised rows and reciprocal standard deviations.
pub(crate) struct Normalised<'a> {
    pub xhat: &'a mut [f32],
    pub rstd: &'a mut [f32],
}

impl Norm {
    /// Behind attention: made again only with the whole layer.
    pub fn saved_behind_attention(width: usize) -> [Saved; 2] {
        [width, 1].map(|width| Saved { width, kept_under: &[Recompute::None, Recompute::Selective] })
    }

    /// Behind the feed-forward block: the layer's output, from which all else is made again.
    pub fn saved_behind_feed_forward(width: usize) -> [Saved; 2] {
        [width, 1].map(|width| Saved { width, kept_under: &Recompute::ALL })
    }

    pub fn parameters<'a>(&self, weights: Weights<'a>) -> LayerNorm<'a> {
        LayerNorm {
            weight: &weights.values[self.weight.clone()],
            bias: &weights.values[self.bias.clone()],
            epsilon: self.epsilon,
        }
    }

    /// `hidden = LayerNorm(dropout(branch + bias) + hidden)`, the branch being the product of `last` in `saved.xhat`.
    pub fn forward(
        &self,
        weights: Weights,
        last: &Linear,
        dropout: BranchDropout,
        saved: Normalised,
        hidden: &mut [f32],
    ) {
        let bias = last.bias(weights).expect("blocks with a norm behind them have biases");
        let Normalised { xhat, rstd } = saved;
        residual_layer_norm_forward(self.parameters(weights), xhat, bias, dropout, hidden, rstd);
    }

    /// The output again, from the normalised rows.
    pub fn output(&self, weights: Weights, xhat: &[f32], out: &mut [f32]) {
        layer_norm_output(self.parameters(weights), xhat, out);
    }

    /// Backward of [`Norm::forward`]: `upstream` turns from the gradient of the output into that of the residual, `branch`
    /// gets that of the product.
    #[expect(clippy::too_many_arguments, reason = "one fused pass has these operands")]
    pub fn backward(
        &self,
        weights: Weights,
        last: &Linear,
        dropout: BranchDropout,
        saved: Normalised,
        upstream: &mut [f32],
        branch: &mut [f32],
        gradient: &mut Gradient,
        partials: &mut Partials,
    ) {
        let bias = last.bias.as_ref().expect("blocks with a norm behind them have biases");
        let [dw, db, dbranch] = gradient.disjoint([&self.weight, &self.bias, bias]);
        let weight = &weights.values[self.weight.clone()];
        let Normalised { xhat, rstd } = saved;
        residual_layer_norm_backward(
            weight,
            xhat,
            rstd,
            dropout,
            upstream,
            branch,
            (dw, db, dbranch),
            partials,
        );
    }
}
