//! A corpus of vectors on disk, in shards that numpy opens.
//!
//! A store is a folder:
//!
//! ```text
//! manifest.json            what was encoded and how, rows and hash of each complete shard, whether all are there
//! embeddings-00000.npy     C-order little-endian float32 [rows, dim]; np.load(path, mmap_mode="r") opens it
//! ids-00000.txt            the id of each row, one a line
//! ```
//!
//! Every file is written whole or not at all, and a shard enters the manifest after its files: only what the manifest
//! names, and whose hash agrees, is part of the store. An interrupted encoding goes on with the shards that are not.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use contaccum_encoder::{Difference, tell_differences};
use contaccum_files::ContentHasher;

use crate::manifest::{Manifest, ShardEntry, StoreDescription, embeddings_name, ids_name};
use crate::npy::{open_npy, read_npy};

/// What goes wrong with a store on disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] contaccum_files::Error),
    /// A file or folder could not be read or made.
    #[error("{}: {source}; check that it is there and permitted", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not what the manifest promises.
    #[error("{}: {problem}", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// Some shards are still to be encoded.
    #[error("{}: the encoding is not finished; run the same encode command again and it resumes", .folder.display())]
    Unfinished {
        /// The store.
        folder: PathBuf,
    },
    /// The folder holds an encoding of something else.
    #[error(
        "{}: holds another encoding: {}; encode into another folder, or give --overwrite to replace this one",
        .folder.display(), tell_differences(.differences)
    )]
    OtherEncoding {
        /// The store.
        folder: PathBuf,
        /// What differs.
        differences: Vec<Difference>,
    },
    /// An id does not fit on a line of its own.
    #[error("passage {row}: id {id:?} is empty or has a line break; give it another id in the corpus")]
    BadId {
        /// Row in the corpus.
        row: usize,
        /// The id.
        id: String,
    },
    /// A size that must be positive is zero.
    #[error("{name} is 0; it must be at least 1")]
    Zero {
        /// The size.
        name: &'static str,
    },
    /// There is nothing to encode.
    #[error("{}: the corpus has no passages to encode", .folder.display())]
    Empty {
        /// The store.
        folder: PathBuf,
    },
}

/// A finished encoding of a corpus.
#[derive(Debug)]
pub struct EmbeddingStore {
    folder: PathBuf,
    description: StoreDescription,
    shards: Vec<ShardEntry>,
}

impl EmbeddingStore {
    /// Opens a store: reads its manifest and holds the sizes it promises against the files.
    ///
    /// # Errors
    /// When there is no manifest, it is not sound, the encoding is not finished, or a file has another size or shape.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let manifest = Manifest::read(folder)?.ok_or_else(|| {
            corrupt(folder, "holds no manifest.json; encode a corpus into it first".to_owned())
        })?;
        if !manifest.done {
            return Err(StoreError::Unfinished { folder: folder.to_owned() });
        }
        let store = Self::of(folder, manifest);
        for (shard, entry) in store.shards.iter().enumerate() {
            open_npy(&folder.join(embeddings_name(shard)), entry.rows, store.description.dim)?;
            let ids = folder.join(ids_name(shard));
            fs::metadata(&ids).map_err(io_error(&ids))?;
        }
        Ok(store)
    }

    pub(crate) fn of(folder: &Path, manifest: Manifest) -> Self {
        Self { folder: folder.to_owned(), description: manifest.description, shards: manifest.shards }
    }

    /// What was encoded and how.
    pub fn description(&self) -> &StoreDescription {
        &self.description
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Rows of the corpus that a shard holds.
    pub fn shard_range(&self, shard: usize) -> Range<usize> {
        self.description.shard_range(shard)
    }

    /// Reads the vectors of a shard, `[rows, dim]` row-major, into a buffer that is made to fit.
    ///
    /// # Errors
    /// When the file is missing, cut short, has another shape or type, or other numbers than were encoded.
    pub fn read_shard(&self, shard: usize, vectors: &mut Vec<f32>) -> Result<(), StoreError> {
        let (path, entry) = (self.folder.join(embeddings_name(shard)), &self.shards[shard]);
        read_npy(&path, (entry.rows, self.description.dim), entry.embeddings_content, vectors)
    }

    /// Reads the ids of a shard, in the order of its rows.
    ///
    /// # Errors
    /// When the file is missing or holds other ids than were encoded.
    pub fn shard_ids(&self, shard: usize) -> Result<Vec<String>, StoreError> {
        read_ids(&self.folder.join(ids_name(shard)), &self.shards[shard])
    }

    /// Reads the ids of the whole corpus, in the order of its rows.
    ///
    /// # Errors
    /// As [`EmbeddingStore::shard_ids`].
    pub fn ids(&self) -> Result<Vec<String>, StoreError> {
        let mut ids = Vec::new();
        for shard in 0..self.shards() {
            ids.extend(self.shard_ids(shard)?);
        }
        Ok(ids)
    }
}

/// Reads a file of ids and holds it against its entry in the manifest.
pub(crate) fn read_ids(path: &Path, entry: &ShardEntry) -> Result<Vec<String>, StoreError> {
    let text = fs::read_to_string(path).map_err(io_error(path))?;
    let ids: Vec<String> = text.lines().map(str::to_owned).collect();
    if ids.len() != entry.rows {
        let problem = format!("has {} ids for {} vectors; encode the corpus again", ids.len(), entry.rows);
        return Err(corrupt(path, problem));
    }
    if ContentHasher::of(text.as_bytes()) != entry.ids_content {
        return Err(corrupt(path, "holds other ids than were encoded; encode the corpus again".to_owned()));
    }
    Ok(ids)
}

pub(crate) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { path: path.to_owned(), source }
}

pub(crate) fn corrupt(path: &Path, problem: String) -> StoreError {
    StoreError::Corrupt { path: path.to_owned(), problem }
}
