//! The targets: a file's name, what reads it, and examples to begin from.

use std::fs;
use std::path::{Path, PathBuf};

use contaccum_data::{
    Columns, Corpus, PassageIndex, Qrels, Queries, QueryIndex, TrainingSet, TrainingSource,
};
use contaccum_encoder::{Layout, ModelFolder, PassageFormat};
use contaccum_retrieval::{EmbeddingStore, QueryMeasures, Run};
use contaccum_training::{TrainConfig, export_checkpoint};
use tempfile::TempDir;

use crate::seeds;

/// A parser.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// The file that is made of the bytes, in a [`Scratch`]'s folder.
    file: &'static str,
    /// Reads the file, in the folder; whatever it says of it is fine.
    read: fn(&Path),
    /// Inputs that are read without complaint, to begin from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

macro_rules! target {
    ($name:literal, $file:literal, $read:expr, $seeds:expr) => {
        Target { name: $name, file: $file, read: $read, seeds: $seeds }
    };
}

/// Every parser of files that others write, or that can be damaged.
pub const TARGETS: [Target; 24] = [
    target!("corpus", "corpus.jsonl", corpus, seeds::corpus),
    target!("corpus-tsv", "corpus.tsv", corpus_tsv, seeds::corpus_tsv),
    target!("queries", "queries.jsonl", queries, seeds::queries),
    target!("queries-tsv", "queries.tsv", queries_tsv, seeds::queries_tsv),
    target!("qrels", "qrels.tsv", qrels, seeds::qrels),
    target!("hard-negatives", "beir/negatives.tsv", hard_negatives, seeds::hard_negatives),
    target!("training-json", "train.json", training_json, seeds::training_json),
    target!("training-jsonl", "train.jsonl", training_jsonl, seeds::training_jsonl),
    target!("training-tsv", "train.tsv", training_tsv, seeds::training_tsv),
    target!("training-csv", "train.csv", training_csv, seeds::training_csv),
    target!("run", "run.trec", run, seeds::run),
    target!("recipe", "recipe.toml", recipe, seeds::recipe),
    target!("study", "study.toml", study, seeds::study),
    target!("config", "model/config.json", model, || seeds::model_file("config.json")),
    target!("tokenizer", "model/tokenizer.json", model, || seeds::model_file("tokenizer.json")),
    target!("tokenizer-config", "model/tokenizer_config.json", model, || seeds::model_file(
        "tokenizer_config.json"
    )),
    target!("modules", "model/modules.json", model, || seeds::model_file("modules.json")),
    target!("pooling", "model/1_Pooling/config.json", model, || seeds::model_file("1_Pooling/config.json")),
    target!("weights", "model/model.safetensors", model, || seeds::model_file("model.safetensors")),
    target!("manifest", "index/manifest.json", store, seeds::manifest),
    target!("vectors", "index/embeddings-00000.npy", store, seeds::vectors),
    target!("metrics", "finished/metrics.jsonl", report, seeds::metrics),
    target!("evaluation", "evaluation.json", evaluation, seeds::evaluation),
    target!("checkpoint", "run/checkpoint-000001/state.json", checkpoint, seeds::checkpoint),
];

impl Target {
    /// The target of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Reads `bytes` as the target's file.
    ///
    /// # Panics
    /// When the parser does, or the scratch folder cannot be written.
    pub fn run(&self, scratch: &Scratch, bytes: &[u8]) {
        fs::write(scratch.path().join(self.file), bytes).expect("the scratch folder can be written");
        (self.read)(scratch.path());
    }
}

/// A folder with everything around the file that a target reads.
pub struct Scratch {
    folder: TempDir,
}

