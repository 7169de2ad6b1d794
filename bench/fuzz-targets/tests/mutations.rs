//! Seeded mutations of good files: whatever a file holds, a parser returns.
//!
//! `CONTACCUM_FUZZ_SECONDS` says for how long in all (10), `CONTACCUM_FUZZ_SEED` where the stream begins (1).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use contaccum_fuzz_targets::{Mutator, Scratch, TARGETS, Target};

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

/// Inputs read within `time`, one at least; the first that made the parser panic.
fn drive(target: &Target, time: Duration, seed: u64) -> (u64, Option<Vec<u8>>) {
    let scratch = Scratch::new();
    let mut mutator = Mutator::new((target.seeds)(), seed);
    let started = Instant::now();
    let mut inputs = 0;
    while inputs == 0 || started.elapsed() < time {
        let input = mutator.input();
        if catch_unwind(AssertUnwindSafe(|| target.run(&scratch, &input))).is_err() {
            return (inputs, Some(input));
        }
        inputs += 1;
    }
    (inputs, None)
}

#[test]
fn no_parser_panics_on_a_mutated_file() {
    let seconds = variable("CONTACCUM_FUZZ_SECONDS", 10);
    let seed = variable("CONTACCUM_FUZZ_SEED", 1);
    let time = Duration::from_secs(seconds) / TARGETS.len() as u32;
    let mut all = 0;
    let mut panicked = Vec::new();
    for target in &TARGETS {
        let (inputs, found) = drive(target, time, seed);
        println!("{}: {inputs} inputs", target.name);
        all += inputs;
        if let Some(input) = found {
            panicked.push(format!("{}: {:?}", target.name, String::from_utf8_lossy(&input)));
        }
    }
    println!("{all} inputs in all");
    assert!(panicked.is_empty(), "{}", panicked.join("\n"));
}
