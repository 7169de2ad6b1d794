//! Models of every family through the whole program: trained, gone on with to the bit, exported and encoded with.

mod common;

use std::fs;
use std::path::Path;

use common::{contaccum, succeed};
use contaccum_encoder::{DenseActivation, DenseShape, ModelConfig};
use serde_json::{Value, json};

/// Small models: `config.json` without the vocabulary; BERT is the other tests' own.
fn models() -> [(&'static str, Value); 6] {
    let bert = |model_type: &str, positions: usize| {
        json!({
            "model_type": model_type, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 48, "max_position_embeddings": positions, "pad_token_id": 0,
        })
    };
    [
        ("BertModel", Value::Null),
        ("RobertaModel", bert("roberta", 65)),
        ("XLMRobertaModel", bert("xlm-roberta", 65)),
        ("MPNetModel", bert("mpnet", 66)),
        (
            "DistilBertModel",
            json!({
                "model_type": "distilbert", "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48,
                "max_position_embeddings": 64,
            }),
        ),
        (
            "ModernBertModel",
            json!({
                "model_type": "modernbert", "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2,
                "intermediate_size": 24, "local_attention": 8, "attention_dropout": 0.1, "pad_token_id": 0,
            }),
        ),
    ]
}

/// Writes `data/`, and a model of random weights to `start/`.
fn prepare(folder: &Path, mut fields: Value) {
    if fields.is_null() {
        return common::prepare(folder, 32);
    }
    let tokenizer = common::setup::write_data(&folder.join("data"));
    fields["vocab_size"] = tokenizer.vocabulary_size().into();
    let config = ModelConfig::from_fields(fields.as_object().unwrap()).unwrap();
    common::setup::write_model_of(&folder.join("start"), &tokenizer, &config);
}

/// The weights of a model, file by file: those of a `Dense` module lie in its folder.
fn weights(folder: &Path) -> Vec<Vec<u8>> {
    let files = ["model.safetensors", "2_Dense/model.safetensors"];
    files.iter().filter_map(|file| fs::read(folder.join(file)).ok()).collect()
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Trains `start/`, goes on from before the last update, exports to `exported/` and encodes to `index/`; the weights of
/// one encoder are looked at: the only one, or that of `side`.
fn goes_through(folder: &Path, what: &str, recompute: &str, side: &str) {
    let tied = side.is_empty();
    succeed(
        folder,
        &format!(
            "train --model start --train data --output-dir run --max-steps 3 --save-steps 1 --save-total-limit 0 \
             --method contaccum --memory-bank-size 8 --local-batch-size 4 --gradient-accumulation-steps 2 \
             --query-max-length 16 --passage-max-length 40 --recompute {recompute} --tied={tied} --threads 2 \
             --learning-rate 1e-3 --quiet"
        ),
    );
    let (start, trained) = (weights(&folder.join("start")), weights(&folder.join("run/model").join(side)));
    assert_eq!(start.len(), trained.len(), "{what}");
    assert!(start.iter().zip(&trained).all(|(start, trained)| start != trained), "{what} learned nothing");
    let records = fs::read_to_string(folder.join("run/metrics.jsonl")).unwrap();
    let last: Value = serde_json::from_str(records.lines().last().unwrap()).unwrap();
    assert!(last["peak_resident_bytes"].as_u64() <= last["planned_bytes"].as_u64(), "{what}: {last}");
    // Written by the last update: without it the run goes on from the one before.
    fs::remove_dir_all(folder.join("run/checkpoint-000003")).unwrap();
    fs::remove_dir_all(folder.join("run/model")).unwrap();
    succeed(folder, "train --resume --output-dir run --quiet");
    assert!(weights(&folder.join("run/model").join(side)) == trained, "{what} went on to other bits");

    succeed(folder, "export --checkpoint run --output exported");
    assert!(weights(&folder.join("exported").join(side)) == trained, "{what}");
    for (model, index) in [("run/model", "other"), ("exported", "index")] {
        succeed(folder, &format!("encode --model {model} --corpus data --output {index} --quiet"));
    }
    let vectors = |index: &str| fs::read(folder.join(index).join("embeddings-00000.npy")).unwrap();
    assert!(vectors("other") == vectors("index"), "{what}");
}

#[test]
fn every_family_is_trained_gone_on_with_to_the_bit_exported_and_encoded_with() {
    for (index, (class, fields)) in models().into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        prepare(folder, fields);
        let recompute = ["none", "selective", "layer"][index % 3];
        let side = if index % 2 == 0 { "" } else { "query_encoder" };
        goes_through(folder, class, recompute, side);
        let config = json_of(&folder.join("exported").join(side).join("config.json"));
        assert_eq!(config["architectures"], json!([class]));
        succeed(folder, "plan --model start --query-max-length 16 --passage-max-length 40 --quiet");
    }
}

#[test]
fn a_model_with_a_dense_module_goes_through_with_one_encoder_and_with_two() {
    let shape = DenseShape { outputs: 16, bias: true, activation: DenseActivation::Tanh };
    let inputs = 32;
    for (side, encoders) in [("", 1), ("passage_encoder", 2)] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let tokenizer = common::setup::write_data(&folder.join("data"));
        common::setup::write_model(&folder.join("plain"), &tokenizer, 1, inputs);
        let path = folder.join("plain/config.json");
        let config = ModelConfig::read(&path).unwrap().with_dense(vec![shape]);
        common::setup::write_model_of(&folder.join("start"), &tokenizer, &config);

        goes_through(folder, "a model with a Dense module", "none", side);
        assert_eq!(json_of(&folder.join("index/manifest.json"))["dim"], shape.outputs);

        let planned = |model: &str| {
            let told = succeed(
                folder,
                &format!("plan --model {model} --passage-max-length 40 --tied={} --json", encoders == 1),
            );
            serde_json::from_str::<Value>(&told).unwrap()["parts_bytes"]["weights"].as_u64().unwrap() as usize
        };
        let parameters = (inputs + 1) * shape.outputs;
        assert_eq!(planned("start") - planned("plain"), encoders * parameters * size_of::<f32>());
    }
}

#[test]
fn lengths_end_where_the_positions_of_a_family_do() {
    for (fields, longest) in [(models()[1].1.clone(), 64), (models()[3].1.clone(), 64)] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        prepare(folder, fields);
        let encode = |length: usize| {
            contaccum(
                folder,
                &format!("encode --model start --corpus data --output i --max-length {length} --quiet"),
            )
        };
        let refused = encode(longest + 1);
        let stderr = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && stderr.contains(&format!("{longest} positions")), "{stderr}");
        assert!(encode(longest).status.success());
    }
}
