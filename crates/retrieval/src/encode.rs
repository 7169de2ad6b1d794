//! Turning texts into vectors: length-sorted packed batches, shard after shard to disk.

use std::sync::mpsc::sync_channel;

use contaccum_encoder::{PackedTokens, TokenSequence};
use rayon::prelude::*;

use crate::embeddings::{EmbeddingStore, StoreError};
use crate::manifest::{BatchLimits, StoreDescription};
use crate::writer::StoreWriter;

/// Whatever a source of passages fails with.
type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Why a corpus could not be encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The store could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A passage could not be read or tokenised.
    #[error("passage {row}: {source}")]
    Source {
        /// Row in the corpus.
        row: usize,
        /// What the source said.
        source: SourceError,
    },
    /// A sequence does not fit in a batch.
    #[error(
        "text {row} has {tokens} tokens, more than a batch of {max_tokens}; truncate it or allow more tokens per batch"
    )]
    TooLong {
        /// Row in the corpus.
        row: usize,
        /// Its length.
        tokens: usize,
        /// The bound of a batch.
        max_tokens: usize,
    },
    /// A vector is not made of numbers.
    #[error("text {row} got a vector with NaN or infinity in it; the model's weights are not sound")]
    NotFinite {
        /// Row in the corpus.
        row: usize,
    },
}

/// One passage of a corpus, ready to be encoded.
#[derive(Clone, Debug)]
pub struct Passage {
    /// Its id in the corpus.
    pub id: String,
    /// Its tokens.
    pub tokens: TokenSequence,
}

/// How far an encoding has come. Shards found complete on resuming count as rows, not as tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeProgress {
    /// Passages done.
    pub rows: usize,
    /// Passages in the corpus.
    pub total_rows: usize,
    /// Tokens encoded by this call.
    pub tokens: usize,
}

/// Encodes what a store still lacks.
///
/// `passage` gives the passage of a row, and is called from many threads, a shard ahead of the encoder. `embed`
/// writes the vectors of a packed batch, `[sequences, dim]` row-major. Within a shard passages are sorted by length
/// and packed within the description's batch limits, so that a shard's bytes depend on its passages alone and a
/// resumed encoding equals an uninterrupted one. Two shards are in memory at once.
///
/// # Errors
/// One line that says which passage or file and what to do; nothing already encoded is lost.
pub fn encode<E: Into<SourceError> + Send>(
    mut store: StoreWriter,
    passage: impl Fn(usize) -> Result<Passage, E> + Sync,
    mut embed: impl FnMut(&PackedTokens, &mut [f32]),
    mut progress: impl FnMut(EncodeProgress),
) -> Result<EmbeddingStore, EncodeError> {
    let description = store.description().clone();
    let pending = store.pending();
    let mut done = EncodeProgress { rows: store.complete_rows(), total_rows: description.rows, tokens: 0 };
    std::thread::scope(|scope| {
        // A channel of no capacity: the reader is one shard ahead and waits there.
        let (sender, receiver) = sync_channel(0);
        let reading = pending.clone();
        let (passage, description) = (&passage, &description);
        scope.spawn(move || {
            for shard in reading {
                let passages = read_shard(description, shard, passage);
                let failed = passages.is_err();
                if sender.send(passages).is_err() || failed {
                    return;
                }
            }
        });
        for (&shard, passages) in pending.iter().zip(receiver) {
            let passages = passages?;
            let sequences: Vec<&TokenSequence> = passages.iter().map(|passage| &passage.tokens).collect();
            let first_row = description.shard_range(shard).start;
            let mut advance = |batch: &PackedTokens| {
                done.rows += batch.sequences();
                done.tokens += batch.tokens();
                progress(done);
            };
            let vectors = embed_sorted(
                &sequences,
                first_row,
                description.dim,
                description.batch,
                &mut embed,
                &mut advance,
            )?;
            store.write_shard(shard, passages.iter().map(|passage| passage.id.as_str()), &vectors)?;
        }
        Ok::<_, EncodeError>(())
    })?;
    Ok(store.finish()?)
}

/// Encodes texts that stay in memory, as queries do: `[sequences.len(), dim]` row-major, in the order given.
///
/// # Errors
/// When a sequence does not fit in a batch, or a vector holds NaN or infinity.
pub fn encode_in_memory(
    sequences: &[TokenSequence],
    dim: usize,
    limits: BatchLimits,
    mut embed: impl FnMut(&PackedTokens, &mut [f32]),
) -> Result<Vec<f32>, EncodeError> {
    limits.check(dim)?;
    let sequences: Vec<&TokenSequence> = sequences.iter().collect();
    embed_sorted(&sequences, 0, dim, limits, &mut embed, &mut |_| {})
}

/// The passages of a shard, read and tokenised on the rayon pool; the first failing row is the one reported.
fn read_shard<E: Into<SourceError> + Send>(
    description: &StoreDescription,
    shard: usize,
    passage: &(impl Fn(usize) -> Result<Passage, E> + Sync),
) -> Result<Vec<Passage>, EncodeError> {
    let rows = description.shard_range(shard);
    let passages: Vec<_> = rows.clone().into_par_iter().map(passage).collect();
    rows.zip(passages)
        .map(|(row, passage)| passage.map_err(|error| EncodeError::Source { row, source: error.into() }))
        .collect()
}

/// Embeds sequences in batches of similar length and returns their vectors in the order given.
fn embed_sorted(
    sequences: &[&TokenSequence],
    first_row: usize,
    dim: usize,
    limits: BatchLimits,
    embed: &mut impl FnMut(&PackedTokens, &mut [f32]),
    after_batch: &mut impl FnMut(&PackedTokens),
) -> Result<Vec<f32>, EncodeError> {
    // Longest first: a shard that does not fit in memory fails at once, not at its end.
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by_key(|&row| std::cmp::Reverse(sequences[row].ids.len()));
    if let Some(&row) = order.first()
        && sequences[row].ids.len() > limits.max_tokens
    {
        let tokens = sequences[row].ids.len();
        return Err(EncodeError::TooLong { row: first_row + row, tokens, max_tokens: limits.max_tokens });
    }
    let mut vectors = vec![0.0f32; sequences.len() * dim];
    let mut batch = PackedTokens::default();
    let mut embedded = Vec::new();
    let mut rest = order.as_slice();
    while !rest.is_empty() {
        let size = batch_size(rest, sequences, limits);
        let (rows, after) = rest.split_at(size);
        rest = after;
        batch.clear();
        rows.iter().for_each(|&row| batch.push(sequences[row]));
        embedded.resize(size * dim, 0.0);
        embed(&batch, &mut embedded);
        for (&row, vector) in rows.iter().zip(embedded.chunks_exact(dim)) {
            if !vector.iter().all(|x| x.is_finite()) {
                return Err(EncodeError::NotFinite { row: first_row + row });
            }
            vectors[row * dim..(row + 1) * dim].copy_from_slice(vector);
        }
        after_batch(&batch);
    }
    Ok(vectors)
}

/// How many of the first sequences in `order` fit in one batch: at least one.
fn batch_size(order: &[usize], sequences: &[&TokenSequence], limits: BatchLimits) -> usize {
    let mut tokens = 0;
    order
        .iter()
        .take(limits.max_sequences)
        .take_while(|&&row| {
            tokens += sequences[row].ids.len();
            tokens <= limits.max_tokens
        })
        .count()
}
