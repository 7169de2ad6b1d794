//! Whole training runs against float64 PyTorch: loss of every micro-step, gradient norms, how far weights moved.
//!
//! Reads `trajectory.json` and `rows.json` of the folder in `CONTACCUM_GOLDEN`, else of `reference/golden` in the
//! shared folder (`CONTACCUM_SHARED`, else `../shared`). Nothing about the values is assumed.

#[path = "../../encoder/tests/common/mod.rs"]
mod common;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use contaccum_encoder::{
    Encoder, ModelConfig, ModelFolder, ModelSettings, PassageFormat, Pooling, Similarity, TextTokenizer,
};
use contaccum_training::{
    BankDrift, BankWarmup, Method, RowScale, Rows, TokenizedSample, TrainConfig, Trainer,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    settings: Settings,
    runs: BTreeMap<String, Run>,
}

#[derive(Deserialize)]
struct Settings {
    n_total: usize,
    n_local: usize,
    updates: usize,
    lr: f64,
    warmup: usize,
    clip: f64,
}

#[derive(Deserialize)]
struct Run {
    regime: Regime,
    method: MethodFlags,
    log: Vec<Update>,
    probe: BTreeMap<String, Probe>,
}

#[derive(Deserialize)]
struct Regime {
    tied: bool,
    pooling: String,
    normalize: bool,
    temperature: f32,
    mask: bool,
}

#[derive(Deserialize)]
struct MethodFlags {
    grad_cache: bool,
    bank: usize,
    rows_mode: String,
    query_bank: bool,
    keep_past: bool,
}

#[derive(Deserialize)]
struct Update {
    lr: f64,
    micro_losses: Vec<f64>,
    grad_norms: BTreeMap<String, f64>,
    grad_norm: f64,
    bank: usize,
}

#[derive(Deserialize)]
struct Probe {
    delta_abs_sum: f64,
}

#[derive(Deserialize)]
struct RowsFile {
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    query: String,
    positive: String,
    hard: String,
}

