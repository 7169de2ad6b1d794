//! Every parser of files as a function of bytes. Whatever the bytes are, it returns: no panic, no hang, no memory
//! beyond the file's size times a small factor.
//!
//! `cargo fuzz run parser` drives them with coverage, `tests/mutations.rs` with seeded mutations on a stable compiler.

mod mutate;
mod seeds;
mod target;

pub use mutate::Mutator;
pub use target::{Scratch, TARGETS, Target};
