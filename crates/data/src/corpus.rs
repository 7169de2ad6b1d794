use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use twox_hash::XxHash3_128;

use crate::json::{Id, InlinePassage, parse_line};
use crate::repeats::Repeats;
use crate::source::{Line, Lines, find, is_tsv};
use crate::store::{Ids, Store, StoreWriter};
use crate::{Error, Kind, Passage, PassageIndex, Place, Result};

const JSON_SHAPE: &str = r#"{"_id": "...", "title": "...", "text": "..."} (the title may be left out)"#;
const TSV_SHAPE: &str = "id, text and perhaps a title, separated by tabs";

/// The passages of a collection in file order; texts stay on disk, ids in memory.
///
/// Shared between threads freely: reading takes no lock.
pub struct Corpus {
    path: PathBuf,
    store: Store,
    empty: Vec<u32>,
    repeats: Repeats,
}

/// A line of `corpus.jsonl`: BEIR writes `_id`, Tevatron `docid`.
#[derive(Deserialize)]
struct CorpusLine {
    _id: Option<Id>,
    docid: Option<Id>,
    title: Option<String>,
    text: String,
}

impl Corpus {
    /// Reads a corpus: a folder with `corpus.jsonl`, `.jsonl.gz` or `.jsonl.zst`, or such a file by any name,
    /// or a `.tsv` file of `id, text[, title]`.
    ///
    /// A passage may be empty (Cranfield has two); it is then found and ranked like any other, and refused
    /// only as the positive of a training row. A TSV that opens with the header `id, text, ...` is read as
    /// DPR's `psgs_w100.tsv` is written, with quoted fields; one without a header as MS MARCO's
    /// `collection.tsv` is, where a quote is a character.
    ///
    /// # Errors
    /// Missing, damaged or badly formed files, an empty or repeated id, no passage at all; each names its
    /// line.
    pub fn open(path: &Path) -> Result<Corpus> {
        let path = find(path, "corpus.jsonl")?;
        let corpus = CorpusWriter::read(&path)?.finish()?;
        if corpus.is_empty() {
            return Err(Error::NoRows {
                path,
                what: "holds no passage",
                remedy: "give a file with one passage a line",
            });
        }
        Ok(corpus)
    }

    /// Number of passages.
    pub fn len(&self) -> usize {
        self.store.ids.len()
    }

    /// True if there is no passage.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The passage's id.
    ///
    /// # Panics
    /// If the index is not of this corpus.
    pub fn id(&self, passage: PassageIndex) -> &str {
        self.store.ids.get(passage.0)
    }

    /// The passage with this id.
    pub fn index_of(&self, id: &str) -> Option<PassageIndex> {
        self.store.ids.find(id).map(PassageIndex)
    }

    /// Reads a passage from disk.
    ///
    /// # Errors
    /// [`Error::Io`] if the temporary file of texts cannot be read.
    ///
    /// # Panics
    /// If the index is not of this corpus.
    pub fn get(&self, passage: PassageIndex) -> Result<Passage> {
        let mut strings = self.store.read(passage.0)?.into_iter();
        let mut next = || strings.next().unwrap_or_default();
        Ok(Passage { title: next(), text: next() })
    }

    /// True if the passage has neither title nor text but white space.
    pub fn is_blank(&self, passage: PassageIndex) -> bool {
        self.empty.binary_search(&passage.0).is_ok()
    }

    /// The first passage with the same title and text: `passage` itself where none before it has them.
    pub fn first_of_equal(&self, passage: PassageIndex) -> PassageIndex {
        PassageIndex(self.repeats.first(passage.0))
    }

    /// The file that was read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn ids(&self) -> &Ids {
        &self.store.ids
    }
}

/// A corpus being filled, from a file of its own or from the rows that use it.
pub(crate) struct CorpusWriter {
    path: PathBuf,
    store: StoreWriter,
    empty: Vec<u32>,
    contents: Vec<u128>,
    /// Passages that were given a new id because theirs already names another text.
    pub renamed: usize,
}

impl CorpusWriter {
    /// An empty corpus whose passages come from `path`.
    pub fn new(path: &Path) -> Result<CorpusWriter> {
        let store = StoreWriter::new()?;
        Ok(CorpusWriter { path: path.into(), store, empty: Vec::new(), contents: Vec::new(), renamed: 0 })
    }

