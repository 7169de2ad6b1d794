//! `contaccum.json` of a model folder: what decides vectors beside the files that sentence-transformers reads.

use std::path::Path;

use contaccum_files::{read_json_if_there, write_json};
use serde::{Deserialize, Serialize};

use crate::{EncoderError, Fingerprint, ModelSettings, PassageFormat};

const FILE: &str = "contaccum.json";

/// Which texts an encoder was trained on, where queries and passages have one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Queries.
    Query,
    /// Passages.
    Passage,
}

/// An encoder's other half.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// What this encoder encodes.
    pub side: Side,
    /// The encoder of the other side; its tokenizer is this one's.
    pub other: Fingerprint,
}

/// What a model folder of this program records of texts. sentence-transformers does not read it: there, title and text
/// are given as the folder's README shows, and the longer of the two lengths holds for both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelRecord {
    /// How title and text become one sequence.
    pub passage_format: Option<PassageFormat>,
    /// Longest query in tokens.
    pub query_max_length: Option<usize>,
    /// Longest passage in tokens.
    pub passage_max_length: Option<usize>,
    /// The other half, of two encoders that were trained together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pair: Option<Pair>,
}

impl ModelRecord {
    /// What is to be recorded of a model.
    pub(crate) fn of(settings: &ModelSettings, pair: Option<Pair>) -> Self {
        Self {
            passage_format: Some(settings.passage_format),
            query_max_length: Some(settings.query_max_length),
            passage_max_length: Some(settings.passage_max_length),
            pair,
        }
    }

    /// Reads the record of a folder; nothing is recorded where there is none.
    pub(crate) fn read(folder: &Path) -> Result<Self, EncoderError> {
        let place = folder.join(FILE);
        let record: Self = read_json_if_there(&place)?.unwrap_or_default();
        for (name, length) in
            [("query_max_length", record.query_max_length), ("passage_max_length", record.passage_max_length)]
        {
            if length.is_some_and(|length| length < 3) {
                let what = format!("{name} leaves no room beside the special tokens; it must be at least 3");
                return Err(EncoderError::Unsupported { place: place.display().to_string(), what });
            }
        }
        Ok(record)
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<(), EncoderError> {
        Ok(write_json(&folder.join(FILE), self)?)
    }
}
