//! The commands that are disturbed.

use std::path::Path;

/// A command of the program, and what must have been run before it.
#[derive(Debug)]
pub struct Scenario {
    /// What tables and reproduction lines call it.
    pub name: &'static str,
    /// Commands that make what it starts from, run once.
    pub before: &'static [&'static str],
    /// The command under test, run in a trial's folder.
    pub command: &'static str,
}

macro_rules! train {
    ($rest:literal) => {
        concat!(
            "train --model ../../in/start --train ../../in/data --query-max-length 20 --passage-max-length 40 ",
            "--threads 1 --local-batch-size 4 --gradient-accumulation-steps 2 --max-steps 5 --save-steps 1 ",
            "--learning-rate 1e-3 --hard-negatives-file ../../in/data/hard_negatives.tsv --hard-negatives 1 ",
            $rest
        )
    };
}

const BANKS: &str = train!(
    "--memory-bank-size 16 --eval-data ../../in/data --eval-split test --eval-steps 2 --output-dir run"
);
const ENCODE: &str =
    "encode --model ../../in/start --corpus ../../in/data --shard-rows 16 --output index --threads 1";

/// Every command that writes files.
pub const SCENARIOS: [Scenario; 8] = [
    Scenario { name: "train", before: &[], command: BANKS },
    Scenario {
        name: "train-two-encoders",
        before: &[],
        command: train!("--method grad-cache --tied false --save-total-limit 1 --output-dir run"),
    },
    Scenario { name: "encode", before: &[], command: ENCODE },
    Scenario {
        name: "encode-queries",
        before: &[],
        command: "encode --model ../../in/start --queries ../../in/data --split test --shard-rows 5 --output index",
    },
    Scenario {
        name: "export",
        before: &[train!("--method grad-accum --output-dir run")],
        command: "export --checkpoint run --output models/exported",
    },
    Scenario {
        name: "report",
        before: &[BANKS, train!("--method grad-accum --output-dir other"), "report run --output report.html"],
        command: "report run other --output report.html",
    },
    Scenario {
        name: "search",
        before: &[
            ENCODE,
            "search --model ../../in/start --index index --queries ../../in/data --split test --top-k 2 --output r.trec",
        ],
        command: "search --model ../../in/start --index index --queries ../../in/data --split test --top-k 9 --output r.trec",
    },
    Scenario { name: "study", before: &[], command: "study ../../in/study.toml --output study" },
];

impl Scenario {
    /// The scenario of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    /// The command that goes on in `folder`, where the command under test was disturbed.
    pub fn again(&self, folder: &Path) -> String {
        let run = folder.join("run");
        let begun = std::fs::read_dir(&run).into_iter().flatten().flatten().any(|entry| {
            let name = entry.file_name();
            name == "model" || name.to_string_lossy().starts_with("checkpoint-")
        });
        match self.command.starts_with("train ") && begun {
            true => "train --resume --output-dir run".to_owned(),
            false => self.command.to_owned(),
        }
    }
}
