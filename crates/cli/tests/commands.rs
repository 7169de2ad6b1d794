//! The commands on a small model and small data: what they write, and that they fit together.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use common::{contaccum, prepare, succeed};
use serde_json::Value;

const TRAIN: &str = "train --model start --train data --local-batch-size 4 --gradient-accumulation-steps 2 \
                     --memory-bank-size 16 --query-max-length 16 --passage-max-length 32 --max-steps 3 --threads 1";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn every_command_explains_itself() {
    let here = Path::new(".");
    let overview = succeed(here, "--help");
    for command in ["train", "plan", "export", "encode", "search", "evaluate", "report", "study", "demo"] {
        assert!(overview.contains(command), "{overview}");
        let short = succeed(here, &format!("{command} -h"));
        let long = succeed(here, &format!("{command} --help"));
        // Not the blanks: the two are laid out differently.
        let letters = |help: &str| help.chars().filter(|letter| !letter.is_whitespace()).count();
        assert!(short.contains("Usage: contaccum ") && letters(&long) >= letters(&short), "{command}");
        assert!(command == "demo" || long.contains("Example"), "{command} has no example");
    }
    assert!(succeed(here, "--version").starts_with("contaccum "));
}

#[test]
fn a_reader_that_has_seen_enough_is_told_nothing() {
    for command in ["completions bash", "--help"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut program = Command::new(assert_cmd::cargo::cargo_bin!("contaccum"));
        let output = program.args(command.split(' ')).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((output.status.code(), output.stderr), (Some(128 + 13), Vec::new()), "{command}");
    }
}

#[test]
fn a_dry_run_tells_what_would_happen_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), 32);
    let negatives = "--hard-negatives-file data/hard_negatives.tsv --hard-negatives 1";
    let told = succeed(
        folder.path(),
        &format!("{TRAIN} {negatives} --output-dir run --tied false --dry-run --json"),
    );
    let told = json(&told);
    let says = |setting: &str, value: &str| {
        let found = told[setting].as_str().unwrap_or_else(|| panic!("{setting} is not told"));
        assert!(found.contains(value), "{setting}: {found}");
    };
    says("encoders", "two");
    says("pooling", "cls");
    says("similarity", "cosine");
    says("truncation", "queries 16, passages 32");
    says("banks", "queries, passages, hard negatives of 16 samples");
    says("negatives per query", "39"); // (4 + 16) * (1 + 1) - 1
    says("updates", "3");
    says("longest texts", "tokens, read in");
    says("- evaluation", "0 B");
    says("memory", "iB");
    assert!(!folder.path().join("run").exists());
}

#[test]
fn a_memory_budget_chooses_the_same_settings_in_plan_and_training_and_a_resumed_run_keeps_them() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    std::fs::remove_file(folder.join("start/model.safetensors")).unwrap();
    let lengths = "--query-max-length 16 --passage-max-length 32 --hard-negatives 1";
    let plan = |settings: &str| {
        json(&succeed(folder, &format!("plan --model start {lengths} {settings} --threads 1 --json")))
    };
    let given = plan("--local-batch-size 4 --gradient-accumulation-steps 2 --memory-bank-size 16");
    assert_eq!((&given["local_batch_size"], &given["negatives_per_query"]), (&4.into(), &39.into()));
    let parts = given["parts_bytes"].as_object().unwrap().values();
    assert_eq!(
        parts.map(|part| part.as_u64().unwrap()).sum::<u64>(),
        given["memory_bytes"].as_u64().unwrap()
    );
    assert_eq!(given["grad_cache_total_batch_size"], 20);
    let bytes = |plan: &Value| plan["memory_bytes"].as_u64().unwrap();
    let met = plan("--local-batch-size 4 --gradient-accumulation-steps 2 --memory-budget 1GiB");
    assert_eq!((&met["local_batch_size"], met.get("replaced")), (&4.into(), None));
    let asked = plan("--memory-bank-size 16");
    let budget = format!("--memory-bank-size 16 --memory-budget {}B", bytes(&asked) - 1);
    let fitted = plan(&budget);
    assert!(bytes(&fitted) < bytes(&asked) && fitted["replaced"][0].is_string(), "{fitted}");
    let kept = plan(&format!("{budget} --recompute none"));
    assert!(kept["local_batch_size"].as_u64().unwrap() < 8 && kept["recompute"] == "none", "{kept}");
    let line =
        format!("plan --model start {lengths} {budget} --recompute none --local-batch-size 8 --threads 1");
    let refused = contaccum(folder, &line);
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && stderr.contains("kept: local_batch_size, recompute"), "{stderr}");

    prepare(folder, 32);
    succeed(
        folder,
        &format!("{TRAIN} --memory-budget 1GiB --save-steps 1 --save-total-limit 0 --output-dir run"),
    );
    let stored = std::fs::read_to_string(folder.join("run/config.toml")).unwrap();
    for line in ["local_batch_size = 4", "gradient_accumulation_steps = 2", "passage_max_length = 32"] {
        assert!(stored.contains(&format!("{line}\n")), "{line}: {stored}");
    }
    assert!(!stored.contains("memory_budget") && !stored.contains("max_tokens"), "{stored}");
    std::fs::remove_dir_all(folder.join("run/checkpoint-000003")).unwrap();
    succeed(folder, "train --resume --output-dir run --recompute layer");
}

