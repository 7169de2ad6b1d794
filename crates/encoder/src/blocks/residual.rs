//! How a block hangs on the residual stream: a norm before or behind it, its last bias, dropout, and the sum.
//!
//! The stream is in `hidden`. With the norm behind the block, `hidden` is the block's input too, its last product goes
//! where the normalised rows come to lie, and one kernel does the rest. With the norm before it, input and last product
//! take turns in `branch`.

use contaccum_kernels::{
    Partials, TokenDropout, layer_norm_forward, residual_backward, residual_forward,
    residual_layer_norm_backward, residual_layer_norm_forward,
};

use super::{Linear, Norm, Normalised, Saved, Weights};
use crate::Recompute;
use crate::architecture::{Architecture, NormPlace};
use crate::gradient::Gradient;

/// A block's place on the stream.
pub(crate) struct Residual<'a> {
    pub place: NormPlace,
    /// Not there where the block takes the stream as it is.
    pub norm: Option<&'a Norm>,
    /// The block's last product, whose bias is added here.
    pub last: &'a Linear,
    pub dropout: TokenDropout<'a>,
    pub width: usize,
}

/// Behind a block there is always a norm, and it has a bias as the block's last product has.
const BEHIND: &str = "a norm behind a block, with biases";

impl Residual<'_> {
    /// The stream at the beginning of a layer: with norms before the blocks it is in no normalised row, and all of the
    /// layer is made again from it.
    pub fn saved_stream(architecture: &Architecture) -> Saved {
        match architecture.norm.place {
            NormPlace::After => Saved::NOTHING,
            NormPlace::Before => Saved { width: architecture.width, kept_under: &[Recompute::Layer] },
        }
    }

    /// The block's input.
    pub fn input<'h>(
        &self,
        weights: Weights,
        hidden: &'h [f32],
        saved: &mut Normalised,
        branch: &'h mut [f32],
    ) -> &'h [f32] {
        match (self.place, self.norm) {
            (NormPlace::After, _) => hidden,
            (NormPlace::Before, Some(norm)) => {
                layer_norm_forward(norm.parameters(weights), hidden, saved.xhat, saved.rstd, branch);
                branch
            }
            (NormPlace::Before, None) => {
                saved.xhat.copy_from_slice(hidden);
                hidden
            }
        }
    }

    /// Makes the input again that [`Residual::input`] made with the norm before the block.
    pub fn input_again(&self, weights: Weights, saved: &Normalised, out: &mut [f32]) {
        match self.norm {
            Some(norm) => norm.output(weights, saved.xhat, out),
            None => out.copy_from_slice(saved.xhat),
        }
    }

    /// Where the block's last product goes.
    pub fn product<'b>(&self, saved: &'b mut Normalised, branch: &'b mut [f32]) -> &'b mut [f32] {
        match self.place {
            NormPlace::After => saved.xhat,
            NormPlace::Before => branch,
        }
    }

    /// With the last product where [`Residual::product`] says, `hidden` becomes the stream behind the block.
    pub fn add(&self, weights: Weights, saved: &mut Normalised, branch: &mut [f32], hidden: &mut [f32]) {
        let bias = self.last.bias(weights);
        match self.place {
            NormPlace::After => residual_layer_norm_forward(
                self.norm.expect(BEHIND).parameters(weights),
                saved.xhat,
                bias.expect(BEHIND),
                self.dropout,
                hidden,
                saved.rstd,
            ),
            NormPlace::Before => residual_forward(branch, bias, self.dropout, hidden, self.width),
        }
    }

    /// From the gradient of the stream behind the block, in `upstream`, to that of the last product, in `branch`, and what
    /// of it goes past the block, in `upstream`.
    pub fn add_backward(
        &self,
        weights: Weights,
        saved: &Normalised,
        upstream: &mut [f32],
        branch: &mut [f32],
        gradient: &mut Gradient,
        partials: &mut Partials,
    ) {
        let bias = self.last.bias.as_ref();
        match self.place {
            NormPlace::After => {
                let norm = self.norm.expect(BEHIND);
                let [dw, db, dbranch] =
                    gradient.disjoint([&norm.weight, norm.bias.as_ref().expect(BEHIND), bias.expect(BEHIND)]);
                residual_layer_norm_backward(
                    &weights.values[norm.weight.clone()],
                    saved.xhat,
                    saved.rstd,
                    self.dropout,
                    upstream,
                    branch,
                    (dw, db, dbranch),
                    partials,
                );
            }
            NormPlace::Before => {
                let bias = bias.map(|range| &mut gradient[range.clone()]);
                residual_backward(upstream, self.dropout, branch, bias, self.width, partials);
            }
        }
    }

    /// Adds to `upstream` the gradient of the stream before the block by way of its `first` product, whose gradient is
    /// `dy`; `branch` is overwritten.
    #[expect(clippy::too_many_arguments, reason = "the walk lends its buffers")]
    pub fn input_backward(
        &self,
        weights: Weights,
        first: &Linear,
        dy: &[f32],
        saved: &Normalised,
        upstream: &mut [f32],
        branch: &mut [f32],
        gradient: &mut Gradient,
        partials: &mut Partials,
    ) {
        match (self.place, self.norm) {
            (NormPlace::Before, Some(norm)) => {
                first.input_gradient(weights, dy, false, branch);
                norm.backward(weights, saved, branch, upstream, gradient, partials);
            }
            (NormPlace::After, _) | (NormPlace::Before, None) => {
                first.input_gradient(weights, dy, true, upstream);
            }
        }
    }
}
