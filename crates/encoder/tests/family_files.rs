//! The files of every family: configurations in both spellings, refusals by name, weights of models with a head, exports.

use std::{collections::HashMap, path::Path};

use contaccum_encoder::{
    Bf16Encoder, Embedder, Encoder, Layout, ModelConfig, ModelSettings, PackedTokens, PassLimits, Pooling,
    TokenSequence, load_weights, random_weights, save_weights,
};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};

/// A small model of every family: its class, the prefix of models with a head, its fields.
fn families() -> [(&'static str, &'static str, Value); 6] {
    let bert = |model_type: &str| {
        json!({ "model_type": model_type, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 12, "vocab_size": 20, "max_position_embeddings": 34 })
    };
    [
        ("BertModel", "bert.", bert("bert")),
        ("RobertaModel", "roberta.", bert("roberta")),
        ("XLMRobertaModel", "roberta.", bert("xlm-roberta")),
        ("MPNetModel", "mpnet.", bert("mpnet")),
        (
            "DistilBertModel",
            "distilbert.",
            json!({ "model_type": "distilbert", "dim": 8, "n_layers": 2, "n_heads": 2, "hidden_dim": 12,
                "vocab_size": 20, "max_position_embeddings": 32, "sinusoidal_pos_embds": true }),
        ),
        (
            "ModernBertModel",
            "model.",
            json!({ "model_type": "modernbert", "hidden_size": 8, "num_hidden_layers": 4, "num_attention_heads": 2,
                "intermediate_size": 6, "vocab_size": 20, "pad_token_id": 0, "local_attention": 6 }),
        ),
    ]
}

fn config(fields: &Value) -> Result<ModelConfig, String> {
    ModelConfig::from_fields(fields.as_object().unwrap()).map_err(|error| error.to_string())
}

fn with(fields: &Value, name: &str, value: Value) -> Value {
    let mut fields = fields.clone();
    fields[name] = value;
    fields
}

fn written(config: &ModelConfig) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    config.write(&path).unwrap();
    assert_eq!(&ModelConfig::read(&path).unwrap(), config);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn what_is_written_reads_back_and_names_the_class() {
    for (class, _, fields) in families() {
        let config = config(&fields).unwrap();
        let written = written(&config);
        assert_eq!(written["architectures"], json!([class]));
        for (name, value) in fields.as_object().unwrap() {
            assert_eq!(&written[name], value, "{class} {name}");
        }
        // Without a model_type the class decides.
        let mut unnamed = with(&fields, "architectures", json!([class.replace("Model", "ForMaskedLM")]));
        unnamed["model_type"] = Value::Null;
        assert_eq!(self::config(&unnamed).unwrap(), config, "{class}");
    }
}

#[test]
fn ids_of_special_tokens_are_written_as_they_were_and_decide_nothing() {
    let ids = json!({ "bos_token_id": 2, "eos_token_id": [3, 4], "cls_token_id": null, "sep_token_id": 3 });
    for (class, _, fields) in families() {
        let without = config(&fields).unwrap();
        let mut fields = fields;
        fields.as_object_mut().unwrap().extend(ids.as_object().unwrap().clone());
        let own = config(&fields).unwrap();
        assert_eq!(own.fingerprint(), without.fingerprint(), "{class}");
        let (own, without) = (written(&own.with_dropout(0.25)), written(&without));
        for (name, id) in ids.as_object().unwrap() {
            assert_eq!((own.get(name), without.get(name)), (Some(id), None), "{class} {name}");
        }
    }
}

#[test]
fn a_dropout_rate_is_that_of_every_dropout_and_changes_no_vector() {
    for (class, _, fields) in families() {
        let config = config(&fields).unwrap();
        let dropped = config.with_dropout(0.25);
        assert_eq!(dropped.fingerprint(), config.fingerprint(), "{class}");
        assert_ne!(dropped.dropout_fingerprint(), config.dropout_fingerprint(), "{class}");
        let rates = dropped.architecture().dropout;
        assert_eq!((rates.embeddings, rates.attention), (0.25, 0.25), "{class}");
    }
}

