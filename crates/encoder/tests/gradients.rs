//! A whole small encoder against a plain float64 implementation: vectors, and every tensor's gradient by central
//! differences of the float64 loss, with dropout on.

use contaccum_encoder::{
    BertConfig, DropoutStream, Encoder, Keep, Layout, ModelConfig, ModelSettings, Pass, PassLimits, Pooling,
    Recompute, Similarity, TokenSequence, Workspace,
};
use contaccum_kernels::{Dropout, Site};

const STREAM: DropoutStream = DropoutStream { seed: 5, update: 3 };

fn config(dropout: f64) -> BertConfig {
    BertConfig {
        hidden_size: 12,
        num_hidden_layers: 2,
        num_attention_heads: 3,
        intermediate_size: 20,
        vocab_size: 9,
        max_position_embeddings: 8,
        hidden_dropout_prob: dropout,
        attention_probs_dropout_prob: dropout,
        ..BertConfig::default()
    }
}

fn model(config: BertConfig) -> ModelConfig {
    config.try_into().unwrap()
}

fn keep(limits: PassLimits, recompute: Recompute) -> Keep {
    Keep::ForBackward { tokens: limits.tokens, recompute }
}

fn settings(pooling: Pooling, normalize: bool) -> ModelSettings {
    ModelSettings {
        pooling,
        normalize,
        similarity: Similarity::Dot,
        ..ModelSettings::plain(&model(config(0.0)))
    }
}

fn values(n: usize, seed: u32, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * scale
    };
    (0..n).map(|_| next()).collect()
}

fn sequences() -> Vec<(TokenSequence, u32)> {
    let sequence = |ids: &[u32], second_segment| TokenSequence { ids: ids.to_vec(), second_segment };
    vec![
        (sequence(&[1, 4, 2, 7, 2], 3), 100),
        (sequence(&[1], 1), 7),
        (sequence(&[1, 8, 8, 3, 5, 0, 2, 6], 8), 8),
    ]
}

/// Plain float64 BERT, one sequence at a time.
struct Plain<'a> {
    config: &'a BertConfig,
    layout: &'a Layout,
    weights: &'a [f64],
    dropout: Option<Dropout>,
}

type Rows = Vec<Vec<f64>>;

