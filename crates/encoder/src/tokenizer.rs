//! Texts to token ids, exactly as transformers' fast tokenizers do it.

use std::{collections::HashSet, path::Path};

use contaccum_files::{parse_json, read_if_there, read_json_if_there, write_json};
use serde_json::{Map, Value, json};
use tokenizers::{
    Encoding, ModelWrapper, Tokenizer,
    processors::bert::BertProcessing,
    utils::truncation::{TruncationParams, truncate_encodings},
};

use crate::{EncoderError, TokenSequence, error::one_line};

/// The tokens every BERT vocabulary sets apart, in the order a vocabulary of ours opens with.
const SPECIAL_TOKENS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// How a passage's title and text become one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PassageFormat {
    /// A segment pair: `[CLS] title [SEP] text [SEP]`, the text with token type 1.
    Pair,
    /// One segment: `[CLS] title text [SEP]`.
    Joined,
}

/// A BERT tokenizer. Every method takes `&self` and may be called from many threads.
#[derive(Clone, Debug)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    cls: u32,
    sep: u32,
    vocabulary_size: usize,
}

impl TextTokenizer {
    /// Reads the tokenizer of a model folder: `tokenizer.json`, or else `vocab.txt` as BERT's WordPiece with the
    /// flags of `tokenizer_config.json` (lower-casing where nothing is said, as in transformers).
    ///
    /// Truncation and padding stored in `tokenizer.json` are ignored. Where `sentence_bert_config.json` asks for
    /// `do_lower_case`, texts are lower-cased first.
    ///
    /// # Errors
    /// When neither file is there, or the one that is does not make a BERT tokenizer.
    pub fn from_folder(folder: &Path) -> Result<Self, EncoderError> {
        let tokenizer_path = folder.join("tokenizer.json");
        let vocabulary_path = folder.join("vocab.txt");
        let (path, mut definition) = if let Some(bytes) = read_if_there(&tokenizer_path)? {
            let definition = parse_json(&tokenizer_path, &bytes)?;
            (tokenizer_path, definition)
        } else if let Some(bytes) = read_if_there(&vocabulary_path)? {
            let vocabulary = String::from_utf8_lossy(&bytes);
            let flags = read_json_if_there(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
            let definition = word_piece(vocabulary.lines().map(String::from).enumerate(), &flags);
            (vocabulary_path, definition)
        } else {
            return Err(EncoderError::FileMissing {
                path: tokenizer_path,
                remedy: "a model folder holds tokenizer.json or vocab.txt; fetch one of them".into(),
            });
        };
        let wrapper: Map<String, Value> =
            read_json_if_there(&folder.join("sentence_bert_config.json"))?.unwrap_or_default();
        if wrapper.get("do_lower_case") == Some(&Value::Bool(true)) {
            lower_case_first(&mut definition);
        }
        Self::from_definition(&path.display().to_string(), &definition)
    }

    /// A lower-casing BERT WordPiece tokenizer of these words (continuations start with `##`), after the special
    /// tokens `[PAD]` = 0, `[UNK]`, `[CLS]`, `[SEP]`, `[MASK]`.
    ///
    /// # Errors
    /// When a word comes twice or is a special token.
    pub fn from_vocabulary(words: Vec<String>) -> Result<Self, EncoderError> {
        let place = "vocabulary";
        let mut seen: HashSet<&str> = SPECIAL_TOKENS.into();
        if let Some(word) = words.iter().find(|word| !seen.insert(word)) {
            let what = format!("the word {word:?} comes twice; give each word once, without special tokens");
            return Err(EncoderError::Tokenizer { place: place.into(), what });
        }
        let tokens = SPECIAL_TOKENS.into_iter().map(String::from).chain(words);
        Self::from_definition(place, &word_piece(tokens.enumerate(), &Map::new()))
    }

    /// A tokenizer from the content of a `tokenizer.json`.
    fn from_definition(place: &str, definition: &Value) -> Result<Self, EncoderError> {
        let refuse = |what: String| EncoderError::Tokenizer { place: place.into(), what };
        let mut tokenizer = Tokenizer::from_bytes(definition.to_string()).map_err(|reason| {
            refuse(one_line(&format!("not a tokenizer that can be read: {reason}; fetch it again")))
        })?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|reason| refuse(reason.to_string()))?;
        let mut ids = [0; SPECIAL_TOKENS.len()];
        for (id, token) in ids.iter_mut().zip(SPECIAL_TOKENS) {
            *id = tokenizer.token_to_id(token).ok_or_else(|| {
                refuse(format!(
                    "has no token {token}; use a BERT tokenizer, with {}",
                    SPECIAL_TOKENS.join(" ")
                ))
            })?;
        }
        let [_, _, cls, sep, _] = ids;
        if tokenizer.get_post_processor().is_none() {
            // Framing is ours, but who reads the saved file needs it there.
            let frame = BertProcessing::new(("[SEP]".into(), sep), ("[CLS]".into(), cls));
            tokenizer.with_post_processor(Some(frame));
        }
        let largest_id = tokenizer.get_vocab(true).into_values().max().unwrap_or_default();
        let tokenizer = Self { tokenizer, cls, sep, vocabulary_size: largest_id as usize + 1 };
        tokenizer.check_frame().map_err(refuse)?;
        Ok(tokenizer)
    }

