//! Dropout from a counter-based generator: no mask is stored, and any pass over a sequence sees the same one.
//!
//! The mask of an element is a function of (run seed, update, sequence key, site, row, column) alone, by
//! Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). It does not depend on
//! how sequences are packed or chunked, so recomputation, gradient caching and resumed runs repeat it bit for bit.
//!
//! Each element gets 16 random bits, so a rate is rounded to a multiple of 1/65536; the kept elements are scaled
//! by the exact reciprocal of the rounded rate.

/// Which dropout of the network a mask belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site(u32);

impl Site {
    /// Dropout after the embeddings' LayerNorm.
    pub const EMBEDDINGS: Site = Site(0);

    /// Dropout on the attention block's output of a layer.
    pub fn attention_output(layer: usize) -> Self {
        Self((layer as u32 + 1) << 12)
    }

    /// Dropout on the feed-forward block's output of a layer.
    pub fn feed_forward_output(layer: usize) -> Self {
        Self((layer as u32 + 1) << 12 | 1)
    }

    /// Dropout between the feed-forward products of a layer.
    pub fn feed_forward_inner(layer: usize) -> Self {
        Self((layer as u32 + 1) << 12 | 2)
    }

    /// Dropout on the attention probabilities of a layer; each head is a site of its own.
    pub fn attention(layer: usize) -> Self {
        Self((layer as u32 + 1) << 12 | 16)
    }

    pub(crate) fn head(self, head: usize) -> Self {
        Self(self.0 + head as u32)
    }
}

/// The key of every token's sequence and its position there: what a mask over token rows depends on.
#[derive(Clone, Copy)]
pub struct TokenRows<'a> {
    /// Sequence key of each token.
    pub keys: &'a [u32],
    /// Position of each token in its sequence.
    pub positions: &'a [u32],
}

impl TokenRows<'_> {
    /// Without the first `tokens`.
    pub(crate) fn skip(self, tokens: usize) -> Self {
        Self { keys: &self.keys[tokens..], positions: &self.positions[tokens..] }
    }
}

/// What is dropped of rows that are tokens, if anything is.
pub type TokenDropout<'a> = Option<(&'a Dropout, Site, TokenRows<'a>)>;

/// Without the first `tokens`.
pub(crate) fn skip_tokens(dropout: TokenDropout, tokens: usize) -> TokenDropout {
    dropout.map(|(dropout, site, rows)| (dropout, site, rows.skip(tokens)))
}

/// Multiplies `values`, of the token at `row`, by their mask.
#[inline(always)]
pub(crate) fn drop_of_token(dropout: &TokenDropout, row: usize, values: &mut [f32]) {
    if let Some((dropout, site, rows)) = dropout {
        dropout.apply(*site, rows.keys[row], rows.positions[row], values);
    }
}

/// Columns covered by one call of the generator.
pub(crate) const STRIP: usize = 64;

const LANES: usize = 8;

/// A dropout rate and the random stream of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    threshold: u32,
    scale: f32,
    key: [u32; 2],
}

impl Dropout {
    /// Dropout with probability `rate` in the stream of (`seed`, `update`); `None` when the rate rounds to 0.
    ///
    /// # Panics
    /// When `rate` is not in `0 ≤ rate < 1`.
    pub fn new(rate: f64, seed: u64, update: u64) -> Option<Self> {
        assert!((0.0..1.0).contains(&rate), "dropout rate {rate} is not in [0, 1)");
        let threshold = (rate * 65536.0).round() as u32;
        let mixed = mix(mix(seed) ^ update);
        (threshold > 0).then(|| Self {
            threshold,
            scale: 65536.0 / (65536 - threshold.min(65535)) as f32,
            key: [mixed as u32, (mixed >> 32) as u32],
        })
    }

    /// What an element is multiplied by: 0, or the reciprocal of the probability to be kept.
    pub fn multiplier(&self, site: Site, sequence_key: u32, row: u32, column: usize) -> f32 {
        self.strip(site, sequence_key, row, column / STRIP)[column % STRIP]
    }

    /// [`Dropout::multiplier`] of the attention probability of token `row` on token `column` in one head.
    pub fn attention_multiplier(
        &self,
        layer: usize,
        head: usize,
        sequence_key: u32,
        row: u32,
        column: usize,
    ) -> f32 {
        self.multiplier(Site::attention(layer).head(head), sequence_key, row, column)
    }