impl Plain<'_> {
    fn tensor(&self, name: &str) -> &[f64] {
        let tensor = self.layout.tensors().iter().find(|t| t.name == name).expect("a tensor of the layout");
        &self.weights[tensor.range.clone()]
    }

    fn linear(&self, x: &Rows, name: &str) -> Rows {
        let (w, b) = (self.tensor(&format!("{name}.weight")), self.tensor(&format!("{name}.bias")));
        let inputs = x[0].len();
        let output =
            |row: &Vec<f64>, o: usize| b[o] + (0..inputs).map(|i| row[i] * w[o * inputs + i]).sum::<f64>();
        x.iter().map(|row| (0..b.len()).map(|o| output(row, o)).collect()).collect()
    }

    fn activation(&self, x: f64) -> f64 {
        let cubic = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
        match self.config.hidden_act.as_str() {
            "gelu" => 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2)),
            "gelu_new" | "gelu_pytorch_tanh" => 0.5 * x * (1.0 + cubic.tanh()),
            "relu" => x.max(0.0),
            other => panic!("no {other} in float64"),
        }
    }

    fn norm(&self, x: &Rows, name: &str) -> Rows {
        let (w, b) = (self.tensor(&format!("{name}.weight")), self.tensor(&format!("{name}.bias")));
        let one = |row: &Vec<f64>| {
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / row.len() as f64;
            let deviation = (variance + self.config.layer_norm_eps).sqrt();
            (0..row.len()).map(|i| (row[i] - mean) / deviation * w[i] + b[i]).collect()
        };
        x.iter().map(one).collect()
    }

    fn drop(&self, x: &mut Rows, site: Site, key: u32) {
        if let Some(dropout) = self.dropout {
            for (r, row) in x.iter_mut().enumerate() {
                for (c, v) in row.iter_mut().enumerate() {
                    *v *= dropout.multiplier(site, key, r as u32, c) as f64;
                }
            }
        }
    }

    fn attention(&self, x: &Rows, layer: usize, key: u32) -> Rows {
        let name = |part: &str| format!("encoder.layer.{layer}.attention.self.{part}");
        let [q, k, v] = ["query", "key", "value"].map(|part| self.linear(x, &name(part)));
        let heads = self.config.num_attention_heads;
        let dh = self.config.hidden_size / heads;
        let mut out = vec![vec![0.0; self.config.hidden_size]; x.len()];
        for head in 0..heads {
            let columns = head * dh..(head + 1) * dh;
            let score = |i: usize, j: usize| -> f64 {
                columns.clone().map(|c| q[i][c] * k[j][c]).sum::<f64>() / (dh as f64).sqrt()
            };
            let mut probabilities: Rows = (0..x.len())
                .map(|i| {
                    let e: Vec<f64> = (0..x.len()).map(|j| score(i, j).exp()).collect();
                    let total: f64 = e.iter().sum();
                    e.iter().map(|v| v / total).collect()
                })
                .collect();
            if let Some(dropout) = self.dropout {
                // A head's site lies `head` after the layer's first.
                for (i, row) in probabilities.iter_mut().enumerate() {
                    for (j, p) in row.iter_mut().enumerate() {
                        *p *= dropout.attention_multiplier(layer, head, key, i as u32, j) as f64;
                    }
                }
            }
            for i in 0..x.len() {
                for c in columns.clone() {
                    out[i][c] = (0..x.len()).map(|j| probabilities[i][j] * v[j][c]).sum();
                }
            }
        }
        out
    }

    fn hidden(&self, sequence: &TokenSequence, key: u32) -> Rows {
        let h = self.config.hidden_size;
        let table = |name: &str, row: usize| self.tensor(name)[row * h..(row + 1) * h].to_vec();
        let mut x: Rows = (0..sequence.ids.len())
            .map(|t| {
                let word = table("embeddings.word_embeddings.weight", sequence.ids[t] as usize);
                let position = table("embeddings.position_embeddings.weight", t);
                let kind = (t >= sequence.second_segment) as usize;
                let kind = table("embeddings.token_type_embeddings.weight", kind);
                (0..h).map(|c| word[c] + position[c] + kind[c]).collect()
            })
            .collect();
        x = self.norm(&x, "embeddings.LayerNorm");
        self.drop(&mut x, Site::EMBEDDINGS, key);
        for layer in 0..self.config.num_hidden_layers {
            let name = |part: &str| format!("encoder.layer.{layer}.{part}");
            let mut branch = self.linear(&self.attention(&x, layer, key), &name("attention.output.dense"));
            self.drop(&mut branch, Site::attention_output(layer), key);
            x = self.norm(&sum(&branch, &x), &name("attention.output.LayerNorm"));
            let mut wide = self.linear(&x, &name("intermediate.dense"));
            wide.iter_mut().flatten().for_each(|v| *v = self.activation(*v));
            let mut branch = self.linear(&wide, &name("output.dense"));
            self.drop(&mut branch, Site::feed_forward_output(layer), key);
            x = self.norm(&sum(&branch, &x), &name("output.LayerNorm"));
        }
        x
    }

    fn vectors(&self, pooling: Pooling, normalize: bool) -> Vec<f64> {
        let mut out = Vec::new();
        for (sequence, key) in sequences() {
            let x = self.hidden(&sequence, key);
            let rows = match pooling {
                Pooling::Cls => 1,
                Pooling::Mean => x.len(),
            };
            let v: Vec<f64> = (0..self.config.hidden_size)
                .map(|c| (0..rows).map(|r| x[r][c]).sum::<f64>() / rows as f64)
                .collect();
            let length = if normalize { v.iter().map(|x| x * x).sum::<f64>().sqrt() } else { 1.0 };
            out.extend(v.iter().map(|x| x / length));
        }
        out
    }
}

fn sum(a: &Rows, b: &Rows) -> Rows {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(x, y)| x + y).collect()).collect()
}

fn close(got: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    let scale = expected.iter().fold(0.1f64, |m, x| m.max(x.abs()));
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!((*g as f64 - e).abs() <= tolerance * scale, "{what}[{i}]: {g} instead of {e}");
    }
}

