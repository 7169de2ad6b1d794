//! The tokenizer that the files of a folder describe: what decides where they disagree, what is refused, how it is saved.
//!
//! The expected tokens are those of transformers 5.24 (`AutoTokenizer` on the same folder with a BERT `config.json`).

mod common;

use std::{fs, path::Path};

use contaccum_encoder::{EncoderError, ModelFolder, PassageFormat, TextTokenizer};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

const TOKENS: [&str; 21] = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cafe", "café", "Cafe", "Café", "the", "The", "abc", "##-",
    "-", "_", "中", "国", "中国", "##def", "def", "de",
];

/// The `tokenizer.json` of a BERT tokenizer with some parts replaced.
fn definition(parts: Value) -> Value {
    let vocabulary: serde_json::Map<String, Value> =
        TOKENS.iter().enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect();
    let mut definition = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": TOKENS[..5].iter().enumerate().map(|(id, token)| added(id, token)).collect::<Vec<_>>(),
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": { "type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2] },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary },
    });
    merge(&mut definition, parts);
    definition
}

/// Lays objects over each other; other values replace.
fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) if !over.contains_key("type") => {
            over.into_iter().for_each(|(name, value)| merge(base.entry(name).or_insert(Value::Null), value));
        }
        (base, over) => *base = over,
    }
}

fn added(id: usize, content: &str) -> Value {
    json!({ "id": id, "content": content, "special": true, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false })
}

fn folder(definition: &Value, others: &[(&str, Value)]) -> TempDir {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("tokenizer.json"), definition.to_string()).unwrap();
    for (name, content) in others {
        fs::write(folder.path().join(name), content.to_string()).unwrap();
    }
    folder
}

/// The tokens of a text between the special tokens.
fn tokens(folder: &Path, text: &str) -> Vec<String> {
    let tokenizer = TextTokenizer::from_folder(folder).unwrap();
    let ids = tokenizer.query(text, 64).unwrap().ids;
    assert_eq!((ids[0], ids[ids.len() - 1]), (2, 3));
    let name = |id: &u32| TOKENS.get(*id as usize).map_or(format!("#{id}"), |token| (*token).to_owned());
    ids[1..ids.len() - 1].iter().map(name).collect()
}

fn refusal(definition: &Value, class: &str) -> String {
    let config = ("tokenizer_config.json", json!({ "tokenizer_class": class }));
    let error = TextTokenizer::from_folder(folder(definition, &[config]).path()).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("tokenizer.json: ") && !message.contains('\n'), "{message}");
    message
}

#[test]
fn the_flags_of_the_configuration_decide_what_berts_class_does() {
    let cased = json!({ "normalizer": { "lowercase": false } });
    let text = "The Café 中国";
    let of = |parts: &Value, config: Option<Value>| {
        let others: Vec<_> = config.into_iter().map(|config| ("tokenizer_config.json", config)).collect();
        tokens(folder(&definition(parts.clone()), &others).path(), text)
    };
    let lower = ["the", "cafe", "中", "国"];
    assert_eq!(of(&json!({}), None), lower);
    assert_eq!(of(&cased, None), lower, "without a file of flags their defaults hold");
    assert_eq!(of(&cased, Some(json!({ "do_lower_case": true, "tokenizer_class": "BertTokenizer" }))), lower);
    assert_eq!(of(&cased, Some(json!({ "do_lower_case": null, "strip_accents": null }))), lower);
    assert_eq!(of(&cased, Some(json!({ "tokenizer_class": "DistilBertTokenizer" }))), lower);
    let flags = |flags: Value| of(&json!({}), Some(flags));
    assert_eq!(flags(json!({ "do_lower_case": false })), ["The", "Café", "中", "国"]);
    assert_eq!(flags(json!({ "do_lower_case": false, "strip_accents": true })), ["The", "Cafe", "中", "国"]);
    assert_eq!(flags(json!({ "strip_accents": false })), ["the", "café", "中", "国"]);
    assert_eq!(flags(json!({ "tokenize_chinese_chars": false })), ["the", "cafe", "中国"]);
    let config = ("tokenizer_config.json", json!({ "do_lower_case": "no" }));
    let error = TextTokenizer::from_folder(folder(&definition(json!({})), &[config]).path()).unwrap_err();
    assert!(error.to_string().contains("do_lower_case is \"no\"; it must be true or false"), "{error}");
}

