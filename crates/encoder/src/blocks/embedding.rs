//! From tokens to the first layer's input.

use contaccum_kernels::{
    Dropout, EmbeddingGradients, EmbeddingIndices, EmbeddingTables, Partials, embedding_backward,
    embedding_forward,
};

use super::Weights;
use crate::gradient::Gradient;
use crate::layout::EmbeddingLayout;
use crate::pass::Pass;

/// The embeddings of a model.
pub(crate) struct Embedding<'a> {
    pub layout: &'a EmbeddingLayout,
    pub dropout: Option<Dropout>,
}

impl Embedding<'_> {
    fn tables<'w>(&self, weights: Weights<'w>) -> EmbeddingTables<'w> {
        let table = |range: &std::ops::Range<usize>| &weights.values[range.clone()];
        EmbeddingTables {
            words: table(&self.layout.words),
            positions: self.layout.positions.as_ref().map(table),
            types: self.layout.types.as_ref().map(table),
            norm: self.layout.norm.parameters(weights),
        }
    }

    /// `[tokens, width]` into `hidden`.
    pub fn forward(&self, weights: Weights, pass: &Pass, hidden: &mut [f32]) {
        let dropout = self.dropout.as_ref();
        embedding_forward(self.tables(weights), indices(pass), pass.rows(), dropout, hidden);
    }

    /// Uses up `upstream`, the gradient of the output; `scratch` is as long.
    pub fn backward(
        &self,
        weights: Weights,
        pass: &Pass,
        upstream: &mut [f32],
        scratch: &mut [f32],
        gradient: &mut Gradient,
        partials: &mut Partials,
    ) {
        let EmbeddingLayout { words, positions, types, norm } = self.layout;
        let [words, norm_weight, norm_bias, positions, types] = gradient.disjoint_of([
            Some(words),
            Some(&norm.weight),
            norm.bias.as_ref(),
            positions.as_ref(),
            types.as_ref(),
        ]);
        embedding_backward(
            self.tables(weights),
            indices(pass),
            pass.rows(),
            self.dropout.as_ref(),
            upstream,
            scratch,
            EmbeddingGradients {
                words,
                positions,
                types,
                norm_weight,
                norm_bias: norm.bias.is_some().then_some(norm_bias),
            },
            partials,
        );
    }
}

fn indices(pass: &Pass) -> EmbeddingIndices<'_> {
    EmbeddingIndices { words: pass.tokens.ids(), positions: pass.position_rows(), types: pass.tokens.types() }
}
