//! The tokenizer that a model folder describes, as the content of one `tokenizer.json`.
//!
//! A folder says it in up to five files, and transformers (5.x, `AutoTokenizer` for a BERT model) decides between them
//! so: where `tokenizer_class` is BERT's or is not given, the vocabulary alone is taken from `tokenizer.json` or
//! `vocab.txt`, and everything else is BERT's with the flags of `tokenizer_config.json` and their defaults (lower-casing!);
//! where it is another class, `tokenizer.json` is taken as it is. Added tokens come from `added_tokens_decoder` of
//! `tokenizer_config.json`, or else from `added_tokens.json` and `tokenizer.json`. The same is done here, and told
//! where `tokenizer.json` says otherwise: sentence-transformers gives the same vectors.

use std::{collections::BTreeMap, path::Path};

use contaccum_files::{Format, parse_json, read_if_there, read_json_if_there, refuse_foreign};
use serde_json::{Map, Value, json};

use super::SPECIAL_TOKENS;
use crate::{EncoderError, notice::warn_once};

type Fields = Map<String, Value>;

/// transformers' classes that build BERT's tokenizer from a vocabulary and flags.
const BERT_CLASSES: [&str; 10] = [
    "BertTokenizer",
    "ConvBertTokenizer",
    "DPRContextEncoderTokenizer",
    "DPRQuestionEncoderTokenizer",
    "DistilBertTokenizer",
    "ElectraTokenizer",
    "LayoutLMTokenizer",
    "LxmertTokenizer",
    "MobileBertTokenizer",
    "SqueezeBertTokenizer",
];

/// What is said about BERT's normalizer, by its names in `tokenizer_config.json` and in `tokenizer.json`.
const FLAGS: [(&str, &str); 3] = [
    ("do_lower_case", "lowercase"),
    ("strip_accents", "strip_accents"),
    ("tokenize_chinese_chars", "handle_chinese_chars"),
];

/// The definition of a folder's tokenizer, and the file that has its vocabulary.
pub(super) fn read(folder: &Path) -> Result<(String, Value), EncoderError> {
    let files = Files::read(folder)?;
    let (path, mut definition) = match (&files.definition, &files.vocabulary) {
        (Some(own), _) => {
            let path = folder.join("tokenizer.json");
            let place = path.display().to_string();
            let refuse = |what| EncoderError::Tokenizer { place: place.clone(), what };
            (path, files.resolved(own).map_err(refuse)?)
        }
        (None, Some(tokens)) => {
            let path = folder.join("vocab.txt");
            let vocabulary =
                tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
            (path, files.rebuilt(&vocabulary, None).map_err(|what| files.refuse(what))?)
        }
        (None, None) => {
            return Err(EncoderError::FileMissing {
                path: folder.join("tokenizer.json"),
                remedy: "a model folder holds tokenizer.json or vocab.txt; fetch one of them".into(),
            });
        }
    };
    let wrapper: Fields = read_json_if_there(&folder.join("sentence_bert_config.json"))?.unwrap_or_default();
    if wrapper.get("do_lower_case") == Some(&Value::Bool(true)) {
        lower_case_first(&mut definition);
    }
    Ok((path.display().to_string(), definition))
}

/// The files of a folder that say what its tokenizer is.
struct Files {
    folder: String,
    definition: Option<Value>,
    vocabulary: Option<Vec<String>>,
    config: Fields,
    added_tokens: Fields,
    /// The class asked for, without `Fast`; BERT's where none is.
    class: String,
}

