//! A corpus of vectors on disk, in shards that numpy opens.
//!
//! A store is a folder:
//!
//! ```text
//! manifest.json            what was encoded and how, rows of each shard, whether all of them are there
//! embeddings-00000.npy     C-order little-endian float32 [rows, dim]; np.load(path, mmap_mode="r") opens it
//! ids-00000.txt            the id of each row, one a line
//! ```
//!
//! Every file is written whole or not at all, a shard's ids before its vectors: a shard whose `.npy` file is there
//! is complete, and an interrupted encoding goes on at the first one that is not.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use contaccum_files::FolderLock;
use npyz::WriterBuilder;
use serde::{Deserialize, Serialize};

/// The one layout this version reads and writes.
const FORMAT: &str = "contaccum-embeddings-1";

/// What goes wrong with a store on disk.
#[derive(Debug, thiserror::Error)]
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
        "{}: begun with {field} {begun}, now {now}; encode into another folder or delete this one",
        .folder.display()
    )]
    OtherEncoding {
        /// The store.
        folder: PathBuf,
        /// What differs.
        field: String,
        /// Its value in the manifest.
        begun: String,
        /// Its value now.
        now: String,
    },
    /// An id does not fit on a line of its own.
    #[error("passage {row}: id {id:?} is empty or has a line break; give it another id in the corpus")]
    BadId {
        /// Row in the corpus.
        row: usize,
        /// The id.
        id: String,
    },
    /// There is nothing to encode.
    #[error("{}: the corpus has no passages to encode", .folder.display())]
    Empty {
        /// The store.
        folder: PathBuf,
    },
}

/// Bounds of one batch given to the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchLimits {
    /// Most tokens in a batch; no sequence may be longer.
    pub max_tokens: usize,
    /// Most sequences in a batch.
    pub max_sequences: usize,
}

/// What is encoded and how. An encoding resumes only where all of it agrees, for then the bytes agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreDescription {
    /// Name or fingerprint of the model.
    pub model: String,
    /// Name or fingerprint of the corpus.
    pub corpus: String,
    /// Passages in the corpus.
    pub rows: usize,
    /// Width of a vector.
    pub dim: usize,
    /// Rows of every shard but the last.
    pub shard_rows: usize,
    /// Bounds of a batch: they decide the last bits of a vector.
    pub batch: BatchLimits,
    /// Whatever else decides a vector: pooling, prompts, truncation.
    pub settings: BTreeMap<String, String>,
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

    /// The first field in which `now` differs from `self`: its name and both values.
    fn difference(&self, now: &Self) -> Option<(String, String, String)> {
        let fields = |d: &Self| {
            [
                ("model", d.model.clone()),
                ("corpus", d.corpus.clone()),
                ("rows", d.rows.to_string()),
                ("dim", d.dim.to_string()),
                ("shard_rows", d.shard_rows.to_string()),
                ("batch.max_tokens", d.batch.max_tokens.to_string()),
                ("batch.max_sequences", d.batch.max_sequences.to_string()),
            ]
        };
        for ((name, begun), (_, now)) in fields(self).into_iter().zip(fields(now)) {
            if begun != now {
                return Some((name.to_owned(), format!("{begun:?}"), format!("{now:?}")));
            }
        }
        let value = |settings: &BTreeMap<String, String>, key| {
            settings.get(key).map_or("unset".to_owned(), |value| format!("{value:?}"))
        };
        let key = self
            .settings
            .keys()
            .chain(now.settings.keys())
            .find(|&key| self.settings.get(key) != now.settings.get(key))?;
        Some((format!("setting {key}"), value(&self.settings, key), value(&now.settings, key)))
    }
}

/// `manifest.json`.
#[derive(Serialize, Deserialize)]
struct Manifest {
    format: String,
    #[serde(flatten)]
    description: StoreDescription,
    shards: Vec<ShardEntry>,
    done: bool,
}

/// One shard in the manifest.
#[derive(Serialize, Deserialize)]
struct ShardEntry {
    embeddings: String,
    ids: String,
    rows: usize,
}

impl Manifest {
    fn new(description: &StoreDescription, done: bool) -> Self {
        let shards = (0..description.shards())
            .map(|shard| ShardEntry {
                embeddings: embeddings_name(shard),
                ids: ids_name(shard),
                rows: description.shard_range(shard).len(),
            })
            .collect();
        Self { format: FORMAT.to_owned(), description: description.clone(), shards, done }
    }

