//! Time of whole updates with banks, and of gradient caching, against gradient accumulation in the same process:
//!
//! ```sh
//! cargo run --release -p contaccum-training --example bank_cost -- --shape minilm --banks 2048,8192,65536,262144 --rounds 5
//! ```
//!
//! Local batch 8, 16 micro-batches an update, random tokens, random weights, dropout on, one encoder. Every update of
//! a method stands between two of gradient accumulation on the same rows, and is divided by their mean. The banks are
//! full of random unit vectors from the start, so the first update splits a block of each bank (see `block_sums.rs`
//! of the objective): the mean holds that cost, the median may not.

use std::time::Instant;

use contaccum_encoder::{BertConfig, Encoder, Layout, ModelSettings, TokenSequence, random_weights};
use contaccum_objective::{Batch, ObjectiveState};
use contaccum_training::{Method, TokenizedSample, TrainConfig, Trainer};

const LOCAL_BATCH: usize = 8;
const MICRO_BATCHES: usize = 16;
/// Shortest and longest sequence, drawn evenly: 16 and 128 tokens on average, as SQuAD's questions and paragraphs.
const QUERY_TOKENS: [usize; 2] = [8, 24];
const PASSAGE_TOKENS: [usize; 2] = [64, 192];

fn main() {
    let argument = |flag: &str, default: &str| {
        let given = std::env::args().skip_while(|argument| argument != flag).nth(1);
        given.unwrap_or_else(|| default.into())
    };
    let name = argument("--shape", "minilm");
    let shape = shape(&name).expect("--shape is minilm or bert-base");
    let rounds: usize = argument("--rounds", "5").parse().expect("--rounds is a number");
    let banks = argument("--banks", "2048,8192,65536,262144");
    let banks = banks.split(',').map(|samples| samples.parse().expect("--banks are numbers: 2048,8192"));

    let mut contenders = vec![("grad-cache".to_owned(), trainer(&shape, Method::GradCache, None))];
    contenders.extend(banks.map(|samples| {
        let mut trainer = trainer(&shape, Method::Contaccum, Some(samples));
        fill(&mut trainer, samples, shape.hidden_size);
        (format!("contaccum, bank {samples}"), trainer)
    }));
    let mut plain = trainer(&shape, Method::GradAccum, None);
    let mut numbers = Numbers(1);
    let mut seconds: Vec<Vec<[f64; 2]>> = vec![Vec::new(); contenders.len()];
    let mut before = time(&mut plain, &batch(&mut numbers));
    for _ in 0..rounds {
        for ((name, trainer), seconds) in contenders.iter_mut().zip(&mut seconds) {
            let batch = batch(&mut numbers);
            let spent = time(trainer, &batch);
            let after = time(&mut plain, &batch);
            eprintln!("{name}: {spent:.3} s between {before:.3} and {after:.3} s of grad-accum");
            seconds.push([spent, (before + after) / 2.0]);
            before = after;
        }
    }
    println!(
        "{name}: {} layers of {}, local batch {LOCAL_BATCH}, {MICRO_BATCHES} micro-batches, queries of {QUERY_TOKENS:?} \
         and passages of {PASSAGE_TOKENS:?} tokens, {} threads, {rounds} updates of each",
        shape.num_hidden_layers,
        shape.hidden_size,
        contaccum_kernels::threads(),
    );
    println!(
        "| method | seconds: median | slowest | against grad-accum: mean | median | lowest to highest |"
    );
    println!("|---|---|---|---|---|---|");
    for ((name, _), seconds) in contenders.iter().zip(&seconds) {
        let sorted = |of: &dyn Fn(&[f64; 2]) -> f64| {
            let mut values: Vec<f64> = seconds.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let (spent, ratios) = (sorted(&|s| s[0]), sorted(&|s| s[0] / s[1]));
        let last = rounds - 1;
        let all: [f64; 2] = std::array::from_fn(|of| seconds.iter().map(|s| s[of]).sum());
        println!(
            "| {name} | {:.3} | {:.3} | {:.3} | {:.3} | {:.3} to {:.3} |",
            spent[rounds / 2],
            spent[last],
            all[0] / all[1],
            ratios[rounds / 2],
            ratios[0],
            ratios[last]
        );
    }
}

fn shape(name: &str) -> Option<BertConfig> {
    let [hidden_size, num_hidden_layers, intermediate_size] = match name {
        "minilm" => [384, 6, 1536],
        "bert-base" => [768, 12, 3072],
        _ => return None,
    };
    Some(BertConfig {
        hidden_size,
        num_hidden_layers,
        intermediate_size,
        num_attention_heads: 12,
        ..BertConfig::default()
    })
}

fn trainer(shape: &BertConfig, method: Method, memory_bank_size: Option<usize>) -> Trainer {
    let config = TrainConfig {
        method,
        memory_bank_size,
        local_batch_size: LOCAL_BATCH,
        gradient_accumulation_steps: MICRO_BATCHES,
        query_max_length: QUERY_TOKENS[1],
        passage_max_length: PASSAGE_TOKENS[1],
        ..TrainConfig::default()
    };
    let settings = ModelSettings { normalize: true, ..ModelSettings::plain(shape) };
    let encoder = Encoder::new(shape.clone(), settings, random_weights(shape, &Layout::new(shape), 1));
    Trainer::new(config, encoder, None, 1_000_000).expect("the settings are possible")
}

fn time(trainer: &mut Trainer, batch: &[TokenizedSample]) -> f64 {
    let started = Instant::now();
    trainer.update(batch).expect("random rows train");
    started.elapsed().as_secs_f64()
}

fn batch(numbers: &mut Numbers) -> Vec<TokenizedSample> {
    let sample = |_| TokenizedSample {
        query: numbers.sequence(QUERY_TOKENS),
        positive: numbers.sequence(PASSAGE_TOKENS),
        hard_negatives: Vec::new(),
        positive_id: numbers.below(1 << 30) as u32,
        hard_negative_ids: Vec::new(),
    };
    (0..LOCAL_BATCH * MICRO_BATCHES).map(sample).collect()
}

/// Fills the banks at once: random vectors, with the sums of one batch for every row, which cost the same.
fn fill(trainer: &mut Trainer, samples: usize, dim: usize) {
    let mut numbers = Numbers(2);
    let vectors = [(); 2].map(|()| numbers.unit_vectors(LOCAL_BATCH, dim));
    let ids: Vec<u32> = (0..LOCAL_BATCH as u32).collect();
    let objective = trainer.objective_mut();
    objective.enqueue(Batch {
        queries: &vectors[0],
        positives: &vectors[1],
        hard_negatives: &[],
        positive_ids: &ids,
        hard_negative_ids: &[],
        hard_negatives_per_sample: &[0; LOCAL_BATCH],
    });
    let one = objective.state();
    let times = samples / LOCAL_BATCH;
    assert_eq!(times * LOCAL_BATCH, samples, "a bank of whole local batches");
    let full = ObjectiveState {
        entered: samples as u64,
        queries: numbers.unit_vectors(samples, dim),
        columns: numbers.unit_vectors(samples, dim),
        column_ids: one.column_ids.repeat(times),
        row_ids: one.row_ids.repeat(times),
        own_scores: one.own_scores.repeat(times),
        block_sums: one.block_sums.repeat(times),
        newer_sums: one.newer_sums.repeat(times),
        open_sums: one.open_sums.repeat(times),
        total_sums: one.total_sums.repeat(times),
        ..one
    };
    objective.restore(&full).expect("the state has the objective's own settings and lengths");
}

/// SplitMix64: the same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn sequence(&mut self, [shortest, longest]: [usize; 2]) -> TokenSequence {
        let length = shortest + self.below(longest + 1 - shortest);
        TokenSequence {
            ids: (0..length).map(|_| self.below(30_000) as u32).collect(),
            second_segment: length,
        }
    }

    fn unit_vectors(&mut self, rows: usize, dim: usize) -> Vec<f32> {
        let mut values: Vec<f32> = (0..rows * dim).map(|_| self.below(1 << 20) as f32 - 524_288.0).collect();
        for row in values.chunks_mut(dim) {
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            row.iter_mut().for_each(|x| *x /= norm);
        }
        values
    }
}
