//! The types that settings have, and how their values are told.

use std::path::PathBuf;

use bytesize::ByteSize;
use contaccum_data::{Columns, Positives};
use contaccum_encoder::{PassageFormat, Pooling, Recompute, Similarity};
use contaccum_objective::{BankDtype, RowScale, Rows};
use serde::de::{DeserializeOwned, Deserializer, Visitor};
use serde::{Serialize, forward_to_deserialize_any};

use crate::{BankDrift, BankWarmup, Enqueue, Method, Scheduler};

/// What may be given for a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Yes or no.
    Switch,
    /// A whole number from 0 on.
    Count,
    /// A whole number from 0 on, of 63 bits.
    Seed,
    /// A number.
    Number,
    /// One of these words.
    Word(&'static [&'static str]),
    /// `auto` or a whole number from 0 on.
    AutoOrCount,
    /// Any text.
    Text,
    /// The path of a file or folder.
    Path,
    /// A number of bytes, with its unit.
    Bytes,
}

/// A type that settings have.
pub(crate) trait Valued {
    fn kind() -> Kind;

    /// The value as in a recipe but without quotes; `None` where it is not set.
    fn told(&self) -> Option<String>;

    /// The value as what bounds are held against; `None` where it is no number or not set.
    fn number(&self) -> Option<f64> {
        None
    }
}

impl<T: Valued> Valued for Option<T> {
    fn kind() -> Kind {
        T::kind()
    }

    fn told(&self) -> Option<String> {
        self.as_ref()?.told()
    }

    fn number(&self) -> Option<f64> {
        self.as_ref()?.number()
    }
}

macro_rules! valued {
    ($($type:ty: $kind:expr, $told:expr, $number:expr;)*) => {
        $(impl Valued for $type {
            fn kind() -> Kind {
                $kind
            }

            fn told(&self) -> Option<String> {
                let told: fn(&Self) -> String = $told;
                Some(told(self))
            }

            fn number(&self) -> Option<f64> {
                let number: fn(&Self) -> Option<f64> = $number;
                number(self)
            }
        })*
    };
}

valued! {
    bool: Kind::Switch, Self::to_string, |_| None;
    usize: Kind::Count, Self::to_string, |value| Some(*value as f64);
    u64: Kind::Seed, Self::to_string, |_| None;
    f32: Kind::Number, told_number, |value| Some(f64::from(*value));
    f64: Kind::Number, told_number, |value| Some(*value);
    String: Kind::Text, Self::clone, |_| None;
    PathBuf: Kind::Path, |path| path.display().to_string(), |_| None;
    ByteSize: Kind::Bytes, Self::to_string, |_| None;
    Columns: Kind::Text, Self::to_string, |_| None;
    BankWarmup: Kind::AutoOrCount, Self::to_string, |_| None;
}

macro_rules! words_of {
    ($($type:ty),*) => {
        valued! { $($type: Kind::Word(words::<Self>()), word, |_| None;)* }
    };
}

words_of!(
    BankDrift,
    BankDtype,
    Enqueue,
    Method,
    PassageFormat,
    Pooling,
    Positives,
    Recompute,
    RowScale,
    Rows,
    Scheduler,
    Similarity
);

/// A number as one would type it.
fn told_number<T: Copy + Into<f64> + std::fmt::Display + std::fmt::LowerExp>(number: &T) -> String {
    if (*number).into().abs() < 1e16 { number.to_string() } else { format!("{number:e}") }
}

/// The word that stands for a value in recipes, flags and tables.
pub fn word(value: &impl Serialize) -> String {
    match toml::Value::try_from(value) {
        Ok(toml::Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(error) => unreachable!("a setting is a plain value: {error}"),
    }
}

/// The words that an enum of plain variants is read from, in the order of the variants.
pub fn words<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut words: &'static [&'static str] = &[];
    // What is read is not looked at: the reader is told the words and gives nothing.
    let _ = T::deserialize(Asked(&mut words));
    words
}

/// Takes note of the words that an enum asks for.
struct Asked<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Asked<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = variants;
        Err(serde::de::Error::custom("only asked"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Self::Error> {
        Err(serde::de::Error::custom("not an enum"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_an_enum_are_those_it_is_read_from() {
        assert_eq!(words::<Recompute>(), Recompute::ALL.map(Recompute::name));
        assert_eq!(words::<Method>().len(), Method::ALL.len());
        assert!(words::<usize>().is_empty());
        for name in words::<Enqueue>() {
            let read: Enqueue = toml::Value::from(*name).try_into().unwrap();
            assert_eq!(word(&read), *name);
        }
    }

    #[test]
    fn numbers_are_told_as_one_would_type_them() {
        let told = |number: f64| number.told().unwrap();
        assert_eq!([2e-5, 2.0, -1.0, 1e300].map(told), ["0.00002", "2", "-1", "1e300"]);
        assert_eq!([told(f64::NAN), 0.05f32.told().unwrap()], ["NaN", "0.05"]);
    }
}
