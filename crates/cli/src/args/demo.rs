//! `contaccum demo`.

use clap::Args;

use super::{OutputArgs, ThreadArgs};

/// See the methods at work: no files, no network, some two minutes
///
/// Makes a synthetic corpus of facts and questions, trains a small encoder from random weights with grad-accum,
/// grad-cache, contaccum and the full batch, for the same number of updates, and with grad-cache in the time that
/// contaccum takes; compares them on questions not trained on.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Seed of the corpus, the encoder and the training
    #[arg(long, default_value_t = 42, value_parser = clap::value_parser!(u64).range(0..=i64::MAX as u64))]
    pub seed: u64,
    #[command(flatten)]
    pub threads: ThreadArgs,
    #[command(flatten)]
    pub format: OutputArgs,
}
