//! `contaccum demo`.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use contaccum_data::TrainingSet;
use contaccum_data::synthetic::{SyntheticConfig, SyntheticSet};
use contaccum_encoder::{BertConfig, Encoder, Layout, ModelSettings, Pooling, TextTokenizer, random_weights};
use contaccum_training::{Method, Outcome, Run, StartModel, TrainConfig, run_settings};
use indicatif::HumanBytes;
use serde::Serialize;

use crate::args::DemoArgs;
use crate::dev::DevSet;
use crate::output;
use crate::train::Reporter;

/// The methods compared, in the order of the table.
const METHODS: [Method; 4] = [Method::GradAccum, Method::GradCache, Method::Contaccum, Method::FullBatch];

/// Updates of every method.
const UPDATES: usize = 150;

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
    crate::use_threads(args.threads)?;
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
    let lines = METHODS
        .into_iter()
        .map(|method| train(&recipe(folder.path(), method, args.seed), &tokenizer))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let rows: Vec<[String; 6]> = lines.iter().map(Line::cells).collect();
    let headers = ["method", "nDCG@10", "Success@20", "negatives", "seconds", "memory"];
    output::write(args.format, headers, &rows, &lines)
}

fn recipe(folder: &Path, method: Method, seed: u64) -> TrainConfig {
    TrainConfig {
        model: "a small random encoder".into(),
        train: folder.to_owned(),
        output_dir: folder.join(method.name()),
        query_max_length: 32,
        passage_max_length: 96,
        local_batch_size: 8,
        gradient_accumulation_steps: 8,
        method,
        memory_bank_size: (method == Method::Contaccum).then_some(256),
        learning_rate: 1e-3,
        warmup_ratio: Some(0.1),
        max_steps: Some(UPDATES),
        eval_data: Some(folder.to_owned()),
        eval_split: "test".into(),
        save_steps: 0,
        logging_steps: UPDATES,
        seed,
        ..TrainConfig::default()
    }
}

fn train(config: &TrainConfig, tokenizer: &Arc<TextTokenizer>) -> anyhow::Result<Line> {
    let shape = shape(tokenizer.vocabulary_size());
    let layout = Layout::new(&shape);
    let weights = random_weights(&shape, &layout, config.seed);
    let settings =
        run_settings(config, ModelSettings { pooling: Pooling::Mean, ..ModelSettings::plain(&shape) });
    let start =
        StartModel { encoder: Encoder::new(shape, settings, weights), tokenizer: Arc::clone(tokenizer) };
    let run = Run::of(config.clone(), start, TrainingSet::open(&config.source()?)?)?;
    let summary = run.summary()?;
    let dev = DevSet::open(&config.train, &config.eval_split, None, config, &summary.settings, tokenizer)?;
    let mut reporter = Reporter::new(config.method.name(), summary.updates, config.logging_steps, Some(dev));
    let started = Instant::now();
    let Outcome { last, .. } = run.train(false, &mut reporter)?;
    let record = last.expect("a run of updates has a last one");
    let value = |measure: &str| record.dev.get(measure).copied().unwrap_or(f64::NAN);
    Ok(Line {
        method: config.method.name(),
        ndcg_at_10: value("nDCG@10"),
        success_at_20: value("Success@20"),
        negatives_per_query: summary.negatives_per_query,
        seconds: started.elapsed().as_secs_f64(),
        memory_bytes: summary.memory.total_bytes(),
    })
}

/// A BERT of two layers: enough to learn the facts in under a minute.
fn shape(vocab_size: usize) -> BertConfig {
    BertConfig {
        hidden_size: 128,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 512,
        vocab_size,
        max_position_embeddings: 96,
        type_vocab_size: 2,
        layer_norm_eps: 1e-12,
        hidden_dropout_prob: 0.1,
        attention_probs_dropout_prob: 0.1,
        initializer_range: 0.02,
        hidden_act: "gelu".into(),
        pad_token_id: 0,
    }
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