fn check(pooling: Pooling, normalize: bool, rate: f64, activation: &str) {
    let shape = BertConfig { hidden_act: activation.into(), ..config(rate) };
    let config = model(shape.clone());
    let layout = Layout::new(&config);
    let mut weights = values(layout.parameters(), 1, 0.5);
    for tensor in layout.tensors().iter().filter(|t| t.name.ends_with("LayerNorm.weight")) {
        weights[tensor.range.clone()].iter_mut().for_each(|w| *w += 1.0);
    }
    let weights64: Vec<f64> = weights.iter().map(|w| *w as f64).collect();
    let dropout = Dropout::new(rate, STREAM.seed, STREAM.update);
    let plain = |weights: &[f64]| {
        Plain { config: &shape, layout: &layout, weights, dropout }.vectors(pooling, normalize)
    };
    let encoder = Encoder::new(config.clone(), settings(pooling, normalize), weights);
    let limits = PassLimits { tokens: 20, sequences: 4, longest: 8 };
    let mut pass = Pass::new(&config, limits);
    let mut workspace = Workspace::new(&config, limits, keep(limits, Recompute::None));
    for (sequence, key) in sequences() {
        pass.push(&sequence, key);
    }
    let mut vectors = vec![0.0; 3 * 12];
    encoder.represent(&mut pass, &mut workspace, Some(STREAM), &mut vectors);
    close(&vectors, &plain(&weights64), 1e-5, "vectors");

    let upstream = values(3 * 12, 77, 1.0);
    let mut gradient = vec![0.0; layout.parameters()];
    encoder.backpropagate(&mut pass, &mut workspace, Some(STREAM), &mut upstream.clone(), &mut gradient);
    let loss =
        |weights: &[f64]| -> f64 { plain(weights).iter().zip(&upstream).map(|(v, u)| v * *u as f64).sum() };
    let mut moved = weights64.clone();
    for tensor in layout.tensors() {
        let expected: Vec<f64> = tensor
            .range
            .clone()
            .map(|i| {
                moved[i] = weights64[i] + 1e-5;
                let above = loss(&moved);
                moved[i] = weights64[i] - 1e-5;
                let below = loss(&moved);
                moved[i] = weights64[i];
                (above - below) / 2e-5
            })
            .collect();
        close(&gradient[tensor.range.clone()], &expected, 2e-4, &tensor.name);
    }
}

#[test]
fn gradients_are_those_of_float64_with_cls_pooling_and_dropout() {
    check(Pooling::Cls, false, 0.2, "gelu");
}

#[test]
fn gradients_are_those_of_float64_with_mean_pooling_normalised() {
    check(Pooling::Mean, true, 0.0, "gelu");
}

#[test]
fn gradients_are_those_of_float64_with_every_activation() {
    for activation in ["gelu_new", "gelu_pytorch_tanh", "relu"] {
        check(Pooling::Mean, true, 0.1, activation);
    }
}

#[test]
fn a_pass_split_in_two_gives_the_same_vectors_and_gradients() {
    let config = model(config(0.2));
    let layout = Layout::new(&config);
    let encoder =
        Encoder::new(config.clone(), settings(Pooling::Mean, true), values(layout.parameters(), 3, 0.5));
    let limits = PassLimits { tokens: 20, sequences: 4, longest: 8 };
    let run = |chunks: &[std::ops::Range<usize>]| {
        let mut pass = Pass::new(&config, limits);
        let mut workspace = Workspace::new(&config, limits, keep(limits, Recompute::None));
        let mut gradient = vec![0.0; layout.parameters()];
        let mut all = Vec::new();
        for chunk in chunks {
            pass.clear();
            sequences()[chunk.clone()].iter().for_each(|(s, key)| pass.push(s, *key));
            let mut vectors = vec![0.0; chunk.len() * 12];
            encoder.represent(&mut pass, &mut workspace, Some(STREAM), &mut vectors);
            let mut upstream = values(36, 5, 1.0)[chunk.start * 12..chunk.end * 12].to_vec();
            encoder.backpropagate(&mut pass, &mut workspace, Some(STREAM), &mut upstream, &mut gradient);
            all.extend(vectors);
        }
        (all, gradient)
    };
    let (whole, whole_gradient) = run(std::slice::from_ref(&(0..3)));
    let (split, split_gradient) = run(&[0..1, 1..3]);
    for (a, b) in whole.iter().zip(&split).chain(whole_gradient.iter().zip(&split_gradient)) {
        assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{a} {b}");
    }
}