#[test]
fn an_untied_model_goes_from_training_to_measures_each_encoder_in_its_role() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    let eval = "--eval-data data --eval-split test --max-eval-queries 5 --eval-steps 2";
    assert_eq!(succeed(folder, &format!("{TRAIN} {eval} --tied false --output-dir run")).trim(), "run/model");
    let records: Vec<Value> =
        std::fs::read_to_string(folder.join("run/metrics.jsonl")).unwrap().lines().map(json).collect();
    assert_eq!(records.iter().map(|r| r["update"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
    let measured = |record: &Value| record["dev"]["nDCG@10"].is_f64();
    assert_eq!(records.iter().map(measured).collect::<Vec<_>>(), [false, true, true]);
    let per_query = json(&std::fs::read_to_string(folder.join("run/evaluations/data.json")).unwrap());
    let values: Vec<f64> =
        per_query["measures"]["nDCG@10"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert_eq!((values.len(), per_query["queries"].as_array().unwrap().len()), (5, 5));
    let mean = values.iter().sum::<f64>() / 5.0;
    assert!((mean - records[2]["dev"]["nDCG@10"].as_f64().unwrap()).abs() < 1e-12);

    succeed(folder, "export --checkpoint run --output exported");
    succeed(folder, "encode --model exported --corpus data --output index --batch-size 7");
    let manifest = json(&std::fs::read_to_string(folder.join("index/manifest.json")).unwrap());
    assert!(manifest["model"].as_str().unwrap().contains("passage_encoder"), "{manifest}");
    assert_eq!(manifest["settings"]["max_length"], "32");

    succeed(folder, "search --model exported --index index --queries data --split test --output run.trec");
    succeed(folder, "encode --model exported --queries data --split test --output questions");
    succeed(folder, "search --query-embeddings questions --index index --output same.trec");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let fields = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let run: Vec<_> = read("run.trec").lines().map(fields).collect();
    assert_eq!(run.len(), 20 * 100);
    assert_eq!((run[0][1].as_str(), run[0][3].as_str(), run[0][5].as_str()), ("Q0", "1", "contaccum"));
    let ranking = |name: &str| read(name).lines().map(|l| fields(l)[..4].join(" ")).collect::<Vec<_>>();
    assert_eq!(ranking("run.trec"), ranking("same.trec"));

    let measures =
        succeed(folder, "evaluate --run run.trec --qrels data/qrels/test.tsv --metrics nDCG@10,R@100");
    let measures: Vec<&str> = measures.lines().map(|line| line.split('\t').next().unwrap()).collect();
    assert_eq!(measures, ["measure", "nDCG@10", "R@100"]);
    let report = json(&succeed(folder, "evaluate --run run.trec --qrels data/qrels/test.tsv --json"));
    assert_eq!(report["judged"]["queries"], 20);
    assert!((0.0..=1.0).contains(&report["metrics"]["Success@20"].as_f64().unwrap()));
    let interval = &report["intervals"]["Success@20"];
    assert_eq!(interval["mean"], report["metrics"]["Success@20"]);
    assert!(interval["low"].as_f64() <= interval["mean"].as_f64());

    let line =
        "evaluate --run run.trec --qrels data/qrels/test.tsv --baseline run.trec --metrics ndcg@10 --json";
    let difference = &json(&succeed(folder, line))["baseline"]["differences"]["nDCG@10"];
    assert_eq!((difference["mean"].as_f64(), difference["p"].as_f64()), (Some(0.0), Some(1.0)));
}

#[test]
fn one_query_is_answered_with_texts() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    succeed(folder, "encode --model start --corpus data --output index");
    let hits = json(&succeed(
        folder,
        "search --model start --index index --query 'who?' --corpus data --top-k 2 --json",
    ));
    assert_eq!(hits.as_array().unwrap().len(), 2);
    assert_eq!(hits[1]["rank"], 2);
    assert!(!hits[0]["text"].as_str().unwrap().is_empty());
    assert!(hits[0]["score"].as_f64().unwrap() >= hits[1]["score"].as_f64().unwrap());
}

#[test]
fn answers_are_looked_for_in_the_passages_found() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write(
        "corpus.jsonl",
        "{\"_id\":\"a\",\"text\":\"Rome fell.\"}\n{\"_id\":\"b\",\"text\":\"Paris rose.\"}\n",
    );
    write(
        "questions.jsonl",
        "{\"_id\":\"1\",\"text\":\"what rose?\",\"answers\":[\"paris\"]}\n\
         {\"_id\":\"2\",\"text\":\"what fell?\",\"answers\":[\"Rome\"]}\n",
    );
    write("run.trec", "1 Q0 a 1 2.0 t\n1 Q0 b 2 1.0 t\n2 Q0 a 1 2.0 t\n");
    let report = json(&succeed(
        folder,
        "evaluate --run run.trec --answers questions.jsonl --corpus corpus.jsonl --top-k 1,2 --json",
    ));
    assert_eq!(report["metrics"]["Top-1"], 0.5);
    assert_eq!(report["metrics"]["Top-2"], 1.0);
}

#[test]
fn an_encoding_begun_otherwise_is_not_continued() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    succeed(folder, "encode --model start --corpus data --output index");
    succeed(folder, "encode --model start --corpus data --output index");
    let other = contaccum(folder, "encode --model start --corpus data --output index --max-length 8");
    assert_eq!(other.status.code(), Some(1));
    assert!(String::from_utf8(other.stderr).unwrap().contains("max_length"));
}

