//! Examples that are read without complaint, and the files around them.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use contaccum_encoder::{
    BertConfig, Layout, ModelCard, ModelConfig, ModelSettings, TextTokenizer, export_folder, random_weights,
};

fn texts<const N: usize>(texts: [&str; N]) -> Vec<Vec<u8>> {
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}

const CORPUS: &str = "{\"_id\": \"d1\", \"title\": \"A\", \"text\": \"the blue door\"}\n\
                      {\"_id\": \"d2\", \"text\": \"w1 w2 \\u00e9\", \"metadata\": {\"x\": [1, 2.5, null]}}\n";
const QUERIES: &str =
    "{\"_id\": \"q1\", \"text\": \"who?\", \"answers\": [\"blue\"]}\n{\"_id\": \"q2\", \"text\": \"w1\"}\n";
const QRELS: &str = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t2\n";
const METRICS: &str = "{\"update\":1,\"epoch\":0.5,\"loss\":2.5,\"grad_norm\":1.0,\"learning_rate\":1e-5,\"seconds\":0.1,\
                       \"tokens_per_second\":100.0,\"bank_samples\":8,\"bank_mass_by_age\":[0.0,0.1,0.2,0.3,0.1,0.1,0.1,0.1]}\n\
                       {\"update\":2,\"epoch\":1.0,\"loss\":2.25,\"grad_norm\":null,\"learning_rate\":0,\"dev\":{\"nDCG@10\":0.5}}\n";
const MANIFEST: &str = "{\"format\": \"contaccum embeddings 1\", \"model\": \"m\", \"corpus\": \"c\", \"rows\": 2, \"dim\": 2, \
                        \"shard_rows\": 2, \"batch\": {\"max_tokens\": 64, \"max_sequences\": 8}, \"settings\": {}, \
                        \"shards\": [{\"embeddings\": \"embeddings-00000.npy\", \"ids\": \"ids-00000.txt\", \"rows\": 2}], \
                        \"done\": true}";

pub fn corpus() -> Vec<Vec<u8>> {
    texts([CORPUS, "{\"_id\": 7, \"title\": null, \"text\": \"x\"}\n\n"])
}

pub fn corpus_tsv() -> Vec<Vec<u8>> {
    texts([
        "id\ttext\ttitle\nd1\tthe blue door\tA\nd2\t\"quoted \"\"text\"\"\"\tB\n",
        "d1\ttext\nd2\tother\n",
    ])
}

pub fn queries() -> Vec<Vec<u8>> {
    texts([QUERIES])
}

pub fn queries_tsv() -> Vec<Vec<u8>> {
    texts(["qid\tquery\nq1\twho?\n", "q1\twho?\nq2\twhat?\n", "who?\t['blue', \"b's\"]\nw1\t[\"w2\"]\n"])
}

pub fn qrels() -> Vec<Vec<u8>> {
    texts([QRELS, "q1 0 d1 1\nq1 0 d2 0\n", "\u{feff}query-id\tcorpus-id\tscore\r\nq1\td1\t1\r\n"])
}

pub fn hard_negatives() -> Vec<Vec<u8>> {
    texts([
        "query-id\tpositive-id\tnegative-ids\nq1\td1\td2\nq2\td2\td1,d1\n",
        "q1\td1\td2\n",
        "q1\td1\td2\nq1\td1\td2\n",
    ])
}

pub fn training_json() -> Vec<Vec<u8>> {
    texts([
        "[[\"who?\", \"the door\"],\n [\"w1\", \"w2\", \"door\"]]",
        "[{\"question\": \"who?\", \"answers\": [\"blue\"], \"positive_ctxs\": [{\"title\": \"A\", \"text\": \"the door\", \
         \"score\": 1.5, \"passage_id\": \"1\"}], \"negative_ctxs\": [], \"hard_negative_ctxs\": [{\"title\": \"B\", \
         \"text\": \"w1\"}]}, {\"question\": \"w2\", \"positive_ctxs\": [{\"title\": \"\", \"text\": \"w2\"}]}]",
    ])
}

pub fn training_jsonl() -> Vec<Vec<u8>> {
    texts([
        "{\"query\": \"who?\", \"pos\": [\"the door\"], \"neg\": [\"w1\", \"w2\"], \"prompt\": \"find: \", \"pos_scores\": [1]}\n",
        "{\"query_id\": \"1\", \"query\": \"who?\", \"positive_passages\": [{\"docid\": \"1\", \"title\": \"A\", \"text\": \"b\"}], \
         \"negative_passages\": []}\n",
        "{\"query_id\": \"1\", \"query\": \"who?\", \"positive_document_ids\": [\"d1\"], \"negative_document_ids\": [\"d2\"]}\n",
        "{\"query\": \"a\", \"positives\": [\"b\"], \"negatives\": [\"c\"]}\n",
        "[\"a\", \"b\"]\n[\"a\", \"b\", \"c\", [\"d\", null]]\n",
        "{\"anchor\": \"a\", \"positive\": \"b\", \"negative_1\": \"c\", \"negative_2\": [\"d\"]}\n",
    ])
}

pub fn training_tsv() -> Vec<Vec<u8>> {
    texts([
        "who?\tthe door\tw1\nw2\t\"b\" c\td\n",
        "query\tpos\tneg\nwho?\t[\"the door\", \"b\"]\t['w1' \"w's\", 'x\\xe9']\n",
    ])
}

