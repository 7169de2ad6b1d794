//! All parameters of an encoder in one flat buffer, and where each tensor lies in it.

use std::ops::Range;

use crate::BertConfig;

/// One named tensor of a [`Layout`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Hugging Face name without the `bert.` prefix, as `encoder.layer.0.output.dense.weight`.
    pub name: String,
    /// Shape, outermost axis first.
    pub shape: Vec<usize>,
    /// Its elements in the flat buffer.
    pub range: Range<usize>,
}

impl Tensor {
    /// Whether weight decay applies: not on biases and LayerNorm, as everywhere in the field.
    pub fn decays(&self) -> bool {
        !self.name.ends_with(".bias") && !self.name.contains("LayerNorm")
    }
}

/// The ranges of one layer's tensors. Query, key and value lie side by side, so that one product makes all three.
#[derive(Clone, Debug)]
pub(crate) struct LayerRanges {
    pub qkv_weight: Range<usize>,
    pub qkv_bias: Range<usize>,
    pub attention_output_weight: Range<usize>,
    pub attention_output_bias: Range<usize>,
    pub attention_norm_weight: Range<usize>,
    pub attention_norm_bias: Range<usize>,
    pub intermediate_weight: Range<usize>,
    pub intermediate_bias: Range<usize>,
    pub output_weight: Range<usize>,
    pub output_bias: Range<usize>,
    pub output_norm_weight: Range<usize>,
    pub output_norm_bias: Range<usize>,
}

/// Where every tensor of a BERT encoder (without pooler) lies in its flat buffer.
#[derive(Clone, Debug)]
pub struct Layout {
    tensors: Vec<Tensor>,
    pub(crate) words: Range<usize>,
    pub(crate) positions: Range<usize>,
    pub(crate) types: Range<usize>,
    pub(crate) embedding_norm_weight: Range<usize>,
    pub(crate) embedding_norm_bias: Range<usize>,
    pub(crate) layers: Vec<LayerRanges>,
    len: usize,
}

struct Builder {
    tensors: Vec<Tensor>,
    len: usize,
}

impl Builder {
    fn add(&mut self, name: String, shape: &[usize]) -> Range<usize> {
        let range = self.len..self.len + shape.iter().product::<usize>();
        self.len = range.end;
        self.tensors.push(Tensor { name, shape: shape.to_vec(), range: range.clone() });
        range
    }
}

impl Layout {
    /// The layout of a model of this shape.
    pub fn new(config: &BertConfig) -> Self {
        let (h, f) = (config.hidden_size, config.intermediate_size);
        let mut b = Builder { tensors: Vec::new(), len: 0 };
        let words = b.add("embeddings.word_embeddings.weight".into(), &[config.vocab_size, h]);
        let positions =
            b.add("embeddings.position_embeddings.weight".into(), &[config.max_position_embeddings, h]);
        let types = b.add("embeddings.token_type_embeddings.weight".into(), &[config.type_vocab_size, h]);
        let embedding_norm_weight = b.add("embeddings.LayerNorm.weight".into(), &[h]);
        let embedding_norm_bias = b.add("embeddings.LayerNorm.bias".into(), &[h]);
        let layers = (0..config.num_hidden_layers)
            .map(|layer| {
                let mut add =
                    |name: &str, shape: &[usize]| b.add(format!("encoder.layer.{layer}.{name}"), shape);
                let q = add("attention.self.query.weight", &[h, h]);
                add("attention.self.key.weight", &[h, h]);
                let v = add("attention.self.value.weight", &[h, h]);
                let q_bias = add("attention.self.query.bias", &[h]);
                add("attention.self.key.bias", &[h]);
                let v_bias = add("attention.self.value.bias", &[h]);
                LayerRanges {
                    qkv_weight: q.start..v.end,
                    qkv_bias: q_bias.start..v_bias.end,
                    attention_output_weight: add("attention.output.dense.weight", &[h, h]),
                    attention_output_bias: add("attention.output.dense.bias", &[h]),
                    attention_norm_weight: add("attention.output.LayerNorm.weight", &[h]),
                    attention_norm_bias: add("attention.output.LayerNorm.bias", &[h]),
                    intermediate_weight: add("intermediate.dense.weight", &[f, h]),
                    intermediate_bias: add("intermediate.dense.bias", &[f]),
                    output_weight: add("output.dense.weight", &[h, f]),
                    output_bias: add("output.dense.bias", &[h]),
                    output_norm_weight: add("output.LayerNorm.weight", &[h]),
                    output_norm_bias: add("output.LayerNorm.bias", &[h]),
                }
            })
            .collect();
        let Builder { tensors, len } = b;
        Self { tensors, words, positions, types, embedding_norm_weight, embedding_norm_bias, layers, len }
    }

    /// Every tensor, in buffer order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The parameters of the embeddings, their LayerNorm included: the first of the buffer.
    pub fn embeddings(&self) -> Range<usize> {
        self.words.start..self.embedding_norm_bias.end
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.len
    }
}
