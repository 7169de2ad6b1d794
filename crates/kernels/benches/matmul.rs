//! Products of one layer at MiniLM's shape, 2,560 tokens: GFLOP/s is 2·m·n·k over the time.

use contaccum_kernels::{Mat, MatMut, matmul};
use divan::Bencher;
use divan::counter::ItemsCount;

fn main() {
    divan::main();
}

const TOKENS: usize = 2560;

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
