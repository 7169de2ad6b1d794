//! A study on synthetic data: what it leaves, that it goes on after being killed, and what it refuses to reuse.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{contaccum, prepare, succeed};
use serde_json::Value;

/// Two cells of two seeds from a fresh encoder.
const RECIPE: &str = r#"
seeds = [1, 2]

[base]
train = "data"
local_batch_size = 4
gradient_accumulation_steps = 2
query_max_length = 16
passage_max_length = 32
max_steps = 3
threads = 1

[start]
tokenizer = "start"
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 32
[start.train]
method = "grad-accum"
max_steps = 2

[[evaluation]]
data = "data"
split = "test"

[[group]]
name = "methods"
title = "Methods"
baseline = "grad-accum"

[[cell]]
group = "methods"
name = "grad-accum"
method = "grad-accum"

[[cell]]
group = "methods"
name = "contaccum {memory_bank_size}"
memory_bank_size = [8]
"#;

/// A folder with data, a tokenizer and the recipe, some of its lines replaced.
fn folder_of(replaced: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), 32);
    write_recipe(folder.path(), replaced);
    folder
}

fn write_recipe(folder: &Path, replaced: &[(&str, &str)]) {
    let mut recipe = RECIPE.to_owned();
    for (old, new) in replaced {
        assert!(recipe.contains(old), "{old}");
        recipe = recipe.replacen(old, new, 1);
    }
    fs::write(folder.join("study.toml"), recipe).unwrap();
}

fn json(folder: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(folder.join("out/study.json")).unwrap()).unwrap()
}

/// When each run of the study was trained last.
fn trained(folder: &Path) -> Vec<Option<std::time::SystemTime>> {
    let modified =
        |run: &str| fs::metadata(folder.join("out").join(run).join("metrics.jsonl")).ok()?.modified().ok();
    [
        "start/seed-1",
        "grad-accum/seed-1",
        "contaccum-8/seed-1",
        "start/seed-2",
        "grad-accum/seed-2",
        "contaccum-8/seed-2",
    ]
    .map(modified)
    .to_vec()
}

#[test]
fn a_study_compares_its_cells_and_does_nothing_twice() {
    let folder = folder_of(&[]);
    let folder = folder.path();
    assert_eq!(succeed(folder, "study study.toml --dry-run"), "grad-accum\ncontaccum 8\n");
    assert!(!folder.join("out").exists() && !folder.join("runs").exists());

    let table = succeed(folder, "study study.toml --output out");
    assert!(table.contains("4 of 4 runs done; seeds 1, 2; nDCG@10 on data (test, 20 queries)"), "{table}");
    assert_eq!(table.trim(), fs::read_to_string(folder.join("out/study.md")).unwrap().trim());
    let results = json(folder);
    let cells = results["cells"].as_array().unwrap();
    assert_eq!(cells[1]["name"], "contaccum 8");
    assert_eq!(cells[1]["runs"][1]["updates"], 3);
    assert_eq!(cells[1]["runs"][1]["negatives_per_query"], 11.0); // 4 + 8 - 1
    let comparisons = results["groups"][0]["comparisons"].as_array().unwrap();
    assert_eq!(comparisons.len(), 4, "one cell beside the baseline, four measures");
    let means =
        |cell: usize, seed: usize| cells[cell]["runs"][seed]["means"]["data"]["nDCG@10"].as_f64().unwrap();
    let difference = (means(1, 0) + means(1, 1) - means(0, 0) - means(0, 1)) / 2.0;
    let ndcg = comparisons.iter().find(|c| c["measure"] == "nDCG@10").unwrap();
    assert!((ndcg["difference"]["mean"].as_f64().unwrap() - difference).abs() < 1e-9);

    let run = folder.join("out/contaccum-8/seed-2");
    let evaluation = fs::read_to_string(run.join("evaluations/data.json")).unwrap();
    let evaluation: Value = serde_json::from_str(&evaluation).unwrap();
    assert_eq!(evaluation["queries"].as_array().unwrap().len(), 20);
    assert_eq!(evaluation["measures"]["RR@10"].as_array().unwrap().len(), 20);
    assert!(!run.join("model").exists() && !run.join("checkpoint-000003").exists());

    let before = trained(folder);
    assert_eq!(succeed(folder, "study study.toml --output out"), table);
    assert_eq!(trained(folder), before);
}

#[test]
fn a_study_out_of_time_tells_what_is_there_and_goes_on_later() {
    let folder = folder_of(&[]);
    let folder = folder.path();
    let table = succeed(folder, "study study.toml --output out --max-minutes 0");
    assert!(table.contains("0 of 4 runs done"), "{table}");
    assert!(succeed(folder, "study study.toml --output out").contains("4 of 4 runs done"));
}

