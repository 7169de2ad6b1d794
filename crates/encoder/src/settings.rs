//! How a text becomes a vector and how two vectors are compared: what a sentence-transformers folder records.
//!
//! Two schemas are read. Until sentence-transformers 5.3: module types `sentence_transformers.models.*`, pooling
//! as `pooling_mode_*` booleans, `max_seq_length` in `sentence_bert_config.json`. From 5.4: module types by their
//! new paths (`sentence_transformers.base.modules.transformer.Transformer`, ...), one `pooling_mode` string, and
//! the maximum length in `tokenizer_config.json`.

use std::path::Path;

use contaccum_files::read_json_if_there;
use contaccum_kernels::Pooling;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::modules::{Fields, Modules, unsupported};
use crate::{EncoderError, ModelConfig, ModelRecord, PassageFormat};

/// How two vectors are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Similarity {
    /// Dot product.
    Dot,
    /// Cosine: vectors are normalised to length one.
    Cosine,
}

/// Everything beside the weights and the tokenizer that decides what vector a text gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSettings {
    /// Pooling of the last layer.
    pub pooling: Pooling,
    /// Whether vectors are normalised to length one.
    pub normalize: bool,
    /// Similarity function written into the exported folder.
    pub similarity: Similarity,
    /// Text put before every query.
    pub query_prompt: String,
    /// Text put before every passage.
    pub passage_prompt: String,
    /// How a passage's title and text become one sequence.
    pub passage_format: PassageFormat,
    /// Longest query in tokens, special tokens included.
    pub query_max_length: usize,
    /// Longest passage in tokens, special tokens included.
    pub passage_max_length: usize,
    /// Longest sequence in tokens, special tokens included: the one length that sentence-transformers knows.
    pub max_seq_length: usize,
}

impl ModelSettings {
    /// DPR's convention, which stands for a folder that records nothing: the CLS token, compared by dot product,
    /// no prompts, title and text as a pair, as many tokens as the model has positions.
    pub fn plain(config: &ModelConfig) -> Self {
        let longest = config.architecture().longest;
        Self {
            pooling: Pooling::Cls,
            normalize: false,
            similarity: Similarity::Dot,
            query_prompt: String::new(),
            passage_prompt: String::new(),
            passage_format: PassageFormat::Pair,
            query_max_length: longest,
            passage_max_length: longest,
            max_seq_length: longest,
        }
    }

    /// The query with its prompt before it.
    pub fn prompted_query(&self, text: &str) -> String {
        self.query_prompt.clone() + text
    }

    /// Title and text of a passage with its prompt before the first of them that is not empty.
    pub fn prompted_passage(&self, title: &str, text: &str) -> (String, String) {
        let prompt = &self.passage_prompt;
        match title.is_empty() {
            true => (String::new(), prompt.clone() + text),
            false => (prompt.clone() + title, text.into()),
        }
    }

    pub(crate) fn read(folder: &Path, modules: &Modules, config: &ModelConfig) -> Result<Self, EncoderError> {
        let transformer = folder.join(&modules.transformer);
        let max_seq_length = max_seq_length(&transformer, config)?;
        let record = ModelRecord::read(folder)?;
        // Who shortens the folder's one length in Python shortens both.
        let longest = |recorded: Option<usize>| recorded.unwrap_or(max_seq_length).min(max_seq_length);
        let plain = Self {
            passage_format: record.passage_format.unwrap_or(PassageFormat::Pair),
            query_max_length: longest(record.query_max_length),
            passage_max_length: longest(record.passage_max_length),
            max_seq_length,
            ..Self::plain(config)
        };
        let Some(pooling) = &modules.pooling else { return Ok(plain) };
        let Usage { query_prompt, passage_prompt, similarity, .. } = Usage::read(folder)?;
        let has_prompts = !(query_prompt.is_empty() && passage_prompt.is_empty());
        Ok(Self {
            pooling: read_pooling(&folder.join(pooling).join("config.json"), config, has_prompts)?,
            normalize: modules.normalize,
            similarity,
            query_prompt,
            passage_prompt,
            ..plain
        })
    }
}

fn read_pooling(place: &Path, config: &ModelConfig, has_prompts: bool) -> Result<Pooling, EncoderError> {
    let fields: Fields = read_json_if_there(place)?.ok_or_else(|| EncoderError::FileMissing {
        path: place.into(),
        remedy: "modules.json names a Pooling module; fetch its folder too".into(),
    })?;
    let width = fields.get("embedding_dimension").or_else(|| fields.get("word_embedding_dimension"));
    if width.and_then(Value::as_f64).is_some_and(|width| width != config.architecture().width as f64) {
        let what = format!("pools vectors of another width than hidden_size {}", config.architecture().width);
        return Err(unsupported(place, format!("{what}; the files must belong to one model")));
    }
    if has_prompts && fields.get("include_prompt") == Some(&Value::Bool(false)) {
        return Err(unsupported(
            place,
            "include_prompt false is not supported; prompts are pooled too".into(),
        ));
    }
    let modes = pooling_modes(&fields);
    let known = || Pooling::ALL.map(Pooling::name).join(", ");
    match modes.as_slice() {
        [mode] => Pooling::ALL
            .into_iter()
            .find(|pooling| pooling.name() == mode)
            .ok_or_else(|| unsupported(place, format!("pooling {mode} is not supported; {} are", known()))),
        several => {
            let what = format!("pooling {} joins several vectors, which is not supported", several.join("+"));
            Err(unsupported(place, format!("{what}; one of {} is", known())))
        }
    }
}

