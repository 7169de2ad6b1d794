//! All parameters of an encoder in one flat buffer, and where each tensor lies in it.

use std::ops::Range;

use crate::ModelConfig;
use crate::blocks::{Linear, Norm};

/// What a tensor is, which decides how it is drawn afresh and whether weight decay applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A matrix of a product, or a table of embeddings.
    Matrix,
    /// The scale of a LayerNorm.
    Scale,
    /// A bias.
    Bias,
}

/// One named tensor of a [`Layout`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// transformers' name in the encoder without a head, as `encoder.layer.0.output.dense.weight`.
    pub name: String,
    /// Shape, outermost axis first.
    pub shape: Vec<usize>,
    /// Its elements in the flat buffer.
    pub range: Range<usize>,
    pub(crate) kind: Kind,
}

impl Tensor {
    /// Whether weight decay applies: not on biases and LayerNorm, as everywhere in the field.
    pub fn decays(&self) -> bool {
        self.kind == Kind::Matrix
    }
}

/// The parameters of the embeddings.
#[derive(Clone, Debug)]
pub(crate) struct EmbeddingLayout {
    pub words: Range<usize>,
    pub positions: Option<Range<usize>>,
    pub types: Option<Range<usize>>,
    pub norm: Norm,
}

/// The parameters of one layer. Query, key and value lie side by side, so that one product makes all three.
#[derive(Clone, Debug)]
pub(crate) struct LayerLayout {
    pub attention_inputs: Linear,
    pub attention_output: Linear,
    pub attention_norm: Norm,
    pub feed_forward_input: Linear,
    pub feed_forward_output: Linear,
    pub feed_forward_norm: Norm,
}

/// Where every tensor of an encoder (without pooler and heads) lies in its flat buffer.
#[derive(Clone, Debug)]
pub struct Layout {
    tensors: Vec<Tensor>,
    pub(crate) embedding: EmbeddingLayout,
    pub(crate) layers: Vec<LayerLayout>,
    embeddings: Range<usize>,
    len: usize,
}

struct Builder {
    tensors: Vec<Tensor>,
    len: usize,
    linears: usize,
    epsilon: f32,
}

impl Builder {
    fn add(&mut self, name: String, shape: &[usize], kind: Kind) -> Range<usize> {
        let range = self.len..self.len + shape.iter().product::<usize>();
        self.len = range.end;
        self.tensors.push(Tensor { name, shape: shape.to_vec(), range: range.clone(), kind });
        range
    }

    fn table(&mut self, name: &str, rows: usize, width: usize) -> Range<usize> {
        self.add(format!("{name}.weight"), &[rows, width], Kind::Matrix)
    }

    fn norm(&mut self, name: &str, width: usize) -> Norm {
        let weight = self.add(format!("{name}.weight"), &[width], Kind::Scale);
        let bias = self.add(format!("{name}.bias"), &[width], Kind::Bias);
        Norm { weight, bias, epsilon: self.epsilon }
    }

    /// One product over modules that share its outputs.
    fn linear(&mut self, names: &[String], outputs: usize, inputs: usize, bias: bool) -> Linear {
        let rows = outputs / names.len();
        let start = self.len;
        for name in names {
            self.add(format!("{name}.weight"), &[rows, inputs], Kind::Matrix);
        }
        let weight = start..self.len;
        for name in names.iter().filter(|_| bias) {
            self.add(format!("{name}.bias"), &[rows], Kind::Bias);
        }
        let bias = bias.then_some(weight.end..self.len);
        let index = self.linears;
        self.linears += 1;
        Linear { weight, bias, outputs, inputs, index }
    }
}

impl Layout {
    /// The layout of a model of this shape.
    pub fn new(config: &ModelConfig) -> Self {
        let (a, names) = (config.architecture(), &config.family().names);
        let (h, f) = (a.width, a.feed_forward.width);
        let mut b = Builder { tensors: Vec::new(), len: 0, linears: 0, epsilon: a.norm.epsilon as f32 };
        let embedding = EmbeddingLayout {
            words: b.table(names.words, a.vocabulary, h),
            positions: a.positions.map(|table| b.table(names.positions, table.rows, h)),
            types: (a.token_types > 0).then(|| b.table(names.types, a.token_types, h)),
            norm: b.norm(names.embedding_norm, h),
        };
        let embeddings = 0..b.len;
        let mut layer = |index: usize| {
            let name = |part: &str| format!("{}.{index}.{part}", names.layers);
            let inputs: Vec<String> = names.attention_inputs.iter().map(|part| name(part)).collect();
            LayerLayout {
                attention_inputs: b.linear(&inputs, 3 * h, h, a.attention_bias),
                attention_output: b.linear(&[name(names.attention_output)], h, h, a.attention_bias),
                attention_norm: b.norm(&name(names.attention_norm), h),
                feed_forward_input: b.linear(&[name(names.feed_forward_input)], f, h, a.feed_forward.bias),
                feed_forward_output: b.linear(&[name(names.feed_forward_output)], h, f, a.feed_forward.bias),
                feed_forward_norm: b.norm(&name(names.feed_forward_norm), h),
            }
        };
        let layers = (0..a.layers.len()).map(&mut layer).collect();
        let Builder { tensors, len, .. } = b;
        Self { tensors, embedding, layers, embeddings, len }
    }

    /// Every tensor, in buffer order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The parameters of the embeddings, their LayerNorm included: the first of the buffer.
    pub fn embeddings(&self) -> Range<usize> {
        self.embeddings.clone()
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.len
    }

    /// The products of all layers, in the order of their indices.
    pub(crate) fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.layers.iter().flat_map(|l| {
            [&l.attention_inputs, &l.attention_output, &l.feed_forward_input, &l.feed_forward_output]
        })
    }
}
