//! The table of a `Precompiled` normalizer: SentencePiece's rules for characters, as a double array and its replacements.
//!
//! The library follows the array without looking where it leads, and a broken one ends in a panic in the middle of some
//! text. So the whole array is walked once, before it is used.

use std::collections::VecDeque;

use base64::{Engine, prelude::BASE64_STANDARD};

/// Numbers in the array; the largest in use have a hundred thousand.
const MOST_UNITS: usize = 1 << 20;
/// Bytes of UTF-8 text, but for the zero with which the array ends a key.
const LABELS: std::ops::RangeInclusive<usize> = 1..=0xf4;

/// How often a text may be longer after the replacements of a table in base64.
///
/// # Errors
/// What is broken.
pub(super) fn growth(encoded: &str) -> Result<usize, String> {
    let bytes = BASE64_STANDARD.decode(encoded).map_err(|reason| format!("is not base64: {reason}"))?;
    let (size, rest) = bytes.split_first_chunk().ok_or("is empty")?;
    let size = u32::from_le_bytes(*size) as usize / 4 * 4;
    let (array, replacements) = rest.split_at_checked(size).ok_or("ends within its array")?;
    let (array, _) = array.as_chunks();
    let units: Vec<usize> = array.iter().map(|unit| u32::from_le_bytes(*unit) as usize).collect();
    if units.len() > MOST_UNITS {
        return Err(format!("has an array of {} numbers; at most {MOST_UNITS} are allowed", units.len()));
    }
    let replacements = str::from_utf8(replacements).map_err(|_| "has replacements that are not UTF-8")?;
    walk(&units, replacements)
}

/// Goes every way that a text can take, the shortest first.
fn walk(units: &[usize], replacements: &str) -> Result<usize, String> {
    let outside = || "has an array that leads out of itself".to_owned();
    let unit = |at: usize| units.get(at).copied().ok_or_else(outside);
    let offset = |unit: usize| (unit >> 10) << ((unit & (1 << 9)) >> 6);
    let mut known = vec![false; units.len()];
    let mut open = VecDeque::from([(offset(unit(0)?), 0usize)]);
    let mut growth = 1;
    while let Some((place, depth)) = open.pop_front() {
        match known.get_mut(place) {
            Some(known) if *known => continue,
            Some(known) => *known = true,
            None => return Err(outside()),
        }
        for label in LABELS {
            let found = unit(place ^ label)?;
            if found & (1 << 31 | 0xff) != label {
                continue;
            }
            let next = place ^ label ^ offset(found);
            if found >> 8 & 1 == 1 {
                let start = unit(next)? & ((1 << 31) - 1);
                let replacement =
                    replacements.get(start..).ok_or("has an array that leads into no replacement")?;
                let length = replacement.bytes().position(|byte| byte == 0).unwrap_or(replacement.len());
                growth = growth.max(length.div_ceil(depth + 1));
            }
            open.push_back((next, depth + 1));
        }
    }
    Ok(growth)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A table of these one-byte characters and what replaces each.
    pub(crate) fn table(rules: &[(u8, &str)]) -> String {
        // The root leads to 256; the value of a character lies in a block of its own.
        let mut units = vec![0u32; 256 * (2 + rules.len())];
        units[0] = 256 << 10;
        let mut replacements = String::new();
        for (i, (character, replacement)) in rules.iter().enumerate() {
            let (at, block) = (256 ^ usize::from(*character), 256 * (2 + i));
            units[at] = ((at ^ block) << 10) as u32 | 1 << 8 | u32::from(*character);
            units[block] = 1 << 31 | replacements.len() as u32;
            replacements += replacement;
            replacements.push('\0');
        }
        encoded(&units, &replacements)
    }

    fn encoded(units: &[u32], replacements: &str) -> String {
        let mut bytes = (4 * units.len() as u32).to_le_bytes().to_vec();
        bytes.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        bytes.extend(replacements.as_bytes());
        BASE64_STANDARD.encode(bytes)
    }

    #[test]
    fn the_longest_replacement_is_the_growth() {
        assert_eq!(growth(&table(&[(b'a', "b"), (b'c', ""), (b'd', "seven"), (b'e', "ä")])).unwrap(), 5);
        assert_eq!(growth(&table(&[])).unwrap(), 1);
    }

    #[test]
    fn a_table_that_the_library_accepts_does_what_it_says() {
        let definition = format!(
            r#"{{"type": "Precompiled", "precompiled_charsmap": "{}"}}"#,
            table(&[(b'a', "bb"), (b'\t', " ")])
        );
        let normalizer: tokenizers::NormalizerWrapper = serde_json::from_str(&definition).unwrap();
        let mut text = tokenizers::NormalizedString::from("cat\ta");
        tokenizers::Normalizer::normalize(&normalizer, &mut text).unwrap();
        assert_eq!(text.get(), "cbbt bb");
    }

    #[test]
    fn a_broken_table_is_refused() {
        let refused = |encoded: &str| growth(encoded).unwrap_err();
        assert!(refused("").contains("empty"));
        assert!(refused("####").contains("base64"));
        assert!(refused(&BASE64_STANDARD.encode([0xff, 0xff, 0xff, 0xff, 1])).contains("within its array"));
        let mut far = vec![0u32; 512];
        far[0] = 1 << 20;
        assert!(refused(&encoded(&far, "")).contains("out of itself"));
        let mut short = vec![0u32; 300];
        short[0] = 256 << 10;
        assert!(refused(&encoded(&short, "")).contains("out of itself"));
        let mut value = vec![0u32; 768];
        value[0] = 256 << 10;
        value[256 ^ 97] = ((256 ^ 97 ^ 512) << 10) as u32 | 1 << 8 | 97;
        value[512] = 1 << 31 | 1;
        assert!(refused(&encoded(&value, "ä")).contains("no replacement"));
        // An array that leads back into itself ends.
        let mut around = vec![0u32; 512];
        around[0] = 256 << 10;
        around[256 ^ 97] = 97 << 10 | 97;
        assert_eq!(growth(&encoded(&around, "")).unwrap(), 1);
        let mut bytes = ((4 * (MOST_UNITS + 1)) as u32).to_le_bytes().to_vec();
        bytes.resize(4 * (MOST_UNITS + 2), 0);
        assert!(refused(&BASE64_STANDARD.encode(bytes)).contains("at most"));
    }
}
