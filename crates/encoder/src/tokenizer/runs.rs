//! Runs of characters without a place to cut, shortened where WordPiece calls their words unknown anyway.

use std::collections::HashMap;

use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Tokenizer,
};

use super::guard::guarded;

/// Characters after which a run is shortened the first time.
const FULL: usize = 4 << 10;

/// What a text does inside a word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Within {
    /// It parts the word, or is no part of it.
    Parts,
    /// It makes the word longer.
    Lengthens,
    /// The normalizer leaves nothing of it.
    Vanishes,
}

/// What `part` does between two letters, by the tokenizer's own normalizer and pre-tokenizer.
pub(super) fn within_word(tokenizer: &Tokenizer, part: &str) -> Within {
    let mut text = NormalizedString::from(format!("a{part}a"));
    let words = guarded(|| {
        let failed = |reason: tokenizers::Error| reason.to_string();
        tokenizer.get_normalizer().map_or(Ok(()), |n| n.normalize(&mut text)).map_err(failed)?;
        let mut words = PreTokenizedString::from(text);
        tokenizer.get_pre_tokenizer().map_or(Ok(()), |p| p.pre_tokenize(&mut words)).map_err(failed)?;
        let splits = words.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
        Ok(splits.into_iter().map(|(word, ..)| word.chars().count()).collect::<Vec<_>>())
    });
    match words.as_deref() {
        Ok([2]) => Within::Vanishes,
        Ok([longer]) if *longer > 2 => Within::Lengthens,
        _ => Within::Parts,
    }
}

/// A run with its rows shortened: first those of characters that vanish, then those of characters that part no word, of
/// which the first and the last `kept` that make it longer stay, with what vanishes between them.
pub(super) fn shorten(tokenizer: &Tokenizer, run: &str, kept: usize) -> String {
    let mut known = HashMap::new();
    let mut within =
        |c: char| *known.entry(c).or_insert_with(|| within_word(tokenizer, c.encode_utf8(&mut [0; 4])));
    let vanish = |w: Within| w == Within::Vanishes;
    let both = |run: &[(char, Within)]| {
        let run = shorten_rows(run, vanish, vanish, kept);
        shorten_rows(&run, |w| w != Within::Parts, |w| w == Within::Lengthens, kept)
    };
    let (mut out, mut full) = (Vec::new(), FULL);
    for c in run.chars() {
        out.push((c, within(c)));
        // A row that was shortened and goes on is shortened to the same again.
        if out.len() == full {
            out = both(&out);
            full = full.max(2 * out.len());
        }
    }
    both(&out).into_iter().map(|(c, _)| c).collect()
}

/// Of each row of characters `of_row`, those up to the `kept`-th `counted` one, and those from the `kept`-th last on.
fn shorten_rows(
    run: &[(char, Within)],
    of_row: impl Fn(Within) -> bool,
    counted: impl Fn(Within) -> bool,
    kept: usize,
) -> Vec<(char, Within)> {
    let mut out = Vec::new();
    for row in run.chunk_by(|(_, one), (_, next)| of_row(*one) == of_row(*next)) {
        let places =
            || row.iter().enumerate().filter(|(_, (_, w))| of_row(*w) && counted(*w)).map(|(at, _)| at);
        let count = places().count();
        match (places().nth(kept), places().nth(count.saturating_sub(kept))) {
            (Some(head_end), Some(tail_start)) if count > 2 * kept => {
                out.extend_from_slice(&row[..head_end]);
                out.extend_from_slice(&row[tail_start..]);
            }
            _ => out.extend_from_slice(row),
        }
    }
    out
}
