//! What the fields of a training row, or the columns of a table of rows, are called: by names known in the field, or as
//! the caller says.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::notes::Reading;
use crate::{Error, Place, Result};

// The layouts of a row:
// - DPR: `question, answers, positive_ctxs, negative_ctxs, hard_negative_ctxs`
//   (facebookresearch/DPR, dpr/data/biencoder_data.py)
// - Tevatron: `query_id, query, positive_passages, negative_passages`, and the newer
//   `query_id, query_text, positive_document_ids, negative_document_ids`
//   (texttron/tevatron, src/tevatron/retriever/dataset.py)
// - FlagEmbedding: `query, pos, neg, prompt`
//   (FlagOpen/FlagEmbedding, FlagEmbedding/abc/finetune/embedder/AbsDataset.py)
// - sentence-transformers: `anchor, positive, negative` and `negative_1 ...`, `query` or `question` with `answer`,
//   `sentence1, sentence2` (its data sets on the hub, huggingface.co/datasets?other=sentence-transformers)
// - plain: `query, positives, negatives`
pub(crate) const QUERY_ID: [&str; 2] = ["query_id", "qid"];
pub(crate) const QUERY: [&str; 6] = ["query_text", "query", "question", "anchor", "sentence1", "sentence_1"];
pub(crate) const ANSWERS: [&str; 2] = ["answers", "answer"];
pub(crate) const PROMPT: [&str; 1] = ["prompt"];
pub(crate) const DPR_POSITIVES: &str = "positive_ctxs";
/// Of several that a row has, the first in this order: an answer is the positive where there is no passage.
pub(crate) const POSITIVES: [&str; 12] = [
    "positive_passages",
    "pos",
    "positives",
    DPR_POSITIVES,
    "positive",
    "passage",
    "context",
    "document",
    "sentence2",
    "sentence_2",
    "answer",
    "response",
];
pub(crate) const POSITIVE_IDS: [&str; 1] = ["positive_document_ids"];
pub(crate) const NEGATIVES: [&str; 8] = [
    "negative_passages",
    "neg",
    "negatives",
    "hard_negative_ctxs",
    "negative",
    "hard_negatives",
    "hard_negative",
    "hard_neg",
];
pub(crate) const NEGATIVE_IDS: [&str; 1] = ["negative_document_ids"];
/// As DPR does (`hard_neg_fallback`): a row without hard negatives uses these.
pub(crate) const OTHER_NEGATIVES: [&str; 1] = ["negative_ctxs"];

/// Names of a text that stands beside another without a claim that they belong together.
const BESIDE: [&str; 2] = ["sentence2", "sentence_2"];
/// What says whether two texts belong together, or how much.
const GRADES: [&str; 6] = ["label", "score", "similarity", "similarity_score", "is_duplicate", "gold_label"];
const PAIRS: &str = "rows whose texts belong together: leave the others out, and say columns = query=sentence1,positive=sentence2";

/// Whether a name is one of several of the kind: `negative_1`, `neg2`, `hard_negative_10`.
pub(crate) fn is_numbered_negative(name: &str) -> bool {
    let stem = name.trim_end_matches(|character: char| character.is_ascii_digit());
    let is_stem = matches!(stem.trim_end_matches('_'), "negative" | "neg" | "hard_negative" | "hard_neg");
    stem.len() < name.len() && is_stem
}

/// Which fields of a training file, or columns of its table, hold what: `query=question,positive=context,negative=hard`,
/// in any order; there may be several positives and negatives. What is not said goes by the names known in the field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    pub(crate) query: Option<String>,
    pub(crate) positives: Vec<String>,
    pub(crate) negatives: Vec<String>,
}

impl Columns {
    /// The names that were given.
    pub(crate) fn given(&self) -> impl Iterator<Item = &str> {
        self.query.iter().chain(&self.positives).chain(&self.negatives).map(String::as_str)
    }

