//! Small encoders of every family against a plain float64 implementation: vectors, and every tensor's gradient by central
//! differences of the float64 loss, with dropout on; and what must change no bit of them.

mod plain;

use contaccum_encoder::{
    BertConfig, DropoutStream, Encoder, Keep, Layout, ModelConfig, ModelSettings, Pass, PassLimits, Pooling,
    Recompute, TokenSequence, Workspace,
};
use plain::Plain;
use serde_json::{Value, json};

pub const STREAM: DropoutStream = DropoutStream { seed: 5, update: 3 };

const WIDTH: usize = 8;

/// Encoders of every family, and of what a family's flags turn on.
fn models() -> Vec<(&'static str, ModelConfig)> {
    let bert = json!({
        "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 10,
        "vocab_size": 9, "max_position_embeddings": 16, "hidden_dropout_prob": 0.2,
        "attention_probs_dropout_prob": 0.1,
    });
    let with = |base: &Value, other: Value| {
        let mut fields = base.clone();
        fields.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
        fields
    };
    let modernbert = json!({
        "model_type": "modernbert", "hidden_size": WIDTH, "num_hidden_layers": 4, "num_attention_heads": 2,
        "intermediate_size": 5, "vocab_size": 9, "max_position_embeddings": 32, "local_attention": 4,
        "pad_token_id": 0, "global_rope_theta": 50.0, "local_rope_theta": 7.0,
    });
    [
        ("bert", bert.clone()),
        ("bert, gelu_new", with(&bert, json!({ "hidden_act": "gelu_new" }))),
        ("bert, relu", with(&bert, json!({ "hidden_act": "relu" }))),
        ("roberta", with(&bert, json!({ "model_type": "roberta", "max_position_embeddings": 18 }))),
        ("mpnet", with(&bert, json!({ "model_type": "mpnet", "max_position_embeddings": 18 }))),
        (
            "distilbert",
            json!({ "model_type": "distilbert", "dim": WIDTH, "n_layers": 2, "n_heads": 2, "hidden_dim": 10,
                "vocab_size": 9, "max_position_embeddings": 16, "dropout": 0.2, "attention_dropout": 0.1 }),
        ),
        ("modernbert", modernbert.clone()),
        (
            "modernbert with every bias and dropout",
            with(
                &modernbert,
                json!({ "norm_bias": true, "attention_bias": true, "mlp_bias": true, "attention_dropout": 0.2,
                    "embedding_dropout": 0.1, "mlp_dropout": 0.1, "global_attn_every_n_layers": 2 }),
            ),
        ),
    ]
    .map(|(name, fields)| (name, config(&fields)))
    .into()
}

fn config(fields: &Value) -> ModelConfig {
    ModelConfig::from_fields(fields.as_object().unwrap()).unwrap()
}

fn values(n: usize, seed: u32, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * scale
    };
    (0..n).map(|_| next()).collect()
}

/// Sequences with their dropout keys. None holds 1, which RoBERTa pads with.
fn sequences() -> Vec<(TokenSequence, u32)> {
    let sequence = |ids: &[u32], second_segment| TokenSequence { ids: ids.to_vec(), second_segment };
    vec![
        (sequence(&[3, 4, 2, 7, 2], 3), 100),
        (sequence(&[5], 1), 7),
        (sequence(&[6, 8, 8, 3, 5, 0, 2, 6, 4, 4, 7, 3, 2], 13), 8),
    ]
}

const LIMITS: PassLimits = PassLimits { tokens: 20, sequences: 4, longest: 13 };
/// All sequences.
const ALL: std::ops::Range<usize> = 0..3;
const TOKENS: usize = 19;
const VECTORS: usize = 3 * WIDTH;

/// An encoder of weights that are none of their fresh values.
fn encoder(config: &ModelConfig, pooling: Pooling, normalize: bool) -> Encoder {
    let layout = Layout::new(config);
    let mut weights = values(layout.parameters(), 1, 0.5);
    for tensor in layout.tensors().iter().filter(|tensor| tensor.name.ends_with("orm.weight")) {
        weights[tensor.range.clone()].iter_mut().for_each(|weight| *weight += 1.0);
    }
    let settings = ModelSettings { pooling, normalize, ..ModelSettings::plain(config) };
    Encoder::new(config.clone(), settings, weights)
}

