//! Texts to token ids, exactly as transformers' fast tokenizers do it.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

use contaccum_files::{ContentHash, ContentHasher, write_json};
use serde_json::{Map, Value, json};
use tokenizers::{ModelWrapper, Tokenizer};

use crate::{EncoderError, TokenSequence, error::one_line};
use classes::{BERT_TOKENS, Class, Fields, python_class, word_piece};
use cutting::{Cutter, Tokens};
use definition::Definition;
use frame::Frame;
use guard::guarded;

mod charsmap;
mod classes;
mod components;
mod cutting;
mod definition;
mod frame;
mod guard;
mod places;
mod runs;
mod traits;

/// How a passage's title and text become one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PassageFormat {
    /// A segment pair: `[CLS] title [SEP] text [SEP]`, the text with token type 1 where the model has types.
    Pair,
    /// One segment: `[CLS] title text [SEP]`.
    Joined,
}

impl PassageFormat {
    /// The name used in recipes, flags and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pair => "pair",
            Self::Joined => "joined",
        }
    }
}

/// The tokenizer of a model. Every method takes `&self` and may be called from many threads.
#[derive(Clone, Debug)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    cutter: Cutter,
    frame: Frame,
    /// Special tokens by role, such as `pad_token`.
    names: BTreeMap<String, String>,
    vocabulary_size: usize,
    token_types: usize,
}

impl TextTokenizer {
    /// Reads the tokenizer of a model folder as transformers does: `tokenizer.json`, `vocab.txt`, or `vocab.json` and
    /// `merges.txt`, with the class, the flags and the added tokens of `tokenizer_config.json`; where that names a class
    /// that builds its own tokenizer (BERT's, DistilBERT's, MPNet's, RoBERTa's, XLM-R's), or none and the model is of
    /// such a type, the vocabulary alone is taken from `tokenizer.json`, and a warning told where the two disagree.
    ///
    /// Truncation and padding stored in `tokenizer.json` are ignored. Where `sentence_bert_config.json` asks for
    /// `do_lower_case`, texts are lower-cased first.
    ///
    /// # Errors
    /// When no such file is there, or the one that is makes no tokenizer, has a component that is not let through or
    /// puts no special token around a text.
    pub fn from_folder(folder: &Path) -> Result<Self, EncoderError> {
        Self::from_definition(definition::read(folder)?)
    }

    /// A lower-casing BERT WordPiece tokenizer of these words (continuations start with `##`), after the special
    /// tokens `[PAD]` = 0, `[UNK]`, `[CLS]`, `[SEP]`, `[MASK]`.
    ///
    /// # Errors
    /// When a word comes twice or is a special token.
    pub fn from_vocabulary(words: Vec<String>) -> Result<Self, EncoderError> {
        let place = "vocabulary";
        let special = BERT_TOKENS.map(|(_, token)| token);
        let mut seen: HashSet<&str> = special.into();
        if let Some(word) = words.iter().find(|word| !seen.insert(word)) {
            let what = format!("the word {word:?} comes twice; give each word once, without special tokens");
            return Err(EncoderError::Tokenizer { place: place.into(), what });
        }
        let tokens = special.into_iter().map(String::from).chain(words);
        let vocabulary: Fields = tokens.enumerate().map(|(id, token)| (token, json!(id))).collect();
        let frame = [("[CLS]", 2), ("[SEP]", 3)];
        let model = word_piece(vocabulary, "[UNK]");
        let mut tokenizer = Class::Bert.build(model, &Value::Null, &Map::new(), frame);
        let added = special.iter().enumerate().map(|(id, token)| {
            json!({ "id": id, "content": token, "special": true, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false })
        });
        tokenizer["added_tokens"] = added.collect();
        let names = BERT_TOKENS.map(|(role, token)| (role.to_owned(), token.to_owned())).into();
        Self::from_definition(Definition { place: place.into(), tokenizer, names, types: true })
    }

