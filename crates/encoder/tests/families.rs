//! Small random models of every family against what transformers computes from them in float64: vectors of several
//! poolings, and the gradient of every parameter.
//!
//! Reads `families/` of the folder in `CONTACCUM_GOLDEN`, or that folder itself, else of `reference/golden` in the
//! shared folder (`CONTACCUM_SHARED`, else `../shared`).

mod common;

use std::path::{Path, PathBuf};

use contaccum_encoder::{
    Encoder, Keep, Layout, ModelFolder, ModelSettings, Pass, PassLimits, Pooling, Recompute, TokenSequence,
    Workspace,
};
use safetensors::SafeTensors;
use serde_json::Value;

const FAMILIES: [&str; 4] = ["bert_unigram", "roberta", "xlm_roberta", "distilbert"];

/// What the reference holds of one family.
struct Golden {
    folder: PathBuf,
    values: Vec<u8>,
    texts: Value,
}

impl Golden {
    fn read(folder: PathBuf) -> Self {
        let texts = std::fs::read(folder.join("texts.json")).unwrap();
        Self {
            values: std::fs::read(folder.join("values.safetensors")).unwrap(),
            texts: serde_json::from_slice(&texts).unwrap(),
            folder,
        }
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.values).unwrap()
    }

    fn tensor(&self, name: &str) -> Vec<f64> {
        let tensors = self.tensors();
        let view = tensors.tensor(name).unwrap_or_else(|_| panic!("{}: no {name}", self.folder.display()));
        view.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
    }

    /// Token sequences of one kind. The reference gave BERT its pairs in one segment.
    fn sequences(&self, kind: &str) -> Vec<TokenSequence> {
        let ids = self.texts["ids"][kind].as_array().unwrap().iter();
        ids.map(|ids| {
            let ids: Vec<u32> = serde_json::from_value(ids.clone()).unwrap();
            TokenSequence { second_segment: ids.len(), ids }
        })
        .collect()
    }
}

fn golden() -> Option<Vec<Golden>> {
    let folder = match std::env::var_os("CONTACCUM_GOLDEN") {
        Some(folder) => PathBuf::from(folder),
        None => common::shared()?.join("reference/golden"),
    };
    let within = folder.join("families");
    let folder = if within.is_dir() { within } else { folder };
    Some(FAMILIES.iter().map(|name| Golden::read(folder.join(name))).collect())
}

/// The model of a folder, with what makes vectors of its hidden states replaced.
fn encoder(folder: &Path, pooling: Pooling, normalize: bool) -> Encoder {
    let folder = ModelFolder::locate(folder.to_str().unwrap()).unwrap();
    let config = folder.config().unwrap().with_dropout(0.0);
    let weights = folder.weights(&Layout::new(&config)).unwrap();
    let settings = ModelSettings { pooling, normalize, ..ModelSettings::plain(&config) };
    Encoder::new(config, settings, weights)
}

/// A pass over the sequences, and a workspace for it and its backward pass.
fn pass(encoder: &Encoder, sequences: &[TokenSequence], recompute: Recompute) -> (Pass, Workspace) {
    let lengths = || sequences.iter().map(|sequence| sequence.ids.len());
    let limits =
        PassLimits { tokens: lengths().sum(), sequences: sequences.len(), longest: lengths().max().unwrap() };
    let mut pass = Pass::new(encoder.config(), limits);
    sequences.iter().for_each(|sequence| pass.push(sequence, 0));
    let keep = Keep::ForBackward { tokens: limits.tokens, recompute };
    (pass, Workspace::new(encoder.config(), limits, keep))
}

fn vectors(encoder: &Encoder, sequences: &[TokenSequence]) -> Vec<f32> {
    let (mut pass, mut workspace) = pass(encoder, sequences, Recompute::None);
    let mut out = vec![0.0; sequences.len() * encoder.dim()];
    encoder.represent(&mut pass, &mut workspace, None, &mut out);
    out
}

fn largest_difference(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).map(|(got, want)| (f64::from(*got) - want).abs()).fold(0.0, f64::max)
}

#[test]
fn vectors_of_every_family_agree_with_transformers() {
    for golden in golden().into_iter().flatten() {
        for kind in ["single", "pair"] {
            let sequences = golden.sequences(kind);
            for (name, pooling) in [("cls", Pooling::Cls), ("mean", Pooling::Mean)] {
                let got = vectors(&encoder(&golden.folder, pooling, false), &sequences);
                let difference = largest_difference(&got, &golden.tensor(&format!("{kind}.{name}")));
                assert!(difference <= 2e-5, "{} {kind} {name}: {difference}", golden.folder.display());
            }
        }
    }
}

#[test]
fn gradients_of_every_parameter_agree_with_transformers_under_every_policy() {
    for golden in golden().into_iter().flatten() {
        let sequences = golden.sequences("pair");
        let encoder = encoder(&golden.folder, Pooling::Mean, true);
        let weights: Vec<f32> = golden.tensor("gradient.weights").iter().map(|w| *w as f32).collect();
        for recompute in Recompute::ALL {
            let (mut pass, mut workspace) = pass(&encoder, &sequences, recompute);
            let mut out = vec![0.0; weights.len()];
            encoder.represent(&mut pass, &mut workspace, None, &mut out);
            let mut gradient = vec![0.0; encoder.layout().parameters()];
            encoder.backpropagate(&mut pass, &mut workspace, None, &mut weights.clone(), &mut gradient);
            for tensor in encoder.layout().tensors() {
                let want = golden.tensor(&format!("gradient.of.{}", tensor.name));
                let got = &gradient[tensor.range.clone()];
                let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
                let off = norm(&mut got.iter().zip(&want).map(|(g, w)| f64::from(*g) - w));
                let length = norm(&mut want.iter().copied());
                // The key's bias changes no probability: its gradient is what rounding leaves of 0.
                let floor = if length < 1e-12 { 1e-5 } else { 1e-4 * length };
                assert!(
                    off <= floor,
                    "{} {recompute:?} {}: off by {off:.1e} of {length:.1e}",
                    golden.folder.display(),
                    tensor.name
                );
            }
            let parameters =
                golden.tensors().names().iter().filter(|name| name.starts_with("gradient.of.")).count();
            assert_eq!(parameters, encoder.layout().tensors().len(), "{}", golden.folder.display());
        }
    }
}
