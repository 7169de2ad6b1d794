//! From the hidden states of packed sequences to one vector each, and normalisation to length one.

use multiversion::multiversion;
use serde::{Deserialize, Serialize};

use crate::math::sum;
use crate::parallel::add;

/// How the hidden states of a sequence become one vector, by the names sentence-transformers gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The first token.
    Cls,
    /// The mean over all tokens.
    Mean,
    /// The largest value of each column.
    Max,
    /// The last token.
    #[serde(rename = "lasttoken")]
    LastToken,
    /// The sum over all tokens, divided by the square root of their number.
    MeanSqrtLenTokens,
    /// The mean over all tokens, the first weighed once, the second twice and so on.
    #[serde(rename = "weightedmean")]
    WeightedMean,
}

impl Pooling {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Cls, Self::Mean, Self::Max, Self::LastToken, Self::MeanSqrtLenTokens, Self::WeightedMean];

    /// The name used in recipes, flags, records and model folders.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cls => "cls",
            Self::Mean => "mean",
            Self::Max => "max",
            Self::LastToken => "lasttoken",
            Self::MeanSqrtLenTokens => "mean_sqrt_len_tokens",
            Self::WeightedMean => "weightedmean",
        }
    }

    /// What token `t` of `length` is multiplied with, where tokens are weighed and not chosen.
    fn weight(self, t: usize, length: usize) -> f32 {
        let n = length as f32;
        match self {
            Self::MeanSqrtLenTokens => 1.0 / n.sqrt(),
            Self::WeightedMean => 2.0 * (t + 1) as f32 / (n * (n + 1.0)),
            Self::Mean | Self::Cls | Self::Max | Self::LastToken => 1.0 / n,
        }
    }
}

fn spans(offsets: &[u32]) -> impl Iterator<Item = (usize, usize)> {
    offsets.windows(2).map(|w| (w[0] as usize, w[1] as usize))
}

/// `hidden` `[tokens, width]` to `out` `[sequences, width]`. For [`Pooling::Max`], `winners` `[sequences, width]` gets the
/// number of the token within its sequence whose value was taken, the first of several; else it is left alone.
#[multiversion(targets = "simd")]
pub fn pool_forward(
    pooling: Pooling,
    hidden: &[f32],
    offsets: &[u32],
    width: usize,
    out: &mut [f32],
    winners: &mut [u32],
) {
    for (sequence, ((first, end), out)) in spans(offsets).zip(out.chunks_exact_mut(width)).enumerate() {
        let row = |t: usize| &hidden[t * width..][..width];
        match pooling {
            Pooling::Cls => out.copy_from_slice(row(first)),
            Pooling::LastToken => out.copy_from_slice(row(end - 1)),
            Pooling::Mean | Pooling::MeanSqrtLenTokens => {
                out.copy_from_slice(row(first));
                (first + 1..end).for_each(|t| add(out, row(t)));
                let share = pooling.weight(0, end - first);
                out.iter_mut().for_each(|o| *o *= share);
            }
            Pooling::WeightedMean => {
                out.fill(0.0);
                for t in first..end {
                    let weight = pooling.weight(t - first, end - first);
                    out.iter_mut().zip(row(t)).for_each(|(o, h)| *o += weight * h);
                }
            }
            Pooling::Max => {
                let winners = &mut winners[sequence * width..][..width];
                out.copy_from_slice(row(first));
                winners.fill(0);
                for t in first + 1..end {
                    for ((o, winner), h) in out.iter_mut().zip(winners.iter_mut()).zip(row(t)) {
                        if h > o {
                            (*o, *winner) = (*h, (t - first) as u32);
                        }
                    }
                }
            }
        }
    }
}

/// Backward of [`pool_forward`]: every row of `hidden_gradient` is overwritten.
#[multiversion(targets = "simd")]
pub fn pool_backward(
    pooling: Pooling,
    gradient: &[f32],
    offsets: &[u32],
    width: usize,
    winners: &[u32],
    hidden_gradient: &mut [f32],
) {
    for (sequence, ((first, end), gradient)) in spans(offsets).zip(gradient.chunks_exact(width)).enumerate() {
        let rows = &mut hidden_gradient[first * width..end * width];
        match pooling {
            Pooling::Max => {
                rows.fill(0.0);
                let winners = &winners[sequence * width..][..width];
                for (column, (winner, g)) in winners.iter().zip(gradient).enumerate() {
                    rows[*winner as usize * width + column] = *g;
                }
            }
            Pooling::Cls | Pooling::LastToken => {
                rows.fill(0.0);
                let token = if pooling == Pooling::Cls { 0 } else { end - first - 1 };
                rows[token * width..][..width].copy_from_slice(gradient);
            }
            Pooling::Mean | Pooling::MeanSqrtLenTokens | Pooling::WeightedMean => {
                for (t, row) in rows.chunks_exact_mut(width).enumerate() {
                    let weight = pooling.weight(t, end - first);
                    row.iter_mut().zip(gradient).for_each(|(r, g)| *r = g * weight);
                }
            }
        }
    }
}

/// Length below which a vector is not divided by its length but by this (as `torch.nn.functional.normalize`).
const SHORTEST: f32 = 1e-12;

