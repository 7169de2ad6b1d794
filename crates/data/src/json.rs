//! What the JSON readers share: ids, passages inside rows, and serde's errors with a place and a remedy.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};

use crate::source::Line;
use crate::{Error, Passage, Place, Result};

/// An id written as a string or as a whole number.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Id(pub String);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Id, D::Error> {
        deserializer.deserialize_any(IdVisitor)
    }
}

struct IdVisitor;

impl Visitor<'_> for IdVisitor {
    type Value = Id;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id (a string or a whole number)")
    }

    fn visit_str<E>(self, id: &str) -> std::result::Result<Id, E> {
        Ok(Id(id.to_owned()))
    }

    fn visit_u64<E>(self, id: u64) -> std::result::Result<Id, E> {
        Ok(Id(id.to_string()))
    }

    fn visit_i64<E>(self, id: i64) -> std::result::Result<Id, E> {
        Ok(Id(id.to_string()))
    }
}

/// A passage written inside a training row: a bare string, or an object with a text.
#[derive(Debug)]
pub(crate) struct InlinePassage {
    pub id: Option<String>,
    pub passage: Passage,
}

impl<'de> Deserialize<'de> for InlinePassage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<InlinePassage, D::Error> {
        deserializer.deserialize_any(InlinePassageVisitor)
    }
}

/// Ids as Tevatron (`docid`) and DPR (`passage_id`, `psg_id`) name them; an empty id counts as none.
#[derive(Deserialize)]
struct PassageObject {
    docid: Option<Id>,
    passage_id: Option<Id>,
    psg_id: Option<Id>,
    title: Option<String>,
    text: String,
}

struct InlinePassageVisitor;

impl<'de> Visitor<'de> for InlinePassageVisitor {
    type Value = InlinePassage;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a passage (a string, or an object with `text`)")
    }

    fn visit_str<E>(self, text: &str) -> std::result::Result<InlinePassage, E> {
        Ok(InlinePassage { id: None, passage: Passage { title: String::new(), text: text.to_owned() } })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<InlinePassage, A::Error> {
        let object = PassageObject::deserialize(MapAccessDeserializer::new(map))?;
        let id = object.docid.or(object.passage_id).or(object.psg_id).map(|id| id.0);
        Ok(InlinePassage {
            id: id.filter(|id| !id.is_empty()),
            passage: Passage { title: object.title.unwrap_or_default(), text: object.text },
        })
    }
}

/// Parses one line as one JSON value; `expected` says what a line holds.
pub(crate) fn parse_line<'a, T: Deserialize<'a>>(line: &Line<'a>, expected: &'static str) -> Result<T> {
    serde_json::from_str(line.text).map_err(|error| explain(line.place(), &error, expected))
}

/// A parser's complaint as one of our errors: broken JSON, or JSON of the wrong shape.
pub(crate) fn explain(place: Place, error: &serde_json::Error, expected: &'static str) -> Error {
    let mut reason = error.to_string();
    if let Some(end) = reason.rfind(" at line ") {
        reason.truncate(end);
    }
    if error.is_data() {
        Error::Field { place, reason, expected }
    } else {
        Error::Json { place, column: error.column(), reason, expected }
    }
}
