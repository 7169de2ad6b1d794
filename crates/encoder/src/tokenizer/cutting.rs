//! The first tokens of a text, at a cost that follows how many are wanted and not how long the text is.
//!
//! A text is tokenised in pieces, until there are enough tokens. A piece ends where the tokenizer is context free, so
//! that the tokens of the pieces, one after the other, are those of the whole text:
//!
//! * before a blank, where blanks part words and no added token holds one;
//! * with BERT's normalizer and pre-tokenizer also before punctuation and Chinese characters, which are words of their
//!   own, where no added token lies across;
//! * a run without such a place is shortened where WordPiece calls its words unknown anyway: of characters in a row that
//!   part no word, more than a word may have, as many are kept as make the word too long and cover any added token;
//!   so it is done with characters in a row of which the normalizer leaves nothing.
//!
//! Where none of this holds a text is tokenised whole, up to [`LONGEST_UNCUT_BYTES`]; more is an error.

use std::collections::HashMap;

use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Tokenizer,
};

use super::{components::Traits, guard::guarded};
use crate::error::one_line;

/// What is tokenised at once: a few hundred words.
const PIECE_BYTES: usize = 4 << 10;
/// The longest piece in which no place to cut is found; its tokens take about a hundred times the memory.
pub(super) const LONGEST_UNCUT_BYTES: usize = 1 << 20;
/// With more added tokens it is not looked at which of them lie across a place.
const MOST_ADDED_TOKENS: usize = 256;

/// Where the texts of a tokenizer may be cut.
#[derive(Clone, Debug)]
pub(super) struct Cutter {
    piece_bytes: usize,
    longest_uncut_bytes: usize,
    places: Places,
}

#[derive(Clone, Debug)]
enum Places {
    Nowhere,
    Blanks,
    /// Blanks, punctuation and perhaps Chinese characters, none of these inside an added token.
    Words {
        chinese: bool,
        added: Vec<String>,
        kept_of_a_run: Option<usize>,
    },
}

impl Cutter {
    pub(super) fn new(tokenizer: &Tokenizer, traits: Traits) -> Self {
        Self {
            piece_bytes: PIECE_BYTES,
            longest_uncut_bytes: LONGEST_UNCUT_BYTES / traits.growth,
            places: Places::new(tokenizer, traits),
        }
    }
}

impl Places {
    fn new(tokenizer: &Tokenizer, traits: Traits) -> Self {
        let added: Vec<_> = tokenizer.get_added_tokens_decoder().into_values().collect();
        // An added token is looked for in the text as it is, or as the normalizer leaves it.
        let has_blank = |token: &tokenizers::AddedToken| {
            let mut pattern = NormalizedString::from(token.content.as_str());
            if token.normalized
                && let Some(normalizer) = tokenizer.get_normalizer()
                && guarded(|| normalizer.normalize(&mut pattern).map_err(|reason| reason.to_string()))
                    .is_err()
            {
                return true;
            }
            pattern.get().contains(char::is_whitespace) || token.content.contains(char::is_whitespace)
        };
        if !traits.splits_at_blanks || added.iter().any(has_blank) {
            return Self::Nowhere;
        }
        let plain = added.len() <= MOST_ADDED_TOKENS && !added.iter().any(|t| t.normalized || t.single_word);
        let Some(bert) = traits.bert.filter(|_| plain) else { return Self::Blanks };
        let added: Vec<String> = added.into_iter().map(|token| token.content).collect();
        let longest = added.iter().map(String::len).max().unwrap_or_default();
        let parts_no_word = |token: &String| within_word(tokenizer, token) != Within::Parts;
        let kept_of_a_run = bert
            .word_chars
            .filter(|_| !added.iter().any(parts_no_word))
            .map(|chars| chars.saturating_add(1).saturating_add(longest));
        Self::Words { chinese: bert.chinese_apart, added, kept_of_a_run }
    }

