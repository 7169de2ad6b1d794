//! Multiplying the lists of a cell out, and naming what comes of it.

use toml::{Spanned, Value};

use crate::recipe::Settings;

/// Settings that the lists of a cell multiply to; `None` where the number has no end that could be counted.
pub(crate) fn count(settings: &Settings) -> Option<usize> {
    let mut lengths = settings.values().filter_map(|value| value.as_ref().as_array().map(Vec::len));
    if lengths.clone().any(|length| length == 0) { Some(0) } else { lengths.try_fold(1, usize::checked_mul) }
}

/// The settings with every list replaced by one of its values, in all combinations; the last key varies fastest.
pub(crate) fn multiply(settings: &Settings) -> Vec<Settings> {
    if count(settings) == Some(0) {
        return Vec::new();
    }
    let mut grid = vec![settings.clone()];
    for (key, value) in settings {
        let Value::Array(values) = value.as_ref() else { continue };
        let one_of = |of_all: Settings| {
            values.iter().map(move |one| {
                let mut of_one = of_all.clone();
                of_one.insert(key.clone(), Spanned::new(value.span(), one.clone()));
                of_one
            })
        };
        grid = grid.into_iter().flat_map(one_of).collect();
    }
    grid
}

/// The name with each `{key}` replaced by the value of that key in `one`, one of the cells of `settings`.
///
/// # Errors
/// When a multiplied key does not stand in the name, as its cells would share one; when the name has a key that the
/// cell has not.
pub(crate) fn fill(name: &str, settings: &Settings, one: &Settings) -> Result<String, String> {
    let mut filled = name.to_owned();
    for (key, value) in settings {
        let placeholder = format!("{{{}}}", key.as_ref());
        if value.as_ref().is_array() && !filled.contains(&placeholder) {
            return Err(format!(
                "{} has several values: let the name say which, with {placeholder}",
                key.as_ref()
            ));
        }
        let value = match one[key.as_ref().as_str()].as_ref() {
            Value::String(word) => word.clone(),
            other => other.to_string(),
        };
        filled = filled.replace(&placeholder, &value);
    }
    match filled.split_once('{').and_then(|(_, rest)| rest.split_once('}')) {
        Some((key, _)) => Err(format!("the name has {{{key}}}, which is no setting of this cell")),
        None => Ok(filled),
    }
}

/// A cell's name as that of its folder: words of letters, digits and dots joined by `-`.
pub(crate) fn folder_name(name: &str) -> String {
    let kept = |c: char| c.is_ascii_alphanumeric() || c == '.';
    let words: Vec<&str> = name.split(|c| !kept(c)).filter(|word| !word.is_empty()).collect();
    words.join("-").to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn lists_multiply_in_the_order_of_their_values_and_single_values_stay() {
        let settings =
            settings("seed = 1\nmemory_bank_size = [128, 512]\nmethod = [\"contaccum\", \"pre-batch\"]");
        let names: Vec<String> = multiply(&settings)
            .iter()
            .map(|one| fill("{method} of {memory_bank_size}", &settings, one).unwrap())
            .collect();
        assert_eq!(names, ["contaccum of 128", "pre-batch of 128", "contaccum of 512", "pre-batch of 512"]);
    }

    #[test]
    fn combinations_are_counted_before_they_are_made() {
        let of_lists = |lists: usize, values: usize| {
            let list = format!("{:?}", vec![1; values]);
            let text: String = (0..lists).map(|key| format!("k{key} = {list}\n")).collect();
            count(&settings(&text))
        };
        assert_eq!([of_lists(0, 0), of_lists(2, 3), of_lists(99, 0)], [Some(1), Some(9), Some(0)]);
        assert_eq!([of_lists(10, 11), of_lists(64, 2)], [Some(25_937_424_601), None]);
    }

    #[test]
    fn nothing_to_multiply_is_one_cell() {
        let settings = settings("seed = 1");
        assert_eq!(multiply(&settings), [settings]);
    }

    #[test]
    fn a_list_that_the_name_does_not_tell_is_refused() {
        let settings = settings("temperature = [1.0, 0.05]");
        let message = fill("contaccum", &settings, &multiply(&settings)[0]).unwrap_err();
        assert!(message.contains("temperature") && message.contains("{temperature}"), "{message}");
    }

    #[test]
    fn a_name_may_tell_any_setting_of_its_cell_and_no_other() {
        let settings = settings("method = \"grad-cache\"");
        let named = |name: &str| fill(name, &settings, &multiply(&settings)[0]);
        assert_eq!(named("{method}, two"), Ok("grad-cache, two".into()));
        assert!(named("{methods}, two").unwrap_err().contains("{methods}"));
    }

    #[test]
    fn folder_names_keep_what_tells_cells_apart() {
        assert_eq!(folder_name("ContAccum, bank 512 (tau 0.05)"), "contaccum-bank-512-tau-0.05");
    }
}
