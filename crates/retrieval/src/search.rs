//! Exact search: the highest dot products of each query with every passage.
//!
//! Scores are made in tiles of some queries × some passages by a matrix product and looked at while they lie in
//! cache. A query keeps up to twice `k` candidates and the score of its `k`-th best at the last count; one
//! comparison over sixteen scores dismisses nearly all of them, so that choosing costs little beside the product.
//!
//! Equal scores are ordered by id, the higher first, as trec_eval orders them: which passages are found then depends on
//! their number as little as their order in a file does, and the first of one is the first of many.

use std::borrow::Cow;

use contaccum_kernels::{Mat, MatMut, matmul_on_this_thread, normalize_forward};
use rayon::prelude::*;

use crate::embeddings::{EmbeddingStore, StoreError};

/// Most queries of a tile: enough to repay packing the passages.
const QUERY_BLOCK: usize = 512;
/// Passages of a tile: their scores for a block of queries, and their vectors, stay in the second-level cache.
const PASSAGE_BLOCK: usize = 256;
/// Scores compared at once with the threshold.
const LANES: usize = 16;

/// Why a search gave no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Queries and passages were encoded to different widths.
    #[error("queries have {queries} dimensions, passages {passages}; encode both with the same model")]
    OtherDimension {
        /// Width of a query.
        queries: usize,
        /// Width of a passage.
        passages: usize,
    },
    /// A score is not a number.
    #[error(
        "the score of query {query} with passage {passage} is not a number; one of their vectors holds NaN or infinity"
    )]
    NotANumber {
        /// Row of the query.
        query: usize,
        /// Row of the passage.
        passage: u32,
    },
    /// No passages were asked for.
    #[error("the number of passages to find is 0; ask for at least 1")]
    NoneAsked,
    /// Rows are counted in 32 bits.
    #[error("the corpus has more than {} passages; split it", u32::MAX)]
    TooManyPassages,
}

/// A passage found for a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Row of the passage in the corpus.
    pub passage: u32,
    /// Its dot product with the query.
    pub score: f32,
}

/// Finds the `k` passages of highest dot product for each query, best first, the lower row first among equals; all
/// of them where the corpus has fewer. `queries` is `[_, dim]`, `passages` `[_, dim]`, row-major.
///
/// # Errors
/// When a score is not a number, `k` is 0, or there are more than `u32::MAX` passages.
///
/// # Panics
/// When a buffer is not a whole number of rows.
pub fn search(queries: &[f32], dim: usize, passages: &[f32], k: usize) -> Result<Vec<Vec<Hit>>, SearchError> {
    let mut search = Search::new(queries, dim, k, None)?;
    search.add(passages)?;
    Ok(search.finish())
}

/// [`search`] among passages that have ids: the one of the higher id is first among equals, as trec_eval has it.
///
/// # Errors
/// As [`search`].
///
/// # Panics
/// As [`search`], and when there are not as many ids as passages.
pub fn search_named(
    queries: &[f32],
    dim: usize,
    passages: &[f32],
    ids: &[String],
    k: usize,
) -> Result<Vec<Vec<Hit>>, SearchError> {
    assert_eq!(passages.len(), ids.len() * dim, "an id for each passage");
    let mut search = Search::new(queries, dim, k, Some(Ranks::by_id(ids)))?;
    search.add(passages)?;
    Ok(search.finish())
}

/// [`search_named`] over a store with its ids, one shard in memory at a time. Where the model compares by cosine and does
/// not normalise its vectors by itself, they are normalised here.
///
/// # Errors
/// As [`search`], when the store cannot be read, or its vectors have another width.
///
/// # Panics
/// When `queries` is not a whole number of rows, or the ids are not those of the store.
pub fn search_store(
    queries: &[f32],
    dim: usize,
    store: &EmbeddingStore,
    ids: &[String],
    k: usize,
) -> Result<Vec<Vec<Hit>>, SearchError> {
    assert_eq!(store.description().rows, ids.len(), "an id for each passage");
    let passages = store.description().dim;
    if passages != dim {
        return Err(SearchError::OtherDimension { queries: dim, passages });
    }
    let normalizing = store.description().needs_normalizing();
    let queries =
        if normalizing { Cow::Owned(normalized(queries.to_vec(), dim)) } else { Cow::Borrowed(queries) };
    let mut search = Search::new(&queries, dim, k, Some(Ranks::by_id(ids)))?;
    let mut vectors = Vec::new();
    for shard in 0..store.shards() {
        store.read_shard(shard, &mut vectors)?;
        if normalizing {
            vectors = normalized(vectors, dim);
        }
        search.add(&vectors)?;
    }
    Ok(search.finish())
}

