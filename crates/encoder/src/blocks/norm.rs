//! A LayerNorm's parameters, and what it leaves behind.

use std::ops::Range;

use contaccum_kernels::{LayerNorm, Partials, layer_norm_backward, layer_norm_output};

use super::{Saved, Weights};
use crate::Recompute;
use crate::architecture::{Architecture, NormPlace};
use crate::gradient::Gradient;

/// Where a LayerNorm's parameters lie, and its constant.
#[derive(Clone, Debug)]
pub(crate) struct Norm {
    pub weight: Range<usize>,
    pub bias: Option<Range<usize>>,
    pub epsilon: f32,
}

/// What a LayerNorm leaves behind: normalised rows and reciprocal standard deviations.
pub(crate) struct Normalised<'a> {
    pub xhat: &'a mut [f32],
    pub rstd: &'a mut [f32],
}

const NOT_WITH_THE_LAYER: &[Recompute] = &[Recompute::None, Recompute::Selective];

impl Norm {
    /// Of attention: made again with the whole layer alone.
    pub fn saved_of_attention(architecture: &Architecture) -> [Saved; 2] {
        [architecture.width, 1].map(|width| Saved { width, kept_under: NOT_WITH_THE_LAYER })
    }

    /// Of the feed-forward block: behind it they are the layer's output, from which all else is made again.
    pub fn saved_of_feed_forward(architecture: &Architecture) -> [Saved; 2] {
        let kept_under = match architecture.norm.place {
            NormPlace::After => &Recompute::ALL,
            NormPlace::Before => NOT_WITH_THE_LAYER,
        };
        [architecture.width, 1].map(|width| Saved { width, kept_under })
    }

    /// Behind the last layer, where norms stand before the blocks: its backward needs them.
    pub fn saved_at_the_end(architecture: &Architecture) -> [Saved; 2] {
        match architecture.norm.place {
            NormPlace::After => [Saved::NOTHING; 2],
            NormPlace::Before => {
                [architecture.width, 1].map(|width| Saved { width, kept_under: &Recompute::ALL })
            }
        }
    }

    pub fn parameters<'a>(&self, weights: Weights<'a>) -> LayerNorm<'a> {
        LayerNorm {
            weight: &weights.values[self.weight.clone()],
            bias: self.bias.as_ref().map(|bias| &weights.values[bias.clone()]),
            epsilon: self.epsilon,
        }
    }

    /// The output again, from the normalised rows.
    pub fn output(&self, weights: Weights, xhat: &[f32], out: &mut [f32]) {
        layer_norm_output(self.parameters(weights), xhat, out);
    }

    /// Adds to `stream` the gradient of the stream by way of a norm, whose output's gradient `out` is used up.
    pub fn backward(
        &self,
        weights: Weights,
        saved: &Normalised,
        out: &mut [f32],
        stream: &mut [f32],
        gradient: &mut Gradient,
        partials: &mut Partials,
    ) {
        let [dw, db] = gradient.disjoint_of([Some(&self.weight), self.bias.as_ref()]);
        let gradients = (dw, self.bias.is_some().then_some(db));
        let weight = &weights.values[self.weight.clone()];
        layer_norm_backward(weight, saved.xhat, saved.rstd, out, stream, gradients, partials);
    }
}
