//! Agreement with the reference values in `CONTACCUM_GOLDEN`, or in `reference/golden` of the shared folder.

mod plain;

use std::path::{Path, PathBuf};

use contaccum_objective::{Objective, ObjectiveConfig, Rows};
use plain::{OwnedBatch, Sample, relative_distance, step};
use safetensors::{Dtype, SafeTensors};

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    n: usize,
    hard: usize,
    bank: usize,
    bank_hard: usize,
    dim: usize,
    temperature: f32,
    rows: String,
    ids: Option<Ids>,
    loss: f64,
}

#[derive(serde::Deserialize)]
struct Ids {
    p: Vec<u32>,
    p_bank: Vec<u32>,
    h: Vec<u32>,
    h_bank: Vec<u32>,
}

/// The folder of reference values, or None (with a line saying so) where it may be missing.
fn golden() -> Option<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let shared =
        std::env::var_os("CONTACCUM_SHARED").map_or_else(|| workspace.join("../shared"), PathBuf::from);
    let folder =
        std::env::var_os("CONTACCUM_GOLDEN").map_or_else(|| shared.join("reference/golden"), PathBuf::from);
    if folder.join("loss.json").is_file() {
        return Some(folder);
    }
    let line =
        format!("no reference values in {}: set CONTACCUM_GOLDEN or CONTACCUM_SHARED", folder.display());
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{line}");
    eprintln!("skipped: {line}");
    None
}

/// A tensor as `f64`; one that is not there has no values.
fn values(tensors: &SafeTensors, name: &str) -> Vec<f64> {
    let Ok(tensor) = tensors.tensor(name) else { return Vec::new() };
    let data = tensor.data();
    match tensor.dtype() {
        Dtype::F64 => data.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect(),
        Dtype::F32 => data.as_chunks().0.iter().map(|&bytes| f64::from(f32::from_le_bytes(bytes))).collect(),
        other => panic!("{name} is {other:?}"),
    }
}

/// Samples from parallel lists, hard negatives dealt out as evenly as they go, in order.
fn samples(case: &Case, q: &[f64], p: &[f64], h: &[f64], ids: Option<(&[u32], &[u32])>) -> Vec<Sample> {
    let narrow = |values: &[f64]| values.iter().map(|&x| x as f32).collect::<Vec<_>>();
    let hard: Vec<&[f64]> = h.chunks(case.dim).collect();
    let n = q.len() / case.dim;
    (0..n)
        .map(|i| Sample {
            query: narrow(&q[i * case.dim..(i + 1) * case.dim]),
            query_id: i as u32,
            positive: narrow(&p[i * case.dim..(i + 1) * case.dim]),
            positive_id: ids.map_or(0, |(p, _)| p[i]),
            hard_negatives: (hard.len() * i / n..hard.len() * (i + 1) / n)
                .map(|j| (ids.map_or(0, |(_, h)| h[j]), narrow(hard[j])))
                .collect(),
        })
        .collect()
}

#[test]
fn loss_and_gradients_agree_with_the_reference() {
    let Some(folder) = golden() else { return };
    let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(folder.join("loss.json")).unwrap()).unwrap();
    let bytes = std::fs::read(folder.join("loss.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    assert!(!cases.is_empty());
    let mut wrong = Vec::new();
    for case in &cases {
        let tensor = |key: &str| values(&tensors, &format!("{}.{key}", case.name));
        let (q, p, h) = (tensor("q"), tensor("p"), tensor("h"));
        let (q_bank, p_bank, h_bank) = (tensor("q_bank"), tensor("p_bank"), tensor("h_bank"));
        assert_eq!(q.len(), case.n * case.dim);
        assert_eq!(h.len(), case.hard * case.dim);
        assert_eq!(q_bank.len(), case.bank * case.dim);
        assert_eq!(h_bank.len(), case.bank_hard * case.dim);
        let rows = match case.rows.as_str() {
            "all" => Rows::All,
            "current" => Rows::Current,
            other => panic!("{}: rows are {other}", case.name),
        };
        let ids = case.ids.as_ref();
        let current = samples(case, &q, &p, &h, ids.map(|ids| (&ids.p[..], &ids.h[..])));
        let banked =
            samples(case, &q_bank, &p_bank, &h_bank, ids.map(|ids| (&ids.p_bank[..], &ids.h_bank[..])));
        let most_hard = current.iter().chain(&banked).map(|s| s.hard_negatives.len()).max().unwrap();
        let mut objective = Objective::new(ObjectiveConfig {
            rows,
            mask_false_negatives: ids.is_some(),
            bank_samples: case.bank,
            bank_queries: true,
            bank_passages: true,
            bank_hard_negatives: true,
            ..ObjectiveConfig::in_batch(case.dim, case.temperature, case.n, most_hard)
        })
        .unwrap();
        for entering in banked.chunks(case.n) {
            objective.enqueue(OwnedBatch::new(entering).view());
        }
        let found = step(&mut objective, &OwnedBatch::new(&current), 1.0);
        let mut check = |what: &str, error: f64, tolerance: f64| {
            println!("{:>14} {what:<4} {error:.1e}", case.name);
            if error.is_nan() || error > tolerance {
                wrong.push(format!("{} {what}: {error:e} > {tolerance:e}", case.name));
            }
        };
        let loss = (found.report.loss - case.loss).abs();
        check("loss", if case.loss == 0.0 { loss } else { loss / case.loss.abs() }, 1e-6);
        check("dq", relative_distance(&found.queries, &tensor("dq")), 1e-5);
        check("dp", relative_distance(&found.positives, &tensor("dp")), 1e-5);
        check("dh", relative_distance(&found.hard_negatives, &tensor("dh")), 1e-5);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
