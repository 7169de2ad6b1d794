//! The parts of a layer: forward beside backward, and beside them what each keeps under each recompute policy.
//!
//! A block knows the kernels, its parameters' places and the buffers it is given; which buffer holds what between blocks
//! is the walk's (`transformer.rs`).

mod attention;
mod dense;
mod embedding;
mod feed_forward;
mod linear;
mod norm;
mod residual;

use contaccum_kernels::Bf16Weight;

pub(crate) use attention::{Attended, Attention};
pub(crate) use dense::{Dense, DenseRows};
pub(crate) use embedding::Embedding;
pub(crate) use feed_forward::FeedForward;
pub(crate) use linear::Linear;
pub(crate) use norm::{Norm, Normalised};
pub(crate) use residual::Residual;

use crate::Recompute;

/// The parameters of a model.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub values: &'a [f32],
    /// The products' weights rounded to bfloat16, by [`Linear::index`], where products are taken with those: forward
    /// only.
    pub rounded: Option<&'a [Bf16Weight]>,
}

/// A buffer of numbers that every layer leaves behind of each token, and the policies under which every layer has one of
/// its own; under the others layers take turns in one.
#[derive(Clone, Copy)]
pub(crate) struct Saved {
    pub width: usize,
    pub kept_under: &'static [Recompute],
}

impl Saved {
    /// Of an architecture that does without.
    pub const NOTHING: Self = Self { width: 0, kept_under: &[] };
}
