//! Which components of a `tokenizer.json` are let through: those whose work is bounded by the text they are given.
//!
//! The library runs whatever a file describes, and some descriptions panic, never end or grow a text without bound. So
//! each component is on the list here, with the bounds of its parameters, or refused by name.

use serde_json::{Map, Value};

use super::charsmap;
use super::traits::{LOCAL, Traits};

/// How often a text may be longer after the replacements of a normalizer.
const LARGEST_GROWTH: usize = 64;
/// Components of one kind in a `tokenizer.json`.
const MOST_COMPONENTS: usize = 64;
/// WordPiece tries every part of a word: its time grows with the cube of this.
const LONGEST_WORD_CHARS: u64 = 1_000;

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
    Ok(Traits::of(growth, &normalizers, &pre_tokenizers, &definition["model"]))
}

pub(super) type Fields = Map<String, Value>;

pub(super) fn kind(component: &Fields) -> &str {
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
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub fn definition(normalizer: Value, pre_tokenizer: Value) -> Value {
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
}
