//! `manifest.json`: what a store holds and what it was made of.

use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use contaccum_encoder::{Difference, Fingerprint, Rounding};
use contaccum_files::ContentHash;
use serde::{Deserialize, Serialize};

use crate::embeddings::{StoreError, corrupt};

/// The one layout this version reads and writes.
const FORMAT: &str = "contaccum-embeddings-2";

/// Widest vector that a manifest may promise.
const MAX_DIM: usize = 1 << 20;

/// Bounds of one batch given to the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchLimits {
    /// Most tokens in a batch; no sequence may be longer.
    pub max_tokens: usize,
    /// Most sequences in a batch.
    pub max_sequences: usize,
}

impl BatchLimits {
    /// Refuses sizes of zero, and vectors of no width.
    pub(crate) fn check(&self, dim: usize) -> Result<(), StoreError> {
        let sizes = [
            ("the width of a vector", dim),
            ("tokens per batch", self.max_tokens),
            ("sequences per batch", self.max_sequences),
        ];
        match sizes.into_iter().find(|&(_, size)| size == 0) {
            Some((name, _)) => Err(StoreError::Zero { name }),
            None => Ok(()),
        }
    }
}

/// What is encoded and how. Shards of one description, but for the names, are of one store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreDescription {
    /// Name of the model, for the reader.
    pub model: String,
    /// Name of the file of texts, for the reader.
    pub corpus: String,
    /// Texts encoded.
    pub rows: usize,
    /// Width of a vector.
    pub dim: usize,
    /// Rows of every shard but the last.
    pub shard_rows: usize,
    /// Bounds of a batch: they decide the last bits of a vector.
    pub batch: BatchLimits,
    /// The encoder: weights, configuration, tokenizer, pooling.
    pub encoder: Fingerprint,
    /// The encoder of the other side (of queries, for passages), where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_encoder: Option<Fingerprint>,
    /// Whatever else decides a vector: the texts, prompt, truncation, precision.
    pub settings: Fingerprint,
}

/// How a store on disk stands to what is to be encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Of the same content: it goes on.
    Same,
    /// The model or the texts of the same names have other contents now.
    Stale(Vec<Difference>),
    /// Something else was asked for.
    Other(Vec<Difference>),
}

impl StoreDescription {
    /// Number of shards.
    pub(crate) fn shards(&self) -> usize {
        self.rows.div_ceil(self.shard_rows)
    }

    /// Rows of the corpus in a shard.
    pub(crate) fn shard_range(&self, shard: usize) -> Range<usize> {
        let first = shard.saturating_mul(self.shard_rows);
        first..first.saturating_add(self.shard_rows).min(self.rows)
    }

    /// What was asked for beside the contents of model and texts.
    fn asked(&self) -> Fingerprint {
        self.settings
            .clone()
            .without(TEXTS)
            .with("shard_rows", self.shard_rows)
            .with("batch.max_tokens", self.batch.max_tokens)
            .with("batch.max_sequences", self.batch.max_sequences)
    }

    /// What the model and the texts hold.
    fn contents(&self) -> Fingerprint {
        let contents = self.encoder.clone().with("rows", self.rows).with("dim", self.dim);
        match self.settings.get(TEXTS) {
            Some(texts) => contents.with(TEXTS, texts),
            None => contents,
        }
    }

    /// Whether vectors are to be compared by cosine and have not length one yet.
    pub(crate) fn needs_normalizing(&self) -> bool {
        self.settings.get("similarity") == Some("cosine") && self.encoder.get("normalize") != Some("true")
    }

    /// Whether vectors of another encoder belong to those of this store: it must be the same one or, of two that were
    /// trained together, the other one.
    ///
    /// # Errors
    /// In what the encoder differs from the one that belongs to this store.
    pub fn check_counterpart(&self, encoder: &Fingerprint) -> Result<(), Vec<Difference>> {
        let tokenizer = self.encoder.get("tokenizer").unwrap_or_default();
        let other = self.other_encoder.clone().map(|other| other.with("tokenizer", tokenizer));
        let differences = other.as_ref().unwrap_or(&self.encoder).differences(encoder);
        if differences.is_empty() { Ok(()) } else { Err(differences) }
    }

