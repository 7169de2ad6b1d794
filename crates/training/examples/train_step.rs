//! Time and memory of one training step on a token file of `bench/peers/pack.py`: workloads W1 to W3.
//!
//! ```sh
//! cargo run --release -p contaccum-training --example train_step -- w1.safetensors --model MODEL
//! cargo run --release -p contaccum-training --example train_step -- w1.safetensors --bert-base
//! cargo run --release -p contaccum-training --example train_step -- w1.safetensors --model MODEL --tied --chunk 4
//! ```
//!
//! With `--tied` one encoder, as `bench/peers/mnrl.py` has, with `--chunk` gradient caching of so many rows a pass. Else
//! two encoders, dropout on, mean pooling, cosine / 0.05, InfoNCE over positives and hard negatives, clipping at 2.0,
//! AdamW: what `bench/peers/train_step.py` does. Buffers are sized for the largest step of the file, as the peer's are.
//! Prints one line of JSON.

use std::time::Instant;

use contaccum_encoder::{
    BertConfig, Encoder, Layout, ModelConfig, ModelFolder, ModelSettings, Pooling, TokenSequence,
    random_weights,
};
use contaccum_training::{Method, TokenizedSample, TrainConfig, Trainer, resident_memory};
use cpu_time::ProcessTime;
use safetensors::SafeTensors;

/// Steps before timing.
const WARMUP: usize = 2;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (tokens, model, tied, chunk) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [tokens, "--model", model] => (tokens, Some(model), false, None),
        [tokens, "--bert-base"] => (tokens, None, false, None),
        [tokens, "--model", model, "--tied"] => (tokens, Some(model), true, None),
        [tokens, "--model", model, "--tied", "--chunk", rows] => (tokens, Some(model), true, Some(rows)),
        _ => {
            return Err(
                "usage: train_step TOKENS (--bert-base | --model FOLDER [--tied [--chunk ROWS]])".into()
            );
        }
    };
    let steps = read_steps(tokens)?;
    let rows = steps[0].len();
    let local_batch_size = chunk.map_or(Ok(rows), str::parse)?;
    let config = TrainConfig {
        method: if chunk.is_some() { Method::GradCache } else { Method::FullBatch },
        tied,
        local_batch_size,
        gradient_accumulation_steps: rows / local_batch_size,
        hard_negatives: 1,
        max_tokens: steps.iter().map(|step| step.iter().map(TokenizedSample::tokens).sum()).max(),
        ..TrainConfig::default()
    };
    let passage = if tied { None } else { Some(encoder(model)?) };
    let mut trainer = Trainer::new(config, encoder(model)?, passage, 1_000_000)?;
    let (mut seconds, mut cpu_seconds, mut loss) = (Vec::new(), Vec::new(), f64::NAN);
    for (index, step) in steps.iter().enumerate() {
        let (start, cpu_start) = (Instant::now(), ProcessTime::now());
        loss = trainer.update(step)?.loss();
        if index >= WARMUP {
            seconds.push(start.elapsed().as_secs_f64());
            cpu_seconds.push(cpu_start.elapsed().as_secs_f64());
        }
    }
    let report = serde_json::json!({
        "steps": seconds.len(),
        "threads": contaccum_kernels::threads(),
        "seconds_per_step": median(&seconds),
        "cpu_seconds_per_step": median(&cpu_seconds),
        "seconds": seconds,
        "last_loss": loss,
        "peak_resident_bytes": resident_memory().peak_bytes,
    });
    println!("{report}");
    Ok(())
}

fn median(seconds: &[f64]) -> f64 {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn encoder(model: Option<&str>) -> Result<Encoder, Box<dyn std::error::Error>> {
    let (shape, weights) = match model {
        Some(model) => {
            let folder = ModelFolder::locate(model)?;
            let shape = folder.config()?;
            let weights = folder.weights(&Layout::new(&shape))?;
            (shape, weights)
        }
        None => {
            let shape = ModelConfig::try_from(BertConfig::default())?;
            let weights = random_weights(&shape, &Layout::new(&shape), 1);
            (shape, weights)
        }
    };
    let settings = ModelSettings { pooling: Pooling::Mean, normalize: true, ..ModelSettings::plain(&shape) };
    Ok(Encoder::new(shape, settings, weights))
}

/// The steps of a token file: each its rows, with one hard negative.
fn read_steps(path: &str) -> Result<Vec<Vec<TokenizedSample>>, Box<dyn std::error::Error>> {
    let bytes = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    let file = SafeTensors::deserialize(&bytes)?;
    let mut steps = Vec::new();
    while file.tensor(&format!("{}.query.ids", steps.len())).is_ok() {
        let queries = read_sequences(&file, steps.len(), "query")?;
        let passages = read_sequences(&file, steps.len(), "passage")?;
        let rows = queries.len();
        let sample = |(row, query): (usize, TokenSequence)| TokenizedSample {
            query,
            positive: passages[row].clone(),
            hard_negatives: vec![passages[rows + row].clone()],
            query_id: 0,
            positive_id: row as u32,
            hard_negative_ids: vec![(rows + row) as u32],
        };
        steps.push(queries.into_iter().enumerate().map(sample).collect());
    }
    if steps.len() <= WARMUP { Err(format!("{path}: no steps to time").into()) } else { Ok(steps) }
}

fn read_sequences(
    file: &SafeTensors,
    step: usize,
    side: &str,
) -> Result<Vec<TokenSequence>, Box<dyn std::error::Error>> {
    let read = |key: &str| -> Result<Vec<u32>, Box<dyn std::error::Error>> {
        let tensor = file.tensor(&format!("{step}.{side}.{key}"))?;
        Ok(tensor.data().chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    };
    let (ids, types, offsets) = (read("ids")?, read("types")?, read("offsets")?);
    let sequence = |span: &[u32]| {
        let span = span[0] as usize..span[1] as usize;
        let types = &types[span.clone()];
        TokenSequence {
            second_segment: types.iter().position(|t| *t == 1).unwrap_or(types.len()),
            ids: ids[span].to_vec(),
        }
    };
    Ok(offsets.windows(2).map(sequence).collect())
}
