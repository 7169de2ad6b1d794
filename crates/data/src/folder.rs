//! Folders of a data set: which file holds what, as BEIR and as MS MARCO lay them out.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The file of passages: `path` itself, or BEIR's or MS MARCO's in the folder `path`.
pub(crate) fn corpus(path: &Path) -> Result<PathBuf> {
    find(path, &["corpus.jsonl", "collection.tsv"])
}

/// The file of queries: `path` itself, or BEIR's in the folder `path`, which holds those of all splits, or MS MARCO's of
/// a split.
pub(crate) fn queries(path: &Path, split: Option<&str>) -> Result<PathBuf> {
    let of_split = split.map(|split| format!("queries.{split}.tsv"));
    let names: Vec<&str> =
        ["queries.jsonl"].into_iter().chain(of_split.as_deref()).chain(["queries.tsv"]).collect();
    find(path, &names)
}

/// The judgment file of a split, or an error that names the splits there are.
pub(crate) fn judgments(folder: &Path, split: &str) -> Result<PathBuf> {
    if !folder.is_dir() {
        let remedy = "check the path of the BEIR folder".into();
        return Err(Error::Missing { path: folder.into(), remedy });
    }
    let names = [format!("qrels/{split}.tsv"), format!("qrels.{split}.tsv")];
    find(folder, &[&names[0], &names[1]]).map_err(|missing| match splits(folder) {
        found if found.is_empty() => missing,
        found => Error::Missing {
            path: folder.join(&names[0]),
            remedy: format!("the folder has these splits: {}", found.join(", ")),
        },
    })
}

/// `path` itself if it is a file, else the first of `names` inside the folder `path`, plain, `.gz` or `.zst`.
fn find(path: &Path, names: &[&str]) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.into());
    }
    let endings = |name: &&str| ["", ".gz", ".zst"].map(|ending| path.join(format!("{name}{ending}")));
    names.iter().flat_map(endings).find(|candidate| candidate.is_file()).ok_or_else(|| {
        let (beir, others) = (names[0], names[1..].join(" or "));
        Error::Missing {
            path: path.join(beir),
            remedy: format!("the folder needs {beir}, {beir}.gz or {beir}.zst, or {others} as in MS MARCO"),
        }
    })
}

fn splits(folder: &Path) -> Vec<String> {
    let names = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect::<Vec<_>>()
    };
    let split = |name: &str| Some(name.split_once(".tsv")?.0.to_owned());
    let mut splits: Vec<String> =
        names(&folder.join("qrels")).iter().filter_map(|name| split(name)).collect();
    splits.extend(names(folder).iter().filter_map(|name| split(name.strip_prefix("qrels.")?)));
    splits.sort();
    splits.dedup();
    splits
}
