//! Measuring encoders on judged queries, in memory: during training, in the demo, between the runs of a study.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use contaccum_data::{Corpus, Notes, PassageIndex, Qrels, Queries, QueryIndex, Strictness};
use contaccum_encoder::{
    Embedder, Encoder, ModelSettings, PackedTokens, PassLimits, PassageFormat, TextTokenizer, TokenSequence,
};
use contaccum_files::{ContentHash, ContentHasher};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::search::{Search, search_bytes};
use crate::{
    BatchLimits, EncodeError, EvaluationError, Measure, Run, RunError, ScoredDocument, SearchError,
    encode_in_memory, evaluate,
};

/// Folder of a run's measures per query, inside its output folder.
pub const EVALUATIONS_FOLDER: &str = "evaluations";

/// What is measured, under the names it is recorded by.
pub const DEV_MEASURES: [Measure; 4] =
    [Measure::NDcg(Some(10)), Measure::ReciprocalRank(Some(10)), Measure::Recall(100), Measure::Success(20)];

/// Passages per query: as deep as the measures look.
const TOP_K: usize = 100;

/// Passages encoded and searched at a time.
const BLOCK: usize = 1024;

/// What an allocated string takes beside its length, at most.
const ALLOCATION_BYTES: usize = 32;

/// What a measure of a query takes in tables by the query's id.
const MEASURE_BYTES: usize = 256;

/// What is embedded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Queries.
    Query,
    /// Passages.
    Passage,
}

/// Which judged queries are measured, and how texts become tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevSource {
    /// BEIR folder.
    pub folder: PathBuf,
    /// Split: `qrels/<split>.tsv`.
    pub split: String,
    /// The first so many queries of the split; all of them without.
    pub max_queries: Option<usize>,
    /// Longest query in tokens.
    pub query_max_length: usize,
    /// Longest passage in tokens.
    pub passage_max_length: usize,
    /// How title and text are joined.
    pub passage_format: PassageFormat,
    /// Leave the passage with the id of its query out of what is found, as BEIR does.
    pub ignore_identical_ids: bool,
    /// What becomes of odd lines.
    pub strictness: Strictness,
}