    fn from_definition(definition: Definition) -> Result<Self, EncoderError> {
        let Definition { place, tokenizer: definition, names, types } = definition;
        let refuse = |what: String| EncoderError::Tokenizer { place: place.clone(), what };
        let traits = components::check(&definition).map_err(refuse)?;
        let text = definition.to_string();
        let tokenizer = guarded(|| Tokenizer::from_bytes(&text).map_err(|reason| reason.to_string()))
            .map_err(|reason| {
                refuse(one_line(&format!("not a tokenizer that can be read: {reason}; fetch it again")))
            })?;
        let frame = Frame::of(&tokenizer, types).map_err(refuse)?;
        let largest_id = tokenizer.get_vocab(true).into_values().max().unwrap_or_default();
        let cutter = Cutter::new(&tokenizer, traits);
        let vocabulary_size = largest_id.max(frame.largest_id()) as usize + 1;
        let token_types = if types { 2 } else { 1 };
        let tokenizer = Self { tokenizer, cutter, frame, names, vocabulary_size, token_types };
        tokenizer.try_out().map_err(refuse)?;
        Ok(tokenizer)
    }

    /// The tokenizer for a model with this many token types: with one, or none, all tokens are of type 0.
    pub(crate) fn with_token_types(self, token_types: usize) -> Self {
        Self { token_types: token_types.clamp(1, self.token_types), ..self }
    }

    /// Tokenises texts of every kind, so that what cannot work is known before a long run and not in its middle.
    fn try_out(&self) -> Result<(), String> {
        let long = "w".repeat(300);
        let texts = [
            "a",
            "The 2 cats, 1,234.56 €",
            "naïve e\u{301} ﬁ ﷺ 한글 東京。😀\u{200d}",
            " \t\r\n\u{0}\u{fffd} ",
            &long,
        ];
        texts.iter().try_for_each(|text| {
            let tried = self.tokens(text).first(usize::MAX).map(|_| ());
            tried.map_err(|reason| format!("fails on the text {reason}; use another tokenizer"))
        })
    }

    /// The text between its special tokens (`[CLS] text [SEP]`), cut to `max_length` tokens.
    ///
    /// # Errors
    /// When `max_length` is below [`TextTokenizer::shortest_query`].
    pub fn query(&self, text: &str, max_length: usize) -> Result<TokenSequence, EncoderError> {
        self.sequence(text, None, max_length)
    }

    /// A passage in the given format, cut to `max_length` tokens: of a pair the longer segment is cut first. An empty
    /// title leaves the text as a single segment.
    ///
    /// # Errors
    /// When `max_length` is below [`TextTokenizer::shortest_passage`].
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

    /// The shortest that queries can be cut to: one token between the special ones.
    pub fn shortest_query(&self) -> usize {
        self.shortest(1)
    }

    /// The shortest that passages in this format can be cut to: RoBERTa's kind has four special tokens in a pair.
    pub fn shortest_passage(&self, format: PassageFormat) -> usize {
        self.shortest(match format {
            PassageFormat::Pair => 2,
            PassageFormat::Joined => 1,
        })
    }

    fn shortest(&self, segments: usize) -> usize {
        (self.frame.tokens(1) + 1).max(self.frame.tokens(segments))
    }

    /// Rows an embedding table needs for this tokenizer: one more than its largest id.
    pub fn vocabulary_size(&self) -> usize {
        self.vocabulary_size
    }

    /// Hash of everything that decides the tokens of a text, whatever files it was read from; of how tokens become a
    /// text again nothing.
    pub fn fingerprint(&self) -> ContentHash {
        let whole = json!(self.tokenizer);
        let deciding = ["added_tokens", "normalizer", "pre_tokenizer", "model"].map(|part| &whole[part]);
        // Of BERT's frame the two tokens alone, as versions did that knew no other.
        let parts = match (self.frame.is_bert(), self.frame.around()) {
            (true, [cls, sep]) => json!([deciding, cls[0], sep[0], self.token_types]),
            (false, _) => json!([deciding, self.frame, self.token_types]),
        };
        ContentHasher::of(parts.to_string().as_bytes())
    }

