//! A model as commands use it: found by role, with its tokenizer and the buffers to embed with.

use std::path::Path;

use contaccum_data::Passage;
use contaccum_encoder::{
    Bf16Encoder, Embedder, Encoder, Fingerprint, ModelFolder, ModelSettings, PackedTokens, Pair, PassLimits,
    PassageFormat, Side, TextTokenizer, TokenSequence,
};
use contaccum_retrieval::BatchLimits;
use contaccum_training::{PASSAGE_ENCODER, QUERY_ENCODER, word};

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

    fn side(self) -> Side {
        match self {
            Self::Query => Side::Query,
            Self::Passage => Side::Passage,
        }
    }

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Query => Self::Passage,
            Self::Passage => Self::Query,
        }
    }

    /// What is encoded, in words.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Query => "queries",
            Self::Passage => "passages",
        }
    }

    fn max_length(self, settings: &ModelSettings) -> usize {
        match self {
            Self::Query => settings.query_max_length,
            Self::Passage => settings.passage_max_length,
        }
    }

    /// Refuses a length, of a flag or of the folder, that leaves no room beside the special tokens.
    fn check_length(
        self,
        name: &str,
        settings: &ModelSettings,
        tokenizer: &TextTokenizer,
    ) -> Result<(), BadUsage> {
        let length = self.max_length(settings);
        let least = match self {
            Self::Query => tokenizer.shortest_query(),
            Self::Passage => tokenizer.shortest_passage(settings.passage_format),
        };
        match length < least {
            true => Err(BadUsage(format!(
                "{name}: a maximum length of {length} leaves no room beside the special tokens (give --max-length {least} \
                 or more)"
            ))),
            false => Ok(()),
        }
    }
}

/// What of texts is to be done otherwise than the model folder says.
#[derive(Clone, Copy, Debug, Default)]
pub struct TextOverrides<'a> {
    pub max_length: Option<usize>,
    pub prompt: Option<&'a str>,
    pub passage_format: Option<PassageFormat>,
}

/// An encoder and what makes tokens of texts for it.
pub struct TextEncoder {
    pub name: String,
    pub encoder: Encoder,
    pub tokenizer: TextTokenizer,
    /// What makes its vectors comparable with others: hashed once, when it is loaded.
    pub fingerprint: Fingerprint,
    /// The encoder of the other side, of two that were trained together.
    pub pair: Option<Pair>,
    role: Role,
}

impl TextEncoder {
    /// Loads the model of a folder or hub name; of an untied model, the encoder of that role.
    pub fn load(name: &str, role: Role, overrides: TextOverrides) -> anyhow::Result<Self> {
        let of_role = Path::new(name).join(role.folder());
        let name = if of_role.is_dir() { of_role.display().to_string() } else { name.to_owned() };
        let folder = ModelFolder::locate(&name)?;
        let recorded = folder.settings()?;
        folder.warn_if_plain();
        let tokenizer = folder.tokenizer()?;
        let settings = overrides.over(&name, role, &folder, &tokenizer, recorded)?;
        let pair = folder.record()?.pair;
        if pair.as_ref().is_some_and(|pair| pair.side != role.side()) {
            let what = format!(
                "{name} was trained to encode {} (give the folder that holds {QUERY_ENCODER} and {PASSAGE_ENCODER})",
                role.other().plural()
            );
            return Err(BadUsage(what).into());
        }
        let encoder = folder.encoder(settings)?;
        let fingerprint = encoder.fingerprint(&tokenizer);
        let encoder = Self { name, encoder, tokenizer, fingerprint, pair, role };
        encoder.tell();
        Ok(encoder)
    }

    fn tell(&self) {
        let settings = self.encoder.settings();
        let format = match (self.role, settings.passage_format) {
            (Role::Query, _) => "",
            (Role::Passage, PassageFormat::Pair) => ", title and text as a pair",
            (Role::Passage, PassageFormat::Joined) => ", title and text joined",
        };
        tracing::info!(
            "model {}: {} layers, {} dimensions, pooling {}, normalised {}, at most {} tokens, prompt {:?}{format}",
            self.name,
            self.encoder.config().architecture().layers.len(),
            self.encoder.dim(),
            settings.pooling.name(),
            settings.normalize,
            self.max_length(),
            self.prompt(),
        );
    }

