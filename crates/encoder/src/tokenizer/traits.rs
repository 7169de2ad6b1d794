//! What the components of a tokenizer do to a text: how much they may widen it, and across which blanks none of them
//! looks, so that it may be cut there.

use serde_json::Value;

use super::components::{Fields, kind};

/// What the components of a checked definition do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Traits {
    /// How often a text may be longer after its replacements.
    pub growth: usize,
    /// Whether the text before and after a blank are tokenised independently of each other.
    pub splits_at_blanks: bool,
    /// Whether that also holds before punctuation and, where it is set apart, before a Chinese character.
    pub bert: Option<BertTraits>,
    /// Where it does not hold at every blank: what the first of a row of blanks must become, so that the tokens before
    /// it and from it on are independent of each other.
    pub before_blanks: Option<Blank>,
}

/// What the normalizer must make of a blank that parts two words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blank {
    /// Any white space, of which no token is made.
    Dropped,
    /// Any white space.
    Any,
    /// A space.
    Space,
    /// A space or SentencePiece's mark of one.
    SpaceOrMark,
    /// SentencePiece's mark, in the normalizer: nothing parts the text before the model, no token of which has the mark
    /// inside.
    Mark,
}

/// SentencePiece's mark of a space.
pub(super) const MARK: char = '▁';

/// Of a tokenizer that normalizes and splits as BERT does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BertTraits {
    /// Whether each Chinese character is a word of its own.
    pub chinese_apart: bool,
    /// WordPiece: a longer word is unknown as a whole.
    pub word_chars: Option<usize>,
}

/// These work on one character at a time, or compose marks with what they follow: never across a blank.
pub(super) const LOCAL: [&str; 8] =
    ["BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents", "Nmt"];

impl Traits {
    /// What components do that were checked, in the order in which they work.
    pub fn of(growth: usize, normalizers: &[&Fields], pre_tokenizers: &[&Fields], model: &Value) -> Self {
        let normalizes_locally = normalizers
            .iter()
            .all(|component| LOCAL.contains(&kind(component)) || kind(component) == "Strip");
        let blanks = ["BertPreTokenizer", "Whitespace", "WhitespaceSplit"];
        let within = ["Punctuation", "Digits"];
        let splits_at_blanks = normalizes_locally
            && pre_tokenizers.iter().any(|component| blanks.contains(&kind(component)))
            && pre_tokenizers
                .iter()
                .all(|component| [&blanks[..], &within].concat().contains(&kind(component)));
        // Composing, a mark can make a letter of punctuation: `<` with U+0338 is one character and part of a word.
        let composes = normalizers.iter().any(|component| ["NFC", "NFKC"].contains(&kind(component)));
        let bert = splits_at_blanks
            && !composes
            && matches!(pre_tokenizers, [only] if kind(only) == "BertPreTokenizer");
        let chinese_apart = normalizers.iter().any(|component| {
            kind(component) == "BertNormalizer"
                && component.get("handle_chinese_chars") == Some(&Value::Bool(true))
        });
        let word_chars =
            (model["type"] == "WordPiece").then(|| model["max_input_chars_per_word"].as_u64()).flatten();
        let word_chars = word_chars.map(|chars| chars as usize);
        Self {
            growth,
            splits_at_blanks,
            bert: bert.then_some(BertTraits { chinese_apart, word_chars }),
            before_blanks: before_blanks(pre_tokenizers, model).filter(|blank| {
                let stays = |component: &&Fields| stays_at_its_place(component, *blank);
                normalizers.iter().all(|component| LOCAL.contains(&kind(component)) || stays(component))
            }),
        }
    }
}

/// Whether a normalizer changes a word and the row of blanks behind it independently of each other.
fn stays_at_its_place(component: &Fields, blank: Blank) -> bool {
    match kind(component) {
        "Precompiled" => true,
        "Strip" => component.get("strip_left") == Some(&Value::Bool(false)),
        "Replace" => {
            let pattern = component.get("pattern").unwrap_or(&Value::Null);
            let of_blanks = |text: &str| text.chars().all(char::is_whitespace);
            let (string, content) = (pattern["String"].as_str(), component.get("content"));
            let content = content.and_then(Value::as_str).unwrap_or_default();
            if pattern["Regex"] == " {2,}" || string.is_some_and(of_blanks) {
                let marked = matches!(blank, Blank::SpaceOrMark | Blank::Mark) && content == MARK.to_string();
                marked || (of_blanks(content) && !content.is_empty())
            } else {
                string.is_some_and(|string| string.chars().count() == 1)
            }
        }
        _ => false,
    }
}

fn before_blanks(pre_tokenizers: &[&Fields], model: &Value) -> Option<Blank> {
    let asks = |component: &Fields, name: &str| component.get(name) != Some(&Value::Bool(false));
    let marks = |component: &Fields| kind(component) == "Metaspace" && asks(component, "split");
    match pre_tokenizers {
        // Under the scheme "first" the first word is not like the others.
        [first, rest @ ..] if kind(first) == "WhitespaceSplit" => {
            let alike = |next: &&Fields| {
                marks(next) && next.get("prepend_scheme").is_none_or(|scheme| scheme != "first")
            };
            rest.iter().all(alike).then_some(Blank::Dropped)
        }
        [only] if marks(only) => Some(Blank::SpaceOrMark),
        [only] if kind(only) == "ByteLevel" && asks(only, "use_regex") => {
            Some(if asks(only, "add_prefix_space") { Blank::Space } else { Blank::Any })
        }
        others => {
            let by_space = |component: &&Fields| {
                kind(component) == "Split" && component.get("pattern").is_some_and(|p| p["String"] == " ")
            };
            (others.iter().all(by_space) && merges_within_marks(model)).then_some(Blank::Mark)
        }
    }
}

