//! The feed-forward block: two products with an activation, or a gated one, between them.

use contaccum_kernels::{
    Partials, TokenDropout, activation_backward, activation_forward, gated_backward, gated_forward,
};

use super::{Linear, Saved, Weights};
use crate::architecture::FeedForwardShape;
use crate::gradient::Gradient;
use crate::{Architecture, Recompute};

/// The feed-forward block of a layer.
pub(crate) struct FeedForward<'a> {
    pub shape: FeedForwardShape,
    pub input: &'a Linear,
    pub output: &'a Linear,
    /// What is dropped of a gated activation.
    pub dropout: TokenDropout<'a>,
}

const UNGATED: &str = "an ungated feed-forward block, with biases";

impl FeedForward<'_> {
    /// The preactivation: a matrix product to make again.
    pub fn saved(architecture: &Architecture) -> [Saved; 1] {
        [Saved { width: architecture.feed_forward.outputs(), kept_under: &[Recompute::None] }]
    }

    /// The preactivation of `input`, and what it is activated to in `activated`.
    pub fn project(&self, weights: Weights, input: &[f32], preactivation: &mut [f32], activated: &mut [f32]) {
        let FeedForwardShape { width, activation, gated, .. } = self.shape;
        self.input.multiply(weights, input, preactivation);
        let bias = self.input.bias(weights);
        match gated {
            false => activation_forward(activation, preactivation, bias.expect(UNGATED), activated),
            true => gated_forward(activation, preactivation, bias, self.dropout, width, activated),
        }
    }

    /// From what is activated to the last product, without its bias, in `branch`.
    pub fn forward(&self, weights: Weights, activated: &[f32], branch: &mut [f32]) {
        self.output.multiply(weights, activated, branch);
    }

    /// Backward of both: from the gradient of the last product in `branch` to that of the first, which it gives back. Uses
    /// up `preactivation` and `wide`, a buffer as long as what is activated.
    #[expect(clippy::too_many_arguments, reason = "the walk lends its buffers")]
    pub fn backward<'b>(
        &self,
        weights: Weights,
        input: &[f32],
        preactivation: &'b mut [f32],
        branch: &[f32],
        wide: &'b mut [f32],
        gradient: &mut Gradient,
        partials: &mut Partials,
    ) -> &'b [f32] {
        let FeedForwardShape { width, activation, gated, .. } = self.shape;
        self.output.input_gradient(weights, branch, false, wide);
        let bias = self.input.bias.clone().map(|range| &mut gradient[range]);
        // Of the two buffers one becomes what was activated again, the other the gradient of the first product.
        let (activated, first_product) = match gated {
            false => {
                activation_backward(activation, preactivation, wide, bias.expect(UNGATED), partials);
                (preactivation, wide)
            }
            true => {
                gated_backward(activation, preactivation, wide, self.dropout, width, bias, partials);
                (wide, preactivation)
            }
        };
        self.output.weight_gradient(branch, activated, gradient);
        self.input.weight_gradient(first_product, input, gradient);
        first_product
    }
}
