//! The special tokens around a text and a pair of texts.

use tokenizers::{Encoding, Token, Tokenizer};

use super::guard::guarded;

/// What a tokenizer's post-processor puts around texts, found by giving it marked ones.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Frame {
    /// Before a text and behind it.
    single: [Vec<u32>; 2],
    /// Before the first text, between both, behind the second.
    pair: [Vec<u32>; 3],
    /// How many of the tokens between both are of type 0, where what follows is of type 1.
    types: Option<usize>,
}

/// Ids that no vocabulary has.
const MARKERS: [u32; 2] = [u32::MAX, u32::MAX - 1];

impl Frame {
    /// The frame of a tokenizer. Without `types` both texts of a pair are of type 0.
    ///
    /// # Errors
    /// When a text does not stand between special tokens, or a pair not in its order.
    pub(super) fn of(tokenizer: &Tokenizer, types: bool) -> Result<Self, String> {
        let single = framed(tokenizer, 1)?;
        let pair = framed(tokenizer, 2)?;
        let ids = |framed: &Encoding| framed.get_ids().to_vec();
        let refuse = |what: &str| Err(format!("its post_processor {what}; mend or replace tokenizer.json"));
        let Some(single_parts) = parts(&ids(&single)) else { return refuse("does not keep a text once") };
        let Some(pair_parts) = parts(&ids(&pair)) else {
            return refuse("does not keep a pair of texts in order");
        };
        if single_parts.iter().all(Vec::is_empty) {
            return refuse("puts no special token around a text, which leaves nothing of an empty one");
        }
        let kinds = pair.get_type_ids();
        let second = kinds.iter().take_while(|kind| **kind == 0).count();
        let between =
            second.checked_sub(pair_parts[0].len() + 1).filter(|place| *place <= pair_parts[1].len());
        let all = second == kinds.len();
        if types
            && (single.get_type_ids().iter().any(|kind| *kind != 0)
                || !all && (between.is_none() || kinds[second..].iter().any(|kind| *kind != 1)))
        {
            return refuse("gives token types other than 0 for the first text and 1 for the second");
        }
        Ok(Self { single: single_parts, pair: pair_parts, types: between.filter(|_| types && !all) })
    }

    /// Whether this is BERT's: `[CLS] a [SEP]` and `[CLS] a [SEP] b [SEP]`.
    pub(super) fn is_bert(&self) -> bool {
        let [cls, sep] = &self.single;
        let one_each = cls.len() == 1 && sep.len() == 1;
        one_each
            && self.pair == [cls.clone(), sep.clone(), sep.clone()]
            && self.types.is_none_or(|of_first| of_first == 1)
    }

    /// The tokens before and behind a text.
    pub(super) fn around(&self) -> &[Vec<u32>; 2] {
        &self.single
    }

    /// Special tokens beside those of one text, or of two.
    pub(super) fn tokens(&self, texts: usize) -> usize {
        let parts = if texts == 1 { &self.single[..] } else { &self.pair };
        parts.iter().map(Vec::len).sum()
    }

    /// The largest id among the special tokens.
    pub(super) fn largest_id(&self) -> u32 {
        self.single.iter().chain(&self.pair).flatten().copied().max().unwrap_or_default()
    }

    pub(super) fn of_one(&self, ids: &[u32]) -> Vec<u32> {
        let [before, behind] = &self.single;
        [before, ids, behind].concat()
    }

    /// The framed pair, and where the tokens of type 1 begin.
    pub(super) fn of_two(&self, first: &[u32], second: &[u32]) -> (Vec<u32>, usize) {
        let [before, between, behind] = &self.pair;
        let ids = [before, first, between, second, behind].concat();
        let second_segment = self.types.map_or(ids.len(), |of_first| before.len() + first.len() + of_first);
        (ids, second_segment)
    }
}

/// What the post-processor makes of as many marked texts.
fn framed(tokenizer: &Tokenizer, texts: usize) -> Result<Encoding, String> {
    let text = |i: usize| Encoding::from_tokens(vec![Token::new(MARKERS[i], "a".into(), (0, 1))], i as u32);
    let second = (texts > 1).then(|| text(1));
    guarded(|| tokenizer.post_process(text(0), second, true).map_err(|reason| reason.to_string()))
}

/// The ids around the markers, of which each stands once and in order.
fn parts<const PARTS: usize>(ids: &[u32]) -> Option<[Vec<u32>; PARTS]> {
    let expected = &MARKERS[..PARTS - 1];
    let markers: Vec<u32> = ids.iter().copied().filter(|id| MARKERS.contains(id)).collect();
    let parts: Vec<Vec<u32>> = ids.split(|id| MARKERS.contains(id)).map(<[u32]>::to_vec).collect();
    (markers == expected).then(|| parts.try_into().ok()).flatten()
}
