#![doc = include_str!("../README.md")]
//!
//! # How it works
//!
//! The crate knows representations, not encoders. A step sees the matrix of ContAccum (arXiv 2406.12356, eq. 5):
//! columns are current positives, banked positives, current hard negatives and banked hard negatives; rows are
//! current queries and, with [`Rows::All`], banked queries; the target of a row is its own positive; the loss is
//! the mean cross-entropy over all rows. What is banked and which rows count is chosen in [`ObjectiveConfig`];
//! the methods of the literature are points of that space.
//!
//! Invariants:
//!
//! * the matrix is never materialised: every pass works on tiles of [`ObjectiveConfig::tile_logits`] logits;
//! * the bank × bank part does not depend on the batch, so it lives on as one log-sum-exp per banked row, kept in
//!   blocks of columns that leave whole (see `block_sums.rs`); banks that move with the encoder keep it where one
//!   encoder moves rows and columns alike, and make it again once an update otherwise (see `moving.rs`);
//! * sums over "the other columns" exclude a row's own positive, whose score is a scalar of its own: losses near
//!   zero and gradients near zero keep their relative precision;
//! * logits are `f32`, sums of exponentials `f64`; NaN inputs give a NaN loss;
//! * every reduction is cut into as many parts as the pool had threads when the objective was made: same
//!   inputs, same thread count, same machine, same bits;
//! * [`Objective::new`] allocates every buffer; [`Objective::memory_bytes`] tells their exact size beforehand.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod bank;
mod batch;
mod block_sums;
mod column_gradients;
mod config;
mod current_rows;
mod dots;
mod known_positives;
mod moving;
mod objective;
mod softmax;
mod state;
mod worker;

pub use batch::{Batch, GradientsMut};
pub use config::{BankDrift, BankDtype, Compensation, NO_PASSAGE, ObjectiveConfig, RowScale, Rows};
pub use known_positives::KnownPositives;
pub use moving::{BankMovement, Probe};
pub use objective::{LossReport, Objective};
pub use state::{ObjectiveError, ObjectiveState};
