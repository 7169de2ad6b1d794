//! BERT (Devlin et al., arXiv 1810.04805): MiniLM, and the BGE, E5 and GTE models of that type, with any tokenizer.

use serde::Serialize;
use serde_json::{Value, json};

use super::{Decides, Family, Fields, Names};
use crate::architecture::{DropoutRates, FeedForwardShape, LayerShape, NormPlace, NormShape, PositionTable};
use crate::{Architecture, EncoderError, ModelConfig};

pub(super) const BERT: Family =
    Family { model_type: "bert", class: "BertModel", prefix: "bert.", names: NAMES, read };

pub(super) const NAMES: Names = Names {
    words: "embeddings.word_embeddings",
    positions: "embeddings.position_embeddings",
    types: "embeddings.token_type_embeddings",
    embedding_norm: "embeddings.LayerNorm",
    layers: "encoder.layer",
    attention_inputs: &["attention.self.query", "attention.self.key", "attention.self.value"],
    attention_output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    feed_forward_input: "intermediate.dense",
    feed_forward_output: "output.dense",
    feed_forward_norm: "output.LayerNorm",
    relative_bias: "",
    final_norm: "",
};

fn read(fields: &mut Fields) -> Result<Architecture, String> {
    fields.only("position_embedding_type", &json!("absolute"), "only \"absolute\" is")?;
    fields.only("is_decoder", &json!(false), "an encoder attends in both directions")?;
    let token_types = fields.size("type_vocab_size", 2, 1..=1 << 8)?;
    let body = body(fields, Vocabulary { size: 30522, padding: 0, padding_decides: Decides::Neither })?;
    Ok(Architecture { token_types, ..body })
}

/// What families whose fields have BERT's names differ in.
pub(super) struct Vocabulary {
    pub size: usize,
    pub padding: u32,
    pub padding_decides: Decides,
}

/// The encoder that the fields of BERT's names describe, without token types.
pub(super) fn body(fields: &mut Fields, default: Vocabulary) -> Result<Architecture, String> {
    let [width, heads] = fields.width_and_heads(["hidden_size", "num_attention_heads"], [768, 12])?;
    let layers = fields.size("num_hidden_layers", 12, 1..=1 << 10)?;
    let vocabulary = fields.size("vocab_size", default.size, 1..=1 << 24)?;
    let positions = fields.size("max_position_embeddings", 512, 3..=1 << 24)?;
    let hidden_dropout = fields.dropout("hidden_dropout_prob", 0.1)?;
    Ok(Architecture {
        width,
        vocabulary,
        padding: fields.padding(default.padding, vocabulary, default.padding_decides)?,
        longest: positions,
        positions: Some(PositionTable { rows: positions, padding_row: None }),
        rotary_bases: Vec::new(),
        relative_bias: None,
        token_types: 0,
        norm: NormShape {
            place: NormPlace::After,
            bias: true,
            epsilon: fields.epsilon("layer_norm_eps", 1e-12)?,
        },
        heads,
        attention_bias: true,
        feed_forward: FeedForwardShape {
            width: fields.size("intermediate_size", 3072, 1..=1 << 20)?,
            activation: fields.activation("hidden_act")?,
            gated: false,
            bias: true,
        },
        layers: vec![LayerShape::PLAIN; layers],
        dropout: DropoutRates {
            embeddings: hidden_dropout,
            attention: fields.dropout("attention_probs_dropout_prob", 0.1)?,
            attention_output: hidden_dropout,
            feed_forward_inner: 0.0,
            feed_forward_output: hidden_dropout,
        },
        initializer_range: fields.initializer_range()?,
    })
}

/// Shape and constants of a BERT encoder to be made afresh, named as in Hugging Face's `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BertConfig {
    /// Width of a hidden state.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Attention heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Rows of the word embedding table.
    pub vocab_size: usize,
    /// Rows of the position embedding table: the longest sequence.
    pub max_position_embeddings: usize,
    /// Rows of the token type table; with a single one, both segments of a pair are of type 0.
    pub type_vocab_size: usize,
    /// Epsilon of every LayerNorm.
    pub layer_norm_eps: f64,
    /// Dropout on embeddings and on both branches of a layer.
    pub hidden_dropout_prob: f64,
    /// Dropout on attention probabilities.
    pub attention_probs_dropout_prob: f64,
    /// Standard deviation of freshly initialised weights.
    pub initializer_range: f64,
    /// Activation of the feed-forward layer, by transformers' name.
    pub hidden_act: String,
    /// Id of the padding token.
    pub pad_token_id: u32,
}

/// BERT-base.
impl Default for BertConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            vocab_size: 30522,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            initializer_range: 0.02,
            hidden_act: "gelu".into(),
            pad_token_id: 0,
        }
    }
}

/// Fails when no encoder of this shape can be built, with the first field that does not fit.
impl TryFrom<BertConfig> for ModelConfig {
    type Error = EncoderError;

    fn try_from(config: BertConfig) -> Result<Self, EncoderError> {
        let Value::Object(fields) = json!(config) else { unreachable!("a structure is an object") };
        Self::from_fields(&fields)
    }
}
