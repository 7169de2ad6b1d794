//! Texts to token ids, exactly as transformers' fast tokenizers do it.

use std::{collections::HashSet, path::Path};

use contaccum_files::{ContentHash, ContentHasher, write_json};
use serde_json::{Map, Value, json};
use tokenizers::{ModelWrapper, Tokenizer, processors::bert::BertProcessing};

use crate::{EncoderError, TokenSequence, error::one_line};
use cutting::{Cutter, Tokens};
use definition::word_piece;
use guard::guarded;

mod components;
mod cutting;
mod definition;
mod guard;

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

impl PassageFormat {
    /// The name used in recipes, flags and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pair => "pair",
            Self::Joined => "joined",
        }
    }
}

/// A BERT tokenizer. Every method takes `&self` and may be called from many threads.
#[derive(Clone, Debug)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    cutter: Cutter,
    cls: u32,
    sep: u32,
    vocabulary_size: usize,
    token_types: usize,
}

impl TextTokenizer {
    /// Reads the tokenizer of a model folder as transformers does: `tokenizer.json` or `vocab.txt`, with the class,
    /// the flags and the added tokens of `tokenizer_config.json`; where that names BERT's class or none, the vocabulary
    /// alone is taken from `tokenizer.json`, and a warning told where the two disagree.
    ///
    /// Truncation and padding stored in `tokenizer.json` are ignored. Where `sentence_bert_config.json` asks for
    /// `do_lower_case`, texts are lower-cased first.
    ///
    /// # Errors
    /// When neither file is there, or the one that is does not make a BERT tokenizer or has a component that is not
    /// let through.
    pub fn from_folder(folder: &Path) -> Result<Self, EncoderError> {
        let (place, definition) = definition::read(folder)?;
        Self::from_definition(&place, &definition)
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
        let vocabulary = tokens.enumerate().map(|(id, token)| (token, json!(id))).collect();
        Self::from_definition(place, &word_piece(vocabulary, &Map::new()))
    }

    /// A tokenizer from the content of a `tokenizer.json`.
    fn from_definition(place: &str, definition: &Value) -> Result<Self, EncoderError> {
        let refuse = |what: String| EncoderError::Tokenizer { place: place.into(), what };
        let traits = components::check(definition).map_err(refuse)?;
        let text = definition.to_string();
        let mut tokenizer = guarded(|| Tokenizer::from_bytes(&text).map_err(|reason| reason.to_string()))
            .map_err(|reason| {
                refuse(one_line(&format!("not a tokenizer that can be read: {reason}; fetch it again")))
            })?;
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
        let cutter = Cutter::new(&tokenizer, traits);
        let vocabulary_size = largest_id as usize + 1;
        let tokenizer = Self { tokenizer, cutter, cls, sep, vocabulary_size, token_types: 2 };
        tokenizer.try_out().and_then(|()| tokenizer.check_frame()).map_err(refuse)?;
        Ok(tokenizer)
    }

    /// The tokenizer for a model with this many token types: with one, all tokens are of type 0.
    pub(crate) fn with_token_types(self, token_types: usize) -> Self {
        Self { token_types, ..self }
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

    /// Sequences are framed here, so that a length can be given with each; a file that frames otherwise is refused.
    fn check_frame(&self) -> Result<(), String> {
        let pair = ("a", "b");
        let theirs = guarded(|| self.tokenizer.encode_fast(pair, true).map_err(|reason| reason.to_string()))?;
        let ours = self.pair(pair.0, pair.1, usize::MAX)?;
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

    /// Hash of everything that decides the tokens of a text, whatever files it was read from: of the frame, which is
    /// always BERT's, and of how tokens become a text again nothing.
    pub fn fingerprint(&self) -> ContentHash {
        let whole = json!(self.tokenizer);
        let deciding = ["added_tokens", "normalizer", "pre_tokenizer", "model"].map(|part| &whole[part]);
        ContentHasher::of(json!([deciding, self.cls, self.sep, self.token_types]).to_string().as_bytes())
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
        let names = ["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"];
        let named = names.into_iter().zip(SPECIAL_TOKENS);
        let named = named.filter(|(role, token)| *role == "pad_token" || is_added(token));
        let tokens: Map<String, Value> = named.map(|(role, token)| (role.into(), token.into())).collect();
        let mut config = tokens.clone();
        config.insert("model_max_length".into(), json!(max_length));
        config.extend(definition::python_class(&json!(self.tokenizer)));
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
        let ids = self.framed([tokens.first(max_length - 2)?]);
        Ok(TokenSequence { second_segment: ids.len(), ids })
    }

    fn pair(&self, first: &str, second: &str, max_length: usize) -> Result<TokenSequence, String> {
        let room = max_length - 3;
        let (mut first, mut second) = (self.tokens(first), self.tokens(second));
        // One token more than there is room for tells that there are too many.
        let most = room.saturating_add(1);
        let lengths = (first.first(most)?.len(), second.first(most)?.len());
        let longer = match lengths.0.min(lengths.1) > room && !room.is_multiple_of(2) {
            true => first.longer_than(&mut second)?,
            false => lengths.0 > lengths.1,
        };
        let (of_first, of_second) = share(room, lengths, longer);
        let ids = self.framed([first.first(of_first)?, second.first(of_second)?]);
        let second_segment = if self.token_types > 1 { of_first + 2 } else { ids.len() };
        Ok(TokenSequence { ids, second_segment })
    }

    /// `[CLS] a [SEP] b [SEP]`.
    fn framed<const SEGMENTS: usize>(&self, segments: [&[u32]; SEGMENTS]) -> Vec<u32> {
        let mut ids = Vec::with_capacity(1 + segments.iter().map(|segment| segment.len() + 1).sum::<usize>());
        ids.push(self.cls);
        for segment in segments {
            ids.extend_from_slice(segment);
            ids.push(self.sep);
        }
        ids
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
