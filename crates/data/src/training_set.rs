use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use contaccum_files::{ContentHash, ContentHasher};

use crate::notes::{Notes, Strictness};
use crate::rows::RowDraft;
use crate::{
    Columns, Corpus, Error, Passage, PassageIndex, Queries, QueryIndex, Result, Row, Rows, beir,
    training_file,
};

/// Where training rows come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrainingSource {
    /// A BEIR folder (`corpus.jsonl`, `queries.jsonl`, `qrels/SPLIT.tsv`) or one of MS MARCO's files (`collection.tsv`,
    /// `queries.SPLIT.tsv`, `qrels.SPLIT.tsv`), each plain, `.gz` or `.zst`.
    Beir {
        /// The folder.
        folder: PathBuf,
        /// The split whose queries are the rows, by file name without ending (`train`); a row's positives are
        /// its passages of relevance 1 and more.
        split: String,
        /// A file of `query-id, gold-id, neg-ids` or `query-id, neg-ids` (tabs, ids of negatives separated by
        /// commas; with a header, in any order), of one or more lines a query, as MS MARCO's triples of ids. It adds
        /// negatives to the rows and defines none; the gold passages are not looked at.
        hard_negatives: Option<PathBuf>,
    },
    /// A file whose rows bring their own texts or name passages of a corpus by id: a JSON array, one JSON value a
    /// line, a TSV or a CSV. A row is an object (DPR's, Tevatron's two layouts, FlagEmbedding's,
    /// sentence-transformers'), an array `["query", "positive", "negative"]`, or columns by the names of a header or in
    /// this order; which one is seen from the content.
    File {
        /// The file, plain, gzip or zstd.
        path: PathBuf,
        /// The corpus that ids refer to, for rows with `positive_document_ids`.
        corpus: Option<PathBuf>,
        /// What fields or columns are called, where their names do not say it.
        columns: Columns,
    },
}

impl TrainingSource {
    /// A file of rows that bring their texts, under names known in the field.
    pub fn file(path: impl Into<PathBuf>) -> TrainingSource {
        TrainingSource::File { path: path.into(), corpus: None, columns: Columns::default() }
    }
}

/// Which positive of a row that has several a batch takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Positives {
    /// The first.
    First,
    /// One drawn for each row and epoch.
    Random,
}

/// Training rows with the texts they refer to. Open once, share by reference or `Arc`.
pub struct TrainingSet {
    corpus: Corpus,
    queries: Queries,
    rows: Arc<Rows>,
    prompts: Prompts,
    positives: Positives,
    summary: Summary,
    notes: Notes,
}

/// Prompts that rows bring for their queries; few differ.
#[derive(Default)]
pub(crate) struct Prompts {
    texts: Vec<String>,
    of_row: Vec<Option<u32>>,
}

impl Prompts {
    /// Adds the prompt of the next row.
    pub fn push(&mut self, prompt: Option<&str>) {
        let number = prompt.map(|prompt| {
            let known = self.texts.iter().position(|text| text == prompt);
            known.unwrap_or_else(|| {
                self.texts.push(prompt.to_owned());
                self.texts.len() - 1
            }) as u32
        });
        self.of_row.push(number);
    }

    fn get(&self, row: usize) -> Option<&str> {
        let number = (*self.of_row.get(row)?)?;
        Some(&self.texts[number as usize])
    }
}

/// What a training set holds, for the lines shown at start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Training rows.
    pub rows: usize,
    /// Passages that rows may refer to.
    pub passages: usize,
    /// Rows with more than one positive.
    pub rows_with_several_positives: usize,
    /// Rows without a hard negative.
    pub rows_without_negatives: usize,
    /// Hard negatives of all rows.
    pub negatives: usize,
    /// Negatives left out because they repeat one of their row or are its positive.
    pub negatives_left_out: usize,
    /// Passages whose id already named another text; they are kept, under an id of their own.
    pub passages_renamed: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows, {} passages, {} hard negatives", self.rows, self.passages, self.negatives)?;
        let notes = [
            (self.rows_with_several_positives, "rows with several positives"),
            (self.rows_without_negatives, "rows without negatives"),
            (self.negatives_left_out, "negatives left out (repeated, or the row's own positive)"),
            (self.passages_renamed, "passages renamed (their id names another text)"),
        ];
        for (count, what) in notes.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {count} {what}")?;
        }
        Ok(())
    }
}

/// What a reader hands over.
pub(crate) struct Parts {
    pub corpus: Corpus,
    pub queries: Queries,
    pub rows: Vec<RowDraft>,
    pub prompts: Prompts,
    /// The rule of the file's format.
    pub positives: Positives,
    pub passages_renamed: usize,
    pub notes: Notes,
    /// The file that defines the rows.
    pub path: PathBuf,
}

impl TrainingSet {
    /// As [`TrainingSet::open_with`], reading over what is odd.
    ///
    /// # Errors
    /// As there.
    pub fn open(source: &TrainingSource) -> Result<TrainingSet> {
        TrainingSet::open_with(source, Strictness::Lenient)
    }

