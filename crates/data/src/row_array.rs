//! A training row as a JSON array: a query, its positive, and negatives if there are any, each negative an element or a
//! list; as in sentence-transformers' embedding-training-data.

use std::borrow::Cow;

use crate::Result;
use crate::json::{Field, elements};
use crate::notes::Reading;
use crate::records::Record;
use crate::row_object::passages;
use crate::training_file::FoundRow;

pub(crate) const SHAPE: &str =
    r#"a JSON row such as ["query", "positive"] or ["query", "positive", "negative"]"#;

pub(crate) fn read(record: &Record<'_>, reading: &mut Reading) -> Result<FoundRow> {
    let mut repaired = String::new();
    let name_of = |place| ["query", "positive", "negative"][usize::min(place, 2)];
    let row = elements(record, &mut repaired, reading, name_of, SHAPE)?;
    let mut row = row.into_iter();
    let query = row.next().filter(|query| !query.is_null());
    let positives = row.next().filter(|positive| !positive.is_null());
    let mut negatives = Vec::new();
    for field in row.filter(|negative| !negative.is_null()) {
        negatives.extend(field.elements(reading)?);
    }
    Ok(FoundRow {
        line: record.line,
        expected: SHAPE,
        query: query.map(|query| query.text(reading).map(Cow::into_owned)).transpose()?,
        has_positives: positives.is_some(),
        positives: passages(
            &positives.map_or(Ok(Vec::new()), |one: Field<'_>| one.elements(reading))?,
            reading,
        )?,
        negatives: passages(&negatives, reading)?,
        ..FoundRow::default()
    })
}
