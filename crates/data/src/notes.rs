//! What was odd in a file and read all the same: counted, and told once.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::{Error, Place, Result};

/// Names of fields that are told one by one; those beyond are counted together.
const NAMED_FIELDS: usize = 16;

/// What happens to a line that is odd but can be read, or can be done without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strictness {
    /// It is read, or left out, and counted ([`Notes`]). A file most of which would be left out is refused.
    #[default]
    Lenient,
    /// The file is refused at that line.
    Strict,
}

impl From<bool> for Strictness {
    fn from(strict: bool) -> Strictness {
        if strict { Strictness::Strict } else { Strictness::Lenient }
    }
}

/// A kind of thing that is odd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// A line without an id; left out.
    WithoutId,
    /// A line whose id came before; left out, the first stays.
    RepeatedId,
    /// A passage without title and text fields, or a query without text; left out.
    WithoutText,
    /// A passage whose title and text are empty; kept.
    Blank,
    /// NaN or Infinity in JSON, as Python writes them; read as null.
    NotANumber,
    /// Half a surrogate pair in JSON, as Python writes it; read as U+FFFD.
    LoneSurrogate,
    /// A number or a boolean where a text belongs; read as it is written.
    NumberAsText,
    /// An id written as a number with a fraction of 0, as pandas writes it; read as a whole number.
    FractionalId,
    /// An id with white space around it; read without.
    PaddedId,
    /// An id with a space inside; kept, but no run file can hold it.
    SpaceInId,
    /// Answers that are no list of texts; left out.
    Answers,
    /// A judgment of a query that the queries lack; left out.
    UnknownQuery,
    /// A judgment of a passage that the corpus lacks; left out.
    UnknownPassage,
    /// A judgment of a pair that was judged before; left out, the first stays.
    RepeatedJudgment,
    /// A passage of a training row without title and text; left out.
    BlankInRow,
    /// A row without a positive; left out, as DPR's reader does.
    WithoutPositive,
    /// A hard negative that is judged relevant to its query; left out.
    RelevantNegative,
    /// A hard negative that the corpus lacks; left out.
    UnknownNegative,
    /// A line of hard negatives for a query that has no training row; left out.
    UnusedNegatives,
    /// A JSON array among rows that are objects, or an object among arrays; read as what it is.
    OtherShape,
    /// A table of rows without a header; read in the order of its columns.
    WithoutHeader,
    /// A row with a prompt of its own, used in place of the query prompt.
    OwnPrompt,
    /// A field of a training row, or a column of a table, that is not used.
    Unused(String),
    /// Fields that are not used, beyond those told by name.
    UnusedOthers,
}

impl Oddity {
    /// What there is one of, and what became of it.
    fn phrase(&self) -> (&'static str, String) {
        let (one, rest) = match self {
            Oddity::WithoutId => ("line", "without an id left out"),
            Oddity::RepeatedId => ("line", "whose id came before left out, the first kept"),
            Oddity::WithoutText => ("line", "without text left out"),
            Oddity::Blank => ("passage", "of no title and no text, kept and ranked like any other"),
            Oddity::NotANumber => ("line", "with NaN or Infinity, read as null"),
            Oddity::LoneSurrogate => ("text", "with half a surrogate pair, read as U+FFFD"),
            Oddity::NumberAsText => ("number", "where a text belongs, read as written"),
            Oddity::FractionalId => ("id", "written like 7.0, read as 7"),
            Oddity::PaddedId => ("id", "with white space around, read without"),
            Oddity::SpaceInId => ("id", "with a space inside, which no TREC run file can hold"),
            Oddity::Answers => ("line", "whose answers are no list of texts, read without them"),
            Oddity::UnknownQuery => ("line", "left out, naming a query that is not in the queries"),
            Oddity::UnknownPassage => ("line", "left out, naming a passage that is not in the corpus"),
            Oddity::RepeatedJudgment => ("line", "left out, judging a pair again, the first kept"),
            Oddity::BlankInRow => ("passage", "of no title and no text left out of training rows"),
            Oddity::WithoutPositive => ("row", "left out for want of a positive"),
            Oddity::RelevantNegative => ("hard negative", "left out, being judged relevant to the query"),
            Oddity::UnknownNegative => ("hard negative", "left out, not being in the corpus"),
            Oddity::UnusedNegatives => ("line", "left out, the query having no training row"),
            Oddity::OtherShape => {
                ("row", "of another shape than the first (array or object), read all the same")
            }
            Oddity::WithoutHeader => (
                "first line",
                "that names no column, read as a row of query, positive and negative in this order",
            ),
            Oddity::OwnPrompt => ("row", "with a prompt of its own, used in place of the query prompt"),
            Oddity::Unused(name) => return ("row", format!("with {name:?}, which is not used")),
            Oddity::UnusedOthers => ("row", "with more fields that are not used"),
        };
        (one, rest.to_owned())
    }
}

