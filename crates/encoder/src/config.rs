//! `config.json` of a BERT-family model.

use std::path::Path;

use contaccum_files::{read_json_if_there, write_json};
use contaccum_kernels::Activation;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::EncoderError;

/// Activations of the feed-forward layer by the names transformers gives them.
const ACTIVATIONS: [(&str, Activation); 6] = [
    ("gelu", Activation::Gelu),
    ("gelu_python", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("relu", Activation::Relu),
];

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
    /// Reads and validates a `config.json`. Fields this program does not know are left out; `null` stands for the
    /// default, and a whole number may be written `2.0`.
    ///
    /// # Errors
    /// When the file is missing or broken, or asks for something other than a BERT encoder.
    pub fn read(path: &Path) -> Result<Self, EncoderError> {
        let fields = read_json_if_there(path)?.ok_or_else(|| EncoderError::FileMissing {
            path: path.into(),
            remedy: "a model folder holds config.json, model.safetensors and tokenizer.json".into(),
        })?;
        let unsupported = |what| EncoderError::Unsupported { place: path.display().to_string(), what };
        // Another family's fields may differ in type too: what it is comes before what is wrong with it.
        foreign(&fields).map_or(Ok(()), |what| Err(unsupported(what)))?;
        let config = Self::from_fields(&fields).map_err(unsupported)?;
        config.problem().map_or(Ok(config), |what| Err(unsupported(what)))
    }

    fn from_fields(fields: &Map<String, Value>) -> Result<Self, String> {
        let d = Self::default();
        Ok(Self {
            hidden_size: field(fields, "hidden_size", d.hidden_size)?,
            num_hidden_layers: field(fields, "num_hidden_layers", d.num_hidden_layers)?,
            num_attention_heads: field(fields, "num_attention_heads", d.num_attention_heads)?,
            intermediate_size: field(fields, "intermediate_size", d.intermediate_size)?,
            vocab_size: field(fields, "vocab_size", d.vocab_size)?,
            max_position_embeddings: field(fields, "max_position_embeddings", d.max_position_embeddings)?,
            type_vocab_size: field(fields, "type_vocab_size", d.type_vocab_size)?,
            layer_norm_eps: field(fields, "layer_norm_eps", d.layer_norm_eps)?,
            hidden_dropout_prob: field(fields, "hidden_dropout_prob", d.hidden_dropout_prob)?,
            attention_probs_dropout_prob: field(
                fields,
                "attention_probs_dropout_prob",
                d.attention_probs_dropout_prob,
            )?,
            initializer_range: field(fields, "initializer_range", d.initializer_range)?,
            hidden_act: field(fields, "hidden_act", d.hidden_act)?,
            pad_token_id: field(fields, "pad_token_id", d.pad_token_id)?,
        })
    }

    /// The activation that `hidden_act` names, if it is a known one.
    pub(crate) fn activation(&self) -> Option<Activation> {
        let known = |(name, _): &&(&str, Activation)| *name == self.hidden_act;
        ACTIVATIONS.iter().find(known).map(|(_, activation)| *activation)
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
            ("type_vocab_size", self.type_vocab_size, 1, 1 << 8),
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
        if self.activation().is_none() {
            let known = ACTIVATIONS.map(|(name, _)| name).join(", ");
            return Some(format!("hidden_act {} is not supported; {known} are", self.hidden_act));
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

/// A field of the file, or the default where it is left out or `null`.
fn field<T: DeserializeOwned>(fields: &Map<String, Value>, name: &str, default: T) -> Result<T, String> {
    let value = match fields.get(name) {
        None | Some(Value::Null) => return Ok(default),
        Some(value) => whole_number(value).unwrap_or_else(|| value.clone()),
    };
    serde_json::from_value(value).map_err(|reason| format!("{name}: {reason}; mend it or leave it out"))
}

/// `2.0` as `2`.
fn whole_number(value: &Value) -> Option<Value> {
    let number = value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..1e15).contains(number))?;
    Some(json!(number as u64))
}

/// What makes the file describe something other than a plain BERT encoder, if anything does.
fn foreign(fields: &Map<String, Value>) -> Option<String> {
    let of = |name: &str| fields.get(name).unwrap_or(&Value::Null);
    let model_type = of("model_type");
    if !(model_type.is_null() || model_type == "bert") {
        return Some(format!("model_type {model_type} is not supported; {SUPPORTED}"));
    }
    let architecture = of("architectures").get(0).and_then(Value::as_str).unwrap_or("Bert");
    if model_type.is_null() && !architecture.starts_with("Bert") {
        return Some(format!("architecture {architecture} is not supported; {SUPPORTED}"));
    }
    let positions = of("position_embedding_type");
    if !(positions.is_null() || positions == "absolute") {
        return Some(format!("position_embedding_type {positions} is not supported; only \"absolute\" is"));
    }
    if of("is_decoder") == true {
        return Some("is_decoder true is not supported; an encoder attends in both directions".into());
    }
    None
}

const SUPPORTED: &str = "only \"bert\" is (BERT, MiniLM, and the BGE, E5 and GTE models of that type)";