/// Whether a model that is given a text whole makes no token across a mark: a BPE whose tokens have it in front alone.
fn merges_within_marks(model: &Value) -> bool {
    let Some(vocabulary) = model["vocab"].as_object() else { return false };
    let unset = |name: &str| matches!(&model[name], Value::Null | Value::Bool(false)) || model[name] == "";
    let plain = ["continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"].into_iter().all(unset);
    let inner = |token: &String| token.trim_start_matches(MARK).contains(MARK);
    model["type"] == "BPE"
        && plain
        && vocabulary.contains_key(MARK.to_string().as_str())
        && !vocabulary.keys().any(inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tokenizer::components::{check, tests::definition};

    #[test]
    fn where_a_text_may_be_cut_follows_from_the_components() {
        let bert = json!({ "type": "BertNormalizer", "handle_chinese_chars": true });
        let of = |normalizer: &Value, pre_tokenizer: Value| {
            check(&definition(normalizer.clone(), pre_tokenizer)).unwrap()
        };
        let traits = of(&bert, json!({ "type": "BertPreTokenizer" }));
        let expected = BertTraits { chinese_apart: true, word_chars: Some(100) };
        let expected =
            Traits { growth: 1, splits_at_blanks: true, bert: Some(expected), before_blanks: None };
        assert_eq!(traits, expected);
        let parts = json!([{ "type": "Digits", "individual_digits": true }, { "type": "WhitespaceSplit" }]);
        let traits = of(&bert, json!({ "type": "Sequence", "pretokenizers": parts }));
        assert!(traits.splits_at_blanks && traits.bert.is_none());
        assert!(!of(&bert, json!({ "type": "Metaspace", "replacement": "_" })).splits_at_blanks);
        assert!(!of(&bert, Value::Null).splits_at_blanks);
        let replace = json!({ "type": "Replace", "pattern": { "Regex": " {2,}" }, "content": "▁" });
        let traits = of(&replace, json!({ "type": "Whitespace" }));
        assert!(!traits.splits_at_blanks && traits.growth == 4);
    }

    #[test]
    fn before_a_row_of_blanks_the_tokenizers_of_other_families_may_be_cut() {
        let bpe = |tokens: Value| json!({ "type": "BPE", "vocab": tokens, "merges": [] });
        let of = |normalizer: &Value, pre_tokenizer: &Value, model: Value| {
            let mut definition = definition(normalizer.clone(), pre_tokenizer.clone());
            definition["model"] = model;
            check(&definition).unwrap().before_blanks
        };
        let some = bpe(json!({ "a": 0 }));
        let sequence = |parts: Value| json!({ "type": "Sequence", "pretokenizers": parts });
        let metaspace =
            |scheme: &str| json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme });
        let byte_level = |prefix: bool, regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": prefix, "use_regex": regex });
        let words = json!({ "type": "WhitespaceSplit" });
        let pre = |parts: Value| of(&Value::Null, &sequence(parts), some.clone());
        assert_eq!(pre(json!([words, metaspace("always")])), Some(Blank::Dropped));
        assert_eq!(pre(json!([words, metaspace("first")])), None);
        assert_eq!(pre(json!([metaspace("first")])), Some(Blank::SpaceOrMark));
        assert_eq!(pre(json!([byte_level(true, true)])), Some(Blank::Space));
        assert_eq!(pre(json!([byte_level(false, true)])), Some(Blank::Any));
        assert_eq!(pre(json!([byte_level(false, false)])), None);
        let marks = |tokens: Value| of(&Value::Null, &Value::Null, bpe(tokens));
        assert_eq!(marks(json!({ "▁": 0, "▁▁a": 1 })), Some(Blank::Mark));
        assert_eq!(marks(json!({ "▁": 0, "a▁": 1 })), None);
        assert_eq!(marks(json!({ "a": 1 })), None);
        let normalized =
            |normalizer: Value, pre_tokenizer: &Value| of(&normalizer, pre_tokenizer, some.clone());
        let strip = |left: bool| json!({ "type": "Strip", "strip_left": left, "strip_right": true });
        let collapse =
            |content: &str| json!({ "type": "Replace", "pattern": { "Regex": " {2,}" }, "content": content });
        assert_eq!(normalized(strip(false), &metaspace("always")), Some(Blank::SpaceOrMark));
        assert_eq!(normalized(strip(true), &metaspace("always")), None);
        assert_eq!(normalized(collapse("▁"), &metaspace("always")), Some(Blank::SpaceOrMark));
        assert_eq!(normalized(collapse("▁"), &byte_level(false, true)), None);
        assert_eq!(normalized(collapse(" "), &byte_level(false, true)), Some(Blank::Any));
        assert_eq!(normalized(collapse(""), &byte_level(false, true)), None);
        let other = json!({ "type": "Replace", "pattern": { "Regex": "a. b" }, "content": "" });
        assert_eq!(normalized(other, &metaspace("always")), None);
    }
}
