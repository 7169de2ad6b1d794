//! What things are is their content: indexes, checkpoints, models and studies are known by what they were made of.

mod common;

use std::fs;
use std::path::Path;

use common::{contaccum, prepare, succeed};
use serde_json::Value;

const TRAIN: &str = "train --model start --train data --local-batch-size 4 --gradient-accumulation-steps 2 \
                     --memory-bank-size 16 --query-max-length 16 --passage-max-length 32 --max-steps 3 --threads 1";
const ENCODE: &str = "encode --model start --corpus data --output index";

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Replaces in a file; `old` must be there.
fn edit(path: &Path, old: &str, new: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(old), "{}: {old}", path.display());
    fs::write(path, text.replacen(old, new, 1)).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

/// Changes the last weight of a model.
fn change_a_weight(model: &Path) {
    let path = model.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&0.5f32.to_le_bytes());
    fs::write(&path, bytes).unwrap();
}

/// Fails unless `line` exits with 1 after one line on stderr, warnings aside, that holds all of `words`.
fn refused(folder: &Path, line: &str, words: &[&str]) {
    let output = contaccum(folder, &format!("{line} --quiet"));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{line}\n{stderr}");
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{line}\n{stderr}");
    for word in words {
        assert!(errors[0].contains(word), "{line}\n{stderr}does not say {word:?}");
    }
}

/// The warnings of a command that succeeds.
fn warnings(folder: &Path, line: &str) -> Vec<String> {
    let output = contaccum(folder, &format!("{line} --quiet"));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{line}\n{stderr}");
    stderr.lines().map(str::to_owned).collect()
}

fn vectors(index: &Path) -> Vec<u8> {
    fs::read(index.join("embeddings-00000.npy")).unwrap()
}

#[test]
fn what_decides_vectors_travels_with_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    succeed(folder, &format!("{TRAIN} --passage-format joined --passage-prompt 'p: ' --output-dir run"));
    succeed(folder, "export --checkpoint run --output exported");
    for model in ["run/model", "exported"] {
        let index = model.replace('/', "-");
        let encode = format!("encode --model {model} --output {index}");
        assert!(warnings(folder, &format!("{encode} --corpus data")).is_empty());
        let settings = &json(&folder.join(&index).join("manifest.json"))["settings"];
        assert_eq!(settings["passage_format"], "joined");
        assert_eq!((&settings["max_length"], &settings["prompt"]), (&"32".into(), &"p: ".into()));
        succeed(folder, &format!("{encode}-queries --queries data --split test"));
        let settings = &json(&folder.join(format!("{index}-queries/manifest.json")))["settings"];
        assert_eq!((&settings["max_length"], &settings["prompt"]), (&"16".into(), &"".into()));
    }
    assert_eq!(vectors(&folder.join("run-model")), vectors(&folder.join("exported")));
    let told = warnings(folder, "encode --model exported --corpus data --output pair --passage-format pair");
    assert!(told.len() == 1 && told[0].contains("trained with passage format joined"), "{told:?}");
    assert_ne!(vectors(&folder.join("exported")), vectors(&folder.join("pair")));
    let plan = succeed(folder, &format!("{TRAIN} --model exported --output-dir next --dry-run --json"));
    let plan: Value = serde_json::from_str(&plan).unwrap();
    assert_eq!(plan["passage format"], "joined");
}

