//! Time of whole updates with banks, and of gradient caching, against gradient accumulation in the same process:
//!
//! ```sh
//! cargo run --release -p contaccum-training --example bank_cost -- --shape minilm --banks 2048,8192,65536,262144 --rounds 5
//! ```
//!
//! Local batch 8, 16 micro-batches an update, random tokens, random weights, dropout on, one encoder. Every update of
//! a method stands between two of gradient accumulation on the same rows, and is divided by their mean; another
//! trainer of gradient accumulation is measured the same way and shows the noise. The banks are full of random unit
//! vectors from the start, so the first update splits a block of each bank (see `block_sums.rs` of the objective): means
//! hold that cost, medians may not. The learning rate is as good as none, so that no sample leaves because the encoder
//! moved: banks that move (their row counts the probe as the objective's) stay full. Two updates differ by several percent in what the encoder takes on a noisy machine;
//! the last column is the cost of the objective within the same updates.

use std::time::Instant;

use contaccum_encoder::{
    BertConfig, Encoder, Layout, ModelConfig, ModelSettings, TokenSequence, random_weights,
};
use contaccum_objective::{Batch, ObjectiveState};
use contaccum_training::{BankDrift, BankWarmup, Method, TokenizedSample, TrainConfig, Trainer};

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
    let banks =
        banks.split(',').map(|samples| samples.parse::<usize>().expect("--banks are numbers: 2048,8192"));

    let mut contenders = vec![
        ("grad-accum, again".to_owned(), trainer(&shape, without_banks(Method::GradAccum))),
        ("grad-cache".to_owned(), trainer(&shape, without_banks(Method::GradCache))),
    ];
    for samples in banks {
        for (name, bank_drift) in [("moved", BankDrift::Compensate), ("not moved", BankDrift::None)] {
            let config = TrainConfig {
                memory_bank_size: Some(samples),
                memory_bank_warmup: BankWarmup::Updates(0),
                bank_drift,
                ..without_banks(Method::Contaccum)
            };
            let mut trainer = trainer(&shape, config);
            fill(&mut trainer, samples, shape.architecture().width);
            contenders.push((format!("contaccum, bank {samples}, {name}"), trainer));
        }
    }
    let mut plain = trainer(&shape, without_banks(Method::GradAccum));
    let mut numbers = Numbers(1);
    let mut measured: Vec<Vec<Compared>> = contenders.iter().map(|_| Vec::new()).collect();
    let mut before = update(&mut plain, &batch(&mut numbers));
    for _ in 0..rounds {
        for ((name, trainer), measured) in contenders.iter_mut().zip(&mut measured) {
            let batch = batch(&mut numbers);
            let own = update(trainer, &batch);
            let after = update(&mut plain, &batch);
            eprintln!(
                "{name}: {:.3} s ({:.3} s of it the objective) between {:.3} and {:.3} s of grad-accum",
                own.seconds, own.objective_seconds, before.seconds, after.seconds
            );
            measured.push(Compared { own, accumulation: (before.seconds + after.seconds) / 2.0 });
            before = after;
        }
    }
    println!(
        "{name}: {} layers of {}, local batch {LOCAL_BATCH}, {MICRO_BATCHES} micro-batches, queries of {QUERY_TOKENS:?} \
         and passages of {PASSAGE_TOKENS:?} tokens, {} threads, {rounds} updates of each",
        shape.architecture().layers.len(),
        shape.architecture().width,
        contaccum_kernels::threads(),
    );
    println!(
        "| method | update (s), median | against grad-accum: median | lowest to highest | mean | objective (s), median | \
         mean | update / (update − objective), mean |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for ((name, _), measured) in contenders.iter().zip(&measured) {
        let column = |of: fn(&Compared) -> f64| {
            let mut values: Vec<f64> = measured.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            [values[0], values[values.len() / 2], values[values.len() - 1], mean]
        };
        let [_, spent, _, mean_spent] = column(|m| m.own.seconds);
        let [lowest, ratio, highest, mean_ratio] = column(|m| m.own.seconds / m.accumulation);
        let [_, objective, _, mean_objective] = column(|m| m.own.objective_seconds);
        println!(
            "| {name} | {spent:.3} | {ratio:.3} | {lowest:.3} to {highest:.3} | {mean_ratio:.3} | {objective:.3} | \
             {mean_objective:.3} | {:.3} |",
            mean_spent / (mean_spent - mean_objective)
        );
    }
}

/// What one update took.
#[derive(Clone, Copy)]
struct Spent {
    seconds: f64,
    objective_seconds: f64,
}

/// An update of a method, and the mean of gradient accumulation's before and after it.
struct Compared {
    own: Spent,
    accumulation: f64,
}

fn shape(name: &str) -> Option<ModelConfig> {
    let [hidden_size, num_hidden_layers, intermediate_size] = match name {
        "minilm" => [384, 6, 1536],
        "bert-base" => [768, 12, 3072],
        _ => return None,
    };
    let shape = BertConfig {
        hidden_size,
        num_hidden_layers,
        intermediate_size,
        num_attention_heads: 12,
        ..BertConfig::default()
    };
    Some(shape.try_into().expect("a shape that can be built"))
}

fn without_banks(method: Method) -> TrainConfig {
    TrainConfig {
        method,
        local_batch_size: LOCAL_BATCH,
        gradient_accumulation_steps: MICRO_BATCHES,
        query_max_length: QUERY_TOKENS[1],
        passage_max_length: PASSAGE_TOKENS[1],
        learning_rate: 1e-9,
        ..TrainConfig::default()
    }
}

fn trainer(shape: &ModelConfig, config: TrainConfig) -> Trainer {
    let settings = ModelSettings { normalize: true, ..ModelSettings::plain(shape) };
    let encoder = Encoder::new(shape.clone(), settings, random_weights(shape, &Layout::new(shape), 1));
    Trainer::new(config, encoder, None, 1_000_000).expect("the settings are possible")
}

fn update(trainer: &mut Trainer, batch: &[TokenizedSample]) -> Spent {
    let started = Instant::now();
    let report = trainer.update(batch).expect("random rows train");
    Spent { seconds: started.elapsed().as_secs_f64(), objective_seconds: report.objective_seconds }
}

fn batch(numbers: &mut Numbers) -> Vec<TokenizedSample> {
    let sample = |_| TokenizedSample {
        query: numbers.sequence(QUERY_TOKENS),
        positive: numbers.sequence(PASSAGE_TOKENS),
        hard_negatives: Vec::new(),
        query_id: 0,
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
        query_ids: &ids,
        positive_ids: &ids,
        hard_negative_ids: &[],
        hard_negatives_per_sample: &[0; LOCAL_BATCH],
    });
    let times = samples / LOCAL_BATCH;
    assert_eq!(times * LOCAL_BATCH, samples, "a bank of whole local batches");
    let full = ObjectiveState {
        queries: numbers.unit_vectors(samples, dim),
        columns: numbers.unit_vectors(samples, dim),
        ..objective.state().repeated(times)
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
