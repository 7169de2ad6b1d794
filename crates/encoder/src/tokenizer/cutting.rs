//! The first tokens of a text, at a cost that follows how many are wanted and not how long the text is.
//!
//! A text is tokenised in pieces, until there are enough tokens. A piece ends where the tokenizer is context free, so
//! that the tokens of the pieces, one after the other, are those of the whole text:
//!
//! * before a blank, where blanks part words and no added token holds one;
//! * with BERT's normalizer and pre-tokenizer also before punctuation and Chinese characters, which are words of their
//!   own, where no added token lies across;
//! * where blanks make tokens or their number counts (byte-level, SentencePiece's marks), before the first of a row;
//! * a run without such a place is shortened where WordPiece calls its words unknown anyway: of characters in a row that
//!   part no word, more than a word may have, as many are kept as make the word too long and cover any added token;
//!   so it is done with characters in a row of which the normalizer leaves nothing.
//!
//! Where none of this holds a text is tokenised whole, up to [`LONGEST_UNCUT_BYTES`]; more is an error.

use tokenizers::Tokenizer;

use super::guard::guarded;
use super::places::{Places, normalized};
use super::runs::shorten;
use super::traits::Traits;
use crate::error::one_line;

/// What is tokenised at once: a few hundred words.
const PIECE_BYTES: usize = 4 << 10;
/// The longest piece in which no place to cut is found; its tokens take about a hundred times the memory.
pub(super) const LONGEST_UNCUT_BYTES: usize = 1 << 20;

/// Where the texts of a tokenizer may be cut.
#[derive(Clone, Debug)]
pub(super) struct Cutter {
    piece_bytes: usize,
    longest_uncut_bytes: usize,
    growth: usize,
    places: Places,
}

impl Cutter {
    pub(super) fn new(tokenizer: &Tokenizer, traits: Traits) -> Self {
        Self {
            piece_bytes: PIECE_BYTES,
            longest_uncut_bytes: LONGEST_UNCUT_BYTES,
            growth: traits.growth,
            places: Places::new(tokenizer, traits),
        }
    }
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
            return self.bounded(tokenizer, text).map(|text| (text, ""));
        }
        // There may be megabytes of them.
        let text = self.places.without_blanks(text);
        let near = text.floor_char_boundary(self.piece_bytes);
        let backwards = text[..near].char_indices().rev().map(|(at, _)| at).take_while(|at| *at > 0);
        if let Some(at) =
            std::iter::once(near).chain(backwards).find(|at| self.places.allow(tokenizer, text, *at))
        {
            return Ok(text.split_at(at));
        }
        let onwards = text[near..].char_indices().map(|(at, _)| near + at);
        let end = onwards.skip(1).find(|at| self.places.allow(tokenizer, text, *at)).unwrap_or(text.len());
        let (run, rest) = text.split_at(end);
        let run = match &self.places {
            Places::Words { kept_of_a_run: Some(kept), .. } => {
                *shortened = shorten(tokenizer, run, *kept);
                shortened.as_str()
            }
            _ => run,
        };
        Ok((self.bounded(tokenizer, run)?, rest))
    }

    fn bounded<'p>(&self, tokenizer: &Tokenizer, piece: &'p str) -> Result<&'p str, String> {
        let bound = self.longest_uncut_bytes;
        let bytes = match piece.len() {
            few if few.saturating_mul(self.growth) <= bound => return Ok(piece),
            many if many > bound => many,
            _ => normalized_bytes(tokenizer, piece),
        };
        if bytes <= bound {
            return Ok(piece);
        }
        Err(format!(
            "it holds {bytes} bytes without a place where this tokenizer allows a cut, of {bound} at most; \
             put blanks between its words or leave it out"
        ))
    }
}

