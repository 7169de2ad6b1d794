//! Forward and backward of one micro-batch at MiniLM's shape: 8 queries of 32 tokens, 16 passages of 160, dropout on.

use contaccum_encoder::{
    BertConfig, DropoutStream, Encoder, Keep, Layout, ModelConfig, ModelSettings, Pass, PassLimits,
    Recompute, TokenSequence, Workspace, random_weights,
};
use divan::Bencher;

fn main() {
    divan::main();
}

fn minilm() -> ModelConfig {
    let shape = BertConfig {
        hidden_size: 384,
        num_hidden_layers: 6,
        num_attention_heads: 12,
        intermediate_size: 1536,
        ..BertConfig::default()
    };
    shape.try_into().expect("a shape that can be built")
}

struct Setup {
    encoder: Encoder,
    pass: Pass,
    workspace: Workspace,
    vectors: Vec<f32>,
    gradient: Vec<f32>,
}

const STREAM: DropoutStream = DropoutStream { seed: 1, update: 1 };

fn setup(sequences: usize, length: usize) -> Setup {
    let config = minilm();
    let layout = Layout::new(&config);
    let weights = random_weights(&config, &layout, 1);
    let limits = PassLimits { tokens: sequences * length, sequences, longest: length };
    let mut pass = Pass::new(&config, limits);
    let keep = Keep::ForBackward { tokens: limits.tokens, recompute: Recompute::None };
    for s in 0..sequences {
        let ids = (0..length).map(|t| ((s * 7919 + t * 104_729) % 30_000) as u32).collect();
        pass.push(&TokenSequence { ids, second_segment: length }, s as u32);
    }
    Setup {
        workspace: Workspace::new(&config, limits, keep),
        vectors: vec![0.1; sequences * 384],
        gradient: vec![0.0; layout.parameters()],
        encoder: Encoder::new(config.clone(), ModelSettings::plain(&config), weights),
        pass,
    }
}

#[divan::bench(args = [(8, 32), (16, 160)], sample_count = 10)]
fn forward(bencher: Bencher, (sequences, length): (usize, usize)) {
    let mut s = setup(sequences, length);
    bencher.bench_local(|| s.encoder.represent(&mut s.pass, &mut s.workspace, Some(STREAM), &mut s.vectors));
}

#[divan::bench(args = [(8, 32), (16, 160)], sample_count = 10)]
fn forward_and_backward(bencher: Bencher, (sequences, length): (usize, usize)) {
    let mut s = setup(sequences, length);
    bencher.bench_local(|| {
        s.encoder.represent(&mut s.pass, &mut s.workspace, Some(STREAM), &mut s.vectors);
        s.vectors.fill(0.1);
        s.encoder.backpropagate(&mut s.pass, &mut s.workspace, Some(STREAM), &mut s.vectors, &mut s.gradient);
    });
}
