//! A store being written, shard after shard; what is already there is kept where it is of the same content.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use contaccum_encoder::{Rounding, hash_numbers, tell_differences};
use contaccum_files::{ContentHasher, FolderLock, create_folder, sweep};

use crate::embeddings::{EmbeddingStore, StoreError, corrupt, io_error, read_ids};
use crate::manifest::{
    Manifest, ShardEntry, Standing, StoreDescription, embeddings_name, ids_name, is_of_a_shard,
};
use crate::npy::{read_npy, write_npy};

/// A store being written.
pub struct StoreWriter {
    folder: PathBuf,
    manifest: Manifest,
    complete: BTreeMap<usize, ShardEntry>,
    notes: Vec<String>,
    _lock: FolderLock,
}

impl StoreWriter {
    /// Begins a store in `folder`, or goes on with the one there.
    ///
    /// Shards of the same content are kept, each held against its hash first. Where the model or the texts have other
    /// contents than when the store was made, all is encoded again; [`StoreWriter::notes`] says so. An encoding of
    /// something else is refused, or replaced with `overwrite`.
    ///
    /// # Errors
    /// Nothing to encode, an encoding of something else, shards without a manifest, a file that cannot be written.
    pub fn begin(folder: &Path, description: &StoreDescription, overwrite: bool) -> Result<Self, StoreError> {
        description.batch.check(description.dim)?;
        if description.shard_rows == 0 {
            return Err(StoreError::Zero { name: "rows per shard" });
        }
        if description.rows == 0 {
            return Err(StoreError::Empty { folder: folder.to_owned() });
        }
        create_folder(folder)?;
        let lock = FolderLock::acquire(folder)?;
        sweep(folder)?;
        let mut store = Self {
            _lock: lock,
            folder: folder.to_owned(),
            manifest: Manifest::new(description),
            complete: BTreeMap::new(),
            notes: Vec::new(),
        };
        let found = match Manifest::read(folder) {
            Err(StoreError::Corrupt { .. }) if overwrite => None,
            Ok(None) if !overwrite && !shard_files(folder)?.is_empty() => {
                let problem = "holds shards without a manifest.json; encode elsewhere, or give --overwrite";
                return Err(corrupt(folder, problem.to_owned()));
            }
            found => found?,
        };
        let standing = found.as_ref().map(|found| found.description.standing(description));
        match (found, standing) {
            (Some(found), Some(Standing::Same)) => store.go_on(found)?,
            (Some(_), Some(Standing::Stale(differences))) => {
                let differences = tell_differences(&differences);
                store
                    .notes
                    .push(format!("encoding again: since {} was made, {differences}", folder.display()));
                store.replace()?;
            }
            (Some(_), Some(Standing::Other(differences))) if !overwrite => {
                return Err(StoreError::OtherEncoding { folder: folder.to_owned(), differences });
            }
            _ => store.replace()?,
        }
        Ok(store)
    }

    /// Keeps the shards of `found` that are what its manifest says.
    fn go_on(&mut self, found: Manifest) -> Result<(), StoreError> {
        let mut vectors = Vec::new();
        for (number, entry) in found.shards.iter().filter_map(|entry| Some((entry.number()?, entry))) {
            match self.check(number, entry, &mut vectors) {
                Ok(()) => drop(self.complete.insert(number, entry.clone())),
                Err(problem) => self.notes.push(format!("encoding a shard again: {problem}")),
            }
        }
        let here = Rounding::here();
        if !self.complete.is_empty() && !self.is_complete() && found.rounding != here {
            self.notes.push(format!(
                "the shards there were encoded with {}, the others with {here}: their last bits are rounded otherwise",
                found.rounding
            ));
        }
        self.manifest = Manifest { done: found.done && self.is_complete(), ..found };
        if !self.manifest.done { self.write_manifest() } else { Ok(()) }
    }

    fn check(&self, number: usize, entry: &ShardEntry, vectors: &mut Vec<f32>) -> Result<(), StoreError> {
        read_ids(&self.folder.join(ids_name(number)), entry)?;
        let shape = (entry.rows, self.manifest.description.dim);
        read_npy(&self.folder.join(embeddings_name(number)), shape, entry.embeddings_content, vectors)
    }

    /// Begins anew: the manifest first, so that from here on no shard of before is part of the store.
    fn replace(&mut self) -> Result<(), StoreError> {
        self.write_manifest()?;
        for path in shard_files(&self.folder)? {
            fs::remove_file(&path).map_err(io_error(&path))?;
        }
        Ok(())
    }

    fn write_manifest(&mut self) -> Result<(), StoreError> {
        self.manifest.shards = self.complete.values().cloned().collect();
        self.manifest.write(&self.folder)
    }

    /// What the user is to be told of what was found in the folder, a line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What is encoded and how.
    pub fn description(&self) -> &StoreDescription {
        &self.manifest.description
    }

    /// Whether nothing is left to be written.
    pub fn is_complete(&self) -> bool {
        self.complete.len() == self.manifest.description.shards()
    }

    /// The shards still to be written, in order.
    pub(crate) fn pending(&self) -> Vec<usize> {
        (0..self.description().shards()).filter(|shard| !self.complete.contains_key(shard)).collect()
    }

    /// Rows of the shards that are there.
    pub(crate) fn complete_rows(&self) -> usize {
        self.complete.values().map(|entry| entry.rows).sum()
    }

    /// Writes a shard.
    pub(crate) fn write_shard<'a>(
        &mut self,
        shard: usize,
        ids: impl Iterator<Item = &'a str> + Clone,
        vectors: &[f32],
    ) -> Result<(), StoreError> {
        let range = self.description().shard_range(shard);
        for (row, id) in range.clone().zip(ids.clone()) {
            if id.is_empty() || id.contains(['\n', '\r']) {
                return Err(StoreError::BadId { row, id: id.to_owned() });
            }
        }
        let text: String = ids.flat_map(|id| [id, "\n"]).collect();
        contaccum_files::write(&self.folder.join(ids_name(shard)), |out| out.write_all(text.as_bytes()))?;
        let shape = [range.len() as u64, self.description().dim as u64];
        contaccum_files::write(&self.folder.join(embeddings_name(shard)), |out| {
            write_npy(out, shape, vectors)
        })?;
        let entry = ShardEntry {
            embeddings: embeddings_name(shard),
            ids: ids_name(shard),
            rows: range.len(),
            embeddings_content: hash_numbers(vectors),
            ids_content: ContentHasher::of(text.as_bytes()),
        };
        self.complete.insert(shard, entry);
        self.write_manifest()
    }

    /// Marks the store as finished.
    ///
    /// # Panics
    /// When a shard is still to be written.
    pub(crate) fn finish(mut self) -> Result<EmbeddingStore, StoreError> {
        assert!(self.is_complete(), "a shard is missing");
        if !self.manifest.done {
            self.manifest.done = true;
            self.write_manifest()?;
        }
        Ok(EmbeddingStore::of(&self.folder, self.manifest))
    }
}

/// The files in a folder that are named like those of a shard.
fn shard_files(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(io_error(folder))? {
        let entry = entry.map_err(io_error(folder))?;
        if is_of_a_shard(&entry.file_name().to_string_lossy()) {
            files.push(entry.path());
        }
    }
    Ok(files)
}