#[test]
fn an_index_is_searched_by_its_own_model_alone() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    copy(&folder.join("start"), &folder.join("moved"));
    copy(&folder.join("start"), &folder.join("other"));
    change_a_weight(&folder.join("other"));
    copy(&folder.join("start"), &folder.join("pooled"));
    edit(&folder.join("pooled/1_Pooling/config.json"), "\"pooling_mode_cls_token\": true", "\"x\": 1");
    edit(
        &folder.join("pooled/1_Pooling/config.json"),
        "\"pooling_mode_mean_tokens\": false",
        "\"pooling_mode_mean_tokens\": true",
    );
    succeed(folder, ENCODE);
    let search = |model: &str| format!("search --model {model} --index index --queries data --output r.trec");
    assert!(warnings(folder, &search("moved")).is_empty());
    fs::remove_file(folder.join("r.trec")).unwrap();
    refused(folder, &search("other"), &["weights differ", "start", "--allow-other-model"]);
    refused(folder, &search("pooled"), &[r#"pooling was "cls", is "mean""#]);
    refused(folder, "search --model other --index index --query x", &["weights differ"]);
    succeed(folder, "encode --model other --queries data --output questions");
    let stored = "search --query-embeddings questions --index index --output r.trec";
    refused(folder, stored, &["weights differ", "other"]);
    refused(folder, "search --model start --index questions --query x", &["questions", "vectors of queries"]);
    refused(folder, "search --query-embeddings index --index index --output r.trec", &["of passages"]);
    assert!(!folder.join("r.trec").exists());
    let told = warnings(folder, &format!("{} --allow-other-model", search("other")));
    assert!(told.len() == 1 && told[0].contains("weights differ"), "{told:?}");
    assert!(folder.join("r.trec").exists());
}

#[test]
fn of_two_encoders_each_fits_the_other_and_no_third() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    let train = format!("{TRAIN} --tied false");
    succeed(folder, &format!("{train} --output-dir a"));
    succeed(folder, &format!("{train} --seed 7 --output-dir b"));
    succeed(folder, "export --checkpoint a --output exported");
    succeed(folder, "encode --model a/model --corpus data --output index");
    let search = |model: &str| format!("search --model {model} --index index --query x");
    for model in ["a/model", "exported", "a/model/query_encoder"] {
        assert!(warnings(folder, &search(model)).is_empty(), "{model}");
    }
    refused(folder, &search("b/model"), &["trained together with a/model/passage_encoder", "weights differ"]);
    refused(folder, &search("start"), &["weights differ"]);
    refused(folder, &search("a/model/passage_encoder"), &["passages", "query_encoder"]);
    let wrong = "encode --model a/model/query_encoder --corpus data --output wrong";
    refused(folder, wrong, &["trained to encode queries", "passage_encoder"]);
    assert!(!folder.join("wrong").exists());
}

#[test]
fn an_index_of_other_texts_or_another_tokenizer_is_encoded_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    let corpus = |ids: [&str; 2]| {
        let line = |id| format!("{{\"_id\": \"{id}\", \"title\": \"t\", \"text\": \"who is {id}\"}}\n");
        fs::write(folder.join("c.jsonl"), ids.map(line).concat()).unwrap();
    };
    let encode = "encode --model start --corpus c.jsonl --output index";
    corpus(["a", "b"]);
    succeed(folder, encode);
    let before = vectors(&folder.join("index"));
    assert!(warnings(folder, encode).is_empty());
    corpus(["b", "a"]);
    let told = warnings(folder, encode);
    assert!(
        told.len() == 1 && told[0].contains("encoding again") && told[0].contains("texts differ"),
        "{told:?}"
    );
    assert_eq!(fs::read_to_string(folder.join("index/ids-00000.txt")).unwrap(), "b\na\n");
    assert_ne!(vectors(&folder.join("index")), before);

    // In both files, lest a conflict between them be told too.
    edit(&folder.join("start/tokenizer.json"), "\"lowercase\": true", "\"lowercase\": false");
    edit(&folder.join("start/tokenizer_config.json"), "\"do_lower_case\": true", "\"do_lower_case\": false");
    let told = warnings(folder, encode);
    assert!(told.len() == 1 && told[0].contains("tokenizer differs"), "{told:?}");
    edit(&folder.join("start/config.json"), "\"num_attention_heads\": 2", "\"num_attention_heads\": 4");
    change_a_weight(&folder.join("start"));
    let told = warnings(folder, encode);
    let heads = r#"num_attention_heads was "2", is "4""#;
    assert!(told.len() == 1 && told[0].contains(heads) && told[0].contains("weights differ"), "{told:?}");
    assert!(warnings(folder, encode).is_empty());
    // Asked for otherwise, it is another encoding.
    refused(folder, &format!("{encode} --max-length 8"), &["max_length", "--overwrite"]);
    refused(folder, &format!("{encode} --prompt 'p: '"), &["prompt", "--overwrite"]);
    succeed(folder, &format!("{encode} --max-length 8 --overwrite"));
}

#[test]
fn the_texts_shown_are_those_of_the_index() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    succeed(folder, ENCODE);
    let search = "search --model start --index index --query x --corpus";
    succeed(folder, &format!("{search} data"));
    let text = fs::read_to_string(folder.join("data/corpus.jsonl")).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    fs::write(
        folder.join("c.jsonl"),
        format!("{}\n{rest}", first.replacen("\"text\":\"", "\"text\":\"x", 1)),
    )
    .unwrap();
    refused(folder, &format!("{search} c.jsonl"), &["c.jsonl", "texts are not those of index"]);
}

