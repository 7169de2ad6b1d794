#![doc = include_str!("../README.md")]
//!
//! # How it works
//!
//! The crate knows shapes, not models. Invariants shared by every operation:
//!
//! * activations and input gradients are overwritten, parameter gradients are accumulated (`+=`);
//! * sequences are packed: all tokens back to back, with cumulative offsets (`offsets.len() == sequences + 1`);
//! * every reduction over rows is cut into a fixed number of parts that depends on the thread count alone,
//!   so the same seed, thread count and machine give the same bits;
//! * work is spread over the current `rayon` pool, and no operation allocates.
//!
//! This is the only crate of the workspace with `unsafe` code; the others forbid it. Every public function is safe with
//! any arguments: shapes are held against buffers with checked arithmetic, offsets must ascend, and what threads share
//! (`parallel::Shared`) gives out parts of its buffer alone.
#![deny(missing_docs)]

mod activation;
mod adamw;
mod attention;
mod bf16;
mod dropout;
mod embedding;
mod gated;
mod layer_norm;
mod linear;
mod math;
mod matrix;
mod parallel;
mod pooling;
mod pre_norm;
mod relative_bias;
mod resident;
mod rotary;
#[cfg(test)]
mod testing;

pub use activation::{Activation, activation_backward, activation_forward};
pub use adamw::{AdamW, adamw, squared_norm};
pub use attention::{
    AttentionShape, RelativeBias, attention_backward, attention_forward, attention_scratch_len,
};
pub use bf16::{Bf16Weight, NoBf16};
pub use dropout::{Dropout, Site, TokenDropout, TokenRows};
pub use embedding::{
    EmbeddingGradients, EmbeddingIndices, EmbeddingTables, embedding_backward, embedding_forward,
};
pub use gated::{gated_backward, gated_forward};
pub use layer_norm::{
    LayerNorm, layer_norm_output, residual_layer_norm_backward, residual_layer_norm_forward,
};
pub use linear::{add_column_sums, set_rows};
pub use matrix::{Mat, MatMut, matmul, matmul_on_this_thread};
pub use parallel::Partials;
pub use pooling::{Pooling, normalize_backward, normalize_forward, pool_backward, pool_forward};
pub use pre_norm::{layer_norm_backward, layer_norm_forward, residual_backward, residual_forward};
pub use relative_bias::BUCKETS;
pub use resident::resident_zeros;
pub use rotary::{Rotary, Turn};

/// Threads of the current pool.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// The instruction set that operations run on here. It decides how sums are cut, and so the last bits of a result.
pub fn instructions() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            return "x86-64 with AVX-512";
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return "x86-64 with AVX2 and FMA";
        }
    }
    std::env::consts::ARCH
}