    /// How a store of this description stands to `now`.
    pub(crate) fn standing(&self, now: &Self) -> Standing {
        let names = |d: &Self| Fingerprint::new().with("model", &d.model).with("corpus", &d.corpus);
        let asked = self.asked().differences(&now.asked());
        let contents = self.contents().differences(&now.contents());
        if asked.is_empty() && contents.is_empty() {
            return Standing::Same;
        }
        let names = names(self).differences(&names(now));
        if asked.is_empty() && names.is_empty() {
            return Standing::Stale(contents);
        }
        Standing::Other([names, asked, contents].concat())
    }
}

/// The part of a description's settings that is the hash of the texts.
pub(crate) const TEXTS: &str = "texts";

/// `manifest.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub format: String,
    #[serde(flatten)]
    pub description: StoreDescription,
    pub rounding: Rounding,
    /// Complete shards, in order.
    pub shards: Vec<ShardEntry>,
    /// All of them are there.
    pub done: bool,
}

/// One complete shard in the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShardEntry {
    pub embeddings: String,
    pub ids: String,
    pub rows: usize,
    pub embeddings_content: ContentHash,
    pub ids_content: ContentHash,
}

impl ShardEntry {
    /// Its number, by its name.
    pub fn number(&self) -> Option<usize> {
        let number = self.embeddings.strip_prefix("embeddings-")?.strip_suffix(".npy")?.parse().ok()?;
        (embeddings_name(number) == self.embeddings && ids_name(number) == self.ids).then_some(number)
    }
}

impl Manifest {
    pub fn new(description: &StoreDescription) -> Self {
        Self {
            format: FORMAT.to_owned(),
            description: description.clone(),
            rounding: Rounding::here(),
            shards: Vec::new(),
            done: false,
        }
    }

    /// Reads and checks a manifest; `None` where the folder has none.
    pub fn read(folder: &Path) -> Result<Option<Self>, StoreError> {
        /// What every version's manifest begins with.
        #[derive(Deserialize)]
        struct Head {
            format: String,
        }
        let path = manifest_path(folder);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::Io { path, source }),
        };
        let unsound = |what: String| corrupt(&path, format!("{what}; encode again, with --overwrite"));
        let broken = |error: serde_json::Error| unsound(error.to_string());
        let Head { format } = serde_json::from_str(&text).map_err(broken)?;
        if format != FORMAT {
            return Err(unsound(format!("is of the format {format:?}, this version writes {FORMAT:?}")));
        }
        let manifest: Self = serde_json::from_str(&text).map_err(broken)?;
        if !manifest.is_sound() {
            return Err(unsound(format!("is not a sound {FORMAT} manifest")));
        }
        Ok(Some(manifest))
    }

    /// Whether the numbers agree with one another; files are looked at later.
    fn is_sound(&self) -> bool {
        let d = &self.description;
        let sizes = (1..=MAX_DIM).contains(&d.dim)
            && d.shard_rows > 0
            && (1..=u32::MAX as usize).contains(&d.rows)
            && (!self.done || d.shards() == self.shards.len());
        let numbers: Vec<Option<usize>> = self.shards.iter().map(ShardEntry::number).collect();
        let fits = |(entry, number): (&ShardEntry, &Option<usize>)| {
            number.is_some_and(|number| number < d.shards() && entry.rows == d.shard_range(number).len())
        };
        sizes && numbers.is_sorted_by(|a, b| a < b) && self.shards.iter().zip(&numbers).all(fits)
    }

    pub fn write(&self, folder: &Path) -> Result<(), StoreError> {
        contaccum_files::write(&manifest_path(folder), |out| {
            serde_json::to_writer_pretty(&mut *out, self)?;
            out.write_all(b"\n")
        })?;
        Ok(())
    }
}

pub(crate) fn manifest_path(folder: &Path) -> PathBuf {
    folder.join("manifest.json")
}

/// Whether a file of this name is one of a shard's two.
pub(crate) fn is_of_a_shard(name: &str) -> bool {
    let digits: String = name.chars().filter(char::is_ascii_digit).collect();
    digits.parse().is_ok_and(|shard| name == embeddings_name(shard) || name == ids_name(shard))
}

pub(crate) fn embeddings_name(shard: usize) -> String {
    format!("embeddings-{shard:05}.npy")
}

pub(crate) fn ids_name(shard: usize) -> String {
    format!("ids-{shard:05}.txt")
}
