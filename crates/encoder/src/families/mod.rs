//! The families of encoders: what their `config.json` says and what their tensors are called. A family is one file and
//! its lines in [`FAMILIES`]; everything behind it knows [`Architecture`]s alone.

mod bert;
mod distilbert;
mod fields;
mod modernbert;
mod mpnet;
mod roberta;

use serde_json::{Map, Value};

use crate::Architecture;
pub use bert::BertConfig;
pub(crate) use fields::{Decides, Fields, Read};

/// A family of encoders.
#[derive(Debug)]
pub(crate) struct Family {
    /// What `model_type` calls it.
    pub model_type: &'static str,
    /// transformers' class of the encoder without a head.
    pub class: &'static str,
    /// Before a tensor's name in every model with a head on the encoder.
    pub prefix: &'static str,
    /// Names of the tensors.
    pub names: Names,
    /// Reads the fields; refuses by name what is not done.
    pub read: fn(&mut Fields) -> Result<Architecture, String>,
}

/// Names of modules, without `.weight` and `.bias`; empty where no model of the family has one.
#[derive(Debug)]
pub(crate) struct Names {
    pub words: &'static str,
    pub positions: &'static str,
    pub types: &'static str,
    pub embedding_norm: &'static str,
    /// Before the number of a layer, after which the names of its modules follow.
    pub layers: &'static str,
    /// Query, key and value: three modules or one.
    pub attention_inputs: &'static [&'static str],
    pub attention_output: &'static str,
    pub attention_norm: &'static str,
    pub feed_forward_input: &'static str,
    pub feed_forward_output: &'static str,
    pub feed_forward_norm: &'static str,
    pub relative_bias: &'static str,
    pub final_norm: &'static str,
}

/// All families.
pub(crate) const FAMILIES: [&Family; 6] = [
    &bert::BERT,
    &roberta::ROBERTA,
    &roberta::XLM_ROBERTA,
    &distilbert::DISTILBERT,
    &mpnet::MPNET,
    &modernbert::MODERNBERT,
];

/// The family that a `config.json` names: by `model_type`, without one by its first architecture, without either BERT.
pub(crate) fn family_of(fields: &Map<String, Value>) -> Result<&'static Family, String> {
    let model_type = fields.get("model_type").unwrap_or(&Value::Null);
    let architecture = fields.get("architectures").and_then(|names| names.get(0)?.as_str());
    let (found, what) = match (model_type, architecture) {
        (Value::Null, None) => return Ok(&bert::BERT),
        (Value::Null, Some(name)) => {
            let begins = |family: &&&Family| name.starts_with(family.class.trim_end_matches("Model"));
            (FAMILIES.iter().find(begins), format!("architecture {name}"))
        }
        (model_type, _) => (
            FAMILIES.iter().find(|family| *model_type == family.model_type),
            format!("model_type {model_type}"),
        ),
    };
    found.copied().ok_or_else(|| {
        let known = FAMILIES.map(|family| family.model_type).join(", ");
        format!("{what} is not supported; {known} are")
    })
}