#[test]
fn an_id_that_a_run_file_cannot_hold_is_told_before_anything_is_encoded() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    fs::write(folder.join("c.jsonl"), "{\"_id\": \"a b\", \"text\": \"x\"}\n").unwrap();
    fs::write(folder.join("q.jsonl"), "{\"_id\": \"q\", \"text\": \"x\"}\n").unwrap();
    succeed(folder, "encode --model start --corpus c.jsonl --output index");
    let search = "search --model start --index index --queries q.jsonl --output r.trec";
    let output = contaccum(folder, search);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && stderr.contains("\"a b\""), "{stderr}");
    assert!(!stderr.contains("Encoding") && !stderr.contains("Searching"), "{stderr}");
}

#[test]
fn a_checkpoint_goes_on_with_the_content_it_was_written_with_alone() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    let negatives = "--hard-negatives-file data/hard_negatives.tsv --hard-negatives 1";
    succeed(folder, &format!("{TRAIN} {negatives} --save-steps 1 --save-total-limit 0 --output-dir run"));
    fs::remove_dir_all(folder.join("run/checkpoint-000003")).unwrap();
    let resume = "train --resume --output-dir run";
    let corpus = fs::read_to_string(folder.join("data/corpus.jsonl")).unwrap();
    let last = corpus.lines().last().unwrap();
    let text = last.split("\"text\":\"").nth(1).unwrap().split_once('"').unwrap().0;
    let queries = fs::read_to_string(folder.join("data/queries.jsonl")).unwrap();
    let query = queries.split("\"text\":\"").nth(1).unwrap().split_once('"').unwrap().0;
    let cases: [(&str, &str, &str, &str); 8] = [
        ("data/corpus.jsonl", text, "another", "training texts differ"),
        ("data/queries.jsonl", query, "another?", "training texts differ"),
        ("start/tokenizer_config.json", "\"do_lower_case\": true", "\"do_lower_case\": false", "tokenizer"),
        (
            "start/config.json",
            "\"num_attention_heads\": 2",
            "\"num_attention_heads\": 4",
            "num_attention_heads",
        ),
        (
            "start/config.json",
            "\"hidden_dropout_prob\": 0.1",
            "\"hidden_dropout_prob\": 0.2",
            "hidden_dropout_prob",
        ),
        ("start/config.json", "\"layer_norm_eps\": 1e-12", "\"layer_norm_eps\": 1e-6", "layer_norm_eps"),
        ("start/config_sentence_transformers.json", "\"query\": \"\"", "\"query\": \"q: \"", "query_prompt"),
        ("start/contaccum.json", "\"pair\"", "\"joined\"", "passage_format"),
    ];
    for (file, old, new, what) in cases {
        let path = folder.join(file);
        let before = fs::read(&path).unwrap();
        edit(&path, old, new);
        refused(folder, resume, &["checkpoint of other content", "checkpoint-000002", what]);
        fs::write(&path, before).unwrap();
    }
    let rows = folder.join("data/hard_negatives.tsv");
    let before = fs::read_to_string(&rows).unwrap();
    let without =
        before.lines().map(|line| line.rsplit_once(',').map_or(line, |cut| cut.0).to_owned() + "\n");
    fs::write(&rows, without.collect::<String>()).unwrap();
    refused(folder, resume, &["training rows differ"]);
    fs::write(&rows, before).unwrap();

    // Paths may change; what lies there may not. A changed start is not read: the checkpoint has the weights.
    fs::rename(folder.join("data"), folder.join("moved")).unwrap();
    change_a_weight(&folder.join("start"));
    let moved = "--train moved --hard-negatives-file moved/hard_negatives.tsv";
    succeed(folder, &format!("{resume} {moved}"));
}

#[test]
fn other_threads_are_told_once_and_the_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    succeed(folder, &format!("{TRAIN} --save-steps 1 --save-total-limit 0 --output-dir run"));
    fs::remove_dir_all(folder.join("run/checkpoint-000003")).unwrap();
    let told = warnings(folder, "train --resume --output-dir run --threads 2");
    let threads = told.iter().filter(|line| line.contains("1 threads on") && line.contains("2 threads on"));
    assert_eq!(threads.count(), 1, "{told:?}");
    assert!(folder.join("run/model").is_dir());
    let state = json(&folder.join("run/checkpoint-000003/state.json"));
    assert_eq!(state["rounding"]["threads"], 2);

    succeed(folder, &format!("{ENCODE} --shard-rows 50 --threads 1"));
    let manifest = json(&folder.join("index/manifest.json"));
    assert_eq!(manifest["rounding"]["threads"], 1);
    assert!(!manifest["rounding"]["instructions"].as_str().unwrap().is_empty());
    assert!(
        warnings(folder, &format!("{ENCODE} --shard-rows 50 --threads 2")).is_empty(),
        "nothing left to do"
    );
    fs::remove_file(folder.join("index/embeddings-00001.npy")).unwrap();
    let told = warnings(folder, &format!("{ENCODE} --shard-rows 50 --threads 2"));
    assert!(told.iter().any(|line| line.contains("1 threads on")), "{told:?}");
}

