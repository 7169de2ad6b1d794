//! Planned bytes against the most that was resident; what recomputation costs and saves; whether a long run grows.
//!
//! ```sh
//! cargo run --release -p contaccum-training --example planned_memory            # planned against measured
//! cargo run --release -p contaccum-training --example planned_memory -- cost    # policies in turn, A B C A B C
//! cargo run --release -p contaccum-training --example planned_memory -- long    # 300 updates
//! ```
//!
//! Tables are Markdown. Rows are random tokens. Linux only: the peak is `VmHWM` of `/proc/self/status`, and each line of
//! the first table is a process of its own, which starts this program again.

use std::process::Command;
use std::time::Instant;

use contaccum_encoder::{
    BertConfig, Encoder, Layout, ModelConfig, ModelSettings, Recompute, TokenSequence, random_weights,
};
use contaccum_training::{HEAP_BYTES, MemoryPlan, TokenizedSample, TrainConfig, Trainer, resident_memory};

const MIB: f64 = (1 << 20) as f64;
const ROWS: usize = 8;
const SHAPES: [&str; 2] = ["MiniLM", "BERT-base"];

/// One line of the first table.
#[derive(Clone, Copy)]
struct Setting {
    shape: &'static str,
    recompute: Recompute,
    freeze_embeddings: bool,
    /// Half the tokens a local batch may have, so that it is encoded in chunks.
    halved: bool,
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        None => planned_and_measured(),
        Some("cost") => costs(),
        Some("long") => long_run(),
        Some(number) => measure_here(settings()[number.parse::<usize>().expect("the number of a setting")]),
    }
}

fn shape(name: &str) -> ModelConfig {
    let shape = match name {
        "MiniLM" => BertConfig {
            hidden_size: 384,
            num_hidden_layers: 6,
            num_attention_heads: 12,
            intermediate_size: 1536,
            ..BertConfig::default()
        },
        "BERT-base" => BertConfig::default(),
        other => panic!("unknown shape {other}"),
    };
    shape.try_into().expect("a shape that can be built")
}

/// ContAccum with one hard negative: two encoders, 8 queries and 16 passages at once.
fn config(shape: &str, recompute: Recompute) -> TrainConfig {
    // Short texts for the large model: its updates are to take seconds.
    let (query_max_length, passage_max_length) = if shape == "MiniLM" { (64, 256) } else { (32, 64) };
    TrainConfig {
        tied: false,
        hard_negatives: 1,
        local_batch_size: ROWS,
        gradient_accumulation_steps: 1,
        query_max_length,
        passage_max_length,
        recompute,
        ..TrainConfig::default()
    }
}

fn settings() -> Vec<Setting> {
    let plain = |shape| {
        Recompute::ALL.map(|recompute| Setting { shape, recompute, freeze_embeddings: false, halved: false })
    };
    let halved = Setting { halved: true, ..plain("MiniLM")[0] };
    let frozen = Setting { freeze_embeddings: true, recompute: Recompute::Layer, ..halved };
    SHAPES.into_iter().flat_map(plain).chain([halved, frozen]).collect()
}

impl Setting {
    fn config(self) -> TrainConfig {
        let config = config(self.shape, self.recompute);
        let max_tokens = self.halved.then(|| config.row_tokens() * ROWS / 2);
        TrainConfig { freeze_embeddings: self.freeze_embeddings, max_tokens, ..config }
    }
}

fn planned_and_measured() {
    println!("| shape | recompute | max tokens | embeddings | planned MiB | peak MiB | planned / peak |");
    println!("|---|---|---|---|---|---|---|");
    for (number, setting) in settings().into_iter().enumerate() {
        let [planned, peak] = measure(number);
        println!(
            "| {} | {} | {} | {} | {:.0} | {:.0} | {:.3} |",
            setting.shape,
            setting.recompute.name(),
            setting.config().max_tokens.map_or("–".to_owned(), |tokens| tokens.to_string()),
            if setting.freeze_embeddings { "frozen" } else { "trained" },
            planned / MIB,
            peak / MIB,
            planned / peak,
        );
    }
}

