//! JSON as data sets hold it: fields of an object read one by one, each as what it is meant to be, with what
//! Python writes that JSON does not know (NaN, Infinity, half a surrogate pair) read and noted.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::notes::{Oddity, Reading};
use crate::records::Record;
use crate::{Error, Place, Result};

const REPLACEMENT: &str = "\\ufffd";
/// Words that Python's `json` writes and JSON does not have.
const NOT_NUMBERS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// The fields of an object, none of them looked at yet.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    fields: Vec<(Cow<'a, str>, &'a RawValue)>,
    line: u64,
    expected: &'static str,
}

impl<'a> Fields<'a> {
    /// Reads a record as an object. `repaired` holds its text where Python wrote what JSON does not know.
    pub fn read(
        record: &Record<'a>,
        repaired: &'a mut String,
        reading: &mut Reading,
        expected: &'static str,
    ) -> Result<Fields<'a>> {
        let fields = parse(record, repaired, reading, expected, object)?;
        Ok(Fields { fields, line: record.line, expected })
    }

    /// Where the record begins.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The first of `names` that is there and not null.
    pub fn get(&self, names: &[&'a str]) -> Option<Field<'a>> {
        names.iter().find_map(|&name| {
            // Python keeps the last of a name given twice.
            let (_, value) = self.fields.iter().rev().find(|(key, _)| key == name)?;
            let value = value.get();
            (value != "null").then_some(Field { name, value, line: self.line, expected: self.expected })
        })
    }

    /// Those of a kind of names that are not null, in the order of the record.
    pub fn all(&self, is_meant: fn(&str) -> bool) -> impl Iterator<Item = Field<'a>> {
        let meant = self.fields.iter().filter(move |(name, value)| is_meant(name) && value.get() != "null");
        meant.map(|(_, value)| Field {
            name: "negative",
            value: value.get(),
            line: self.line,
            expected: self.expected,
        })
    }

    /// Names of all fields.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.fields.iter().map(|(name, _)| name.as_ref())
    }
}

/// The value of a field, or an element of one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    name: &'a str,
    value: &'a str,
    line: u64,
    expected: &'static str,
}

