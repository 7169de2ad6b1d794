//! A seeded synthetic retrieval set: facts about invented entities, and questions that put them in other words.
//!
//! Each passage tells three facts about one entity and one about another. Names are made of syllables, and every
//! name word is shared by a dozen entities, so a name alone does not find the passage; values and verbs are other
//! words in questions than in passages, so lexical overlap does not either. What joins the two, that `mariner` is
//! `sailor`, holds for all entities: it can be learned on some and asked of others.
//!
//! A question gives one word of the name and two facts, the whole name and what is asked of it, or three facts; it
//! is asked only when exactly one entity fits.

mod world;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::Path,
};

use rand::{
    RngExt, SeedableRng,
    seq::{SliceRandom, index::sample_array},
};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use world::{Attribute, ENDINGS, KINDS, Kind, LINKS, ONSETS, VOWELS};

/// Facts told of each entity.
const FACTS: usize = 3;

/// Entities that share a word of their name, on average.
const NAMESAKES: usize = 12;

/// One entity in so many has no training question: half of the test questions are about these.
const HELD_OUT_STRIDE: usize = 5;

/// Hard negatives of a question, fewer only where there are fewer passages.
const HARD_NEGATIVES: usize = 4;

/// Size of a synthetic set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyntheticConfig {
    /// Number of passages; default 2,000.
    pub passages: usize,
    /// Number of training questions; default 6,000.
    pub train_questions: usize,
    /// Number of test questions, half of them about entities no training question is about; default 500.
    pub test_questions: usize,
}

impl Default for SyntheticConfig {
    fn default() -> Self {
        Self { passages: 2_000, train_questions: 6_000, test_questions: 500 }
    }
}

/// A passage: facts about one entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntheticPassage {
    /// Unique id.
    pub id: String,
    /// The entity's name.
    pub title: String,
    /// A few sentences.
    pub text: String,
}

/// A question that one passage answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntheticQuestion {
    /// Unique id, over training and test questions.
    pub id: String,
    /// The question.
    pub text: String,
    /// Index of the passage that answers it.
    pub positive: usize,
    /// Indices of the passages that fit it best without answering it, the best first.
    pub hard_negatives: Vec<usize>,
}

/// A corpus, its questions and a vocabulary that covers both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntheticSet {
    /// The corpus.
    pub passages: Vec<SyntheticPassage>,
    /// Training questions.
    pub train: Vec<SyntheticQuestion>,
    /// Test questions; none asks what a training question asks.
    pub test: Vec<SyntheticQuestion>,
    /// A lower-case WordPiece vocabulary without its special tokens: words, syllables, letters and digits, and their
    /// `##` continuations. The same for every seed and size; no text of letters, digits, `.`, `,` and `?` needs
    /// `[UNK]`.
    pub vocabulary: Vec<String>,
}

/// The passages have too few facts for the questions asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "synthetic set too small: {passages} passages have room for {room} more {split} questions, not {wanted}; \
     ask for more passages or fewer questions"
)]
pub struct TooFewPassages {
    /// Passages asked for.
    pub passages: usize,
    /// `train` or `test`.
    pub split: &'static str,
    /// Questions there is room for.
    pub room: usize,
    /// Questions wanted.
    pub wanted: usize,
}

impl SyntheticSet {
    /// Makes the set of this seed and size: the same on every machine.
    ///
    /// # Errors
    /// When there are too few passages for the questions (about eight questions a passage).
    pub fn generate(seed: u64, config: SyntheticConfig) -> Result<Self, TooFewPassages> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let world = World::new(config.passages, &mut rng);
        let passages = world.entities.iter().enumerate().map(|(index, entity)| SyntheticPassage {
            id: format!("passage-{index}"),
            title: world.title(entity),
            text: world.passage(entity, &mut rng),
        });
        let passages = passages.collect();

