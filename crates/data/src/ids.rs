//! What an id is, in every file: one rule for corpora, queries, judgments, training rows, hard negatives and
//! runs.
//!
//! White space is ASCII white space, as in trec_eval (a no-break space is a character of its id). Around an
//! id it does not count. Inside, a space is part of the id, and only a file whose fields are parted by spaces
//! cannot hold it; a tab or a line end inside is refused, for no file of ours could hold it.

use crate::notes::{Oddity, Reading};
use crate::{Error, Kind, Result};

/// True for the characters that part the fields of a TREC file: space, tab, line ends, vertical tab, form
/// feed.
pub fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t'..='\r')
}

/// The id in a field: what is left without white space around it.
pub fn trim_id(field: &str) -> &str {
    field.trim_matches(is_space)
}

/// The fields of a line whose fields are parted by white space.
pub fn split_spaces(line: &str) -> impl Iterator<Item = &str> {
    line.split(is_space).filter(|field| !field.is_empty())
}

/// Whether a TREC file, whose fields are parted by white space, can hold the id.
pub fn fits_trec(id: &str) -> bool {
    !id.is_empty() && !id.contains(is_space)
}

/// The id in a field of a file being read.
pub(crate) fn read_id<'a>(field: &'a str, kind: Kind, line: u64, reading: &mut Reading) -> Result<&'a str> {
    let id = trim_id(field);
    if id.len() < field.len() {
        reading.read_on(Oddity::PaddedId, line)?;
    }
    if id.contains(|character| character != ' ' && is_space(character)) {
        return Err(Error::BrokenId { place: reading.place(line), kind, id: id.into() });
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_around_an_id_does_not_count_and_inside_it_does() {
        assert_eq!(trim_id(" \ta b\r\n"), "a b");
        assert_eq!(trim_id("\u{a0}a\u{3000}"), "\u{a0}a\u{3000}");
        assert!(fits_trec("a\u{a0}b") && !fits_trec("a b") && !fits_trec("") && !fits_trec("a\u{b}b"));
        assert_eq!(split_spaces(" a \t b\u{a0}c\x0bd ").collect::<Vec<_>>(), ["a", "b\u{a0}c", "d"]);
    }
}
