//! What the tests of files share: writing a text plain or compressed, and finding the shared data sets.
#![allow(dead_code)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use tempfile::TempDir;

pub fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Writes `content` under `name`, compressed as the name's ending says.
pub fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let content = content.as_ref();
    let bytes = match path.extension().and_then(|ending| ending.to_str()) {
        Some("gz") => gzip(content),
        Some("zst") => zstd::encode_all(content, 0).unwrap(),
        Some(_) | None => content.to_vec(),
    };
    fs::write(&path, bytes).unwrap();
    path
}

pub fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// A folder with three passages, two queries and judgments that make two rows.
pub fn small_beir() -> TempDir {
    let folder = folder();
    write(
        folder.path(),
        "corpus.jsonl",
        concat!(
            "{\"_id\": \"d1\", \"title\": \"One\", \"text\": \"first passage\"}\n",
            "{\"_id\": \"d2\", \"text\": \"second passage\"}\n",
            "{\"_id\": \"d3\", \"title\": \"Three\", \"text\": \"third passage\"}\n",
            "{\"_id\": \"d4\", \"title\": \"\", \"text\": \"\"}\n",
        ),
    );
    write(
        folder.path(),
        "queries.jsonl",
        concat!(
            "{\"_id\": \"q1\", \"text\": \"one?\", \"answers\": [\"first\", \"1\"]}\n",
            "{\"_id\": \"q2\", \"text\": \"two?\"}\n",
        ),
    );
    write(
        folder.path(),
        "qrels/train.tsv",
        "query-id\tcorpus-id\tscore\nq2\td2\t1\nq1\td1\t1\nq2\td3\t2\nq1\td3\t0\n",
    );
    folder
}

/// The shared data folder, or `None` with a line that says so; on CI its absence is a failure.
pub fn shared_data() -> Option<PathBuf> {
    let root = std::env::var_os("CONTACCUM_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let data = root.join("data");
    if data.is_dir() {
        return Some(data);
    }
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "{} is missing: set CONTACCUM_SHARED to the folder that holds data/",
        data.display()
    );
    println!("skipped: {} is missing; set CONTACCUM_SHARED to the folder that holds data/", data.display());
    None
}