        let (mut held_out, mut open): (Vec<_>, Vec<_>) = world
            .answerable_clues()
            .into_iter()
            .partition(|(positive, _)| positive.is_multiple_of(HELD_OUT_STRIDE));
        held_out.shuffle(&mut rng);
        open.shuffle(&mut rng);
        let take = |split, from: &mut Vec<_>, wanted| match from.len().checked_sub(wanted) {
            Some(rest) => Ok(from.split_off(rest)),
            None => Err(TooFewPassages { passages: config.passages, split, room: from.len(), wanted }),
        };
        let unseen = config.test_questions / 2;
        let train = take("train", &mut open, config.train_questions)?;
        let mut test = take("test", &mut held_out, unseen)?;
        test.extend(take("test", &mut open, config.test_questions - unseen)?);
        Ok(Self {
            passages,
            train: world.questions("train", train, &mut rng),
            test: world.questions("test", test, &mut rng),
            vocabulary: vocabulary(),
        })
    }

    /// Writes the set as a BEIR folder: `corpus.jsonl`, `queries.jsonl`, `qrels/train.tsv`, `qrels/test.tsv`, and
    /// the training questions' hard negatives as `hard_negatives.tsv` (query id, gold id, negative ids).
    ///
    /// # Errors
    /// When a folder or file cannot be written.
    pub fn write_beir(&self, folder: &Path) -> crate::Result<()> {
        let qrels = folder.join("qrels");
        contaccum_files::create_folder(&qrels)?;
        let id = |index: usize| self.passages[index].id.as_str();

        let corpus = self.passages.iter().map(|p| json!({"_id": p.id, "title": p.title, "text": p.text}));
        write_lines(&folder.join("corpus.jsonl"), corpus.map(|line| line.to_string()))?;
        let queries = self.train.iter().chain(&self.test).map(|q| json!({"_id": q.id, "text": q.text}));
        write_lines(&folder.join("queries.jsonl"), queries.map(|line| line.to_string()))?;
        for (questions, name) in [(&self.train, "train.tsv"), (&self.test, "test.tsv")] {
            let header = "query-id\tcorpus-id\tscore".to_owned();
            let judgments = questions.iter().map(|q| format!("{}\t{}\t1", q.id, id(q.positive)));
            write_lines(&qrels.join(name), [header].into_iter().chain(judgments))?;
        }
        let header = "query-id\tgold-id\tneg-ids".to_owned();
        let negatives = self.train.iter().map(|q| {
            let ids: Vec<_> = q.hard_negatives.iter().map(|&index| id(index)).collect();
            format!("{}\t{}\t{}", q.id, id(q.positive), ids.join(","))
        });
        write_lines(&folder.join("hard_negatives.tsv"), [header].into_iter().chain(negatives))
    }
}

/// Value number `value` of attribute number `attribute` of an entity's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fact {
    attribute: usize,
    value: usize,
}

struct Entity {
    kind: usize,
    /// Indices of the two words of its name.
    name: [usize; 2],
    /// In the order of the attributes.
    facts: [Fact; FACTS],
    /// Index of the entity its passage brings up.
    mentions: usize,
}

impl Entity {
    /// Everything that can be asked about the entity.
    fn clues(&self) -> Vec<Clue> {
        let [first, last] = self.name;
        let [a, b, c] = self.facts;
        let clue =
            |names: &[_], facts: &[_]| Clue { kind: self.kind, names: names.into(), facts: facts.into() };
        let mut clues = vec![clue(&[], &[a, b, c])];
        for pair in [[a, b], [a, c], [b, c]] {
            clues.extend([clue(&[first], &pair), clue(&[last], &pair)]);
        }
        clues.extend(self.facts.map(|fact| clue(&[first, last], &[fact])));
        clues
    }
}

/// What a question gives away: words of the name and facts. With the whole name, the fact is what it asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Clue {
    kind: usize,
    names: Vec<usize>,
    facts: Vec<Fact>,
}