#[test]
fn another_class_takes_the_file_as_it_is() {
    let parts = json!({ "normalizer": { "lowercase": false }, "pre_tokenizer": { "type": "Whitespace" } });
    let own = definition(parts);
    let bert = ["abc", "-", "def", "_", "[UNK]"];
    assert_eq!(tokens(folder(&own, &[]).path(), "abc-def_g"), bert);
    let class =
        |name: &str, file: &'static str| (file, json!({ "tokenizer_class": name, "model_type": "bert" }));
    for class in [
        class("PreTrainedTokenizerFast", "tokenizer_config.json"),
        class("RetriBertTokenizer", "tokenizer_config.json"),
        class("PreTrainedTokenizerFast", "config.json"),
    ] {
        let folder = folder(&own, std::slice::from_ref(&class));
        assert_eq!(tokens(folder.path(), "abc-def_g The"), ["abc", "-", "[UNK]", "The"], "{class:?}");
    }
}

#[test]
fn added_tokens_come_from_the_files_in_the_order_of_transformers() {
    let with_new = definition(json!({ "added_tokens": [added(21, "<new>")] }));
    let plain = definition(json!({}));
    let text = "the<new>[MASK]";
    let of = |own: &Value, others: &[(&str, Value)]| tokens(folder(own, others).path(), text);
    assert_eq!(of(&with_new, &[]), ["the", "#21", "[MASK]"]);
    assert_eq!(of(&plain, &[("added_tokens.json", json!({ "<new>": 21 }))]), ["the", "#21", "[MASK]"]);
    let decoder = |tokens: Value| ("tokenizer_config.json", json!({ "added_tokens_decoder": tokens }));
    let new = json!({ "21": { "content": "<new>", "special": true, "normalized": false } });
    assert_eq!(of(&plain, &[decoder(new.clone())]), ["the", "#21", "[MASK]"]);
    // With a list in the configuration, BERT's class does not look at that of tokenizer.json.
    let others = json!({ "0": { "content": "[PAD]", "special": true, "normalized": false } });
    assert_eq!(of(&with_new, &[decoder(others.clone())]), ["the", "[UNK]", "[UNK]", "[UNK]", "[MASK]"]);
    let as_it_is = |decoder: Value| {
        let config = json!({ "tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": decoder });
        of(&with_new, &[("tokenizer_config.json", config)])
    };
    assert_eq!(as_it_is(others), ["the", "#21", "[UNK]", "[UNK]", "[UNK]"]);
    assert_eq!(as_it_is(json!({ "4": { "content": "[MASK]", "special": true } })), ["the", "#21", "[MASK]"]);
}

#[test]
fn an_added_token_without_an_embedding_makes_the_wrong_tokenizer() {
    let own = definition(json!({ "added_tokens": [added(21, "<new>")] }));
    let config =
        json!({ "model_type": "bert", "hidden_size": 8, "num_attention_heads": 2, "vocab_size": 21 });
    let folder = folder(&own, &[("config.json", config)]);
    let model = ModelFolder::locate(folder.path().to_str().unwrap()).unwrap();
    let error = model.tokenizer().unwrap_err();
    assert!(matches!(error, EncoderError::VocabularyTooLarge { vocabulary: 22, rows: 21, .. }), "{error}");
}

