//! Texts to tokens: agreement with transformers, cutting, special tokens, saving.

mod common;

use std::{collections::HashMap, fs, path::Path};

use contaccum_encoder::{EncoderError, ModelFolder, PassageFormat, TextTokenizer, TokenSequence};
use serde_json::{Value, json};
use tempfile::tempdir;

const WORDS: [&str; 12] = ["the", "cat", "sat", "on", "mat", "a", "##s", "un", "##sat", ".", "title", "e"];

fn small() -> TextTokenizer {
    TextTokenizer::from_vocabulary(WORDS.map(String::from).to_vec()).unwrap()
}

/// Ids of words in the small vocabulary.
fn ids(words: &[&str]) -> Vec<u32> {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let all: Vec<&str> = special.into_iter().chain(WORDS).collect();
    words.iter().map(|word| all.iter().position(|known| known == word).unwrap() as u32).collect()
}

/// Fields of the records of a JSONL file, by `_id`.
fn records(path: &Path) -> HashMap<String, Value> {
    let text = fs::read_to_string(path).unwrap();
    let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    records.map(|record| (record["_id"].as_str().unwrap().to_owned(), record)).collect()
}

#[test]
fn token_counts_agree_with_transformers_on_squad() {
    let Some(shared) = common::shared() else { return };
    let golden = std::env::var_os("CONTACCUM_GOLDEN").map_or(shared.join("reference/golden"), Into::into);
    let golden: Value = serde_json::from_str(&fs::read_to_string(golden.join("rows.json")).unwrap()).unwrap();
    let passages = records(&shared.join("data/squad/corpus.jsonl"));
    let queries = records(&shared.join("data/squad/queries.jsonl"));
    let model = ModelFolder::locate(shared.join("models/all-MiniLM-L6-v2").to_str().unwrap()).unwrap();
    let tokenizer = model.tokenizer().unwrap();

    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let counts = golden["token_counts"].as_array().unwrap();
    assert!(!counts.is_empty());
    for (row, counts) in golden["rows"].as_array().unwrap().iter().zip(counts) {
        let query = text(&queries[&text(&row["query_id"])]["text"]);
        let passage = &passages[&text(&row["positive"])];
        let (title, body) = (text(&passage["title"]), text(&passage["text"]));
        let query = tokenizer.query(&query, 64).unwrap();
        let passage = tokenizer.passage(&title, &body, PassageFormat::Pair, 256).unwrap();
        assert_eq!(json!([query.ids.len(), passage.ids.len()]), *counts, "row {row}");
    }
}

#[test]
fn a_query_is_one_lower_cased_segment_between_special_tokens() {
    let query = small().query("The CATS sat.", 64).unwrap();
    let expected = ids(&["[CLS]", "the", "cat", "##s", "sat", ".", "[SEP]"]);
    assert_eq!(query, TokenSequence { second_segment: expected.len(), ids: expected });
}

#[test]
fn an_unknown_word_and_an_accent_are_treated_as_bert_does() {
    let query = small().query("Thé zebra ", 64).unwrap();
    assert_eq!(query.ids, ids(&["[CLS]", "the", "[UNK]", "[SEP]"]));
}

#[test]
fn an_empty_query_still_has_its_special_tokens() {
    assert_eq!(small().query("", 3).unwrap().ids, ids(&["[CLS]", "[SEP]"]));
}

#[test]
fn a_pair_has_the_text_as_second_segment() {
    let passage = small().passage("Title", "the cat", PassageFormat::Pair, 64).unwrap();
    assert_eq!(passage.ids, ids(&["[CLS]", "title", "[SEP]", "the", "cat", "[SEP]"]));
    assert_eq!(passage.second_segment, 3);
}

#[test]
fn a_joined_passage_and_one_without_title_are_single_segments() {
    let tokenizer = small();
    let joined = tokenizer.passage("Title", "the cat", PassageFormat::Joined, 64).unwrap();
    assert_eq!(joined.ids, ids(&["[CLS]", "title", "the", "cat", "[SEP]"]));
    assert_eq!(joined.second_segment, joined.ids.len());
    for format in [PassageFormat::Pair, PassageFormat::Joined] {
        let bare = tokenizer.passage("", "the cat", format, 64).unwrap();
        assert_eq!(bare, tokenizer.query("the cat", 64).unwrap());
    }
}

#[test]
fn the_longer_segment_is_cut_first_and_then_both_to_half() {
    let tokenizer = small();
    let lengths = |title: usize, text: usize, max_length: usize| {
        let words = |count: usize| vec!["cat"; count].join(" ");
        let passage =
            tokenizer.passage(&words(title), &words(text), PassageFormat::Pair, max_length).unwrap();
        assert!(passage.ids.len() <= max_length);
        (passage.second_segment - 2, passage.ids.len() - passage.second_segment - 1)
    };
    // What BertTokenizerFast(..., truncation="longest_first") of transformers gives.
    assert_eq!(lengths(2, 4, 9), (2, 4));
    assert_eq!(lengths(2, 20, 10), (2, 5));
    assert_eq!(lengths(20, 2, 10), (5, 2));
    assert_eq!(lengths(20, 20, 10), (3, 4));
    assert_eq!(lengths(20, 10, 10), (4, 3));
    assert_eq!(lengths(9, 9, 3), (0, 0));
    assert_eq!(lengths(9, 9, 4), (0, 1));
}

#[test]
fn a_maximum_length_without_room_is_refused() {
    let tokenizer = small();
    for max_length in 0..3 {
        let error = tokenizer.query("the cat", max_length).unwrap_err();
        assert!(
            matches!(error, EncoderError::MaxLengthTooSmall { max_length: m, least: 3 } if m == max_length)
        );
        assert!(tokenizer.passage("title", "the cat", PassageFormat::Pair, max_length).is_err());
    }
    assert_eq!(tokenizer.query("the cat", 3).unwrap().ids, ids(&["[CLS]", "the", "[SEP]"]));
}