#[test]
fn a_prompt_that_sentence_transformers_would_not_use_is_not_used_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    let usage = folder.join("start/config_sentence_transformers.json");
    let prompts = |prompts: &str| fs::write(&usage, format!("{{\"prompts\": {prompts}}}")).unwrap();
    let settings = || json(&folder.join("index/manifest.json"))["settings"]["prompt"].clone();
    prompts(r#"{"query": "q: ", "passage": "p: "}"#);
    let told = warnings(folder, ENCODE);
    assert!(
        told.len() == 1 && told[0].contains("\"passage\"") && told[0].contains("--passage-prompt"),
        "{told:?}"
    );
    assert_eq!(settings(), "");
    assert!(warnings(folder, &format!("{ENCODE} --overwrite --passage-prompt 'p: '")).is_empty());
    assert_eq!(settings(), "p: ");
    prompts(r#"{"query": "q: ", "document": "d: ", "passage": null}"#);
    assert!(warnings(folder, &format!("{ENCODE} --overwrite")).is_empty());
    assert_eq!(settings(), "d: ");
}

/// A study of two cells from a model that is there.
const STUDY: &str = "seeds = [1]\n[base]\nmodel = \"start\"\ntrain = \"data\"\nlocal_batch_size = 4\n\
    gradient_accumulation_steps = 2\nquery_max_length = 16\npassage_max_length = 32\nmax_steps = 2\nthreads = 1\n\
    [[evaluation]]\ndata = \"eval\"\nsplit = \"test\"\n[[group]]\nname = \"g\"\ntitle = \"G\"\nbaseline = \"a\"\n\
    [[cell]]\ngroup = \"g\"\nname = \"a\"\nmethod = \"grad-accum\"\n\
    [[cell]]\ngroup = \"g\"\nname = \"b\"\nmemory_bank_size = 8\n";

#[test]
fn a_study_reuses_no_result_of_other_texts_another_start_or_other_judgments() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    copy(&folder.join("data"), &folder.join("eval"));
    fs::write(folder.join("study.toml"), STUDY).unwrap();
    let study = "study study.toml --output out";
    let trained = || fs::metadata(folder.join("out/b/seed-1/metrics.jsonl")).unwrap().modified().unwrap();
    succeed(folder, study);
    let before = trained();
    succeed(folder, study);
    assert_eq!(trained(), before);
    // Where things lie is not what they are.
    for (from, to) in [("out", "elsewhere"), ("data", "texts"), ("start", "begin")] {
        fs::rename(folder.join(from), folder.join(to)).unwrap();
    }
    let moved = STUDY.replace("\"data\"", "\"texts\"").replace("\"start\"", "\"begin\"");
    fs::write(folder.join("moved.toml"), moved).unwrap();
    succeed(folder, "study moved.toml --output elsewhere");
    for (from, to) in [("out", "elsewhere"), ("data", "texts"), ("start", "begin")] {
        fs::rename(folder.join(to), folder.join(from)).unwrap();
    }
    assert_eq!(trained(), before);

    let corpus = folder.join("data/corpus.jsonl");
    let text = fs::read(&corpus).unwrap();
    edit(&corpus, "\"text\":\"", "\"text\":\"x ");
    refused(folder, study, &["a, seed 1", "training texts differ", "out/a/seed-1"]);
    fs::write(&corpus, text).unwrap();
    let weights = fs::read(folder.join("start/model.safetensors")).unwrap();
    change_a_weight(&folder.join("start"));
    refused(folder, study, &["a, seed 1", "start weights differ"]);
    fs::write(folder.join("start/model.safetensors"), weights).unwrap();
    assert_eq!(trained(), before);

    // Measured on other judgments: the models are gone, so the runs are trained again.
    let qrels = folder.join("eval/qrels/test.tsv");
    let lines = fs::read_to_string(&qrels).unwrap();
    fs::write(&qrels, lines.lines().take(5).map(|line| line.to_owned() + "\n").collect::<String>()).unwrap();
    let table = succeed(folder, study);
    assert!(table.contains("4 queries"), "{table}");
    assert!(trained() > before);
}
