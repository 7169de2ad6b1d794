//! What attention adds to a score by the distance of its tokens (Raffel et al., T5, arXiv 1910.10683; MPNet): distances
//! share buckets, one by one near by and ever more of them further off, each way.

/// Buckets of a relative bias: half of them for keys behind the query, half for those before it.
pub const BUCKETS: usize = 32;

/// Buckets each way, and those of them that hold one distance.
const EACH_WAY: usize = BUCKETS / 2;
const EXACT: usize = EACH_WAY / 2;

/// Distances of two tokens of a sequence, both ways.
pub(crate) fn distances(length: usize) -> usize {
    (2 * length).saturating_sub(1)
}

/// The bucket of `key - query`: two to an octave from [`EXACT`] on, the last from a distance of 128 on.
pub(crate) fn bucket(distance: isize) -> usize {
    let away = distance.unsigned_abs();
    let bucket = match away {
        ..EXACT => away,
        // EXACT · 2^(k / 2) is where the k-th begins: squares make that exact.
        _ => (EXACT + (away.saturating_mul(away) / (EXACT * EXACT)).ilog2() as usize).min(EACH_WAY - 1),
    };
    if distance > 0 { EACH_WAY + bucket } else { bucket }
}

/// The distance of an index into a bias by distance.
fn distance(index: usize, length: usize) -> isize {
    index as isize - (length as isize - 1)
}

/// The bias of one head for every distance `key - query` in a sequence, from the most negative on.
pub(crate) fn by_distance<'a>(
    table: &[f32],
    heads: usize,
    head: usize,
    length: usize,
    out: &'a mut [f32],
) -> &'a [f32] {
    for (index, out) in out.iter_mut().enumerate() {
        *out = table[bucket(distance(index, length)) * heads + head];
    }
    out
}

/// Sums by distance to sums by bucket, times `factor`.
pub(crate) fn add_buckets(by_distance: &[f32], length: usize, factor: f32, out: &mut [f32]) {
    out.fill(0.0);
    for (index, value) in by_distance.iter().enumerate() {
        out[bucket(distance(index, length))] += value * factor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As transformers computes it, by logarithms.
    fn by_logarithm(distance: isize) -> usize {
        let away = distance.unsigned_abs();
        let large = (away as f32 / 8.0).ln() as f64 / 16f64.ln() * 8.0;
        let bucket = if away < 8 { away } else { (8 + (large + 1e-6) as usize).min(15) };
        if distance > 0 { 16 + bucket } else { bucket }
    }

    #[test]
    fn buckets_are_those_of_transformers_at_every_distance() {
        for distance in -2000..2000 {
            assert_eq!(bucket(distance), by_logarithm(distance), "{distance}");
        }
        assert_eq!(
            [-130, -128, -8, -7, 0, 1, 7, 8, 11, 12, 128].map(bucket),
            [15, 15, 8, 7, 0, 17, 23, 24, 24, 25, 31]
        );
    }
}
