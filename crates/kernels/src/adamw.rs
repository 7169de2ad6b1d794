//! AdamW over flat buffers, fused with clipping and with clearing the gradient.

use multiversion::multiversion;
use rayon::prelude::*;

use crate::math::{mul_add, sum};

/// Constants of one AdamW update (Loshchilov and Hutter, arXiv 1711.05101; as `torch.optim.AdamW`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate of this update.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Number of this update, from 1.
    pub step: u64,
    /// What the gradient is multiplied by first (clipping).
    pub gradient_scale: f64,
}

/// Elements per task: a fixed size, so that sums over parts do not depend on the thread count.
const PART: usize = 1 << 16;

/// One update of `weights` in place; `gradient` is cleared.
pub fn adamw(
    constants: AdamW,
    weights: &mut [f32],
    gradient: &mut [f32],
    moment1: &mut [f32],
    moment2: &mut [f32],
) {
    (
        weights.par_chunks_mut(PART),
        gradient.par_chunks_mut(PART),
        moment1.par_chunks_mut(PART),
        moment2.par_chunks_mut(PART),
    )
        .into_par_iter()
        .for_each(|(weights, gradient, moment1, moment2)| {
            update(constants, weights, gradient, moment1, moment2)
        });
}

#[multiversion(targets = "simd")]
fn update(c: AdamW, weights: &mut [f32], gradient: &mut [f32], moment1: &mut [f32], moment2: &mut [f32]) {
    let correction1 = 1.0 - c.beta1.powi(c.step as i32);
    let correction2 = 1.0 - c.beta2.powi(c.step as i32);
    let (beta1, beta2) = (c.beta1 as f32, c.beta2 as f32);
    let (rest1, rest2) = ((1.0 - c.beta1) as f32, (1.0 - c.beta2) as f32);
    let scale = c.gradient_scale as f32;
    let keep = (1.0 - c.learning_rate * c.weight_decay) as f32;
    let rate = (c.learning_rate / correction1) as f32;
    let inverse_root = (1.0 / correction2.sqrt()) as f32;
    let epsilon = c.epsilon as f32;
    let moments = moment1.iter_mut().zip(moment2);
    for ((w, g), (m, v)) in weights.iter_mut().zip(gradient).zip(moments) {
        let scaled = *g * scale;
        *g = 0.0;
        *m = mul_add(beta1, *m, rest1 * scaled);
        *v = mul_add(beta2, *v, rest2 * scaled * scaled);
        let root = mul_add(v.sqrt(), inverse_root, epsilon);
        *w = *w * keep - rate * *m / root;
    }
}

/// `Σ x²`, each block in `f32` lanes and the blocks in `f64`, in a fixed order.
pub fn squared_norm(values: &[f32]) -> f64 {
    let parts: Vec<f64> = values.par_chunks(PART).map(squared_norm_of_part).collect();
    parts.iter().sum()
}

#[multiversion(targets = "simd")]
fn squared_norm_of_part(values: &[f32]) -> f64 {
    const BLOCK: usize = 1 << 12;
    values.chunks(BLOCK).map(|v| sum(v.len(), |i| v[i] * v[i]) as f64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, to64, values};

    #[test]
    fn three_updates_agree_with_float64_and_clear_the_gradient() {
        for n in [1usize, 37, PART + 5] {
            let mut w = values(n, 1, 1.0);
            let (mut m, mut v) = (vec![0.0f32; n], vec![0.0f32; n]);
            let (mut w64, mut m64, mut v64) = (to64(&w), vec![0.0f64; n], vec![0.0f64; n]);
            for step in 1..=3 {
                let c = AdamW {
                    learning_rate: 1e-2,
                    beta1: 0.9,
                    beta2: 0.999,
                    epsilon: 1e-8,
                    weight_decay: 0.1,
                    step,
                    gradient_scale: 0.5,
                };
                let mut g = values(n, 10 + step as u32, 1.0);
                for i in 0..n {
                    let gi = g[i] as f64 * 0.5;
                    w64[i] *= 1.0 - 1e-2 * 0.1;
                    m64[i] = 0.9 * m64[i] + 0.1 * gi;
                    v64[i] = 0.999 * v64[i] + 0.001 * gi * gi;
                    let (mh, vh) = (
                        m64[i] / (1.0 - 0.9f64.powi(step as i32)),
                        v64[i] / (1.0 - 0.999f64.powi(step as i32)),
                    );
                    w64[i] -= 1e-2 * mh / (vh.sqrt() + 1e-8);
                }
                adamw(c, &mut w, &mut g, &mut m, &mut v);
                assert!(g.iter().all(|g| *g == 0.0));
            }
            assert_close(&w, &w64, 1e-6);
        }
    }

    #[test]
    fn the_squared_norm_is_that_of_float64() {
        let x = values(PART * 2 + 11, 3, 2.0);
        let exact: f64 = x.iter().map(|v| (*v as f64).powi(2)).sum();
        assert!((squared_norm(&x) / exact - 1.0).abs() < 1e-6);
    }
}