/// The field that switches a pooling on in the schema before 5.4.
pub(crate) fn pooling_flag(pooling: Pooling) -> &'static str {
    match pooling {
        Pooling::Cls => "pooling_mode_cls_token",
        Pooling::Mean => "pooling_mode_mean_tokens",
        Pooling::Max => "pooling_mode_max_tokens",
        Pooling::LastToken => "pooling_mode_lasttoken",
        Pooling::MeanSqrtLenTokens => "pooling_mode_mean_sqrt_len_tokens",
        Pooling::WeightedMean => "pooling_mode_weightedmean_tokens",
    }
}

/// The pooling modes switched on, by their names in the new schema; `mean` where none is, as in Python.
fn pooling_modes(fields: &Fields) -> Vec<String> {
    let name = |flag: &str| {
        let known = Pooling::ALL.into_iter().find(|pooling| pooling_flag(*pooling) == flag);
        known.map_or(flag.to_owned(), |pooling| pooling.name().to_owned())
    };
    let modes: Vec<String> = match fields.get("pooling_mode") {
        Some(Value::String(mode)) => vec![mode.clone()],
        Some(Value::Array(modes)) => {
            modes.iter().map(|mode| mode.as_str().map_or(mode.to_string(), String::from)).collect()
        }
        _ => {
            let on = fields.iter().filter(|(flag, on)| flag.starts_with("pooling_mode_") && **on == true);
            on.map(|(flag, _)| name(flag)).collect()
        }
    };
    if modes.is_empty() { vec!["mean".into()] } else { modes }
}

/// The longest sequence: what the folder says, never more than the model has positions.
fn max_seq_length(transformer: &Path, config: &ModelConfig) -> Result<usize, EncoderError> {
    let place = transformer.join("sentence_bert_config.json");
    let fields: Fields = read_json_if_there(&place)?.unwrap_or_default();
    let task = fields.get("transformer_task").unwrap_or(&Value::Null);
    if !(task.is_null() || task == "feature-extraction") {
        return Err(unsupported(
            &place,
            format!("transformer_task {task} is not supported; this is no encoder"),
        ));
    }
    let processing = |kind: &str| fields.get("processing_kwargs")?.get(kind)?.get("max_length");
    let own = fields.get("max_seq_length").filter(|length| !length.is_null());
    let tokenizer: Fields;
    let stated = match own.or_else(|| processing("text")).or_else(|| processing("common")) {
        Some(length) => Some(length),
        None => {
            tokenizer = read_json_if_there(&transformer.join("tokenizer_config.json"))?.unwrap_or_default();
            tokenizer.get("model_max_length").or_else(|| tokenizer.get("max_len"))
        }
    };
    // transformers writes 1e30 for "no limit", so the number is read as a float.
    let limit = stated.and_then(Value::as_f64).map_or(usize::MAX, |length| length as usize);
    if limit < 3 {
        return Err(unsupported(
            &place,
            format!("a maximum length of {limit} tokens; it must be at least 3"),
        ));
    }
    Ok(limit.min(config.architecture().longest))
}

/// What `config_sentence_transformers.json` says.
pub(crate) struct Usage {
    query_prompt: String,
    passage_prompt: String,
    similarity: Similarity,
    /// Prompts that the file holds and neither queries nor passages get.
    pub(crate) unused: Vec<String>,
}

impl Usage {
    pub(crate) fn read(folder: &Path) -> Result<Self, EncoderError> {
        let place = folder.join("config_sentence_transformers.json");
        let fields: Fields = read_json_if_there(&place)?.unwrap_or_default();
        let model_type = fields.get("model_type").unwrap_or(&Value::Null);
        if !(model_type.is_null() || model_type == "SentenceTransformer") {
            let what = format!("model_type {model_type} is not supported; only SentenceTransformer is");
            return Err(unsupported(&place, what));
        }
        // Without a value sentence-transformers compares by cosine.
        let similarity = match fields.get("similarity_fn_name").and_then(Value::as_str) {
            None | Some("cosine") => Similarity::Cosine,
            Some("dot" | "dot_product") => Similarity::Dot,
            Some(other) => {
                let what = format!("similarity_fn_name {other} is not supported; only cosine and dot are");
                return Err(unsupported(&place, what));
            }
        };
        let prompts = fields.get("prompts").and_then(Value::as_object);
        let prompt = |name: &str| prompts.and_then(|prompts| prompts.get(name)?.as_str()).unwrap_or_default();
        // In sentence-transformers (6.2) every model has prompts of these names, empty where the file gives none, so
        // that encode_query and encode_document never come to another name or to the default.
        let (query_prompt, passage_prompt) = (prompt("query").to_owned(), prompt("document").to_owned());
        let default = fields.get("default_prompt_name").and_then(Value::as_str);
        let unused = ["passage", "corpus"]
            .into_iter()
            .chain(default)
            .filter(|name| !["query", "document", ""].contains(name) && !prompt(name).is_empty());
        let mut unused: Vec<String> = unused.map(str::to_owned).collect();
        unused.dedup();
        Ok(Self { query_prompt, passage_prompt, similarity, unused })
    }
}
