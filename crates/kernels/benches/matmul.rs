//! Products of one layer at MiniLM's shape, 2,560 tokens, beside the peak of the machine: items are floating point
//! operations, 2·m·n·k a product, so that Gitem/s is GFLOP/s.

use contaccum_kernels::{Mat, MatMut, matmul};
use divan::Bencher;
use divan::counter::ItemsCount;
use multiversion::multiversion;
use rayon::prelude::*;

fn main() {
    divan::main();
}

const TOKENS: usize = 2560;

/// Chains of multiply-adds that run side by side: enough to hide their latency, few enough to stay in registers.
const CHAINS: usize = 12 * 16;

const LINKS: usize = 1 << 16;

/// Multiply-adds on registers alone, on every thread: what no product can exceed.
#[divan::bench(sample_count = 20)]
fn peak(bencher: Bencher) {
    let threads = rayon::current_num_threads();
    bencher.counter(ItemsCount::new(threads * LINKS * CHAINS * 2)).bench_local(|| {
        (0..threads).into_par_iter().with_max_len(1).for_each(|_| {
            divan::black_box(chains(divan::black_box(0.5)));
        });
    });
}

#[multiversion(targets = "simd")]
fn chains(factor: f32) -> [f32; CHAINS] {
    let mut sums = [1.0f32; CHAINS];
    for _ in 0..LINKS {
        for sum in &mut sums {
            *sum = sum.mul_add(factor, 1.0);
        }
    }
    sums
}

/// (inputs, outputs) of the layer's products.
const SHAPES: [(usize, usize); 4] = [(384, 1152), (384, 384), (384, 1536), (1536, 384)];

fn bench(bencher: Bencher, (m, n, k): (usize, usize, usize), product: impl Fn(&mut [f32], &[f32], &[f32])) {
    let a = vec![0.5f32; m * k];
    let b = vec![0.25f32; k * n];
    let mut out = vec![0.0f32; m * n];
    bencher.counter(ItemsCount::new(2 * m * n * k)).bench_local(|| product(&mut out, &a, &b));
}

#[divan::bench(args = SHAPES, sample_count = 20)]
fn forward(bencher: Bencher, (inputs, outputs): (usize, usize)) {
    bench(bencher, (TOKENS, outputs, inputs), |out, x, w| {
        let (x, w) = (Mat::new(x, TOKENS, inputs), Mat::new(w, outputs, inputs));
        matmul(MatMut::new(out, TOKENS, outputs), x, w.t(), 1.0, false);
    });
}

#[divan::bench(args = SHAPES, sample_count = 20)]
fn input_gradient(bencher: Bencher, (inputs, outputs): (usize, usize)) {
    bench(bencher, (TOKENS, inputs, outputs), |out, dy, w| {
        let (dy, w) = (Mat::new(dy, TOKENS, outputs), Mat::new(w, outputs, inputs));
        matmul(MatMut::new(out, TOKENS, inputs), dy, w, 1.0, false);
    });
}

#[divan::bench(args = SHAPES, sample_count = 20)]
fn weight_gradient(bencher: Bencher, (inputs, outputs): (usize, usize)) {
    bench(bencher, (outputs, inputs, TOKENS), |out, dy, x| {
        let (dy, x) = (Mat::new(dy, TOKENS, outputs), Mat::new(x, TOKENS, inputs));
        matmul(MatMut::new(out, outputs, inputs), dy.t(), x, 1.0, true);
    });
}
