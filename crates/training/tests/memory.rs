//! Settings that save memory change no gradient, and the plan is what is resident.

use contaccum_encoder::{
    BertConfig, DenseActivation, DenseShape, Encoder, Layout, ModelConfig, ModelSettings, Recompute,
    TokenSequence, random_weights,
};
use contaccum_training::{
    HEAP_BYTES, Method, TokenizedSample, TrainConfig, Trainer, UpdateReport, resident_memory,
};

fn shape(hidden_size: usize, vocab_size: usize) -> ModelConfig {
    ModelConfig::try_from(BertConfig {
        hidden_size,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        intermediate_size: 4 * hidden_size,
        vocab_size,
        max_position_embeddings: 128,
        ..BertConfig::default()
    })
    .unwrap()
}

fn config() -> TrainConfig {
    TrainConfig {
        tied: false,
        hard_negatives: 1,
        local_batch_size: 4,
        gradient_accumulation_steps: 2,
        memory_bank_size: Some(16),
        query_max_length: 8,
        passage_max_length: 24,
        learning_rate: 1e-3,
        weight_decay: 0.01,
        ..TrainConfig::default()
    }
}

fn trainer(config: &TrainConfig, shape: &ModelConfig) -> Trainer {
    let encoder = || {
        let weights = random_weights(shape, &Layout::new(shape), 1);
        Encoder::new(shape.clone(), ModelSettings::plain(shape), weights)
    };
    Trainer::new(config.clone(), encoder(), (!config.tied).then(encoder), 10).unwrap()
}

/// Rows of different lengths, none longer than the configuration says.
fn rows(config: &TrainConfig, vocabulary: usize, update: usize) -> Vec<TokenizedSample> {
    let sequence = |seed: usize, most: usize| {
        let length = most - (seed * 7 + update) % (most - 2);
        let ids = (0..length).map(|t| ((seed * 131 + t * 17 + update * 29) % vocabulary) as u32).collect();
        TokenSequence { ids, second_segment: length / 2 }
    };
    let row = |row: usize| TokenizedSample {
        query: sequence(3 * row, config.query_max_length),
        positive: sequence(3 * row + 1, config.passage_max_length),
        // One row brings no hard negative.
        hard_negatives: (row != 2)
            .then(|| sequence(3 * row + 2, config.passage_max_length))
            .into_iter()
            .collect(),
        query_id: 0,
        positive_id: row as u32,
        hard_negative_ids: (row != 2).then_some(100 + row as u32).into_iter().collect(),
    };
    (0..config.total_batch_size()).map(row).collect()
}

/// Two updates: their reports and the weights after them.
fn train(config: &TrainConfig) -> (Vec<UpdateReport>, [Vec<f32>; 2]) {
    let shape = shape(16, 50);
    let mut trainer = trainer(config, &shape);
    let reports = (0..2).map(|update| trainer.update(&rows(config, 50, update)).unwrap()).collect();
    let weights = [trainer.query_encoder(), trainer.passage_encoder()].map(|e| e.weights().to_vec());
    (reports, weights)
}

#[test]
fn every_recompute_policy_trains_to_the_same_bits() {
    let weights = |recompute| train(&TrainConfig { recompute, ..config() }).1;
    let none = weights(Recompute::None);
    assert!(weights(Recompute::Selective) == none && weights(Recompute::Layer) == none);
}

#[test]
fn a_bound_in_tokens_cuts_a_local_batch_without_changing_its_loss_or_gradient() {
    for method in [Method::Contaccum, Method::GradCache, Method::FullBatch] {
        let memory_bank_size = (method == Method::Contaccum).then_some(16);
        let whole = TrainConfig { method, memory_bank_size, ..config() };
        // One row at its longest: the local batch of 4 takes several chunks.
        let bounded = TrainConfig { max_tokens: Some(whole.row_tokens()), ..whole.clone() };
        let ((expected, _), (got, _)) = (train(&whole), train(&bounded));
        for (expected, got) in expected.iter().zip(&got) {
            for (a, b) in expected.micro_losses.iter().zip(&got.micro_losses) {
                assert!((a - b).abs() < 1e-4, "{method:?}: loss {b}, not {a}");
            }
            let (a, b) = (expected.gradient_norms.global, got.gradient_norms.global);
            assert!((a - b).abs() < 1e-3 * a, "{method:?}: gradient norm {b}, not {a}");
            assert_eq!(expected.bank_samples, got.bank_samples);
        }
    }
}

