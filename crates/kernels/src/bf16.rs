//! Products whose factors are rounded to bfloat16 and whose sums are `f32`, where the processor has `vdpbf16ps`: twice
//! the multiplications a second of `f32` on Zen 4. A factor is off by 2⁻⁹ of itself at most.
//!
//! The instruction multiplies pairs of neighbouring inputs. A weight is rounded and laid out once, in panels of
//! [`COLS`] outputs, pair after pair; the rows it is multiplied with are rounded a block at a time, so that a
//! panel stays in the first caches while the block's tiles of [`ROWS`] go by.

use std::fmt;

use rayon::prelude::*;

/// Rows and columns of the output that are summed in registers.
const ROWS: usize = 12;
const COLS: usize = 32;

/// Rows that a thread rounds at a time, a multiple of [`ROWS`].
const BLOCK: usize = 8 * ROWS;

/// The processor has no instruction for products of bfloat16.
#[derive(Debug)]
pub struct NoBf16;

impl fmt::Display for NoBf16 {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "this processor has no AVX-512 instructions for bfloat16 (use f32)")
    }
}

impl std::error::Error for NoBf16 {}

/// A weight `[outputs, inputs]` rounded to bfloat16.
pub struct Bf16Weight {
    outputs: usize,
    inputs: usize,
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "no weight is made there"))]
    panels: Vec<u32>,
}

impl Bf16Weight {
    /// Rounds a row-major weight.
    ///
    /// # Errors
    /// On a processor that cannot multiply it.
    ///
    /// # Panics
    /// When `weight` is not `outputs × inputs`.
    pub fn new(weight: &[f32], outputs: usize, inputs: usize) -> Result<Self, NoBf16> {
        assert_eq!(Some(weight.len()), outputs.checked_mul(inputs), "weight has another shape");
        if !supported() {
            return Err(NoBf16);
        }
        let pairs = inputs.div_ceil(2);
        let mut panels = vec![0; outputs.div_ceil(COLS) * pairs * COLS];
        for (output, row) in weight.chunks_exact(inputs).enumerate() {
            let panel = &mut panels[output / COLS * pairs * COLS..][..pairs * COLS];
            for (pair, values) in row.chunks(2).enumerate() {
                panel[pair * COLS + output % COLS] =
                    bits(values[0]) | bits(*values.get(1).unwrap_or(&0.0)) << 16;
            }
        }
        Ok(Self { outputs, inputs, panels })
    }

    fn pairs(&self) -> usize {
        self.inputs.div_ceil(2)
    }

    /// `y = x Wᵀ`, or `y += x Wᵀ` with `accumulate`, for `x` `[rows, inputs]` and `y` `[rows, outputs]`, on the current
    /// rayon pool. Each thread allocates room for `BLOCK` rounded rows.
    ///
    /// # Panics
    /// When the shapes do not agree.
    pub fn multiply(&self, x: &[f32], accumulate: bool, y: &mut [f32]) {
        let rows = y.len() / self.outputs;
        assert_eq!(y.len(), rows * self.outputs, "output has another shape");
        assert_eq!(Some(x.len()), rows.checked_mul(self.inputs), "input has another shape");
        let block = rows.div_ceil(rayon::current_num_threads()).next_multiple_of(ROWS).min(BLOCK);
        x.par_chunks(block * self.inputs).zip(y.par_chunks_mut(block * self.outputs)).for_each_init(
            || vec![0; block * self.pairs()],
            |rounded, (x, y)| {
                // SAFETY: made only where `supported`.
                unsafe { self.multiply_block(x, rounded, accumulate, y) };
            },
        );
    }
}

/// Bits of the bfloat16 nearest to `x`, ties to even.
fn bits(x: f32) -> u32 {
    let bits = x.to_bits();
    if x.is_nan() { bits >> 16 | 1 } else { (bits + 0x7fff + (bits >> 16 & 1)) >> 16 }
}

#[cfg(not(target_arch = "x86_64"))]
fn supported() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
impl Bf16Weight {
    unsafe fn multiply_block(&self, _: &[f32], _: &mut [u32], _: bool, _: &mut [f32]) {
        unreachable!("no weight is made on this processor");
    }
}

