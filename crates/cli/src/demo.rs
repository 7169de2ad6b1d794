//! `contaccum demo`.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use contaccum_data::TrainingSet;
use contaccum_data::synthetic::{SyntheticConfig, SyntheticSet};
use contaccum_encoder::{
    BertConfig, Encoder, Layout, ModelConfig, ModelSettings, Pooling, TextTokenizer, random_weights,
};
use contaccum_training::{Begin, Method, Outcome, Run, StartModel, TrainConfig, run_settings};
use indicatif::HumanBytes;
use serde::Serialize;

use crate::args::DemoArgs;
use crate::output;
use crate::signals::Signals;
use crate::train::{Reporter, dev_set, evaluation_needs};

/// What is compared, in the order of the table: names, methods and updates.
const RUNS: [(&str, Method, usize); 5] = [
    ("grad-accum", Method::GradAccum, UPDATES),
    ("grad-cache", Method::GradCache, UPDATES),
    ("grad-cache, fewer updates", Method::GradCache, UPDATES_IN_TIME),
    ("contaccum", Method::Contaccum, UPDATES),
    ("full-batch", Method::FullBatch, UPDATES),
];

/// Updates from random weights.
const UPDATES: usize = 150;

/// Updates that grad-cache, with its second forward pass, does in the time that contaccum takes for [`UPDATES`].
const UPDATES_IN_TIME: usize = 115;

/// One line of the table.
#[derive(Serialize)]
struct Line {
    method: &'static str,
    ndcg_at_10: f64,
    success_at_20: f64,
    negatives_per_query: usize,
    seconds: f64,
    memory_bytes: usize,
}

/// Trains with each method on the same synthetic data and writes the comparison.
pub fn run(args: &DemoArgs) -> anyhow::Result<()> {
    crate::use_threads(args.threads.threads)?;
    let signals = Signals::catch()?;
    let folder = tempfile::tempdir()?;
    let set = SyntheticSet::generate(args.seed, SyntheticConfig::default())?;
    set.write_beir(folder.path())?;
    tracing::info!(
        "{} passages, {} questions to train on, {} others to measure on; seed {}",
        set.passages.len(),
        set.train.len(),
        set.test.len(),
        args.seed,
    );
    let tokenizer = Arc::new(TextTokenizer::from_vocabulary(set.vocabulary)?);
    let data = folder.path();
    let shape = shape(tokenizer.vocabulary_size());
    let random = random_weights(&shape, &Layout::new(&shape), args.seed);
    let mut lines = Vec::new();
    for (name, method, updates) in RUNS {
        let recipe = recipe(data, name, method, updates, args.seed);
        lines.push(train(name, &recipe, &shape, random.clone(), &tokenizer, &signals)?);
    }
    let rows: Vec<[String; 6]> = lines.iter().map(Line::cells).collect();
    let headers = ["method", "nDCG@10", "Success@20", "negatives", "seconds", "memory beside the program"];
    output::write(args.format, headers, &rows, &lines)
}

fn recipe(folder: &Path, name: &str, method: Method, updates: usize, seed: u64) -> TrainConfig {
    TrainConfig {
        model: "a small random encoder".into(),
        train: folder.to_owned(),
        output_dir: folder.join(name),
        query_max_length: 32,
        passage_max_length: 96,
        local_batch_size: 8,
        gradient_accumulation_steps: 8,
        method,
        learning_rate: 1e-3,
        warmup_ratio: Some(0.1),
        max_steps: Some(updates),
        eval_data: Some(folder.to_owned()),
        eval_split: "test".into(),
        save_steps: 0,
        save_minutes: 0.0,
        logging_steps: updates,
        seed,
        ..TrainConfig::default()
    }
}

/// Trains from `weights` and measures the result.
fn train(
    name: &'static str,
    config: &TrainConfig,
    shape: &ModelConfig,
    weights: Vec<f32>,
    tokenizer: &Arc<TextTokenizer>,
    signals: &Signals,
) -> anyhow::Result<Line> {
    let settings =
        run_settings(config, ModelSettings { pooling: Pooling::Mean, ..ModelSettings::plain(shape) });
    let encoder = Encoder::new(shape.clone(), settings, weights);
    let start = StartModel { encoder, tokenizer: Arc::clone(tokenizer) };
    let dev = dev_set(config, &config.train, start.encoder.settings(), tokenizer)?;
    let needs = evaluation_needs(&dev, start.encoder.dim());
    let run = Run::of(config.clone(), start, TrainingSet::open(&config.source()?)?, needs)?;
    let summary = run.summary()?;
    let mut reporter = Reporter::new(name, config, summary.updates, Some(dev), signals);
    let started = Instant::now();
    let last = match run.train(Begin::Anew, &mut reporter)? {
        Outcome::Finished { last, .. } => last,
        Outcome::Stopped { .. } => {
            drop(reporter);
            return Err(signals
                .interrupted("stopped; the demo begins anew each time".to_owned())
                .unwrap_err());
        }
    };
    let record = last.expect("a run of updates has a last one");
    let value = |measure: &str| record.dev.get(measure).copied().unwrap_or(f64::NAN);
    Ok(Line {
        method: name,
        ndcg_at_10: value("nDCG@10"),
        success_at_20: value("Success@20"),
        negatives_per_query: summary.negatives.per_query,
        seconds: started.elapsed().as_secs_f64(),
        memory_bytes: summary.memory.total_bytes() - summary.memory.program_bytes,
    })
}

/// A BERT of two layers: enough to learn the facts in under a minute.
fn shape(vocab_size: usize) -> ModelConfig {
    BertConfig {
        hidden_size: 128,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 512,
        vocab_size,
        max_position_embeddings: 96,
        ..BertConfig::default()
    }
    .try_into()
    .expect("a shape that can be built")
}

impl Line {
    fn cells(&self) -> [String; 6] {
        [
            self.method.to_owned(),
            format!("{:.3}", self.ndcg_at_10),
            format!("{:.3}", self.success_at_20),
            self.negatives_per_query.to_string(),
            format!("{:.1}", self.seconds),
            HumanBytes(self.memory_bytes as u64).to_string(),
        ]
    }
}