    /// Longest text in tokens.
    pub fn max_length(&self) -> usize {
        self.role.max_length(self.encoder.settings())
    }

    /// What is put before every text.
    pub fn prompt(&self) -> &str {
        match self.role {
            Role::Query => &self.encoder.settings().query_prompt,
            Role::Passage => &self.encoder.settings().passage_prompt,
        }
    }

    /// A query, with its prompt, as tokens.
    pub fn query(&self, text: &str) -> anyhow::Result<TokenSequence> {
        let settings = self.encoder.settings();
        Ok(self.tokenizer.query(&settings.prompted_query(text), settings.query_max_length)?)
    }

    /// A passage, with its prompt, as tokens.
    pub fn passage(&self, passage: &Passage) -> anyhow::Result<TokenSequence> {
        let settings = self.encoder.settings();
        let (title, text) = settings.prompted_passage(&passage.title, &passage.text);
        let (format, longest) = (settings.passage_format, settings.passage_max_length);
        Ok(self.tokenizer.passage(&title, &text, format, longest)?)
    }

    /// A function that writes the vectors of packed batches within `limits`.
    pub fn embed(&self, limits: BatchLimits) -> impl FnMut(&PackedTokens, &mut [f32]) {
        embed(&self.encoder, limits, self.max_length())
    }

    /// [`TextEncoder::embed`] with layers that multiply in `dtype`.
    pub fn embed_in(&self, dtype: Dtype, limits: BatchLimits) -> anyhow::Result<Box<Embed<'_>>> {
        Ok(match dtype {
            Dtype::F32 => Box::new(self.embed(limits)),
            Dtype::Bf16 => {
                let refuse = |error| BadUsage(format!("--dtype bf16: {error}"));
                let encoder = Bf16Encoder::new(&self.encoder).map_err(refuse)?;
                let mut buffers = buffers(&self.encoder, limits, self.max_length());
                Box::new(move |tokens, vectors| encoder.embed(&mut buffers, tokens, vectors))
            }
        })
    }
}

/// Writes the vectors of a packed batch.
pub type Embed<'a> = dyn FnMut(&PackedTokens, &mut [f32]) + 'a;

impl TextOverrides<'_> {
    /// The folder's settings with these laid over them; what replaces a record of the folder is told.
    fn over(
        self,
        name: &str,
        role: Role,
        folder: &ModelFolder,
        tokenizer: &TextTokenizer,
        recorded: ModelSettings,
    ) -> anyhow::Result<ModelSettings> {
        let mut settings = recorded.clone();
        if let Some(length) = self.max_length {
            let positions = folder.config()?.architecture().longest;
            if length > positions {
                let problem = format!("{name} has {positions} positions (give at most that)");
                return Err(BadUsage(format!("--max-length {length}: {problem}")).into());
            }
            (settings.query_max_length, settings.passage_max_length) = (length, length);
        }
        settings.passage_format = self.passage_format.unwrap_or(settings.passage_format);
        role.check_length(name, &settings, tokenizer)?;
        if let Some(prompt) = self.prompt {
            (settings.query_prompt, settings.passage_prompt) = (prompt.to_owned(), prompt.to_owned());
        } else {
            folder.notes()?.iter().for_each(|note| tracing::warn!("{note}"));
        }
        let record = folder.record()?;
        let (recorded_length, length) = (role.max_length(&recorded), role.max_length(&settings));
        let replaced = [
            (record.passage_format.is_some() && recorded.passage_format != settings.passage_format)
                .then(|| format!("passage format {}", word(&recorded.passage_format))),
            (record.query_max_length.is_some() && recorded_length != length)
                .then(|| format!("at most {recorded_length} tokens")),
        ];
        for replaced in replaced.into_iter().flatten() {
            tracing::warn!("{name} was trained with {replaced}: the flag given replaces that");
        }
        Ok(settings)
    }
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
