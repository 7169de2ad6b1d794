//! Rotary positions (Su et al., arXiv 2104.09864): queries and keys are turned by angles that grow with the position, so
//! that their products depend on distances alone.

use multiversion::multiversion;
use rayon::prelude::*;

use crate::parallel::rows_per_part;

/// Cosines and sines of every position's angles.
pub struct Rotary {
    /// `[longest, head_width]`: a position's cosines, then its sines.
    turns: Vec<f32>,
    head_width: usize,
}

/// Which way [`Rotary::turn`] turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// By the position's angles: queries and keys.
    Forward,
    /// Back again: their gradients.
    Backward,
}

impl Rotary {
    /// The angles of positions below `longest`: `position · base^(-2i / head_width)`, rounded as transformers rounds them.
    ///
    /// # Panics
    /// When `head_width` is odd.
    pub fn new(base: f64, head_width: usize, longest: usize) -> Self {
        assert!(head_width.is_multiple_of(2), "rotary positions turn pairs of columns");
        let half = head_width / 2;
        let mut turns = crate::resident_zeros(longest * head_width);
        for (position, turns) in turns.chunks_exact_mut(head_width.max(1)).enumerate() {
            let (cosines, sines) = turns.split_at_mut(half);
            for (i, (cosine, sine)) in cosines.iter_mut().zip(sines).enumerate() {
                let frequency = base.powf(-((2 * i) as f64) / head_width as f64) as f32;
                // The angle that the model was trained with is the product in f32.
                let angle = f64::from(position as f32 * frequency);
                (*cosine, *sine) = (angle.cos() as f32, angle.sin() as f32);
            }
        }
        Self { turns, head_width }
    }

    /// Bytes that [`Rotary::new`] allocates.
    pub fn memory_bytes(head_width: usize, longest: usize) -> usize {
        longest * head_width * size_of::<f32>()
    }

    /// Turns the queries and keys of `qkv` `[tokens, 3 · heads · head_width]` in place; `positions` of the tokens.
    ///
    /// # Panics
    /// When a position lies beyond those the angles were made for, or `qkv` is not of as many tokens.
    pub fn turn(&self, qkv: &mut [f32], heads: usize, positions: &[u32], turn: Turn) {
        let row = 3 * heads * self.head_width;
        assert_eq!(Some(qkv.len()), positions.len().checked_mul(row), "qkv has another shape");
        let sign = match turn {
            Turn::Forward => 1.0,
            Turn::Backward => -1.0,
        };
        let per_part = rows_per_part(positions.len());
        (qkv.par_chunks_mut((per_part * row).max(1)), positions.par_chunks(per_part))
            .into_par_iter()
            .for_each(|(qkv, positions)| {
                turn_rows(&self.turns, self.head_width, qkv, heads, positions, sign)
            });
    }
}

#[multiversion(targets = "simd")]
fn turn_rows(turns: &[f32], width: usize, qkv: &mut [f32], heads: usize, positions: &[u32], sign: f32) {
    for (row, position) in qkv.chunks_exact_mut(3 * heads * width).zip(positions) {
        let (cosines, sines) = turns[*position as usize * width..][..width].split_at(width / 2);
        for head in row[..2 * heads * width].chunks_exact_mut(width) {
            let (first, second) = head.split_at_mut(width / 2);
            for (((a, b), cosine), sine) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
                let sine = sign * sine;
                (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, numeric_gradient, to64, values};

    const BASE: f64 = 100.0;

    fn plain(x: &[f64], heads: usize, width: usize, positions: &[u32]) -> Vec<f64> {
        let mut out = x.to_vec();
        for (t, position) in positions.iter().enumerate() {
            for head in 0..2 * heads {
                let first = t * 3 * heads * width + head * width;
                for i in 0..width / 2 {
                    let angle = *position as f64 * BASE.powf(-(2.0 * i as f64) / width as f64);
                    let (a, b) = (x[first + i], x[first + width / 2 + i]);
                    out[first + i] = a * angle.cos() - b * angle.sin();
                    out[first + width / 2 + i] = b * angle.cos() + a * angle.sin();
                }
            }
        }
        out
    }

    #[test]
    fn queries_and_keys_turn_and_their_gradients_turn_back() {
        for (heads, width) in [(1, 2), (3, 6), (2, 34)] {
            let positions = [0u32, 1, 2, 7, 0, 5];
            let rotary = Rotary::new(BASE, width, 8);
            let qkv = values(positions.len() * 3 * heads * width, 3, 1.0);
            let mut turned = qkv.clone();
            rotary.turn(&mut turned, heads, &positions, Turn::Forward);
            assert_close(&turned, &plain(&to64(&qkv), heads, width, &positions), 2e-6);
            let weights = values(qkv.len(), 4, 1.0);
            let expected = numeric_gradient(&to64(&qkv), |x| {
                plain(x, heads, width, &positions).iter().zip(&weights).map(|(y, w)| y * *w as f64).sum()
            });
            let mut gradient = weights.clone();
            rotary.turn(&mut gradient, heads, &positions, Turn::Backward);
            assert_close(&gradient, &expected, 2e-6);
        }
    }

    #[test]
    fn products_depend_on_distances_alone() {
        let (width, rotary) = (8, Rotary::new(10_000.0, 8, 100));
        let (query, key) = (values(width, 1, 1.0), values(width, 2, 1.0));
        let product = |i: u32, j: u32| -> f32 {
            let mut rows = vec![0.0; 2 * 3 * width];
            rows[..width].copy_from_slice(&query);
            rows[4 * width..5 * width].copy_from_slice(&key);
            rotary.turn(&mut rows, 1, &[i, j], Turn::Forward);
            (0..width).map(|c| rows[c] * rows[4 * width + c]).sum()
        };
        for (i, j) in [(3, 0), (40, 37), (99, 96)] {
            assert!((product(i, j) - product(3, 0)).abs() < 1e-5, "{i} {j}");
        }
        assert!((product(5, 0) - product(3, 0)).abs() > 1e-3);
    }

    #[test]
    fn a_position_without_angles_and_an_odd_width_are_refused() {
        let refused = |make: fn()| std::panic::catch_unwind(make).is_err();
        assert!(refused(|| Rotary::new(BASE, 4, 3).turn(&mut [0.0; 12], 1, &[3], Turn::Forward)));
        assert!(refused(|| Rotary::new(BASE, 4, 3).turn(&mut [0.0; 13], 1, &[1], Turn::Forward)));
        assert!(refused(|| drop(Rotary::new(BASE, 3, 3))));
    }
}
