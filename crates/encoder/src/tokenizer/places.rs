//! Where a text may be cut, so that the tokens of its pieces, one after the other, are those of the whole.

use tokenizers::{AddedToken, NormalizedString, Normalizer, Tokenizer};
use unicode_segmentation::UnicodeSegmentation;

use super::guard::guarded;
use super::runs::{Within, within_word};
use super::traits::{Blank, MARK, Traits};

/// With more added tokens it is not looked at which of them lie across a place.
const MOST_ADDED_TOKENS: usize = 256;
/// White space that parts words in every language.
const BLANKS: [char; 6] = [' ', '\t', '\n', '\r', '\u{a0}', '\u{3000}'];

/// Where the texts of a tokenizer may be cut.
#[derive(Clone, Debug)]
pub(super) enum Places {
    Nowhere,
    /// Before every blank.
    Blanks,
    /// Blanks, punctuation and perhaps Chinese characters, none of these inside an added token.
    Words {
        chinese: bool,
        added: Vec<String>,
        kept_of_a_run: Option<usize>,
    },
    /// Before the first blank of a row.
    Rows(Rows),
}

/// Rows of blanks behind a word.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    /// Which blanks the normalizer makes what parts words.
    blanks: Vec<char>,
    /// Whether only the last blank of a row can matter.
    pub(super) dropped: bool,
    /// Added tokens that hold a blank behind something else.
    across: Vec<String>,
    /// Added tokens that take the blanks behind them along.
    take_blanks: Vec<String>,
}

impl Places {
    pub(super) fn new(tokenizer: &Tokenizer, traits: Traits) -> Self {
        let added: Vec<_> = tokenizer.get_added_tokens_decoder().into_values().collect();
        if let Some(blank) = traits.before_blanks
            && !traits.splits_at_blanks
        {
            return Rows::new(tokenizer, blank, added).map_or(Self::Nowhere, Self::Rows);
        }
        let has_blank = |token: &AddedToken| {
            let pattern = as_looked_for(tokenizer, token);
            pattern.is_none_or(|pattern| pattern.contains(char::is_whitespace))
                || token.content.contains(char::is_whitespace)
        };
        if !traits.splits_at_blanks || added.iter().any(has_blank) {
            return Self::Nowhere;
        }
        let plain = added.len() <= MOST_ADDED_TOKENS && !added.iter().any(|t| t.normalized || t.single_word);
        let Some(bert) = traits.bert.filter(|_| plain) else { return Self::Blanks };
        let added: Vec<String> = added.into_iter().map(|token| token.content).collect();
        let longest = added.iter().map(String::len).max().unwrap_or_default();
        let parts_no_word = |token: &String| within_word(tokenizer, token) != Within::Parts;
        let kept_of_a_run = bert
            .word_chars
            .filter(|_| !added.iter().any(parts_no_word))
            .map(|chars| chars.saturating_add(1).saturating_add(longest));
        Self::Words { chinese: bert.chinese_apart, added, kept_of_a_run }
    }

    /// Whether a text may be cut before byte `at`, which lies between two characters.
    pub(super) fn allow(&self, tokenizer: &Tokenizer, text: &str, at: usize) -> bool {
        let Some(next) = text[at..].chars().next() else { return true };
        match self {
            Self::Nowhere => false,
            Self::Blanks => is_blank(next),
            Self::Words { chinese, added, .. } => {
                let word = next.is_ascii_punctuation()
                    || matches!(next, '、' | '。' | '！' | '，' | '？')
                    || (*chinese && matches!(next, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'));
                is_blank(next) || (word && !lie_across(added, text, at))
            }
            Self::Rows(rows) => rows.allow(tokenizer, text, at),
        }
    }

    /// The text without blanks in front of which no token is made.
    pub(super) fn without_blanks<'t>(&self, text: &'t str) -> &'t str {
        match self {
            Self::Blanks | Self::Words { .. } => text.trim_start_matches(is_blank),
            // A mark may stand on the last one.
            Self::Rows(Rows { blanks, dropped: true, .. }) => {
                let row = text.len() - text.trim_start_matches(blanks.as_slice()).len();
                let last = text[..row].char_indices().next_back();
                last.map_or(text, |(at, _)| &text[at..])
            }
            Self::Rows(_) | Self::Nowhere => text,
        }
    }
}

