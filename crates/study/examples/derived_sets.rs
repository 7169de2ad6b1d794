//! Training sets of other kinds than questions about paragraphs, cut from public ones: what docs/study.md trains on
//! beside SQuAD.
//!
//! ```text
//! cargo run --release -p contaccum-study --example derived_sets -- DATA OUT
//! ```
//!
//! DATA holds the BEIR folders `scifact` and `cranfield`. Every fifth query is one to test on. OUT then holds
//!
//! - `titles`: a SciFact title is the query, its abstract the passage (long passages, one positive each);
//! - `sentences`: a SciFact title is the query, the abstract's first sentence the passage (short passages);
//! - `judged`: Cranfield's queries and judgments (few queries, many positives each: rows repeat their queries).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use contaccum_data::{Corpus, PassageIndex, Qrels};
use serde_json::json;

/// One query in so many is kept for testing.
const TEST_SHARE: usize = 5;

fn main() -> anyhow::Result<()> {
    let folders: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [data, out] = &folders[..] else { anyhow::bail!("usage: derived_sets DATA OUT") };
    let scifact = Corpus::open(&data.join("scifact/corpus.jsonl"))?;
    from_titles(&scifact, &out.join("titles"), str::to_owned)?;
    from_titles(&scifact, &out.join("sentences"), first_sentence)?;
    split_judgments(&data.join("cranfield"), &out.join("judged"))
}

/// The text up to its first full stop before a space.
fn first_sentence(text: &str) -> String {
    text.find(". ").map_or(text, |end| &text[..=end]).to_owned()
}

/// Titles as queries, what `passage` makes of the texts as passages.
fn from_titles(corpus: &Corpus, out: &Path, passage: fn(&str) -> String) -> anyhow::Result<()> {
    let (mut passages, mut queries) = (String::new(), String::new());
    let mut judgments = [judgments_header(), judgments_header()];
    for index in 0..corpus.len() {
        let index = PassageIndex(u32::try_from(index)?);
        let (id, text) = (corpus.id(index), corpus.get(index)?);
        passages += &format!("{}\n", json!({"_id": id, "title": "", "text": passage(&text.text)}));
        queries += &format!("{}\n", json!({"_id": id, "text": text.title}));
        judgments[usize::from((index.0 as usize).is_multiple_of(TEST_SHARE))] += &format!("{id}\t{id}\t1\n");
    }
    write(out, &passages, &queries, &judgments)
}

/// The folder's test judgments as a training and a test part, cut by queries.
fn split_judgments(folder: &Path, out: &Path) -> anyhow::Result<()> {
    let mut judgments = [judgments_header(), judgments_header()];
    for (number, (query, judged)) in Qrels::open_split(folder, "test")?.iter().enumerate() {
        for (passage, grade) in judged {
            let line = format!("{query}\t{passage}\t{grade}\n");
            judgments[usize::from(number.is_multiple_of(TEST_SHARE))] += &line;
        }
    }
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).with_context(|| format!("not readable: {}", path.display()))
    };
    write(out, &read("corpus.jsonl")?, &read("queries.jsonl")?, &judgments)
}

fn judgments_header() -> String {
    "query-id\tcorpus-id\tscore\n".into()
}

fn write(out: &Path, passages: &str, queries: &str, [train, test]: &[String; 2]) -> anyhow::Result<()> {
    fs::create_dir_all(out.join("qrels"))?;
    let files = [
        ("corpus.jsonl", passages),
        ("queries.jsonl", queries),
        ("qrels/train.tsv", train),
        ("qrels/test.tsv", test),
    ];
    for (name, text) in files {
        let path = out.join(name);
        fs::write(&path, text).with_context(|| format!("not written: {}", path.display()))?;
    }
    println!("{}", out.display());
    Ok(())
}