impl Files {
    fn read(folder: &Path) -> Result<Self, EncoderError> {
        let fields = |name: &str| -> Result<Fields, EncoderError> {
            Ok(read_json_if_there(&folder.join(name))?.unwrap_or_default())
        };
        let path = folder.join("tokenizer.json");
        let definition = match read_if_there(&path)? {
            Some(bytes) => Some(parse_json(&path, &bytes)?),
            None => None,
        };
        let mut config = fields("tokenizer_config.json")?;
        if !config.contains_key("added_tokens_decoder") {
            // The older place of the special tokens' names.
            let names = fields("special_tokens_map.json")?;
            config.extend(names.into_iter().filter(|(name, _)| name.ends_with("_token")));
        }
        let model = fields("config.json")?;
        let class = [&config, &model].into_iter().find_map(|fields| fields.get("tokenizer_class")?.as_str());
        let class = class.unwrap_or("BertTokenizer");
        let class = class.strip_suffix("Fast").unwrap_or(class).to_owned();
        Ok(Self {
            folder: folder.display().to_string(),
            definition,
            vocabulary: read_vocabulary(&folder.join("vocab.txt"))?,
            added_tokens: fields("added_tokens.json")?,
            config,
            class,
        })
    }

    fn refuse(&self, what: String) -> EncoderError {
        EncoderError::Tokenizer { place: self.folder.clone(), what }
    }

    fn resolved(&self, own: &Value) -> Result<Value, String> {
        if !own["model"].is_object() {
            return Err("not a tokenizer: it has no model; fetch it again".into());
        }
        let listed =
            |added: &Value| added.as_array().is_some_and(|added| added.iter().all(|t| t["id"].is_u64()));
        if !(own["added_tokens"].is_null() || listed(&own["added_tokens"])) {
            return Err("its added_tokens are not a list of tokens with ids; fetch it again".into());
        }
        let mut own = own.clone();
        // Lengths are given with each text; what the file says about them is not read at all.
        (own["truncation"], own["padding"]) = (Value::Null, Value::Null);
        name_the_model(&mut own);
        if !BERT_CLASSES.contains(&self.class.as_str()) {
            let vocabulary = own["model"]["vocab"].as_object().cloned().unwrap_or_default();
            own["added_tokens"] = self.added(added_of(&own), &vocabulary, &[]);
            return Ok(own);
        }
        let model = own["model"]["type"].as_str().unwrap_or("without a type");
        if model != "WordPiece" {
            let remedy =
                "set tokenizer_class to PreTrainedTokenizerFast in tokenizer_config.json to take it as it is";
            return Err(format!("its model is {model}, but {} is WordPiece; {remedy}", self.class));
        }
        let vocabulary =
            own["model"]["vocab"].as_object().ok_or("its model has no vocabulary; fetch it again")?;
        let rebuilt = self.rebuilt(vocabulary, Some(&own))?;
        self.tell_conflicts(&own, &rebuilt);
        Ok(rebuilt)
    }

    /// BERT's tokenizer of this vocabulary.
    fn rebuilt(&self, vocabulary: &Fields, own: Option<&Value>) -> Result<Value, String> {
        let mut definition = word_piece(vocabulary.clone(), &self.flags()?);
        let named = self.named_tokens();
        if let Some(unknown) = named.get("unk_token") {
            definition["model"]["unk_token"] = json!(unknown);
        }
        let config_decides = self.config.contains_key("added_tokens_decoder");
        let base = own.filter(|_| !config_decides).map(added_of).unwrap_or_default();
        definition["added_tokens"] = self.added(base, vocabulary, &SPECIAL_TOKENS);
        Ok(definition)
    }

    /// The flags given, without those left out or `null`.
    fn flags(&self) -> Result<Fields, String> {
        let mut flags = Fields::new();
        for (name, _) in FLAGS {
            match self.config.get(name) {
                None | Some(Value::Null) => {}
                Some(flag @ Value::Bool(_)) => drop(flags.insert(name.into(), flag.clone())),
                Some(other) => {
                    return Err(format!(
                        "tokenizer_config.json: {name} is {other}; it must be true or false"
                    ));
                }
            }
        }
        Ok(flags)
    }

    /// The special tokens that the folder gives other names than BERT's.
    fn named_tokens(&self) -> BTreeMap<&str, String> {
        let text = |value: &Value| value.as_str().map(String::from).or_else(|| content(value));
        let named = self.config.iter().filter(|(name, _)| name.ends_with("_token"));
        named.filter_map(|(name, value)| Some((name.as_str(), text(value)?))).collect()
    }