    /// Whether a text may be cut before byte `at`, which lies between two characters.
    fn allow(&self, text: &str, at: usize) -> bool {
        let Some(next) = text[at..].chars().next() else { return true };
        let blank = is_blank(next);
        match self {
            Self::Nowhere => false,
            Self::Blanks => blank,
            Self::Words { chinese, added, .. } => {
                let word = next.is_ascii_punctuation()
                    || matches!(next, '、' | '。' | '！' | '，' | '？')
                    || (*chinese && matches!(next, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'));
                blank
                    || (word && !added.iter().any(|token| lies_across(text.as_bytes(), token.as_bytes(), at)))
            }
        }
    }
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// Whether `token` stands in `text` from before `at` to behind it.
fn lies_across(text: &[u8], token: &[u8], at: usize) -> bool {
    let first = (at + 1).saturating_sub(token.len());
    (first..at).any(|start| text[start..].starts_with(token))
}

/// The tokens of one text, made as they are asked for.
pub(super) struct Tokens<'t> {
    tokenizer: &'t Tokenizer,
    cutter: &'t Cutter,
    text: &'t str,
    rest: &'t str,
    ids: Vec<u32>,
    counted: usize,
}

impl<'t> Tokens<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer, cutter: &'t Cutter, text: &'t str) -> Self {
        Self { tokenizer, cutter, text, rest: text, ids: Vec::new(), counted: 0 }
    }

    /// The first `most` tokens, or all where there are fewer; a later call may ask for fewer, not for more.
    pub(super) fn first(&mut self, most: usize) -> Result<&[u32], String> {
        while self.counted < most && !self.rest.is_empty() {
            self.step(most)?;
        }
        Ok(&self.ids[..self.ids.len().min(most)])
    }

    /// Whether this text has more tokens than `other`, counted no further than it takes to know.
    pub(super) fn longer_than(&mut self, other: &mut Self) -> Result<bool, String> {
        loop {
            let (ahead, all, others) =
                (self.counted > other.counted, self.rest.is_empty(), other.rest.is_empty());
            match (ahead, all, others) {
                (true, _, true) => return Ok(true),
                (false, true, _) => return Ok(false),
                (true, _, false) => other.step(0)?,
                (false, false, _) => self.step(0)?,
            }
        }
    }

    /// Tokenises the next piece; ids beyond the first `keep` are counted alone.
    fn step(&mut self, keep: usize) -> Result<(), String> {
        let mut shortened = String::new();
        let (piece, rest) = self
            .cutter
            .next_piece(self.tokenizer, self.rest, &mut shortened)
            .map_err(|what| self.named(&what))?;
        let encode = || self.tokenizer.encode_fast(piece, false).map_err(|reason| reason.to_string());
        let encoding = guarded(encode).map_err(|what| self.named(&what))?;
        self.rest = rest;
        self.counted += encoding.len();
        let room = keep.saturating_sub(self.ids.len());
        self.ids.extend(encoding.get_ids().iter().take(room));
        Ok(())
    }

    /// What is wrong, behind the words with which the text begins.
    fn named(&self, what: &str) -> String {
        let start: String = self.text.chars().take(40).collect();
        one_line(&format!("{start:?}: {what}"))
    }
}

impl Cutter {
    /// The next piece of a text that is not empty, and what comes behind it. A run without a place to cut is shortened
    /// into `shortened`.
    fn next_piece<'t: 's, 's>(
        &self,
        tokenizer: &Tokenizer,
        text: &'t str,
        shortened: &'s mut String,
    ) -> Result<(&'s str, &'t str), String> {
        if text.len() <= self.piece_bytes {
            return Ok((text, ""));
        }
        if matches!(self.places, Places::Nowhere) {
            return self.bounded(text).map(|text| (text, ""));
        }
        // Blanks make no tokens here, and there may be megabytes of them.
        let text = text.trim_start_matches(is_blank);
        let near = text.floor_char_boundary(self.piece_bytes);
        let backwards = text[..near].char_indices().rev().map(|(at, _)| at).take_while(|at| *at > 0);
        if let Some(at) = std::iter::once(near).chain(backwards).find(|at| self.places.allow(text, *at)) {
            return Ok(text.split_at(at));
        }
        let onwards = text[near..].char_indices().map(|(at, _)| near + at);
        let end = onwards.skip(1).find(|at| self.places.allow(text, *at)).unwrap_or(text.len());
        let (run, rest) = text.split_at(end);
        let run = match &self.places {
            Places::Words { kept_of_a_run: Some(kept), .. } => {
                *shortened = shorten(tokenizer, run, *kept);
                shortened.as_str()
            }
            _ => run,
        };
        Ok((self.bounded(run)?, rest))
    }

    fn bounded<'p>(&self, piece: &'p str) -> Result<&'p str, String> {
        if piece.len() <= self.longest_uncut_bytes {
            return Ok(piece);
        }
        let (bytes, bound) = (piece.len(), self.longest_uncut_bytes);
        Err(format!(
            "it holds {bytes} bytes without a place where this tokenizer allows a cut, of {bound} at most; \
             put blanks between its words or leave it out"
        ))
    }
}

