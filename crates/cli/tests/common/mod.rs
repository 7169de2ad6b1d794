//! A small data set, a small random model, and the program run on them.

pub mod setup;

use std::path::Path;
use std::process::{Command, Output};

use setup::{write_data, write_model};

/// Writes `data/` (a BEIR folder) and `start/` (a model of `hidden_size`) into `folder`.
pub fn prepare(folder: &Path, hidden_size: usize) {
    let tokenizer = write_data(&folder.join("data"));
    write_model(&folder.join("start"), &tokenizer, 1, hidden_size);
}

/// Runs `contaccum` in `folder` with the words of `line`; `'` keeps words together.
pub fn contaccum(folder: &Path, line: &str) -> Output {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 { words.push(part) } else { words.extend(part.split_whitespace()) }
    }
    let program = assert_cmd::cargo::cargo_bin!("contaccum");
    Command::new(program).current_dir(folder).args(words).output().unwrap()
}

/// What a command that succeeds writes to stdout.
pub fn succeed(folder: &Path, line: &str) -> String {
    let output = contaccum(folder, line);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}\n{stderr}");
    String::from_utf8(output.stdout).unwrap()
}