/// An oddity of one file: how often, and where first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The file.
    pub path: PathBuf,
    /// The kind.
    pub oddity: Oddity,
    /// How often it was met.
    pub count: u64,
    /// The line it was first met on, from 1.
    pub first_line: u64,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (one, rest) = self.oddity.phrase();
        let plural = if self.count == 1 { "" } else { "s" };
        let Note { path, count, first_line, .. } = self;
        write!(f, "{}: {count} {one}{plural} {rest} (first: line {first_line})", path.display())
    }
}

/// What was odd in the files of one reading, in the order it was met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes(Vec<Note>);

impl Notes {
    /// The notes; each is one line when displayed.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Note> {
        self.0.iter()
    }

    /// How often an oddity was met, over all files.
    pub fn count(&self, oddity: &Oddity) -> u64 {
        self.0.iter().filter(|note| note.oddity == *oddity).map(|note| note.count).sum()
    }

    /// Adds the notes of another reading.
    pub(crate) fn append(&mut self, other: Notes) {
        self.0.extend(other.0);
    }

    fn add(&mut self, path: &Path, oddity: Oddity, first_line: u64) {
        let same = |note: &&mut Note| note.oddity == oddity && note.path == path;
        match self.0.iter_mut().find(same) {
            Some(note) => note.count += 1,
            None => self.0.push(Note { path: path.into(), oddity, count: 1, first_line }),
        }
    }
}

impl FromIterator<Notes> for Notes {
    fn from_iter<I: IntoIterator<Item = Notes>>(notes: I) -> Notes {
        Notes(notes.into_iter().flat_map(|notes| notes.0).collect())
    }
}

/// One file being read: what is odd in it, and how much of it is left out.
pub(crate) struct Reading {
    path: PathBuf,
    strictness: Strictness,
    records: u64,
    left_out: u64,
    first_refusal: Option<Error>,
    unused_fields: usize,
    notes: Notes,
}

impl Reading {
    pub fn new(path: &Path, strictness: Strictness) -> Reading {
        Reading {
            path: path.into(),
            strictness,
            records: 0,
            left_out: 0,
            first_refusal: None,
            unused_fields: 0,
            notes: Notes::default(),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn place(&self, line: u64) -> Place {
        Place { path: self.path.clone(), line }
    }

    /// Counts a record, whatever becomes of it.
    pub fn record(&mut self) {
        self.records += 1;
    }

    /// Records so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Leaves a record out, or refuses the file for it with `refusal`.
    pub fn leave_out(
        &mut self,
        oddity: Oddity,
        line: u64,
        refusal: impl FnOnce(Place) -> Error,
    ) -> Result<()> {
        self.left_out += 1;
        self.leave_out_part(oddity, line, refusal)
    }

    /// Leaves out a part of a record, or refuses the file for it with `refusal`.
    pub fn leave_out_part(
        &mut self,
        oddity: Oddity,
        line: u64,
        refusal: impl FnOnce(Place) -> Error,
    ) -> Result<()> {
        if self.strictness == Strictness::Strict {
            return Err(refusal(self.place(line)));
        }
        if self.first_refusal.is_none() {
            self.first_refusal = Some(refusal(self.place(line)));
        }
        self.tell(oddity, line);
        Ok(())
    }

    /// Reads on over something that is odd, or refuses the file for it.
    pub fn read_on(&mut self, oddity: Oddity, line: u64) -> Result<()> {
        match self.strictness {
            Strictness::Strict => {
                let (one, what) = oddity.phrase();
                Err(Error::Odd { place: self.place(line), what: format!("{one} {what}") })
            }
            Strictness::Lenient => {
                self.tell(oddity, line);
                Ok(())
            }
        }
    }

    /// Notes something that is no fault of the file.
    pub fn tell(&mut self, oddity: Oddity, line: u64) {
        self.notes.add(&self.path, oddity, line);
    }

    /// Notes a field that is not used: the first names one by one.
    pub fn tell_unused(&mut self, name: &str, line: u64) {
        let named = |note: &Note| matches!(&note.oddity, Oddity::Unused(known) if known == name);
        if self.notes.0.iter().any(named) {
            self.tell(Oddity::Unused(name.into()), line);
        } else if self.unused_fields < NAMED_FIELDS {
            self.unused_fields += 1;
            self.tell(Oddity::Unused(name.into()), line);
        } else {
            self.tell(Oddity::UnusedOthers, line);
        }
    }

    /// Whether a record was left out.
    pub fn left_out_any(&self) -> bool {
        self.left_out > 0
    }

    /// What was odd; refused if most records were left out, for then the file is not what it was taken for.
    pub fn finish(self) -> Result<Notes> {
        let Reading { left_out, records, first_refusal, notes, .. } = self;
        match first_refusal {
            Some(first) if left_out > records / 2 => {
                Err(Error::MostLeftOut { first: Box::new(first), left_out, records })
            }
            Some(_) | None => Ok(notes),
        }
    }
}
