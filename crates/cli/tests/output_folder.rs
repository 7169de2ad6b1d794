//! What a run finds in its output folder, and what it leaves there: nothing of another's is touched, nothing damaged is
//! gone on from.

mod common;

use std::fs;
use std::path::Path;

use common::{contaccum, prepare, succeed};
use serde_json::Value;

const TRAIN: &str = "train --model start --train data --local-batch-size 4 --gradient-accumulation-steps 2 \
                     --memory-bank-size 16 --query-max-length 16 --passage-max-length 32 --max-steps 3 --threads 1";
const EVAL: &str = "--eval-data data --eval-split test";

fn prepared() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), 32);
    folder
}

/// The line with which a command fails.
fn refused(folder: &Path, line: &str, words: &[&str]) {
    let output = contaccum(folder, &format!("{line} --quiet"));
    let told = String::from_utf8(output.stderr).unwrap();
    let errors = told.lines().filter(|line| !line.contains("WARN")).count();
    assert_eq!((output.status.code(), errors), (Some(1), 1), "{line}\n{told}");
    words.iter().for_each(|word| assert!(told.contains(word), "{line}\n{told}does not say {word:?}"));
}

fn records(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn checkpoints(run: &Path) -> Vec<String> {
    let names = fs::read_dir(run).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.contains("checkpoint-")).collect();
    names.sort();
    names
}

#[test]
fn a_finished_run_keeps_its_model_and_one_checkpoint_and_is_not_overwritten_unasked() {
    let folder = prepared();
    let folder = folder.path();
    let run = folder.join("run");
    succeed(folder, &format!("{TRAIN} {EVAL} --save-steps 1 --output-dir run"));
    assert_eq!(checkpoints(&run), ["checkpoint-000003"]);
    refused(folder, &format!("{TRAIN} --output-dir run"), &["checkpoint-000003", "--resume"]);
    fs::remove_dir_all(run.join("checkpoint-000003")).unwrap();
    let before = fs::read(run.join("model/model.safetensors")).unwrap();
    for extra in ["", "--dry-run"] {
        refused(folder, &format!("{TRAIN} --output-dir run {extra}"), &["run", "finished", "--overwrite"]);
    }
    fs::rename(run.join("model"), folder.join("elsewhere")).unwrap();
    refused(folder, &format!("{TRAIN} --output-dir run"), &["evaluations", "--overwrite"]);
    assert_eq!(fs::read(folder.join("elsewhere/model.safetensors")).unwrap(), before);
    succeed(folder, &format!("{TRAIN} --overwrite --seed 7 --output-dir run"));
    assert!(fs::read(run.join("model/model.safetensors")).unwrap() != before);
    assert!(!run.join("evaluations").exists() && records(&run).len() == 3);
}

#[test]
fn what_no_run_wrote_is_refused_before_training_and_left_as_it_is() {
    let folder = prepared();
    let folder = folder.path();
    let cases = [
        ("config.toml", "seed = 7 # my own\n"),
        ("metrics.jsonl", "{\"loss\": 1}\n"),
        ("model/thesis.txt", "mine"),
        ("model/query_encoder/thesis.txt", "mine"),
        ("checkpoint-500/pytorch_model.bin", "of another trainer"),
        ("checkpoint-000500/pytorch_model.bin", "of another trainer"),
    ];
    for (index, (name, content)) in cases.into_iter().enumerate() {
        let run = folder.join(format!("run{index}"));
        let file = run.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, content).unwrap();
        for extra in ["--overwrite", "--overwrite --dry-run", "--dry-run"] {
            refused(
                folder,
                &format!("{TRAIN} --output-dir run{index} {extra}"),
                &[name.split('/').next().unwrap()],
            );
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), content);
        assert_eq!(fs::read_dir(&run).unwrap().count(), 1, "{name}");
    }
    fs::create_dir(folder.join("run")).unwrap();
    fs::write(folder.join("run/notes.txt"), "mine").unwrap();
    succeed(folder, &format!("{TRAIN} --output-dir run"));
    assert_eq!(fs::read_to_string(folder.join("run/notes.txt")).unwrap(), "mine");
    fs::write(folder.join("file"), "").unwrap();
    refused(folder, &format!("{TRAIN} --output-dir file/run"), &["file/run"]);
}

