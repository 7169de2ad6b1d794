//! Hashes of contents: XXH3 of 128 bits, which tells damage and difference, not malice.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_128;

use crate::{Error, Result};

/// The hash of some content; 32 hexadecimal digits in text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ContentHash(pub u128);

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for ContentHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.len() == 32 && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        let number = digits.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        number.map(Self).ok_or_else(|| format!("{text:?} is no hash of 32 hexadecimal digits"))
    }
}

impl From<ContentHash> for String {
    fn from(hash: ContentHash) -> Self {
        hash.to_string()
    }
}

impl TryFrom<String> for ContentHash {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Hashes what is written to it.
pub struct ContentHasher(XxHash3_128);

impl ContentHasher {
    /// A hasher of nothing yet.
    pub fn new() -> Self {
        Self(XxHash3_128::new())
    }

    /// The hash of these bytes.
    pub fn of(bytes: &[u8]) -> ContentHash {
        ContentHash(XxHash3_128::oneshot(bytes))
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// Adds a text so that no two lists of texts give the same bytes: its length comes first.
    pub fn update_text(&mut self, text: &str) {
        self.update(&(text.len() as u64).to_le_bytes());
        self.update(text.as_bytes());
    }

    /// The hash of all that was added.
    pub fn finish(&self) -> ContentHash {
        ContentHash(self.0.finish_128())
    }
}

impl Default for ContentHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl Write for ContentHasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The hash of a file's content.
///
/// # Errors
/// When it cannot be read.
pub fn hash_file(path: &Path) -> Result<ContentHash> {
    let failed = Error::io("reading", path);
    let mut file = File::open(path).map_err(&failed)?;
    let mut hasher = ContentHasher::new();
    let mut bytes = vec![0; 1 << 18];
    loop {
        match file.read(&mut bytes) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(read) => hasher.update(&bytes[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_pieces_has_the_hash_of_its_bytes_and_one_bit_changes_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut bytes: Vec<u8> =
            (0..600_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let hash = hash_file(&path).unwrap();
        assert_eq!(hash, ContentHasher::of(&bytes));
        bytes[300_000] ^= 4;
        assert_ne!(hash, ContentHasher::of(&bytes));
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert!("+0000000000000000000000000000001".parse::<ContentHash>().is_err());
    }

    #[test]
    fn the_empty_content_has_the_published_hash() {
        // XXH3_128bits of nothing with seed 0, from xxHash's own tests.
        assert_eq!(ContentHasher::new().finish().to_string(), "99aa06d3014798d86001c324468d497f");
    }

    #[test]
    fn lists_of_texts_that_join_to_the_same_differ() {
        let hash = |texts: &[&str]| {
            let mut hasher = ContentHasher::new();
            texts.iter().for_each(|text| hasher.update_text(text));
            hasher.finish()
        };
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
    }
}
