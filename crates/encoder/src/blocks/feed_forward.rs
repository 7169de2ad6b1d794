//! The feed-forward block: two products with an activation between them.

use contaccum_kernels::{Activation, Partials, activation_backward, activation_forward};

use super::{Linear, Saved, Weights};
use crate::gradient::Gradient;
use crate::{Architecture, Recompute};

/// The feed-forward block of a layer.
pub(crate) struct FeedForward<'a> {
    pub activation: Activation,
    pub input: &'a Linear,
    pub output: &'a Linear,
}

impl FeedForward<'_> {
    /// The preactivation: a matrix product to make again.
    pub fn saved(architecture: &Architecture) -> [Saved; 1] {
        [Saved { width: architecture.feed_forward.width, kept_under: &[Recompute::None] }]
    }

    /// The preactivation of `input`, and its activation in `activated`.
    pub fn project(&self, weights: Weights, input: &[f32], preactivation: &mut [f32], activated: &mut [f32]) {
        self.input.multiply(weights, input, preactivation);
        let bias = self.input.bias(weights).expect("this feed-forward block has biases");
        activation_forward(self.activation, preactivation, bias, activated);
    }

    /// From the activation to the last product, without its bias, in `branch`.
    pub fn forward(&self, weights: Weights, activated: &[f32], branch: &mut [f32]) {
        self.output.multiply(weights, activated, branch);
    }

    /// Backward of both: from the gradient of the last product in `branch` to that of the first's in `wide`, with which
    /// the block's `input` makes the weights' gradients. `preactivation` is used up.
    #[expect(clippy::too_many_arguments, reason = "the walk lends its buffers")]
    pub fn backward(
        &self,
        weights: Weights,
        input: &[f32],
        preactivation: &mut [f32],
        branch: &[f32],
        wide: &mut [f32],
        gradient: &mut Gradient,
        partials: &mut Partials,
    ) {
        self.output.input_gradient(weights, branch, false, wide);
        let bias = self.input.bias.clone().expect("this feed-forward block has biases");
        activation_backward(self.activation, preactivation, wide, &mut gradient[bias], partials);
        self.output.weight_gradient(branch, preactivation, gradient);
        self.input.weight_gradient(wide, input, gradient);
    }
}