#[test]
fn a_saved_tokenizer_reads_back_to_the_same_tokens() {
    let folder = tempdir().unwrap();
    let tokenizer = small();
    tokenizer.save(folder.path(), 77).unwrap();
    let texts = ["The cats sat on a mat.", "unsat e [SEP] [MASK] été"];
    let same = |other: &TextTokenizer| {
        assert_eq!(other.vocabulary_size(), tokenizer.vocabulary_size());
        for text in texts {
            assert_eq!(other.query(text, 64).unwrap(), tokenizer.query(text, 64).unwrap());
        }
    };
    same(&TextTokenizer::from_folder(folder.path()).unwrap());
    let config: Value =
        serde_json::from_slice(&fs::read(folder.path().join("tokenizer_config.json")).unwrap()).unwrap();
    assert_eq!(config["do_lower_case"], true);
    assert_eq!(config["model_max_length"], 77);

    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    same(&TextTokenizer::from_folder(folder.path()).unwrap());
}

#[test]
fn vocab_txt_and_tokenizer_json_of_minilm_give_the_same_tokens() {
    let Some(shared) = common::shared() else { return };
    let model = shared.join("models/all-MiniLM-L6-v2");
    let from_json = TextTokenizer::from_folder(&model).unwrap();
    let folder = tempdir().unwrap();
    fs::copy(model.join("vocab.txt"), folder.path().join("vocab.txt")).unwrap();
    let from_vocabulary = TextTokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(from_json.vocabulary_size(), 30522);
    assert_eq!(from_vocabulary.vocabulary_size(), 30522);
    for text in ["Beyoncé's naïve façade, 1,234.56 €", "東京 is 𝔱okyo\u{200d}\u{7}", "[MASK] un-believable"]
    {
        assert_eq!(from_json.query(text, 64).unwrap(), from_vocabulary.query(text, 64).unwrap());
    }
}

#[test]
fn tokenizer_json_truncation_and_padding_are_ignored() {
    let folder = tempdir().unwrap();
    small().save(folder.path(), 512).unwrap();
    let path = folder.path().join("tokenizer.json");
    let mut definition: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    definition["truncation"] =
        json!({ "max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right" });
    definition["padding"] = json!({ "strategy": { "Fixed": 16 }, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]" });
    fs::write(&path, definition.to_string()).unwrap();
    let tokenizer = TextTokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(tokenizer.query("the cat sat on a mat", 64).unwrap().ids.len(), 8);
}

#[test]
fn a_cased_vocabulary_keeps_its_case_unless_the_folder_lower_cases() {
    let folder = tempdir().unwrap();
    let tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Cat", "cat"];
    fs::write(folder.path().join("vocab.txt"), tokens.join("\n")).unwrap();
    fs::write(folder.path().join("tokenizer_config.json"), r#"{"do_lower_case": false}"#).unwrap();
    let read = || TextTokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(read().query("Cat cat", 9).unwrap().ids, [2, 5, 6, 3]);

    fs::write(folder.path().join("sentence_bert_config.json"), r#"{"do_lower_case": true}"#).unwrap();
    assert_eq!(read().query("Cat cat", 9).unwrap().ids, [2, 6, 6, 3]);

    // What was lower-cased by the wrapper stays lower-cased when saved without it.
    let copy = tempdir().unwrap();
    read().save(copy.path(), 9).unwrap();
    assert_eq!(
        TextTokenizer::from_folder(copy.path()).unwrap().query("Cat cat", 9).unwrap().ids,
        [2, 6, 6, 3]
    );
}

#[test]
fn one_tokenizer_serves_many_threads() {
    let tokenizer = small();
    let expected = tokenizer.query("the cats sat", 64).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                (0..50).for_each(|_| assert_eq!(tokenizer.query("the cats sat", 64).unwrap(), expected));
            });
        }
    });
}

#[test]
fn what_is_no_tokenizer_is_refused_with_the_file_and_the_reason() {
    let folder = tempdir().unwrap();
    let message = |name: &str, content: &str| {
        fs::write(folder.path().join(name), content).unwrap();
        let message = TextTokenizer::from_folder(folder.path()).unwrap_err().to_string();
        fs::remove_file(folder.path().join(name)).unwrap();
        assert!(message.contains(name) && !message.contains('\n'), "{message}");
        message
    };
    assert!(message("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n").contains("no token [SEP]"));
    assert!(message("tokenizer.json", "{\"version\"").contains("broken JSON"));
    assert!(message("tokenizer.json", "{}").contains("not a tokenizer"));

    small().save(folder.path(), 9).unwrap();
    let mut other: Value =
        serde_json::from_slice(&fs::read(folder.path().join("tokenizer.json")).unwrap()).unwrap();
    other["post_processor"] = Value::Null;
    let as_it_is = r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#;
    fs::write(folder.path().join("tokenizer_config.json"), as_it_is).unwrap();
    assert!(message("tokenizer.json", &other.to_string()).contains("no special token around a text"));

    let empty = tempdir().unwrap();
    let error = TextTokenizer::from_folder(empty.path()).unwrap_err();
    assert!(matches!(error, EncoderError::FileMissing { .. }), "{error}");
}

#[test]
fn a_vocabulary_names_each_word_once() {
    for words in [["cat", "cat"], ["cat", "[SEP]"]] {
        let error = TextTokenizer::from_vocabulary(words.map(String::from).to_vec()).unwrap_err();
        assert!(error.to_string().contains("twice"), "{error}");
    }
}