impl Rows {
    fn new(tokenizer: &Tokenizer, blank: Blank, added: Vec<AddedToken>) -> Option<Self> {
        let parts = |c: &char| {
            let normalized = normalized(tokenizer, c.encode_utf8(&mut [0; 4]));
            let mut normalized = normalized.iter().flat_map(|text| text.chars());
            let whole = |c: char| match blank {
                Blank::Dropped | Blank::Any => c.is_whitespace(),
                Blank::Space => c == ' ',
                Blank::SpaceOrMark => c == ' ' || c == MARK,
                Blank::Mark => c == MARK,
            };
            normalized.next().is_some_and(whole) && normalized.all(whole)
        };
        let blanks = BLANKS.into_iter().filter(parts).collect();
        let holds_blank = |text: &str| text.trim_start_matches(stands_for_blank).contains(stands_for_blank);
        for token in added.iter().filter(|token| token.normalized) {
            // Such a token is looked for in what the normalizer leaves, of which the places are not known here.
            if token.rstrip || as_looked_for(tokenizer, token).is_none_or(|pattern| holds_blank(&pattern)) {
                return None;
            }
        }
        let contents = |of: &dyn Fn(&AddedToken) -> bool| -> Vec<String> {
            added.iter().filter(|token| of(token)).map(|token| token.content.clone()).collect()
        };
        let across = contents(&|token| holds_blank(&token.content));
        let take_blanks = contents(&|token| token.rstrip);
        let few = across.len().max(take_blanks.len()) <= MOST_ADDED_TOKENS;
        let of_blanks = added.iter().any(|token| token.content.contains(char::is_whitespace));
        few.then_some(Self { blanks, dropped: blank == Blank::Dropped && !of_blanks, across, take_blanks })
    }

    fn allow(&self, tokenizer: &Tokenizer, text: &str, at: usize) -> bool {
        let (before, behind) = text.split_at(at);
        let Some(next) = behind.chars().next().filter(|next| self.blanks.contains(next)) else {
            return false;
        };
        let mut backwards = before.chars().rev();
        let (last, one_before) = (backwards.next(), backwards.next());
        let around: String = one_before.into_iter().chain(last).chain([next]).collect();
        // Characters that stand for one are normalised as one.
        let apart = around.graphemes(true).count() == around.chars().count();
        let ends_word = last.is_some_and(|last| {
            normalized(tokenizer, last.encode_utf8(&mut [0; 4]))
                .is_some_and(|text| !text.is_empty() && !text.contains(stands_for_blank))
        });
        apart
            && ends_word
            && !lie_across(&self.across, text, at)
            && !self.take_blanks.iter().any(|token| before.ends_with(token.as_str()))
    }
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

fn stands_for_blank(c: char) -> bool {
    c.is_whitespace() || c == MARK
}

/// What the normalizer makes of a text; nothing where it fails.
pub(super) fn normalized(tokenizer: &Tokenizer, text: &str) -> Option<String> {
    let mut text = NormalizedString::from(text);
    let normalize = || {
        let normalizer = tokenizer.get_normalizer();
        normalizer.map_or(Ok(()), |n| n.normalize(&mut text)).map_err(|reason| reason.to_string())
    };
    guarded(normalize).ok().map(|()| text.get().to_owned())
}

/// An added token as it is looked for: in the text as it is, or as the normalizer leaves it.
fn as_looked_for(tokenizer: &Tokenizer, token: &AddedToken) -> Option<String> {
    match token.normalized {
        true => normalized(tokenizer, &token.content),
        false => Some(token.content.clone()),
    }
}

/// Whether one of the tokens stands in `text` from before `at` to behind it.
fn lie_across(tokens: &[String], text: &str, at: usize) -> bool {
    tokens.iter().map(String::as_bytes).any(|token| {
        let first = (at + 1).saturating_sub(token.len());
        (first..at).any(|start| text.as_bytes()[start..].starts_with(token))
    })
}
