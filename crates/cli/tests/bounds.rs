//! Numbers at the ends of their range: an answer or one line, and neither a hang nor a panic.

mod common;

use std::path::Path;

use common::{contaccum, prepare, succeed};

/// Fails unless `line` exits with 2 after exactly one line on stderr that holds all of `words`.
fn refused(folder: &Path, line: &str, words: &[&str]) {
    let output = contaccum(folder, &format!("{line} --quiet"));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{line}\n{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{line}\n{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{line}\n{stderr}does not say {word:?}");
    }
}

#[test]
fn sizes_beyond_counting_are_refused_by_every_command() {
    let here = Path::new(".");
    let train = |flag: &str| format!("train --model m --train t --output-dir o {flag}");
    for (flag, words) in [
        ("--threads 65536", ["threads: 65536", "1024"]),
        ("--local-batch-size 2147483648", ["local_batch_size", "2147483648"]),
        ("--local-batch-size 2147483648 --memory-budget 1GiB", ["local_batch_size", "2147483648"]),
        ("--gradient-accumulation-steps 4294967295", ["gradient_accumulation_steps", "4194304"]),
        ("--local-batch-size 4096 --gradient-accumulation-steps 4096", ["4096, times 4096", "rows"]),
        ("--hard-negatives 100000", ["hard_negatives: 100000", "1022"]),
        ("--memory-bank-size 4294967295 --hard-negatives 1", ["memory_bank_size", "2147483647"]),
        ("--passage-max-length 4294967295", ["passage_max_length", "16777216"]),
        ("--learning-rate 1e300", ["learning_rate: 1e300", "3e38"]),
        ("--max-grad-norm NaN", ["max_grad_norm", "NaN"]),
        ("--epochs inf", ["epochs", "inf"]),
        ("--eval-data d --max-eval-queries 0", ["max_eval_queries", "at least 1"]),
    ] {
        refused(here, &train(flag), &words);
    }
    for command in ["encode --model m --corpus c --output o", "search --model m --index i --query q", "demo"]
    {
        refused(here, &format!("{command} --threads 65536"), &["threads: 65536", "1024"]);
    }
    refused(here, "encode --model m --corpus c --output o --max-tokens 0", &["--max-tokens"]);
    refused(
        here,
        "encode --model m --corpus c --output o --batch-size 9223372036854775808",
        &["--batch-size"],
    );
}

#[test]
fn any_memory_budget_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    let plan = "plan --model start --passage-max-length 32 --query-max-length 16";
    for budget in ["15EiB", "18446744073709551615B", "1TiB"] {
        assert!(succeed(folder, &format!("{plan} --memory-budget {budget}")).contains("memory budget"));
    }
    refused(folder, &format!("{plan} --memory-budget 1B"), &["memory_budget", "the least is"]);
}

#[test]
fn a_grid_that_nobody_could_train_is_refused_before_it_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let values: Vec<String> = (1..=400).map(|value| value.to_string()).collect();
    let values = values.join(", ");
    let keys = ["memory_bank_size", "local_batch_size", "max_steps", "warmup_steps"];
    let lists: String = keys.iter().map(|key| format!("{key} = [{values}]\n")).collect();
    let recipe = format!(
        "seeds = [1]\n[base]\nmodel = \"m\"\ntrain = \"t\"\n[[evaluation]]\ndata = \"d\"\nsplit = \"test\"\n\
         [[group]]\nname = \"g\"\ntitle = \"G\"\nbaseline = \"c\"\n[[cell]]\ngroup = \"g\"\nname = \"c\"\n{lists}"
    );
    std::fs::write(folder.path().join("study.toml"), recipe).unwrap();
    for options in ["", "--dry-run"] {
        refused(folder.path(), &format!("study study.toml {options}"), &["line 12", "more than 10000 runs"]);
    }
}

#[test]
fn a_model_that_is_no_numbers_is_not_saved() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    for rate in ["1e30", "3e38"] {
        let line = format!(
            "train --model start --train data --output-dir run --passage-max-length 32 --query-max-length 16 \
             --local-batch-size 4 --gradient-accumulation-steps 2 --max-steps 1 --threads 1 --method grad-accum \
             --learning-rate {rate} --quiet"
        );
        let output = contaccum(folder, &line);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(
            stderr.contains("weights are no longer numbers") && stderr.contains("learning_rate"),
            "{stderr}"
        );
        assert!(!folder.join("run/model").exists() && !folder.join("run/checkpoint-000001").exists());
    }
}
