//! Ids of every family's tokenizer against those of transformers.
//!
//! Reads `families/*/texts.json` of the folder in `CONTACCUM_GOLDEN`, else of `reference/golden` in the shared folder.

mod common;

use std::{fs, path::Path};

use contaccum_encoder::{PassageFormat, TextTokenizer};
use serde_json::Value;
use tempfile::tempdir;

const FAMILIES: [&str; 6] = ["bert_unigram", "roberta", "xlm_roberta", "distilbert", "mpnet", "modernbert"];

/// Checks a tokenizer against the ids in a family's `texts.json`; how many ids were held against each other.
fn agree(tokenizer: &TextTokenizer, golden: &Value, name: &str) -> usize {
    let list = |value: &Value| value.as_array().unwrap().clone();
    let strings = |value: &Value| -> Vec<String> {
        list(value).iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let ids = |value: &Value| -> Vec<u32> {
        list(value).iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
    };
    let max_length = golden["max_length"].as_u64().unwrap() as usize;
    let (titles, texts) = (strings(&golden["titles"]), strings(&golden["texts"]));
    let (single, pair) = (list(&golden["ids"]["single"]), list(&golden["ids"]["pair"]));
    assert!(!texts.is_empty() && titles.len() == texts.len());
    assert!(single.len() == texts.len() && pair.len() == texts.len());
    let mut compared = 0;
    for (i, (title, text)) in titles.iter().zip(&texts).enumerate() {
        let one = tokenizer.query(text, max_length).unwrap();
        assert_eq!(one.ids, ids(&single[i]), "{name}: {text:?}");
        assert_eq!(one.second_segment, one.ids.len());
        let two = tokenizer.passage(title, text, PassageFormat::Pair, max_length).unwrap();
        assert_eq!(two.ids, ids(&pair[i]), "{name}: {title:?} {text:?}");
        assert_eq!(two.second_segment, two.ids.len(), "{name} gives no token types");
        compared += one.ids.len() + two.ids.len();
    }
    compared
}

fn golden(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("texts.json")).unwrap()).unwrap()
}

#[test]
fn every_family_tokenises_as_transformers_and_does_so_again_from_its_saved_files() {
    let Some(shared) = common::shared() else { return };
    let folder = std::env::var_os("CONTACCUM_GOLDEN").map_or(shared.join("reference/golden"), Into::into);
    for family in FAMILIES {
        let folder = folder.join("families").join(family);
        let golden = golden(&folder);
        let tokenizer = TextTokenizer::from_folder(&folder).unwrap();
        assert!(agree(&tokenizer, &golden, family) > 100, "{family}");
        let copy = tempdir().unwrap();
        tokenizer.save(copy.path(), 48).unwrap();
        fs::copy(folder.join("config.json"), copy.path().join("config.json")).unwrap();
        let again = TextTokenizer::from_folder(copy.path()).unwrap();
        agree(&again, &golden, family);
        assert_eq!(again.fingerprint(), tokenizer.fingerprint(), "{family}");
    }
}