#[derive(Deserialize)]
struct PassageLine {
    #[serde(rename = "_id")]
    id: String,
    title: String,
    text: String,
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    let text = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

struct Setup {
    golden: Golden,
    samples: Vec<TokenizedSample>,
    config: ModelConfig,
    settings: ModelSettings,
    weights: Vec<f32>,
}

fn setup() -> Option<Setup> {
    let shared = common::shared()?;
    let golden =
        std::env::var_os("CONTACCUM_GOLDEN").map_or_else(|| shared.join("reference/golden"), PathBuf::from);
    let folder = ModelFolder::locate(shared.join("models/all-MiniLM-L6-v2").to_str().unwrap()).unwrap();
    let config = folder.config().unwrap().with_dropout(0.0);
    let rows: RowsFile = read(&golden.join("rows.json"));
    let samples = tokenize(&folder.tokenizer().unwrap(), &rows.rows, &shared.join("data/squad/corpus.jsonl"));
    Some(Setup {
        golden: read(&golden.join("trajectory.json")),
        samples,
        weights: folder.weights(&contaccum_encoder::Layout::new(&config)).unwrap(),
        settings: folder.settings().unwrap(),
        config,
    })
}

fn tokenize(tokenizer: &TextTokenizer, rows: &[Row], corpus: &Path) -> Vec<TokenizedSample> {
    let passages: HashMap<String, (u32, PassageLine)> = std::fs::read_to_string(corpus)
        .unwrap()
        .lines()
        .enumerate()
        .map(|(i, line)| (i as u32, serde_json::from_str::<PassageLine>(line).unwrap()))
        .map(|(i, passage)| (passage.id.clone(), (i, passage)))
        .collect();
    let passage = |id: &str| {
        let (index, p) = &passages[id];
        (*index, tokenizer.passage(&p.title, &p.text, PassageFormat::Pair, 256).unwrap())
    };
    let sample = |row: &Row| {
        let ((positive_id, positive), (hard_id, hard)) = (passage(&row.positive), passage(&row.hard));
        let query = tokenizer.query(&row.query, 64).unwrap();
        TokenizedSample {
            query,
            positive,
            hard_negatives: vec![hard],
            query_id: 0,
            positive_id,
            hard_negative_ids: vec![hard_id],
        }
    };
    rows.iter().map(sample).collect()
}

/// The reference's flags as a configuration: a method, or a point of the space.
fn train_config(settings: &Settings, run: &Run, cached_as: Method) -> TrainConfig {
    let flags = &run.method;
    let banked = flags.bank > 0;
    let method = match (flags.grad_cache, banked) {
        (true, false) => cached_as,
        (true, true) => Method::ContaccumGradCache,
        (false, false) => Method::GradAccum,
        (false, true) if flags.query_bank => Method::Contaccum,
        (false, true) => Method::PreBatch,
    };
    TrainConfig {
        method,
        memory_bank_size: banked.then_some(flags.bank),
        bank_queries: banked.then_some(flags.query_bank),
        keep_past: banked.then_some(flags.keep_past),
        rows: banked.then_some(match flags.rows_mode.as_str() {
            "all" if flags.query_bank => Rows::All,
            _ => Rows::Current,
        }),
        memory_bank_warmup: if banked { BankWarmup::Updates(0) } else { BankWarmup::Auto },
        bank_drift: if banked { BankDrift::None } else { BankDrift::Compensate },
        row_scale: if banked { RowScale::All } else { RowScale::Current },
        tied: run.regime.tied,
        temperature: run.regime.temperature,
        mask_false_negatives: run.regime.mask,
        hard_negatives: 1,
        local_batch_size: settings.n_local,
        gradient_accumulation_steps: settings.n_total / settings.n_local,
        learning_rate: settings.lr,
        warmup_steps: Some(settings.warmup),
        max_steps: Some(settings.updates),
        max_grad_norm: settings.clip,
        similarity: if run.regime.normalize { Similarity::Cosine } else { Similarity::Dot },
        query_max_length: 64,
        passage_max_length: 256,
        ..TrainConfig::default()
    }
}

fn relative(got: f64, expected: f64) -> f64 {
    (got - expected).abs() / expected.abs().max(1e-30)
}

fn follow(setup: &Setup, name: &str, run: &Run, cached_as: Method) {
    let config = train_config(&setup.golden.settings, run, cached_as);
    let settings = ModelSettings {
        pooling: if run.regime.pooling == "cls" { Pooling::Cls } else { Pooling::Mean },
        normalize: run.regime.normalize,
        ..setup.settings.clone()
    };
    let encoder = || Encoder::new(setup.config.clone(), settings.clone(), setup.weights.clone());
    let passage = (!run.regime.tied).then(encoder);
    let updates = setup.golden.settings.updates;
    let mut trainer = Trainer::new(config, encoder(), passage, updates).unwrap();
    for (u, expected) in run.log.iter().enumerate() {
        let total = setup.golden.settings.n_total;
        let report = trainer.update(&setup.samples[u * total..(u + 1) * total]).unwrap();
        let at = format!("{name} as {}, update {}", cached_as.name(), u + 1);
        assert!((report.learning_rate - expected.lr).abs() < 1e-12, "{at}: learning rate");
        assert_eq!(report.bank_samples, expected.bank, "{at}: bank");
        assert_eq!(report.micro_losses.len(), expected.micro_losses.len(), "{at}: micro-steps");
        for (got, expected) in report.micro_losses.iter().zip(&expected.micro_losses) {
            assert!((got - expected).abs() <= 5e-5, "{at}: loss {got}, not {expected}");
        }
        let norms = report.gradient_norms;
        let mut pairs = vec![(norms.global, expected.grad_norm), (norms.query, expected.grad_norms["query"])];
        pairs.extend(expected.grad_norms.get("passage").map(|e| (norms.passage, *e)));
        for (got, expected) in pairs {
            assert!(relative(got, expected) <= 2e-4, "{at}: gradient norm {got}, not {expected}");
        }
    }
    for (probe, expected) in &run.probe {
        let (side, tensor) = probe.split_once(".bert.").expect("side.bert.tensor");
        let encoder = if side == "query" { trainer.query_encoder() } else { trainer.passage_encoder() };
        let tensor = encoder.layout().tensors().iter().find(|t| t.name == tensor).expect("a tensor of BERT");
        let pairs = encoder.weights()[tensor.range.clone()].iter().zip(&setup.weights[tensor.range.clone()]);
        let moved: f64 = pairs.map(|(now, before)| (*now as f64 - *before as f64).abs()).sum();
        let most = tensor.range.len() as f64 * run.log.iter().map(|u| u.lr).sum::<f64>();
        if expected.delta_abs_sum < 1e-6 * most {
            // The gradient is zero in exact arithmetic (with dot products and current rows alone, that of the last
            // LayerNorm's bias over passages is Σ q (Σ softmax − 1)): AdamW scales what rounding leaves of it.
            assert!(moved < 0.1 * most, "{name} {probe}: moved by {moved} on a gradient of zero");
            continue;
        }
        let error = relative(moved, expected.delta_abs_sum);
        assert!(
            error <= 1e-3,
            "{name} {probe}: moved by {moved}, not {} ({error:.1e})",
            expected.delta_abs_sum
        );
    }
}

fn follow_regime(tied: bool) {
    let Some(setup) = setup() else { return };
    for (name, run) in setup.golden.runs.iter().filter(|(_, run)| run.regime.tied == tied) {
        follow(&setup, name, run, Method::GradCache);
        if run.method.grad_cache && run.method.bank == 0 {
            follow(&setup, name, run, Method::FullBatch);
        }
    }
}

#[test]
fn untied_runs_follow_the_reference() {
    follow_regime(false);
}

#[test]
fn tied_runs_follow_the_reference() {
    follow_regime(true);
}