#[test]
fn modernbert_is_one_model_in_the_spelling_of_transformers_4_and_of_5() {
    let [.., (_, _, fields)] = families();
    let mut old = fields.clone();
    old.as_object_mut().unwrap().extend(
        json!({ "global_attn_every_n_layers": 3, "global_rope_theta": 1000.0, "local_rope_theta": 50.0 })
            .as_object()
            .unwrap()
            .clone(),
    );
    let mut new = fields.clone();
    new["layer_types"] =
        json!(["full_attention", "sliding_attention", "sliding_attention", "full_attention"]);
    new["rope_parameters"] = json!({
        "full_attention": { "rope_theta": 1000.0, "rope_type": "default" },
        "sliding_attention": { "rope_theta": 50, "rope_type": "default" },
    });
    let (old, new) = (config(&old).unwrap(), config(&new).unwrap());
    assert_eq!(old, new);
    assert_eq!(old.architecture(), new.architecture());
    assert_eq!(old.architecture().rotary_bases, [1000.0, 50.0]);
    let windows: Vec<Option<usize>> = old.architecture().layers.iter().map(|layer| layer.window).collect();
    assert_eq!(windows, [None, Some(3), Some(3), None]);
    let written = written(&old);
    assert_eq!(written["rope_parameters"]["sliding_attention"]["rope_theta"], 50.0);
    assert_eq!(written["local_rope_theta"], 50.0);

    let bases = |fields: &Value| config(fields).unwrap().architecture().rotary_bases.clone();
    assert_eq!(bases(&fields), [160_000.0, 10_000.0]);
    assert_eq!(bases(&with(&fields, "local_rope_theta", Value::Null)), [160_000.0; 2]);
    // Other layers than every so many.
    let types = json!(["sliding_attention", "full_attention", "full_attention", "sliding_attention"]);
    let other = config(&with(&fields, "layer_types", types.clone())).unwrap();
    assert_eq!(self::written(&other)["layer_types"], types);
    assert_ne!(other, config(&fields).unwrap());
}

#[test]
fn positions_begin_behind_the_padding_token_where_the_family_has_it_so() {
    let longest = |fields: &Value| config(fields).unwrap().architecture().longest;
    let [bert, roberta, _, mpnet, ..] = families().map(|(_, _, fields)| fields);
    assert_eq!([longest(&bert), longest(&roberta), longest(&mpnet)], [34, 32, 32]);
    // RoBERTa's first position is the padding token's, MPNet's is not.
    assert_eq!(longest(&with(&roberta, "pad_token_id", json!(5))), 28);
    assert_eq!(longest(&with(&mpnet, "pad_token_id", json!(5))), 32);
}

#[test]
fn what_a_family_does_not_do_is_refused_by_name() {
    let cases = [
        (0, "position_embedding_type", json!("relative_key"), "relative_key"),
        (1, "is_decoder", json!(true), "is_decoder"),
        (1, "max_position_embeddings", json!(4), "max_position_embeddings 4 leaves"),
        (3, "relative_attention_num_buckets", json!(16), "relative_attention_num_buckets is 16"),
        (3, "hidden_act", json!("silu"), "hidden_act silu"),
        (4, "n_heads", json!(3), "dim 8 is not a multiple of n_heads 3"),
        (4, "activation", json!("swish"), "activation swish"),
        (5, "hidden_activation", json!("silu"), "hidden_activation silu"),
        (5, "num_attention_heads", json!(8), "heads of 1 columns"),
        (5, "layer_types", json!(["full_attention"]), "lists 1 layers"),
        (
            5,
            "layer_types",
            json!(["full_attention", "chunked_attention", "full_attention", "x"]),
            "chunked_attention",
        ),
        (5, "rope_scaling", json!({ "rope_type": "yarn" }), "rope_scaling"),
        (5, "rope_parameters", json!({ "full_attention": { "rope_type": "yarn" } }), "\"yarn\""),
        (5, "rope_parameters", json!({ "rope_theta": 1e4 }), "rope_theta"),
        (5, "global_rope_theta", json!(0), "global_rope_theta is 0"),
        (5, "norm_bias", json!("no"), "norm_bias"),
    ];
    for (family, name, value, expected) in cases {
        let (class, _, fields) = &families()[family];
        let message = config(&with(fields, name, value)).unwrap_err();
        assert!(message.contains(expected) && !message.contains('\n'), "{class} {name}: {message}");
    }
    let near = config(&json!({ "model_type": "modernbert-decoder" })).unwrap_err();
    assert!(near.contains("\"modernbert-decoder\" is not supported; bert, roberta,"), "{near}");
}

