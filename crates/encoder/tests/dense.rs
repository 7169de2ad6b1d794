//! `Dense` modules: vectors and gradients against float64, and the folders they come from and go to.

use std::{fs, path::Path};

use contaccum_encoder::{
    BertConfig, DenseActivation, DenseShape, Embedder, Encoder, Keep, Layout, ModelCard, ModelConfig,
    ModelFolder, ModelSettings, PackedTokens, Pass, PassLimits, Pooling, Recompute, TextTokenizer,
    TokenSequence, Workspace, export_folder, random_weights,
};
use serde_json::{Value, json};
use tempfile::tempdir;

const LIMITS: PassLimits = PassLimits { tokens: 12, sequences: 3, longest: 6 };

fn shape(outputs: usize, bias: bool, activation: DenseActivation) -> DenseShape {
    DenseShape { outputs, bias, activation }
}

fn config(dense: &[DenseShape]) -> ModelConfig {
    let bert = BertConfig {
        hidden_size: 8,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 12,
        vocab_size: 9,
        max_position_embeddings: 8,
        ..BertConfig::default()
    };
    ModelConfig::try_from(bert).unwrap().with_dropout(0.0).with_dense(dense.to_vec())
}

fn settings(normalize: bool) -> ModelSettings {
    ModelSettings { pooling: Pooling::Mean, normalize, ..ModelSettings::plain(&config(&[])) }
}

