//! `config.json`: which family a model is of, and what it looks like.

use std::path::Path;

use contaccum_files::{read_json_if_there, write_json};
use serde_json::{Map, Value};

use crate::families::{Decides, Family, Fields, Read, family_of};
use crate::{Architecture, DenseShape, EncoderError, Fingerprint};

/// What a `config.json` says: the family, its fields as transformers names them, and the [`Architecture`] that they
/// describe. A fresh one is made from a [`crate::BertConfig`].
#[derive(Clone, Debug)]
pub struct ModelConfig {
    family: &'static Family,
    fields: Read,
    architecture: Architecture,
    dense: Vec<DenseShape>,
}

impl PartialEq for ModelConfig {
    fn eq(&self, other: &Self) -> bool {
        let parts = |one: &Self| (one.family.model_type, one.dense.clone());
        parts(self) == parts(other) && self.fields == other.fields
    }
}

impl ModelConfig {
    /// Reads a `config.json`. Fields this program does not know are left out; `null` stands for the family's default, and
    /// a whole number may be written `2.0`.
    ///
    /// # Errors
    /// When the file is missing or broken, or asks for an encoder that this program does not do.
    pub fn read(path: &Path) -> Result<Self, EncoderError> {
        let fields = read_json_if_there(path)?.ok_or_else(|| EncoderError::FileMissing {
            path: path.into(),
            remedy: "a model folder holds config.json, model.safetensors and tokenizer.json".into(),
        })?;
        Self::of(&fields)
            .map_err(|what| EncoderError::Unsupported { place: path.display().to_string(), what })
    }

    /// As [`ModelConfig::read`], from the fields of a `config.json`.
    ///
    /// # Errors
    /// When they ask for an encoder that this program does not do.
    pub fn from_fields(fields: &Map<String, Value>) -> Result<Self, EncoderError> {
        Self::of(fields)
            .map_err(|what| EncoderError::Unsupported { place: "model configuration".into(), what })
    }

    fn of(fields: &Map<String, Value>) -> Result<Self, String> {
        // Another family's fields may differ in type too: what it is comes before what is wrong with it.
        family_of(fields).and_then(|family| Self::of_family(family, fields))
    }

    fn of_family(family: &'static Family, fields: &Map<String, Value>) -> Result<Self, String> {
        let mut fields = Fields::new(fields);
        let architecture = (family.read)(&mut fields)?;
        fields.keep_token_ids();
        Ok(Self { family, fields: fields.read, architecture, dense: Vec::new() })
    }

    /// What the encoder looks like.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The same with these `Dense` modules behind the pooling.
    #[must_use]
    pub fn with_dense(self, dense: Vec<DenseShape>) -> Self {
        Self { dense, ..self }
    }

    /// The `Dense` modules behind the pooling.
    pub fn dense(&self) -> &[DenseShape] {
        &self.dense
    }

    /// Width of a text's vector.
    pub fn dim(&self) -> usize {
        self.dense.last().map_or(self.architecture.width, |last| last.outputs)
    }

    /// The family, by its `model_type`.
    pub fn model_type(&self) -> &'static str {
        self.family.model_type
    }

    pub(crate) fn family(&self) -> &'static Family {
        self.family
    }

    /// The same with every dropout at one rate.
    ///
    /// # Panics
    /// When `rate` is not in `0 ≤ rate < 1`.
    #[must_use]
    pub fn with_dropout(&self, rate: f64) -> Self {
        let fields = self.fields.iter().map(|(name, (value, decides))| match decides {
            Decides::Dropout => (name.clone(), rate.into()),
            Decides::Vectors | Decides::Neither => (name.clone(), value.clone()),
        });
        let config = Self::of_family(self.family, &fields.collect());
        config.expect("fields that were read, and a dropout rate").with_dense(self.dense.clone())
    }

    /// Writes a `config.json` that transformers reads as this encoder.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), EncoderError> {
        let mut fields: Map<String, Value> =
            self.fields.iter().map(|(name, (value, _))| (name.clone(), value.clone())).collect();
        fields.insert("architectures".into(), vec![self.family.class].into());
        fields.insert("model_type".into(), self.family.model_type.into());
        Ok(write_json(path, &fields)?)
    }

    /// What decides the vector that a sequence of tokens gets.
    pub fn fingerprint(&self) -> Fingerprint {
        let fields = self.fields_that_decide(Decides::Vectors);
        let fields = match self.dense.as_slice() {
            [] => fields,
            dense => {
                let told: Vec<String> = dense.iter().map(ToString::to_string).collect();
                fields.with("dense", told.join(", "))
            }
        };
        match self.family.model_type {
            // Records of BERT are older than that there was another family.
            "bert" => fields,
            model_type => fields.with("model_type", model_type),
        }
    }

    /// The dropout rates.
    pub fn dropout_fingerprint(&self) -> Fingerprint {
        self.fields_that_decide(Decides::Dropout)
    }

    fn fields_that_decide(&self, what: Decides) -> Fingerprint {
        let told = |value: &Value| value.as_str().map_or(value.to_string(), str::to_owned);
        let fields = self.fields.iter().filter(|(_, (_, decides))| *decides == what);
        fields.fold(Fingerprint::new(), |all, (name, (value, _))| all.with(name, told(value)))
    }
}