fn write_with_prefix(path: &Path, layout: &Layout, weights: &[f32], prefix: &str) {
    let bytes: Vec<u8> = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
    let head = vec![0; 4 * 20];
    let mut tensors: HashMap<String, TensorView> = layout
        .tensors()
        .iter()
        .map(|tensor| {
            let data = &bytes[4 * tensor.range.start..4 * tensor.range.end];
            (
                format!("{prefix}{}", tensor.name),
                TensorView::new(Dtype::F32, tensor.shape.clone(), data).unwrap(),
            )
        })
        .collect();
    tensors.insert("lm_head.bias".into(), TensorView::new(Dtype::F32, vec![20], &head).unwrap());
    std::fs::write(path, safetensors::serialize(tensors, None).unwrap()).unwrap();
}

#[test]
fn the_encoder_of_a_model_with_a_head_is_read_and_written_without() {
    for (class, prefix, fields) in families() {
        let config = config(&fields).unwrap();
        let layout = Layout::new(&config);
        let weights = random_weights(&config, &layout, 3);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        write_with_prefix(&path, &layout, &weights, prefix);
        assert_eq!(load_weights(&path, &[], &layout).unwrap(), weights, "{class}");
        save_weights(&path, &[], &layout, &weights).unwrap();
        assert_eq!(load_weights(&path, &[], &layout).unwrap(), weights, "{class}");
    }
}

#[test]
fn neither_norms_nor_biases_decay_whatever_a_family_calls_them() {
    let decays = |family: usize, name: &str| {
        let layout = Layout::new(&config(&families()[family].2).unwrap());
        layout.tensors().iter().find(|tensor| tensor.name == name).unwrap().decays()
    };
    assert!(!decays(4, "transformer.layer.0.sa_layer_norm.weight"));
    assert!(!decays(5, "layers.1.attn_norm.weight") && !decays(5, "final_norm.weight"));
    assert!(!decays(5, "embeddings.norm.weight"));
    assert!(!decays(3, "encoder.relative_attention_bias.weight"));
    assert!(decays(5, "layers.1.mlp.Wi.weight") && decays(5, "embeddings.tok_embeddings.weight"));
}

#[test]
fn products_in_bfloat16_give_nearly_the_same_vectors_of_every_family() {
    for (class, _, fields) in families() {
        let config = config(&fields).unwrap();
        let layout = Layout::new(&config);
        let settings =
            ModelSettings { pooling: Pooling::Mean, normalize: true, ..ModelSettings::plain(&config) };
        let encoder = Encoder::new(config.clone(), settings, random_weights(&config, &layout, 3));
        let ids = vec![2, 7, 3, 9, 11, 12, 4, 4, 5];
        let tokens = PackedTokens::from_iter([&TokenSequence { second_segment: ids.len(), ids }]);
        let limits = PassLimits { tokens: 9, sequences: 1, longest: 9 };
        let (mut exact, mut rounded) = (vec![0.0; 8], vec![0.0; 8]);
        Embedder::new(&config, limits).embed(&encoder, &tokens, &mut exact);
        match Bf16Encoder::new(&encoder) {
            Ok(encoder) => encoder.embed(&mut Embedder::new(&config, limits), &tokens, &mut rounded),
            Err(error) => {
                println!("skipped: {error}");
                return;
            }
        }
        let cosine: f32 = exact.iter().zip(&rounded).map(|(a, b)| a * b).sum();
        assert!(cosine > 0.9995 && exact != rounded, "{class}: {cosine}");
    }
}
