//! `Dense` of sentence-transformers: a linear layer and an activation on the pooled vectors.

use contaccum_kernels::resident_zeros;

use super::{Linear, Weights};
use crate::gradient::Gradient;
use crate::modules::{DenseActivation, DenseShape};

/// What the `Dense` modules of a pass leave behind for its backward pass: of each its input `[sequences, inputs]`, and
/// its output before the activation `[sequences, outputs]`.
pub(crate) struct DenseRows {
    inputs: Vec<Vec<f32>>,
    preactivations: Vec<Vec<f32>>,
    /// Two gradients as wide as the widest.
    gradients: [Vec<f32>; 2],
}

impl DenseRows {
    /// Room for as many sequences, whose pooled vectors have this width.
    pub fn new(shapes: &[DenseShape], width: usize, sequences: usize) -> Self {
        let zeros = |width: usize| resident_zeros(sequences * width);
        let widest = if shapes.is_empty() { 0 } else { widths(shapes, width).max().unwrap_or(0) };
        Self {
            inputs: widths(shapes, width).take(shapes.len()).map(zeros).collect(),
            preactivations: shapes.iter().map(|shape| zeros(shape.outputs)).collect(),
            gradients: [zeros(widest), zeros(widest)],
        }
    }

    /// Numbers of a sequence that [`DenseRows::new`] allocates.
    pub fn floats(shapes: &[DenseShape], width: usize) -> usize {
        if shapes.is_empty() {
            return 0;
        }
        let widest = widths(shapes, width).max().unwrap_or(0);
        let inputs: usize = widths(shapes, width).take(shapes.len()).sum();
        inputs + shapes.iter().map(|shape| shape.outputs).sum::<usize>() + 2 * widest
    }

    /// Where the pooled vectors of as many sequences go, where a `Dense` follows.
    pub fn pooled(&mut self, sequences: usize, width: usize) -> Option<&mut [f32]> {
        Some(&mut self.inputs.first_mut()?[..sequences * width])
    }
}

/// The width of every input, and of the last output.
fn widths(shapes: &[DenseShape], width: usize) -> impl Iterator<Item = usize> {
    std::iter::once(width).chain(shapes.iter().map(|shape| shape.outputs))
}

/// The `Dense` modules of a model.
pub(crate) struct Dense<'a> {
    pub shapes: &'a [DenseShape],
    pub linears: &'a [Linear],
    /// In `f32`, whatever the layers multiply in.
    pub weights: Weights<'a>,
}

impl Dense<'_> {
    /// From the pooled vectors in `rows` to the last module's output, `[sequences, outputs]` into `out`.
    pub fn forward(&self, rows: &mut DenseRows, sequences: usize, out: &mut [f32]) {
        for (i, (shape, linear)) in self.shapes.iter().zip(self.linears).enumerate() {
            let (done, next) = rows.inputs.split_at_mut(i + 1);
            let preactivation = &mut rows.preactivations[i][..sequences * linear.outputs];
            linear.forward(self.weights, &done[i][..sequences * linear.inputs], preactivation);
            let into = next.first_mut().map_or(&mut out[..], |next| &mut next[..]);
            for (y, x) in into.iter_mut().zip(preactivation.iter()) {
                *y = shape.activation.value(*x);
            }
        }
    }

    /// Adds the parameters' gradients, and leaves that of the pooled vectors, `[sequences, width]`, of which it gives
    /// the place.
    pub fn backward<'r>(
        &self,
        rows: &'r mut DenseRows,
        sequences: usize,
        output_gradient: &[f32],
        gradient: &mut Gradient,
    ) -> &'r mut [f32] {
        let [mut above, mut below] = rows.gradients.each_mut();
        above[..output_gradient.len()].copy_from_slice(output_gradient);
        for (i, (shape, linear)) in self.shapes.iter().zip(self.linears).enumerate().rev() {
            let dy = &mut above[..sequences * linear.outputs];
            for (dy, x) in dy.iter_mut().zip(&rows.preactivations[i]) {
                *dy *= shape.activation.slope(*x);
            }
            linear.weight_gradient(dy, &rows.inputs[i][..sequences * linear.inputs], gradient);
            if let Some(bias) = &linear.bias {
                for row in dy.chunks_exact(linear.outputs) {
                    gradient[bias.clone()].iter_mut().zip(row).for_each(|(b, dy)| *b += dy);
                }
            }
            linear.input_gradient(self.weights, dy, false, &mut below[..sequences * linear.inputs]);
            std::mem::swap(&mut above, &mut below);
        }
        above
    }
}

impl DenseActivation {
    fn value(self, x: f32) -> f32 {
        match self {
            Self::Identity => x,
            Self::Tanh => x.tanh(),
            Self::Relu => x.max(0.0),
            Self::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        }
    }

    fn slope(self, x: f32) -> f32 {
        match self {
            Self::Identity => 1.0,
            Self::Tanh => 1.0 - x.tanh().powi(2),
            Self::Relu => f32::from(x > 0.0),
            Self::Sigmoid => {
                let y = self.value(x);
                y * (1.0 - y)
            }
        }
    }
}