impl Clue {
    /// How much of the clue holds for an entity.
    fn matches(&self, entity: &Entity) -> usize {
        let names = self.names.iter().filter(|&name| entity.name.contains(name)).count();
        let facts = self.facts.iter().filter(|&fact| entity.facts.contains(fact)).count();
        let same_kind = usize::from(entity.kind == self.kind);
        2 * names + same_kind * (1 + facts)
    }
}

struct World {
    /// Words of names, capitalised: as many first words, then as many last words.
    words: Vec<String>,
    entities: Vec<Entity>,
}

impl World {
    /// `count` entities with names of their own, drawn from a small stock of words.
    fn new(count: usize, rng: &mut ChaCha8Rng) -> Self {
        // The stock has at least twice as many names as are needed, so that drawing anew soon finds a free one.
        let stock = (count / NAMESAKES).max((2 * count).isqrt() + 1);
        let words = name_words(2 * stock, rng);
        let mut taken = BTreeSet::new();
        let mut entities = Vec::with_capacity(count);
        while entities.len() < count {
            let name = [rng.random_range(0..stock), rng.random_range(stock..2 * stock)];
            if taken.insert(name) {
                let index = entities.len();
                let kind = index % KINDS.len();
                let facts = facts(&KINDS[kind], rng);
                let mentions = (index + rng.random_range(1..count.max(2))) % count;
                entities.push(Entity { kind, name, facts, mentions });
            }
        }
        Self { words, entities }
    }

    fn title(&self, entity: &Entity) -> String {
        entity.name.map(|word| self.words[word].as_str()).join(" ")
    }

    fn passage(&self, entity: &Entity, rng: &mut ChaCha8Rng) -> String {
        let kind = &KINDS[entity.kind];
        let subject = capitalised(kind.told);
        let mut facts = entity.facts;
        facts.shuffle(rng);
        let mut text = String::new();
        for fact in facts {
            text.push_str(&format!("{subject} {}. ", kind.attributes[fact.attribute].tell(fact.value, rng)));
        }
        let other = &self.entities[entity.mentions];
        let other_kind = &KINDS[other.kind];
        let fact = other.facts[rng.random_range(0..FACTS)];
        let fact = other_kind.attributes[fact.attribute].tell(fact.value, rng);
        let link = LINKS[rng.random_range(0..LINKS.len())];
        text.push_str(&format!("{subject} {link} {}, {} {fact}.", self.title(other), other_kind.which));
        text
    }

    fn questions(
        &self,
        split: &str,
        clues: Vec<(usize, Clue)>,
        rng: &mut ChaCha8Rng,
    ) -> Vec<SyntheticQuestion> {
        let question = |(index, (positive, clue)): (usize, (usize, Clue))| SyntheticQuestion {
            id: format!("{split}-{index}"),
            text: self.question(&clue, rng),
            positive,
            hard_negatives: self.hard_negatives(positive, &clue),
        };
        clues.into_iter().enumerate().map(question).collect()
    }

    fn question(&self, clue: &Clue, rng: &mut ChaCha8Rng) -> String {
        let kind = &KINDS[clue.kind];
        let noun = kind.asked;
        match (clue.names.as_slice(), clue.facts.as_slice()) {
            (&[first, last], &[fact]) => {
                let wanted = kind.attributes[fact.attribute].wanted;
                format!("what {wanted} does the {noun} {} {} have?", self.words[first], self.words[last])
            }
            (names, facts) => {
                let named = names.iter().map(|&name| format!(" named {}", self.words[name]));
                let named: String = named.collect();
                let asked = facts.iter().map(|fact| kind.attributes[fact.attribute].ask(fact.value, rng));
                let asked: Vec<_> = asked.collect();
                format!("which {noun}{named} {}?", asked.join(" and "))
            }
        }
    }

    /// The clues that exactly one entity fits, each with the index of that entity.
    fn answerable_clues(&self) -> Vec<(usize, Clue)> {
        let mut fitting: BTreeMap<Clue, (usize, usize)> = BTreeMap::new();
        for (index, entity) in self.entities.iter().enumerate() {
            for clue in entity.clues() {
                fitting.entry(clue).or_insert((index, 0)).1 += 1;
            }
        }
        let unique = fitting.into_iter().filter(|(_, (_, count))| *count == 1);
        unique.map(|(clue, (index, _))| (index, clue)).collect()
    }