impl<'a> Field<'a> {
    /// A text; a number or boolean is read as it is written.
    pub fn text(&self, reading: &mut Reading) -> Result<Cow<'a, str>> {
        match self.value.as_bytes().first() {
            Some(b'"') => self.string(reading),
            Some(b'{' | b'[') => Err(self.wrong(reading.place(self.line), "text")),
            _ => {
                reading.read_on(Oddity::NumberAsText, self.line)?;
                Ok(Cow::Borrowed(self.value))
            }
        }
    }

    /// An id: a string, or a number as it is written but for a fraction of 0.
    pub fn id(&self, reading: &mut Reading) -> Result<Cow<'a, str>> {
        match self.value.as_bytes().first() {
            Some(b'"') => self.string(reading),
            Some(b'0'..=b'9' | b'-') => match self.value.strip_suffix(".0") {
                None => Ok(Cow::Borrowed(self.value)),
                Some(whole) => {
                    reading.read_on(Oddity::FractionalId, self.line)?;
                    Ok(Cow::Borrowed(whole))
                }
            },
            _ => Err(self.wrong(reading.place(self.line), "id (a string or a whole number)")),
        }
    }

    /// The elements of a list.
    pub fn list(&self, reading: &Reading) -> Result<Vec<Field<'a>>> {
        if !self.value.starts_with('[') {
            return Err(self.wrong(reading.place(self.line), "list"));
        }
        let elements: Vec<&'a RawValue> =
            serde_json::from_str(self.value).map_err(|_| self.wrong(reading.place(self.line), "list"))?;
        Ok(elements.into_iter().map(|element| Field { value: element.get(), ..*self }).collect())
    }

    /// The elements of a list; of any other value the value itself.
    pub fn elements(&self, reading: &Reading) -> Result<Vec<Field<'a>>> {
        if self.value.starts_with('[') { self.list(reading) } else { Ok(vec![*self]) }
    }

    /// What it is called.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The fields of an object, or nothing if the value is none.
    pub fn object(&self, reading: &Reading) -> Result<Option<Fields<'a>>> {
        if !self.value.starts_with('{') {
            return Ok(None);
        }
        let fields = object(self.value).map_err(|_| self.wrong(reading.place(self.line), "object"))?;
        Ok(Some(Fields { fields, line: self.line, expected: self.expected }))
    }

    pub fn is_null(&self) -> bool {
        self.value == "null"
    }

    pub fn is_text(&self) -> bool {
        self.value.starts_with('"')
    }

    /// Whether the value is a list or an object.
    pub fn is_compound(&self) -> bool {
        self.value.starts_with(['[', '{'])
    }

    /// Where the record begins.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// An error that says what stands where something else belongs.
    pub fn wrong(&self, place: Place, belongs: &str) -> Error {
        let found = match self.value.as_bytes().first() {
            Some(b'"') => "a text",
            Some(b'{') => "an object",
            Some(b'[') => "a list",
            Some(b't' | b'f') => "a boolean",
            Some(b'n') => "null",
            Some(_) | None => "a number",
        };
        let article = if belongs.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" };
        let reason = format!("`{}` is {found} where {article} {belongs} belongs", self.name);
        Error::Field { place, reason, expected: self.expected }
    }

    fn string(&self, reading: &mut Reading) -> Result<Cow<'a, str>> {
        if let Ok(StringValue(text)) = serde_json::from_str(self.value) {
            return Ok(text);
        }
        // The value's syntax is known to be sound: what is left to be wrong is an escaped surrogate.
        reading.read_on(Oddity::LoneSurrogate, self.line)?;
        let whole = without_lone_surrogates(self.value);
        let text: String = serde_json::from_str(&whole).map_err(|error| {
            let place = reading.place(self.line);
            Error::Json { place, column: error.column(), reason: error.to_string(), expected: self.expected }
        })?;
        Ok(Cow::Owned(text))
    }
}

/// A string, borrowed where it has no escapes.
#[derive(Deserialize)]
struct StringValue<'a>(#[serde(borrow)] Cow<'a, str>);

/// The elements of a record that is an array, called by `name_of` their place, from 0.
pub(crate) fn elements<'a>(
    record: &Record<'a>,
    repaired: &'a mut String,
    reading: &mut Reading,
    name_of: fn(usize) -> &'static str,
    expected: &'static str,
) -> Result<Vec<Field<'a>>> {
    let values: Vec<&'a RawValue> = parse(record, repaired, reading, expected, serde_json::from_str)?;
    let field = |(place, value): (usize, &'a RawValue)| Field {
        name: name_of(place),
        value: value.get(),
        line: record.line,
        expected,
    };
    Ok(values.into_iter().enumerate().map(field).collect())
}

/// Reads a record with `read`, where need be after what Python wrote is repaired, and noted.
fn parse<'a, T>(
    record: &Record<'a>,
    repaired: &'a mut String,
    reading: &mut Reading,
    expected: &'static str,
    read: impl Fn(&'a str) -> serde_json::Result<T>,
) -> Result<T> {
    let explain = |error| explain(record, &error, expected);
    let error = match read(record.text) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let found = repair(record.text, repaired);
    if found == Repairs::default() {
        return Err(explain(error));
    }
    let value = read(repaired.as_str()).map_err(explain)?;
    if found.not_numbers {
        reading.read_on(Oddity::NotANumber, record.line)?;
    }
    if found.lone_surrogates {
        reading.read_on(Oddity::LoneSurrogate, record.line)?;
    }
    Ok(value)
}

fn object(text: &str) -> serde_json::Result<Vec<(Cow<'_, str>, &RawValue)>> {
    let mut parser = serde_json::Deserializer::from_str(text);
    let fields = parser.deserialize_map(FieldsVisitor)?;
    parser.end()?;
    Ok(fields)
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some((StringValue(name), value)) = map.next_entry()? {
            fields.push((name, value));
        }
        Ok(fields)
    }
}