#[test]
fn what_is_made_again_or_lies_behind_another_pass_gives_the_same_bits() {
    let config = model(config(0.2));
    let layout = Layout::new(&config);
    let encoder =
        Encoder::new(config.clone(), settings(Pooling::Mean, true), values(layout.parameters(), 3, 0.5));
    let limits = PassLimits { tokens: 20, sequences: 4, longest: 8 };
    // Two passes wait for their backward passes together, as queries and passages do.
    let run = |recompute| {
        let (mut first, mut second) = (Pass::new(&config, limits), Pass::new(&config, limits));
        let kept = Keep::ForBackward { tokens: 14, recompute };
        let mut workspace = Workspace::new(&config, limits, kept);
        let mut gradient = vec![0.0; layout.parameters()];
        let all = sequences();
        first.push(&all[0].0, all[0].1);
        second.push(&all[1].0, all[1].1);
        second.push(&all[2].0, all[2].1);
        second.follow(&first);
        let (mut one, mut other) = (vec![0.0; 12], vec![0.0; 24]);
        encoder.represent(&mut first, &mut workspace, Some(STREAM), &mut one);
        encoder.represent(&mut second, &mut workspace, Some(STREAM), &mut other);
        let vectors = [one.clone(), other.clone()].concat();
        let mut upstream = values(36, 5, 1.0);
        let (a, b) = upstream.split_at_mut(12);
        encoder.backpropagate(&mut first, &mut workspace, Some(STREAM), a, &mut gradient);
        encoder.backpropagate(&mut second, &mut workspace, Some(STREAM), b, &mut gradient);
        (vectors, gradient)
    };
    let none = run(Recompute::None);
    assert!(none.1.iter().any(|g| *g != 0.0));
    for recompute in [Recompute::Selective, Recompute::Layer] {
        assert!(run(recompute) == none, "{recompute:?} has other bits");
    }
}

#[test]
fn frozen_embeddings_change_no_other_gradient() {
    let config = model(config(0.2));
    let layout = Layout::new(&config);
    let encoder =
        Encoder::new(config.clone(), settings(Pooling::Cls, false), values(layout.parameters(), 3, 0.5));
    let limits = PassLimits { tokens: 20, sequences: 4, longest: 8 };
    let run = |parameters: usize| {
        let mut pass = Pass::new(&config, limits);
        let mut workspace = Workspace::new(&config, limits, keep(limits, Recompute::None));
        sequences().iter().for_each(|(s, key)| pass.push(s, *key));
        let mut gradient = vec![0.0; parameters];
        encoder.represent(&mut pass, &mut workspace, Some(STREAM), &mut [0.0; 36]);
        let mut upstream = values(36, 5, 1.0);
        encoder.backpropagate(&mut pass, &mut workspace, Some(STREAM), &mut upstream, &mut gradient);
        gradient
    };
    let frozen = layout.embeddings().len();
    assert!(run(layout.parameters() - frozen) == run(layout.parameters())[frozen..]);
}

#[test]
fn planned_bytes_grow_with_the_tokens_by_what_a_policy_keeps() {
    let config = model(config(0.0));
    let (h, heads, f, layers) = (12, 3, 20, 2);
    let inputs = 3 * h + f;
    let attention = 2 * h + heads + 1;
    let output = h + 1;
    let cases = [
        (Recompute::None, layers * (inputs + attention + output)),
        (Recompute::Selective, layers * (attention + output) + inputs),
        (Recompute::Layer, layers * output + inputs + attention),
    ];
    for (recompute, floats_per_token) in cases {
        let bytes = |tokens| {
            let limits = PassLimits { tokens, sequences: 2, longest: 8 };
            Workspace::activations_bytes(&config, limits, keep(limits, recompute))
        };
        assert_eq!(bytes(200) - bytes(100), 100 * floats_per_token * 4, "{recompute:?}");
    }
}
