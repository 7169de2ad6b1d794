//! Files of a model folder as they are found: written by other programs, in several parts, or not what they are named.

use std::{collections::HashMap, fs, path::Path};

use contaccum_encoder::{
    BertConfig, Embedder, Encoder, Layout, ModelConfig, ModelFolder, ModelSettings, PackedTokens,
};
use contaccum_encoder::{
    PassLimits, PassageFormat, TextTokenizer, TokenSequence, load_weights, random_weights,
};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

fn tiny_bert() -> BertConfig {
    BertConfig {
        hidden_size: 8,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 12,
        vocab_size: 11,
        max_position_embeddings: 16,
        ..BertConfig::default()
    }
}

fn tiny() -> ModelConfig {
    tiny_bert().try_into().unwrap()
}

/// A folder of a whole tiny model.
fn model() -> TempDir {
    let folder = tempdir().unwrap();
    let layout = Layout::new(&tiny());
    tiny().write(&folder.path().join("config.json")).unwrap();
    let words = (0..6).map(|i| format!("word{i}")).collect();
    TextTokenizer::from_vocabulary(words).unwrap().save(folder.path(), 16).unwrap();
    let weights = random_weights(&tiny(), &layout, 1);
    contaccum_encoder::save_weights(&folder.path().join("model.safetensors"), &[], &layout, &weights)
        .unwrap();
    folder
}

/// Reads everything of a model folder.
fn open(folder: &Path) -> Result<(ModelConfig, Vec<f32>), String> {
    let all = || {
        let model = ModelFolder::locate(folder.to_str().unwrap())?;
        model.settings()?;
        model.tokenizer()?;
        let config = model.config()?;
        let weights = model.weights(&Layout::new(&config))?;
        Ok((config, weights))
    };
    all().map_err(|error: contaccum_encoder::EncoderError| error.to_string())
}

fn change(folder: &Path, file: &str, change: impl FnOnce(&mut Value)) {
    let path = folder.join(file);
    let mut content: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut content);
    fs::write(path, content.to_string()).unwrap();
}

#[test]
fn null_is_the_default_and_a_whole_number_may_be_written_with_a_point() {
    let folder = model();
    let expected = open(folder.path()).unwrap();
    change(folder.path(), "config.json", |config| {
        for (name, value) in config.as_object_mut().unwrap() {
            match value.as_u64() {
                Some(number) => *value = json!(number as f64),
                None if name != "hidden_act" => *value = Value::Null,
                None => {}
            }
        }
        config["pad_token_id"] = Value::Null;
        config["hidden_act"] = Value::Null;
    });
    assert_eq!(open(folder.path()).unwrap(), expected);
    let bytes = fs::read(folder.path().join("config.json")).unwrap();
    fs::write(folder.path().join("config.json"), [b"\xef\xbb\xbf".as_slice(), &bytes].concat()).unwrap();
    assert_eq!(open(folder.path()).unwrap(), expected, "a byte order mark changes nothing");
}

#[test]
fn a_model_of_another_family_is_refused_by_its_name_with_what_is_supported() {
    let folder = model();
    change(folder.path(), "config.json", |config| config["model_type"] = json!("deberta-v2"));
    let message = open(folder.path()).unwrap_err();
    assert!(message.contains("model_type \"deberta-v2\" is not supported; bert, roberta, "), "{message}");
    change(folder.path(), "config.json", |config| {
        config["model_type"] = Value::Null;
        config["architectures"] = json!(["T5EncoderModel"]);
    });
    let message = open(folder.path()).unwrap_err();
    assert!(message.contains("T5EncoderModel is not supported"), "{message}");
}

