//! What a signal, a full disk, a lost terminal or a second process does to work that is going on: nothing is lost.

#![cfg(unix)]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{contaccum, prepare, succeed};

const TRAIN: &str = "train --model start --train data --local-batch-size 4 --gradient-accumulation-steps 2 \
                     --memory-bank-size 16 --query-max-length 16 --passage-max-length 32 --threads 1";

/// For [`in_shell`]: a pipe whose reader opens it and goes.
const READER_THAT_LEAVES: &str = "rm -f pipe; mkfifo pipe; (true < pipe) >/dev/null 2>&1 &";

fn prepared() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), 32);
    folder
}

fn program() -> Command {
    Command::new(assert_cmd::cargo::cargo_bin!("contaccum"))
}

/// Starts a command whose words have no blanks in them.
fn start(folder: &Path, line: &str) -> Child {
    let mut command = program();
    command.current_dir(folder).args(line.split_whitespace());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The command in a shell that first does `setup`, as `ulimit` or a redirection needs.
fn in_shell(folder: &Path, setup: &str, line: &str, redirection: &str) -> Output {
    let program = assert_cmd::cargo::cargo_bin!("contaccum");
    let script = format!("{setup}\nexec {} {line} {redirection}", program.display());
    Command::new("sh").current_dir(folder).args(["-c", &script]).output().unwrap()
}

fn send(signal: &str, child: &Child) {
    let sent = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

fn wait_for(child: &mut Child, what: impl Fn() -> bool) {
    let started = Instant::now();
    while !what() {
        assert!(child.try_wait().unwrap().is_none(), "it ended");
        assert!(started.elapsed() < Duration::from_secs(300));
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Lines that are no warnings.
fn errors(told: &str) -> usize {
    told.lines().filter(|line| !line.contains("WARN")).count()
}

fn last_line(output: &Output) -> String {
    stderr(output).lines().last().unwrap_or_default().to_owned()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn a_signal_ends_a_run_with_a_checkpoint_and_it_goes_on_to_the_same_bits() {
    let folder = prepared();
    let folder = folder.path();
    succeed(folder, &format!("{TRAIN} --max-steps 60 --output-dir whole"));
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let run = folder.join(signal);
        let mut child = start(folder, &format!("{TRAIN} --max-steps 60 --output-dir {signal} --quiet"));
        wait_for(&mut child, || lines(&run.join("metrics.jsonl")) > 2);
        send(signal, &child);
        let output = child.wait_with_output().unwrap();
        let told = stderr(&output);
        assert_eq!((output.status.code(), told.matches("stopped").count()), (Some(code), 1), "{told}");
        let update = lines(&run.join("metrics.jsonl"));
        let told = last_line(&output);
        assert!(told.contains(&format!("stopped after update {update}/60")), "{told}");
        assert!(told.contains(&format!("checkpoint-{update:06}")) && told.contains("--resume"), "{told}");
        succeed(folder, &format!("train --resume --output-dir {signal}"));
        let weights = |run: &str| fs::read(folder.join(run).join("model/model.safetensors")).unwrap();
        assert!(weights("whole") == weights(signal), "{signal}: other weights");
        assert_eq!(lines(&run.join("metrics.jsonl")), 60);
    }
}

#[test]
fn a_second_signal_ends_a_run_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 256);
    // One update of many rows: it is not over before the second signal.
    let long = "--local-batch-size 4 --gradient-accumulation-steps 50 --max-steps 2";
    let mut child = start(folder, &format!("{TRAIN} {long} --output-dir run"));
    wait_for(&mut child, || folder.join("run/tensorboard").exists());
    send("INT", &child);
    send("TERM", &child);
    let code = child.wait().unwrap().code();
    assert!(code == Some(130) || code == Some(143), "{code:?}");
    assert!(!names(&folder.join("run")).iter().any(|name| name.starts_with("checkpoint-")));
}

#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let folder = prepared();
    let folder = folder.path();
    let script = format!(
        "trap '' HUP; exec {} {TRAIN} --max-steps 30 --output-dir run",
        assert_cmd::cargo::cargo_bin!("contaccum").display()
    );
    let mut shell = Command::new("sh");
    shell.current_dir(folder).args(["-c", &script]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = shell.spawn().unwrap();
    wait_for(&mut child, || lines(&folder.join("run/metrics.jsonl")) > 1);
    send("HUP", &child);
    assert!(child.wait().unwrap().success());
}

#[test]
fn checkpoints_are_written_by_time_too() {
    let folder = prepared();
    let by_time = "--max-steps 3 --save-minutes 0.0000001 --save-total-limit 0 --output-dir run";
    succeed(folder.path(), &format!("{TRAIN} {by_time}"));
    let names = names(&folder.path().join("run"));
    let checkpoints: Vec<&String> = names.iter().filter(|name| name.starts_with("checkpoint-")).collect();
    assert_eq!(checkpoints, ["checkpoint-000001", "checkpoint-000002", "checkpoint-000003"]);
}

#[test]
fn a_checkpoint_that_cannot_be_written_is_told_and_written_after_the_next_update() {
    let folder = prepared();
    let folder = folder.path();
    // The place of the checkpoint of update 2 is taken by another process: this one.
    let taken = folder.join("run/.checkpoint-000002.contaccum-partial");
    fs::create_dir_all(&taken).unwrap();
    let other = File::open(&taken).unwrap();
    other.lock().unwrap();
    let output = contaccum(
        folder,
        &format!("{TRAIN} --max-steps 5 --save-steps 2 --save-total-limit 0 --output-dir run"),
    );
    let told = stderr(&output);
    assert!(output.status.success(), "{told}");
    assert_eq!(told.matches("the run goes on and tries again").count(), 1, "{told}");
    let run = folder.join("run");
    assert!(!run.join("checkpoint-000002").exists() && run.join("checkpoint-000003").exists(), "{told}");
}

#[test]
fn a_stderr_that_is_full_or_gone_ends_nothing() {
    let folder = prepared();
    let folder = folder.path();
    for (index, redirection) in ["2>/dev/full", "2>&-", "2>pipe"].into_iter().enumerate() {
        let line = format!("{TRAIN} --max-steps 3 --logging-steps 1 --verbose --output-dir run{index}");
        let reader = if redirection == "2>pipe" { READER_THAT_LEAVES } else { "" };
        let output = in_shell(folder, reader, &line, redirection);
        assert_eq!(output.status.code(), Some(0), "{redirection}");
        assert!(folder.join(format!("run{index}/model/model.safetensors")).exists());
        let output =
            in_shell(folder, reader, "encode --model none --corpus data --output index", redirection);
        assert_eq!(output.status.code(), Some(1), "{redirection}");
        let output = in_shell(folder, reader, "encode", redirection);
        assert_eq!(output.status.code(), Some(2), "{redirection}");
    }
}

#[test]
fn a_result_that_does_not_arrive_on_stdout_is_a_failure_in_one_line() {
    let folder = prepared();
    let folder = folder.path();
    let line = format!("{TRAIN} --max-steps 2 --dry-run --json --quiet");
    for line in [line.as_str(), "--help", "train --help"] {
        let output = in_shell(folder, "", line, ">/dev/full");
        let told = stderr(&output);
        assert_eq!((output.status.code(), errors(&told)), (Some(1), 1), "{line}: {told}");
        assert!(told.contains("could not be written to stdout"), "{told}");
    }
}

#[test]
fn memory_that_is_not_to_be_had_is_told_in_one_line_before_anything_is_written() {
    let folder = prepared();
    let folder = folder.path();
    let huge = "--max-steps 2 --memory-bank-size 100000000 --ignore-memory-limit --output-dir run --quiet";
    let output = in_shell(folder, "ulimit -v 8000000", &format!("{TRAIN} {huge}"), "");
    let told = stderr(&output);
    assert_eq!((output.status.code(), errors(&told)), (Some(1), 1), "{told}");
    assert!(told.contains("out of memory"), "{told}");
    assert!(!folder.join("run/metrics.jsonl").exists());
}

#[test]
fn a_folder_that_another_process_works_in_is_refused_with_its_number() {
    let folder = prepared();
    let folder = folder.path();
    succeed(folder, &format!("{TRAIN} --max-steps 2 --output-dir run"));
    succeed(folder, "encode --model start --corpus data --output index --shard-rows 50");
    for (name, lines) in [
        (
            "run",
            [
                &*format!("{TRAIN} --max-steps 2 --overwrite --output-dir run"),
                "train --resume --output-dir run",
            ],
        ),
        ("index", ["encode --model start --corpus data --output index --shard-rows 50"; 2]),
    ] {
        let lock = File::options().read(true).write(true).open(folder.join(name).join(".lock")).unwrap();
        lock.lock().unwrap();
        for line in lines {
            let output = contaccum(folder, &format!("{line} --quiet"));
            let told = stderr(&output);
            assert_eq!((output.status.code(), errors(&told)), (Some(1), 1), "{line}: {told}");
            assert!(told.contains("in use by process "), "{told}");
        }
        drop(lock);
        assert!(contaccum(folder, lines[1]).status.success(), "{}", lines[1]);
    }
}

#[test]
fn every_file_of_a_run_has_the_permissions_that_the_umask_says() {
    let folder = prepared();
    let folder = folder.path();
    let eval = "--eval-data data --eval-split test";
    let output = in_shell(folder, "umask 027", &format!("{TRAIN} {eval} --max-steps 2 --output-dir run"), "");
    assert!(output.status.success(), "{}", stderr(&output));
    for (line, path) in [
        ("export --checkpoint run --output exported", "exported"),
        ("encode --model start --corpus data --output index", "index"),
    ] {
        assert!(in_shell(folder, "umask 027", line, "").status.success());
        assert!(folder.join(path).exists());
    }
    for path in ["run", "exported", "index"].iter().flat_map(|name| files(&folder.join(name))) {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o640, "{}: {mode:o}", path.display());
    }
}

#[test]
fn an_interrupted_encoding_goes_on_to_the_same_bytes() {
    let folder = prepared();
    let folder = folder.path();
    let encode = "encode --model start --corpus data --shard-rows 2 --batch-size 1 --threads 1 --output";
    succeed(folder, &format!("{encode} whole"));
    let mut child = start(folder, &format!("{encode} index"));
    wait_for(&mut child, || folder.join("index/embeddings-00001.npy").exists());
    send("TERM", &child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", stderr(&output));
    assert!(last_line(&output).contains("stopped after"), "{}", stderr(&output));
    assert!(!folder.join("index/embeddings-00059.npy").exists(), "it was not stopped");
    succeed(folder, &format!("{encode} index"));
    for path in files(&folder.join("whole")).iter().filter(|path| !path.ends_with(".lock")) {
        let twin = folder.join("index").join(path.file_name().unwrap());
        assert!(fs::read(path).unwrap() == fs::read(&twin).unwrap(), "{}", twin.display());
    }
}

#[test]
fn a_stopped_demo_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = program();
    command.current_dir(folder.path()).env("TMPDIR", folder.path()).arg("demo");
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let running = || {
        let demo = names(folder.path()).first().map(|name| folder.path().join(name));
        demo.is_some_and(|demo| lines(&demo.join("grad-accum/metrics.jsonl")) > 0)
    };
    wait_for(&mut child, running);
    send("INT", &child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(names(folder.path()).is_empty(), "{:?}", names(folder.path()));
}
