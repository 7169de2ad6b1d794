//! Token sequences and their packed form.

/// The tokens of one text, special tokens included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenSequence {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Index of the first token of the second segment (token type 1); `ids.len()` where there is none.
    pub second_segment: usize,
}

/// Sequences back to back, with no padding anywhere: the only form an encoder pass takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedTokens {
    ids: Vec<u32>,
    types: Vec<u8>,
    offsets: Vec<u32>,
}

impl Default for PackedTokens {
    fn default() -> Self {
        Self { ids: Vec::new(), types: Vec::new(), offsets: vec![0] }
    }
}

impl PackedTokens {
    /// An empty pack with room for this many tokens and sequences.
    pub fn with_capacity(tokens: usize, sequences: usize) -> Self {
        let mut offsets = Vec::with_capacity(sequences + 1);
        offsets.push(0);
        Self { ids: Vec::with_capacity(tokens), types: Vec::with_capacity(tokens), offsets }
    }

    /// Appends a sequence.
    ///
    /// # Panics
    /// When the sequence is empty: a text always has its special tokens.
    pub fn push(&mut self, sequence: &TokenSequence) {
        assert!(!sequence.ids.is_empty(), "a token sequence is never empty");
        let first = self.ids.len();
        self.ids.extend_from_slice(&sequence.ids);
        self.types.resize(first + sequence.second_segment.min(sequence.ids.len()), 0);
        self.types.resize(self.ids.len(), 1);
        self.offsets.push(self.ids.len() as u32);
    }

    /// Empties the pack, keeping its memory.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.types.clear();
        self.offsets.truncate(1);
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Number of tokens over all sequences.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Token ids, `tokens()` of them.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Token types (segment 0 or 1), `tokens()` of them.
    pub fn types(&self) -> &[u8] {
        &self.types
    }

    /// Cumulative lengths: sequence `i` holds tokens `offsets()[i] .. offsets()[i + 1]`.
    pub fn offsets(&self) -> &[u32] {
        &self.offsets
    }
}

impl<'a> FromIterator<&'a TokenSequence> for PackedTokens {
    fn from_iter<I: IntoIterator<Item = &'a TokenSequence>>(sequences: I) -> Self {
        let mut packed = Self::default();
        for sequence in sequences {
            packed.push(sequence);
        }
        packed
    }
}