#[cfg(target_arch = "x86_64")]
fn supported() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16")
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Bf16Weight, COLS, ROWS};

    /// Values of a vector.
    const LANES: usize = 16;

    impl Bf16Weight {
        /// The product of some rows; `rounded` has room for them.
        ///
        /// # Safety
        /// The processor has both features.
        #[target_feature(enable = "avx512f,avx512bf16")]
        pub(super) unsafe fn multiply_block(
            &self,
            x: &[f32],
            rounded: &mut [u32],
            accumulate: bool,
            out: &mut [f32],
        ) {
            let (pairs, rows) = (self.pairs(), x.len() / self.inputs);
            round_rows(x, self.inputs, rounded);
            for (panel, weight) in self.panels.chunks_exact(COLS * pairs).enumerate() {
                let columns = COLS.min(self.outputs - panel * COLS);
                for (tile, rounded) in
                    rounded.chunks_exact(ROWS * pairs).enumerate().take(rows.div_ceil(ROWS))
                {
                    // SAFETY: both are chunks of as many pairs.
                    let sums = unsafe { product(rounded, weight) };
                    for (row, sums) in sums.iter().enumerate() {
                        let row = tile * ROWS + row;
                        if row < rows {
                            let first = row * self.outputs + panel * COLS;
                            write(sums, &mut out[first..first + columns], accumulate);
                        }
                    }
                }
            }
        }
    }

    /// Rounds the rows of `x`, each to its pairs; an odd last input is paired with 0.
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn round_rows(x: &[f32], inputs: usize, rounded: &mut [u32]) {
        for (x, pairs) in x.chunks_exact(inputs).zip(rounded.chunks_exact_mut(inputs.div_ceil(2))) {
            for (x, pairs) in x.chunks(2 * LANES).zip(pairs.chunks_mut(LANES)) {
                let values = |first: usize| first_lanes(x.len().saturating_sub(first));
                // SAFETY: lanes beyond `x` and `pairs` are masked out.
                unsafe {
                    let low = _mm512_maskz_loadu_ps(values(0), x.as_ptr());
                    let high = _mm512_maskz_loadu_ps(values(LANES), x.as_ptr().wrapping_add(LANES));
                    let both = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
                    _mm512_mask_storeu_epi32(pairs.as_mut_ptr().cast(), first_lanes(pairs.len()), both);
                }
            }
        }
    }

    /// The mask of the first so many lanes.
    fn first_lanes(count: usize) -> __mmask16 {
        ((1u64 << count.min(LANES)) - 1) as __mmask16
    }

    /// Sums over all pairs of a tile of rows and a panel of weights.
    ///
    /// # Safety
    /// `rows` is [`ROWS`] rows of as many pairs as `weight` has.
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn product(rows: &[u32], weight: &[u32]) -> [[__m512; 2]; ROWS] {
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        let pairs = weight.len() / COLS;
        for (pair, weight) in weight.as_chunks::<COLS>().0.iter().enumerate() {
            // SAFETY: a panel's pair is two vectors long.
            let weight: [__m512bh; 2] = unsafe {
                let vectors = weight.as_ptr().cast::<__m512i>();
                [
                    std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(vectors)),
                    std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(vectors.add(1))),
                ]
            };
            for (row, sums) in sums.iter_mut().enumerate() {
                // SAFETY: promised by the caller; vectors of the same bits.
                let x: __m512bh = unsafe {
                    let x = rows.get_unchecked(row * pairs + pair);
                    std::mem::transmute(_mm512_set1_epi32(x.cast_signed()))
                };
                for (sum, weight) in sums.iter_mut().zip(weight) {
                    *sum = _mm512_dpbf16_ps(*sum, x, weight);
                }
            }
        }
        sums
    }

    /// Writes or adds the first of a row's sums, as many as `out` is long.
    #[target_feature(enable = "avx512f")]
    fn write(sums: &[__m512; 2], out: &mut [f32], accumulate: bool) {
        for (out, &sum) in out.chunks_mut(LANES).zip(sums) {
            let (mask, at) = (first_lanes(out.len()), out.as_mut_ptr());
            // SAFETY: lanes beyond `out` are masked out.
            unsafe {
                let sum = if accumulate { _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, at)) } else { sum };
                _mm512_mask_storeu_ps(at, mask, sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::values;

    fn rounded(x: f32) -> f64 {
        f64::from(f32::from_bits(bits(x) << 16))
    }

    #[test]
    fn products_are_those_of_the_rounded_factors_at_odd_shapes() {
        if !supported() {
            println!("skipped: {NoBf16}");
            return;
        }
        for (rows, inputs, outputs) in [(1, 1, 1), (5, 3, 33), (12, 64, 32), (200, 67, 50), (331, 384, 96)] {
            let (x, weight) = (values(rows * inputs, 1, 1.0), values(outputs * inputs, 2, 1.0));
            let product = Bf16Weight::new(&weight, outputs, inputs).unwrap();
            for accumulate in [false, true] {
                let mut y = vec![3.0; rows * outputs];
                product.multiply(&x, accumulate, &mut y);
                for (index, y) in y.iter().enumerate() {
                    let (row, output) = (index / outputs, index % outputs);
                    let terms = (0..inputs)
                        .map(|i| rounded(x[row * inputs + i]) * rounded(weight[output * inputs + i]));
                    let expected = terms.sum::<f64>() + if accumulate { 3.0 } else { 0.0 };
                    assert!(
                        (f64::from(*y) - expected).abs() < 1e-4,
                        "{y} instead of {expected} at {row}, {output}"
                    );
                }
            }
        }
    }

    #[test]
    fn rounding_is_to_the_nearest_and_ties_go_to_even() {
        for (x, expected) in [
            (1.0, 0x3f80),
            (-2.5, 0xc020),
            (f32::from_bits(0x3f80_8000), 0x3f80),
            (f32::from_bits(0x3f81_8000), 0x3f82),
            (f32::from_bits(0x3f80_8001), 0x3f81),
            (f32::INFINITY, 0x7f80),
        ] {
            assert_eq!(bits(x), expected, "{x}");
        }
        assert!(f32::from_bits(bits(f32::NAN) << 16).is_nan());
    }
}
