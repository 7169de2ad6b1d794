//! A run killed at any moment, in the middle of writing a checkpoint too, goes on to the very bits of one that was
//! never stopped.

#[path = "common/setup.rs"]
mod setup;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use setup::{write_data, write_model};

const UPDATES: usize = 24;

/// A small data set in `folder`, and two small models: `start` and the deeper `other`.
fn prepare(folder: &Path) {
    let tokenizer = write_data(&folder.join("data"));
    write_model(&folder.join("start"), &tokenizer, 2, 32);
    write_model(&folder.join("other"), &tokenizer, 3, 32);
}

/// Starts a run and kills it once it has a checkpoint.
fn killed_run(folder: &Path) {
    let mut child = train(folder, "run", false, &[]);
    wait_for_checkpoint(&mut child, &folder.join("run"), 1);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Exit code and last line on stderr of a resumption.
fn resumed(folder: &Path, command: &mut Command, extra: &[&str]) -> (Option<i32>, String) {
    command.current_dir(folder).args(["train", "--output-dir", "run", "--resume"]).args(extra);
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), stderr.lines().last().unwrap_or_default().to_owned())
}

fn contaccum() -> Command {
    Command::new(assert_cmd::cargo::cargo_bin!("contaccum"))
}

fn train(folder: &Path, output: &str, resume: bool, banks: &[&str]) -> Child {
    let mut command = contaccum();
    command.current_dir(folder).args(["train", "--output-dir", output]).stdout(Stdio::null());
    command.stderr(Stdio::null());
    if resume {
        command.arg("--resume");
    } else {
        let hard = "data/hard_negatives.tsv";
        command.args(["--model", "start", "--train", "data", "--hard-negatives-file", hard]);
        command.args(["--hard-negatives", "1", "--tied=false", "--memory-bank-size", "10"]);
        command.args(["--local-batch-size", "4", "--gradient-accumulation-steps", "2"]);
        command.args(["--query-max-length", "32", "--passage-max-length", "48"]);
        command.args(["--max-steps", &UPDATES.to_string(), "--save-steps", "1", "--threads", "2"]);
        command.args(["--learning-rate", "1e-3"]).args(banks);
    }
    command.spawn().unwrap()
}

fn checkpoints(run: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(run) else { return 0 };
    entries
        .filter_map(|e| e.unwrap().file_name().to_str()?.strip_prefix("checkpoint-")?.parse().ok())
        .max()
        .unwrap_or(0)
}

fn wait_for_checkpoint(child: &mut Child, run: &Path, update: usize) {
    let started = Instant::now();
    while checkpoints(run) < update && child.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < Duration::from_secs(300), "no checkpoint {update} in {}", run.display());
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn a_run_killed_and_resumed_ends_with_the_bits_of_one_that_was_not() {
    killed_and_resumed(&[]);
}

#[test]
fn a_run_killed_while_its_banks_warm_up_or_later_ends_with_the_same_bits() {
    killed_and_resumed(&[
        "--memory-bank-warmup",
        "9",
        "--memory-bank-dtype",
        "bf16",
        "--memory-bank-enqueue",
        "update",
    ]);
}

#[test]
fn a_run_of_one_encoder_that_moves_its_banks_from_the_start_ends_with_the_same_bits() {
    killed_and_resumed(&["--tied=true", "--memory-bank-warmup", "0"]);
}

fn killed_and_resumed(banks: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder);
    assert!(train(folder, "whole", false, banks).wait().unwrap().success());

    let run = folder.join("killed");
    let mut child = train(folder, "killed", false, banks);
    wait_for_checkpoint(&mut child, &run, 2);
    child.kill().unwrap();
    child.wait().unwrap();
    let mut kills = 1;
    // Delays of many lengths: with a checkpoint after every update, some kills land inside the writing of one.
    for round in 0..8u64 {
        let reached = checkpoints(&run);
        let mut child = train(folder, "killed", true, &[]);
        wait_for_checkpoint(&mut child, &run, reached + 1);
        std::thread::sleep(Duration::from_micros(round * 700));
        kills += usize::from(child.kill().is_ok() && !child.wait().unwrap().success());
    }
    assert!(kills >= 3, "the run ended before it could be killed");
    assert!(train(folder, "killed", true, &[]).wait().unwrap().success());

    for path in files(&folder.join("whole/model")) {
        let twin = run.join("model").join(path.strip_prefix(folder.join("whole/model")).unwrap());
        if path.file_name().unwrap() != "README.md" {
            assert!(
                std::fs::read(&path).unwrap() == std::fs::read(&twin).unwrap(),
                "{} differs",
                twin.display()
            );
        }
    }
    let losses = |run: &Path| -> Vec<String> {
        let lines = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        let loss = |line: &str| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            format!("{} {} {}", record["update"], record["loss"], record["grad_norm"])
        };
        lines.lines().map(loss).collect()
    };
    assert_eq!(losses(&folder.join("whole")), losses(&run));
    assert_eq!(losses(&run).len(), UPDATES);
}

#[test]
fn a_checkpoint_of_another_run_is_refused_by_the_setting_that_differs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder);
    killed_run(folder);
    for (flag, value, key) in [("--temperature", "0.5", "temperature"), ("--model", "other", "model")] {
        let (code, line) = resumed(folder, &mut contaccum(), &[flag, value]);
        assert_eq!(code, Some(1), "{line}");
        assert!(line.contains("checkpoint of another run") && line.contains(key), "{line}");
    }
}

#[test]
fn a_checkpoint_cut_short_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder);
    killed_run(folder);
    let newest = checkpoints(&folder.join("run"));
    let state = folder.join(format!("run/checkpoint-{newest:06}/state.safetensors"));
    let bytes = std::fs::read(&state).unwrap();
    std::fs::write(&state, &bytes[..bytes.len() / 2]).unwrap();
    let (code, line) = resumed(folder, &mut contaccum(), &[]);
    assert_eq!(code, Some(1), "{line}");
    assert!(line.contains("state.safetensors") && line.contains("checkpoint not read"), "{line}");
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_told_and_fails_the_run_at_its_end_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder);
    killed_run(folder);
    let before = checkpoints(&folder.join("run"));
    // A limit on file size stands for a full disk: the write fails half-way. 64 blocks of 512 bytes.
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\""]);
    limited.arg(assert_cmd::cargo::cargo_bin!("contaccum"));
    limited.current_dir(folder).args(["train", "--output-dir", "run", "--resume"]);
    let output = limited.output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    let line = told.lines().last().unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(line.starts_with("error: ") && line.contains("checkpoint-"), "{told}");
    assert!(told.contains("the run goes on and tries again"), "{told}");
    assert!(told.contains(&format!("update {UPDATES}/{UPDATES}")), "it did not go on to its end: {told}");
    assert_eq!(checkpoints(&folder.join("run")), before, "a checkpoint was half written");
    assert_eq!(resumed(folder, &mut contaccum(), &[]).0, Some(0));
}

#[test]
fn a_loss_that_is_not_a_number_ends_the_run_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder);
    let mut command = contaccum();
    command.current_dir(folder).args(["train", "--model", "start", "--train", "data", "--output-dir", "run"]);
    command.args(["--similarity", "dot", "--learning-rate", "1e30", "--passage-max-length", "48"]);
    command.args(["--local-batch-size", "4", "--gradient-accumulation-steps", "1", "--max-steps", "10"]);
    let output = command.args(["--query-max-length", "32"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let line = stderr.lines().last().unwrap_or_default();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(line.contains("not a number: update") && line.contains("lower learning_rate"), "{line}");
}
