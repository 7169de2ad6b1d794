use std::borrow::Cow;
use std::path::{Path, PathBuf};

use crate::folder;
use crate::ids::read_id;
use crate::json::Fields;
use crate::notes::{Notes, Oddity, Reading, Strictness};
use crate::records::Records;
use crate::repeats::Repeats;
use crate::source::{Layout, Source};
use crate::store::{Ids, Store, StoreWriter};
use crate::table::{Column, Shape, Table};
use crate::training_file::InlinePassage;
use crate::{Error, Kind, Passage, PassageIndex, Result};

use contaccum_files::ContentHash;
use twox_hash::XxHash3_128;

const JSON_SHAPE: &str = r#"{"_id": "...", "title": "...", "text": "..."} (the title may be left out)"#;

/// Ids as BEIR, Tevatron, MS MARCO, DPR and others name them.
pub(crate) const PASSAGE_ID_NAMES: [&str; 7] =
    ["_id", "docid", "doc_id", "pid", "passage_id", "psg_id", "id"];
pub(crate) const PASSAGE_TEXT_NAMES: [&str; 4] = ["text", "contents", "passage", "body"];

const ID: usize = 0;
const TITLE: usize = 1;
const TEXT: usize = 2;

const TABLE: Shape = Shape {
    columns: &[
        Column { name: "id", header_names: &PASSAGE_ID_NAMES, is_id: true, required: true },
        Column { name: "title", header_names: &["title"], is_id: false, required: false },
        Column { name: "text", header_names: &PASSAGE_TEXT_NAMES, is_id: false, required: true },
    ],
    orders: &[&[Some(ID), Some(TEXT)], &[Some(ID), Some(TEXT), Some(TITLE)]],
    listed: None,
    uniform: false,
    spaces: false,
    expected: "id, text and perhaps a title (TSV or CSV), or what the header names",
};

/// The passages of a collection in file order; texts stay on disk, ids in memory.
///
/// Shared between threads freely: reading takes no lock.
pub struct Corpus {
    path: PathBuf,
    store: Store,
    empty: Vec<u32>,
    repeats: Repeats,
    notes: Notes,
}

impl Corpus {
    /// As [`Corpus::open_with`], reading over what is odd.
    ///
    /// # Errors
    /// As there.
    pub fn open(path: &Path) -> Result<Corpus> {
        Corpus::open_with(path, Strictness::Lenient)
    }

    /// Reads a corpus: a folder with `corpus.jsonl` (or MS MARCO's `collection.tsv`), `.gz` or `.zst`, or such a file by
    /// any name, or a `.tsv` or `.csv` file. Without a header a table is `id, text[, title]`; with one (its first line names a
    /// column
    /// `id`, `_id`, `docid`, `pid` or the like) columns go by their names. JSON goes by the same names.
    ///
    /// The `contents` of pyserini's collections are the text as a whole, as in pyserini itself unless it is told otherwise:
    /// no line of them is a title.
    ///
    /// A quote is a character in a TSV without a header, as in MS MARCO's `collection.tsv`; one with a header
    /// may have fields quoted as a whole, as DPR's `psgs_w100.tsv` is written; CSV has CSV's quotes.
    ///
    /// A passage may be empty (Cranfield has two); it is then found and ranked like any other, and refused
    /// only as the positive of a training row. Lines without an id or text are left out, and those that
    /// repeat an id; they are in [`Corpus::notes`].
    ///
    /// # Errors
    /// Missing, damaged or badly formed files, files of which most would be left out, no passage at all; each
    /// names its line. Strictly, everything that would be noted as odd.
    pub fn open_with(path: &Path, strictness: Strictness) -> Result<Corpus> {
        let path = folder::corpus(path)?;
        let corpus = CorpusWriter::read(&path, strictness)?.finish()?;
        if corpus.is_empty() {
            return Err(Error::NoRows {
                path,
                what: "holds no passage",
                remedy: "give a file with one passage a line",
            });
        }
        Ok(corpus)
    }

