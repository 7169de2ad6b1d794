//! Total batches, tokenised ahead of the step by a worker thread.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use contaccum_data::{BatchPlan, PassageIndex, Sample, TrainingSet};
use contaccum_encoder::{ModelSettings, TextTokenizer, TokenSequence};

use crate::{TokenizedSample, TrainConfig, TrainError};

/// Batches ready before they are asked for.
const AHEAD: usize = 2;

/// What turns a row into tokens.
pub struct RowTokenizer {
    set: Arc<TrainingSet>,
    tokenizer: Arc<TextTokenizer>,
    settings: ModelSettings,
}

impl RowTokenizer {
    /// Tokenises rows of `set` with the prompts, lengths and passage format of `settings`.
    pub fn new(set: Arc<TrainingSet>, tokenizer: Arc<TextTokenizer>, settings: ModelSettings) -> Self {
        Self { set, tokenizer, settings }
    }

    /// The rows' texts.
    pub(crate) fn set(&self) -> &TrainingSet {
        &self.set
    }

    /// The query of a row as tokens.
    pub(crate) fn query(&self, row: usize) -> Result<TokenSequence, TrainError> {
        let text = self.set.query_text(self.set.row(row).query)?;
        let text = match self.set.row_prompt(row) {
            Some(prompt) => format!("{prompt}{text}"),
            None => self.settings.prompted_query(&text),
        };
        Ok(self.tokenizer.query(&text, self.settings.query_max_length)?)
    }

    /// A passage as tokens.
    pub(crate) fn passage(&self, passage: PassageIndex) -> Result<TokenSequence, TrainError> {
        let passage = self.set.passage(passage)?;
        let (title, text) = self.settings.prompted_passage(&passage.title, &passage.text);
        let (format, longest) = (self.settings.passage_format, self.settings.passage_max_length);
        Ok(self.tokenizer.passage(&title, &text, format, longest)?)
    }

    /// One row as tokens.
    ///
    /// # Errors
    /// A text that cannot be read back or tokenised.
    pub fn tokenize(&self, sample: &Sample) -> Result<TokenizedSample, TrainError> {
        let content = |index| self.set.corpus().first_of_equal(index).0;
        Ok(TokenizedSample {
            query: self.query(sample.row)?,
            positive: self.passage(sample.positive)?,
            hard_negatives: sample.negatives.iter().map(|n| self.passage(*n)).collect::<Result<_, _>>()?,
            query_id: self.set.queries().first_of_equal(sample.query).0,
            positive_id: content(sample.positive),
            hard_negative_ids: sample.negatives.iter().map(|n| content(*n)).collect(),
        })
    }
}

/// The batches of a range of updates, in order.
pub struct Loader {
    batches: Option<Receiver<Result<Vec<TokenizedSample>, TrainError>>>,
    worker: Option<JoinHandle<()>>,
}

impl Loader {
    /// Bytes of the batches held at once, at their longest: those ready, the one being made and the one being used.
    pub fn memory_bytes(config: &TrainConfig) -> usize {
        let sequence = size_of::<TokenSequence>() + size_of::<u32>();
        let row = size_of::<TokenizedSample>()
            + config.passages_per_row() * sequence
            + config.row_tokens() * size_of::<u32>();
        // Saturates for the batches that only a comparison asks about, see `TrainConfig::as_grad_cache`.
        ((AHEAD + 2) * config.total_batch_size()).saturating_mul(row)
    }

    /// Starts preparing the batches of `updates` (0 is the first of the run).
    pub fn start(rows: RowTokenizer, plan: BatchPlan, updates: Range<usize>) -> Self {
        let (sender, batches) = sync_channel(AHEAD);
        let worker = std::thread::spawn(move || {
            for update in updates {
                let batch = plan.batch(update as u64).iter().map(|sample| rows.tokenize(sample)).collect();
                if sender.send(batch).is_err() {
                    return;
                }
            }
        });
        Self { batches: Some(batches), worker: Some(worker) }
    }
}

impl Iterator for Loader {
    type Item = Result<Vec<TokenizedSample>, TrainError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.batches.as_ref()?.recv().ok()
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // The worker stops at its next send once the receiver is gone.
        self.batches = None;
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}