/// Normalises every row of `vectors` in place to length one; `lengths` gets the lengths before.
#[multiversion(targets = "simd")]
pub fn normalize_forward(vectors: &mut [f32], lengths: &mut [f32]) {
    let width = vectors.len().checked_div(lengths.len()).unwrap_or(0);
    if width == 0 {
        return;
    }
    for (row, length) in vectors.chunks_exact_mut(width).zip(lengths) {
        *length = sum(width, |i| row[i] * row[i]).sqrt().max(SHORTEST);
        let inverse = 1.0 / *length;
        row.iter_mut().for_each(|v| *v *= inverse);
    }
}

/// Backward of [`normalize_forward`]: `gradient` turns in place from that of the unit `vectors` into that of the
/// vectors before.
#[multiversion(targets = "simd")]
pub fn normalize_backward(vectors: &[f32], lengths: &[f32], gradient: &mut [f32]) {
    let width = vectors.len().checked_div(lengths.len()).unwrap_or(0);
    if width == 0 {
        return;
    }
    let rows = vectors.chunks_exact(width).zip(gradient.chunks_exact_mut(width)).zip(lengths);
    for ((unit, gradient), length) in rows {
        let along = sum(width, |i| unit[i] * gradient[i]);
        let inverse = 1.0 / length;
        for (g, u) in gradient.iter_mut().zip(unit) {
            *g = (*g - along * u) * inverse;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, numeric_gradient, to64, values};

    const WIDTH: usize = 21;
    const OFFSETS: [u32; 4] = [0, 1, 6, 9];

    /// Pooling as its formula says it.
    fn plain(pooling: Pooling, x: &[f64]) -> Vec<f64> {
        let mut out = Vec::new();
        for (first, end) in spans(&OFFSETS) {
            let n = (end - first) as f64;
            for c in 0..WIDTH {
                let column: Vec<f64> = (first..end).map(|t| x[t * WIDTH + c]).collect();
                let sum: f64 = column.iter().sum();
                out.push(match pooling {
                    Pooling::Cls => column[0],
                    Pooling::LastToken => column[column.len() - 1],
                    Pooling::Mean => sum / n,
                    Pooling::MeanSqrtLenTokens => sum / n.sqrt(),
                    Pooling::Max => column.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                    Pooling::WeightedMean => {
                        let weighed = column.iter().enumerate().map(|(t, x)| (t + 1) as f64 * x);
                        weighed.sum::<f64>() / (n * (n + 1.0) / 2.0)
                    }
                });
            }
        }
        out
    }

    #[test]
    fn pooling_and_normalising_agree_with_float64() {
        let hidden = values(9 * WIDTH, 4, 1.0);
        let weights = values(3 * WIDTH, 5, 1.0);
        for pooling in Pooling::ALL {
            let normalised = |x: &[f64]| -> Vec<f64> {
                let pooled = plain(pooling, x);
                let rows = pooled.chunks_exact(WIDTH);
                rows.flat_map(|row| {
                    let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
                    row.iter().map(move |x| x / length)
                })
                .collect()
            };
            let hidden64 = to64(&hidden);
            let expected = numeric_gradient(&hidden64, |x| {
                normalised(x).iter().zip(&weights).map(|(y, w)| y * *w as f64).sum()
            });
            let (mut out, mut lengths) = (vec![f32::NAN; 3 * WIDTH], vec![0.0; 3]);
            let mut winners = vec![u32::MAX; 3 * WIDTH];
            pool_forward(pooling, &hidden, &OFFSETS, WIDTH, &mut out, &mut winners);
            assert_close(&out, &plain(pooling, &hidden64), 1e-6);
            normalize_forward(&mut out, &mut lengths);
            assert_close(&out, &normalised(&hidden64), 1e-6);
            let mut gradient = weights.clone();
            let mut hidden_gradient = vec![f32::NAN; 9 * WIDTH];
            normalize_backward(&out, &lengths, &mut gradient);
            pool_backward(pooling, &gradient, &OFFSETS, WIDTH, &winners, &mut hidden_gradient);
            assert_close(&hidden_gradient, &expected, 1e-6);
        }
    }

    #[test]
    fn the_first_of_equal_values_gets_the_gradient_of_the_largest() {
        let hidden = [1.0, 5.0, 3.0, 5.0, 3.0, 2.0];
        let (mut out, mut winners) = ([0.0; 2], [7; 2]);
        pool_forward(Pooling::Max, &hidden, &[0, 3], 2, &mut out, &mut winners);
        assert_eq!((out, winners), ([3.0, 5.0], [1, 0]));
        let mut gradient = [f32::NAN; 6];
        pool_backward(Pooling::Max, &[0.5, -2.0], &[0, 3], 2, &winners, &mut gradient);
        assert_eq!(gradient, [0.0, -2.0, 0.5, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn a_pooling_is_written_by_its_name() {
        for pooling in Pooling::ALL {
            let written = serde_json::to_string(&pooling).unwrap();
            assert_eq!(written, format!("{:?}", pooling.name()));
            assert_eq!(serde_json::from_str::<Pooling>(&written).unwrap(), pooling);
        }
    }
}