/// Vectors and gradient of the passes over some of the sequences each, under a policy; `parameters` of the gradient.
fn run(
    encoder: &Encoder,
    recompute: Recompute,
    passes: &[std::ops::Range<usize>],
    parameters: usize,
) -> (Vec<f32>, Vec<f32>) {
    let mut workspace =
        Workspace::new(encoder.config(), LIMITS, Keep::ForBackward { tokens: TOKENS, recompute });
    let (mut vectors, mut gradient) = (vec![0.0; VECTORS], vec![0.0; parameters]);
    let mut upstream = values(VECTORS, 5, 1.0);
    let mut waiting: Vec<Pass> = Vec::new();
    for sequences_of in passes {
        let mut pass = Pass::new(encoder.config(), LIMITS);
        sequences()[sequences_of.clone()].iter().for_each(|(sequence, key)| pass.push(sequence, *key));
        if let Some(before) = waiting.last() {
            pass.follow(before);
        }
        let out = &mut vectors[sequences_of.start * WIDTH..sequences_of.end * WIDTH];
        encoder.represent(&mut pass, &mut workspace, Some(STREAM), out);
        waiting.push(pass);
    }
    for (sequences_of, mut pass) in passes.iter().zip(waiting) {
        let upstream = &mut upstream[sequences_of.start * WIDTH..sequences_of.end * WIDTH];
        encoder.backpropagate(&mut pass, &mut workspace, Some(STREAM), upstream, &mut gradient);
    }
    (vectors, gradient)
}

/// All sequences in one pass.
fn whole(encoder: &Encoder, recompute: Recompute) -> (Vec<f32>, Vec<f32>) {
    run(encoder, recompute, &[ALL], encoder.layout().parameters())
}

fn close(got: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    let scale = expected.iter().fold(0.1f64, |m, x| m.max(x.abs()));
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!((*g as f64 - e).abs() <= tolerance * scale, "{what}[{i}]: {g} instead of {e}");
    }
}

/// Vectors in float64.
fn plain_vectors(encoder: &Encoder, weights: &[f64], pooling: Pooling, normalize: bool) -> Vec<f64> {
    let (architecture, layout) = (encoder.config().architecture(), encoder.layout());
    let model = Plain { architecture, layout, weights, dropout: true };
    let vector = |(sequence, key): (TokenSequence, u32)| {
        let x = model.hidden(&sequence, key);
        let n = x.len() as f64;
        let pooled = |column: Vec<f64>| match pooling {
            Pooling::Cls => column[0],
            Pooling::LastToken => column[column.len() - 1],
            Pooling::Mean => column.iter().sum::<f64>() / n,
            Pooling::MeanSqrtLenTokens => column.iter().sum::<f64>() / n.sqrt(),
            Pooling::Max => column.into_iter().fold(f64::NEG_INFINITY, f64::max),
            Pooling::WeightedMean => {
                let weighed = column.iter().zip(1..).map(|(x, t)| x * f64::from(t));
                weighed.sum::<f64>() / (n * (n + 1.0) / 2.0)
            }
        };
        let column = |c: usize| x.iter().map(|row| row[c]).collect();
        let v: Vec<f64> = (0..WIDTH).map(|c| pooled(column(c))).collect();
        let length = if normalize { v.iter().map(|x| x * x).sum::<f64>().sqrt() } else { 1.0 };
        v.into_iter().map(move |x| x / length)
    };
    sequences().into_iter().flat_map(vector).collect()
}

fn check(name: &str, config: &ModelConfig, pooling: Pooling, normalize: bool) {
    let encoder = encoder(config, pooling, normalize);
    let mut moved: Vec<f64> = encoder.weights().iter().map(|w| f64::from(*w)).collect();
    let (vectors, gradient) = whole(&encoder, Recompute::None);
    close(&vectors, &plain_vectors(&encoder, &moved, pooling, normalize), 1e-5, name);
    let upstream = values(VECTORS, 5, 1.0);
    let loss = |weights: &[f64]| -> f64 {
        let vectors = plain_vectors(&encoder, weights, pooling, normalize);
        vectors.iter().zip(&upstream).map(|(v, u)| v * f64::from(*u)).sum()
    };
    for tensor in encoder.layout().tensors() {
        let difference = |i: usize| {
            let weight = moved[i];
            moved[i] = weight + 1e-5;
            let above = loss(&moved);
            moved[i] = weight - 1e-5;
            let below = loss(&moved);
            moved[i] = weight;
            (above - below) / 2e-5
        };
        let expected: Vec<f64> = tensor.range.clone().map(difference).collect();
        close(&gradient[tensor.range.clone()], &expected, 2e-4, &format!("{name}: {}", tensor.name));
    }
}

