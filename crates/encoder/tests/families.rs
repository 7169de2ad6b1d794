//! Small random models of every family against what transformers computes from them in float64: vectors of several
//! poolings, and the gradient of every parameter.
//!
//! Reads `families/` of the folder in `CONTACCUM_GOLDEN`, or that folder itself, else of `reference/golden` in the
//! shared folder (`CONTACCUM_SHARED`, else `../shared`).

mod common;
mod plain;

use std::path::{Path, PathBuf};

use contaccum_encoder::{
    DropoutStream, Encoder, Keep, Layout, ModelFolder, ModelSettings, Pass, PassLimits, Pooling, Recompute,
    Tensor, TokenSequence, Workspace,
};
use plain::Plain;
use safetensors::SafeTensors;
use serde_json::Value;

/// Nothing is dropped here.
pub const STREAM: DropoutStream = DropoutStream { seed: 0, update: 0 };

const FAMILIES: [&str; 6] = ["bert_unigram", "roberta", "xlm_roberta", "distilbert", "mpnet", "modernbert"];

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

/// The largest difference over the rows of `width` that the reference holds: transformers' eager attention gives NaN to
/// padding that a window leaves without a key, and with it to whole sequences that are shorter than the batch's longest.
fn largest_difference(got: &[f32], want: &[f64], width: usize) -> f64 {
    assert_eq!(got.len(), want.len());
    let rows =
        got.chunks(width).zip(want.chunks(width)).filter(|(_, want)| want.iter().all(|w| w.is_finite()));
    let differences = rows.map(|(got, want)| {
        let of_row = got.iter().zip(want).map(|(got, want)| (f64::from(*got) - want).abs());
        of_row.fold(0.0, |largest, off| if off <= largest { largest } else { off })
    });
    differences.reduce(|a, b| if b <= a { a } else { b }).expect("a reference of numbers")
}

#[test]
fn vectors_of_every_family_agree_with_transformers() {
    for golden in golden().into_iter().flatten() {
        for kind in ["single", "pair"] {
            let sequences = golden.sequences(kind);
            let poolings = [Pooling::Cls, Pooling::Mean, Pooling::Max, Pooling::LastToken];
            for (name, pooling) in ["cls", "mean", "max", "last"].into_iter().zip(poolings) {
                let encoder = encoder(&golden.folder, pooling, false);
                let (got, want) = (vectors(&encoder, &sequences), golden.tensor(&format!("{kind}.{name}")));
                let difference = largest_difference(&got, &want, encoder.dim());
                assert!(difference <= 2e-5, "{} {kind} {name}: {difference}", golden.folder.display());
            }
        }
    }
}

/// The gradient of the normalised means of `sequences`, weighed by `weights`, and `backward` through all of it.
fn gradient(
    encoder: &Encoder,
    sequences: &[TokenSequence],
    weights: &[f32],
    recompute: Recompute,
) -> Vec<f32> {
    let (mut pass, mut workspace) = pass(encoder, sequences, recompute);
    encoder.represent(&mut pass, &mut workspace, None, &mut vec![0.0; weights.len()]);
    let mut gradient = vec![0.0; encoder.layout().parameters()];
    encoder.backpropagate(&mut pass, &mut workspace, None, &mut weights.to_vec(), &mut gradient);
    gradient
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

#[test]
fn gradients_of_every_parameter_agree_with_transformers_under_every_policy() {
    for golden in golden().into_iter().flatten() {
        let sequences = golden.sequences("pair");
        let encoder = encoder(&golden.folder, Pooling::Mean, true);
        let weights: Vec<f32> = golden.tensor("gradient.weights").iter().map(|w| *w as f32).collect();
        let place = golden.folder.display();
        let names = golden.tensors().names().iter().filter(|name| name.starts_with("gradient.of.")).count();
        assert_eq!(names, encoder.layout().tensors().len(), "{place}");
        let mut without_reference = Vec::new();
        for recompute in Recompute::ALL {
            let gradient = gradient(&encoder, &sequences, &weights, recompute);
            for tensor in encoder.layout().tensors() {
                let got = &gradient[tensor.range.clone()];
                let want = golden.tensor(&format!("gradient.of.{}", tensor.name));
                if !want.iter().all(|want| want.is_finite()) {
                    if recompute == Recompute::None {
                        without_reference.push(tensor);
                    }
                    continue;
                }
                let off = norm(got.iter().zip(&want).map(|(g, w)| f64::from(*g) - w));
                let length = norm(want.iter().copied());
                // The key's bias changes no probability: its gradient is what rounding leaves of 0.
                let allowed = if length < 1e-12 { 1e-5 } else { 1e-4 * length };
                assert!(
                    off <= allowed,
                    "{place} {recompute:?} {}: off by {off:.1e} of {length:.1e}",
                    tensor.name
                );
            }
        }
        if !without_reference.is_empty() {
            let gradient = gradient(&encoder, &sequences, &weights, Recompute::None);
            agree_with_differences(&encoder, &sequences, &weights, &gradient, &without_reference);
        }
    }
}

/// Holds the gradients of tensors against central differences in float64 along a direction each.
fn agree_with_differences(
    encoder: &Encoder,
    sequences: &[TokenSequence],
    upstream: &[f32],
    gradient: &[f32],
    tensors: &[&Tensor],
) {
    let (architecture, layout) = (encoder.config().architecture(), encoder.layout());
    let loss = |weights: &[f64]| -> f64 {
        let model = Plain { architecture, layout, weights, dropout: false };
        let of_sequence = |(sequence, upstream): (&TokenSequence, &[f32])| -> f64 {
            let rows = model.hidden(sequence, 0);
            let mean: Vec<f64> =
                (0..upstream.len()).map(|c| rows.iter().map(|row| row[c]).sum::<f64>()).collect();
            let length = norm(mean.iter().copied());
            mean.iter().zip(upstream).map(|(m, u)| m / length * f64::from(*u)).sum()
        };
        sequences.iter().zip(upstream.chunks(encoder.dim())).map(of_sequence).sum()
    };
    let weights: Vec<f64> = encoder.weights().iter().map(|weight| f64::from(*weight)).collect();
    for tensor in tensors {
        let mut state = 12_345u32;
        let direction: Vec<f64> = gradient[tensor.range.clone()]
            .iter()
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                f64::from(state >> 8) / f64::from(1 << 23) - 1.0
            })
            .collect();
        let moved = |step: f64| {
            let mut weights = weights.clone();
            weights[tensor.range.clone()].iter_mut().zip(&direction).for_each(|(w, d)| *w += step * d);
            loss(&weights)
        };
        let want = (moved(1e-6) - moved(-1e-6)) / 2e-6;
        let got: f64 =
            gradient[tensor.range.clone()].iter().zip(&direction).map(|(g, d)| f64::from(*g) * d).sum();
        // A product of two vectors is as far off as their lengths allow.
        let of = norm(gradient[tensor.range.clone()].iter().map(|g| f64::from(*g)));
        assert!((got - want).abs() <= 1e-4 * of.max(want.abs()), "{}: {got} instead of {want}", tensor.name);
    }
}