    /// Reads and checks a manifest; `None` where the folder has none.
    fn read(folder: &Path) -> Result<Option<Self>, StoreError> {
        let path = manifest_path(folder);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::Io { path, source }),
        };
        let manifest: Self = serde_json::from_str(&text)
            .map_err(|error| corrupt(&path, format!("{error}; encode again into an empty folder")))?;
        let d = &manifest.description;
        let sound = manifest.format == FORMAT && d.dim > 0 && d.shard_rows > 0 && d.rows > 0;
        let planned = || d.shards() == manifest.shards.len();
        let agrees = |(shard, entry): (usize, &ShardEntry)| entry.rows == d.shard_range(shard).len();
        if !sound || !planned() || !manifest.shards.iter().enumerate().all(agrees) {
            let problem = format!("is not a sound {FORMAT} manifest; encode again into an empty folder");
            return Err(corrupt(&path, problem));
        }
        Ok(Some(manifest))
    }

    fn write(&self, folder: &Path) -> Result<(), StoreError> {
        contaccum_files::write(&manifest_path(folder), |out| {
            serde_json::to_writer_pretty(&mut *out, self)?;
            out.write_all(b"\n")
        })?;
        Ok(())
    }
}

/// A finished encoding of a corpus.
#[derive(Debug)]
pub struct EmbeddingStore {
    folder: PathBuf,
    description: StoreDescription,
}

impl EmbeddingStore {
    /// Opens a store, reading its manifest alone.
    ///
    /// # Errors
    /// When there is no manifest, it is not sound, or the encoding is not finished.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let manifest = Manifest::read(folder)?.ok_or_else(|| {
            corrupt(folder, "holds no manifest.json; encode a corpus into it first".to_owned())
        })?;
        if !manifest.done {
            return Err(StoreError::Unfinished { folder: folder.to_owned() });
        }
        Ok(Self { folder: folder.to_owned(), description: manifest.description })
    }

    /// What was encoded and how.
    pub fn description(&self) -> &StoreDescription {
        &self.description
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.description.shards()
    }

    /// Rows of the corpus that a shard holds.
    pub fn shard_range(&self, shard: usize) -> Range<usize> {
        self.description.shard_range(shard)
    }

    /// Reads the vectors of a shard, `[rows, dim]` row-major, into a buffer that is made to fit.
    ///
    /// # Errors
    /// When the file is missing, cut short, or has another shape or type.
    pub fn read_shard(&self, shard: usize, vectors: &mut Vec<f32>) -> Result<(), StoreError> {
        let path = self.folder.join(embeddings_name(shard));
        read_npy(&path, self.shard_range(shard).len(), self.description.dim, vectors)
    }

    /// Reads the ids of a shard, in the order of its rows.
    ///
    /// # Errors
    /// When the file is missing or has another number of lines.
    pub fn shard_ids(&self, shard: usize) -> Result<Vec<String>, StoreError> {
        let path = self.folder.join(ids_name(shard));
        let file = File::open(&path).map_err(io_error(&path))?;
        let ids: Vec<String> =
            BufReader::new(file).lines().collect::<Result<_, _>>().map_err(io_error(&path))?;
        let rows = self.shard_range(shard).len();
        if ids.len() != rows {
            let problem = format!("has {} ids for {rows} vectors; encode the corpus again", ids.len());
            return Err(corrupt(&path, problem));
        }
        Ok(ids)
    }

    /// Reads the ids of the whole corpus, in the order of its rows.
    ///
    /// # Errors
    /// As [`EmbeddingStore::shard_ids`].
    pub fn ids(&self) -> Result<Vec<String>, StoreError> {
        let mut ids = Vec::with_capacity(self.description.rows);
        for shard in 0..self.shards() {
            ids.extend(self.shard_ids(shard)?);
        }
        Ok(ids)
    }
}

/// A store being written, shard after shard.
pub(crate) struct StoreWriter {
    folder: PathBuf,
    description: StoreDescription,
    next: usize,
    _lock: FolderLock,
}

impl StoreWriter {
    /// Begins a store in `folder`, or goes on with the one there at its first missing shard.
    pub(crate) fn begin_or_resume(folder: &Path, description: &StoreDescription) -> Result<Self, StoreError> {
        if description.rows == 0 {
            return Err(StoreError::Empty { folder: folder.to_owned() });
        }
        contaccum_files::create_folder(folder)?;
        let lock = FolderLock::acquire(folder)?;
        contaccum_files::sweep(folder)?;
        match Manifest::read(folder)? {
            Some(manifest) => {
                if let Some((field, begun, now)) = manifest.description.difference(description) {
                    return Err(StoreError::OtherEncoding { folder: folder.to_owned(), field, begun, now });
                }
            }
            None if folder.join(embeddings_name(0)).exists() => {
                let problem = "holds shards without a manifest.json; delete them or encode elsewhere";
                return Err(corrupt(folder, problem.to_owned()));
            }
            None => Manifest::new(description, false).write(folder)?,
        }
        let complete = |&shard: &usize| {
            folder.join(embeddings_name(shard)).exists() && folder.join(ids_name(shard)).exists()
        };
        let next = (0..description.shards()).take_while(complete).count();
        Ok(Self { folder: folder.to_owned(), description: description.clone(), next, _lock: lock })
    }