/// The order of passages among equal scores: 8 bytes a passage.
struct Ranks {
    /// Rank of each row, from 0.
    of_row: Vec<u32>,
    /// Row of each rank.
    rows: Vec<u32>,
}

impl Ranks {
    /// The higher id first, compared as bytes.
    fn by_id(ids: &[String]) -> Self {
        let mut rows: Vec<u32> = (0..ids.len() as u32).collect();
        rows.par_sort_unstable_by(|&a, &b| ids[b as usize].cmp(&ids[a as usize]).then(a.cmp(&b)));
        let mut of_row = vec![0; ids.len()];
        for (rank, &row) in (0..).zip(&rows) {
            of_row[row as usize] = rank;
        }
        Self { of_row, rows }
    }
}

/// Bytes that a search for `k` passages of each of `queries` holds at most, in a pool of `threads`, while it goes: a tile
/// of each thread, and the candidates.
pub(crate) fn search_bytes(queries: usize, k: usize, threads: usize) -> usize {
    let tile = QUERY_BLOCK.min(queries) * PASSAGE_BLOCK * size_of::<f32>();
    // A list grows by doubling.
    let candidates = (2 * k).max(64).next_power_of_two() * size_of::<u64>();
    threads * tile + queries * (candidates + k * size_of::<Hit>())
}

/// Rows brought to length one.
fn normalized(mut vectors: Vec<f32>, dim: usize) -> Vec<f32> {
    let mut lengths = vec![0.0; vectors.len() / dim];
    normalize_forward(&mut vectors, &mut lengths);
    vectors
}

/// A search under way: what each query has found among the passages seen so far.
pub(crate) struct Search<'a> {
    queries: &'a [f32],
    dim: usize,
    k: usize,
    /// Lower rows are first among equal scores without.
    ranks: Option<Ranks>,
    seen: u32,
    found: Vec<Candidates>,
}

impl<'a> Search<'a> {
    /// A search among passages that have ids, see [`search_named`].
    pub(crate) fn named(
        queries: &'a [f32],
        dim: usize,
        ids: &[String],
        k: usize,
    ) -> Result<Self, SearchError> {
        Self::new(queries, dim, k, Some(Ranks::by_id(ids)))
    }

    fn new(queries: &'a [f32], dim: usize, k: usize, ranks: Option<Ranks>) -> Result<Self, SearchError> {
        assert!(dim > 0 && queries.len().is_multiple_of(dim), "queries are not a whole number of rows");
        if k == 0 {
            return Err(SearchError::NoneAsked);
        }
        let found = vec![Candidates::default(); queries.len() / dim];
        Ok(Self { queries, dim, k, ranks, seen: 0, found })
    }

    /// Looks at the next passages of the corpus.
    pub(crate) fn add(&mut self, passages: &[f32]) -> Result<(), SearchError> {
        let dim = self.dim;
        assert!(passages.len().is_multiple_of(dim), "passages are not a whole number of rows");
        let (first, ranks) = (self.seen, self.ranks.as_ref());
        let count = u32::try_from(passages.len() / dim).map_err(|_| SearchError::TooManyPassages)?;
        self.seen = first.checked_add(count).ok_or(SearchError::TooManyPassages)?;
        // Few queries are still spread over all threads.
        let block = self.found.len().div_ceil(rayon::current_num_threads()).clamp(1, QUERY_BLOCK);
        self.queries
            .par_chunks(block * dim)
            .zip(self.found.par_chunks_mut(block))
            .enumerate()
            .try_for_each_init(Vec::new, |tile, (index, (queries, found))| {
                let mut first = first;
                for passages in passages.chunks(PASSAGE_BLOCK * dim) {
                    let (rows, cols) = (found.len(), passages.len() / dim);
                    tile.resize(rows * cols, 0.0);
                    let scores = MatMut::new(tile, rows, cols);
                    let (q, p) = (Mat::new(queries, rows, dim), Mat::new(passages, cols, dim));
                    matmul_on_this_thread(scores, q, p.t(), 1.0, false);
                    for (row, (found, scores)) in found.iter_mut().zip(tile.chunks_exact(cols)).enumerate() {
                        found.offer(scores, first, ranks, self.k).map_err(|passage| {
                            SearchError::NotANumber { query: index * block + row, passage }
                        })?;
                    }
                    first += cols as u32;
                }
                Ok(())
            })
    }

