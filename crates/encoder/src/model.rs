//! A model in one call: text in, vector out.

use crate::{
    Embedder, Encoder, EncoderError, ModelFolder, PackedTokens, PassLimits, TextTokenizer, TokenSequence,
};

/// An encoder with its tokenizer, as a folder records them.
pub struct Model {
    encoder: Encoder,
    tokenizer: TextTokenizer,
}

impl Model {
    /// Opens a model folder of Hugging Face or sentence-transformers, or a hub name.
    ///
    /// # Errors
    /// As [`ModelFolder::locate`], and what cannot be read of the folder.
    pub fn open(name_or_path: &str) -> Result<Self, EncoderError> {
        let folder = ModelFolder::locate(name_or_path)?;
        Ok(Self { encoder: folder.encoder(folder.settings()?)?, tokenizer: folder.tokenizer()? })
    }

    /// The encoder.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// The vector of a query, with the query prompt, of [`Encoder::dim`] values.
    ///
    /// # Errors
    /// As [`TextTokenizer::query`].
    pub fn query(&self, text: &str) -> Result<Vec<f32>, EncoderError> {
        let settings = self.encoder.settings();
        Ok(self.embed(&self.tokenizer.query(&settings.prompted_query(text), settings.query_max_length)?))
    }

    /// The vector of a passage, with the passage prompt, of [`Encoder::dim`] values; a passage need have no title.
    ///
    /// # Errors
    /// As [`TextTokenizer::passage`].
    pub fn passage(&self, title: &str, text: &str) -> Result<Vec<f32>, EncoderError> {
        let settings = self.encoder.settings();
        let (title, text) = settings.prompted_passage(title, text);
        let (format, longest) = (settings.passage_format, settings.passage_max_length);
        Ok(self.embed(&self.tokenizer.passage(&title, &text, format, longest)?))
    }

    fn embed(&self, sequence: &TokenSequence) -> Vec<f32> {
        let length = sequence.ids.len();
        let mut tokens = PackedTokens::with_capacity(length, 1);
        tokens.push(sequence);
        let limits = PassLimits { tokens: length, sequences: 1, longest: length };
        let mut vector = vec![0.0; self.encoder.dim()];
        Embedder::new(self.encoder.config(), limits).embed(&self.encoder, &tokens, &mut vector);
        vector
    }
}
