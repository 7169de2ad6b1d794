//! A training row as a JSON object, its fields by their names.

use std::borrow::Cow;

use crate::columns::{
    ANSWERS, Columns, DPR_POSITIVES, NEGATIVE_IDS, NEGATIVES, OTHER_NEGATIVES, POSITIVE_IDS, POSITIVES,
    PROMPT, QUERY, QUERY_ID, Unmet, is_numbered_negative,
};
use crate::corpus::PASSAGE_TEXT_NAMES;
use crate::ids::read_id;
use crate::json::{Field, Fields};
use crate::notes::Reading;
use crate::queries::answers;
use crate::records::Record;
use crate::training_file::{FoundRow, InlinePassage};
use crate::{Kind, Passage, Result};

pub(crate) const SHAPE: &str = r#"a JSON row such as {"query": "...", "positive": "...", "negative": "..."} (or the fields of Tevatron, FlagEmbedding or DPR; columns says which fields are meant)"#;

/// Ids of passages inside rows, as Tevatron (`docid`) and DPR (`passage_id`, `psg_id`) name them.
const INLINE_ID: [&str; 3] = ["docid", "passage_id", "psg_id"];

/// Reads a row whose fields are called as `columns` says.
pub(crate) fn read(
    record: &Record<'_>,
    columns: &Columns,
    unmet: &mut Unmet<'_>,
    reading: &mut Reading,
) -> Result<FoundRow> {
    let mut repaired = String::new();
    let fields = Fields::read(record, &mut repaired, reading, SHAPE)?;
    unmet.meet(record.line, fields.names());
    columns.refuse_graded(fields.names(), reading.place(record.line))?;
    let query = match &columns.query {
        Some(name) => fields.get(&[name.as_str()]),
        None => fields.get(&columns.free(&QUERY)),
    };
    let positives = of(&fields, &columns.positives, &columns.free(&POSITIVES));
    let negatives = negatives(&fields, columns, reading)?;
    let is_positive = |answers: &Field<'_>| positives.iter().any(|one| one.name() == answers.name());
    let reference = fields.get(&columns.free(&ANSWERS)).filter(|answers| !is_positive(answers));
    tell_unused(&fields, columns, reading);
    Ok(FoundRow {
        line: record.line,
        expected: SHAPE,
        is_dpr: positives.iter().any(|field| field.name() == DPR_POSITIVES),
        query_id: id(&fields, &QUERY_ID, Kind::Query, reading)?,
        query: query.map(|query| query.text(reading).map(Cow::into_owned)).transpose()?,
        answers: answers(reference, reading)?,
        prompt: fields.get(&PROMPT).map(|prompt| prompt.text(reading).map(Cow::into_owned)).transpose()?,
        has_positives: !positives.is_empty() || fields.get(&POSITIVE_IDS).is_some(),
        positives: passages(&elements(&positives, reading)?, reading)?,
        positive_ids: ids(&fields, &POSITIVE_IDS, reading)?,
        negatives: passages(&negatives, reading)?,
        negative_ids: ids(&fields, &NEGATIVE_IDS, reading)?,
    })
}

/// The fields that were given, or the first of those known.
fn of<'a>(fields: &Fields<'a>, given: &'a [String], known: &[&'static str]) -> Vec<Field<'a>> {
    if given.is_empty() {
        return fields.get(known).into_iter().collect();
    }
    given.iter().filter_map(|name| fields.get(&[name.as_str()])).collect()
}

fn negatives<'a>(fields: &Fields<'a>, columns: &'a Columns, reading: &Reading) -> Result<Vec<Field<'a>>> {
    let mut named = of(fields, &columns.negatives, &columns.free(&NEGATIVES));
    if columns.negatives.is_empty() {
        named.extend(fields.all(is_numbered_negative));
    }
    let negatives = elements(&named, reading)?;
    if !negatives.is_empty() || !columns.negatives.is_empty() {
        return Ok(negatives);
    }
    elements(&of(fields, &[], &OTHER_NEGATIVES), reading)
}

/// The elements of lists; a value that is no list is one.
fn elements<'a>(fields: &[Field<'a>], reading: &Reading) -> Result<Vec<Field<'a>>> {
    let mut elements = Vec::new();
    for field in fields {
        elements.extend(field.elements(reading)?);
    }
    Ok(elements)
}

fn id(
    fields: &Fields<'_>,
    names: &[&'static str],
    kind: Kind,
    reading: &mut Reading,
) -> Result<Option<String>> {
    let Some(field) = fields.get(names) else { return Ok(None) };
    let id = field.id(reading)?;
    Ok(Some(read_id(&id, kind, field.line(), reading)?.to_owned()))
}

fn ids(fields: &Fields<'_>, names: &[&'static str], reading: &mut Reading) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    for field in elements(&of(fields, &[], names), reading)? {
        let id = field.id(reading)?;
        ids.push(read_id(&id, Kind::Passage, field.line(), reading)?.to_owned());
    }
    Ok(ids)
}

/// Passages written in a row: bare texts, or objects with a text.
pub(crate) fn passages(elements: &[Field<'_>], reading: &mut Reading) -> Result<Vec<InlinePassage>> {
    elements.iter().map(|element| passage(element, reading)).collect()
}

fn passage(field: &Field<'_>, reading: &mut Reading) -> Result<InlinePassage> {
    let Some(fields) = field.object(reading)? else {
        let text = if field.is_null() { String::new() } else { field.text(reading)?.into_owned() };
        return Ok(InlinePassage::of(text));
    };
    let id = id(&fields, &INLINE_ID, Kind::Passage, reading)?;
    let mut text = |names: &[&'static str]| -> Result<String> {
        fields.get(names).map_or_else(|| Ok(String::new()), |text| Ok(text.text(reading)?.into_owned()))
    };
    let passage = Passage { title: text(&["title"])?, text: text(&PASSAGE_TEXT_NAMES)? };
    Ok(InlinePassage { id: id.filter(|id| !id.is_empty()), passage })
}

fn tell_unused(fields: &Fields<'_>, columns: &Columns, reading: &mut Reading) {
    let lists: [&[&str]; 9] = [
        &QUERY_ID,
        &QUERY,
        &ANSWERS,
        &PROMPT,
        &POSITIVES,
        &POSITIVE_IDS,
        &NEGATIVES,
        &NEGATIVE_IDS,
        &OTHER_NEGATIVES,
    ];
    let is_used = |name: &str| {
        let is_known = lists.iter().any(|list| list.contains(&name)) || is_numbered_negative(name);
        is_known || columns.given().any(|given| given == name)
    };
    for name in fields.names().filter(|name| !is_used(name)) {
        reading.tell_unused(name, fields.line());
    }
}
