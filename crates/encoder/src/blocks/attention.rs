//! Attention from a layer's input to the product behind it.

use std::ops::Range;

use contaccum_kernels::{
    AttentionShape, Dropout, Partials, RelativeBias, Rotary, Site, Turn, add_column_sums, attention_backward,
    attention_forward,
};

use super::{Linear, Saved, Weights};
use crate::gradient::Gradient;
use crate::pass::Pass;
use crate::{Architecture, Recompute};

/// The attention of a layer.
pub(crate) struct Attention<'a> {
    pub shape: AttentionShape,
    /// Query, key and value side by side.
    pub inputs: &'a Linear,
    pub output: &'a Linear,
    pub rotary: Option<&'a Rotary>,
    pub relative_bias: Option<&'a Range<usize>>,
    pub dropout: Option<(&'a Dropout, Site)>,
}

/// What attention leaves behind: query, key and value; its output before the last product; log-sum-exps.
pub(crate) struct Attended<'a> {
    pub qkv: &'a mut [f32],
    pub context: &'a mut [f32],
    pub log_sum_exp: &'a mut [f32],
}

impl Attention<'_> {
    /// The inputs cost a matrix product to make again, the rest the attention itself.
    pub fn saved(architecture: &Architecture) -> [Saved; 3] {
        let &Architecture { width, heads, .. } = architecture;
        let attended: &[Recompute] = &[Recompute::None, Recompute::Selective];
        [
            Saved { width: 3 * width, kept_under: &[Recompute::None] },
            Saved { width, kept_under: attended },
            Saved { width: heads, kept_under: attended },
        ]
    }

    /// Query, key and value of the layer's input.
    pub fn project(&self, weights: Weights, pass: &Pass, input: &[f32], qkv: &mut [f32]) {
        self.inputs.forward(weights, input, qkv);
        if let Some(rotary) = self.rotary {
            rotary.turn(qkv, self.shape.heads, pass.rows().positions, Turn::Forward);
        }
    }

    /// From query, key and value to the last product, without its bias, in `branch`.
    pub fn forward(
        &self,
        weights: Weights,
        pass: &Pass,
        saved: Attended,
        branch: &mut [f32],
        scratch: &mut [f32],
    ) {
        let Attended { qkv, context, log_sum_exp } = saved;
        attention_forward(
            self.shape,
            qkv,
            pass.tokens.offsets(),
            &pass.sequence_keys,
            self.relative_bias.map(|range| &weights.values[range.clone()]),
            self.dropout,
            context,
            log_sum_exp,
            scratch,
        );
        self.output.multiply(weights, context, branch);
    }

    /// Backward of [`Attention::forward`]: from the gradient of the last product in `branch` to that of query, key and
    /// value in `qkv_gradient`; `context_gradient` is overwritten.
    #[expect(clippy::too_many_arguments, reason = "the walk lends its buffers")]
    pub fn backward(
        &self,
        weights: Weights,
        pass: &Pass,
        saved: Attended,
        branch: &[f32],
        context_gradient: &mut [f32],
        qkv_gradient: &mut [f32],
        gradient: &mut Gradient,
        scratch: &mut [f32],
        bias_parts: &mut [f32],
        partials: &mut Partials,
    ) {
        let Attended { qkv, context, log_sum_exp } = saved;
        self.output.weight_gradient(branch, context, gradient);
        self.output.input_gradient(weights, branch, false, context_gradient);
        attention_backward(
            self.shape,
            qkv,
            context,
            log_sum_exp,
            pass.tokens.offsets(),
            &pass.sequence_keys,
            self.relative_bias.map(|range| RelativeBias {
                table: &weights.values[range.clone()],
                gradient: &mut gradient[range.clone()],
                parts: bias_parts,
            }),
            self.dropout,
            context_gradient,
            qkv_gradient,
            scratch,
        );
        if let Some(rotary) = self.rotary {
            rotary.turn(qkv_gradient, self.shape.heads, pass.rows().positions, Turn::Backward);
        }
        if let Some(bias) = &self.inputs.bias {
            add_column_sums(qkv_gradient, &mut gradient[bias.clone()], partials);
        }
    }
}
