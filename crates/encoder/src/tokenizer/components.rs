//! Which components of a `tokenizer.json` are let through: those whose work is bounded by the text they are given.
//!
//! The library runs whatever a file describes, and some descriptions panic, never end or grow a text without bound. So
//! each component is on the list here, with the bounds of its parameters, or refused by name.

use serde_json::{Map, Value};

use super::charsmap;

/// How often a text may be longer after the replacements of a normalizer.
const LARGEST_GROWTH: usize = 64;
/// Components of one kind in a `tokenizer.json`.
const MOST_COMPONENTS: usize = 64;
/// WordPiece tries every part of a word: its time grows with the cube of this.
const LONGEST_WORD_CHARS: u64 = 1_000;

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

/// Checks the components of a definition.
///
/// # Errors
/// Names the component that is not let through, and why.
pub(super) fn check(definition: &Value) -> Result<Traits, String> {
    let normalizers = flatten("normalizer", &definition["normalizer"], "normalizers")?;
    let mut growth = 1usize;
    for normalizer in &normalizers {
        growth = growth.saturating_mul(normalizer_growth(normalizer)?);
    }
    if growth > LARGEST_GROWTH {
        return Err(format!(
            "its normalizer can make a text {growth} times as long; at most {LARGEST_GROWTH} times is allowed"
        ));
    }
    let pre_tokenizers = flatten("pre_tokenizer", &definition["pre_tokenizer"], "pretokenizers")?;
    pre_tokenizers.iter().try_for_each(|component| check_pre_tokenizer(component))?;
    for component in flatten("post_processor", &definition["post_processor"], "processors")? {
        let known = ["BertProcessing", "RobertaProcessing", "TemplateProcessing", "ByteLevel"];
        known_kind("post_processor", component, &known)?;
    }
    check_model(&definition["model"])?;
    Ok(traits(growth, &normalizers, &pre_tokenizers, &definition["model"]))
}

/// These work on one character at a time, or compose marks with what they follow: never across a blank.
const LOCAL: [&str; 8] = ["BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents", "Nmt"];