    /// Sequences are framed here, so that a length can be given with each; a file that frames otherwise is refused.
    fn check_frame(&self) -> Result<(), String> {
        let encode = |texts: (&str, &str)| self.tokenizer.encode_fast(texts, true).map_err(|e| e.to_string());
        let theirs = encode(("a", "b"))?;
        let ours = self.frame(self.segment("a")?, Some(self.segment("b")?), usize::MAX)?;
        let types = theirs.get_type_ids().iter().enumerate();
        let same_types = types.into_iter().all(|(i, &kind)| kind == u32::from(i >= ours.second_segment));
        if theirs.get_ids() == ours.ids && same_types {
            Ok(())
        } else {
            Err("does not frame a pair as [CLS] a [SEP] b [SEP]; use a BERT tokenizer".into())
        }
    }

    /// `[CLS] text [SEP]`, cut to `max_length` tokens.
    ///
    /// # Errors
    /// When `max_length` is below 3.
    pub fn query(&self, text: &str, max_length: usize) -> Result<TokenSequence, EncoderError> {
        self.sequence(text, None, max_length)
    }

    /// A passage in the given format, cut to `max_length` tokens: of a pair the longer segment is cut first. An empty
    /// title leaves the text as a single segment.
    ///
    /// # Errors
    /// When `max_length` is below 3.
    pub fn passage(
        &self,
        title: &str,
        text: &str,
        format: PassageFormat,
        max_length: usize,
    ) -> Result<TokenSequence, EncoderError> {
        if title.is_empty() {
            return self.sequence(text, None, max_length);
        }
        match format {
            PassageFormat::Pair => self.sequence(title, Some(text), max_length),
            PassageFormat::Joined => self.sequence(&format!("{title} {text}"), None, max_length),
        }
    }

    /// Rows an embedding table needs for this tokenizer: one more than its largest id.
    pub fn vocabulary_size(&self) -> usize {
        self.vocabulary_size
    }