#[test]
fn a_dry_run_needs_no_output_folder_and_checks_what_the_evaluation_needs() {
    let folder = prepared();
    let folder = folder.path();
    succeed(folder, &format!("{TRAIN} --dry-run"));
    fs::write(folder.join("data/qrels/zero.tsv"), "query-id\tcorpus-id\tscore\ntest0\tp0\t0\n").unwrap();
    fs::write(folder.join("data/qrels/gone.tsv"), "query-id\tcorpus-id\tscore\nnobody\tp0\t1\n").unwrap();
    let first = fs::read_to_string(folder.join("data/qrels/test.tsv")).unwrap();
    let zeros = first.lines().skip(1).map(|line| line.trim_end_matches('1').to_owned() + "0");
    let zeros: Vec<String> = std::iter::once("query-id\tcorpus-id\tscore".to_owned()).chain(zeros).collect();
    fs::write(folder.join("data/qrels/zero.tsv"), zeros.join("\n")).unwrap();
    for split in ["zero", "gone", "none"] {
        for rest in ["--dry-run", "--output-dir run"] {
            let line = format!("{TRAIN} --eval-data data --eval-split {split} {rest}");
            refused(folder, &line, &[split]);
        }
    }
    assert!(!folder.join("run").exists());
}

#[test]
fn an_evaluation_that_fails_at_the_end_costs_neither_model_nor_checkpoint() {
    let folder = prepared();
    let folder = folder.path();
    let run = folder.join("run");
    fs::create_dir_all(run.join("evaluations")).unwrap();
    // Another process, this one, is writing the measures.
    let taken = fs::File::create(run.join("evaluations/.data.json.contaccum-partial")).unwrap();
    taken.lock().unwrap();
    let output = contaccum(folder, &format!("{TRAIN} {EVAL} --output-dir run"));
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.lines().last().unwrap().contains("evaluations/data.json: in use"), "{told}");
    assert_eq!(checkpoints(&run), ["checkpoint-000003"]);
    assert!(run.join("model/model.safetensors").exists());
    drop(taken);
    succeed(folder, "train --resume --output-dir run");
    assert!(run.join("evaluations/data.json").exists());
    assert!(records(&run)[2]["dev"]["nDCG@10"].is_f64());
}

#[test]
fn an_evaluation_that_a_kill_took_is_made_by_the_run_that_goes_on() {
    let folder = prepared();
    let folder = folder.path();
    let run = folder.join("run");
    succeed(
        folder,
        &format!("{TRAIN} {EVAL} --eval-steps 2 --save-steps 1 --save-total-limit 0 --output-dir run"),
    );
    let records_before = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let measures = fs::read(run.join("evaluations/data.json")).unwrap();
    // As a kill between the checkpoint and the evaluation of an update leaves it.
    for (update, without) in [(3, ["checkpoint-000004"; 2]), (2, ["checkpoint-000003", "model"])] {
        for name in without {
            let _ = fs::remove_dir_all(run.join(name));
        }
        fs::remove_dir_all(run.join("evaluations")).unwrap();
        let kept = records_before.lines().take(update).map(|line| line.split(",\"dev\"").next().unwrap());
        let mut kept: Vec<String> = kept.map(|line| line.trim_end_matches('}').to_owned() + "}\n").collect();
        if update == 3 {
            kept[1] = records_before.lines().nth(1).unwrap().to_owned() + "\n";
        }
        fs::write(run.join("metrics.jsonl"), kept.concat()).unwrap();
        succeed(folder, "train --resume --output-dir run");
        assert_eq!(fs::read(run.join("evaluations/data.json")).unwrap(), measures);
        let dev = |text: &str| {
            let devs = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["dev"].clone());
            devs.collect::<Vec<_>>()
        };
        assert_eq!(dev(&fs::read_to_string(run.join("metrics.jsonl")).unwrap()), dev(&records_before));
    }
    // And one whose file alone is gone.
    fs::remove_dir_all(run.join("evaluations")).unwrap();
    succeed(folder, "train --resume --output-dir run");
    assert_eq!(fs::read(run.join("evaluations/data.json")).unwrap(), measures);
}

