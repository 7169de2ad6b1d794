//! `config.json` of a BERT-family model.

use std::path::Path;

use contaccum_files::{parse_json, read_if_there, write_json};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::EncoderError;

/// Shape and constants of a BERT encoder, named as in Hugging Face's `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
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
    /// Rows of the token type table.
    pub type_vocab_size: usize,
    /// Epsilon of every LayerNorm.
    pub layer_norm_eps: f64,
    /// Dropout on embeddings and on both branches of a layer.
    pub hidden_dropout_prob: f64,
    /// Dropout on attention probabilities.
    pub attention_probs_dropout_prob: f64,
    /// Standard deviation of freshly initialised weights.
    pub initializer_range: f64,
    /// Activation of the feed-forward layer.
    pub hidden_act: String,
    /// Id of the padding token.
    pub pad_token_id: u32,
}

/// BERT-base: the defaults of transformers' `BertConfig`, which stand for every field a file leaves out.
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

impl BertConfig {
    /// Reads and validates a `config.json`. Fields this program does not know are left out.
    ///
    /// # Errors
    /// When the file is missing or broken, or asks for something other than a BERT encoder.
    pub fn read(path: &Path) -> Result<Self, EncoderError> {
        let bytes = read_if_there(path)?.ok_or_else(|| EncoderError::FileMissing {
            path: path.into(),
            remedy: "a model folder holds config.json, model.safetensors and tokenizer.json".into(),
        })?;
        let unsupported = |what| EncoderError::Unsupported { place: path.display().to_string(), what };
        // Another family's fields may differ in type too: what it is comes before what is wrong with it.
        foreign(&parse_json(path, &bytes)?).map_or(Ok(()), |what| Err(unsupported(what)))?;
        let config: Self = parse_json(path, &bytes)?;
        config.problem().map_or(Ok(config), |what| Err(unsupported(what)))
    }

    /// Checks that an encoder of this shape can be built.
    ///
    /// # Errors
    /// Names the first field that does not fit.
    pub fn validate(&self) -> Result<(), EncoderError> {
        match self.problem() {
            Some(what) => Err(EncoderError::Unsupported { place: "model configuration".into(), what }),
            None => Ok(()),
        }
    }

    /// Writes a `config.json` that transformers reads as a `BertModel`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), EncoderError> {
        let mut fields = json!(self);
        fields["architectures"] = json!(["BertModel"]);
        fields["model_type"] = json!("bert");
        fields["position_embedding_type"] = json!("absolute");
        Ok(write_json(path, &fields)?)
    }

    fn problem(&self) -> Option<String> {
        // The upper bounds keep the number of parameters far from overflow whatever the file says.
        let sizes = [
            ("hidden_size", self.hidden_size, 1, 1 << 16),
            ("num_hidden_layers", self.num_hidden_layers, 1, 1 << 10),
            ("num_attention_heads", self.num_attention_heads, 1, 1 << 16),
            ("intermediate_size", self.intermediate_size, 1, 1 << 20),
            ("vocab_size", self.vocab_size, 1, 1 << 24),
            ("max_position_embeddings", self.max_position_embeddings, 3, 1 << 24),
            // Two segments are what titles and texts are told apart by.
            ("type_vocab_size", self.type_vocab_size, 2, 1 << 8),
        ];
        for (name, value, least, most) in sizes {
            if !(least..=most).contains(&value) {
                return Some(format!("{name} is {value}; it must lie between {least} and {most}"));
            }
        }
        let (width, heads) = (self.hidden_size, self.num_attention_heads);
        if !width.is_multiple_of(heads) {
            return Some(format!("hidden_size {width} is not a multiple of num_attention_heads {heads}"));
        }
        if self.hidden_act != "gelu" {
            return Some(format!("hidden_act {} is not supported; only gelu (with erf) is", self.hidden_act));
        }
        for (name, p) in [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
        ] {
            if !(0.0..1.0).contains(&p) {
                return Some(format!("{name} is {p}; it must be at least 0 and below 1"));
            }
        }
        for (name, value) in
            [("layer_norm_eps", self.layer_norm_eps), ("initializer_range", self.initializer_range)]
        {
            if !(value > 0.0 && value < 1.0) {
                return Some(format!("{name} is {value}; it must lie between 0 and 1"));
            }
        }
        if self.pad_token_id as usize >= self.vocab_size {
            return Some(format!(
                "pad_token_id {} is outside the vocabulary of {}",
                self.pad_token_id, self.vocab_size
            ));
        }
        None
    }
}

/// What makes the file describe something other than a plain BERT encoder, if anything does.
fn foreign(fields: &Map<String, Value>) -> Option<String> {
    let model_type = fields.get("model_type").unwrap_or(&Value::Null);
    if !(model_type.is_null() || model_type == "bert") {
        return Some(format!("model_type {model_type} is not supported; only \"bert\" is"));
    }
    let positions = fields.get("position_embedding_type").unwrap_or(&Value::Null);
    if !(positions.is_null() || positions == "absolute") {
        return Some(format!("position_embedding_type {positions} is not supported; only \"absolute\" is"));
    }
    if fields.get("is_decoder") == Some(&Value::Bool(true)) {
        return Some("is_decoder true is not supported; an encoder attends in both directions".into());
    }
    None
}