    /// Refuses graded pairs, as of similarity or paraphrase sets: all would be taught as alike, those that are not too.
    pub(crate) fn refuse_graded<'a>(
        &self,
        names: impl Iterator<Item = &'a str> + Clone,
        place: Place,
    ) -> Result<()> {
        let among = |known: &[&str]| names.clone().find(|name| known.contains(name));
        match (among(&BESIDE), among(&GRADES)) {
            (Some(text), Some(grade)) if self.positives.is_empty() => {
                let reason = format!("{grade} says of each {text} whether it is alike, and is not heeded");
                Err(Error::Field { place, reason, expected: PAIRS })
            }
            _ => Ok(()),
        }
    }

    /// Those of some known names that were not given to something else.
    pub(crate) fn free<'k>(&self, known: &'k [&'static str]) -> Cow<'k, [&'static str]> {
        match self.given().next() {
            None => Cow::Borrowed(known),
            Some(_) => {
                known.iter().copied().filter(|known| self.given().all(|given| given != *known)).collect()
            }
        }
    }
}

impl FromStr for Columns {
    type Err = String;

    fn from_str(text: &str) -> Result<Columns, String> {
        let mut columns = Columns::default();
        for part in text.split(',') {
            let (role, name) =
                part.split_once('=').map_or((part, ""), |(role, name)| (role.trim(), name.trim()));
            let is_free = columns.given().all(|given| given != name);
            match role {
                _ if name.is_empty() || !is_free => return Err(wrong(part)),
                "query" if columns.query.is_none() => columns.query = Some(name.into()),
                "positive" => columns.positives.push(name.into()),
                "negative" => columns.negatives.push(name.into()),
                _ => return Err(wrong(part)),
            }
        }
        Ok(columns)
    }
}

fn wrong(part: &str) -> String {
    format!(
        "columns has {part:?} where one of query=NAME, positive=NAME and negative=NAME belongs, such as \
         query=question,positive=context,negative=hard (one query, no name twice)"
    )
}

impl fmt::Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roles =
            [("query", self.query.as_slice()), ("positive", &self.positives), ("negative", &self.negatives)];
        let all =
            roles.iter().flat_map(|(role, names)| names.iter().map(move |name| format!("{role}={name}")));
        f.write_str(&all.collect::<Vec<_>>().join(","))
    }
}

impl Serialize for Columns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Columns, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The names that were given and have not been met in any row yet.
pub(crate) struct Unmet<'n> {
    names: Vec<&'n str>,
    /// The first row's line, and what it has instead.
    first: Option<(u64, String)>,
}

impl<'n> Unmet<'n> {
    pub fn new(columns: &'n Columns) -> Unmet<'n> {
        Unmet { names: columns.given().collect(), first: None }
    }

    /// Takes note of a row with fields of these names.
    pub fn meet<'a>(&mut self, line: u64, names: impl Iterator<Item = &'a str> + Clone) {
        if self.names.is_empty() {
            return;
        }
        self.first.get_or_insert_with(|| {
            let told: Vec<String> = names.clone().map(|name| name.escape_debug().to_string()).collect();
            (line, if told.is_empty() { "lists without names".into() } else { told.join(", ") })
        });
        self.names.retain(|name| !names.clone().any(|met| met == *name));
    }

    /// Refuses names that no row had.
    pub fn finish(&self, reading: &Reading) -> Result<()> {
        let (Some(name), Some((line, found))) = (self.names.first(), &self.first) else { return Ok(()) };
        Err(Error::NotNamed { place: reading.place(*line), name: (*name).into(), found: found.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_read_back_as_they_are_written() {
        let text = "query=question,positive=context,negative=hard 1,negative=hard 2";
        let columns: Columns = text.parse().unwrap();
        assert_eq!(columns.to_string(), text);
        assert_eq!((columns.query.as_deref(), columns.negatives.len()), (Some("question"), 2));
        assert_eq!(" positive = a ".parse::<Columns>().unwrap().to_string(), "positive=a");
        for wrong in
            ["", "query", "query=", "=a", "anchor=a", "query=a,query=b", "query=a,positive=a", "query=a,"]
        {
            let message = wrong.parse::<Columns>().unwrap_err();
            assert!(message.contains("query=question,positive=context"), "{message}");
        }
    }

    #[test]
    fn a_numbered_negative_has_a_number() {
        assert!(["negative_1", "neg2", "hard_negative_10"].into_iter().all(is_numbered_negative));
        assert!(!["negative", "negatives_1", "1", "negative_1_score"].into_iter().any(is_numbered_negative));
    }
}