#[test]
fn bits_flipped_in_a_checkpoint_and_files_of_another_one_are_refused_by_resume_and_export() {
    let folder = prepared();
    let folder = folder.path();
    succeed(folder, &format!("{TRAIN} --save-steps 1 --save-total-limit 0 --output-dir run"));
    let (newest, other) = (folder.join("run/checkpoint-000003"), folder.join("run/checkpoint-000002"));
    let files = ["model/model.safetensors", "state.safetensors", "state.json", "model/tokenizer.json"];
    for flip in 0..40 {
        let name = files[flip % files.len()];
        let path = newest.join(name);
        let whole = fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        let place = (flip * 7919 + 13) * 31 % bytes.len();
        bytes[place] ^= 1 << (flip % 8);
        fs::write(&path, bytes).unwrap();
        refused(folder, "train --resume --output-dir run", &[name, "remove it"]);
        refused(folder, "export --checkpoint run --output out", &[name]);
        fs::write(&path, whole).unwrap();
    }
    for name in files.into_iter().take(3) {
        let own = fs::read(newest.join(name)).unwrap();
        fs::copy(other.join(name), newest.join(name)).unwrap();
        refused(folder, "train --resume --output-dir run", &[name]);
        refused(folder, "export --checkpoint run/checkpoint-000003 --output out", &[name]);
        fs::write(newest.join(name), own).unwrap();
    }
    fs::rename(&newest, folder.join("run/checkpoint-000004")).unwrap();
    refused(folder, "train --resume --output-dir run", &["checkpoint-000004", "update 3"]);
    fs::rename(folder.join("run/checkpoint-000004"), &newest).unwrap();
    fs::remove_file(newest.join("model/tokenizer.json")).unwrap();
    refused(folder, "export --checkpoint run --output out", &["tokenizer.json", "missing"]);
    assert!(!folder.join("out").exists());
    fs::remove_dir_all(&newest).unwrap();
    succeed(folder, "train --resume --output-dir run");
}

#[cfg(unix)]
#[test]
fn a_checkpoint_that_may_not_be_read_is_not_to_be_removed() {
    use std::os::unix::fs::PermissionsExt;
    let folder = prepared();
    let folder = folder.path();
    succeed(folder, &format!("{TRAIN} --output-dir run"));
    let state = folder.join("run/checkpoint-000003/state.json");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(&state).is_ok() {
        return; // Root reads everything.
    }
    refused(folder, "train --resume --output-dir run", &["state.json", "check its permissions"]);
}