    /// Multipliers of columns `strip * STRIP ..` of a row.
    #[inline(always)]
    pub(crate) fn strip(&self, site: Site, sequence_key: u32, row: u32, strip: usize) -> [f32; STRIP] {
        let words = philox(strip as u32 * LANES as u32, row, sequence_key, site.0, self.key);
        let mut out = [0.0; STRIP];
        for (w, word) in words.iter().enumerate() {
            for l in 0..LANES {
                out[w * LANES + l] = if word[l] & 0xffff >= self.threshold { self.scale } else { 0.0 };
                out[(w + 4) * LANES + l] = if word[l] >> 16 >= self.threshold { self.scale } else { 0.0 };
            }
        }
        out
    }

    /// Multiplies a row by its mask.
    #[inline(always)]
    pub(crate) fn apply(&self, site: Site, sequence_key: u32, row: u32, values: &mut [f32]) {
        self.apply_from(site, sequence_key, row, 0, values);
    }

    /// Multiplies columns `first_strip * STRIP ..` of a row by their mask.
    #[inline(always)]
    pub(crate) fn apply_from(
        &self,
        site: Site,
        sequence_key: u32,
        row: u32,
        first_strip: usize,
        values: &mut [f32],
    ) {
        for (strip, chunk) in (first_strip..).zip(values.chunks_mut(STRIP)) {
            let multipliers = self.strip(site, sequence_key, row, strip);
            for (v, m) in chunk.iter_mut().zip(&multipliers) {
                *v *= m;
            }
        }
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Philox4x32-10 on `LANES` counters `(first + lane, row, sequence, site)` at once: words by lane.
#[inline(always)]
fn philox(first: u32, row: u32, sequence: u32, site: u32, key: [u32; 2]) -> [[u32; LANES]; 4] {
    let mut c0: [u32; LANES] = std::array::from_fn(|l| first + l as u32);
    let (mut c1, mut c2, mut c3) = ([row; LANES], [sequence; LANES], [site; LANES]);
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        for l in 0..LANES {
            let p0 = c0[l] as u64 * 0xD251_1F53;
            let p1 = c2[l] as u64 * 0xCD9E_8D57;
            c0[l] = (p1 >> 32) as u32 ^ c1[l] ^ k0;
            c1[l] = p1 as u32;
            c2[l] = (p0 >> 32) as u32 ^ c3[l] ^ k1;
            c3[l] = p0 as u32;
        }
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    [c0, c1, c2, c3]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_known_answer_of_random123() {
        // Random123 kat_vectors: philox4x32 10, counter and key of the digits of pi.
        let words = philox(0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, [0xa4093822, 0x299f31d0]);
        assert_eq!(words.map(|w| w[0]), [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
    }

    #[test]
    fn the_share_of_dropped_elements_is_the_rate_and_the_mean_is_kept() {
        let dropout = Dropout::new(0.1, 7, 3).unwrap();
        let mut row = vec![1.0f32; 64 * 1000];
        dropout.apply(Site::attention_output(2), 5, 9, &mut row);
        let dropped = row.iter().filter(|v| **v == 0.0).count() as f64 / row.len() as f64;
        assert!((dropped - 0.1).abs() < 0.005, "{dropped}");
        let mean = row.iter().map(|v| *v as f64).sum::<f64>() / row.len() as f64;
        assert!((mean - 1.0).abs() < 0.006, "{mean}");
    }

    #[test]
    fn masks_differ_between_sites_sequences_rows_updates_and_seeds() {
        let mask = |seed, update, site, sequence, row| {
            Dropout::new(0.5, seed, update).unwrap().strip(site, sequence, row, 0)
        };
        let base = mask(1, 1, Site::EMBEDDINGS, 1, 1);
        assert_eq!(base, mask(1, 1, Site::EMBEDDINGS, 1, 1));
        assert_ne!(base, mask(2, 1, Site::EMBEDDINGS, 1, 1));
        assert_ne!(base, mask(1, 2, Site::EMBEDDINGS, 1, 1));
        assert_ne!(base, mask(1, 1, Site::attention(0).head(0), 1, 1));
        assert_ne!(base, mask(1, 1, Site::EMBEDDINGS, 2, 1));
        assert_ne!(base, mask(1, 1, Site::EMBEDDINGS, 1, 2));
    }

    #[test]
    fn a_single_multiplier_is_that_of_its_row() {
        let dropout = Dropout::new(0.3, 1, 2).unwrap();
        let mut row = vec![1.0f32; 100];
        dropout.apply(Site::EMBEDDINGS, 3, 4, &mut row);
        for (column, v) in row.iter().enumerate() {
            assert_eq!(*v, dropout.multiplier(Site::EMBEDDINGS, 3, 4, column));
        }
    }

    #[test]
    fn a_rate_of_zero_is_no_dropout() {
        assert_eq!(Dropout::new(0.0, 1, 1), None);
    }
}
