//! What a mistyped name was probably meant to be.

/// Below this likeness (Jaro-Winkler, 0 to 1) a name is another name, not a slip.
const ALIKE: f64 = 0.8;

/// The candidate most like `name`, whatever their case; `None` where none is alike.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace(['-', ' '], "_");
    let name = plain(name);
    let likeness = |candidate: &str| strsim::jaro_winkler(&name, &plain(candidate));
    candidates
        .into_iter()
        .map(|candidate| (likeness(candidate), candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// What serde says of an unknown name, "unknown field `lr`, expected one of `a`, `b`": with the nearest of the names
/// it expected in place of all of them, where one is near; in one line.
pub fn with_nearest(message: &str) -> String {
    let message = message.trim().replace('\n', ", ");
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match quoted.split_first() {
        Some((unknown, expected)) if message.starts_with("unknown ") => {
            match (nearest(unknown, expected.iter().copied()), message.split_once(", expected")) {
                (Some(near), Some((what, _))) => format!("{what}, did you mean `{near}`?"),
                _ => message,
            }
        }
        _ => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 5] =
        ["local_batch_size", "learning_rate", "memory_bank_size", "max_steps", "gradient_accumulation_steps"];

    #[test]
    fn a_slip_in_letters_case_or_hyphens_finds_its_name() {
        for (typed, meant) in [
            ("local_batch", "local_batch_size"),
            ("Learning_Rate", "learning_rate"),
            ("learning-rate", "learning_rate"),
            ("memory_bank_sise", "memory_bank_size"),
            ("maxsteps", "max_steps"),
        ] {
            assert_eq!(nearest(typed, KEYS), Some(meant), "{typed}");
        }
    }

    #[test]
    fn another_name_finds_nothing() {
        assert_eq!(nearest("colour", KEYS), None);
        assert_eq!(nearest("x", KEYS), None);
        assert_eq!(nearest("", []), None);
    }

    #[test]
    fn of_an_unknown_field_the_nearest_is_told_in_place_of_all() {
        let serde = "unknown field `local_batch`, expected one of `seed`, `local_batch_size`, `method`";
        assert_eq!(with_nearest(serde), "unknown field `local_batch`, did you mean `local_batch_size`?");
        let none_near = "unknown variant `dpr`, expected one of `full-batch`, `grad-cache`";
        assert_eq!(with_nearest(none_near), none_near);
        let other = "invalid type: string \"a`b`\", expected u32";
        assert_eq!(with_nearest(other), other);
    }
}