    pub(crate) fn finish(self) -> Vec<Vec<Hit>> {
        let (k, ranks) = (self.k, self.ranks.as_ref());
        self.found.into_par_iter().map(|found| found.best(ranks, k)).collect()
    }
}

/// The best passages of one query so far and some that no longer are.
#[derive(Clone)]
struct Candidates {
    /// One integer for each, so that the better hit is the greater: see [`key`].
    keys: Vec<u64>,
    /// A score that `k` of them reach: passages seen later must reach it too.
    threshold: f32,
}

impl Default for Candidates {
    fn default() -> Self {
        Self { keys: Vec::new(), threshold: f32::NEG_INFINITY }
    }
}

impl Candidates {
    /// Takes the scores of passages `first ..`; fails with a passage whose score is NaN.
    fn offer(&mut self, scores: &[f32], first: u32, ranks: Option<&Ranks>, k: usize) -> Result<(), u32> {
        let (blocks, rest) = scores.as_chunks::<LANES>();
        for (block, passage) in blocks.iter().zip((first..).step_by(LANES)) {
            // NaN is not dismissed here: it compares false.
            let dismissed = block.iter().fold(true, |all, &score| all & (score < self.threshold));
            if !dismissed || self.keys.len() < k {
                self.take(block, passage, ranks, k)?;
            }
        }
        self.take(rest, first + (scores.len() - rest.len()) as u32, ranks, k)
    }

    /// Looks at scores one by one.
    fn take(&mut self, scores: &[f32], first: u32, ranks: Option<&Ranks>, k: usize) -> Result<(), u32> {
        for (&score, passage) in scores.iter().zip(first..) {
            if score.is_nan() {
                return Err(passage);
            }
            if score >= self.threshold || self.keys.len() < k {
                let rank = ranks.map_or(passage, |ranks| ranks.of_row[passage as usize]);
                self.keys.push(key(score, rank));
                if self.keys.len() == k.saturating_mul(2).max(64) {
                    self.keep_best(k);
                }
            }
        }
        Ok(())
    }

    /// Drops all but the best `k` and raises the threshold to the worst of them.
    fn keep_best(&mut self, k: usize) {
        let (_, worst, _) = self.keys.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
        self.threshold = hit(*worst).score;
        self.keys.truncate(k);
    }

    /// The best `k`, best first.
    fn best(mut self, ranks: Option<&Ranks>, k: usize) -> Vec<Hit> {
        self.keys.sort_unstable_by(|a, b| b.cmp(a));
        let row = |rank: u32| ranks.map_or(rank, |ranks| ranks.rows[rank as usize]);
        self.keys
            .iter()
            .take(k)
            .map(|&key| hit(key))
            .map(|Hit { passage, score }| Hit { passage: row(passage), score })
            .collect()
    }
}

const SIGN: u32 = 1 << 31;

/// Orders hits by score, then by lower passage (or rank): the score's bits, made to ascend as integers, above the
/// passage's complement. The two zeros are one score.
fn key(score: f32, passage: u32) -> u64 {
    let bits = (score + 0.0).to_bits();
    let ascending = if bits & SIGN == 0 { bits | SIGN } else { !bits };
    u64::from(ascending) << 32 | u64::from(!passage)
}