pub fn training_csv() -> Vec<Vec<u8>> {
    texts([
        "question,context,answers,negative_1,negative_2\nwho?,\"the \"\"blue\"\" door\",\"['blue']\",w1,\n",
        "ask,reply,other\nwho?,the door,w1\n",
    ])
}

pub fn run() -> Vec<Vec<u8>> {
    texts(["q1 Q0 d1 1 0.5 tag\nq1 Q0 d2 2 0.25 tag\nq2\tQ0\td1\t1\t-3e-5\ttag\n"])
}

pub fn recipe() -> Vec<Vec<u8>> {
    texts([
        "model = \"m\"\ntrain = \"t\"\noutput_dir = \"o\"\nmethod = \"contaccum\"\nlearning_rate = 2e-5\nlocal_batch_size = 8\n\
         memory_bank_size = 512\nepochs = 1.5\nmemory_budget = \"2GiB\"\n",
        "model = \"m\"\ntrain = \"t\"\noutput_dir = \"o\"\nmax_steps = 3\nwarmup_ratio = 0.1\ntied = false\nseed = 7\n",
    ])
}

pub fn study() -> Vec<Vec<u8>> {
    texts([
        "seeds = [1, 2]\n[base]\nmodel = \"m\"\ntrain = \"t\"\n[[evaluation]]\ndata = \"d\"\nsplit = \"test\"\n[[group]]\n\
            name = \"g\"\ntitle = \"G\"\nbaseline = \"a\"\n[[cell]]\ngroup = \"g\"\nname = \"a\"\nmethod = \"grad-accum\"\n[[cell]]\n\
            group = \"g\"\nname = \"c {memory_bank_size}\"\nmemory_bank_size = [8, 16]\n",
    ])
}

pub fn manifest() -> Vec<Vec<u8>> {
    texts([MANIFEST])
}

pub fn vectors() -> Vec<Vec<u8>> {
    vec![npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }", 16)]
}

pub fn metrics() -> Vec<Vec<u8>> {
    texts([METRICS])
}

pub fn evaluation() -> Vec<Vec<u8>> {
    texts([
        "{\"data\": \"d\", \"split\": \"test\", \"queries\": [\"a\", \"b\"], \"measures\": {\"RR@10\": [1.0, 0.5], \"AP\": [0, 1]}}",
    ])
}

pub fn checkpoint() -> Vec<Vec<u8>> {
    texts(["{\"update\": 1, \"updates\": 2, \"rows\": 7, \"parameters\": 9, \"objective_settings\": [1], \
            \"objective_entered\": 0, \"config\": {}}"])
}

/// A file of the small model.
pub fn model_file(name: &str) -> Vec<Vec<u8>> {
    vec![fs::read(MODEL.path().join("model").join(name)).unwrap_or_default()]
}

/// A model of a few numbers, written once a process.
static MODEL: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder for the model");
    let words = ["the", "blue", "door", "w1", "w2", "##a", "?", ","];
    let tokenizer = TextTokenizer::from_vocabulary(words.map(str::to_owned).to_vec()).expect("a vocabulary");
    let config = ModelConfig::try_from(BertConfig {
        hidden_size: 4,
        num_hidden_layers: 1,
        num_attention_heads: 1,
        intermediate_size: 4,
        vocab_size: tokenizer.vocabulary_size(),
        max_position_embeddings: 16,
        ..BertConfig::default()
    })
    .expect("a shape that can be built");
    let layout = Layout::new(&config);
    let card = ModelCard { title: "m".into(), base_model: None, pair: None, training: Vec::new() };
    let (weights, settings) = (random_weights(&config, &layout, 1), ModelSettings::plain(&config));
    let target = folder.path().join("model");
    export_folder(&target, &config, &layout, &weights, &tokenizer, &settings, &card).expect("a model folder");
    folder
});

fn npy(header: &str, bytes: usize) -> Vec<u8> {
    let padding = 64 - (11 + header.len()) % 64;
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend(((header.len() + padding + 1) as u16).to_le_bytes());
    file.extend(header.bytes());
    file.extend(vec![b' '; padding]);
    file.push(b'\n');
    file.extend(vec![0; bytes]);
    file
}

/// Writes what stands around the targets' files.
pub fn surroundings(folder: &Path) {
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        let parent = path.parent().expect("a file lies in a folder");
        fs::create_dir_all(parent).expect("the scratch folder can be written");
        fs::write(path, bytes).expect("the scratch folder can be written");
    };
    write("beir/corpus.jsonl", CORPUS.as_bytes());
    write("beir/queries.jsonl", QUERIES.as_bytes());
    write("beir/qrels/train.tsv", QRELS.as_bytes());
    write("index/manifest.json", MANIFEST.as_bytes());
    write("index/embeddings-00000.npy", &vectors()[0]);
    write("index/ids-00000.txt", b"d1\nd2\n");
    write("finished/config.toml", b"method = \"contaccum\"\n");
    copy(&MODEL.path().join("model"), &folder.join("model"));
    copy(&MODEL.path().join("model"), &folder.join("run/checkpoint-000001/model"));
    write("run/checkpoint-000001/state.safetensors", &model_file("model.safetensors")[0]);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the scratch folder can be written");
    for entry in fs::read_dir(from).expect("the model's folder") {
        let path = entry.expect("the model's folder").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("the scratch folder can be written");
        }
    }
}
