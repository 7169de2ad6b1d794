use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Result of this crate, with its [`Error`] unless another is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A line of a file, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file as it was named by the caller.
    pub path: PathBuf,
    /// Line number of the decompressed text, from 1.
    pub line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}", self.path.display(), self.line)
    }
}

/// What an id names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A passage of a corpus.
    Passage,
    /// A query.
    Query,
    /// A pair of query and passage in a judgment file.
    Judgment,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Passage => "passage",
            Kind::Query => "query",
            Kind::Judgment => "judgment",
        })
    }
}

/// Everything that can be wrong with a data set; each message is one line: place, reason, remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder is not there.
    #[error("{}: not found; {remedy}", path.display())]
    Missing {
        /// What was looked for.
        path: PathBuf,
        /// What to do about it.
        remedy: String,
    },
    /// The system refused a read or a write.
    #[error("{}: {action} failed: {source}; {remedy}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What to do about it.
        remedy: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A file or folder could not be written.
    #[error(transparent)]
    File(#[from] contaccum_files::Error),
    /// A gzip or zstd file ends early or does not decompress.
    #[error(
        "{place}: the compressed data is cut short or damaged ({reason}); copy or download the file again"
    )]
    Damaged {
        /// The line being read when the data ended.
        place: Place,
        /// The decompressor's reason.
        reason: String,
    },
    /// A file of a kind that is not text.
    #[error("{}: this is {name}; {remedy}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        name: &'static str,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A line, a row of a table or an element of an array that does not end.
    #[error("{place}: longer than {} MiB; check that the file is what it should be", max_bytes >> 20)]
    TooLong {
        /// Where.
        place: Place,
        /// Longest that is read.
        max_bytes: usize,
    },
    /// Something that is read on over unless the reading is strict.
    #[error("{place}: {what}; correct it, or read on over it by leaving strict out")]
    Odd {
        /// Where.
        place: Place,
        /// What is odd.
        what: String,
    },
    /// So much of a file would be left out that it is not what it was taken for.
    #[error("{first} ({left_out} of {records} records cannot be used)")]
    MostLeftOut {
        /// The first of them.
        first: Box<Error>,
        /// Records that would be left out.
        left_out: u64,
        /// All records.
        records: u64,
    },
    /// A line is not UTF-8.
    #[error("{place}: not UTF-8 text; convert the file, for example with iconv -t utf-8")]
    NotUtf8 {
        /// Where.
        place: Place,
    },
    /// A line or document is not JSON.
    #[error("{place}, column {column}: broken JSON: {reason}; expected {expected}")]
    Json {
        /// Where.
        place: Place,
        /// Byte of the line, from 1.
        column: usize,
        /// The parser's reason.
        reason: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// JSON with a field missing or of the wrong type.
    #[error("{place}: {reason}; expected {expected}")]
    Field {
        /// Where.
        place: Place,
        /// Which field and why.
        reason: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// A tab-separated line with the wrong number of columns.
    #[error("{place}: {found} columns; expected {expected}")]
    Columns {
        /// Where.
        place: Place,
        /// Columns on this line.
        found: usize,
        /// What belongs there.
        expected: &'static str,
    },
    /// A row of CSV with a quote that is open at the end of the file.
    #[error(
        "{place}: a quote is opened in this row of CSV and never closed; close it, and double the quotes inside of \
         a field: \"a \"\"quoted\"\" word\""
    )]
    OpenQuote {
        /// Where the row begins.
        place: Place,
    },
    /// A header that lacks a column.
    #[error("{place}: the header ({found}) names no column of the {missing}; name it one of: {known}")]
    Header {
        /// Where.
        place: Place,
        /// The columns there are.
        found: String,
        /// The column that lacks.
        missing: &'static str,
        /// Names it would be known by.
        known: String,
    },
    /// A name that the caller gave and no row has.
    #[error("{place}: columns names {name:?}, and here are only {found}; correct columns")]
    NotNamed {
        /// The header, or the first row.
        place: Place,
        /// The name.
        name: String,
        /// What there is.
        found: String,
    },
    /// A relevance that is not a whole number.
    #[error("{place}: the relevance {value:?} is not a whole number; write 0, 1, 2, ...")]
    Relevance {
        /// Where.
        place: Place,
        /// What stands there.
        value: String,
    },
    /// An empty id.
    #[error("{place}: the {kind} id is empty; give every {kind} an id of its own")]
    EmptyId {
        /// Where.
        place: Place,
        /// What has no id.
        kind: Kind,
    },
    /// An id that no file of lines could hold.
    #[error("{place}: the {kind} id {id:?} has a tab or a line end inside; give it another id")]
    BrokenId {
        /// Where.
        place: Place,
        /// What it names.
        kind: Kind,
        /// The id.
        id: String,
    },
    /// A passage without title and text.
    #[error("{place}: the passage {id:?} has no title and no text; remove it or give it a text")]
    WithoutText {
        /// Where.
        place: Place,
        /// Its id.
        id: String,
    },
    /// A query without text.
    #[error("{place}: the query {id:?} has no text; remove the line or give it a text")]
    EmptyQuery {
        /// Where.
        place: Place,
        /// Its id.
        id: String,
    },
    /// A positive passage without title and text.
    #[error("{place}: the positive passage {id:?} has neither title nor text; remove it from the row")]
    EmptyPositive {
        /// Where it is used.
        place: Place,
        /// Its id.
        id: String,
    },
    /// An id that nothing defines.
    #[error("{place}: {kind} {id:?} is not in {}; add it there or remove it here", searched.display())]
    UnknownId {
        /// Where it is used.
        place: Place,
        /// What it should name.
        kind: Kind,
        /// The id.
        id: String,
        /// The file that should define it.
        searched: PathBuf,
    },
    /// Hard negatives of a query that has no training row.
    #[error(
        "{place}: query {id:?} has no passage judged relevant, so no training row; judge one or remove the line"
    )]
    NotJudged {
        /// Where.
        place: Place,
        /// The query's id.
        id: String,
    },
    /// A row that names passages by id, with nowhere to look them up.
    #[error("{place}: passage {id:?} is given by id alone; name the corpus that holds its text")]
    NoCorpus {
        /// Where.
        place: Place,
        /// The first such id.
        id: String,
    },
    /// An id defined twice.
    #[error("{place}: {kind} {id} appears a second time; remove one of the two")]
    DuplicateId {
        /// The second appearance.
        place: Place,
        /// What it names.
        kind: Kind,
        /// The id, quoted.
        id: String,
    },
    /// A file that holds nothing to use.
    #[error("{}: {what}; {remedy}", path.display())]
    NoRows {
        /// The file.
        path: PathBuf,
        /// What is lacking.
        what: &'static str,
        /// What to do about it.
        remedy: &'static str,
    },
    /// More records than an index can number.
    #[error("{}: more than {} records; split the file", path.display(), u32::MAX)]
    TooMany {
        /// The file.
        path: PathBuf,
    },
    /// No batch can be made of the rows.
    #[error(
        "a total batch of {total_batch} needs that many rows, and there are {rows}; \
         use a smaller batch or more rows"
    )]
    BatchTooLarge {
        /// Rows in a total batch.
        total_batch: usize,
        /// Rows in the training set.
        rows: usize,
    },
    /// A batch of no rows.
    #[error("a total batch of 0 rows trains nothing; use 1 or more")]
    EmptyBatch,
    /// Neither duplicates in a batch nor rows left out.
    #[error(
        "rows whose positive is in the batch already wait, and the last of them are left out of an epoch: \
         drop_last cannot be false with no_duplicates; drop one of the two"
    )]
    DuplicatesLeft,
    /// Too few different positives for a batch without duplicates.
    #[error(
        "no batch of {total_batch} rows can be sure to hold {total_batch} different positives \
         ({distinct} in all); use a smaller batch or allow duplicates"
    )]
    TooFewPositives {
        /// Rows in a total batch.
        total_batch: usize,
        /// Different passages among the positives of all rows.
        distinct: usize,
    },
}

impl Error {
    pub(crate) fn reading(path: &Path, source: io::Error) -> Error {
        let remedy = "check that the file can be read";
        Error::Io { path: path.into(), action: "reading", remedy, source }
    }
}