    /// Writes `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json` and, for WordPiece, `vocab.txt`.
    /// `max_length` is the longest sequence, recorded for other readers.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, folder: &Path, max_length: usize) -> Result<(), EncoderError> {
        // What is no added token is not named, lest a reader makes it one; padding is always asked for.
        let added = self.tokenizer.get_added_tokens_decoder();
        let is_added = |name: &str| added.values().any(|token| token.content == name);
        let named = self.names.iter().filter(|(role, token)| *role == "pad_token" || is_added(token));
        let mut tokens: Map<String, Value> =
            named.map(|(role, token)| (role.clone(), token.as_str().into())).collect();
        if let Some(pad) = self.padding_token() {
            tokens.entry("pad_token").or_insert(pad.into());
        }
        let mut config = tokens.clone();
        config.insert("model_max_length".into(), json!(max_length));
        let types = self.token_types > 1;
        let inputs = ["input_ids", "token_type_ids", "attention_mask"];
        let inputs: Vec<_> = inputs.into_iter().filter(|name| types || *name != "token_type_ids").collect();
        config.insert("model_input_names".into(), json!(inputs));
        config.extend(python_class(&json!(self.tokenizer), self.frame.is_bert()));
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

    /// A token to pad with where the folder names none; it is masked, so that any would do.
    fn padding_token(&self) -> Option<String> {
        let known = ["[PAD]", "<pad>"].into_iter().find(|token| self.tokenizer.token_to_id(token).is_some());
        let last = || self.tokenizer.id_to_token(*self.frame.around().concat().last()?);
        known.map(String::from).or_else(last)
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
        let least = self.shortest(if second.is_some() { 2 } else { 1 });
        if max_length < least {
            return Err(EncoderError::MaxLengthTooSmall { max_length, least });
        }
        let framed = match second {
            None => self.single(first, max_length),
            Some(second) => self.pair(first, second, max_length),
        };
        framed.map_err(|what| EncoderError::Tokenizer { place: "text".into(), what })
    }

    fn tokens<'t>(&'t self, text: &'t str) -> Tokens<'t> {
        Tokens::new(&self.tokenizer, &self.cutter, text)
    }

    fn single(&self, text: &str, max_length: usize) -> Result<TokenSequence, String> {
        let mut tokens = self.tokens(text);
        let ids = self.frame.of_one(tokens.first(max_length - self.frame.tokens(1))?);
        Ok(TokenSequence { second_segment: ids.len(), ids })
    }

    fn pair(&self, first: &str, second: &str, max_length: usize) -> Result<TokenSequence, String> {
        let room = max_length - self.frame.tokens(2);
        let (mut first, mut second) = (self.tokens(first), self.tokens(second));
        // One token more than there is room for tells that there are too many.
        let most = room.saturating_add(1);
        let lengths = (first.first(most)?.len(), second.first(most)?.len());
        let longer = match lengths.0.min(lengths.1) > room && !room.is_multiple_of(2) {
            true => first.longer_than(&mut second)?,
            false => lengths.0 > lengths.1,
        };
        let (of_first, of_second) = share(room, lengths, longer);
        let (ids, second_segment) = self.frame.of_two(first.first(of_first)?, second.first(of_second)?);
        let second_segment = if self.token_types > 1 { second_segment } else { ids.len() };
        Ok(TokenSequence { ids, second_segment })
    }
}

/// How many tokens of each segment fit, as transformers' `longest_first` decides: the longer one is cut first; where
/// both are longer than half the room they share it, and of an odd one the longer segment gets the token over. At the
/// same length that is the second. `lengths` above `room` may be counted as `room + 1`.
fn share(room: usize, lengths: (usize, usize), first_is_longer: bool) -> (usize, usize) {
    let (shorter, longer) = (lengths.0.min(lengths.1), lengths.0.max(lengths.1));
    let (shorter, longer) = if shorter.saturating_add(longer) <= room {
        (shorter, longer)
    } else if 2 * shorter <= room {
        (shorter, room - shorter)
    } else {
        (room / 2, room.div_ceil(2))
    };
    if first_is_longer { (longer, shorter) } else { (shorter, longer) }
}