/// Why encoders could not be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DevError {
    /// The corpus, queries or judgments.
    #[error(transparent)]
    Data(#[from] contaccum_data::Error),
    /// The measures could not be written.
    #[error(transparent)]
    Write(#[from] contaccum_files::Error),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] contaccum_encoder::EncoderError),
    /// A text or its vector.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The search.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// Ids that come twice, scores that are no numbers.
    #[error(transparent)]
    Run(#[from] RunError),
    /// No judged query.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    /// A split of which no query can be measured.
    #[error(
        "{}: no query of the split {split} can be measured: {judged} are judged there, {known} of them are in the \
         queries, and none of these has a passage judged above 0 (give another split)",
        .folder.display()
    )]
    NothingMeasured {
        /// BEIR folder.
        folder: PathBuf,
        /// Split of the judgments.
        split: String,
        /// Queries that are judged in the split.
        judged: usize,
        /// Those that the queries hold.
        known: usize,
    },
    /// A file of measures that is not what this program writes.
    #[error("evaluation not read: {path}: {reason} (remove it and evaluate again)")]
    NotRead {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// The queries of a split that are measured, with their judgments.
struct Chosen {
    queries: Queries,
    qrels: Qrels,
    chosen: Vec<QueryIndex>,
}

impl DevSource {
    fn choose(&self) -> Result<Chosen, DevError> {
        let queries = Queries::open_split_with(&self.folder, &self.split, self.strictness)?;
        let qrels = Qrels::open_split_with(&self.folder, &self.split, self.strictness)?;
        let judged = |query: &QueryIndex| !qrels.judgments(queries.id(*query)).is_empty();
        let relevant = |query: &QueryIndex| {
            qrels.judgments(queries.id(*query)).iter().any(|(_, judgment)| *judgment > 0)
        };
        let known = (0..queries.len() as u32).map(QueryIndex).filter(judged);
        let chosen: Vec<QueryIndex> = known.clone().take(self.max_queries.unwrap_or(usize::MAX)).collect();
        if !chosen.iter().any(relevant) {
            return Err(DevError::NothingMeasured {
                folder: self.folder.clone(),
                split: self.split.clone(),
                judged: qrels.len(),
                known: known.count(),
            });
        }
        Ok(Chosen { queries, qrels, chosen })
    }
}

/// A corpus and judged queries as tokens.
///
/// A judged query that the queries lack counts 0, as in [`evaluate`]: what is measured here is what a run file of the same
/// model and queries is measured at.
pub struct DevSet {
    source: DevSource,
    passage_ids: Vec<String>,
    passages: Vec<TokenSequence>,
    query_ids: Vec<String>,
    queries: Vec<TokenSequence>,
    /// Judged queries that the queries lack.
    missing: Vec<String>,
    qrels: Qrels,
    notes: Notes,
    content: ContentHash,
}

impl DevSet {
    /// Reads and tokenises queries and corpus, with the prompts of `settings`.
    ///
    /// # Errors
    /// Files that cannot be read, a split that is not there.
    pub fn open(
        source: DevSource,
        settings: &ModelSettings,
        tokenizer: &TextTokenizer,
    ) -> Result<Self, DevError> {
        let Chosen { queries, qrels, chosen } = source.choose()?;
        let corpus = Corpus::open_with(&source.folder, source.strictness)?;
        let most = source.max_queries.unwrap_or(usize::MAX);
        // A bound takes those that are there first.
        let missing = qrels.iter().map(|(query, _)| query).filter(|query| queries.index_of(query).is_none());
        let missing: Vec<String> = missing.take(most - chosen.len()).map(str::to_owned).collect();
        let notes = [corpus.notes(), queries.notes(), qrels.notes()].into_iter().cloned().collect();
        let content = content(&corpus, &queries, &chosen, &qrels)?;
        let all: Vec<PassageIndex> = (0..corpus.len() as u32).map(PassageIndex).collect();
        let passage = |&index: &PassageIndex| {
            let passage = corpus.get(index)?;
            let (title, text) = settings.prompted_passage(&passage.title, &passage.text);
            Ok(tokenizer.passage(&title, &text, source.passage_format, source.passage_max_length)?)
        };
        let query = |&index: &QueryIndex| {
            let text = settings.prompted_query(&queries.text(index)?);
            Ok(tokenizer.query(&text, source.query_max_length)?)
        };
        Ok(Self {
            passages: all.par_iter().map(passage).collect::<Result<_, DevError>>()?,
            passage_ids: all.iter().map(|&index| corpus.id(index).to_owned()).collect(),
            queries: chosen.par_iter().map(query).collect::<Result<_, DevError>>()?,
            query_ids: chosen.iter().map(|&index| queries.id(index).to_owned()).collect(),
            missing,
            qrels,
            notes,
            content,
            source,
        })
    }

    /// Name of the set: that of its folder.
    pub fn name(&self) -> String {
        let folder = &self.source.folder;
        folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned()
    }

    /// Whether `measures` are of this folder and split with the content it has now, and of all its queries.
    pub fn answers(&self, measures: &QueryMeasures) -> bool {
        measures.data == self.source.folder
            && measures.split == self.source.split
            && measures.content == Some(self.content)
            && measures.queries == self.asked()
    }

    /// What was odd in the files.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Number of the queries measured that the queries file lacks; they count 0.
    pub fn missing_queries(&self) -> usize {
        self.missing.iter().filter(|id| self.has_relevant(id)).count()
    }

    /// Number of queries that are measured.
    pub fn queries(&self) -> usize {
        self.asked().len()
    }

    /// Ids of the queries that have a relevant passage, in the order of the file, and then of those that it lacks.
    fn asked(&self) -> Vec<&str> {
        let all = self.query_ids.iter().chain(&self.missing).map(String::as_str);
        all.filter(|id| self.has_relevant(id)).collect()
    }

    fn has_relevant(&self, query: &str) -> bool {
        self.qrels.judgments(query).iter().any(|(_, judgment)| *judgment > 0)
    }

    /// Bytes that [`DevSet::measure_by`] holds at most, in a pool of `threads`, for vectors of `dim` values: beside the
    /// texts, which are held all the time, and what its caller embeds with.
    pub fn measure_bytes(&self, dim: usize, threads: usize) -> usize {
        let queries = self.queries.len();
        let vectors = (queries + BLOCK.min(self.passages.len())) * dim * size_of::<f32>();
        let id = self.passage_ids.iter().map(String::len).max().unwrap_or(0) + ALLOCATION_BYTES;
        let ranked = TOP_K * (size_of::<ScoredDocument>() + id) + DEV_MEASURES.len() * MEASURE_BYTES;
        // Places by id, 8 bytes a passage, decide between equal scores.
        let places = 2 * size_of::<u32>() * self.passages.len();
        vectors + places + search_bytes(queries, TOP_K + 1, threads) + queries * ranked
    }

    /// Tokens of the longest query and of the longest passage.
    pub fn longest(&self) -> [usize; 2] {
        [&self.queries, &self.passages]
            .map(|texts| texts.iter().map(|text| text.ids.len()).max().unwrap_or(0))
    }

    /// The measures of each query, texts encoded by `query` and `passage`.
    ///
    /// # Errors
    /// As [`DevSet::measure_by`].
    pub fn measure(&self, query: &Encoder, passage: &Encoder) -> Result<QueryMeasures, DevError> {
        let longest = self.source.query_max_length.max(self.source.passage_max_length);
        let limits = BatchLimits { max_tokens: longest.max(4096), max_sequences: 64 };
        let pass = PassLimits { tokens: limits.max_tokens, sequences: limits.max_sequences, longest };
        let mut embedder = Embedder::new(query.config(), pass);
        self.measure_by(query.dim(), limits, |side, tokens, vectors| match side {
            Side::Query => embedder.embed(query, tokens, vectors),
            Side::Passage => embedder.embed(passage, tokens, vectors),
        })
    }

    /// The measures of each query, the vectors of packs within `limits`, `[sequences, dim]`, written by `embed`. Passages
    /// are encoded and searched some at a time.
    ///
    /// # Errors
    /// Vectors that are no numbers; judgments without a relevant passage.
    pub fn measure_by(
        &self,
        dim: usize,
        limits: BatchLimits,
        mut embed: impl FnMut(Side, &PackedTokens, &mut [f32]),
    ) -> Result<QueryMeasures, DevError> {
        let identical = self.source.ignore_identical_ids;
        let depth = TOP_K + usize::from(identical);
        let queries =
            encode_in_memory(&self.queries, dim, limits, |tokens, out| embed(Side::Query, tokens, out))?;
        let mut search = Search::named(&queries, dim, &self.passage_ids, depth)?;
        for passages in self.passages.chunks(BLOCK) {
            let vectors =
                encode_in_memory(passages, dim, limits, |tokens, out| embed(Side::Passage, tokens, out))?;
            search.add(&vectors)?;
        }
        let found = search.finish();
        let mut run = Run::from_hits(&self.query_ids, &self.passage_ids, &found)?;
        if identical {
            run.leave_out_identical_ids();
            run.truncate(TOP_K);
        }
        let evaluation = evaluate(&run, &self.qrels, &DEV_MEASURES)?;
        // The judgments may be of more queries than are asked here.
        let asked = self.asked();
        let measures = evaluation.results.iter().map(|result| {
            (result.measure.to_string(), asked.iter().map(|&id| result.per_query[id]).collect())
        });
        Ok(QueryMeasures {
            data: self.source.folder.clone(),
            split: self.source.split.clone(),
            content: Some(self.content),
            measures: measures.collect(),
            queries: asked.into_iter().map(str::to_owned).collect(),
        })
    }
}

/// The hash of what is measured on: passages, queries and their judgments.
fn content(
    corpus: &Corpus,
    queries: &Queries,
    chosen: &[QueryIndex],
    qrels: &Qrels,
) -> Result<ContentHash, DevError> {
    let mut hasher = ContentHasher::new();
    hasher.update(&corpus.fingerprint().0.to_le_bytes());
    hasher.update(&queries.fingerprint_of(chosen)?.0.to_le_bytes());
    for &query in chosen {
        let judgments = qrels.judgments(queries.id(query));
        hasher.update(&(judgments.len() as u64).to_le_bytes());
        for (passage, relevance) in judgments {
            hasher.update_text(passage);
            hasher.update(&relevance.to_le_bytes());
        }
    }
    Ok(hasher.finish())
}

/// Measures query by query: what `evaluations/<name>.json` of a run holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryMeasures {
    /// BEIR folder, as it was given.
    pub data: PathBuf,
    /// Split of the judgments.
    pub split: String,
    /// Hash of the passages, queries and judgments; absent in files of earlier versions.
    #[serde(default)]
    pub content: Option<ContentHash>,
    /// Ids of the queries that have a relevant passage.
    pub queries: Vec<String>,
    /// Values by the measure's name, in the order of `queries`.
    pub measures: BTreeMap<String, Vec<f64>>,
}

impl QueryMeasures {
    /// The means over the queries, by the measure's name.
    pub fn means(&self) -> BTreeMap<String, f64> {
        let mean = |values: &Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
        self.measures.iter().map(|(name, values)| (name.clone(), mean(values))).collect()
    }

    /// The file of these measures in the output folder of a run.
    pub fn path(run: &Path, name: &str) -> PathBuf {
        run.join(EVALUATIONS_FOLDER).join(format!("{name}.json"))
    }

    /// Writes the measures, whole or not at all.
    ///
    /// # Errors
    /// When the file or its folder cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), DevError> {
        if let Some(folder) = path.parent() {
            contaccum_files::create_folder(folder)?;
        }
        let text = serde_json::to_string(self).expect("numbers and strings are JSON");
        Ok(contaccum_files::write(path, |file| file.write_all(text.as_bytes()))?)
    }

    /// Reads what [`Self::write`] wrote; `None` where there is no file.
    ///
    /// # Errors
    /// When the file cannot be read or is broken.
    pub fn read(path: &Path) -> Result<Option<Self>, DevError> {
        let not_read = |reason: String| DevError::NotRead { path: path.into(), reason };
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|error| not_read(error.to_string()))?,
        };
        let read: Self = serde_json::from_str(&text).map_err(|error| not_read(error.to_string()))?;
        match read.measures.iter().find(|(_, values)| values.len() != read.queries.len()) {
            None => Ok(Some(read)),
            Some((name, values)) => {
                Err(not_read(format!("{} values of {name} for {} queries", values.len(), read.queries.len())))
            }
        }
    }
}