#[cfg(unix)]
#[test]
fn a_killed_study_goes_on_with_the_run_it_was_in_and_ends_as_if_it_had_not_been_killed() {
    use std::os::unix::process::CommandExt;

    let slower = [("max_steps = 3", "max_steps = 60\nsave_steps = 1")];
    let folder = folder_of(&slower);
    let folder = folder.path();
    let whole = folder.join("whole");
    succeed(folder, "study study.toml --output whole");

    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("contaccum"));
    command.current_dir(folder).args(["study", "study.toml", "--output", "out"]);
    let mut study = command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().unwrap();
    let started = Instant::now();
    let interrupted = folder.join("out/contaccum-8/seed-1");
    while !interrupted.join("checkpoint-000002").exists() {
        assert!(study.try_wait().unwrap().is_none() && started.elapsed() < Duration::from_secs(300));
        std::thread::sleep(Duration::from_millis(1));
    }
    // The whole process group, as a terminal or a job's end does.
    let group = format!("-{}", study.id());
    assert!(Command::new("kill").args(["-KILL", "--", &group]).status().unwrap().success());
    study.wait().unwrap();
    assert!(!folder.join("out/grad-accum/seed-2").exists());
    let before = trained(folder);

    let output = contaccum(folder, "study study.toml --output out");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    assert!(told.contains("3/6: going on with contaccum 8, seed 1"), "{told}");
    assert!(
        !told.contains("1/6") && !told.contains("2/6") && told.contains("4/6: training start, seed 2"),
        "{told}"
    );
    assert_eq!(trained(folder)[..2], before[..2]);
    for run in ["grad-accum/seed-1", "contaccum-8/seed-1", "contaccum-8/seed-2"] {
        let evaluation = |study: &Path| fs::read(study.join(run).join("evaluations/data.json")).unwrap();
        assert!(evaluation(&whole) == evaluation(&folder.join("out")), "{run}");
    }
}

#[cfg(unix)]
#[test]
fn a_study_asked_to_stop_ends_its_run_with_a_checkpoint_and_goes_on_from_it() {
    let folder = folder_of(&[("max_steps = 3", "max_steps = 60")]);
    let folder = folder.path();
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("contaccum"));
    command.current_dir(folder).args(["study", "study.toml", "--output", "out"]);
    let mut study = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    let run = folder.join("out/contaccum-8/seed-1");
    while fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.lines().count()) < 2 {
        assert!(study.try_wait().unwrap().is_none() && started.elapsed() < Duration::from_secs(300));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(Command::new("kill").args(["-TERM", &study.id().to_string()]).status().unwrap().success());
    let output = study.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(143), "{told}");
    assert!(told.lines().last().unwrap().contains("the same command goes on"), "{told}");
    let update = fs::read_to_string(run.join("metrics.jsonl")).unwrap().lines().count();
    assert!(run.join(format!("checkpoint-{update:06}")).exists(), "{told}");
    let told = String::from_utf8(contaccum(folder, "study study.toml --output out").stderr).unwrap();
    assert!(told.contains("3/6: going on with contaccum 8, seed 1"), "{told}");
}

#[test]
fn results_of_other_settings_are_not_reused() {
    let folder = folder_of(&[]);
    let folder = folder.path();
    succeed(folder, "study study.toml --output out");
    let before = trained(folder);
    let refused = |words: &[&str]| {
        let output = contaccum(folder, "study study.toml --output out --quiet");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
        words.iter().for_each(|word| assert!(stderr.contains(word), "{stderr}does not say {word:?}"));
    };
    write_recipe(folder, &[("memory_bank_size = [8]", "memory_bank_size = [8]\nlearning_rate = 1e-3")]);
    refused(&["contaccum 8, seed 1", "learning_rate = 0.00002, not 0.001", "out/contaccum-8/seed-1"]);
    write_recipe(folder, &[("hidden_size = 16", "hidden_size = 8")]);
    refused(&["start", "shape"]);
    write_recipe(
        folder,
        &[("method = \"grad-accum\"\nmax_steps = 2", "method = \"grad-accum\"\nmax_steps = 1")],
    );
    refused(&["start, seed 1", "max_steps = 2, not 1"]);
    assert_eq!(trained(folder), before);
    // What decides no result may change.
    write_recipe(folder, &[("threads = 1", "threads = 1\nlogging_steps = 1")]);
    succeed(folder, "study study.toml --output out");
    assert_eq!(trained(folder), before);
}

#[test]
fn a_run_that_fails_does_not_end_the_study() {
    let cell = "memory_bank_size = [8]\nsimilarity = \"dot\"\nlearning_rate = 1e30\nmax_grad_norm = 0.0";
    let folder = folder_of(&[("memory_bank_size = [8]", cell), ("seeds = [1, 2]", "seeds = [1]")]);
    let folder = folder.path();
    let output = contaccum(folder, "study study.toml --output out --quiet");
    let stderr = String::from_utf8(output.stderr).unwrap();
    let last = stderr.lines().last().unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(last.starts_with("error: 1 runs failed") && last.contains("contaccum 8, seed 1"), "{stderr}");
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("1 of 2 runs done") && table.contains("## Failed"), "{table}");
    assert!(last.contains("not a number"), "{stderr}");
}