/// A parser's complaint as one of our errors: broken JSON, or JSON of the wrong shape.
fn explain(record: &Record<'_>, error: &serde_json::Error, expected: &'static str) -> Error {
    let mut reason = error.to_string();
    if let Some(end) = reason.rfind(" at line ") {
        reason.truncate(end);
    }
    let line = record.line + (error.line() as u64).saturating_sub(1);
    let place = Place { path: record.path.into(), line };
    if error.is_data() {
        Error::Field { place, reason, expected }
    } else {
        Error::Json { place, column: error.column(), reason, expected }
    }
}

/// What was repaired in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Repairs {
    not_numbers: bool,
    lone_surrogates: bool,
}

/// Writes `text` into `repaired` with null for NaN and Infinity outside of strings, and U+FFFD for half a
/// surrogate pair.
fn repair(text: &str, repaired: &mut String) -> Repairs {
    repaired.clear();
    let (mut rest, mut in_string) = (text, false);
    let mut found = Repairs::default();
    while let Some(character) = rest.chars().next() {
        let not_a_number = NOT_NUMBERS.iter().find(|word| !in_string && rest.starts_with(**word));
        let (taken, written) = match (character, not_a_number) {
            (_, Some(word)) => {
                found.not_numbers = true;
                (word.len(), "null")
            }
            ('\\', None) if in_string => {
                let escape = &rest[..escape_length(rest)];
                let is_lone = is_lone_surrogate(escape);
                found.lone_surrogates |= is_lone;
                (escape.len(), if is_lone { REPLACEMENT } else { escape })
            }
            (character, None) => {
                in_string ^= character == '"';
                (character.len_utf8(), &rest[..character.len_utf8()])
            }
        };
        repaired.push_str(written);
        rest = &rest[taken..];
    }
    found
}

/// A string literal with U+FFFD for half a surrogate pair.
fn without_lone_surrogates(literal: &str) -> String {
    let mut repaired = String::new();
    // A literal is JSON too.
    repair(literal, &mut repaired);
    repaired
}

/// Bytes of the escape that `text` begins with; those of a surrogate pair are one.
fn escape_length(text: &str) -> usize {
    let unit = |at: usize| code_unit(text.get(at..)?);
    match (unit(0), unit(6)) {
        (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
        (Some(_), _) => 6,
        (None, _) => 1 + text[1..].chars().next().map_or(0, char::len_utf8),
    }
}

fn is_lone_surrogate(escape: &str) -> bool {
    escape.len() == 6 && matches!(code_unit(escape), Some(0xd800..=0xdfff))
}

/// The value of the `\uXXXX` that `text` begins with.
fn code_unit(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u32::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_python_writes_is_repaired_outside_and_inside_of_strings() {
        let mut repaired = String::new();
        let numbers = Repairs { not_numbers: true, ..Repairs::default() };
        let surrogates = Repairs { lone_surrogates: true, ..Repairs::default() };
        assert_eq!(repair(r#"{"a": NaN, "b": [-Infinity, Infinity], "NaN": "NaN"}"#, &mut repaired), numbers);
        assert_eq!(repaired, r#"{"a": null, "b": [null, null], "NaN": "NaN"}"#);
        let lone = r#""a \ud83d b \ude00 \ud83d\ude00 \\ud83d \"\udc00""#;
        assert_eq!(repair(lone, &mut repaired), surrogates);
        assert_eq!(repaired, r#""a \ufffd b \ufffd \ud83d\ude00 \\ud83d \"\ufffd""#);
        for whole in [r#"{"a": 1, "b": "\ud83d\ude00"}"#, "\"\\", "\"\\ud8"] {
            assert_eq!(repair(whole, &mut repaired), Repairs::default());
        }
    }
}
