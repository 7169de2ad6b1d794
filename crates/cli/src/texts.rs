//! The queries of a command: all of a file, or those of a split.

use std::path::Path;

use contaccum_data::{Qrels, Queries, QueryIndex};

use crate::failure::BadUsage;
use crate::notes;

/// Queries and which of them are meant, in file order.
pub struct ChosenQueries {
    pub queries: Queries,
    pub chosen: Vec<QueryIndex>,
}

impl ChosenQueries {
    /// Opens the queries at `path`; with a split, only those judged in it, `path` being a folder of a data set.
    pub fn open(path: &Path, split: Option<&str>, strict: bool) -> anyhow::Result<Self> {
        let strictness = strict.into();
        let queries = match split {
            None => Queries::open_with(path, strictness)?,
            Some(_) if !path.is_dir() => {
                let what = format!("--split needs a folder: {} is a file (drop it)", path.display());
                return Err(BadUsage(what).into());
            }
            Some(split) => Queries::open_split_with(path, split, strictness)?,
        };
        notes::tell(queries.notes());
        let all = (0..queries.len() as u32).map(QueryIndex);
        let chosen = match split {
            None => all.collect(),
            Some(split) => {
                let qrels = Qrels::open_split_with(path, split, strictness)?;
                notes::tell(qrels.notes());
                all.filter(|&query| !qrels.judgments(queries.id(query)).is_empty()).collect()
            }
        };
        Ok(Self { queries, chosen })
    }

    /// The ids of the chosen queries.
    pub fn ids(&self) -> Vec<String> {
        self.chosen.iter().map(|&query| self.queries.id(query).to_owned()).collect()
    }
}
