//! The fused operations of a step at MiniLM's shape: 16 sequences of 160 tokens, dropout on. Bytes are those an operation
//! must read and write at least, so that GB/s can be held against the machine's memory; attention counts floating
//! point operations of its products instead.

use contaccum_kernels::{
    Activation, AdamW, AttentionShape, Dropout, EmbeddingGradients, EmbeddingIndices, EmbeddingTables,
    LayerNorm, Partials, Pooling, Site, TokenRows, activation_backward, activation_forward, adamw,
    add_column_sums, attention_backward, attention_forward, attention_scratch_len, embedding_backward,
    embedding_forward, layer_norm_output, pool_forward, residual_layer_norm_backward,
    residual_layer_norm_forward, squared_norm,
};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};

const SEQUENCES: usize = 16;
const LENGTH: usize = 160;
const TOKENS: usize = SEQUENCES * LENGTH;
const WIDTH: usize = 384;
const WIDE: usize = 4 * WIDTH;
const HEADS: usize = 12;
const WORDS: usize = 30_522;
const SHAPE: AttentionShape = AttentionShape { heads: HEADS, head_width: WIDTH / HEADS, window: None };

fn main() {
    divan::main();
}

fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 2_654_435_761) % 1_000_003) as f32 / 5e5 - 1.0).collect()
}

fn dropout() -> Dropout {
    Dropout::new(0.1, 1, 1).expect("the rate is above 0")
}

fn floats(count: usize) -> BytesCount {
    BytesCount::new(count * size_of::<f32>())
}

/// What a mask over token rows depends on.
struct Rows {
    keys: Vec<u32>,
    positions: Vec<u32>,
}

impl Rows {
    fn new() -> Self {
        let tokens = 0..TOKENS as u32;
        Self {
            keys: tokens.clone().map(|t| t / LENGTH as u32).collect(),
            positions: tokens.map(|t| t % LENGTH as u32).collect(),
        }
    }

    fn view(&self) -> TokenRows<'_> {
        TokenRows { keys: &self.keys, positions: &self.positions }
    }
}

fn offsets() -> Vec<u32> {
    (0..=SEQUENCES).map(|s| (s * LENGTH) as u32).collect()
}

fn attention(bencher: Bencher, products: usize, backward: bool) {
    let (offsets, keys) = (offsets(), (0..SEQUENCES as u32).collect::<Vec<_>>());
    let (qkv, upstream, dropout) = (values(TOKENS * 3 * WIDTH), values(TOKENS * WIDTH), dropout());
    let (mut context, mut lse) = (vec![0.0; TOKENS * WIDTH], vec![0.0; TOKENS * HEADS]);
    let mut gradient = vec![0.0; qkv.len()];
    let mut scratch = vec![0.0; attention_scratch_len(LENGTH, contaccum_kernels::threads())];
    let mask = Some((&dropout, Site::attention(0)));
    attention_forward(SHAPE, &qkv, &offsets, &keys, None, mask, &mut context, &mut lse, &mut scratch);
    let operations = products * 2 * SEQUENCES * LENGTH * LENGTH * WIDTH;
    bencher.counter(ItemsCount::new(operations)).bench_local(|| match backward {
        false => {
            attention_forward(SHAPE, &qkv, &offsets, &keys, None, mask, &mut context, &mut lse, &mut scratch)
        }
        true => attention_backward(
            SHAPE,
            &qkv,
            &context,
            &lse,
            &offsets,
            &keys,
            None,
            mask,
            &upstream,
            &mut gradient,
            &mut scratch,
        ),
    });
}

#[divan::bench(name = "attention_forward", sample_count = 50)]
fn forward_attention(bencher: Bencher) {
    attention(bencher, 2, false);
}

#[divan::bench(name = "attention_backward", sample_count = 50)]
fn backward_attention(bencher: Bencher) {
    attention(bencher, 5, true);
}

#[divan::bench(name = "gelu_forward", sample_count = 50)]
fn forward_gelu(bencher: Bencher) {
    let (mut x, bias, mut y) = (values(TOKENS * WIDE), vec![0.0; WIDE], vec![0.0; TOKENS * WIDE]);
    bencher
        .counter(floats(3 * x.len()))
        .bench_local(|| activation_forward(Activation::Gelu, &mut x, &bias, &mut y));
}

#[divan::bench(name = "gelu_backward", sample_count = 50)]
fn backward_gelu(bencher: Bencher) {
    let (mut x, mut gradient) = (values(TOKENS * WIDE), values(TOKENS * WIDE));
    let (mut bias_gradient, mut partials) = (vec![0.0; WIDE], Partials::new(WIDE));
    bencher.counter(floats(4 * x.len())).bench_local(|| {
        activation_backward(Activation::Gelu, &mut x, &mut gradient, &mut bias_gradient, &mut partials)
    });
}

#[divan::bench(name = "residual_layer_norm_forward", sample_count = 50)]
fn forward_norm(bencher: Bencher) {
    let (weight, bias, rows, dropout) = (vec![1.0; WIDTH], vec![0.0; WIDTH], Rows::new(), dropout());
    let norm = LayerNorm { weight: &weight, bias: Some(&bias), epsilon: 1e-12 };
    let (mut branch, mut hidden, mut rstd) =
        (values(TOKENS * WIDTH), values(TOKENS * WIDTH), vec![0.0; TOKENS]);
    let mask = Some((&dropout, Site::attention_output(0), rows.view()));
    bencher.counter(floats(4 * branch.len())).bench_local(|| {
        residual_layer_norm_forward(norm, &mut branch, &bias, mask, &mut hidden, &mut rstd);
    });
}

