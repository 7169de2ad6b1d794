//! Measuring encoders on development data, in memory: between updates, and in the demo.

use std::collections::BTreeMap;
use std::path::Path;

use contaccum_data::{Corpus, PassageIndex, Qrels};
use contaccum_encoder::{Encoder, ModelSettings, TextTokenizer, TokenSequence};
use contaccum_retrieval::{BatchLimits, Measure, Run, encode_in_memory, evaluate, search};
use contaccum_training::TrainConfig;
use rayon::prelude::*;

use crate::model;
use crate::texts::ChosenQueries;

/// What is measured, under the names it is recorded by.
const MEASURES: [Measure; 4] =
    [Measure::NDcg(Some(10)), Measure::ReciprocalRank(Some(10)), Measure::Recall(100), Measure::Success(20)];

/// Passages per query: as deep as the measures look.
const TOP_K: usize = 100;

/// A corpus and judged queries as tokens.
pub struct DevSet {
    passage_ids: Vec<String>,
    passages: Vec<TokenSequence>,
    query_ids: Vec<String>,
    queries: Vec<TokenSequence>,
    qrels: Qrels,
    longest: usize,
}

impl DevSet {
    /// Reads and tokenises the split of a BEIR folder, all of it or its first `max_queries` queries, with the prompts
    /// of `settings` and the lengths of `config`.
    pub fn open(
        folder: &Path,
        split: &str,
        max_queries: Option<usize>,
        config: &TrainConfig,
        settings: &ModelSettings,
        tokenizer: &TextTokenizer,
    ) -> anyhow::Result<Self> {
        let mut texts = ChosenQueries::open(folder, Some(split))?;
        texts.chosen.truncate(max_queries.unwrap_or(usize::MAX));
        let corpus = Corpus::open(folder)?;
        let all = (0..corpus.len() as u32).map(PassageIndex);
        let passage = |index: PassageIndex| {
            let (format, longest) = (config.passage_format, config.passage_max_length);
            model::passage_tokens(tokenizer, settings, &corpus.get(index)?, format, longest)
        };
        let query = |&index: &_| {
            model::query_tokens(tokenizer, settings, &texts.queries.text(index)?, config.query_max_length)
        };
        Ok(Self {
            passage_ids: all.clone().map(|index| corpus.id(index).to_owned()).collect(),
            passages: all.collect::<Vec<_>>().into_par_iter().map(passage).collect::<anyhow::Result<_>>()?,
            query_ids: texts.ids(),
            queries: texts.chosen.par_iter().map(query).collect::<anyhow::Result<_>>()?,
            qrels: Qrels::open_split(folder, split)?,
            longest: config.query_max_length.max(config.passage_max_length),
        })
    }

    /// The means of the measures over the queries, by name.
    pub fn measure(&self, query: &Encoder, passage: &Encoder) -> anyhow::Result<BTreeMap<String, f64>> {
        let queries = self.vectors(query, &self.queries)?;
        let passages = self.vectors(passage, &self.passages)?;
        let found = search(&queries, query.dim(), &passages, TOP_K)?;
        let run = Run::from_hits(&self.query_ids, &self.passage_ids, &found)?;
        let evaluation = evaluate(&run, &self.qrels, &MEASURES)?;
        // The judgments may be of more queries than are asked here.
        let mean = |values: &BTreeMap<String, f64>| {
            let asked: Vec<f64> = self.query_ids.iter().filter_map(|id| values.get(id).copied()).collect();
            asked.iter().sum::<f64>() / asked.len() as f64
        };
        Ok(evaluation
            .results
            .iter()
            .map(|result| (result.measure.to_string(), mean(&result.per_query)))
            .collect())
    }

    fn vectors(&self, encoder: &Encoder, sequences: &[TokenSequence]) -> anyhow::Result<Vec<f32>> {
        let limits = BatchLimits { max_tokens: self.longest.max(4096), max_sequences: 64 };
        let embed = model::embed(encoder, limits, self.longest);
        Ok(encode_in_memory(sequences, encoder.dim(), limits, embed)?)
    }
}