/// About as many bytes as the normalizer leaves, without all of them in memory.
fn normalized_bytes(tokenizer: &Tokenizer, text: &str) -> usize {
    let (mut rest, mut bytes) = (text, 0);
    while !rest.is_empty() {
        let (part, behind) = rest.split_at(rest.ceil_char_boundary(PIECE_BYTES));
        bytes += normalized(tokenizer, part).map_or(part.len(), |text| text.len());
        rest = behind;
    }
    bytes
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
        with_model(word_piece(12), normalizer, pre_tokenizer, added)
    }

    fn with_model(
        model: Value,
        normalizer: &Value,
        pre_tokenizer: &Value,
        added: &[Value],
    ) -> (Tokenizer, Cutter) {
        let definition = json!({ "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": null,
            "model": model });
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

    /// A Unigram model and a BPE with marks and byte-level characters.
    fn unigram_and_bpe() -> [Value; 2] {
        let pieces = ["<unk>", "▁", "▁the", "the", "c", "a", "t", "▁c", "at", ".", "▁▁", "中", "e", "s", "f"];
        let scores = pieces.iter().enumerate().map(|(i, piece)| json!([piece, -1.0 - 0.37 * i as f64]));
        let unigram = json!({ "type": "Unigram", "unk_id": 0, "vocab": scores.collect::<Vec<_>>() });
        let merges = [
            ["t", "h"],
            ["th", "e"],
            ["Ġ", "the"],
            ["▁", "the"],
            ["Ġ", "Ġ"],
            ["ĠĠ", "ĠĠ"],
            ["▁", "▁"],
            ["c", "a"],
            ["Ġ", "c"],
            ["Ċ", "Ċ"],
            ["s", "."],
        ];
        let single = ["<unk>", "Ġ", "▁", "t", "h", "e", "c", "a", "Ċ", "s", ".", "中"].map(String::from);
        let tokens = single.into_iter().chain(merges.iter().map(|pair| pair.concat())).enumerate();
        let vocabulary: serde_json::Map<String, Value> =
            tokens.map(|(id, token)| (token, json!(id))).collect();
        let bpe = json!({ "type": "BPE", "vocab": vocabulary, "merges": merges, "unk_token": "<unk>",
            "fuse_unk": true });
        [unigram, bpe]
    }

    #[test]
    fn tokenizers_whose_blanks_count_are_cut_before_rows_of_them() {
        let sequence = |normalizers: Value| json!({ "type": "Sequence", "normalizers": normalizers });
        let replace = |pattern: Value, content: &str| json!({ "type": "Replace", "pattern": pattern, "content": content });
        let collapse = replace(json!({ "Regex": " {2,}" }), "▁");
        let strip = json!({ "type": "Strip", "strip_left": false, "strip_right": true });
        let table =
            crate::tokenizer::charsmap::tests::table(&[(b'\t', " "), (b'\n', " "), (b'_', ""), (b'-', " ")]);
        let table = json!({ "type": "Precompiled", "precompiled_charsmap": table });
        let normalizers = [
            Value::Null,
            json!({ "type": "NFC" }),
            table.clone(),
            sequence(json!([table, strip, collapse])),
            sequence(json!([{ "type": "Nmt" }, { "type": "NFKC" }, replace(json!({ "String": "  " }), " ")])),
            replace(json!({ "String": " " }), "▁"),
        ];
        let metaspace =
            |scheme: &str| json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme });
        let words = |rest: Value| json!({ "type": "Sequence", "pretokenizers": [{ "type": "WhitespaceSplit" }, rest] });
        let byte_level =
            |prefix: bool| json!({ "type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true });
        let pre_tokenizers = [
            Value::Null,
            metaspace("always"),
            metaspace("first"),
            metaspace("never"),
            words(metaspace("always")),
            words(metaspace("never")),
            byte_level(true),
            byte_level(false),
        ];
        let plain = [false; 4];
        let vocabularies = [
            vec![added(40, "  ", [false, false, false, true]), added(41, "<new>", plain)],
            vec![added(40, "[MASK]", [false, true, true, false]), added(41, "the cat", plain)],
            vec![added(40, "ne", [true, false, false, false]), added(41, "Cat", [false, true, false, true])],
        ];
        let mut generator = ChaCha8Rng::seed_from_u64(11);
        let mut cut = 0;
        for model in unigram_and_bpe() {
            for (normalizer, pre_tokenizer) in
                normalizers.iter().flat_map(|n| pre_tokenizers.iter().map(move |p| (n, p)))
            {
                for added in &vocabularies {
                    let (tokenizer, cutter) = with_model(model.clone(), normalizer, pre_tokenizer, added);
                    let rows = matches!(cutter.places, Places::Rows(_));
                    for _ in 0..if rows { 60 } else { 0 } {
                        let text = text(&mut generator);
                        // The library has its own troubles where added tokens strip what others hold.
                        let encode =
                            || tokenizer.encode_fast(text.as_str(), false).map_err(|e| e.to_string());
                        let Ok(whole) = guarded(encode) else { continue };
                        let mut tokens = Tokens::new(&tokenizer, &cutter, &text);
                        let first = tokens.first(5).unwrap().to_vec();
                        assert_eq!(
                            first,
                            whole.get_ids()[..first.len()],
                            "{normalizer} {pre_tokenizer} {text:?}"
                        );
                        cut += usize::from(!tokens.rest.is_empty());
                        let all = Tokens::new(&tokenizer, &cutter, &text).first(usize::MAX).unwrap().to_vec();
                        assert_eq!(all, whole.get_ids(), "{normalizer} {pre_tokenizer} {added:?} {text:?}");
                    }
                }
            }
        }
        assert!(cut > 2_000, "{cut}");
    }

    #[test]
    fn what_a_normalizer_can_widen_is_bounded_by_what_it_does_widen() {
        let table = crate::tokenizer::charsmap::tests::table(&[(b'w', &"w".repeat(40))]);
        let table = json!({ "type": "Precompiled", "precompiled_charsmap": table });
        let [unigram, _] = unigram_and_bpe();
        let (tokenizer, cutter) = with_model(unigram, &table, &Value::Null, &[]);
        let tokens = |text: &str| Tokens::new(&tokenizer, &cutter, text).first(3).map(<[u32]>::to_vec);
        assert!(tokens(&"a".repeat(LONGEST_UNCUT_BYTES / 2)).is_ok());
        assert!(tokens(&"w".repeat(LONGEST_UNCUT_BYTES / 50)).is_ok());
        let message = tokens(&"w".repeat(LONGEST_UNCUT_BYTES / 30)).unwrap_err();
        assert!(message.contains("1048576 at most"), "{message}");
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
