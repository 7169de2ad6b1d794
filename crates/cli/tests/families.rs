//! Models of every family through the whole program: trained, gone on with to the bit, exported and encoded with.

mod common;

use std::fs;
use std::path::Path;

use common::{contaccum, succeed};
use contaccum_encoder::ModelConfig;
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

fn weights(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("model.safetensors")).unwrap()
}

#[test]
fn every_family_is_trained_gone_on_with_to_the_bit_exported_and_encoded_with() {
    for (index, (class, fields)) in models().into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        prepare(folder, fields);
        let recompute = ["none", "selective", "layer"][index % 3];
        let sides = if index % 2 == 0 { "" } else { "query_encoder" };
        let tied = sides.is_empty();
        succeed(
            folder,
            &format!(
                "train --model start --train data --output-dir run --max-steps 3 --save-steps 1 --save-total-limit 0 \
                 --method contaccum --memory-bank-size 8 --local-batch-size 4 --gradient-accumulation-steps 2 \
                 --query-max-length 16 --passage-max-length 40 --recompute {recompute} --tied={tied} --threads 2 \
                 --learning-rate 1e-3 --quiet"
            ),
        );
        let trained = weights(&folder.join("run/model").join(sides));
        assert_ne!(trained, weights(&folder.join("start")), "{class} learned nothing");
        // Written by the last update: without it the run goes on from the one before.
        fs::remove_dir_all(folder.join("run/checkpoint-000003")).unwrap();
        fs::remove_dir_all(folder.join("run/model")).unwrap();
        succeed(folder, "train --resume --output-dir run --quiet");
        assert!(weights(&folder.join("run/model").join(sides)) == trained, "{class} went on to other bits");

        succeed(folder, "export --checkpoint run --output exported");
        let exported = folder.join("exported").join(sides);
        assert!(weights(&exported) == trained, "{class}");
        let config: Value = serde_json::from_slice(&fs::read(exported.join("config.json")).unwrap()).unwrap();
        assert_eq!(config["architectures"], json!([class]));
        for (model, index) in [("run/model", "one"), ("exported", "other")] {
            succeed(folder, &format!("encode --model {model} --corpus data --output {index} --quiet"));
        }
        let vectors = |index: &str| fs::read(folder.join(index).join("embeddings-00000.npy")).unwrap();
        assert!(vectors("one") == vectors("other"), "{class}");
        succeed(folder, "plan --model start --query-max-length 16 --passage-max-length 40 --quiet");
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