#[test]
fn gradients_are_those_of_float64_with_mean_pooling_normalised() {
    for (name, config) in models() {
        check(name, &config, Pooling::Mean, true);
    }
}

#[test]
fn gradients_are_those_of_float64_with_cls_pooling() {
    for (name, config) in models().into_iter().filter(|(name, _)| ["bert", "modernbert"].contains(name)) {
        check(name, &config, Pooling::Cls, false);
    }
}

#[test]
fn gradients_are_those_of_float64_with_every_other_pooling() {
    let others = Pooling::ALL.into_iter().filter(|one| ![Pooling::Cls, Pooling::Mean].contains(one));
    for pooling in others {
        for (name, config) in
            models().into_iter().filter(|(name, _)| ["bert", "mpnet", "modernbert"].contains(name))
        {
            check(name, &config, pooling, true);
        }
    }
}

#[test]
fn a_pass_split_in_two_gives_the_same_vectors_and_gradients() {
    for (name, config) in models() {
        let encoder = encoder(&config, Pooling::Mean, true);
        let (vectors, gradient) = whole(&encoder, Recompute::None);
        let (split, split_gradient) = run(&encoder, Recompute::None, &[0..1, 1..3], gradient.len());
        for (a, b) in vectors.iter().zip(&split).chain(gradient.iter().zip(&split_gradient)) {
            assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{name}: {a} {b}");
        }
    }
}

#[test]
fn what_is_made_again_gives_the_same_bits_of_passes_that_wait_for_one_another() {
    for (name, config) in models() {
        let encoder = encoder(&config, Pooling::Mean, true);
        for passes in [vec![ALL], vec![0..1, 1..3]] {
            let of = |recompute| run(&encoder, recompute, &passes, encoder.layout().parameters());
            let none = of(Recompute::None);
            assert!(none.1.iter().any(|g| *g != 0.0));
            for recompute in [Recompute::Selective, Recompute::Layer] {
                assert!(of(recompute) == none, "{name}: {recompute:?} has other bits");
            }
        }
    }
}

#[test]
fn frozen_embeddings_change_no_other_gradient() {
    for (name, config) in models() {
        let encoder = encoder(&config, Pooling::Cls, false);
        let frozen = encoder.layout().embeddings().len();
        for recompute in Recompute::ALL {
            let (_, gradient) = whole(&encoder, recompute);
            let (_, trained) = run(&encoder, recompute, &[ALL], gradient.len() - frozen);
            assert!(trained == gradient[frozen..], "{name} {recompute:?}");
        }
    }
}

#[test]
fn planned_bytes_grow_with_the_tokens_by_what_a_policy_keeps() {
    let bytes_of_token = |config: &ModelConfig, recompute| {
        let bytes = |tokens| {
            let limits = PassLimits { tokens, sequences: 2, longest: 8 };
            Workspace::activations_bytes(config, limits, Keep::ForBackward { tokens, recompute })
        };
        (bytes(200) - bytes(100)) / (100 * size_of::<f32>())
    };
    let bert = BertConfig {
        hidden_size: 12,
        num_hidden_layers: 2,
        num_attention_heads: 3,
        intermediate_size: 20,
        ..BertConfig::default()
    };
    let (h, heads, f, layers) = (12, 3, 20, 2);
    let (inputs, attention, output) = (3 * h + f, 2 * h + heads + 1, h + 1);
    for (recompute, floats) in [
        (Recompute::None, layers * (inputs + attention + output)),
        (Recompute::Selective, layers * (attention + output) + inputs),
        (Recompute::Layer, layers * output + inputs + attention),
    ] {
        let config = bert.clone().try_into().unwrap();
        assert_eq!(bytes_of_token(&config, recompute), floats, "{recompute:?}");
    }
    // With the norms before the blocks the stream is kept where the layer is made again, and the last norm's rows always;
    // a gated block keeps twice its width.
    let config = config(&json!({
        "model_type": "modernbert", "hidden_size": h, "num_hidden_layers": layers, "num_attention_heads": heads,
        "intermediate_size": f, "vocab_size": 9, "pad_token_id": 0,
    }));
    let (inputs, rest, last) = (3 * h + 2 * f, 3 * h + heads + 2, h + 1);
    for (recompute, floats) in [
        (Recompute::None, layers * (inputs + rest) + last),
        (Recompute::Selective, layers * rest + inputs + last),
        (Recompute::Layer, layers * h + inputs + rest + last),
    ] {
        assert_eq!(bytes_of_token(&config, recompute), floats, "{recompute:?}");
    }
}
