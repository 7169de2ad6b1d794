//! Encoders under training: parameters, gradients and optimizer state, for one encoder or two.

use contaccum_encoder::{Encoder, Layout};
use contaccum_kernels::{AdamW, adamw, resident_zeros, squared_norm};

/// An encoder with its gradient and AdamW moments, each in the layout of the weights from the first trained one on.
pub(crate) struct Tower {
    pub encoder: Encoder,
    /// Parameters at the start of the buffer that are not trained.
    frozen: usize,
    pub gradient: Vec<f32>,
    pub moment1: Vec<f32>,
    pub moment2: Vec<f32>,
}

impl Tower {
    fn new(encoder: Encoder, freeze_embeddings: bool) -> Self {
        let frozen = frozen(encoder.layout(), freeze_embeddings);
        let zeros = || resident_zeros(encoder.layout().parameters() - frozen);
        let (gradient, moment1, moment2) = (zeros(), zeros(), zeros());
        Self { encoder, frozen, gradient, moment1, moment2 }
    }

    fn gradient_norm(&self) -> f64 {
        squared_norm(&self.gradient).sqrt()
    }

    /// One AdamW update, tensor runs with and without weight decay in turn. Clears the gradient.
    fn update(&mut self, constants: AdamW) {
        for (range, decays) in decay_runs(&self.encoder, self.frozen) {
            let constants =
                AdamW { weight_decay: if decays { constants.weight_decay } else { 0.0 }, ..constants };
            let trained = range.start - self.frozen..range.end - self.frozen;
            adamw(
                constants,
                &mut self.encoder.weights_mut()[range],
                &mut self.gradient[trained.clone()],
                &mut self.moment1[trained.clone()],
                &mut self.moment2[trained],
            );
        }
    }
}

/// Parameters at the start of the buffer that are not trained.
fn frozen(layout: &Layout, freeze_embeddings: bool) -> usize {
    if freeze_embeddings { layout.embeddings().len() } else { 0 }
}

/// The trained part of the flat buffer cut into the longest runs of tensors that agree on weight decay.
fn decay_runs(encoder: &Encoder, frozen: usize) -> Vec<(std::ops::Range<usize>, bool)> {
    let mut runs: Vec<(std::ops::Range<usize>, bool)> = Vec::new();
    for tensor in encoder.layout().tensors().iter().filter(|tensor| tensor.range.start >= frozen) {
        match runs.last_mut() {
            Some((range, decays)) if *decays == tensor.decays() => range.end = tensor.range.end,
            _ => runs.push((tensor.range.clone(), tensor.decays())),
        }
    }
    runs
}

/// The query encoder and, when they are not tied, the passage encoder.
pub(crate) struct Towers {
    pub query: Tower,
    pub passage: Option<Tower>,
}

/// Gradient norms of an update, before clipping.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GradientNorms {
    /// Over the query encoder.
    pub query: f64,
    /// Over the passage encoder; that of the one encoder when tied.
    pub passage: f64,
    /// Over all parameters.
    pub global: f64,
}

impl Towers {
    pub fn new(query: Encoder, passage: Option<Encoder>, freeze_embeddings: bool) -> Self {
        let tower = |encoder| Tower::new(encoder, freeze_embeddings);
        Self { query: tower(query), passage: passage.map(tower) }
    }

    /// The tower that encodes passages.
    pub fn of_passages(&mut self) -> &mut Tower {
        self.passage.as_mut().unwrap_or(&mut self.query)
    }

    pub fn gradient_norms(&self) -> GradientNorms {
        let query = self.query.gradient_norm();
        match &self.passage {
            None => GradientNorms { query, passage: query, global: query },
            Some(passage) => {
                let passage = passage.gradient_norm();
                GradientNorms { query, passage, global: query.hypot(passage) }
            }
        }
    }

    pub fn update(&mut self, constants: AdamW) {
        self.query.update(constants);
        if let Some(passage) = &mut self.passage {
            passage.update(constants);
        }
    }

    /// Bytes of the weights, and of as many numbers as are trained, for encoders of this layout.
    pub fn memory_bytes(layout: &Layout, freeze_embeddings: bool, encoders: usize) -> (usize, usize) {
        let bytes = |parameters: usize| parameters * encoders * size_of::<f32>();
        let parameters = layout.parameters();
        (bytes(parameters), bytes(parameters - frozen(layout, freeze_embeddings)))
    }
}