#[test]
fn what_is_not_the_file_of_its_name_is_told_in_every_place_of_a_folder() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 90868376\n".as_slice();
    let contents: [(&[u8], &str); 6] = [
        (pointer, "git lfs pull"),
        (b"<!doctype html><html><title>Sign in</title>", "web page"),
        (b"PK\x03\x04\0\0\0\0archive/data.pkl", "PyTorch"),
        (b"GGUF\x03\0\0\0\0\0\0\0", "GGUF"),
        (b"PAR1\x15\x04\x15\x00", "Parquet"),
        (b"", "is empty; fetch it again"),
    ];
    let files = [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "vocab.txt",
        "model.safetensors",
        "modules.json",
        "config_sentence_transformers.json",
    ];
    for file in files {
        for (content, expected) in contents {
            let folder = model();
            if file == "config_sentence_transformers.json" {
                let kinds =
                    ["Transformer", "Pooling"].map(|kind| format!("sentence_transformers.models.{kind}"));
                let module =
                    |i: usize| json!({ "path": if i == 0 { "" } else { "1_Pooling" }, "type": kinds[i] });
                fs::write(folder.path().join("modules.json"), json!([module(0), module(1)]).to_string())
                    .unwrap();
                fs::create_dir(folder.path().join("1_Pooling")).unwrap();
                fs::write(folder.path().join("1_Pooling/config.json"), r#"{"pooling_mode": "mean"}"#)
                    .unwrap();
            }
            // Older files are read where the newer are missing.
            let newer = match file {
                "special_tokens_map.json" => Some("tokenizer_config.json"),
                "vocab.txt" => Some("tokenizer.json"),
                _ => None,
            };
            newer.into_iter().for_each(|newer| fs::remove_file(folder.path().join(newer)).unwrap());
            fs::write(folder.path().join(file), content).unwrap();
            let message = open(folder.path()).unwrap_err();
            assert!(message.contains(expected) && message.contains(file), "{file}: {message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }
}

/// Writes the tensors of a layout for which `wanted` says so, as f16.
fn write_shard(path: &Path, layout: &Layout, weights: &[f32], wanted: impl Fn(usize) -> bool) -> Vec<String> {
    let bytes = |range: std::ops::Range<usize>| -> Vec<u8> {
        weights[range].iter().flat_map(|w| half::f16::from_f32(*w).to_le_bytes()).collect()
    };
    let tensors: HashMap<String, (Vec<usize>, Vec<u8>)> = layout
        .tensors()
        .iter()
        .enumerate()
        .filter(|(i, _)| wanted(*i))
        .map(|(_, tensor)| {
            (format!("bert.{}", tensor.name), (tensor.shape.clone(), bytes(tensor.range.clone())))
        })
        .collect();
    let views = tensors
        .iter()
        .map(|(name, (shape, bytes))| (name, TensorView::new(Dtype::F16, shape.clone(), bytes).unwrap()));
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
    tensors.into_keys().collect()
}

#[test]
fn weights_in_several_files_load_by_their_index() {
    let folder = model();
    let layout = Layout::new(&tiny());
    let weights: Vec<f32> = (0..layout.parameters()).map(|i| (i % 31) as f32 / 8.0 - 1.0).collect();
    let path = folder.path();
    fs::remove_file(path.join("model.safetensors")).unwrap();
    let mut map = serde_json::Map::new();
    for part in 0..3 {
        let file = format!("model-0000{}-of-00003.safetensors", part + 1);
        let names = write_shard(&path.join(&file), &layout, &weights, |i| i % 3 == part);
        map.extend(names.into_iter().map(|name| (name, json!(file))));
    }
    let index = path.join("model.safetensors.index.json");
    fs::write(&index, json!({ "metadata": { "total_size": 1 }, "weight_map": map }).to_string()).unwrap();
    assert_eq!(open(path).unwrap().1, weights);
    assert_eq!(load_weights(&index, &[], &layout).unwrap(), weights);

    let second = path.join("model-00002-of-00003.safetensors");
    fs::write(&second, b"version https://git-lfs.github.com/spec/v1\n").unwrap();
    let message = open(path).unwrap_err();
    assert!(message.contains("model-00002-of-00003.safetensors: is a Git LFS pointer"), "{message}");
    fs::remove_file(&second).unwrap();
    let message = open(path).unwrap_err();
    assert!(message.contains("model-00002-of-00003.safetensors: file missing"), "{message}");
    for outside in ["../model.safetensors", "/etc/passwd", "a/b.safetensors", ".."] {
        fs::write(&index, json!({ "weight_map": { "a": outside } }).to_string()).unwrap();
        let message = open(path).unwrap_err();
        assert!(message.contains("not a file of this folder"), "{message}");
    }
    fs::write(&index, "{}").unwrap();
    assert!(open(path).unwrap_err().contains("weight_map"));
    fs::remove_file(&index).unwrap();
    assert!(open(path).unwrap_err().contains("only weights as model-00001-of-00003.safetensors are there"));
}

#[test]
fn a_header_that_declares_more_than_the_file_holds_costs_no_memory() {
    let folder = model();
    let path = folder.path().join("model.safetensors");
    let layout = Layout::new(&tiny());
    let file = |length: u64, header: &str| [&length.to_le_bytes()[..], header.as_bytes()].concat();
    let tensor = |shape: &str, end: u64| {
        let header = format!("{{\"a\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":[0,{end}]}}}}");
        file(header.len() as u64, &header)
    };
    let contents = [
        file(u64::MAX, "{\"a\":1}"),
        file(99_000_000, "{\"a\":1}"),
        tensor("[2147483648]", 8 << 30),
        tensor("[2305843009213693951]", (1 << 63) - 4),
        tensor("[4294967296,4294967296]", 0),
        tensor("[-1]", 4),
    ];
    for content in contents {
        fs::write(&path, content).unwrap();
        let message = load_weights(&path, &[], &layout).unwrap_err().to_string();
        assert!(message.contains("not a sound safetensors file"), "{message}");
    }
}

#[test]
fn with_a_single_token_type_a_pair_is_of_one_type() {
    let folder = tempdir().unwrap();
    let config = ModelConfig::try_from(BertConfig { type_vocab_size: 1, ..tiny_bert() }).unwrap();
    config.write(&folder.path().join("config.json")).unwrap();
    let words = (0..6).map(|i| format!("word{i}")).collect();
    TextTokenizer::from_vocabulary(words).unwrap().save(folder.path(), 16).unwrap();
    let model = ModelFolder::locate(folder.path().to_str().unwrap()).unwrap();
    let pair = model.tokenizer().unwrap().passage("word1", "word2", PassageFormat::Pair, 16).unwrap();
    assert_eq!(pair, TokenSequence { ids: vec![2, 6, 3, 7, 3], second_segment: 5 });

    let layout = Layout::new(&config);
    let encoder =
        Encoder::new(config.clone(), ModelSettings::plain(&config), random_weights(&config, &layout, 1));
    let limits = PassLimits { tokens: 5, sequences: 1, longest: 5 };
    let mut vector = vec![0.0; 8];
    Embedder::new(&config, limits).embed(&encoder, &PackedTokens::from_iter([&pair]), &mut vector);
    assert!(vector.iter().all(|value| value.is_finite() && *value != 0.0));
}