    /// Added tokens by id: those of `tokenizer.json`, of the folder's other files, and the special tokens by name.
    /// A name that the vocabulary does not have is left out: no embedding belongs to it.
    fn added(&self, own: Vec<Value>, vocabulary: &Fields, special: &[&str]) -> Value {
        let mut by_id: BTreeMap<u64, Value> = BTreeMap::new();
        let own = own.into_iter().filter_map(|token| Some((token["id"].as_u64()?, whole_token(token))));
        let named = self.named_tokens();
        if let Some(decoder) = self.config.get("added_tokens_decoder").and_then(Value::as_object) {
            by_id.extend(own);
            for (id, token) in decoder {
                let (Ok(id), mut token) = (id.parse(), token.clone()) else { continue };
                token["id"] = json!(id);
                by_id.insert(id, whole_token(token));
            }
        } else {
            let extra = self.extra_tokens();
            let names = SPECIAL_TOKENS.into_iter().chain(named.values().chain(&extra).map(String::as_str));
            for (token, id) in &self.added_tokens {
                let Some(number) = id.as_u64() else { continue };
                let special = names.clone().any(|name| name == token);
                let token = json!({ "id": id, "content": token, "special": special, "normalized": !special });
                by_id.insert(number, whole_token(token));
            }
            by_id.extend(own);
        }
        let mut added: Vec<Value> = by_id.into_values().collect();
        let names = special
            .iter()
            .map(|name| (*name).to_owned())
            .chain(named.into_values())
            .chain(self.extra_tokens());
        for name in names {
            if let Some(id) = vocabulary.get(&name)
                && !added.iter().any(|token| token["content"] == name)
            {
                added.push(special_token(&name, id));
            }
        }
        Value::Array(added)
    }

    /// Special tokens without a role.
    fn extra_tokens(&self) -> Vec<String> {
        let lists = ["additional_special_tokens", "extra_special_tokens"];
        let tokens = lists.iter().filter_map(|name| self.config.get(*name)?.as_array()).flatten();
        tokens.filter_map(|token| token.as_str().map(String::from).or_else(|| content(token))).collect()
    }

    /// Says in one line what `tokenizer.json` says otherwise than the tokenizer that is used.
    fn tell_conflicts(&self, own: &Value, used: &Value) {
        let mut differences = Vec::new();
        let (theirs, ours) = (&own["normalizer"], &used["normalizer"]);
        if theirs["type"] == ours["type"] {
            for (flag, name) in FLAGS {
                if theirs[name] != ours[name] {
                    let said = if self.config.contains_key(flag) { "says" } else { "by default means" };
                    differences.push(format!("{name} {} where {flag} {said} {}", theirs[name], ours[name]));
                }
            }
        } else {
            differences.push(format!("normalizer {}", theirs["type"]));
        }
        if own["pre_tokenizer"]["type"] != used["pre_tokenizer"]["type"] {
            differences.push(format!("pre_tokenizer {}", own["pre_tokenizer"]["type"]));
        }
        for name in ["max_input_chars_per_word", "continuing_subword_prefix"] {
            if own["model"][name] != used["model"][name] {
                differences.push(format!("{name} {}", own["model"][name]));
            }
        }
        if !differences.is_empty() {
            warn_once(&format!(
                "{}: tokenizer.json has {}; tokenizer_config.json decides, as in transformers ({}): mend the flags \
                 there, or set tokenizer_class to PreTrainedTokenizerFast to take tokenizer.json as it is",
                self.folder,
                differences.join(", "),
                self.class,
            ));
        }
    }
}

/// The tokens of a `vocab.txt`, one a line.
fn read_vocabulary(path: &Path) -> Result<Option<Vec<String>>, EncoderError> {
    let Some(bytes) = read_if_there(path)? else { return Ok(None) };
    refuse_foreign(path, &bytes, Format::Text)?;
    let text = String::from_utf8(bytes).map_err(|_| EncoderError::Tokenizer {
        place: path.display().to_string(),
        what: "is not UTF-8 text; fetch it again".into(),
    })?;
    Ok(Some(text.lines().map(|line| line.trim_end().to_owned()).collect()))
}

