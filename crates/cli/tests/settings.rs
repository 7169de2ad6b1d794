//! What comes of the table of settings: what is refused by `train` and `plan` alike, completions and manual pages.

mod common;

use std::path::Path;

use common::{contaccum, prepare, succeed};

/// Settings that make no sense, whatever the data.
const WRONG: [&str; 45] = [
    "",
    "--model start --local-batch-size 0",
    "--model start --local-batch-size -1",
    "--model start --local-batch-size 9999999",
    "--model start --local-batch-size 9999 --gradient-accumulation-steps 9999",
    "--model start --gradient-accumulation-steps 0",
    "--model start --local-batch-size 4000000 --gradient-accumulation-steps 1 --hard-negatives 1000",
    "--model start --method grad-accum --local-batch-size 1",
    "--model start --method dpr",
    "--model start --method grad-cache --memory-bank-size 8",
    "--model start --method full-batch --memory-bank-warmup 3",
    "--model start --memory-bank-size 0",
    "--model start --memory-bank-size 4294967295 --hard-negatives 1000",
    "--model start --memory-bank-warmup soon",
    "--model start --memory-bank-warmup 3 --max-steps 3",
    "--model start --memory-bank-dtype f16",
    "--model start --bank-passages false --rows current",
    "--model start --bank-hard-negatives",
    "--model start --keep-past false --memory-bank-enqueue update",
    "--model start --max-steps 0",
    "--model start --epochs 0",
    "--model start --epochs 1e30",
    "--model start --epochs 1 --max-steps 3",
    "--model start --warmup-steps 1 --warmup-ratio 0.1",
    "--model start --warmup-ratio 2",
    "--model start --temperature 0",
    "--model start --temperature 1e39",
    "--model start --learning-rate nan",
    "--model start --dropout 1",
    "--model start --adam-epsilon 0",
    "--model start --save-minutes -1",
    "--model start --threads 5000",
    "--model start --query-max-length 2",
    "--model start --query-max-length 65",
    "--model start --passage-max-length 99999999",
    "--model start --max-tokens 5",
    "--model start --normalize false",
    "--model start --no-duplicates --drop-last false",
    "--model start --eval-steps 3",
    "--model start --corpus data",
    "--model start --memory-budget 0B",
    "--model start --seed -1",
    "--model ./nowhere",
    "--model start --recipe wrong.toml",
    "--model start --recipe none.toml",
];

#[test]
fn plan_refuses_what_train_refuses_with_the_same_line() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    std::fs::write(folder.join("wrong.toml"), "seed = 1\nlocal_batch = 8\n").unwrap();
    let short =
        "--query-max-length 16 --passage-max-length 32 --local-batch-size 4 --gradient-accumulation-steps 2";
    for wrong in WRONG {
        // The last of a flag that is given twice counts.
        let settings = format!("--train data {short} {wrong} --quiet");
        let [train, dry, plan] = ["train --output-dir run", "train --dry-run", "plan"].map(|command| {
            let output = contaccum(folder, &format!("{command} {settings}"));
            assert!(output.stdout.is_empty(), "{command} {wrong}");
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        });
        assert!(train.0 == Some(1) || train.0 == Some(2), "{wrong}: {train:?}");
        assert!(train.1.starts_with("error: ") && train.1.lines().count() == 1, "{wrong}: {}", train.1);
        assert_eq!((&train, &train), (&dry, &plan), "{wrong}");
    }
    assert!(!folder.join("run").exists());
}

#[test]
fn a_plan_needs_no_data_and_does_not_look_for_what_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), 32);
    let settings = "--model start --passage-max-length 32 --query-max-length 16 --hard-negatives-file no.tsv";
    succeed(folder.path(), &format!("plan {settings}"));
    succeed(folder.path(), &format!("plan {settings} --train not/here"));
}

#[test]
fn a_dry_run_tells_every_setting_that_decides_a_number_and_is_not_at_its_default() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), 32);
    let told = succeed(
        folder.path(),
        "train --dry-run --model start --train data --passage-max-length 32 --query-max-length 16 \
         --local-batch-size 8 --weight-decay 0.1 --max-steps 30 --save-steps 7 --threads 1",
    );
    let line = told.lines().find(|line| line.starts_with("not by default\t")).unwrap();
    assert_eq!(
        line,
        "not by default\tquery_max_length 16, passage_max_length 32, weight_decay 0.1, max_steps 30"
    );
}

#[test]
fn every_shell_is_told_every_flag_and_the_words_it_takes() {
    let here = Path::new(".");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = succeed(here, &format!("completions {shell}"));
        for part in ["memory-bank-enqueue", "micro-batch", "save-minutes", "query-embeddings", "completions"]
        {
            assert!(script.contains(part), "{shell}: {part}");
        }
    }
    let output = contaccum(here, "completions tcsh");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
    assert!(stderr.contains("tcsh") && stderr.contains("bash"), "{stderr}");
}

#[test]
fn a_manual_page_tells_settings_with_their_defaults_and_examples_line_by_line() {
    let here = Path::new(".");
    let page = succeed(here, "man train");
    for part in [
        ".TH contaccum-train 1",
        "\\-\\-memory\\-bank\\-enqueue",
        "[default: micro\\-batch]",
        ".SH \"OPTIMIZER AND SCHEDULE\"",
        "\n    contaccum train \\-\\-resume \\-\\-output\\-dir runs/squad",
        ".SH SYNOPSIS\n\\fBcontaccum train\\fR [OPTIONS]\n",
    ] {
        assert!(page.contains(part), "{part}\n{page}");
    }
    assert!(page.is_ascii());
    assert!(succeed(here, "man").contains("contaccum\\-train(1)"));
    let output = contaccum(here, "man trian");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), stderr.as_str()),
        (Some(2), "error: no command trian, did you mean train? (see contaccum --help)\n")
    );
}
