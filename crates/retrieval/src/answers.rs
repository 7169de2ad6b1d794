//! Answer-match accuracy of Dense Passage Retrieval: does a passage among the first k hold an answer?
//!
//! The rule is that of `dpr/data/qa_validation.py` and `SimpleTokenizer` of `dpr/utils/tokenizers.py` in
//! <https://github.com/facebookresearch/DPR>: text and answer are brought to Unicode NFD, cut into runs of letters,
//! digits and marks or single other visible characters, lower-cased, and the answer's tokens must occur in a row in
//! the text's. The text is the passage's body; its title does not count.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use rayon::prelude::*;
use regex::Regex;
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

static TOKEN: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]").expect("the pattern is constant"));

/// The acceptable answers of a question, as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    answers: Vec<Vec<String>>,
}

impl Answers {
    /// Tokenises the answers of a question. One without tokens matches nothing (in DPR it matches everything).
    pub fn new<S: AsRef<str>>(answers: impl IntoIterator<Item = S>) -> Self {
        let answers = answers.into_iter().map(|answer| tokenize(answer.as_ref()));
        Self { answers: answers.filter(|tokens| !tokens.is_empty()).collect() }
    }

    /// Whether a text holds one of the answers.
    pub fn found_in(&self, text: &str) -> bool {
        let text = tokenize(text);
        self.answers.iter().any(|answer| text.windows(answer.len()).any(|window| window == answer))
    }
}

/// The share of questions with an answer among their first k passages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnswerAccuracy {
    /// Questions averaged over.
    pub questions: usize,
    /// k → share of questions, 0 to 1.
    pub accuracy: BTreeMap<usize, f64>,
    /// For each question, the rank from 1 of the first passage that holds an answer, within the largest k.
    pub first_match: Vec<Option<usize>>,
}

/// Accuracy within the first k passages for each k of `cutoffs`. `passages(question, rank)` is the text at a rank
/// from 0, `None` beyond the last; it is called from many threads, in order of rank until an answer is found.
///
/// # Errors
/// The first error of `passages`, in the order of questions.
pub fn evaluate_answers<T: AsRef<str>, E: Send>(
    questions: &[Answers],
    passages: impl Fn(usize, usize) -> Result<Option<T>, E> + Sync,
    cutoffs: &[usize],
) -> Result<AnswerAccuracy, E> {
    let deepest = cutoffs.iter().copied().max().unwrap_or(0);
    let first_match = |question: usize| {
        for rank in 0..deepest {
            match passages(question, rank)? {
                None => break,
                Some(text) if questions[question].found_in(text.as_ref()) => return Ok(Some(rank + 1)),
                Some(_) => {}
            }
        }
        Ok(None)
    };
    let results: Vec<Result<Option<usize>, E>> =
        (0..questions.len()).into_par_iter().map(first_match).collect();
    let first_match = results.into_iter().collect::<Result<Vec<_>, _>>()?;
    let share = |&k: &usize| {
        let hits = first_match.iter().filter(|rank| rank.is_some_and(|rank| rank <= k)).count();
        (k, hits as f64 / questions.len().max(1) as f64)
    };
    let accuracy = cutoffs.iter().map(share).collect();
    Ok(AnswerAccuracy { questions: questions.len(), accuracy, first_match })
}

/// Tokens by DPR's rule, lower-cased.
fn tokenize(text: &str) -> Vec<String> {
    let text: String = text.nfd().collect();
    TOKEN.find_iter(&text).map(|token| token.as_str().to_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn text_is_cut_into_runs_of_letters_digits_and_marks_or_single_symbols() {
        assert_eq!(
            tokenize("U.S. $1,000–2nd\u{a0}“São”\t\u{200b}x"),
            ["u", ".", "s", ".", "$", "1", ",", "000", "–", "2nd", "“", "sa\u{303}o", "”", "x"]
        );
    }

    #[test]
    fn an_answer_matches_as_whole_tokens_in_a_row() {
        let found = |answer: &str, text: &str| Answers::new([answer]).found_in(text);
        assert!(found("Denver Broncos", "the DENVER\n broncos won"));
        assert!(!found("Denver Broncos", "the Denver and Broncos won"));
        assert!(!found("cat", "concatenate"));
        assert!(found("14", "on 14 May"));
        assert!(!found("14", "in 1914"));
        assert!(found("Beyoncé", "BEYONCE\u{301} sang"));
        assert!(!found("Beyoncé", "Beyonce sang"));
        assert!(found("U.S.", "in the U.S. today"));
        assert!(!found("U.S.", "in the US today"));
        assert!(!found("a longer answer", "short"));
    }

    #[test]
    fn any_of_the_answers_will_do_and_one_without_tokens_never_does() {
        assert!(Answers::new(["no", "two"]).found_in("one two"));
        assert!(!Answers::new(["", " \t"]).found_in("anything"));
    }

    #[test]
    fn accuracy_counts_questions_answered_within_the_first_k() {
        let questions = [Answers::new(["red"]), Answers::new(["blue"]), Answers::new(["green"])];
        let ranked = [vec!["x", "red"], vec!["blue red"], vec!["x", "y", "z", "green"]];
        let text = |question: usize, rank: usize| Ok::<_, Infallible>(ranked[question].get(rank));
        let result = evaluate_answers(&questions, text, &[1, 2, 3]).unwrap();
        assert_eq!(result.first_match, [Some(2), Some(1), None]);
        assert_eq!(result.accuracy, BTreeMap::from([(1, 1.0 / 3.0), (2, 2.0 / 3.0), (3, 2.0 / 3.0)]));
    }

    #[test]
    fn a_text_that_cannot_be_read_ends_the_evaluation() {
        let text = |_: usize, _: usize| Err::<Option<&str>, _>("lost");
        assert_eq!(evaluate_answers(&[Answers::new(["a"])], text, &[1]), Err("lost"));
    }
}