fn values(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn encoder(dense: &[DenseShape], normalize: bool) -> Encoder {
    let config = config(dense);
    let layout = Layout::new(&config);
    let mut weights = random_weights(&config, &layout, 3);
    let moved = values(weights.len(), 9);
    weights.iter_mut().zip(moved).for_each(|(w, v)| *w += 0.4 * v);
    Encoder::new(config, settings(normalize), weights)
}

fn passed(encoder: &Encoder) -> (Pass, Workspace, Vec<f32>) {
    let mut pass = Pass::new(encoder.config(), LIMITS);
    for ids in [&[2, 5, 3][..], &[2, 7, 8, 6, 4, 3], &[2, 3]] {
        pass.push(&TokenSequence { ids: ids.to_vec(), second_segment: ids.len() }, 0);
    }
    let keep = Keep::ForBackward { tokens: LIMITS.tokens, recompute: Recompute::None };
    let mut workspace = Workspace::new(encoder.config(), LIMITS, keep);
    let mut vectors = vec![0.0; 3 * encoder.dim()];
    encoder.represent(&mut pass, &mut workspace, None, &mut vectors);
    (pass, workspace, vectors)
}

fn exact(activation: DenseActivation, x: f64) -> f64 {
    match activation {
        DenseActivation::Identity => x,
        DenseActivation::Tanh => x.tanh(),
        DenseActivation::Relu => x.max(0.0),
        DenseActivation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
    }
}

/// The modules on pooled vectors of width 8, with all their parameters in one list.
fn plain(dense: &[DenseShape], pooled: &[f64], parameters: &[f64]) -> Vec<f64> {
    let (mut rows, mut rest) = (pooled.chunks(8).map(<[f64]>::to_vec).collect::<Vec<_>>(), parameters);
    for shape in dense {
        let inputs = rows[0].len();
        let (weight, behind) = rest.split_at(shape.outputs * inputs);
        let (bias, behind) = behind.split_at(if shape.bias { shape.outputs } else { 0 });
        rest = behind;
        let output = |row: &Vec<f64>, o: usize| {
            let product: f64 = row.iter().zip(&weight[o * inputs..]).map(|(x, w)| x * w).sum();
            exact(shape.activation, product + bias.get(o).copied().unwrap_or(0.0))
        };
        rows = rows.iter().map(|row| (0..shape.outputs).map(|o| output(row, o)).collect()).collect();
    }
    rows.concat()
}

fn to64(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

fn close(got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(want) {
        assert!((f64::from(*got) - want).abs() <= tolerance * want.abs().max(1.0), "{got} instead of {want}");
    }
}

fn differences(at: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let mut x = at.to_vec();
    let one = |i: usize| {
        let mut moved = |by: f64| {
            x[i] = at[i] + by;
            let value = f(&x);
            x[i] = at[i];
            value
        };
        (moved(1e-6) - moved(-1e-6)) / 2e-6
    };
    (0..at.len()).map(one).collect()
}

#[test]
fn vectors_and_gradients_are_those_of_float64_for_every_activation() {
    use DenseActivation::{Identity, Relu, Sigmoid, Tanh};
    for dense in [
        &[shape(5, true, Tanh)][..],
        &[shape(11, false, Identity)],
        &[shape(24, false, Identity), shape(6, false, Identity)],
        &[shape(7, true, Relu), shape(3, true, Sigmoid)],
    ] {
        let plain_encoder = encoder(&[], false);
        let own = encoder(dense, false);
        // The transformer's parameters come first, so that both have the same.
        let of_transformer = plain_encoder.weights().len();
        assert_eq!(own.weights()[..of_transformer], *plain_encoder.weights());
        let (mut plain_pass, mut plain_workspace, pooled) = passed(&plain_encoder);
        let (mut pass, mut workspace, vectors) = passed(&own);
        let (pooled64, parameters) = (to64(&pooled), to64(&own.weights()[of_transformer..]));
        close(&vectors, &plain(dense, &pooled64, &parameters), 1e-5);

        let upstream = values(vectors.len(), 41);
        let loss =
            |vectors: &[f64]| vectors.iter().zip(&upstream).map(|(v, u)| v * f64::from(*u)).sum::<f64>();
        let mut gradient = vec![0.0; own.weights().len()];
        own.backpropagate(&mut pass, &mut workspace, None, &mut upstream.clone(), &mut gradient);
        let of_parameters = differences(&parameters, |p| loss(&plain(dense, &pooled64, p)));
        close(&gradient[of_transformer..], &of_parameters, 1e-4);

        let of_pooled = differences(&pooled64, |x| loss(&plain(dense, x, &parameters)));
        let mut of_pooled: Vec<f32> = of_pooled.iter().map(|g| *g as f32).collect();
        let mut below = vec![0.0; of_transformer];
        plain_encoder.backpropagate(&mut plain_pass, &mut plain_workspace, None, &mut of_pooled, &mut below);
        close(&gradient[..of_transformer], &to64(&below), 1e-4);
    }
}

#[test]
fn the_plan_of_a_pass_counts_what_dense_modules_leave_behind() {
    let dense = [shape(24, true, DenseActivation::Tanh), shape(6, false, DenseActivation::Identity)];
    let bytes = |dense: &[DenseShape]| Pass::memory_bytes(&config(dense), LIMITS);
    // Inputs 8 and 24, preactivations 24 and 6, two gradients of 24, and vectors of 6 for 8.
    assert_eq!(bytes(&dense) - bytes(&[]), 4 * LIMITS.sequences * (8 + 24 + 24 + 6 + 2 * 24 + 6 - 8));
}

fn tokenizer() -> TextTokenizer {
    TextTokenizer::from_vocabulary(["a", "b", "c", "d"].map(String::from).to_vec()).unwrap()
}

fn export(path: &Path, encoder: &Encoder) {
    let card = ModelCard { title: "t".into(), base_model: None, pair: None, training: Vec::new() };
    let (config, layout) = (encoder.config(), encoder.layout());
    export_folder(path, config, layout, encoder.weights(), &tokenizer(), encoder.settings(), &card).unwrap();
}

fn open(path: &Path) -> Encoder {
    let folder = ModelFolder::locate(path.to_str().unwrap()).unwrap();
    let config = folder.config().unwrap();
    let weights = folder.weights(&Layout::new(&config)).unwrap();
    Encoder::new(config, folder.settings().unwrap(), weights)
}

fn put(path: &Path, content: &Value) {
    fs::write(path, content.to_string()).unwrap();
}

#[test]
fn a_model_with_dense_modules_is_written_as_sentence_transformers_reads_it_and_reads_back() {
    let dense = [shape(5, true, DenseActivation::Tanh), shape(4, false, DenseActivation::Identity)];
    let own = encoder(&dense, true);
    assert_eq!(own.dim(), 4);
    let parent = tempdir().unwrap();
    let path = parent.path().join("model");
    export(&path, &own);
    let json_of = |name: &str| serde_json::from_slice::<Value>(&fs::read(path.join(name)).unwrap()).unwrap();
    let modules = json_of("modules.json");
    let paths: Vec<_> = modules.as_array().unwrap().iter().map(|module| module["path"].clone()).collect();
    assert_eq!(paths, ["", "1_Pooling", "2_Dense", "3_Dense", "4_Normalize"]);
    assert_eq!(modules[2]["type"], "sentence_transformers.models.Dense");
    let expected = json!({ "in_features": 8, "out_features": 5, "bias": true,
        "activation_function": "torch.nn.modules.activation.Tanh" });
    assert_eq!(json_of("2_Dense/config.json"), expected);
    let bytes = fs::read(path.join("2_Dense/model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut names = tensors.names();
    names.sort();
    assert_eq!(names, ["linear.bias", "linear.weight"]);
    assert_eq!(tensors.tensor("linear.weight").unwrap().shape(), [5, 8]);

    let again = open(&path);
    assert_eq!(again.config(), own.config());
    assert_eq!(again.weights(), own.weights());
    let mut packed = PackedTokens::default();
    packed.push(&tokenizer().query("a b d", 8).unwrap());
    let embed = |encoder: &Encoder| {
        let mut out = vec![0.0; 4];
        Embedder::new(encoder.config(), LIMITS).embed(encoder, &packed, &mut out);
        out
    };
    assert_eq!(embed(&again), embed(&own));
    let fingerprint = |encoder: &Encoder| encoder.fingerprint(&tokenizer());
    assert_eq!(fingerprint(&again), fingerprint(&own));
    assert_eq!(fingerprint(&own).get("dense"), Some("5 Tanh, 4 Identity without bias"));
    assert_eq!(fingerprint(&encoder(&[], true)).get("dense"), None);
}

#[test]
fn a_dense_module_that_is_not_done_is_refused_by_name() {
    let parent = tempdir().unwrap();
    let path = parent.path().join("model");
    export(&path, &encoder(&[shape(5, true, DenseActivation::Tanh)], false));
    let place = path.join("2_Dense/config.json");
    let good: Value = serde_json::from_slice(&fs::read(&place).unwrap()).unwrap();
    let refused = |field: &str, value: Value| {
        let mut content = good.clone();
        content[field] = value;
        put(&place, &content);
        let folder = ModelFolder::locate(path.to_str().unwrap()).unwrap();
        let message = folder.config().unwrap_err().to_string();
        put(&place, &good);
        assert!(message.contains("2_Dense/config.json: ") && !message.contains('\n'), "{message}");
        message
    };
    assert!(
        refused("activation_function", json!("torch.nn.modules.activation.SiLU")).contains("SiLU is not")
    );
    assert!(refused("activation_function", json!("my.Tanh")).contains("my.Tanh is not"));
    assert!(refused("use_residual", json!(true)).contains("use_residual true"));
    assert!(refused("module_input_name", json!("token_embeddings")).contains("token_embeddings"));
    assert!(refused("in_features", json!(9)).contains("in_features 9, but the vectors before it have 8"));
    assert!(refused("out_features", json!(0)).contains("out_features is 0"));
    assert!(refused("bias", json!(1)).contains("bias is 1"));

    // Without the fields a bias and a tanh.
    put(&place, &json!({ "in_features": 8, "out_features": 5 }));
    assert_eq!(open(&path).config().dense(), [shape(5, true, DenseActivation::Tanh)]);
    fs::rename(path.join("2_Dense/model.safetensors"), path.join("2_Dense/pytorch_model.bin")).unwrap();
    let folder = ModelFolder::locate(path.to_str().unwrap()).unwrap();
    let message = folder.weights(&Layout::new(&folder.config().unwrap())).unwrap_err().to_string();
    assert!(message.contains("2_Dense") && message.contains("pytorch_model.bin"), "{message}");
}
