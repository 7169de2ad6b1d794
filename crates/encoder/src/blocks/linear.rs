//! A linear layer: `y = x Wᵀ + b`.

use std::ops::Range;

use contaccum_kernels::{Bf16Weight, Mat, MatMut, NoBf16, matmul, set_rows};

use super::Weights;
use crate::gradient::Gradient;

/// Where a linear layer's parameters lie: `weight` `[outputs, inputs]`, `bias` `[outputs]`.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    pub weight: Range<usize>,
    pub bias: Option<Range<usize>>,
    pub outputs: usize,
    pub inputs: usize,
    /// Its number among the model's linear layers.
    pub index: usize,
}

impl Linear {
    fn weight<'a>(&self, weights: Weights<'a>) -> Mat<'a> {
        Mat::new(&weights.values[self.weight.clone()], self.outputs, self.inputs)
    }

    pub fn bias<'a>(&self, weights: Weights<'a>) -> Option<&'a [f32]> {
        self.bias.as_ref().map(|range| &weights.values[range.clone()])
    }

    /// The weight rounded to bfloat16.
    pub fn round(&self, weights: &[f32]) -> Result<Bf16Weight, NoBf16> {
        Bf16Weight::new(&weights[self.weight.clone()], self.outputs, self.inputs)
    }

    /// `y = x Wᵀ + b`.
    pub fn forward(&self, weights: Weights, x: &[f32], y: &mut [f32]) {
        let bias = self.bias(weights);
        if let Some(bias) = bias {
            set_rows(y, bias);
        }
        self.multiply_into(weights, x, bias.is_some(), y);
    }

    /// `y = x Wᵀ`: what follows the product adds the bias.
    pub fn multiply(&self, weights: Weights, x: &[f32], y: &mut [f32]) {
        self.multiply_into(weights, x, false, y);
    }

    fn multiply_into(&self, weights: Weights, x: &[f32], accumulate: bool, y: &mut [f32]) {
        let rows = x.len() / self.inputs;
        match weights.rounded {
            Some(rounded) => rounded[self.index].multiply(x, accumulate, y),
            None => matmul(
                MatMut::new(y, rows, self.outputs),
                Mat::new(x, rows, self.inputs),
                self.weight(weights).t(),
                1.0,
                accumulate,
            ),
        }
    }

    /// `dx (+)= dy W`.
    pub fn input_gradient(&self, weights: Weights, dy: &[f32], accumulate: bool, dx: &mut [f32]) {
        let rows = dy.len() / self.outputs;
        let dx = MatMut::new(dx, rows, self.inputs);
        matmul(dx, Mat::new(dy, rows, self.outputs), self.weight(weights), 1.0, accumulate);
    }

    /// `dW += dyᵀ x`.
    pub fn weight_gradient(&self, dy: &[f32], x: &[f32], gradient: &mut Gradient) {
        let rows = dy.len() / self.outputs;
        let dw = MatMut::new(&mut gradient[self.weight.clone()], self.outputs, self.inputs);
        matmul(dw, Mat::new(dy, rows, self.outputs).t(), Mat::new(x, rows, self.inputs), 1.0, true);
    }
}