fn traits(growth: usize, normalizers: &[&Fields], pre_tokenizers: &[&Fields], model: &Value) -> Traits {
    let normalizes_locally =
        normalizers.iter().all(|component| LOCAL.contains(&kind(component)) || kind(component) == "Strip");
    let blanks = ["BertPreTokenizer", "Whitespace", "WhitespaceSplit"];
    let within = ["Punctuation", "Digits"];
    let splits_at_blanks = normalizes_locally
        && pre_tokenizers.iter().any(|component| blanks.contains(&kind(component)))
        && pre_tokenizers.iter().all(|component| [&blanks[..], &within].concat().contains(&kind(component)));
    // Composing, a mark can make a letter of punctuation: `<` with U+0338 is one character and part of a word.
    let composes = normalizers.iter().any(|component| ["NFC", "NFKC"].contains(&kind(component)));
    let bert =
        splits_at_blanks && !composes && matches!(pre_tokenizers, [only] if kind(only) == "BertPreTokenizer");
    let chinese_apart = normalizers.iter().any(|component| {
        kind(component) == "BertNormalizer" && component.get("handle_chinese_chars") == Some(&TRUE)
    });
    let word_chars =
        (model["type"] == "WordPiece").then(|| model["max_input_chars_per_word"].as_u64()).flatten();
    let word_chars = word_chars.map(|chars| chars as usize);
    Traits {
        growth,
        splits_at_blanks,
        bert: bert.then_some(BertTraits { chinese_apart, word_chars }),
        before_blanks: before_blanks(pre_tokenizers, model).filter(|blank| {
            let stays = |component: &&Fields| stays_at_its_place(component, *blank);
            normalizers.iter().all(|component| LOCAL.contains(&kind(component)) || stays(component))
        }),
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

type Fields = Map<String, Value>;
const TRUE: Value = Value::Bool(true);

fn kind(component: &Fields) -> &str {
    component.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// The components in order: one, none, or those of a `Sequence`.
fn flatten<'v>(role: &str, component: &'v Value, list: &str) -> Result<Vec<&'v Fields>, String> {
    let mut open = vec![component];
    let mut found = Vec::new();
    while let Some(component) = open.pop() {
        let fields = match component {
            Value::Null => continue,
            Value::Object(fields) => fields,
            other => return Err(format!("{role} {other} is not a component; fetch the file again")),
        };
        match fields.get(list).and_then(Value::as_array) {
            Some(members) if kind(fields) == "Sequence" => open.extend(members.iter().rev()),
            _ => found.push(fields),
        }
        if open.len() + found.len() > MOST_COMPONENTS {
            return Err(format!("{role} has more than {MOST_COMPONENTS} components"));
        }
    }
    Ok(found)
}

fn known_kind(role: &str, component: &Fields, known: &[&str]) -> Result<(), String> {
    let kind = kind(component);
    if known.contains(&kind) {
        return Ok(());
    }
    let name = if kind.is_empty() { "without a type" } else { kind };
    Err(format!("{role} {name} is not supported; {} are", known.join(", ")))
}

fn normalizer_growth(component: &Fields) -> Result<usize, String> {
    let text = |name: &str| component.get(name).and_then(Value::as_str).unwrap_or_default();
    match kind(component) {
        "Prepend" => Ok(1 + text("prepend").len()),
        "Replace" => {
            let content = text("content").len();
            let pattern = component.get("pattern").unwrap_or(&Value::Null);
            match (pattern["String"].as_str(), pattern["Regex"].as_str()) {
                (Some(""), _) => Err("normalizer Replace looks for nothing, which is everywhere".into()),
                (Some(text), _) => Ok(content.div_ceil(text.len()).max(1)),
                // An expression may match nothing, between any two characters.
                (None, Some(_)) => Ok(1 + content),
                (None, None) => Err("normalizer Replace has no pattern".into()),
            }
        }
        "Precompiled" => charsmap::growth(text("precompiled_charsmap"))
            .map_err(|what| format!("normalizer Precompiled {what}; fetch the file again")),
        _ => {
            let known = [&LOCAL[..], &["Strip", "ByteLevel", "Prepend", "Replace", "Precompiled"]].concat();
            known_kind("normalizer", component, &known).map(|()| 1)
        }
    }
}

fn check_pre_tokenizer(component: &Fields) -> Result<(), String> {
    let known = [
        "BertPreTokenizer",
        "Whitespace",
        "WhitespaceSplit",
        "Punctuation",
        "Digits",
        "Metaspace",
        "ByteLevel",
        "CharDelimiterSplit",
        "UnicodeScripts",
        "Split",
        "FixedLength",
    ];
    known_kind("pre_tokenizer", component, &known)?;
    if kind(component) == "FixedLength" && component.get("length").is_some_and(|length| *length == 0) {
        return Err("pre_tokenizer FixedLength has length 0; it must be at least 1".into());
    }
    Ok(())
}

fn check_model(model: &Value) -> Result<(), String> {
    let kind = model["type"].as_str().unwrap_or("without a type");
    let has = |token: &Value| token.as_str().is_some_and(|token| model["vocab"].get(token).is_some());
    let unknown = &model["unk_token"];
    let no_unknown = || format!("model {kind} has unk_token {unknown}, which is not in its vocabulary");
    match kind {
        "WordPiece" | "WordLevel" => {
            if !has(unknown) {
                return Err(no_unknown());
            }
            let chars = model["max_input_chars_per_word"].as_u64().unwrap_or_default();
            if chars > LONGEST_WORD_CHARS {
                let bound = format!("at most {LONGEST_WORD_CHARS} is allowed");
                return Err(format!("model {kind} has max_input_chars_per_word {chars}; {bound}"));
            }
        }
        "BPE" => {
            if !(unknown.is_null() || has(unknown)) {
                return Err(no_unknown());
            }
            if model["dropout"].as_f64().is_some_and(|dropout| dropout != 0.0) {
                return Err(
                    "model BPE has dropout, which gives one text several tokens; set it to null".into()
                );
            }
        }
        "Unigram" => {
            let pieces = model["vocab"].as_array().map_or(0, Vec::len) as u64;
            if model["unk_id"].as_u64().is_none_or(|id| id >= pieces) {
                return Err(format!(
                    "model Unigram has unk_id {}, which is not in its vocabulary",
                    model["unk_id"]
                ));
            }
        }
        _ => return Err(format!("model {kind} is not supported; WordPiece, WordLevel, BPE, Unigram are")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition(normalizer: Value, pre_tokenizer: Value) -> Value {
        json!({ "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": null,
            "model": { "type": "WordPiece", "unk_token": "a", "vocab": { "a": 0 }, "max_input_chars_per_word": 100 } })
    }

    fn refusal(normalizer: Value, pre_tokenizer: Value) -> String {
        check(&definition(normalizer, pre_tokenizer)).unwrap_err()
    }

    #[test]
    fn a_normalizer_that_can_explode_is_refused_by_name() {
        let replace = |pattern: Value, content: &str| json!({ "type": "Replace", "pattern": pattern, "content": content });
        let sequence =
            |part: Value, times: usize| json!({ "type": "Sequence", "normalizers": vec![part; times] });
        let empty_expression = sequence(replace(json!({ "Regex": "" }), "ab"), 20);
        assert!(refusal(empty_expression, Value::Null).contains("times as long"));
        let widening = sequence(replace(json!({ "String": "w" }), &"w".repeat(500)), 4);
        assert!(refusal(widening, Value::Null).contains("62500000000 times as long"));
        assert!(refusal(replace(json!({ "String": "" }), "ab"), Value::Null).contains("Replace"));
        assert!(
            refusal(json!({ "type": "Prepend", "prepend": "w".repeat(64) }), Value::Null)
                .contains("65 times")
        );
        let precompiled = |map: &str| json!({ "type": "Precompiled", "precompiled_charsmap": map });
        assert!(refusal(precompiled(""), Value::Null).contains("Precompiled is empty"));
        let widens = charsmap::tests::table(&[(b'w', &"w".repeat(65))]);
        assert!(refusal(precompiled(&widens), Value::Null).contains("65 times"));
        assert!(refusal(json!({ "precompiled_charsmap": "" }), Value::Null).contains("without a type"));
        assert!(refusal(sequence(json!({ "type": "NFC" }), 65), Value::Null).contains("more than 64"));
        let nested = (0..40).fold(json!({ "type": "Mystery" }), |inner, _| sequence(inner, 1));
        assert!(refusal(nested, Value::Null).contains("Mystery"));
    }

    #[test]
    fn a_pre_tokenizer_or_model_that_cannot_work_is_refused_by_name() {
        assert!(
            refusal(Value::Null, json!({ "type": "FixedLength", "length": 0 }))
                .contains("FixedLength has length 0")
        );
        assert!(
            refusal(Value::Null, json!({ "type": "Mystery" })).contains("Mystery is not supported; BertPre")
        );
        assert!(refusal(Value::Null, json!("Whitespace")).contains("not a component"));
        let refused = |model: Value| {
            let mut definition = definition(Value::Null, Value::Null);
            definition["model"] = model;
            check(&definition).unwrap_err()
        };
        assert!(
            refused(json!({ "type": "WordPiece", "unk_token": "b", "vocab": { "a": 0 } })).contains("\"b\"")
        );
        assert!(refused(json!({ "type": "WordLevel", "vocab": { "a": 0 } })).contains("unk_token null"));
        let slow = json!({ "type": "WordPiece", "unk_token": "a", "vocab": { "a": 0 }, "max_input_chars_per_word": 1001 });
        assert!(refused(slow).contains("max_input_chars_per_word 1001"));
        assert!(
            refused(json!({ "type": "BPE", "vocab": {}, "merges": [], "dropout": 0.1 })).contains("dropout")
        );
        assert!(
            refused(json!({ "type": "Unigram", "unk_id": 1, "vocab": [["a", 0.0]] })).contains("unk_id 1")
        );
        assert!(refused(json!({ "type": "Unigram", "vocab": [["a", 0.0]] })).contains("unk_id null"));
        assert!(refused(json!({ "type": "Tree" })).contains("Tree is not supported"));
    }

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