/// Older files leave out what kind of model it is.
fn name_the_model(definition: &mut Value) {
    let Some(model) = definition["model"].as_object_mut() else { return };
    if model.contains_key("type") {
        return;
    }
    let has = |name: &str| model.contains_key(name);
    let kind = if has("merges") {
        "BPE"
    } else if has("unk_id") {
        "Unigram"
    } else if has("max_input_chars_per_word") || has("continuing_subword_prefix") {
        "WordPiece"
    } else {
        "WordLevel"
    };
    model.insert("type".into(), json!(kind));
}

fn added_of(definition: &Value) -> Vec<Value> {
    definition["added_tokens"].as_array().cloned().unwrap_or_default()
}

fn content(token: &Value) -> Option<String> {
    token["content"].as_str().map(String::from)
}

/// An added token with every field that the library asks for.
fn whole_token(mut token: Value) -> Value {
    if let Some(fields) = token.as_object_mut() {
        fields.remove("__type");
        let special = fields.get("special") == Some(&Value::Bool(true));
        fields.entry("normalized").or_insert(json!(!special));
        for name in ["special", "single_word", "lstrip", "rstrip"] {
            fields.entry(name).or_insert(json!(false));
        }
    }
    token
}

fn special_token(token: &str, id: &Value) -> Value {
    json!({ "id": id, "content": token, "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false })
}

/// The `tokenizer.json` of a BERT WordPiece tokenizer, with the flags of a `tokenizer_config.json`.
pub(super) fn word_piece(vocabulary: Fields, flags: &Fields) -> Value {
    let flag = |name: &str, default: Value| flags.get(name).cloned().unwrap_or(default);
    let special =
        SPECIAL_TOKENS.iter().filter_map(|token| Some(special_token(token, vocabulary.get(*token)?)));
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": special.collect::<Vec<_>>(),
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": flag("tokenize_chinese_chars", json!(true)),
            "strip_accents": flag("strip_accents", Value::Null),
            "lowercase": flag("do_lower_case", json!(true)),
        },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": null,
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    })
}

/// The class and flags by which transformers rebuilds this very tokenizer: `BertTokenizer`, where it is what that
/// class makes of vocabulary and flags, else none, and `tokenizer.json` is taken as it is.
pub(super) fn python_class(definition: &Value) -> Fields {
    let normalizer = &definition["normalizer"];
    let flags = FLAGS.into_iter().map(|(flag, name)| (flag.to_owned(), normalizer[name].clone()));
    let flags: Fields = flags.collect();
    let mut bert = word_piece(Fields::new(), &flags);
    bert["model"]["vocab"] = Value::Null;
    let same = ["normalizer", "pre_tokenizer"].iter().all(|part| definition[part] == bert[part])
        && ["type", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word"]
            .iter()
            .all(|field| definition["model"][field] == bert["model"][field]);
    // That class sets all five apart, so that they are found in texts.
    let added = added_of(definition);
    let same =
        same && SPECIAL_TOKENS.iter().all(|token| added.iter().any(|added| added["content"] == *token));
    let class = if same { "BertTokenizer" } else { "PreTrainedTokenizerFast" };
    let mut fields = if same { flags } else { Fields::new() };
    fields.insert("tokenizer_class".into(), json!(class));
    fields
}

/// Puts lower-casing before the normalizer, unless that lower-cases by itself.
fn lower_case_first(definition: &mut Value) {
    let normalizer = definition["normalizer"].take();
    let lower_cases = |one: &Value| one["lowercase"] == true || one["type"] == "Lowercase";
    let any = lower_cases(&normalizer)
        || normalizer["normalizers"].as_array().into_iter().flatten().any(lower_cases);
    definition["normalizer"] = match normalizer {
        Value::Null => json!({ "type": "Lowercase" }),
        own if any => own,
        own => json!({ "type": "Sequence", "normalizers": [{ "type": "Lowercase" }, own] }),
    };
}