#[test]
fn frozen_embeddings_stay_and_are_left_out_of_the_gradient_norm() {
    let layout = Layout::new(&shape(16, 50));
    let start = random_weights(&shape(16, 50), &layout, 1);
    let (trained, _) = train(&config());
    let (reports, weights) = train(&TrainConfig { freeze_embeddings: true, ..config() });
    let embeddings = layout.embeddings();
    for weights in weights {
        assert_eq!(weights[embeddings.clone()], start[embeddings.clone()]);
        for tensor in layout.tensors().iter().filter(|tensor| tensor.range.start >= embeddings.end) {
            assert_ne!(weights[tensor.range.clone()], start[tensor.range.clone()], "{}", tensor.name);
        }
    }
    assert_eq!(reports[0].micro_losses, trained[0].micro_losses);
    assert!(reports[0].gradient_norms.global < trained[0].gradient_norms.global);
}

/// Set in the process that measures: the number of the setting.
const CHILD: &str = "CONTACCUM_MEASURED_SETTING";

fn measured_settings() -> Vec<(ModelConfig, TrainConfig)> {
    let long = TrainConfig { local_batch_size: 16, passage_max_length: 128, ..config() };
    let lean = TrainConfig {
        recompute: Recompute::Layer,
        freeze_embeddings: true,
        max_tokens: Some(8 * long.row_tokens()),
        ..long.clone()
    };
    let bert = shape(256, 20_000);
    let of = |fields: serde_json::Value| ModelConfig::from_fields(fields.as_object().unwrap()).unwrap();
    let mpnet = of(serde_json::json!({
        "model_type": "mpnet", "hidden_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 1024, "vocab_size": 20_000, "max_position_embeddings": 130,
    }));
    let modernbert = of(serde_json::json!({
        "model_type": "modernbert", "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4,
        "intermediate_size": 384, "vocab_size": 20_000, "local_attention": 32,
    }));
    let roberta = of(serde_json::json!({
        "model_type": "roberta", "hidden_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 1024, "vocab_size": 20_000, "max_position_embeddings": 130,
    }));
    let distilbert = of(serde_json::json!({
        "model_type": "distilbert", "dim": 256, "n_layers": 3, "n_heads": 4, "hidden_dim": 1024,
        "vocab_size": 20_000, "max_position_embeddings": 128,
    }));
    let wide = DenseShape { outputs: 4096, bias: true, activation: DenseActivation::Tanh };
    let dense = bert.clone().with_dense(vec![wide]);
    let tied = TrainConfig { tied: true, ..long.clone() };
    let selective = TrainConfig { recompute: Recompute::Selective, ..long.clone() };
    vec![
        (bert.clone(), long.clone()),
        (bert, lean.clone()),
        (mpnet.clone(), long.clone()),
        (mpnet, lean.clone()),
        (modernbert.clone(), tied),
        (modernbert.clone(), selective),
        (modernbert, lean.clone()),
        (roberta, long.clone()),
        (distilbert, lean.clone()),
        (dense.clone(), long),
        (dense, lean),
    ]
}

/// Planned and peak bytes of a setting in a process of its own, which runs this test again.
fn measure(setting: usize) -> [usize; 2] {
    let name = "the_plan_covers_what_is_resident_and_little_more";
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, setting.to_string())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line =
        text.lines().find_map(|line| line.split_once("measured: ")).unwrap_or_else(|| panic!("{text}"));
    let mut numbers = line.1.split(' ').map(|number| number.parse().unwrap());
    std::array::from_fn(|_| numbers.next().unwrap())
}

#[cfg(target_os = "linux")]
#[test]
fn the_plan_covers_what_is_resident_and_little_more() {
    if let Ok(setting) = std::env::var(CHILD) {
        let (shape, config) = measured_settings().swap_remove(setting.parse().unwrap());
        let config = &config;
        let before = resident_memory().current_bytes.unwrap() as usize;
        let plan = Trainer::memory_plan(config, &shape, contaccum_kernels::threads()).unwrap();
        let planned = plan.total_bytes() - plan.program_bytes + before + HEAP_BYTES;
        let mut trainer = trainer(config, &shape);
        for update in 0..2 {
            trainer.update(&rows(config, 20_000, update)).unwrap();
        }
        println!("measured: {planned} {}", resident_memory().peak_bytes.unwrap());
        return;
    }
    for setting in 0..measured_settings().len() {
        let [planned, peak] = measure(setting);
        println!("setting {setting}: planned {planned}, peak {peak}");
        assert!(peak <= planned, "setting {setting}: {peak} bytes resident where {planned} were planned");
        assert!(
            planned - HEAP_BYTES < peak / 20 * 21,
            "setting {setting}: {planned} planned, {peak} resident"
        );
    }
}