#[test]
fn a_damaged_record_costs_that_record_alone_and_is_told() {
    let folder = prepared();
    let folder = folder.path();
    let run = folder.join("run");
    succeed(folder, &format!("{TRAIN} --output-dir run"));
    let mut bytes = fs::read(run.join("metrics.jsonl")).unwrap();
    bytes[20] = 0xff;
    fs::write(run.join("metrics.jsonl"), bytes).unwrap();
    let output = contaccum(folder, "train --resume --output-dir run");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && told.contains("1 records of earlier updates"), "{told}");
    assert_eq!(records(&run).iter().map(|r| r["update"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn weights_that_are_not_numbers_are_never_saved() {
    let folder = prepared();
    let folder = folder.path();
    for (name, setting) in [("run", "--save-steps 1"), ("last", "--max-steps 1")] {
        let huge = format!(
            "--learning-rate 1e38 --weight-decay 1e38 --scheduler constant {setting} --output-dir {name}"
        );
        refused(folder, &format!("{TRAIN} {huge}"), &["not", "number", "learning_rate"]);
        assert!(checkpoints(&folder.join(name)).is_empty());
        assert!(!folder.join(name).join("model").exists());
    }
}

#[cfg(unix)]
#[test]
fn outputs_go_through_links_fifos_and_devices_and_replace_none_of_them() {
    use std::os::unix::fs::{FileTypeExt, symlink};
    use std::process::{Command, Stdio};
    let folder = prepared();
    let folder = folder.path();
    succeed(folder, "encode --model start --corpus data --output index");
    let search = "search --model start --index index --queries data --split test --top-k 3 --output";
    succeed(folder, &format!("{search} run.trec"));
    let run = fs::read_to_string(folder.join("run.trec")).unwrap();

    fs::write(folder.join("real.txt"), "old").unwrap();
    symlink("real.txt", folder.join("link.txt")).unwrap();
    succeed(folder, &format!("{search} link.txt"));
    assert_eq!(fs::read_to_string(folder.join("real.txt")).unwrap(), run);
    assert!(fs::symlink_metadata(folder.join("link.txt")).unwrap().is_symlink());

    assert!(Command::new("mkfifo").arg(folder.join("fifo")).status().unwrap().success());
    let fifo = folder.join("fifo");
    let reader = std::thread::spawn(move || fs::read_to_string(fifo).unwrap());
    succeed(folder, &format!("{search} fifo"));
    assert_eq!(reader.join().unwrap(), run);
    assert!(fs::metadata(folder.join("fifo")).unwrap().file_type().is_fifo());

    succeed(folder, &format!("{search} /dev/null"));
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    let full = contaccum(folder, &format!("{search} /dev/full"));
    assert_eq!(full.status.code(), Some(1), "{}", String::from_utf8_lossy(&full.stderr));

    symlink("/proc/self/fd/1", folder.join("out")).unwrap();
    for name in ["out", "/dev/stdout"] {
        assert_eq!(succeed(folder, &format!("{search} {name}")), run);
    }
    // A file behind stdout, with something in it already.
    let mut file = fs::File::create(folder.join("appended.txt")).unwrap();
    std::io::Write::write_all(&mut file, b"header\n").unwrap();
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("contaccum"));
    command.current_dir(folder).args(format!("{search} /dev/stdout").split_whitespace());
    assert!(command.stdout(file).stderr(Stdio::null()).status().unwrap().success());
    assert_eq!(fs::read_to_string(folder.join("appended.txt")).unwrap(), format!("header\n{run}"));

    succeed(folder, &format!("{TRAIN} --output-dir trained"));
    assert!(succeed(folder, "report trained --output /dev/stdout").trim_end().ends_with("</html>"));
}

/// The same setting, told by both commands, and by a run that a study starts.
#[test]
fn train_and_study_end_with_the_same_code_for_the_same_error() {
    let folder = prepared();
    let folder = folder.path();
    let study = |base: &str| {
        let recipe = format!(
            "seeds = [1]\n[base]\nmodel = \"start\"\ntrain = \"data\"\nmax_steps = 2\npassage_max_length = 32\n{base}\n\
             [[evaluation]]\ndata = \"data\"\nsplit = \"test\"\n[[group]]\nname = \"g\"\ntitle = \"G\"\n\
             baseline = \"c\"\n[[cell]]\ngroup = \"g\"\nname = \"c\"\n"
        );
        fs::write(folder.join("study.toml"), recipe).unwrap();
        contaccum(folder, "study study.toml --output study").status.code()
    };
    let train = |flags: &str| {
        let line = "train --model start --train data --max-steps 2 --passage-max-length 32 --output-dir run";
        contaccum(folder, &format!("{line} {flags}")).status.code()
    };
    for (base, flags, code) in [
        ("temperature = 0", "--temperature 0", 2),
        ("corpus = \"data/corpus.jsonl\"", "--corpus data/corpus.jsonl", 2),
        ("local_batch_size = 5000", "--local-batch-size 5000", 2),
        ("hard_negatives_file = \"none.tsv\"", "--hard-negatives-file none.tsv", 1),
    ] {
        assert_eq!((study(base), train(flags)), (Some(code), Some(code)), "{base}");
    }
}
