//! Seeded mutations of examples: the same seed gives the same inputs.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Longest input made.
const LONGEST: usize = 1 << 16;

/// What breaks parsers of text and of numbers.
const WORDS: [&str; 44] = [
    "0",
    "-1",
    "1e308",
    "-1e-320",
    "NaN",
    "Infinity",
    "18446744073709551615",
    "9223372036854775808",
    "4294967296",
    "1.5",
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "\"",
    "\\",
    "\\ud800",
    "\\u0000",
    "\u{feff}",
    "\u{202e}",
    "\u{a0}",
    "\n",
    "\r\n",
    "\t",
    "\r",
    "\0",
    ",",
    ":",
    "[[",
    "{\"",
    "}}",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    "__proto__",
    "../..",
    "/",
    "#",
    "=",
    "'''",
    "[[cell]]",
    "\u{1f600}",
    "\u{e9}",
    "e\u{301}",
    "0x1p-3",
];

/// A stream of mutated inputs.
pub struct Mutator {
    seeds: Vec<Vec<u8>>,
    generator: ChaCha8Rng,
}

impl Mutator {
    /// Begins a stream from examples, of which there must be one.
    pub fn new(seeds: Vec<Vec<u8>>, seed: u64) -> Self {
        assert!(!seeds.is_empty(), "a target has an example");
        Self { seeds, generator: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// The next input.
    pub fn input(&mut self) -> Vec<u8> {
        let mut bytes = self.example();
        for _ in 0..self.generator.random_range(1..=6) {
            self.mutate(&mut bytes);
        }
        bytes.truncate(LONGEST);
        bytes
    }

    fn example(&mut self) -> Vec<u8> {
        let index = self.generator.random_range(0..self.seeds.len());
        self.seeds[index].clone()
    }

    /// A range of up to 64 bytes somewhere in `length`.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let from = self.generator.random_range(0..=length);
        let most = (length - from).min(64);
        from..from + self.generator.random_range(0..=most)
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let range = self.range(bytes.len());
        match self.generator.random_range(0..9) {
            0 if !bytes.is_empty() => {
                let at = self.generator.random_range(0..bytes.len());
                bytes[at] ^= 1 << self.generator.random_range(0..8);
            }
            1 if !bytes.is_empty() => {
                let at = self.generator.random_range(0..bytes.len());
                bytes[at] = self.generator.random();
            }
            2 => drop(bytes.drain(range)),
            3 => {
                let copied = bytes[range.clone()].to_vec();
                bytes.splice(range.end..range.end, copied);
            }
            4 => bytes.truncate(range.start),
            5 => {
                let other = self.example();
                let piece = self.range(other.len());
                bytes.splice(range.start..range.start, other[piece].iter().copied());
            }
            6 => self.replace_number(bytes),
            _ => {
                let word = WORDS[self.generator.random_range(0..WORDS.len())];
                let end = if self.generator.random() { range.end } else { range.start };
                bytes.splice(range.start..end, word.bytes());
            }
        }
    }

    /// A run of digits becomes another number; in a binary file, eight bytes do.
    fn replace_number(&mut self, bytes: &mut Vec<u8>) {
        let digits: Vec<usize> = (0..bytes.len())
            .filter(|&at| bytes[at].is_ascii_digit() && (at == 0 || !bytes[at - 1].is_ascii_digit()))
            .collect();
        if digits.is_empty() {
            return;
        }
        let from = digits[self.generator.random_range(0..digits.len())];
        let length = bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = match self.generator.random_range(0..3) {
            0 => WORDS[self.generator.random_range(0..10)].to_owned(),
            1 => self.generator.random::<u64>().to_string(),
            _ => self.generator.random_range(0..300u32).to_string(),
        };
        bytes.splice(from..from + length, number.bytes());
    }
}
