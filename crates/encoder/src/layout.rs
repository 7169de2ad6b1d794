//! All parameters of an encoder in one flat buffer, and where each tensor lies in it.

use std::ops::Range;

use crate::architecture::{LayerShape, NormPlace, NormShape};
use crate::blocks::{Linear, Norm};
use crate::{DenseShape, ModelConfig};

/// The number of a folder's first `Dense` module: behind transformer and pooling.
pub(crate) const FIRST_DENSE: usize = 2;

/// What a tensor is, which decides how it is drawn afresh and whether weight decay applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A matrix of a product, or a table of embeddings.
    Matrix,
    /// The scale of a LayerNorm.
    Scale,
    /// A bias.
    Bias,
    /// What attention adds by distance: drawn as a table of embeddings is, and a bias to weight decay.
    RelativeBias,
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
    /// Not there where the layer takes its input as it is.
    pub attention_norm: Option<Norm>,
    pub feed_forward_input: Linear,
    pub feed_forward_output: Linear,
    pub feed_forward_norm: Norm,
}

/// Where every tensor of an encoder (without pooler and heads) lies in its flat buffer.
#[derive(Clone, Debug)]
pub struct Layout {
    tensors: Vec<Tensor>,
    pub(crate) embedding: EmbeddingLayout,
    pub(crate) relative_bias: Option<Range<usize>>,
    pub(crate) layers: Vec<LayerLayout>,
    pub(crate) final_norm: Option<Norm>,
    pub(crate) dense: Vec<Linear>,
    /// How many of the tensors are the transformer's.
    of_transformer: usize,
    embeddings: Range<usize>,
    len: usize,
}

struct Builder {
    tensors: Vec<Tensor>,
    len: usize,
    linears: usize,
    norm: NormShape,
}

impl Builder {
    fn add(&mut self, name: String, shape: &[usize], kind: Kind) -> Range<usize> {
        let range = self.len..self.len + shape.iter().product::<usize>();
        self.len = range.end;
        self.tensors.push(Tensor { name, shape: shape.to_vec(), range: range.clone(), kind });
        range
    }

    fn table(&mut self, name: &str, shape: [usize; 2], kind: Kind) -> Range<usize> {
        self.add(format!("{name}.weight"), &shape, kind)
    }

    fn norm(&mut self, name: &str, width: usize) -> Norm {
        let weight = self.add(format!("{name}.weight"), &[width], Kind::Scale);
        let bias = self.norm.bias.then(|| self.add(format!("{name}.bias"), &[width], Kind::Bias));
        Norm { weight, bias, epsilon: self.norm.epsilon as f32 }
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
        let (h, f) = (a.width, a.feed_forward);
        let mut b = Builder { tensors: Vec::new(), len: 0, linears: 0, norm: a.norm };
        let embedding = EmbeddingLayout {
            words: b.table(names.words, [a.vocabulary, h], Kind::Matrix),
            positions: a.positions.map(|table| b.table(names.positions, [table.rows, h], Kind::Matrix)),
            types: (a.token_types > 0).then(|| b.table(names.types, [a.token_types, h], Kind::Matrix)),
            norm: b.norm(names.embedding_norm, h),
        };
        let embeddings = 0..b.len;
        let relative_bias =
            a.relative_bias.map(|rows| b.table(names.relative_bias, [rows, a.heads], Kind::RelativeBias));
        let mut layer = |(index, shape): (usize, &LayerShape)| {
            let name = |part: &str| format!("{}.{index}.{part}", names.layers);
            let inputs: Vec<String> = names.attention_inputs.iter().map(|part| name(part)).collect();
            LayerLayout {
                attention_inputs: b.linear(&inputs, 3 * h, h, a.attention_bias),
                attention_output: b.linear(&[name(names.attention_output)], h, h, a.attention_bias),
                attention_norm: shape.attention_norm.then(|| b.norm(&name(names.attention_norm), h)),
                feed_forward_input: b.linear(&[name(names.feed_forward_input)], f.outputs(), h, f.bias),
                feed_forward_output: b.linear(&[name(names.feed_forward_output)], h, f.width, f.bias),
                feed_forward_norm: b.norm(&name(names.feed_forward_norm), h),
            }
        };
        let layers = a.layers.iter().enumerate().map(&mut layer).collect();
        let final_norm = match a.norm.place {
            NormPlace::After => None,
            NormPlace::Before => Some(b.norm(names.final_norm, h)),
        };
        let of_transformer = b.tensors.len();
        let mut inputs = h;
        let mut linear = |(index, shape): (usize, &DenseShape)| {
            let name = format!("{}_Dense.linear", index + FIRST_DENSE);
            b.linear(&[name], shape.outputs, std::mem::replace(&mut inputs, shape.outputs), shape.bias)
        };
        let dense = config.dense().iter().enumerate().map(&mut linear).collect();
        let Builder { tensors, len, .. } = b;
        Self { tensors, embedding, relative_bias, layers, final_norm, dense, of_transformer, embeddings, len }
    }

    /// Every tensor, in buffer order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensors of the transformer, in buffer order: the first of the buffer.
    pub(crate) fn transformer_tensors(&self) -> &[Tensor] {
        &self.tensors[..self.of_transformer]
    }

    /// The tensors of each `Dense` module.
    pub(crate) fn dense_tensors(&self) -> impl Iterator<Item = &[Tensor]> {
        let mut rest = &self.tensors[self.of_transformer..];
        self.dense.iter().map(move |linear| {
            let (own, behind) = rest.split_at(1 + usize::from(linear.bias.is_some()));
            rest = behind;
            own
        })
    }

    /// The parameters of the embeddings, their LayerNorm included: the first of the buffer.
    pub fn embeddings(&self) -> Range<usize> {
        self.embeddings.clone()
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.len
    }

    /// The products of all layers, in the order of their indices; those of `Dense` modules are not among them.
    pub(crate) fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.layers.iter().flat_map(|l| {
            [&l.attention_inputs, &l.attention_output, &l.feed_forward_input, &l.feed_forward_output]
        })
    }
}
