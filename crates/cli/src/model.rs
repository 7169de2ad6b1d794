//! A model as commands use it: found by role, with its tokenizer and the buffers to embed with.

use std::path::Path;

use contaccum_data::Passage;
use contaccum_encoder::{
    Bf16Encoder, Embedder, Encoder, Layout, ModelFolder, ModelSettings, PackedTokens, PassLimits,
    PassageFormat, TextTokenizer, TokenSequence,
};
use contaccum_retrieval::BatchLimits;
use contaccum_training::{PASSAGE_ENCODER, QUERY_ENCODER};

use crate::args::Dtype;
use crate::failure::BadUsage;

/// What a model encodes. Untied models have a folder for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Query,
    Passage,
}

impl Role {
    fn folder(self) -> &'static str {
        match self {
            Self::Query => QUERY_ENCODER,
            Self::Passage => PASSAGE_ENCODER,
        }
    }
}

/// An encoder and what makes tokens of texts for it.
pub struct TextEncoder {
    pub name: String,
    pub encoder: Encoder,
    pub tokenizer: TextTokenizer,
    pub max_length: usize,
}

impl TextEncoder {
    /// Loads the model of a folder or hub name; of an untied model, the encoder of that role.
    pub fn load(name: &str, role: Role, max_length: Option<usize>) -> anyhow::Result<Self> {
        let of_role = Path::new(name).join(role.folder());
        let name = if of_role.is_dir() { of_role.display().to_string() } else { name.to_owned() };
        let folder = ModelFolder::locate(&name)?;
        let config = folder.config()?;
        let settings = folder.settings()?;
        folder.warn_if_plain();
        let max_length = max_length.unwrap_or(settings.max_seq_length);
        if max_length > config.max_position_embeddings {
            let positions = config.max_position_embeddings;
            let what =
                format!("--max-length {max_length}: {name} has {positions} positions (give at most that)");
            return Err(BadUsage(what).into());
        }
        if max_length < 3 {
            let what =
                format!("--max-length {max_length}: no room beside the special tokens (give 3 or more)");
            return Err(BadUsage(what).into());
        }
        let weights = folder.weights(&Layout::new(&config))?;
        let tokenizer = folder.tokenizer()?;
        let encoder = Encoder::new(config, settings, weights);
        tracing::info!(
            "model {name}: {} layers, {} dimensions, pooling {}, normalised {}, at most {max_length} tokens, prompt {:?}",
            encoder.config().num_hidden_layers,
            encoder.dim(),
            word(&encoder.settings().pooling),
            encoder.settings().normalize,
            match role {
                Role::Query => &encoder.settings().query_prompt,
                Role::Passage => &encoder.settings().passage_prompt,
            },
        );
        Ok(Self { name, encoder, tokenizer, max_length })
    }

    /// A query, with its prompt, as tokens.
    pub fn query(&self, text: &str) -> anyhow::Result<TokenSequence> {
        query_tokens(&self.tokenizer, self.encoder.settings(), text, self.max_length)
    }

    /// A passage, with its prompt, as tokens.
    pub fn passage(&self, passage: &Passage, format: PassageFormat) -> anyhow::Result<TokenSequence> {
        passage_tokens(&self.tokenizer, self.encoder.settings(), passage, format, self.max_length)
    }

    /// A function that writes the vectors of packed batches within `limits`.
    pub fn embed(&self, limits: BatchLimits) -> impl FnMut(&PackedTokens, &mut [f32]) {
        embed(&self.encoder, limits, self.max_length)
    }

    /// [`TextEncoder::embed`] with layers that multiply in `dtype`.
    pub fn embed_in(&self, dtype: Dtype, limits: BatchLimits) -> anyhow::Result<Box<Embed<'_>>> {
        Ok(match dtype {
            Dtype::F32 => Box::new(self.embed(limits)),
            Dtype::Bf16 => {
                let refuse = |error| BadUsage(format!("--dtype bf16: {error}"));
                let encoder = Bf16Encoder::new(&self.encoder).map_err(refuse)?;
                let mut buffers = buffers(&self.encoder, limits, self.max_length);
                Box::new(move |tokens, vectors| encoder.embed(&mut buffers, tokens, vectors))
            }
        })
    }
}

/// Writes the vectors of a packed batch.
pub type Embed<'a> = dyn FnMut(&PackedTokens, &mut [f32]) + 'a;

/// A query, with its prompt, as tokens.
pub fn query_tokens(
    tokenizer: &TextTokenizer,
    settings: &ModelSettings,
    text: &str,
    max_length: usize,
) -> anyhow::Result<TokenSequence> {
    Ok(tokenizer.query(&settings.prompted_query(text), max_length)?)
}

/// A passage, with its prompt, as tokens.
pub fn passage_tokens(
    tokenizer: &TextTokenizer,
    settings: &ModelSettings,
    passage: &Passage,
    format: PassageFormat,
    max_length: usize,
) -> anyhow::Result<TokenSequence> {
    let (title, text) = settings.prompted_passage(&passage.title, &passage.text);
    Ok(tokenizer.passage(&title, &text, format, max_length)?)
}

/// A function that writes the vectors of packed batches within `limits`, of sequences up to `longest` tokens.
pub fn embed(
    encoder: &Encoder,
    limits: BatchLimits,
    longest: usize,
) -> impl FnMut(&PackedTokens, &mut [f32]) {
    let mut buffers = buffers(encoder, limits, longest);
    move |tokens, vectors| buffers.embed(encoder, tokens, vectors)
}

fn buffers(encoder: &Encoder, limits: BatchLimits, longest: usize) -> Embedder {
    let tokens = limits.max_tokens.min(limits.max_sequences * longest);
    let pass = PassLimits { tokens, sequences: limits.max_sequences.min(tokens), longest };
    Embedder::new(encoder.config(), pass)
}

/// The word a setting is written with in recipes and model folders.
pub fn word(setting: &impl serde::Serialize) -> String {
    match serde_json::to_value(setting) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(_) => unreachable!("settings are plain values"),
    }
}