impl Scratch {
    /// Writes the surroundings of all targets, in memory where the system has such a folder.
    ///
    /// # Panics
    /// When no folder can be written.
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = tempfile::Builder::new().prefix("fuzz").tempdir_in(parent).expect("a scratch folder");
        seeds::surroundings(folder.path());
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

fn corpus(folder: &Path) {
    read_corpus(&folder.join("corpus.jsonl"));
}

fn corpus_tsv(folder: &Path) {
    read_corpus(&folder.join("corpus.tsv"));
}

fn read_corpus(path: &Path) {
    if let Ok(corpus) = Corpus::open(path) {
        for index in (0..corpus.len() as u32).map(PassageIndex) {
            let passage = corpus.get(index).expect("a passage that was read can be read again");
            assert_eq!(corpus.index_of(corpus.id(index)), Some(index));
            let _ = passage.is_blank();
        }
    }
}

fn queries(folder: &Path) {
    read_queries(&folder.join("queries.jsonl"));
}

fn queries_tsv(folder: &Path) {
    read_queries(&folder.join("queries.tsv"));
}

fn read_queries(path: &Path) {
    if let Ok(queries) = Queries::open(path) {
        for index in (0..queries.len() as u32).map(QueryIndex) {
            queries.text(index).expect("a query that was read can be read again");
            let _ = queries.answers(index);
        }
    }
}

fn qrels(folder: &Path) {
    if let Ok(qrels) = Qrels::open(&folder.join("qrels.tsv")) {
        assert_eq!(qrels.iter().count(), qrels.len());
    }
}

fn hard_negatives(folder: &Path) {
    let beir = folder.join("beir");
    let hard_negatives = Some(beir.join("negatives.tsv"));
    training(&TrainingSource::Beir { folder: beir, split: "train".into(), hard_negatives });
}

fn training_json(folder: &Path) {
    training(&TrainingSource::file(folder.join("train.json")));
}

fn training_jsonl(folder: &Path) {
    let corpus = Some(folder.join("beir"));
    training(&TrainingSource::file(folder.join("train.jsonl")));
    training(&TrainingSource::File { path: folder.join("train.jsonl"), corpus, columns: Columns::default() });
}

fn training_tsv(folder: &Path) {
    training(&TrainingSource::file(folder.join("train.tsv")));
}

fn training_csv(folder: &Path) {
    let columns: Columns = "query=ask,positive=reply,negative=other".parse().expect("three roles");
    training(&TrainingSource::file(folder.join("train.csv")));
    training(&TrainingSource::File { path: folder.join("train.csv"), corpus: None, columns });
}

fn training(source: &TrainingSource) {
    if let Ok(set) = TrainingSet::open(source) {
        for row in 0..set.len() {
            let _ = set.row(row);
        }
        let _ = set.summary();
    }
}

fn run(folder: &Path) {
    if let Ok(run) = Run::read(&folder.join("run.trec")) {
        assert_eq!(run.iter().count(), run.len());
    }
}

fn recipe(folder: &Path) {
    if let Ok(config) = TrainConfig::load(Some(&folder.join("recipe.toml")), toml::Table::new()) {
        let again = TrainConfig::load(None, config.to_toml().parse().expect("a configuration is TOML"));
        assert_eq!(again.expect("a configuration that is sound stays so").to_toml(), config.to_toml());
    }
}

fn study(folder: &Path) {
    let _ = contaccum_study::Recipe::read(&folder.join("study.toml"));
}

/// A model with everything that is read of it, and a text tokenised.
fn model(folder: &Path) {
    let Ok(model) = ModelFolder::locate(&folder.join("model").to_string_lossy()) else { return };
    let _ = model.settings();
    if let Ok(config) = model.config() {
        let _ = model.weights(&Layout::new(&config));
    }
    if let Ok(tokenizer) = model.tokenizer() {
        let _ = tokenizer.query("who painted the blue door?", 16);
        let _ = tokenizer.passage("a title", "and a text, w1 w2", PassageFormat::Pair, 16);
    }
}

fn store(folder: &Path) {
    let Ok(store) = EmbeddingStore::open(&folder.join("index")) else { return };
    let _ = store.ids();
    let mut vectors = Vec::new();
    for shard in 0..store.shards() {
        if store.read_shard(shard, &mut vectors).is_err() {
            break;
        }
    }
}

fn report(folder: &Path) {
    let runs: Vec<PathBuf> = vec![folder.join("finished")];
    let _ = contaccum_report::write_page(&runs, &folder.join("report.html"));
}

fn evaluation(folder: &Path) {
    if let Ok(Some(measures)) = QueryMeasures::read(&folder.join("evaluation.json")) {
        let _ = measures.means();
    }
}

fn checkpoint(folder: &Path) {
    let exported = folder.join("exported");
    let _ = export_checkpoint(&folder.join("run"), &exported);
    // The next one starts without it.
    let _ = fs::remove_dir_all(exported);
}