    /// What was odd in the file.
    pub fn notes(&self) -> &Notes {
        &self.notes
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

    /// Hash of every id, title and text in order: equal for equal passages, whatever file they came from.
    pub fn fingerprint(&self) -> ContentHash {
        self.store.fingerprint()
    }

    /// The file that was read.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A corpus being filled, from a file of its own or from the rows that use it.
pub(crate) struct CorpusWriter {
    path: PathBuf,
    store: StoreWriter,
    empty: Vec<u32>,
    contents: Vec<u128>,
    notes: Notes,
    /// Passages that were given a new id because theirs already names another text.
    pub renamed: usize,
}

impl CorpusWriter {
    /// An empty corpus whose passages come from `path`.
    pub fn new(path: &Path) -> Result<CorpusWriter> {
        Ok(CorpusWriter {
            path: path.into(),
            store: StoreWriter::new()?,
            empty: Vec::new(),
            contents: Vec::new(),
            notes: Notes::default(),
            renamed: 0,
        })
    }

    /// All passages of the file `path`.
    pub fn read(path: &Path, strictness: Strictness) -> Result<CorpusWriter> {
        let mut corpus = CorpusWriter::new(path)?;
        let mut reading = Reading::new(path, strictness);
        let mut source = Source::open(path)?;
        let layout = Layout::of(&mut source)?;
        match layout {
            Layout::Json => corpus.read_json(source, &mut reading)?,
            Layout::Tsv | Layout::Csv => {
                let mut table = Table::new(source, layout, &TABLE);
                while let Some(row) = table.next(&mut reading)? {
                    reading.record();
                    let passage = Passage { title: row.cell(TITLE).into(), text: row.cell(TEXT).into() };
                    corpus.define(row.line, Some(row.cell(ID)), &passage, &mut reading)?;
                }
            }
        }
        corpus.notes = reading.finish()?;
        Ok(corpus)
    }

    fn read_json(&mut self, source: Source, reading: &mut Reading) -> Result<()> {
        let mut records = Records::new(source, JSON_SHAPE)?;
        let mut repaired = String::new();
        while let Some(record) = records.next()? {
            reading.record();
            let fields = Fields::read(&record, &mut repaired, reading, JSON_SHAPE)?;
            let id = fields.get(&PASSAGE_ID_NAMES).map(|id| id.id(reading)).transpose()?;
            let title = fields.get(&["title"]).map(|title| title.text(reading)).transpose()?;
            let text = fields.get(&PASSAGE_TEXT_NAMES).map(|text| text.text(reading)).transpose()?;
            if text.is_none() && title.as_ref().is_none_or(|title| title.trim().is_empty()) {
                reading.leave_out(Oddity::WithoutText, record.line, |place| Error::Field {
                    place,
                    reason: "missing field `text`".into(),
                    expected: JSON_SHAPE,
                })?;
                continue;
            }
            let own = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned).unwrap_or_default();
            let passage = Passage { title: own(title), text: own(text) };
            self.define(record.line, id.as_deref(), &passage, reading)?;
        }
        Ok(())
    }

    pub fn ids(&self) -> &Ids {
        self.store.ids()
    }

    fn define(
        &mut self,
        line: u64,
        id: Option<&str>,
        passage: &Passage,
        reading: &mut Reading,
    ) -> Result<()> {
        let kind = Kind::Passage;
        let Some(id) = id else {
            return reading.leave_out(Oddity::WithoutId, line, |place| missing_id(place, JSON_SHAPE));
        };
        let id = read_id(id, kind, line, reading)?;
        if id.is_empty() {
            return reading.leave_out(Oddity::WithoutId, line, |place| Error::EmptyId { place, kind });
        }
        if self.push(id, passage)?.is_none() {
            let refusal = |place| Error::DuplicateId { place, kind, id: format!("{id:?}") };
            return reading.leave_out(Oddity::RepeatedId, line, refusal);
        }
        if id.contains(' ') {
            reading.tell(Oddity::SpaceInId, line);
        }
        if passage.is_blank() {
            reading.tell(Oddity::Blank, line);
        }
        Ok(())
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
        let store = self.store.finish()?;
        Ok(Corpus { path: self.path, store, empty: self.empty, repeats, notes: self.notes })
    }
}

pub(crate) fn missing_id(place: crate::Place, expected: &'static str) -> Error {
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