#[divan::bench(name = "residual_layer_norm_backward", sample_count = 50)]
fn backward_norm(bencher: Bencher) {
    let (weight, rows, dropout) = (vec![1.0; WIDTH], Rows::new(), dropout());
    let (xhat, rstd) = (values(TOKENS * WIDTH), vec![1.0; TOKENS]);
    let (mut gradient, mut branch) = (values(TOKENS * WIDTH), vec![0.0; TOKENS * WIDTH]);
    let mut sums = [vec![0.0; WIDTH], vec![0.0; WIDTH], vec![0.0; WIDTH]];
    let mut partials = Partials::new(3 * WIDTH);
    let mask = Some((&dropout, Site::attention_output(0), rows.view()));
    bencher.counter(floats(4 * xhat.len())).bench_local(|| {
        let [dw, db, dbranch] = &mut sums;
        residual_layer_norm_backward(
            &weight,
            &xhat,
            &rstd,
            mask,
            &mut gradient,
            &mut branch,
            (dw, db, dbranch),
            &mut partials,
        );
    });
}

#[divan::bench(name = "layer_norm_output", sample_count = 50)]
fn norm_again(bencher: Bencher) {
    let (weight, bias) = (vec![1.0; WIDTH], vec![0.0; WIDTH]);
    let norm = LayerNorm { weight: &weight, bias: Some(&bias), epsilon: 1e-12 };
    let (xhat, mut out) = (values(TOKENS * WIDTH), vec![0.0; TOKENS * WIDTH]);
    bencher.counter(floats(2 * xhat.len())).bench_local(|| layer_norm_output(norm, &xhat, &mut out));
}

#[divan::bench(name = "add_column_sums", sample_count = 50)]
fn column_sums(bencher: Bencher) {
    let (matrix, mut sums) = (values(TOKENS * 3 * WIDTH), vec![0.0; 3 * WIDTH]);
    let mut partials = Partials::new(3 * WIDTH);
    bencher.counter(floats(matrix.len())).bench_local(|| add_column_sums(&matrix, &mut sums, &mut partials));
}

fn embedding(bencher: Bencher, backward: bool) {
    let (words, positions, types) = (values(WORDS * WIDTH), values(512 * WIDTH), values(2 * WIDTH));
    let (weight, bias, rows, dropout) = (vec![1.0; WIDTH], vec![0.0; WIDTH], Rows::new(), dropout());
    let norm = LayerNorm { weight: &weight, bias: Some(&bias), epsilon: 1e-12 };
    let tables = EmbeddingTables { words: &words, positions: Some(&positions), types: Some(&types), norm };
    let ids: Vec<u32> = (0..TOKENS).map(|t| (t * 104_729 % 30_000) as u32).collect();
    let kinds = vec![0u8; TOKENS];
    let indices = EmbeddingIndices { words: &ids, positions: &rows.positions, types: &kinds };
    let (mut hidden, mut scratch) = (values(TOKENS * WIDTH), vec![0.0; TOKENS * WIDTH]);
    let mut gradients = [
        vec![0.0; words.len()],
        vec![0.0; positions.len()],
        vec![0.0; types.len()],
        vec![0.0; WIDTH],
        vec![0.0; WIDTH],
    ];
    let mut partials = Partials::new(3 * WIDTH);
    bencher.counter(floats(2 * hidden.len())).bench_local(|| match backward {
        false => embedding_forward(tables, indices, rows.view(), Some(&dropout), &mut hidden),
        true => {
            let [words, positions, types, norm_weight, norm_bias] = &mut gradients;
            embedding_backward(
                tables,
                indices,
                rows.view(),
                Some(&dropout),
                &mut hidden,
                &mut scratch,
                EmbeddingGradients { words, positions, types, norm_weight, norm_bias: Some(norm_bias) },
                &mut partials,
            );
        }
    });
}

#[divan::bench(name = "embedding_forward", sample_count = 50)]
fn forward_embedding(bencher: Bencher) {
    embedding(bencher, false);
}

#[divan::bench(name = "embedding_backward", sample_count = 50)]
fn backward_embedding(bencher: Bencher) {
    embedding(bencher, true);
}

#[divan::bench(name = "pool_forward", sample_count = 50)]
fn pooling(bencher: Bencher) {
    let (hidden, offsets, mut out) = (values(TOKENS * WIDTH), offsets(), vec![0.0; SEQUENCES * WIDTH]);
    bencher
        .counter(floats(hidden.len()))
        .bench_local(|| pool_forward(Pooling::Mean, &hidden, &offsets, WIDTH, &mut out, &mut []));
}

/// Parameters of MiniLM.
const PARAMETERS: usize = 22_565_376;

#[divan::bench(name = "adamw", sample_count = 20)]
fn optimizer(bencher: Bencher) {
    let [mut weights, mut gradient, mut moment1, mut moment2] = [(); 4].map(|()| vec![0.001; PARAMETERS]);
    let constants = AdamW {
        learning_rate: 1e-5,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.0,
        step: 1,
        gradient_scale: 1.0,
    };
    bencher
        .counter(floats(8 * PARAMETERS))
        .bench_local(|| adamw(constants, &mut weights, &mut gradient, &mut moment1, &mut moment2));
}

#[divan::bench(name = "squared_norm", sample_count = 20)]
fn norm_of_gradient(bencher: Bencher) {
    let gradient = vec![0.001; PARAMETERS];
    bencher.counter(floats(PARAMETERS)).bench_local(|| squared_norm(&gradient));
}
