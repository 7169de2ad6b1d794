#![doc = include_str!("../README.md")]
//!
//! # How it works
//!
//! Files are read once, as a stream, plain or gzip or zstd (seen from their first bytes), by one reader
//! ([`Lines`]) for all. Ids and positions stay in memory; texts go to one unlinked temporary file and are
//! read back one record at a time, from any thread. Lines that are odd but can be read, or can be done
//! without, are counted ([`Notes`]) or, with [`Strictness::Strict`], refused.
//!
//! In the order data moves: [`Corpus`] and [`Queries`] hold texts, [`Qrels`] holds judgments, [`TrainingSet`]
//! joins them into [`Rows`], [`BatchPlan`] draws batches from rows.

#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod batching;
mod beir;
mod cells;
mod columns;
mod corpus;
mod distinct;
mod error;
mod folder;
mod foreign;
mod hard_negatives;
mod ids;
mod json;
mod literal;
mod nearest;
mod notes;
mod qrels;
mod queries;
mod records;
mod repeats;
mod row_array;
mod row_object;
mod row_table;
mod rows;
mod source;
mod store;
pub mod synthetic;
mod table;
mod training_file;
mod training_set;

pub use batching::{BatchConfig, BatchPlan, Sample};
pub use columns::Columns;
pub use corpus::Corpus;
pub use error::{Error, Kind, Place, Result};
pub use ids::{fits_trec, is_space, split_spaces, trim_id};
pub use nearest::{nearest, with_nearest};
pub use notes::{Note, Notes, Oddity, Strictness};
pub use qrels::Qrels;
pub use queries::Queries;
pub use rows::{Row, Rows};
pub use source::{Line, Lines};
pub use training_set::{Positives, Summary, TrainingSet, TrainingSource};

/// A passage's number in its [`Corpus`], from 0 in file order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PassageIndex(pub u32);

/// A query's number in its [`Queries`], from 0 in file order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryIndex(pub u32);

/// A passage as the file gives it, nothing trimmed or normalised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    /// The title; empty if the file gives none.
    pub title: String,
    /// The text.
    pub text: String,
}

impl Passage {
    /// True if neither title nor text holds anything but white space.
    pub fn is_blank(&self) -> bool {
        self.title.trim().is_empty() && self.text.trim().is_empty()
    }
}