#[test]
fn a_tokenizer_is_saved_as_berts_class_only_where_that_class_gives_it_back() {
    let fast = "PreTrainedTokenizerFast";
    let cases = [
        (json!({}), "BertTokenizer", "BertTokenizer"),
        (json!({}), fast, "BertTokenizer"),
        (json!({ "normalizer": { "lowercase": false, "strip_accents": true } }), fast, "BertTokenizer"),
        (json!({ "pre_tokenizer": { "type": "Whitespace" } }), "BertTokenizer", "BertTokenizer"),
        (json!({ "pre_tokenizer": { "type": "Whitespace" } }), fast, fast),
        (json!({ "pre_tokenizer": null }), fast, fast),
        (json!({ "model": { "max_input_chars_per_word": 3 } }), fast, fast),
        (json!({ "model": { "continuing_subword_prefix": "" } }), fast, fast),
        (json!({ "model": { "unk_token": "[MASK]" } }), fast, fast),
        (json!({ "normalizer": { "clean_text": false } }), fast, fast),
        (json!({ "normalizer": { "type": "Lowercase" } }), fast, fast),
        (
            json!({ "model": { "type": "WordLevel", "unk_token": "[UNK]", "vocab": definition(json!({}))["model"]["vocab"] } }),
            fast,
            fast,
        ),
    ];
    for (parts, class, expected) in cases {
        let config = json!({ "tokenizer_class": class });
        let original = folder(&definition(parts.clone()), &[("tokenizer_config.json", config)]);
        let tokenizer = TextTokenizer::from_folder(original.path()).unwrap();
        let copy = tempdir().unwrap();
        tokenizer.save(copy.path(), 64).unwrap();
        let config: Value =
            serde_json::from_slice(&fs::read(copy.path().join("tokenizer_config.json")).unwrap()).unwrap();
        assert_eq!(config["tokenizer_class"], expected, "{parts}");
        let again = TextTokenizer::from_folder(copy.path()).unwrap();
        for text in ["The Café 中国", "abc-def_g", "abcdef the[MASK]"] {
            assert_eq!(again.query(text, 64).unwrap(), tokenizer.query(text, 64).unwrap(), "{parts} {text}");
        }
    }
}

#[test]
fn a_component_that_cannot_work_or_could_explode_is_refused_by_name() {
    let bert = "BertTokenizer";
    let fast = "PreTrainedTokenizerFast";
    let refused = |parts: Value| refusal(&definition(parts), fast);
    let replace = |pattern: Value| json!({ "type": "Replace", "pattern": pattern, "content": "abab" });
    let many = |part: Value| json!({ "type": "Sequence", "normalizers": vec![part; 20] });
    assert!(
        refused(json!({ "normalizer": many(replace(json!({ "Regex": "" }))) })).contains("times as long")
    );
    assert!(
        refused(json!({ "normalizer": many(replace(json!({ "String": "a" }))) })).contains("times as long")
    );
    assert!(refused(json!({ "normalizer": replace(json!({ "Regex": "(" })) })).contains("not a tokenizer"));
    for map in ["", "////fwEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="] {
        let precompiled = json!({ "normalizer": { "type": "Precompiled", "precompiled_charsmap": map } });
        assert!(refused(precompiled).contains("normalizer Precompiled "));
    }
    assert!(
        refused(json!({ "pre_tokenizer": { "type": "FixedLength", "length": 0 } })).contains("FixedLength")
    );
    let merges = json!({ "type": "BPE", "vocab": definition(json!({}))["model"]["vocab"], "unk_token": "[UNK]",
        "continuing_subword_prefix": "###############", "merges": [["abc", "##-"]] });
    assert!(refused(json!({ "model": merges })).contains("the tokenizer library failed"));
    assert!(refused(json!({ "model": { "unk_token": "nowhere" } })).contains("unk_token \"nowhere\""));
    let bpe = json!({ "type": "BPE", "vocab": {}, "merges": [] });
    assert!(refusal(&definition(json!({ "model": bpe })), bert).contains("BertTokenizer is WordPiece"));
    assert!(refused(json!({ "model": null })).contains("has no model"));
    assert!(
        refused(json!({ "added_tokens": [] , "model": { "vocab": { "[UNK]": 1 } }, "version": "9" }))
            .contains("version")
    );
    // Berts's class makes everything but the vocabulary itself, whatever the file says.
    let config = ("tokenizer_config.json", json!({ "tokenizer_class": bert }));
    let broken = definition(json!({ "pre_tokenizer": { "type": "FixedLength", "length": 0 },
        "truncation": { "max_length": 2, "stride": 9, "strategy": "LongestFirst", "direction": "Right" } }));
    assert_eq!(tokens(folder(&broken, &[config]).path(), "The abc"), ["the", "abc"]);
}

