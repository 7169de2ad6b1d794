//! Buffers of every family take the bytes that a plan counts.

use contaccum_encoder::{
    DenseActivation, DenseShape, Keep, ModelConfig, Pass, PassLimits, Recompute, Workspace,
};
use serde_json::{Value, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// Many short sequences: the least buffer there is, one number a sequence, is larger than [`TABLES`].
const LIMITS: PassLimits = PassLimits { tokens: 8192, sequences: 2048, longest: 256 };

/// Where the buffers lie is kept beside them, a few words each.
const TABLES: usize = 2048;

fn models() -> [(&'static str, ModelConfig); 8] {
    let bert = |model_type: &str| {
        json!({
            "model_type": model_type, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 24, "vocab_size": 9, "max_position_embeddings": 300,
        })
    };
    let distilbert = json!({
        "model_type": "distilbert", "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "vocab_size": 9,
        "max_position_embeddings": 300,
    });
    let modernbert = json!({
        "model_type": "modernbert", "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
        "intermediate_size": 24, "vocab_size": 9, "local_attention": 8,
    });
    let of = |fields: Value| ModelConfig::from_fields(fields.as_object().unwrap()).unwrap();
    let dense = [(24, DenseActivation::Tanh), (6, DenseActivation::Identity)]
        .map(|(outputs, activation)| DenseShape { outputs, bias: true, activation });
    [
        ("bert", of(bert("bert"))),
        ("roberta", of(bert("roberta"))),
        ("xlm-roberta", of(bert("xlm-roberta"))),
        ("mpnet", of(bert("mpnet"))),
        ("distilbert", of(distilbert)),
        ("modernbert", of(modernbert.clone())),
        ("bert with Dense modules", of(bert("bert")).with_dense(dense.into())),
        ("modernbert with Dense modules", of(modernbert).with_dense(dense.into())),
    ]
}

/// Bytes that are held once `make` has made something.
fn held<T>(make: impl FnOnce() -> T) -> usize {
    let region = Region::new(ALLOCATOR);
    let made = make();
    let change = region.change();
    drop(made);
    change.bytes_allocated - change.bytes_deallocated
}

fn agree(held: usize, planned: usize, what: &str) {
    assert!((planned..planned + TABLES).contains(&held), "{what}: {held} bytes held, {planned} planned");
}

/// One test, so that no other allocates at the same time.
#[test]
fn what_a_pass_and_its_workspace_hold_is_what_was_planned_for_every_family() {
    // Threads of the pool allocate when they start.
    rayon::broadcast(|_| ());
    let kept = |recompute| Keep::ForBackward { tokens: LIMITS.tokens, recompute };
    for (name, config) in models() {
        agree(
            held(|| Pass::new(&config, LIMITS)),
            Pass::memory_bytes(&config, LIMITS),
            &format!("{name}: pass"),
        );
        for keep in Recompute::ALL.map(kept).into_iter().chain([Keep::Nothing]) {
            let planned = Workspace::activations_bytes(&config, LIMITS, keep)
                + Workspace::scratch_bytes(&config, LIMITS, keep, contaccum_kernels::threads());
            agree(
                held(|| Workspace::new(&config, LIMITS, keep)),
                planned,
                &format!("{name}: workspace, {keep:?}"),
            );
        }
    }
}