    /// Reads a training set: every file once, as a stream.
    ///
    /// Lines that cannot be used are left out (unknown or repeated ids, queries without text, positives
    /// without title and text); they are in [`TrainingSet::notes`].
    ///
    /// # Errors
    /// Missing, damaged or badly formed files, files of which most would be left out, no row at all; each
    /// names its file and line. Strictly, everything that would be noted as odd.
    pub fn open_with(source: &TrainingSource, strictness: Strictness) -> Result<TrainingSet> {
        let parts = match source {
            TrainingSource::Beir { folder, split, hard_negatives } => {
                beir::read(folder, split, hard_negatives.as_deref(), strictness)?
            }
            TrainingSource::File { path, corpus, columns } => {
                training_file::read(path, corpus.as_deref(), columns, strictness)?
            }
        };
        if parts.rows.is_empty() {
            let remedy = "give a file in which at least one query has a positive passage";
            return Err(Error::NoRows { path: parts.path, what: "gives no training row", remedy });
        }
        let (rows, negatives_left_out) = Rows::new(parts.rows, parts.corpus.len());
        let summary = Summary {
            rows: rows.len(),
            passages: parts.corpus.len(),
            rows_with_several_positives: rows.iter().filter(|row| row.positives.len() > 1).count(),
            rows_without_negatives: rows.iter().filter(|row| row.negatives.is_empty()).count(),
            negatives: rows.iter().map(|row| row.negatives.len()).sum(),
            negatives_left_out,
            passages_renamed: parts.passages_renamed,
        };
        Ok(TrainingSet {
            corpus: parts.corpus,
            queries: parts.queries,
            rows: Arc::new(rows),
            prompts: parts.prompts,
            positives: parts.positives,
            summary,
            notes: parts.notes,
        })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Never true: a set without rows is refused when opened.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The row at a position, from 0 in file order.
    ///
    /// # Panics
    /// If `row` is not below [`TrainingSet::len`].
    pub fn row(&self, row: usize) -> Row<'_> {
        self.rows.get(row)
    }

    /// The rows, for a [`BatchPlan`](crate::BatchPlan).
    pub fn rows(&self) -> &Arc<Rows> {
        &self.rows
    }

    /// The passages that rows refer to.
    pub fn corpus(&self) -> &Corpus {
        &self.corpus
    }

    /// The queries that rows refer to.
    pub fn queries(&self) -> &Queries {
        &self.queries
    }

    /// Reads a query's text from disk; errors and panics as [`Queries::text`].
    #[allow(clippy::missing_errors_doc)]
    pub fn query_text(&self, query: QueryIndex) -> Result<String> {
        self.queries.text(query)
    }

    /// Reads a passage from disk; errors and panics as [`Corpus::get`].
    #[allow(clippy::missing_errors_doc)]
    pub fn passage(&self, passage: PassageIndex) -> Result<Passage> {
        self.corpus.get(passage)
    }

    /// Every passage that a row names as relevant, with the row's query. Queries of one text are one query here, and
    /// passages of one title and text one passage: the first of each ([`Queries::first_of_equal`],
    /// [`Corpus::first_of_equal`]).
    pub fn known_positives(&self) -> impl Iterator<Item = (QueryIndex, PassageIndex)> {
        self.rows.iter().flat_map(move |row| {
            let query = self.queries.first_of_equal(row.query);
            row.positives.iter().map(move |passage| (query, self.corpus.first_of_equal(*passage)))
        })
    }

    /// The prompt that a row brings for its query, in place of the model's.
    pub fn row_prompt(&self, row: usize) -> Option<&str> {
        self.prompts.get(row)
    }

    /// Which of several positives is trained on where nothing else is asked for: the first of a DPR file (its
    /// gold passage), a random one of any other.
    pub fn default_positives(&self) -> Positives {
        self.positives
    }

    /// What was odd in the files.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// A query's id.
    pub fn query_id(&self, query: QueryIndex) -> &str {
        self.queries.id(query)
    }

    /// A passage's id.
    pub fn passage_id(&self, passage: PassageIndex) -> &str {
        self.corpus.id(passage)
    }

    /// Counts for the lines shown at start.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Hash of all texts with their ids: those of queries, of positives and of every hard negative.
    pub fn texts_fingerprint(&self) -> ContentHash {
        let mut hasher = ContentHasher::new();
        for texts in [self.corpus.fingerprint(), self.queries.fingerprint()] {
            hasher.update(&texts.0.to_le_bytes());
        }
        hasher.finish()
    }

    /// Hash of which passages are positives and negatives of which query, in the order of the rows.
    pub fn rows_fingerprint(&self) -> ContentHash {
        let mut hasher = ContentHasher::new();
        let mut number = |number: u32| hasher.update(&number.to_le_bytes());
        for row in self.rows.iter() {
            number(row.query.0);
            for list in [row.positives, row.negatives] {
                number(list.len() as u32);
                list.iter().for_each(|passage| number(passage.0));
            }
        }
        for (row, prompt) in (0..self.rows.len()).filter_map(|row| Some((row, self.row_prompt(row)?))) {
            hasher.update(&(row as u64).to_le_bytes());
            hasher.update_text(prompt);
        }
        hasher.finish()
    }
}