/// Runs a setting in a process of its own: planned and peak bytes.
fn measure(number: usize) -> [f64; 2] {
    let program = std::env::current_exe().expect("this program has a path");
    let output = Command::new(program).arg(number.to_string()).output().expect("this program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("numbers are UTF-8");
    let mut numbers = text.split_whitespace().map(|number| number.parse().expect("a number"));
    std::array::from_fn(|_| numbers.next().expect("two numbers"))
}

fn measure_here(setting: Setting) {
    let config = setting.config();
    let (mut trainer, plan) = trainer(&config, setting.shape);
    for update in 0..4 {
        trainer.update(&rows(&config, update, true)).expect("random rows have a finite loss");
    }
    println!("{} {}", plan.total_bytes(), resident_memory().peak_bytes.expect("Linux tells the peak"));
}

/// A trainer from random weights, and its plan with what is resident before it.
fn trainer(config: &TrainConfig, name: &str) -> (Trainer, MemoryPlan) {
    let before = resident_memory().current_bytes.expect("Linux tells what is resident") as usize;
    let shape = shape(name);
    let plan =
        Trainer::memory_plan(config, &shape, contaccum_kernels::threads()).expect("settings that agree");
    let encoder = || {
        let weights = random_weights(&shape, &Layout::new(&shape), 1);
        Encoder::new(shape.clone(), ModelSettings::plain(&shape), weights)
    };
    let trainer = Trainer::new(config.clone(), encoder(), Some(encoder()), 1000);
    let plan = MemoryPlan { program_bytes: before + HEAP_BYTES, ..plan };
    (trainer.expect("settings that agree"), plan)
}

/// Random rows, all at their longest or of any length.
fn rows(config: &TrainConfig, update: usize, longest: bool) -> Vec<TokenizedSample> {
    let mut state = update as u64 + 1;
    let mut next = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound
    };
    let mut sequence = |most: usize| {
        let length = if longest { most } else { 3 + next(most - 2) };
        TokenSequence { ids: (0..length).map(|_| next(30_000) as u32).collect(), second_segment: length }
    };
    let row = |row: usize| TokenizedSample {
        query: sequence(config.query_max_length),
        positive: sequence(config.passage_max_length),
        hard_negatives: (0..config.hard_negatives).map(|_| sequence(config.passage_max_length)).collect(),
        query_id: 0,
        positive_id: row as u32,
        hard_negative_ids: (0..config.hard_negatives).map(|n| (1000 + row + n) as u32).collect(),
    };
    (0..config.total_batch_size()).map(row).collect()
}

/// Times the policies in turn on the same rows.
fn costs() {
    println!("| shape | recompute | activations MiB | all MiB | seconds an update | to none (least, most) |");
    println!("|---|---|---|---|---|---|");
    for name in SHAPES {
        let configs = Recompute::ALL.map(|recompute| config(name, recompute));
        let mut trainers = configs.each_ref().map(|config| trainer(config, name));
        let mut seconds = [const { Vec::new() }; 3];
        for round in 0..8 {
            let rows = rows(&configs[0], round, true);
            for ((trainer, _), seconds) in trainers.iter_mut().zip(&mut seconds) {
                let started = Instant::now();
                trainer.update(&rows).expect("random rows have a finite loss");
                // The first round warms up.
                seconds.extend((round > 0).then(|| started.elapsed().as_secs_f64()));
            }
        }
        for (index, recompute) in Recompute::ALL.into_iter().enumerate() {
            let ratios = seconds[index].iter().zip(&seconds[0]).map(|(one, none)| one / none).collect();
            let (ratios, times) = (sorted(ratios), sorted(seconds[index].clone()));
            let plan = trainers[index].1;
            let held = plan.total_bytes() - plan.program_bytes;
            println!(
                "| {name} | {} | {:.0} | {:.0} | {:.2} | {:.2} ({:.2}, {:.2}) |",
                recompute.name(),
                plan.activations_bytes as f64 / MIB,
                held as f64 / MIB,
                times[times.len() / 2],
                ratios[ratios.len() / 2],
                ratios[0],
                ratios[ratios.len() - 1],
            );
        }
    }
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// 300 updates of random lengths under a bound in tokens: what is resident after some of them.
fn long_run() {
    let config = TrainConfig {
        query_max_length: 16,
        passage_max_length: 48,
        max_tokens: Some(448),
        ..config("MiniLM", Recompute::None)
    };
    let (mut trainer, plan) = trainer(&config, "MiniLM");
    println!("planned {:.2} MiB\n", plan.total_bytes() as f64 / MIB);
    println!("| update | resident MiB |\n|---|---|");
    for update in 1..=300 {
        trainer.update(&rows(&config, update, false)).expect("random rows have a finite loss");
        if [1, 2, 5, 10, 50, 100, 200, 300].contains(&update) {
            let bytes = resident_memory().current_bytes.expect("Linux tells what is resident");
            println!("| {update} | {:.2} |", bytes as f64 / MIB);
        }
    }
}