    /// Writes `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json` and, for WordPiece, `vocab.txt`.
    /// `max_length` is the longest sequence, recorded for other readers.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, folder: &Path, max_length: usize) -> Result<(), EncoderError> {
        let names = ["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"];
        let tokens: Map<String, Value> =
            names.into_iter().map(String::from).zip(SPECIAL_TOKENS.map(Value::from)).collect();
        let mut config = tokens.clone();
        config.insert("model_max_length".into(), json!(max_length));
        config.extend(self.python_class());
        write_json(&folder.join("tokenizer.json"), &self.tokenizer)?;
        write_json(&folder.join("tokenizer_config.json"), &config)?;
        write_json(&folder.join("special_tokens_map.json"), &tokens)?;
        if let Some(lines) = self.vocabulary_lines() {
            contaccum_files::write(&folder.join("vocab.txt"), |file| {
                std::io::Write::write_all(file, lines.as_bytes())
            })?;
        }
        Ok(())
    }

    /// The class and flags by which transformers rebuilds this tokenizer. `BertTokenizer` rebuilds its normalizer from
    /// the flags, so anything but BERT's own goes by `tokenizer.json` alone.
    fn python_class(&self) -> Map<String, Value> {
        let normalizer = json!(self.tokenizer.get_normalizer());
        let fields = if normalizer["type"] == "BertNormalizer" && normalizer["clean_text"] == true {
            json!({
                "tokenizer_class": "BertTokenizer",
                "do_lower_case": normalizer["lowercase"],
                "strip_accents": normalizer["strip_accents"],
                "tokenize_chinese_chars": normalizer["handle_chinese_chars"],
            })
        } else {
            json!({ "tokenizer_class": "PreTrainedTokenizerFast" })
        };
        let Value::Object(fields) = fields else { unreachable!("both are objects") };
        fields
    }

    /// The content of `vocab.txt`, where the model is WordPiece and has a token for every id.
    fn vocabulary_lines(&self) -> Option<String> {
        let ModelWrapper::WordPiece(_) = self.tokenizer.get_model() else { return None };
        let line = |id| self.tokenizer.id_to_token(id).map(|token| token + "\n");
        (0..self.vocabulary_size as u32).map(line).collect()
    }

    fn sequence(
        &self,
        first: &str,
        second: Option<&str>,
        max_length: usize,
    ) -> Result<TokenSequence, EncoderError> {
        if max_length < 3 {
            return Err(EncoderError::MaxLengthTooSmall { max_length });
        }
        let framed = || {
            let second = second.map(|text| self.segment(text)).transpose()?;
            self.frame(self.segment(first)?, second, max_length)
        };
        framed().map_err(|what| EncoderError::Tokenizer { place: "text".into(), what })
    }

    fn segment(&self, text: &str) -> Result<Encoding, String> {
        self.tokenizer.encode_fast(text, false).map_err(|reason| reason.to_string())
    }

    /// Cuts the segments, the longest first, and puts the special tokens around them.
    fn frame(
        &self,
        first: Encoding,
        second: Option<Encoding>,
        max_length: usize,
    ) -> Result<TokenSequence, String> {
        let special = if second.is_some() { 3 } else { 2 };
        let room = TruncationParams { max_length: max_length - special, ..TruncationParams::default() };
        let (first, second) =
            truncate_encodings(first, second, &room).map_err(|reason| reason.to_string())?;
        let mut ids = vec![self.cls];
        ids.extend_from_slice(first.get_ids());
        ids.push(self.sep);
        let second_segment = ids.len();
        if let Some(second) = second {
            ids.extend_from_slice(second.get_ids());
            ids.push(self.sep);
        }
        Ok(TokenSequence { ids, second_segment })
    }
}

/// The `tokenizer.json` of a BERT WordPiece tokenizer, with the flags of a `tokenizer_config.json`.
fn word_piece(tokens: impl Iterator<Item = (usize, String)>, flags: &Map<String, Value>) -> Value {
    let vocabulary: Map<String, Value> = tokens.map(|(id, token)| (token, json!(id))).collect();
    let flag = |name: &str, default: Value| flags.get(name).cloned().unwrap_or(default);
    let id = |token: &str| vocabulary.get(token).cloned().unwrap_or_default();
    let special = SPECIAL_TOKENS.into_iter().filter(|token| vocabulary.contains_key(*token)).map(|token| {
        json!({ "id": id(token), "content": token, "special": true,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false })
    });
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

/// Puts lower-casing before the normalizer, unless that lower-cases by itself.
fn lower_case_first(definition: &mut Value) {
    let normalizer = definition["normalizer"].take();
    let lower_cases = normalizer["lowercase"] == true;
    definition["normalizer"] = match normalizer {
        Value::Null => json!({ "type": "Lowercase" }),
        own if lower_cases => own,
        own => json!({ "type": "Sequence", "normalizers": [{ "type": "Lowercase" }, own] }),
    };
}