/// What a text does inside a word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    /// It parts the word, or is no part of it.
    Parts,
    /// It makes the word longer.
    Lengthens,
    /// The normalizer leaves nothing of it.
    Vanishes,
}

/// What `part` does between two letters, by the tokenizer's own normalizer and pre-tokenizer.
fn within_word(tokenizer: &Tokenizer, part: &str) -> Within {
    let mut text = NormalizedString::from(format!("a{part}a"));
    let words = guarded(|| {
        let failed = |reason: tokenizers::Error| reason.to_string();
        tokenizer.get_normalizer().map_or(Ok(()), |n| n.normalize(&mut text)).map_err(failed)?;
        let mut words = PreTokenizedString::from(text);
        tokenizer.get_pre_tokenizer().map_or(Ok(()), |p| p.pre_tokenize(&mut words)).map_err(failed)?;
        let splits = words.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
        Ok(splits.into_iter().map(|(word, ..)| word.chars().count()).collect::<Vec<_>>())
    });
    match words.as_deref() {
        Ok([2]) => Within::Vanishes,
        Ok([longer]) if *longer > 2 => Within::Lengthens,
        _ => Within::Parts,
    }
}

/// A run with its rows shortened: first those of characters that vanish, then those of characters that part no word, of
/// which the first and the last `kept` that make it longer stay, with what vanishes between them.
fn shorten(tokenizer: &Tokenizer, run: &str, kept: usize) -> String {
    let mut known = HashMap::new();
    let mut within =
        |c: char| *known.entry(c).or_insert_with(|| within_word(tokenizer, c.encode_utf8(&mut [0; 4])));
    let vanish = |w: Within| w == Within::Vanishes;
    let both = |run: &[(char, Within)]| {
        let run = shorten_rows(run, vanish, vanish, kept);
        shorten_rows(&run, |w| w != Within::Parts, |w| w == Within::Lengthens, kept)
    };
    let (mut out, mut full) = (Vec::new(), PIECE_BYTES);
    for c in run.chars() {
        out.push((c, within(c)));
        // A row that was shortened and goes on is shortened to the same again.
        if out.len() == full {
            out = both(&out);
            full = full.max(2 * out.len());
        }
    }
    both(&out).into_iter().map(|(c, _)| c).collect()
}

