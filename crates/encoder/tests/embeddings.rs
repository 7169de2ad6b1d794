//! Vectors of real texts against float64 PyTorch, for both poolings.
//!
//! Reads `embeddings.safetensors` and `rows.json` of the folder in `CONTACCUM_GOLDEN`, else of `reference/golden` in
//! the shared folder (`CONTACCUM_SHARED`, else `../shared`).

mod common;

use std::collections::HashMap;
use std::path::PathBuf;

use contaccum_encoder::{
    Bf16Encoder, Embedder, Encoder, Layout, ModelFolder, ModelSettings, PackedTokens, PassLimits,
    PassageFormat, Pooling,
};
use safetensors::SafeTensors;
use serde_json::Value;

fn cosine(got: &[f32], want: &[f64]) -> f64 {
    let got: Vec<f64> = got.iter().map(|&x| f64::from(x)).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    dot(&got, want) / (dot(&got, &got) * dot(want, want)).sqrt()
}

#[test]
fn vectors_agree_with_the_reference() {
    let Some(shared) = common::shared() else { return };
    let golden =
        std::env::var_os("CONTACCUM_GOLDEN").map_or_else(|| shared.join("reference/golden"), PathBuf::from);
    let rows: Value = serde_json::from_slice(&std::fs::read(golden.join("rows.json")).unwrap()).unwrap();
    let passages: HashMap<String, Value> = std::fs::read_to_string(shared.join("data/squad/corpus.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|passage| (passage["_id"].as_str().unwrap().to_owned(), passage))
        .collect();
    let folder = ModelFolder::locate(shared.join("models/all-MiniLM-L6-v2").to_str().unwrap()).unwrap();
    let (config, tokenizer) = (folder.config().unwrap(), folder.tokenizer().unwrap());
    let weights = folder.weights(&Layout::new(&config)).unwrap();
    let bytes = std::fs::read(golden.join("embeddings.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();

    for (name, view) in tensors.tensors() {
        let (side, pooling) = name.split_once('.').unwrap();
        let count = view.shape()[0];
        let expected: Vec<f64> =
            view.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect();
        let packed: PackedTokens = rows["rows"].as_array().unwrap()[..count]
            .iter()
            .map(|row| {
                if side == "query" {
                    return tokenizer.query(row["query"].as_str().unwrap(), 64).unwrap();
                }
                let p = &passages[row["positive"].as_str().unwrap()];
                let (title, text) = (p["title"].as_str().unwrap(), p["text"].as_str().unwrap());
                tokenizer.passage(title, text, PassageFormat::Pair, 256).unwrap()
            })
            .collect::<Vec<_>>()
            .iter()
            .collect();
        let (pooling, normalize) =
            if pooling == "mean" { (Pooling::Mean, true) } else { (Pooling::Cls, false) };
        let settings = ModelSettings { pooling, normalize, ..folder.settings().unwrap() };
        let encoder = Encoder::new(config.clone(), settings, weights.clone());
        let limits = PassLimits { tokens: packed.tokens(), sequences: count, longest: 256 };
        let mut vectors = vec![0.0; count * encoder.dim()];
        Embedder::new(&config, limits).embed(&encoder, &packed, &mut vectors);
        let dim = encoder.dim();
        let mut rounded = vec![0.0; vectors.len()];
        match Bf16Encoder::new(&encoder) {
            Ok(encoder) => encoder.embed(&mut Embedder::new(&config, limits), &packed, &mut rounded),
            Err(error) => {
                println!("bf16 skipped: {error}");
                rounded.copy_from_slice(&vectors);
            }
        }
        for (i, (got, want)) in rounded.chunks(dim).zip(expected.chunks(dim)).enumerate() {
            let cosine = cosine(got, want);
            assert!(cosine >= 0.9995, "{name} {i} in bf16: cosine {cosine}");
        }
        for (i, (got, want)) in vectors.chunks(dim).zip(expected.chunks(dim)).enumerate() {
            let cosine = cosine(got, want);
            let worst = (0..dim).map(|c| (f64::from(got[c]) - want[c]).abs()).fold(0.0, f64::max);
            assert!(cosine >= 0.999999, "{name} {i}: cosine {cosine}");
            assert!(worst <= 2e-5, "{name} {i}: largest difference {worst}");
        }
    }
}
