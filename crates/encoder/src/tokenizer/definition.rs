//! The tokenizer that a model folder describes, as the content of one `tokenizer.json`.
//!
//! A folder says it in up to six files, and transformers (5.x, `AutoTokenizer`) decides between them so: a class of its
//! own (that of `tokenizer_class`, or else of the model's type) takes the vocabulary alone from `tokenizer.json` or
//! from `vocab.txt` or `vocab.json` and `merges.txt`, and everything else is the class's with the flags of
//! `tokenizer_config.json` and their defaults (lower-casing!); for another class, and for ModernBERT always,
//! `tokenizer.json` is taken as it is. Added tokens come from `added_tokens_decoder` of `tokenizer_config.json`, or else
//! from `added_tokens.json` and `tokenizer.json`. The same is done here, and told where `tokenizer.json` says otherwise:
//! sentence-transformers gives the same vectors.

use std::{collections::BTreeMap, path::Path};

use contaccum_files::{Format, parse_json, read_if_there, read_json_if_there, refuse_foreign};
use serde_json::{Value, json};

use super::classes::{Class, FLAGS, Fields, byte_level_bpe, unigram, word_piece};
use crate::{EncoderError, notice::warn_once};

/// What a folder says its tokenizer is.
pub(super) struct Definition {
    /// The file that has the vocabulary.
    pub place: String,
    /// The content of a `tokenizer.json`.
    pub tokenizer: Value,
    /// The special tokens by role, such as `pad_token`.
    pub names: BTreeMap<String, String>,
    /// Whether a model of this tokenizer is told which tokens are of the second text.
    pub types: bool,
}

/// The definition of a folder's tokenizer.
pub(super) fn read(folder: &Path) -> Result<Definition, EncoderError> {
    let files = Files::read(folder)?;
    let place = folder.join(files.vocabulary_file).display().to_string();
    let refuse = |what| EncoderError::Tokenizer { place: place.clone(), what };
    let (tokenizer, names) = files.resolved().map_err(refuse)?;
    let types = files.gives_types().map_err(refuse)?;
    let mut definition = Definition { place, tokenizer, names, types };
    let wrapper: Fields = read_json_if_there(&folder.join("sentence_bert_config.json"))?.unwrap_or_default();
    if wrapper.get("do_lower_case") == Some(&Value::Bool(true)) {
        lower_case_first(&mut definition.tokenizer);
    }
    Ok(definition)
}

/// The files of a folder that say what its tokenizer is.
struct Files {
    folder: String,
    /// The content of `tokenizer.json`, or one with the model of the older files alone.
    own: Value,
    vocabulary_file: &'static str,
    config: Fields,
    added_tokens: Fields,
    class: Class,
    /// The name of the class, where one is given.
    class_name: String,
}

impl Files {
    fn read(folder: &Path) -> Result<Self, EncoderError> {
        let fields = |name: &str| -> Result<Fields, EncoderError> {
            Ok(read_json_if_there(&folder.join(name))?.unwrap_or_default())
        };
        let mut config = fields("tokenizer_config.json")?;
        if !config.contains_key("added_tokens_decoder") {
            // The older place of the special tokens' names.
            let names = fields("special_tokens_map.json")?;
            config.extend(names.into_iter().filter(|(name, _)| name.ends_with("_token")));
        }
        let model = fields("config.json")?;
        let model_type = model.get("model_type").and_then(Value::as_str).unwrap_or_default();
        let given = [&config, &model].into_iter().find_map(|fields| fields.get("tokenizer_class")?.as_str());
        let class_name = given.map(|name| name.strip_suffix("Fast").unwrap_or(name).to_owned());
        let class = match &class_name {
            None => Class::of_model(model_type),
            Some(name) => Class::named(name, model_type).unwrap_or_else(|| {
                warn_once(&format!(
                    "{}: tokenizer_class {name} is not known here; tokenizer.json is taken as it is",
                    folder.display()
                ));
                Class::AsItIs
            }),
        };
        let (vocabulary_file, own) = read_vocabulary(folder, class)?;
        Ok(Self {
            folder: folder.display().to_string(),
            own,
            vocabulary_file,
            added_tokens: fields("added_tokens.json")?,
            config,
            class,
            class_name: class_name.unwrap_or_else(|| format!("the class of model_type {model_type:?}")),
        })
    }

