//! What decides a result, part by part, so that two results can be held against each other and what differs be named.
//!
//! An index, a checkpoint and a study's run record the [`Fingerprint`] of what they were made of. Contents (weights, a
//! tokenizer, texts) stand in it by their hash, everything else by its value.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use contaccum_files::{ContentHash, ContentHasher};
use serde::{Deserialize, Serialize};

use crate::{Encoder, TextTokenizer};

/// Before a hash in a record: tells it from a value, and which hash it is.
const HASHED: &str = "xxh3:";

/// Numbers turned into bytes at a time.
const BLOCK: usize = 1 << 14;

/// The hash of numbers, as little-endian bytes.
pub fn hash_numbers(numbers: &[f32]) -> ContentHash {
    let mut hasher = ContentHasher::new();
    let mut block = [0; 4 * BLOCK];
    for piece in numbers.chunks(BLOCK) {
        for (bytes, number) in block.as_chunks_mut().0.iter_mut().zip(piece) {
            *bytes = number.to_le_bytes();
        }
        hasher.update(&block[..4 * piece.len()]);
    }
    hasher.finish()
}

/// Named parts of what decides a result. See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(BTreeMap<String, String>);

impl Fingerprint {
    /// A fingerprint without parts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part that is its value.
    #[must_use]
    pub fn with(mut self, part: &str, value: impl Display) -> Self {
        self.0.insert(part.to_owned(), value.to_string());
        self
    }

    /// Adds a part that is known by its hash.
    #[must_use]
    pub fn with_content(self, part: &str, content: ContentHash) -> Self {
        self.with(part, format_args!("{HASHED}{content}"))
    }

    /// Adds the parts of another.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Whether a part stands in it by this hash.
    pub fn has_content(&self, part: &str, content: ContentHash) -> bool {
        self.get(part).is_some_and(|hash| hash.strip_prefix(HASHED) == Some(content.to_string().as_str()))
    }

    /// Leaves a part out.
    #[must_use]
    pub fn without(mut self, part: &str) -> Self {
        self.0.remove(part);
        self
    }

    /// The value, or the hash, of a part.
    pub fn get(&self, part: &str) -> Option<&str> {
        self.0.get(part).map(String::as_str)
    }

    /// The parts in which `now` differs from this record.
    pub fn differences(&self, now: &Self) -> Vec<Difference> {
        let mut parts: Vec<&String> = self.0.keys().chain(now.0.keys()).collect();
        parts.sort();
        parts.dedup();
        let difference = |part: &String| {
            let (recorded, now) = (self.0.get(part).cloned(), now.0.get(part).cloned());
            (recorded != now).then(|| Difference { part: part.clone(), recorded, now })
        };
        parts.into_iter().filter_map(difference).collect()
    }
}

/// What decides the last bits of a result beside its content: sums are cut otherwise on other machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rounding {
    /// Worker threads.
    pub threads: usize,
    /// Instruction set.
    pub instructions: String,
}

impl Rounding {
    /// That of this process.
    pub fn here() -> Self {
        Self { threads: contaccum_kernels::threads(), instructions: contaccum_kernels::instructions().into() }
    }
}

impl Display for Rounding {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} threads on {}", self.threads, self.instructions)
    }
}

/// A part in which a record and what is there now differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Name of the part.
    pub part: String,
    /// What was recorded; `None` where the part was not there.
    pub recorded: Option<String>,
    /// What it is now; `None` where the part is not there.
    pub now: Option<String>,
}

impl Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { part, recorded, now } = self;
        let hashed = |value: &Option<String>| value.as_ref().is_some_and(|value| value.starts_with(HASHED));
        if hashed(recorded) || hashed(now) {
            return write!(f, "{part} differ{}", if part.ends_with('s') { "" } else { "s" });
        }
        let told =
            |value: &Option<String>| value.as_ref().map_or("unset".into(), |value| format!("{value:?}"));
        write!(f, "{part} was {}, is {}", told(recorded), told(now))
    }
}

/// Differences in one line.
pub fn tell_differences(differences: &[Difference]) -> String {
    differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Encoder {
    /// What decides the vector of a text beside its prompt and length: weights, configuration, tokenizer, pooling,
    /// normalisation. Two encoders of one fingerprint give vectors that can be compared.
    pub fn fingerprint(&self, tokenizer: &TextTokenizer) -> Fingerprint {
        self.config()
            .fingerprint()
            .with_content("weights", hash_numbers(self.weights()))
            .with_content("tokenizer", tokenizer.fingerprint())
            .with("pooling", self.settings().pooling.name())
            .with("normalize", self.settings().normalize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BertConfig, ModelConfig};

    #[test]
    fn numbers_are_hashed_as_their_bytes_however_many_there_are() {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5] {
            let numbers: Vec<f32> = (0..length).map(|i| i as f32 * 0.37 - 5.0).collect();
            let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            assert_eq!(hash_numbers(&numbers), ContentHasher::of(&bytes), "{length}");
        }
    }

    #[test]
    fn what_differs_is_named_by_value_or_as_content() {
        let recorded = Fingerprint::new()
            .with("pooling", "cls")
            .with_content("tokenizer", ContentHasher::of(b"a"))
            .with("dim", 4);
        let now = Fingerprint::new()
            .with("pooling", "mean")
            .with_content("tokenizer", ContentHasher::of(b"b"))
            .with_content("texts", ContentHasher::of(b"c"))
            .with("dim", 4);
        let told = tell_differences(&recorded.differences(&now));
        assert_eq!(told, r#"pooling was "cls", is "mean"; texts differ; tokenizer differs"#);
        assert!(recorded.differences(&recorded.clone()).is_empty());
        let back: Fingerprint = serde_json::from_str(&serde_json::to_string(&now).unwrap()).unwrap();
        assert_eq!(back, now);
    }

    #[test]
    fn heads_and_activation_are_of_the_fingerprint_and_dropout_is_not() {
        let config = BertConfig::default();
        let of = |config: BertConfig| ModelConfig::try_from(config).unwrap();
        let recorded = of(config.clone()).fingerprint();
        assert_eq!(of(config.clone()).with_dropout(0.5).fingerprint(), recorded);
        let heads = of(BertConfig { num_attention_heads: 6, ..config }).fingerprint();
        assert_eq!(
            tell_differences(&recorded.differences(&heads)),
            r#"num_attention_heads was "12", is "6""#
        );
    }
}
