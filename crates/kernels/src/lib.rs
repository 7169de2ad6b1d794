//! Fused operations of a transformer encoder with their backward passes, on flat row-major `f32` buffers.
//!
//! The crate knows shapes, not models. Invariants shared by every operation:
//!
//! * activations and input gradients are overwritten, parameter gradients are accumulated (`+=`);
//! * sequences are packed: all tokens back to back, with cumulative offsets (`offsets.len() == sequences + 1`);
//! * every reduction over rows is cut into a fixed number of parts that depends on the thread count alone,
//!   so the same seed, thread count and machine give the same bits;
//! * work is spread over the current `rayon` pool.
//!
//! This is the only crate of the workspace with `unsafe` code.
#![deny(missing_docs)]

mod matrix;

pub use matrix::{Mat, MatMut, matmul, matmul_on_this_thread};