    /// Whether a model is told token types, as `model_input_names` says or the class.
    fn gives_types(&self) -> Result<bool, String> {
        match self.config.get("model_input_names") {
            None | Some(Value::Null) => Ok(self.class.gives_types()),
            Some(Value::Array(names)) => Ok(names.iter().any(|name| name == "token_type_ids")),
            Some(other) => Err(format!(
                "tokenizer_config.json: model_input_names is {other}; it must be a list of names"
            )),
        }
    }

    /// The tokenizer, and the special tokens by role.
    fn resolved(&self) -> Result<(Value, BTreeMap<String, String>), String> {
        if !self.own["model"].is_object() {
            return Err("not a tokenizer: it has no model; fetch it again".into());
        }
        let listed =
            |added: &Value| added.as_array().is_some_and(|added| added.iter().all(|t| t["id"].is_u64()));
        if !(self.own["added_tokens"].is_null() || listed(&self.own["added_tokens"])) {
            return Err("its added_tokens are not a list of tokens with ids; fetch it again".into());
        }
        self.refuse_sides()?;
        let mut own = self.own.clone();
        // Lengths are given with each text; what the file says about them is not read at all.
        (own["truncation"], own["padding"]) = (Value::Null, Value::Null);
        name_the_model(&mut own);
        let vocabulary = vocabulary(&own["model"]);
        let named = self.named_tokens();
        let names = named.iter().map(|(role, (name, _))| (role.clone(), name.clone())).collect();
        let Some(model) = self.class.model() else {
            own["added_tokens"] = Value::Array(self.added(added_of(&own), &vocabulary, &named));
            return Ok((own, names));
        };
        let found = own["model"]["type"].as_str().unwrap_or("without a type");
        if model != found {
            let remedy =
                "set tokenizer_class to PreTrainedTokenizerFast in tokenizer_config.json to take it as it is";
            return Err(format!("its model is {found}, but {} is {model}; {remedy}", self.class_name));
        }
        if vocabulary.is_empty() {
            return Err("its model has no vocabulary; fetch it again".into());
        }
        let base = match self.config.contains_key("added_tokens_decoder") {
            true => Vec::new(),
            false => added_of(&own),
        };
        let added = self.added(base, &vocabulary, &named);
        let mut frame = [("", 0); 2];
        for (place, role) in frame.iter_mut().zip(self.class.frame()) {
            let name = &named[role].0;
            let of_added = added.iter().find(|token| token["content"] == **name).map(|token| &token["id"]);
            let id = of_added.or_else(|| vocabulary.get(name)).and_then(Value::as_u64);
            let id = id.ok_or_else(|| {
                format!("has no token {name}, which is its {role}; use the tokenizer of this model")
            })?;
            *place = (name, id);
        }
        let model = match self.class {
            Class::Roberta => byte_level_bpe(own["model"]["vocab"].clone(), own["model"]["merges"].clone()),
            Class::XlmRoberta => unigram(own["model"]["vocab"].clone()),
            Class::Bert | Class::DistilBert | Class::Mpnet | Class::AsItIs => {
                word_piece(vocabulary, &named["unk_token"].0)
            }
        };
        let mut built = self.class.build(model, &own, &self.flags()?, frame);
        built["added_tokens"] = Value::Array(added);
        if self.vocabulary_file == "tokenizer.json" {
            self.tell_conflicts(&own, &built);
        }
        Ok((built, names))
    }

    /// Texts are cut and padded at their end here.
    fn refuse_sides(&self) -> Result<(), String> {
        let truncation = &self.own["truncation"]["direction"];
        let side = self.config.get("truncation_side").unwrap_or(truncation);
        if side.as_str().is_some_and(|side| !side.eq_ignore_ascii_case("right")) {
            return Err(format!("truncation_side {side} is not supported; texts are cut at their end"));
        }
        if self.config.get("split_special_tokens") == Some(&Value::Bool(true)) {
            return Err("split_special_tokens true is not supported; set it to false".into());
        }
        Ok(())
    }