    /// The passages that fit a clue best beside the one that answers it, the best first.
    fn hard_negatives(&self, positive: usize, clue: &Clue) -> Vec<usize> {
        let count = self.entities.len();
        // Ties go to the next ones in a circle from the positive, so that no passage is everybody's negative.
        let mut ranked: Vec<_> = (1..count)
            .map(|step| {
                let index = (positive + step) % count;
                let entity = &self.entities[index];
                let fit = clue.matches(entity) + usize::from(entity.mentions == positive);
                (Reverse(fit), step, index)
            })
            .collect();
        if ranked.len() > HARD_NEGATIVES {
            ranked.select_nth_unstable(HARD_NEGATIVES);
            ranked.truncate(HARD_NEGATIVES);
        }
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, _, index)| index).collect()
    }
}

impl Attribute {
    fn tell(&self, value: usize, rng: &mut ChaCha8Rng) -> String {
        self.told[rng.random_range(0..2)].replace("{}", self.values[value][0])
    }

    fn ask(&self, value: usize, rng: &mut ChaCha8Rng) -> String {
        self.asked[rng.random_range(0..2)].replace("{}", self.values[value][rng.random_range(1..3)])
    }
}

fn facts(kind: &Kind, rng: &mut ChaCha8Rng) -> [Fact; FACTS] {
    let mut attributes: [usize; FACTS] =
        sample_array(rng, kind.attributes.len()).expect("a kind has more attributes than facts are told");
    attributes.sort_unstable();
    attributes.map(|attribute| {
        let value = rng.random_range(0..kind.attributes[attribute].values.len());
        Fact { attribute, value }
    })
}

/// Different capitalised words of two or three syllables.
fn name_words(count: usize, rng: &mut ChaCha8Rng) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let mut words = Vec::with_capacity(count);
    while words.len() < count {
        let syllables = rng.random_range(2..4);
        let mut pick = |from: &[&'static str]| from[rng.random_range(0..from.len())];
        let mut word = String::new();
        for _ in 0..syllables {
            word.extend([pick(&ONSETS), pick(&VOWELS)]);
        }
        word.push_str(pick(&ENDINGS));
        if taken.insert(word.clone()) {
            words.push(capitalised(&word));
        }
    }
    words
}

fn capitalised(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    first.to_ascii_uppercase() + rest
}

fn vocabulary() -> Vec<String> {
    let mut tokens: BTreeSet<String> = [".", ",", "?"].map(String::from).into();
    let frames = "what which does the have named and who";
    let mut words: Vec<&str> =
        frames.split(' ').chain(LINKS.iter().flat_map(|link| link.split(' '))).collect();
    for kind in &KINDS {
        words.extend(kind.told.split(' ').chain([kind.asked, kind.which]));
        for attribute in &kind.attributes {
            let phrases = attribute.told.iter().chain(&attribute.asked);
            words.extend(phrases.flat_map(|phrase| phrase.split(' ')).filter(|&word| word != "{}"));
            words.extend(attribute.values.iter().flatten());
            words.push(attribute.wanted);
        }
    }
    tokens.extend(words.into_iter().map(String::from));
    let syllables = ONSETS.iter().flat_map(|onset| VOWELS.iter().map(move |vowel| format!("{onset}{vowel}")));
    let pieces = syllables.flat_map(|open| ENDINGS.iter().map(move |ending| format!("{open}{ending}")));
    for piece in pieces.chain(('a'..='z').chain('0'..='9').map(String::from)) {
        tokens.insert(format!("##{piece}"));
        tokens.insert(piece);
    }
    tokens.into_iter().collect()
}

