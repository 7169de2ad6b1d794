//! Models as commands find and refuse them: the cache by its variables, folders of other programs, broken files.

mod common;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use common::{contaccum, prepare, succeed};

const ENCODE: &str = "encode --model start --corpus data --output index";
const TRAIN: &str = "train --model start --train data --max-steps 1 --output-dir run --query-max-length 16 \
                     --passage-max-length 32";

/// Runs `encode` of a model by its hub name, offline, with these variables alone beside the system's.
fn encode_by_name(folder: &Path, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("contaccum"));
    for name in ["HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]
    {
        command.env_remove(name);
    }
    let words = ["encode", "--model", "own/tiny", "--corpus", "data", "--output", "index"];
    command.current_dir(folder).args(words).envs(variables.iter().copied()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A cache as transformers leaves it: no `modules.json`.
fn cache(model: &Path, hub: &Path) {
    let repository = hub.join("models--own--tiny");
    let snapshot = repository.join("snapshots/0123abcd");
    fs::create_dir_all(&snapshot).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(model.join(file), snapshot.join(file)).unwrap();
    }
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), "0123abcd").unwrap();
}

#[test]
fn a_cache_is_found_by_every_variable_and_told_to_be_perhaps_partial() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), 32);
    cache(&folder.path().join("start"), &folder.path().join("me/.cache/huggingface/hub"));
    let home = folder.path().join("me").display().to_string();
    let me = ("HOME", home.as_str());
    let offline = ("HF_HUB_OFFLINE", "1");
    let variables: [&[(&str, &str)]; 5] = [
        &[me, offline],
        &[me, offline, ("HF_HOME", "~/.cache/huggingface")],
        &[me, ("TRANSFORMERS_OFFLINE", "1"), ("HF_HUB_CACHE", "$HOME/.cache/huggingface/hub")],
        &[me, offline, ("HUGGINGFACE_HUB_CACHE", "~/.cache/huggingface/hub")],
        &[me, offline, ("HF_HOME", "/nowhere"), ("HF_HUB_CACHE", "${HOME}/.cache/huggingface/hub")],
    ];
    for variables in variables {
        let output = encode_by_name(folder.path(), variables);
        let told = text(&output.stderr);
        assert!(output.status.success(), "{variables:?}: {told}");
        assert_eq!(told.matches("no modules.json says how texts become vectors").count(), 1, "{told}");
        assert!(told.contains("fetched in part") && told.contains("CLS"), "{told}");
        fs::remove_dir_all(folder.path().join("index")).unwrap();
    }
    let nowhere = encode_by_name(folder.path(), &[("HOME", "/nowhere"), ("TRANSFORMERS_OFFLINE", "1")]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(text(&nowhere.stderr).contains("TRANSFORMERS_OFFLINE"), "{}", text(&nowhere.stderr));
}

#[test]
fn a_file_that_is_not_what_it_is_named_ends_every_command_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 90868376\n";
    for file in ["model.safetensors", "tokenizer.json", "config.json"] {
        let path = folder.join("start").join(file);
        let sound = fs::read(&path).unwrap();
        fs::write(&path, pointer).unwrap();
        for command in [ENCODE, TRAIN] {
            let output = contaccum(folder, command);
            let told = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{told}");
            assert!(
                told.contains(file) && told.contains("is a Git LFS pointer") && told.contains("git lfs pull"),
                "{told}"
            );
            assert_eq!(told.matches("git lfs pull").count(), 1, "{told}");
        }
        fs::write(&path, sound).unwrap();
    }
    assert!(!folder.join("index").exists() && !folder.join("run/model").exists());
}

#[test]
fn a_tokenizer_that_disagrees_with_its_flags_is_told_once_and_follows_them() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    let path = folder.join("start/tokenizer_config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["do_lower_case"] = false.into();
    fs::write(&path, config.to_string()).unwrap();
    let told = text(&contaccum(folder, ENCODE).stderr);
    let line = "lowercase true where do_lower_case says false";
    assert_eq!(told.matches(line).count(), 1, "{told}");
    config["do_lower_case"] = true.into();
    fs::write(&path, config.to_string()).unwrap();
    fs::remove_dir_all(folder.join("index")).unwrap();
    assert!(!text(&contaccum(folder, ENCODE).stderr).contains("do_lower_case"));
}

#[test]
fn a_model_with_a_tokenizer_of_its_own_is_trained_into_one_with_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    let json = |file: &str| -> serde_json::Value {
        serde_json::from_slice(&fs::read(folder.join(file)).unwrap()).unwrap()
    };
    let mut own = json("start/tokenizer.json");
    own["pre_tokenizer"] = serde_json::json!({ "type": "Whitespace" });
    fs::write(folder.join("start/tokenizer.json"), own.to_string()).unwrap();
    let class = serde_json::json!({ "tokenizer_class": "PreTrainedTokenizerFast" });
    fs::write(folder.join("start/tokenizer_config.json"), class.to_string()).unwrap();
    succeed(
        folder,
        "train --model start --train data --output-dir run --max-steps 1 --local-batch-size 2 \
         --gradient-accumulation-steps 1 --learning-rate 0 --passage-max-length 32 --query-max-length 16",
    );
    assert_eq!(json("run/model/tokenizer_config.json")["tokenizer_class"], "PreTrainedTokenizerFast");
    assert_eq!(json("run/model/tokenizer.json")["pre_tokenizer"]["type"], "Whitespace");
}

#[test]
fn a_model_with_another_activation_is_trained_and_encodes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    let path = folder.join("start/config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["hidden_act"] = "gelu_new".into();
    config["pad_token_id"] = serde_json::Value::Null;
    config["hidden_size"] = serde_json::json!(32.0);
    fs::write(&path, config.to_string()).unwrap();
    succeed(
        folder,
        "train --model start --train data --output-dir run --max-steps 2 --local-batch-size 2 \
         --gradient-accumulation-steps 1 --passage-max-length 32 --query-max-length 16",
    );
    let written = fs::read_to_string(folder.join("run/model/config.json")).unwrap();
    assert!(written.contains("\"hidden_act\": \"gelu_new\""), "{written}");
    succeed(folder, "encode --model run/model --corpus data --output index");
}
