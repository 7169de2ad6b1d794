//! What the tests of every kernel share: deterministic values, float64 copies, finite differences.

pub(crate) fn values(n: usize, seed: u32, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * scale
        })
        .collect()
}

pub(crate) fn to64(v: &[f32]) -> Vec<f64> {
    v.iter().map(|x| *x as f64).collect()
}

/// Central differences of a float64 function.
pub(crate) fn numeric_gradient(at: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let mut x = at.to_vec();
    (0..x.len())
        .map(|i| {
            let step = 1e-5;
            let original = x[i];
            x[i] = original + step;
            let above = f(&x);
            x[i] = original - step;
            let below = f(&x);
            x[i] = original;
            (above - below) / (2.0 * step)
        })
        .collect()
}

/// The largest difference, relative to the largest expected magnitude (at least 1), is below `tolerance`.
#[track_caller]
pub(crate) fn assert_close(got: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    let scale = expected.iter().fold(1.0f64, |m, x| m.max(x.abs()));
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        let error = (*g as f64 - e).abs() / scale;
        assert!(error <= tolerance, "element {i}: {g} instead of {e} (error {error:.1e} of {scale})");
    }
}