    /// All passages of the file `path`.
    pub fn read(path: &Path) -> Result<CorpusWriter> {
        let mut corpus = CorpusWriter::new(path)?;
        let mut lines = Lines::open(path)?;
        let tsv = is_tsv(path);
        let mut quoted = false;
        let mut first = true;
        while let Some(line) = lines.next()? {
            if tsv {
                if std::mem::take(&mut first) && is_header(&line) {
                    quoted = true;
                    continue;
                }
                let (id, passage) = tsv_passage(&line, quoted)?;
                corpus.define(&line, &id, &passage)?;
            } else {
                let CorpusLine { _id, docid, title, text } = parse_line(&line, JSON_SHAPE)?;
                let id = _id.or(docid).ok_or_else(|| missing_id(line.place(), JSON_SHAPE))?;
                corpus.define(&line, &id.0, &Passage { title: title.unwrap_or_default(), text })?;
            }
        }
        Ok(corpus)
    }

    pub fn ids(&self) -> &Ids {
        self.store.ids()
    }

    fn define(&mut self, line: &Line<'_>, id: &str, passage: &Passage) -> Result<()> {
        if id.is_empty() {
            return Err(Error::EmptyId { place: line.place(), kind: Kind::Passage });
        }
        match self.push(id, passage)? {
            Some(_) => Ok(()),
            None => {
                Err(Error::DuplicateId { place: line.place(), kind: Kind::Passage, id: format!("{id:?}") })
            }
        }
    }

    /// The number of a passage written inside a row, which is kept once however often it is written.
    ///
    /// A passage without an id is known by its content (128-bit hash). One with an id is known by that id;
    /// should the id already name another text (ids that are unique only within a row), it is another passage
    /// and gets the id `ID#HASH`.
    pub fn intern(&mut self, inline: &InlinePassage) -> Result<PassageIndex> {
        let content = content_hash(&inline.passage);
        let mut id = match &inline.id {
            Some(id) => Cow::Borrowed(id),
            None => Cow::Owned(format!("{content:032x}")),
        };
        if let Some(known) = self.ids().find(&id) {
            if self.contents[known as usize] == content {
                return Ok(PassageIndex(known));
            }
            id = Cow::Owned(format!("{id}#{content:032x}"));
            if let Some(known) = self.ids().find(&id) {
                return Ok(PassageIndex(known));
            }
            self.renamed += 1;
        }
        let added = self.push(&id, &inline.passage)?;
        Ok(PassageIndex(added.expect("the id was just looked up and not found")))
    }

    fn push(&mut self, id: &str, passage: &Passage) -> Result<Option<u32>> {
        let Passage { title, text } = passage;
        let added = self.store.push(&self.path, id, [title.as_str(), text.as_str()])?;
        if let Some(number) = added {
            self.contents.push(content_hash(passage));
            if passage.is_blank() {
                self.empty.push(number);
            }
        }
        Ok(added)
    }

    /// True if the passage has neither title nor text but white space.
    pub fn is_blank(&self, passage: PassageIndex) -> bool {
        self.empty.binary_search(&passage.0).is_ok()
    }

    pub fn finish(self) -> Result<Corpus> {
        let repeats = Repeats::new(&self.contents);
        Ok(Corpus { path: self.path, store: self.store.finish()?, empty: self.empty, repeats })
    }
}

pub(crate) fn missing_id(place: Place, expected: &'static str) -> Error {
    Error::Field { place, reason: "missing field `_id`".into(), expected }
}

fn content_hash(passage: &Passage) -> u128 {
    let mut bytes = Vec::with_capacity(passage.title.len() + passage.text.len() + 1);
    bytes.extend_from_slice(passage.title.as_bytes());
    // Not a byte of UTF-8: (title, text) and another split of the same letters differ.
    bytes.push(0xff);
    bytes.extend_from_slice(passage.text.as_bytes());
    XxHash3_128::oneshot(&bytes)
}

fn is_header(line: &Line<'_>) -> bool {
    let mut columns = line.text.split('\t');
    columns.next() == Some("id") && columns.next() == Some("text")
}

fn tsv_passage(line: &Line<'_>, quoted: bool) -> Result<(String, Passage)> {
    let columns: Vec<&str> = line.text.split('\t').collect();
    let field = |raw: &str| match raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) if quoted => inner.replace("\"\"", "\""),
        Some(_) | None => raw.to_owned(),
    };
    match columns[..] {
        [id, text] => Ok((field(id), Passage { title: String::new(), text: field(text) })),
        [id, text, title] => Ok((field(id), Passage { title: field(title), text: field(text) })),
        _ => Err(Error::Columns { place: line.place(), found: columns.len(), expected: TSV_SHAPE }),
    }
}