    /// The flags given, without those left out or `null`.
    fn flags(&self) -> Result<Fields, String> {
        let mut flags = Fields::new();
        for name in FLAGS.into_iter().map(|(flag, _)| flag).chain(["add_prefix_space"]) {
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

    /// The special tokens by role, those of the class with the folder's names for them, and what the folder says of
    /// each.
    fn named_tokens(&self) -> BTreeMap<String, (String, Value)> {
        let of_class = self.class.tokens().iter().map(|(role, name)| (*role, (*name, json!({}))));
        let mut named: BTreeMap<String, (String, Value)> =
            of_class.map(|(role, (name, said))| (role.to_owned(), (name.to_owned(), said))).collect();
        if self.class == Class::Mpnet {
            named.insert("mask_token".into(), ("<mask>".into(), json!({ "lstrip": true })));
        }
        for (role, value) in self.config.iter().filter(|(role, _)| role.ends_with("_token")) {
            if let Some(name) = text_of(value) {
                let said = if value.is_object() { value.clone() } else { json!({}) };
                let said = named.remove(role).filter(|_| !value.is_object()).map_or(said, |(_, said)| said);
                named.insert(role.clone(), (name, said));
            }
        }
        named
    }

    /// Added tokens by id: those of `tokenizer.json`, of the folder's other files, and the special tokens by name.
    /// A name that the vocabulary does not have is left out: no embedding belongs to it.
    fn added(
        &self,
        own: Vec<Value>,
        vocabulary: &Fields,
        named: &BTreeMap<String, (String, Value)>,
    ) -> Vec<Value> {
        let mut by_id: BTreeMap<u64, Value> = BTreeMap::new();
        let own = own.into_iter().filter_map(|token| Some((token["id"].as_u64()?, whole_token(token))));
        let extra = self.extra_tokens();
        if let Some(decoder) = self.config.get("added_tokens_decoder").and_then(Value::as_object) {
            by_id.extend(own);
            for (id, token) in decoder {
                let (Ok(id), mut token) = (id.parse(), token.clone()) else { continue };
                token["id"] = json!(id);
                by_id.insert(id, whole_token(token));
            }
        } else {
            let special = |token: &str| {
                named.values().any(|(name, _)| name == token) || extra.iter().any(|(name, _)| name == token)
            };
            for (token, id) in &self.added_tokens {
                let Some(number) = id.as_u64() else { continue };
                let special = special(token);
                let token = json!({ "id": id, "content": token, "special": special, "normalized": !special });
                by_id.insert(number, whole_token(token));
            }
            by_id.extend(own);
        }
        let mut added: Vec<Value> = by_id.into_values().collect();
        // In the order of their ids, as a class lists them.
        let mut missing: BTreeMap<u64, Value> = BTreeMap::new();
        for (name, said) in named.values().chain(&extra) {
            if let Some(id) = vocabulary.get(name).and_then(Value::as_u64)
                && !added.iter().any(|token| token["content"] == **name)
            {
                let mut token = if said.is_object() { said.clone() } else { json!({}) };
                (token["id"], token["content"], token["special"]) = (json!(id), json!(name), json!(true));
                missing.entry(id).or_insert(whole_token(token));
            }
        }
        added.extend(missing.into_values());
        added
    }

    /// Special tokens without a role.
    fn extra_tokens(&self) -> Vec<(String, Value)> {
        let lists = ["additional_special_tokens", "extra_special_tokens"];
        let tokens = lists.iter().filter_map(|name| self.config.get(*name)?.as_array()).flatten();
        tokens.filter_map(|token| Some((text_of(token)?, token.clone()))).collect()
    }

    /// Says in one line what `tokenizer.json` says otherwise than the tokenizer that is used.
    fn tell_conflicts(&self, own: &Value, used: &Value) {
        let mut differences = Vec::new();
        let (theirs, ours) = (&own["normalizer"], &used["normalizer"]);
        if theirs["type"] != ours["type"] {
            differences.push(format!("normalizer {}", theirs["type"]));
        } else if theirs["type"] == "BertNormalizer" {
            for (flag, name) in FLAGS {
                if theirs[name] != ours[name] {
                    let said = if self.config.contains_key(flag) { "says" } else { "by default means" };
                    differences.push(format!("{name} {} where {flag} {said} {}", theirs[name], ours[name]));
                }
            }
        }
        if own["pre_tokenizer"]["type"] != used["pre_tokenizer"]["type"] {
            differences.push(format!("pre_tokenizer {}", own["pre_tokenizer"]["type"]));
        }
        for name in ["max_input_chars_per_word", "continuing_subword_prefix"] {
            let same = own["model"][name] == used["model"][name];
            if self.class.model() == Some("WordPiece") && !same {
                differences.push(format!("{name} {}", own["model"][name]));
            }
        }
        let prefixed = |of: &Value| of["pre_tokenizer"]["add_prefix_space"].clone();
        if self.class == Class::Roberta && prefixed(own) != prefixed(used) {
            differences.push(format!("add_prefix_space {}", prefixed(own)));
        }
        if !differences.is_empty() {
            warn_once(&format!(
                "{}: tokenizer.json has {}; tokenizer_config.json decides, as in transformers ({}): mend the flags \
                 there, or set tokenizer_class to PreTrainedTokenizerFast to take tokenizer.json as it is",
                self.folder,
                differences.join(", "),
                self.class_name,
            ));
        }
    }
}

/// The file with the vocabulary, and a `tokenizer.json`, of which the older files give the model alone.
fn read_vocabulary(folder: &Path, class: Class) -> Result<(&'static str, Value), EncoderError> {
    let path = folder.join("tokenizer.json");
    if let Some(bytes) = read_if_there(&path)? {
        return Ok(("tokenizer.json", parse_json(&path, &bytes)?));
    }
    let missing = |remedy: &str| Err(EncoderError::FileMissing { path: path.clone(), remedy: remedy.into() });
    match class {
        Class::Bert | Class::DistilBert | Class::Mpnet => match read_words(&folder.join("vocab.txt"))? {
            Some(words) => {
                let vocabulary = words.into_iter().enumerate().map(|(id, word)| (word, json!(id))).collect();
                Ok(("vocab.txt", json!({ "model": word_piece(vocabulary, "") })))
            }
            None => missing("a model folder holds tokenizer.json or vocab.txt; fetch one of them"),
        },
        Class::Roberta => {
            let vocabulary: Option<Value> = read_json_if_there(&folder.join("vocab.json"))?;
            match (vocabulary, read_words(&folder.join("merges.txt"))?) {
                (Some(vocabulary), Some(lines)) => {
                    let merges =
                        lines.into_iter().filter(|line| !line.is_empty() && !line.starts_with("#version"));
                    Ok(("vocab.json", json!({ "model": byte_level_bpe(vocabulary, merges.collect()) })))
                }
                _ => missing(
                    "such a model folder holds tokenizer.json, or vocab.json and merges.txt; fetch them",
                ),
            }
        }
        Class::XlmRoberta | Class::AsItIs => missing(
            "no older file is read in its place; fetch it, or make it with transformers in Python: \
             AutoTokenizer.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)",
        ),
    }
}

/// The lines of a text file.
fn read_words(path: &Path) -> Result<Option<Vec<String>>, EncoderError> {
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

/// The tokens of a model with their ids.
fn vocabulary(model: &Value) -> Fields {
    match &model["vocab"] {
        Value::Object(tokens) => tokens.clone(),
        Value::Array(pieces) => {
            let named = pieces.iter().enumerate().filter_map(|(id, piece)| Some((piece[0].as_str()?, id)));
            named.map(|(piece, id)| (piece.to_owned(), json!(id))).collect()
        }
        _ => Fields::new(),
    }
}

fn added_of(definition: &Value) -> Vec<Value> {
    definition["added_tokens"].as_array().cloned().unwrap_or_default()
}

/// The text of a token, given as itself or with what is said of it.
fn text_of(token: &Value) -> Option<String> {
    token.as_str().or_else(|| token["content"].as_str()).map(String::from)
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