#[test]
fn vectors_in_bf16_are_nearly_those_in_f32_or_refused_where_the_processor_cannot() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    succeed(folder, "encode --model start --corpus data --output exact");
    let other = contaccum(folder, "encode --model start --corpus data --output rounded --dtype bf16");
    if other.status.code() == Some(2) {
        assert!(String::from_utf8(other.stderr).unwrap().contains("AVX-512"));
        assert!(!folder.join("rounded").exists());
        return;
    }
    assert!(other.status.success());
    let vectors = |index: &str| -> Vec<f32> {
        let bytes = std::fs::read(folder.join(index).join("embeddings-00000.npy")).unwrap();
        let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        bytes[header..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let (exact, rounded) = (vectors("exact"), vectors("rounded"));
    assert_ne!(exact, rounded);
    let largest = exact.iter().zip(&rounded).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(largest < 0.05, "{largest}");
}

#[test]
fn flags_win_over_a_recipe_and_the_run_stores_what_it_used() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, 32);
    let recipe = "model = \"start\"\ntrain = \"data\"\nlocal_batch_size = 4\ngradient_accumulation_steps = 2\n\
                  method = \"grad-cache\"\nmax_steps = 2\nseed = 1\n";
    std::fs::write(folder.join("recipe.toml"), recipe).unwrap();
    succeed(folder, "train --recipe recipe.toml --passage-max-length 32 --seed 2 --output-dir run");
    let stored: toml::Table =
        std::fs::read_to_string(folder.join("run/config.toml")).unwrap().parse().unwrap();
    assert_eq!(stored["seed"].as_integer(), Some(2));
    assert_eq!(stored["method"].as_str(), Some("grad-cache"));
    assert_eq!(stored["passage_max_length"].as_integer(), Some(32));
}
