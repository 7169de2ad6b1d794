//! Lists of texts written in one cell: JSON's, or as Python and NumPy print them.

/// The texts of a list such as `["a", "b"]`, `['a', "b's"]` or `['a' 'b']`; `None` if the cell is anything else.
pub(crate) fn list(cell: &str) -> Option<Vec<String>> {
    let cell = cell.trim();
    let mut rest = cell.strip_prefix('[')?;
    if let Ok(texts) = serde_json::from_str::<Vec<Option<String>>>(cell) {
        return Some(texts.into_iter().flatten().collect());
    }
    let mut texts = Vec::new();
    loop {
        rest = rest.trim_start_matches(|character: char| character == ',' || character.is_whitespace());
        if let Some(after) = rest.strip_prefix(']') {
            return after.is_empty().then_some(texts);
        }
        if let Some(after) = rest.strip_prefix("None") {
            rest = after;
            continue;
        }
        let (text, after) = quoted(rest)?;
        texts.push(text);
        rest = after;
    }
}

/// The text in quotes that `rest` begins with, and what follows it.
fn quoted(rest: &str) -> Option<(String, &str)> {
    let quote = rest.chars().next().filter(|character| matches!(character, '\'' | '"'))?;
    let (mut text, mut rest) = (String::new(), &rest[1..]);
    loop {
        let mut characters = rest.chars();
        match characters.next()? {
            '\\' => rest = escape(characters.as_str(), &mut text)?,
            end if end == quote => return Some((text, characters.as_str())),
            character => {
                text.push(character);
                rest = characters.as_str();
            }
        }
    }
}

/// Adds what stands behind a backslash, and returns what follows it.
fn escape<'a>(rest: &'a str, text: &mut String) -> Option<&'a str> {
    let letter = rest.chars().next()?;
    let after = &rest[letter.len_utf8()..];
    let digits = match letter {
        'x' => 2,
        'u' => 4,
        'U' => 8,
        _ => 0,
    };
    if digits > 0 {
        let number = u32::from_str_radix(after.get(..digits)?, 16).ok()?;
        text.push(char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER));
        return Some(&after[digits..]);
    }
    match letter {
        'n' => text.push('\n'),
        't' => text.push('\t'),
        'r' => text.push('\r'),
        '\\' | '\'' | '"' => text.push(letter),
        other => text.extend(['\\', other]),
    }
    Some(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_json_python_and_numpy_write_it() {
        let texts = |cell| list(cell).unwrap();
        assert_eq!(texts(r#"["a", "b \u00e9", null]"#), ["a", "b \u{e9}"]);
        assert_eq!(
            texts(r#"['a', "b's", 'c\'d\n', 'e\xe9\u2019', None]"#),
            ["a", "b's", "c'd\n", "e\u{e9}\u{2019}"]
        );
        assert_eq!(texts("['a' 'b'\n 'c']"), ["a", "b", "c"]);
        assert_eq!(texts(" [] "), [""; 0]);
        assert_eq!(texts(r"['C:\dir']"), [r"C:\dir"]);
    }

    #[test]
    fn a_text_in_brackets_is_a_text() {
        for text in
            ["[1]", "[1] a note", "['a', 2]", "['a'] and more", "['a", "['\\", "['\\u12'", "[", "a", ""]
        {
            assert_eq!(list(text), None, "{text}");
        }
    }
}