fn write_lines(path: &Path, lines: impl IntoIterator<Item = String>) -> crate::Result<()> {
    Ok(contaccum_files::write(path, |file| lines.into_iter().try_for_each(|line| writeln!(file, "{line}")))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: SyntheticConfig =
        SyntheticConfig { passages: 200, train_questions: 600, test_questions: 60 };

    fn small(seed: u64) -> SyntheticSet {
        SyntheticSet::generate(seed, SMALL).unwrap()
    }

    fn questions(set: &SyntheticSet) -> impl Iterator<Item = &SyntheticQuestion> {
        set.train.iter().chain(&set.test)
    }

    /// Lower-cased words, with punctuation on its own.
    fn words(text: &str) -> Vec<String> {
        let spaced: String = text
            .chars()
            .flat_map(|c| if c.is_ascii_punctuation() { vec![' ', c, ' '] } else { vec![c] })
            .collect();
        spaced.to_lowercase().split_whitespace().map(String::from).collect()
    }

    /// WordPiece: the longest piece first; `None` where BERT would say `[UNK]`.
    fn pieces(word: &str, vocabulary: &BTreeSet<&str>) -> Option<Vec<String>> {
        let mut pieces = Vec::new();
        let mut start = 0;
        while start < word.len() {
            let prefix = if start == 0 { "" } else { "##" };
            let candidates = (start + 1..=word.len()).rev();
            let (piece, end) = candidates
                .map(|end| (format!("{prefix}{}", &word[start..end]), end))
                .find(|(piece, _)| vocabulary.contains(piece.as_str()))?;
            pieces.push(piece);
            start = end;
        }
        Some(pieces)
    }

    #[test]
    fn the_same_seed_gives_the_same_set_and_another_seed_another() {
        assert_eq!(small(7), small(7));
        assert_ne!(small(7).passages, small(8).passages);
        assert_eq!(small(7).vocabulary, small(8).vocabulary);
    }

    #[test]
    fn the_set_has_the_size_asked_for() {
        let set = small(1);
        assert_eq!((set.passages.len(), set.train.len(), set.test.len()), (200, 600, 60));
    }

    #[test]
    fn no_text_needs_an_unknown_token_and_names_split_into_pieces() {
        let set = small(2);
        let vocabulary: BTreeSet<_> = set.vocabulary.iter().map(String::as_str).collect();
        assert_eq!(vocabulary.len(), set.vocabulary.len(), "a token comes twice");
        assert!((1_000..2_000).contains(&vocabulary.len()), "{} tokens", vocabulary.len());
        let texts =
            set.passages.iter().flat_map(|p| [&p.title, &p.text]).chain(questions(&set).map(|q| &q.text));
        for word in texts.flat_map(|text| words(text)) {
            assert!(pieces(&word, &vocabulary).is_some(), "{word}");
        }
        for name in set.passages.iter().flat_map(|p| words(&p.title)) {
            assert!(pieces(&name, &vocabulary).is_some_and(|pieces| pieces.len() > 1), "{name} is one piece");
        }
    }

    #[test]
    fn passages_are_about_forty_tokens_and_questions_about_a_dozen() {
        let set = SyntheticSet::generate(3, SyntheticConfig::default()).unwrap();
        let vocabulary: BTreeSet<_> = set.vocabulary.iter().map(String::as_str).collect();
        let count =
            |text: &str| words(text).iter().map(|w| pieces(w, &vocabulary).unwrap().len()).sum::<usize>();
        let passages: usize = set.passages.iter().map(|p| count(&p.title) + count(&p.text)).sum();
        let asked: usize = set.train.iter().map(|q| count(&q.text)).sum();
        assert!((35..50).contains(&(passages / set.passages.len())), "{passages}");
        assert!((10..18).contains(&(asked / set.train.len())), "{asked}");
    }

    #[test]
    fn no_test_question_is_a_training_question_and_half_are_about_held_out_passages() {
        let set = small(4);
        let texts: BTreeSet<_> = questions(&set).map(|q| &q.text).collect();
        assert_eq!(texts.len(), 660);
        let held_out = |q: &&SyntheticQuestion| q.positive.is_multiple_of(HELD_OUT_STRIDE);
        assert_eq!(set.train.iter().filter(held_out).count(), 0);
        assert_eq!(set.test.iter().filter(held_out).count(), 30);
    }

    #[test]
    fn ids_and_titles_are_unique() {
        let set = small(5);
        assert_eq!(set.passages.iter().map(|p| &p.id).collect::<BTreeSet<_>>().len(), 200);
        assert_eq!(set.passages.iter().map(|p| &p.title).collect::<BTreeSet<_>>().len(), 200);
        assert_eq!(questions(&set).map(|q| &q.id).collect::<BTreeSet<_>>().len(), 660);
    }

    #[test]
    fn hard_negatives_are_other_passages_that_share_something_with_the_question() {
        let set = small(6);
        for question in questions(&set) {
            let distinct: BTreeSet<_> = question.hard_negatives.iter().collect();
            assert_eq!(distinct.len(), HARD_NEGATIVES);
            assert!(!distinct.contains(&question.positive));
        }
        let shared_name = set.train.iter().filter(|question| {
            let first = &set.passages[question.hard_negatives[0]];
            words(&first.title).iter().any(|name| words(&question.text).contains(name))
        });
        assert!(shared_name.count() > 400, "most questions name somebody with a namesake");
    }

    #[test]
    fn a_question_and_a_passage_never_share_the_word_for_a_value() {
        let values = || KINDS.iter().flat_map(|kind| &kind.attributes).flat_map(|attribute| attribute.values);
        let told: BTreeSet<_> = values().map(|value| value[0]).collect();
        for asked in values().flat_map(|value| &value[1..]) {
            assert!(!told.contains(asked), "{asked}");
        }
    }

    #[test]
    fn name_words_are_shared_between_passages() {
        let set = SyntheticSet::generate(9, SyntheticConfig::default()).unwrap();
        let names: BTreeSet<_> = set.passages.iter().flat_map(|p| words(&p.title)).collect();
        assert!(2 * set.passages.len() > 10 * names.len(), "{} name words", names.len());
    }

    #[test]
    fn too_few_passages_are_refused_with_the_room_there_is() {
        let config = SyntheticConfig { passages: 10, train_questions: 1_000, test_questions: 2 };
        let message = SyntheticSet::generate(1, config).unwrap_err().to_string();
        assert!(message.contains("10 passages have room for") && message.contains("train"), "{message}");
        assert!(!message.contains('\n'));
        let nothing = SyntheticConfig { passages: 0, train_questions: 1, test_questions: 0 };
        assert!(SyntheticSet::generate(1, nothing).is_err());
    }

    #[test]
    fn the_written_folder_holds_the_set() {
        let folder = tempfile::tempdir().unwrap();
        let set = small(10);
        set.write_beir(folder.path()).unwrap();
        let lines = |name: &str| -> Vec<String> {
            let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
            text.lines().map(String::from).collect()
        };
        let first: serde_json::Value = serde_json::from_str(&lines("corpus.jsonl")[0]).unwrap();
        assert_eq!(first["title"], set.passages[0].title.as_str());
        assert_eq!(first["text"], set.passages[0].text.as_str());
        assert_eq!(lines("corpus.jsonl").len(), 200);
        assert_eq!(lines("queries.jsonl").len(), 660);
        assert_eq!(lines("qrels/train.tsv").len(), 1 + 600);
        let judgment = format!("test-0\tpassage-{}\t1", set.test[0].positive);
        assert_eq!(lines("qrels/test.tsv")[1], judgment);
        let negatives: Vec<_> = set.train[0].hard_negatives.iter().map(|i| format!("passage-{i}")).collect();
        let line = format!("train-0\tpassage-{}\t{}", set.train[0].positive, negatives.join(","));
        assert_eq!(lines("hard_negatives.tsv")[1], line);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let message = small(1).write_beir(file.path()).unwrap_err().to_string();
        assert!(message.contains(&file.path().display().to_string()), "{message}");
    }
}