/// The hit of a [`key`].
fn hit(key: u64) -> Hit {
    let ascending = (key >> 32) as u32;
    let bits = if ascending & SIGN != 0 { ascending & !SIGN } else { !ascending };
    Hit { passage: !(key as u32), score: f32::from_bits(bits) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Small whole numbers: exact products, many ties.
    fn vectors(rows: std::ops::Range<usize>, dim: usize) -> impl Strategy<Value = Vec<f32>> {
        rows.prop_flat_map(move |rows| prop::collection::vec((-2i8..=2).prop_map(f32::from), rows * dim))
    }

    fn brute_force(queries: &[f32], dim: usize, passages: &[f32], k: usize) -> Vec<Vec<Hit>> {
        let found = queries.chunks_exact(dim).map(|query| {
            let score = |passage: &[f32]| query.iter().zip(passage).map(|(q, p)| q * p).sum();
            let mut hits: Vec<Hit> = (0..)
                .zip(passages.chunks_exact(dim))
                .map(|(row, passage)| Hit { passage: row, score: score(passage) })
                .collect();
            hits.sort_by(|a, b| b.score.partial_cmp(&a.score).unwrap().then(a.passage.cmp(&b.passage)));
            hits.truncate(k);
            hits
        });
        found.collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn search_agrees_with_sorting_all_scores(
            queries in vectors(0..20, 3),
            passages in vectors(0..700, 3),
            k in prop_oneof![1usize..5, 30usize..150, Just(1000)],
        ) {
            prop_assert_eq!(search(&queries, 3, &passages, k).unwrap(), brute_force(&queries, 3, &passages, k));
        }

        #[test]
        fn the_first_of_few_are_the_first_of_many_and_equals_go_by_the_higher_id(
            passages in vectors(1..400, 2),
            k in 1usize..50,
        ) {
            let ids: Vec<String> = (0..passages.len() / 2).map(|row| format!("{}", (row * 7919) % 1000)).collect();
            let queries = [1.0, -2.0, 0.0, 1.0];
            let all = search_named(&queries, 2, &passages, &ids, 1000).unwrap();
            let few = search_named(&queries, 2, &passages, &ids, k).unwrap();
            for (all, few) in all.iter().zip(&few) {
                prop_assert_eq!(&all[..few.len()], few.as_slice());
                let id = |hit: &Hit| &ids[hit.passage as usize];
                let sorted = all.windows(2).all(|pair| {
                    let (one, other) = (&pair[0], &pair[1]);
                    one.score > other.score || one.score == other.score && id(one) > id(other)
                });
                prop_assert!(sorted, "{all:?}");
            }
        }

        #[test]
        fn shards_change_nothing(
            passages in vectors(1..400, 2),
            cut in 0.0..1.0f64,
            k in 1usize..50,
        ) {
            let queries = [1.0, -2.0, 0.0, 1.0];
            let cut = (passages.len() as f64 / 2.0 * cut) as usize * 2;
            let mut parts = Search::new(&queries, 2, k, None).unwrap();
            parts.add(&passages[..cut]).unwrap();
            parts.add(&passages[cut..]).unwrap();
            prop_assert_eq!(parts.finish(), search(&queries, 2, &passages, k).unwrap());
        }

        #[test]
        fn a_hit_survives_its_key_and_better_hits_have_greater_keys(
            a in prop::num::f32::ANY, b in prop::num::f32::ANY, i: u32, j: u32,
        ) {
            prop_assume!(!a.is_nan() && !b.is_nan());
            prop_assert_eq!(hit(key(a, i)), Hit { passage: i, score: a });
            let better = a.partial_cmp(&b).unwrap().then(j.cmp(&i));
            prop_assert_eq!(key(a, i).cmp(&key(b, j)), better);
        }
    }

    #[test]
    fn more_queries_than_a_tile_holds_keep_their_own_results() {
        let queries: Vec<f32> = (0..2 * QUERY_BLOCK * rayon::current_num_threads() + 3)
            .flat_map(|i| [(i % 7) as f32, (i % 11) as f32 - 5.0])
            .collect();
        let passages: Vec<f32> = (0..2 * (PASSAGE_BLOCK + 7)).map(|i| ((i * 5) % 13) as f32 - 6.0).collect();
        assert_eq!(search(&queries, 2, &passages, 3).unwrap(), brute_force(&queries, 2, &passages, 3));
    }

    #[test]
    fn a_corpus_smaller_than_k_is_returned_whole_even_at_minus_infinity() {
        let found = search(&[1.0], 1, &[3.0, f32::NEG_INFINITY, 5.0], 10).unwrap();
        let rows: Vec<u32> = found[0].iter().map(|hit| hit.passage).collect();
        assert_eq!(rows, [2, 0, 1]);
    }

    #[test]
    fn the_two_zeros_are_one_score() {
        let found = search(&[1.0], 1, &[-0.0, 0.0, -0.0], 2).unwrap();
        let rows: Vec<u32> = found[0].iter().map(|hit| hit.passage).collect();
        assert_eq!(rows, [0, 1]);
    }

    #[test]
    fn a_score_that_is_not_a_number_is_refused_with_its_rows() {
        let mut passages = vec![1.0; 1000];
        passages[901] = f32::NAN;
        for k in [1, 100, 2000] {
            let message = search(&[0.5, 1.0], 1, &passages, k).unwrap_err().to_string();
            assert!(message.contains("with passage 901 is not a number"), "{message}");
        }
    }

    #[test]
    fn asking_for_no_passages_is_refused() {
        assert!(matches!(search(&[1.0], 1, &[1.0], 0), Err(SearchError::NoneAsked)));
    }
}