    /// The first shard that is still to be written.
    pub(crate) fn next(&self) -> usize {
        self.next
    }

    /// Writes the next shard.
    pub(crate) fn write_next<'a>(
        &mut self,
        ids: impl Iterator<Item = &'a str> + Clone,
        vectors: &[f32],
    ) -> Result<(), StoreError> {
        let range = self.description.shard_range(self.next);
        for (row, id) in range.clone().zip(ids.clone()) {
            if id.is_empty() || id.contains(['\n', '\r']) {
                return Err(StoreError::BadId { row, id: id.to_owned() });
            }
        }
        // Ids first: where the vectors are, the shard is complete.
        contaccum_files::write(&self.folder.join(ids_name(self.next)), |out| {
            ids.clone().try_for_each(|id| writeln!(out, "{id}"))
        })?;
        let shape = [range.len() as u64, self.description.dim as u64];
        contaccum_files::write(&self.folder.join(embeddings_name(self.next)), |out| {
            write_npy(out, shape, vectors)
        })?;
        self.next += 1;
        Ok(())
    }

    /// Marks the store as finished.
    ///
    /// # Panics
    /// When a shard is still to be written.
    pub(crate) fn finish(self) -> Result<EmbeddingStore, StoreError> {
        assert_eq!(self.next, self.description.shards(), "a shard is missing");
        Manifest::new(&self.description, true).write(&self.folder)?;
        Ok(EmbeddingStore { folder: self.folder, description: self.description })
    }
}

fn manifest_path(folder: &Path) -> PathBuf {
    folder.join("manifest.json")
}

fn embeddings_name(shard: usize) -> String {
    format!("embeddings-{shard:05}.npy")
}

fn ids_name(shard: usize) -> String {
    format!("ids-{shard:05}.txt")
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { path: path.to_owned(), source }
}

fn corrupt(path: &Path, problem: String) -> StoreError {
    StoreError::Corrupt { path: path.to_owned(), problem }
}

/// Writes a C-order array of little-endian float32.
fn write_npy(out: impl Write, shape: [u64; 2], vectors: &[f32]) -> io::Result<()> {
    let float32 = npyz::DType::Plain("<f4".parse().expect("a type numpy knows"));
    let mut array = npyz::WriteOptions::<f32>::new().dtype(float32).shape(&shape).writer(out).begin_nd()?;
    array.extend(vectors.iter().copied())?;
    array.finish()
}

/// Reads a C-order array of little-endian float32 `[rows, dim]`.
fn read_npy(path: &Path, rows: usize, dim: usize, vectors: &mut Vec<f32>) -> Result<(), StoreError> {
    let file = File::open(path).map_err(io_error(path))?;
    let bytes = file.metadata().map_err(io_error(path))?.len();
    let mut file = BufReader::new(file);
    let header = npyz::NpyHeader::from_reader(&mut file)
        .map_err(|error| corrupt(path, format!("is not a .npy file: {error}; encode the corpus again")))?;
    let found = (header.dtype().descr(), header.order(), header.shape());
    if found != ("'<f4'".to_owned(), npyz::Order::C, &[rows as u64, dim as u64]) {
        let problem = format!(
            "holds {} {:?} where the manifest promises '<f4' [{rows}, {dim}]; encode the corpus again",
            found.0, found.2
        );
        return Err(corrupt(path, problem));
    }
    let first = file.stream_position().map_err(io_error(path))?;
    let expected = (rows as u64).saturating_mul(dim as u64).saturating_mul(4).saturating_add(first);
    if bytes != expected {
        let problem = format!("has {bytes} bytes, not {expected}; encode the corpus again");
        return Err(corrupt(path, problem));
    }
    vectors.resize(rows * dim, 0.0);
    read_floats(&mut file, vectors).map_err(io_error(path))
}

/// Fills a slice with little-endian float32, piece by piece.
fn read_floats(input: &mut impl Read, values: &mut [f32]) -> io::Result<()> {
    let mut bytes = vec![0u8; 1 << 16];
    for piece in values.chunks_mut(bytes.len() / 4) {
        let bytes = &mut bytes[..piece.len() * 4];
        input.read_exact(bytes)?;
        for (value, bytes) in piece.iter_mut().zip(bytes.as_chunks().0) {
            *value = f32::from_le_bytes(*bytes);
        }
    }
    Ok(())
}