/// Of each row of characters `of_row`, those up to the `kept`-th `counted` one, and those from the `kept`-th last on.
fn shorten_rows(
    run: &[(char, Within)],
    of_row: impl Fn(Within) -> bool,
    counted: impl Fn(Within) -> bool,
    kept: usize,
) -> Vec<(char, Within)> {
    let mut out = Vec::new();
    for row in run.chunk_by(|(_, one), (_, next)| of_row(*one) == of_row(*next)) {
        let places =
            || row.iter().enumerate().filter(|(_, (_, w))| of_row(*w) && counted(*w)).map(|(at, _)| at);
        let count = places().count();
        match (places().nth(kept), places().nth(count.saturating_sub(kept))) {
            (Some(head_end), Some(tail_start)) if count > 2 * kept => {
                out.extend_from_slice(&row[..head_end]);
                out.extend_from_slice(&row[tail_start..]);
            }
            _ => out.extend_from_slice(row),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
    use serde_json::{Value, json};

    use super::*;
    use crate::tokenizer::components;

    /// What texts are put together from: words, blanks of every kind, punctuation, marks, characters that normalizers
    /// drop, compose, decompose and widen, added tokens and parts of them.
    const PARTS: [&str; 47] = [
        "the",
        "cat",
        "s",
        "Un",
        "café",
        "cafe\u{301}",
        "É",
        " ",
        "  ",
        "\t",
        "\n",
        "\r\n",
        "\u{a0}",
        "\u{3000}",
        ".",
        ",",
        "!?",
        "-",
        "_",
        "<",
        "<\u{338}",
        "=",
        "中",
        "国",
        "、",
        "。",
        "カ\u{3099}",
        "한",
        "ﷺ",
        "ﬁ",
        "İ",
        "ß",
        "\u{301}",
        "\u{200d}",
        "\u{0}",
        "\u{fffd}",
        "😀",
        "[MASK]",
        "[MA",
        "SK]",
        "<new>",
        "ne",
        "0123456789",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}",
        "\u{200d}\u{fffd}\u{200d}\u{fffd}\u{200d}\u{fffd}\u{200d}\u{fffd}\u{200d}\u{fffd}\u{200d}\u{fffd}",
        "éeééeééeééeééeééeééeééeééeééeé",
    ];

    fn word_piece(word_chars: usize) -> Value {
        let tokens = [
            "[UNK]", "the", "cat", "##s", "un", "Un", "##cat", "##the", "cafe", "é", "e", "##e", ".", ",",
            "!", "?", "-", "_", "<", "=", "中", "国", "、", "。", "カ", "한", "f", "i", "s", "##i", "0",
            "##1", "a", "##a", "[", "]", "ma", "MA", "n",
        ];
        let vocabulary: serde_json::Map<String, Value> =
            tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect();
        json!({ "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": word_chars, "vocab": vocabulary })
    }

    fn tokenizer(normalizer: &Value, pre_tokenizer: &Value, added: &[Value]) -> (Tokenizer, Cutter) {
        let definition = json!({ "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": null,
            "model": word_piece(12) });
        let traits = components::check(&definition).unwrap();
        let tokenizer = Tokenizer::from_bytes(definition.to_string()).unwrap();
        let cutter = Cutter { piece_bytes: 24, ..Cutter::new(&tokenizer, traits) };
        (tokenizer, cutter)
    }

    fn added(id: u32, content: &str, [single_word, lstrip, rstrip, normalized]: [bool; 4]) -> Value {
        json!({ "id": id, "content": content, "special": !normalized, "single_word": single_word, "lstrip": lstrip,
            "rstrip": rstrip, "normalized": normalized })
    }

    fn text(generator: &mut ChaCha8Rng) -> String {
        (0..generator.random_range(0..120)).map(|_| PARTS[generator.random_range(0..PARTS.len())]).collect()
    }

    #[test]
    fn the_tokens_of_the_pieces_are_those_of_the_whole_text() {
        let bert = |lowercase: bool, chinese: bool| {
            json!({ "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": chinese,
                "strip_accents": null, "lowercase": lowercase })
        };
        let chain = json!({ "type": "Sequence", "normalizers": [{ "type": "NFKC" }, { "type": "Lowercase" },
            { "type": "Strip", "strip_left": true, "strip_right": true }] });
        let normalizers = [
            Value::Null,
            bert(true, true),
            bert(false, true),
            bert(true, false),
            chain,
            json!({ "type": "Nmt" }),
        ];
        let sequence = json!({ "type": "Sequence", "pretokenizers": [
            { "type": "Punctuation", "behavior": "MergedWithNext" }, { "type": "WhitespaceSplit" },
            { "type": "Digits", "individual_digits": true }] });
        let pre_tokenizers = [
            json!({ "type": "BertPreTokenizer" }),
            json!({ "type": "Whitespace" }),
            json!({ "type": "WhitespaceSplit" }),
            json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true }),
            sequence,
        ];
        let plain = [false; 4];
        let vocabularies = [
            vec![],
            vec![added(40, "[MASK]", plain), added(41, "<new>", plain)],
            vec![added(40, "[MASK]", [false, true, true, false]), added(41, "[MA", plain)],
            vec![added(40, "ne", [true, false, false, false]), added(41, "Cat", [false, false, false, true])],
            vec![added(40, "a", plain), added(41, "the cat", plain)],
            vec![added(40, "中", [false, false, false, true])],
        ];
        let mut generator = ChaCha8Rng::seed_from_u64(7);
        for normalizer in &normalizers {
            for pre_tokenizer in &pre_tokenizers {
                for added in &vocabularies {
                    let (tokenizer, cutter) = tokenizer(normalizer, pre_tokenizer, added);
                    for _ in 0..60 {
                        let text = text(&mut generator);
                        let whole = tokenizer.encode_fast(text.as_str(), false).unwrap();
                        let most = generator.random_range(0..=whole.len() + 1);
                        let mut tokens = Tokens::new(&tokenizer, &cutter, &text);
                        let first = tokens.first(most).unwrap();
                        let expected = &whole.get_ids()[..most.min(whole.len())];
                        assert_eq!(first, expected, "{normalizer} {pre_tokenizer} {added:?} {text:?}");
                        let all = Tokens::new(&tokenizer, &cutter, &text).first(usize::MAX).unwrap().to_vec();
                        assert_eq!(all, whole.get_ids(), "{normalizer} {pre_tokenizer} {added:?} {text:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_long_text_is_read_no_further_than_its_first_tokens() {
        let bert = json!({ "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true });
        let (tokenizer, cutter) = tokenizer(&bert, &json!({ "type": "BertPreTokenizer" }), &[]);
        for part in ["the cat ", "中国", "the,cat", "。ß"] {
            let text = part.repeat(100_000);
            let mut tokens = Tokens::new(&tokenizer, &cutter, &text);
            assert_eq!(tokens.first(10).unwrap().len(), 10);
            assert!(text.len() - tokens.rest.len() < 200, "{part}: {} bytes left", tokens.rest.len());
        }
    }

    #[test]
    fn a_word_without_end_is_one_unknown_word() {
        let bert = json!({ "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true });
        let (tokenizer, cutter) =
            tokenizer(&bert, &json!({ "type": "BertPreTokenizer" }), &[added(40, "[MASK]", [false; 4])]);
        let text = format!("the {}é{} cat", "a".repeat(3 << 19), "0".repeat(3 << 19));
        let mut shortened = String::new();
        let (piece, rest) = cutter.next_piece(&tokenizer, &text[4..], &mut shortened).unwrap();
        assert!(piece.len() < 200 && rest == " cat", "{}", piece.len());
        assert_eq!(Tokens::new(&tokenizer, &cutter, &text).first(9).unwrap(), [1, 0, 2]);
        for part in ["é", "e\u{301}", "\u{301}", "\u{fffd}", "😀", "ที่", "\u{ac00}\u{200d}"] {
            let text = format!("the{} cat", part.repeat((11 << 17) / part.len()));
            let ids = Tokens::new(&tokenizer, &cutter, &text).first(9).unwrap().to_vec();
            let vanishes = ["\u{301}", "\u{fffd}"].contains(&part);
            assert_eq!(ids, [u32::from(vanishes), 2], "{part}");
        }
    }

    #[test]
    fn what_can_only_be_tokenised_whole_has_a_bound() {
        let (tokenizer, cutter) = tokenizer(&Value::Null, &Value::Null, &[]);
        let text = "é".repeat(LONGEST_UNCUT_BYTES);
        let message = Tokens::new(&tokenizer, &cutter, &text).first(3).unwrap_err();
        assert!(message.contains("2097152 bytes") && message.contains("1048576 at most"), "{message}");
    }

    #[test]
    fn of_two_texts_the_longer_is_known_without_keeping_their_tokens() {
        let (tokenizer, cutter) = tokenizer(&Value::Null, &json!({ "type": "WhitespaceSplit" }), &[]);
        let words = |count: usize| "the ".repeat(count);
        for (first, second) in [(500, 499), (499, 500), (500, 500), (0, 0), (500, 0), (0, 500), (7, 900)] {
            let (first_text, second_text) = (words(first), words(second));
            let mut one = Tokens::new(&tokenizer, &cutter, &first_text);
            let mut other = Tokens::new(&tokenizer, &cutter, &second_text);
            one.first(3).unwrap();
            other.first(3).unwrap();
            assert_eq!(one.longer_than(&mut other).unwrap(), first > second, "{first} {second}");
            assert!(one.ids.len() < 10 && other.ids.len() < 10);
        }
    }
}