#[test]
fn shared_tokenizers_that_broke_the_library_are_refused_in_one_line() {
    let Some(shared) = common::shared() else { return };
    let mut refused = 0;
    for entry in fs::read_dir(shared.join("cases/reliability/tokenizers")).unwrap() {
        let own: Value = serde_json::from_slice(&fs::read(entry.unwrap().path()).unwrap()).unwrap();
        let message = refusal(&own, "PreTrainedTokenizerFast");
        assert!(
            ["Precompiled", "FixedLength", "times as long"].iter().any(|name| message.contains(name)),
            "{message}"
        );
        refused += 1;
    }
    assert_eq!(refused, 5);
}

#[test]
fn the_shared_models_of_cases_24_and_25_give_the_tokens_of_transformers() {
    let Some(shared) = common::shared() else { return };
    let ids = |model: &str, text: &str| {
        let tokenizer = TextTokenizer::from_folder(&shared.join("cases/models").join(model)).unwrap();
        tokenizer.query(text, 64).unwrap().ids
    };
    assert_eq!(ids("tiny-cased-flag", "Who BUILT the red bridge?"), [2, 12, 13, 5, 7, 11, 38, 3]);
    assert_eq!(ids("tiny-cased-flag", "Café 中国"), [2, 39, 42, 43, 3]);
    let tokenizer = TextTokenizer::from_folder(&shared.join("cases/models/tiny-whitespace")).unwrap();
    let copy = tempdir().unwrap();
    tokenizer.save(copy.path(), 64).unwrap();
    let config = fs::read_to_string(copy.path().join("tokenizer_config.json")).unwrap();
    assert!(config.contains("PreTrainedTokenizerFast"), "{config}");
    let again = TextTokenizer::from_folder(copy.path()).unwrap();
    let text = "中国 😀 Café é abc-def_g";
    assert_eq!(again.query(text, 64).unwrap(), tokenizer.query(text, 64).unwrap());
}

#[test]
fn long_texts_are_cut_as_their_whole_tokens_would_be() {
    let words: Vec<String> = ["a", "##b", "c", "."].map(String::from).to_vec();
    let tokenizer = TextTokenizer::from_vocabulary(words).unwrap();
    let whole = |text: &str| tokenizer.query(text, 1 << 20).unwrap().ids;
    let text = "a ab. c ".repeat(3_000);
    let all = whole(&text);
    assert_eq!(all.len(), 2 + 5 * 3_000);
    for length in [3, 40, 511, 5_000, 15_001, 15_002, 20_000] {
        let cut = tokenizer.query(&text, length).unwrap().ids;
        assert_eq!(cut[..cut.len() - 1], all[..cut.len() - 1]);
        assert_eq!(cut.len(), length.min(all.len()));
    }
    // Both segments are too long, and the room is odd: the one with more tokens gets one more.
    let lengths = |title: &str, text: &str| {
        let pair = tokenizer.passage(title, text, PassageFormat::Pair, 40).unwrap();
        (pair.second_segment - 2, pair.ids.len() - pair.second_segment - 1)
    };
    let (longer, shorter) = (format!("{text}a"), text.as_str());
    assert_eq!(lengths(&longer, shorter), (19, 18));
    assert_eq!(lengths(shorter, &longer), (18, 19));
    assert_eq!(lengths(shorter, shorter), (18, 19));
}
