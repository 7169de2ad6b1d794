//! Reading `config.json` a field at a time: each is named once, with its default and with what it decides.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use contaccum_kernels::Activation;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

/// Activations of the feed-forward layer by the names transformers gives them.
const ACTIVATIONS: [(&str, Activation); 6] = [
    ("gelu", Activation::Gelu),
    ("gelu_python", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("relu", Activation::Relu),
];

/// What a field decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decides {
    /// The vector of a sequence of tokens.
    Vectors,
    /// What is dropped in training.
    Dropout,
    /// Neither: how fresh weights are drawn, what padding is.
    Neither,
}

/// Fields that were read, defaults in place of those left out.
pub(crate) type Read = BTreeMap<String, (Value, Decides)>;

/// The fields of a file, and those of them that have been read.
pub(crate) struct Fields<'a> {
    given: &'a Map<String, Value>,
    pub read: Read,
}

impl<'a> Fields<'a> {
    pub fn new(given: &'a Map<String, Value>) -> Self {
        Self { given, read: Read::new() }
    }

    /// The value in the file; `null` where it is left out.
    pub fn given(&self, name: &str) -> &'a Value {
        self.given.get(name).unwrap_or(&Value::Null)
    }

    /// Whether the file gives a field as `null`.
    pub fn is_null(&self, name: &str) -> bool {
        self.given.get(name).is_some_and(Value::is_null)
    }

    /// Writes what fields come to under one more name: transformers has changed the spelling.
    pub fn respell(&mut self, name: &str, value: Value) {
        self.read.insert(name.to_owned(), (value, Decides::Vectors));
    }

    /// A field of the file, or the default where it is left out or `null`; a whole number may be written `2.0`.
    fn field<T: DeserializeOwned + Serialize>(
        &mut self,
        name: &str,
        default: T,
        decides: Decides,
    ) -> Result<T, String> {
        let value = match self.given(name) {
            Value::Null => default,
            value => serde_json::from_value(whole_number(value).unwrap_or_else(|| value.clone()))
                .map_err(|reason| format!("{name}: {reason}; mend it or leave it out"))?,
        };
        self.read.insert(name.to_owned(), (json!(value), decides));
        Ok(value)
    }

    /// A field that decides vectors.
    pub fn of_vectors<T: DeserializeOwned + Serialize>(
        &mut self,
        name: &str,
        default: T,
    ) -> Result<T, String> {
        self.field(name, default, Decides::Vectors)
    }

    /// A field that decides no vector.
    pub fn neutral<T: DeserializeOwned + Serialize>(&mut self, name: &str, default: T) -> Result<T, String> {
        self.field(name, default, Decides::Neither)
    }

    /// A size; the upper bounds keep the number of parameters far from overflow whatever the file says.
    pub fn size(
        &mut self,
        name: &str,
        default: usize,
        bounds: RangeInclusive<usize>,
    ) -> Result<usize, String> {
        let value = self.of_vectors(name, default)?;
        match bounds.contains(&value) {
            true => Ok(value),
            false => {
                let (least, most) = bounds.into_inner();
                Err(format!("{name} is {value}; it must lie between {least} and {most}"))
            }
        }
    }

    /// The width of hidden states and the number of heads, which divides it.
    pub fn width_and_heads(
        &mut self,
        [width, heads]: [&str; 2],
        default: [usize; 2],
    ) -> Result<[usize; 2], String> {
        let values = [self.size(width, default[0], 1..=1 << 16)?, self.size(heads, default[1], 1..=1 << 16)?];
        match values[0].is_multiple_of(values[1]) {
            true => Ok(values),
            false => Err(format!("{width} {} is not a multiple of {heads} {}", values[0], values[1])),
        }
    }

    /// A dropout rate.
    pub fn dropout(&mut self, name: &str, default: f64) -> Result<f64, String> {
        let rate = self.field(name, default, Decides::Dropout)?;
        match (0.0..1.0).contains(&rate) {
            true => Ok(rate),
            false => Err(format!("{name} is {rate}; it must be at least 0 and below 1")),
        }
    }

    /// The epsilon of the LayerNorms.
    pub fn epsilon(&mut self, name: &str, default: f64) -> Result<f64, String> {
        let value = self.of_vectors(name, default)?;
        between_0_and_1(name, value)
    }

    /// The standard deviation of fresh weights.
    pub fn initializer_range(&mut self) -> Result<f64, String> {
        let value = self.neutral("initializer_range", 0.02)?;
        between_0_and_1("initializer_range", value)
    }

    /// The padding token's id.
    pub fn padding(&mut self, default: u32, vocabulary: usize, decides: Decides) -> Result<u32, String> {
        let id = self.field("pad_token_id", default, decides)?;
        match (id as usize) < vocabulary {
            true => Ok(id),
            false => Err(format!("pad_token_id {id} is outside the vocabulary of {vocabulary}")),
        }
    }

    /// Keeps the ids of special tokens as they are: where they are missing transformers puts those of its own
    /// vocabulary, and warns of what is beyond the model's.
    pub fn keep_token_ids(&mut self) {
        let ids = self.given.iter().filter(|(name, _)| name.ends_with("_token_id"));
        for (name, id) in ids {
            self.read.entry(name.clone()).or_insert_with(|| (id.clone(), Decides::Neither));
        }
    }

    /// An activation by transformers' name.
    pub fn activation(&mut self, name: &str) -> Result<Activation, String> {
        let word: String = self.of_vectors(name, "gelu".to_owned())?;
        ACTIVATIONS.iter().find(|(known, _)| *known == word).map(|(_, activation)| *activation).ok_or_else(
            || {
                let known = ACTIVATIONS.map(|(name, _)| name).join(", ");
                format!("{name} {word} is not supported; {known} are")
            },
        )
    }

    /// Refuses a file that gives a field another value than the only one that is done.
    pub fn only(&self, name: &str, value: &Value, remedy: &str) -> Result<(), String> {
        let given = self.given(name);
        match given.is_null() || given == value {
            true => Ok(()),
            false => Err(format!("{name} {given} is not supported; {remedy}")),
        }
    }
}

fn between_0_and_1(name: &str, value: f64) -> Result<f64, String> {
    match value > 0.0 && value < 1.0 {
        true => Ok(value),
        false => Err(format!("{name} is {value}; it must lie between 0 and 1")),
    }
}

/// `2.0` as `2`.
fn whole_number(value: &Value) -> Option<Value> {
    let number = value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..1e15).contains(number))?;
    Some(json!(number as u64))
}
