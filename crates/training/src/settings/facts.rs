//! What is known of a setting beside its name and type.

/// What a setting decides, and with it when it may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Numbers: a run cannot go on from a checkpoint of another value.
    Result,
    /// The tokens of a text: numbers too, and one value for all cells of a study.
    Texts,
    /// What banks do: numbers too, and refused where the method keeps none.
    Banks,
    /// Where content lies that decides numbers; known by its hash, it may lie elsewhere when a run goes on.
    Content,
    /// How the same numbers come about.
    Free,
    /// What is stored and told on the way.
    Records,
    /// What is measured, beside the training.
    Evaluation,
    /// Where the run is stored.
    Place,
}

impl Role {
    /// Whether it may be another when a run goes on from a checkpoint: it decides no number, or what it names is known
    /// by its content.
    pub fn may_change_on_resume(self) -> bool {
        match self {
            Self::Result | Self::Texts | Self::Banks => false,
            Self::Content | Self::Free | Self::Records | Self::Evaluation | Self::Place => true,
        }
    }

    /// Whether a run that is done stands under another value: it says nothing about what came of the run, or what it
    /// names is known by its content.
    pub fn may_change_when_done(self) -> bool {
        match self {
            Self::Content | Self::Records | Self::Place => true,
            Self::Result | Self::Texts | Self::Banks | Self::Free | Self::Evaluation => false,
        }
    }
}

/// Where a setting is given in a study's recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In `[base]` or in a cell.
    Cell,
    /// In `[base]`: all cells share it.
    Base,
    /// Nowhere: the study decides it for every run.
    Study,
}

/// What is done with a setting.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// What it decides.
    pub role: Role,
    /// Where a study's recipe gives it.
    pub scope: Scope,
    /// What stands for its value in the help; the key where nothing else says more.
    pub value: Option<&'static str>,
    /// Its default in words, where its value does not say it.
    pub default: Option<&'static str>,
    /// Names of its flag in other trainers.
    pub aliases: &'static [&'static str],
    /// The setting that says the same in another unit: a flag for one replaces the other of a recipe.
    pub not_with: Option<&'static str>,
    /// A memory budget may choose it.
    pub budgeted: bool,
    /// The value that switches off what it is about.
    pub(crate) off: Option<&'static str>,
    pub(crate) bounds: Bounds,
}

pub(super) const RESULT: Facts = Facts::new(Role::Result, Scope::Cell);
pub(super) const TEXTS: Facts = Facts::new(Role::Texts, Scope::Base);
pub(super) const BANKS: Facts = Facts::new(Role::Banks, Scope::Cell);
pub(super) const CONTENT: Facts = Facts::new(Role::Content, Scope::Cell);
pub(super) const FREE: Facts = Facts::new(Role::Free, Scope::Cell);
pub(super) const RECORDS: Facts = Facts::new(Role::Records, Scope::Cell);
pub(super) const EVALUATION: Facts = Facts::new(Role::Evaluation, Scope::Study);
pub(super) const PLACE: Facts = Facts::new(Role::Place, Scope::Study);

impl Facts {
    const fn new(role: Role, scope: Scope) -> Self {
        Self {
            role,
            scope,
            value: None,
            default: None,
            aliases: &[],
            not_with: None,
            budgeted: false,
            off: None,
            bounds: Bounds::None,
        }
    }

    pub(super) const fn of(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    pub(super) const fn value(self, name: &'static str) -> Self {
        Self { value: Some(name), ..self }
    }

    pub(super) const fn default(self, words: &'static str) -> Self {
        Self { default: Some(words), ..self }
    }

    pub(super) const fn aliases(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    pub(super) const fn not_with(self, other: &'static str) -> Self {
        Self { not_with: Some(other), ..self }
    }

    pub(super) const fn budgeted(self) -> Self {
        Self { budgeted: true, ..self }
    }

    pub(super) const fn off(self, value: &'static str) -> Self {
        Self { off: Some(value), ..self }
    }

    pub(super) const fn bounds(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    /// A number of things, from `least` to `most`.
    pub(super) const fn count(self, least: usize, most: usize) -> Self {
        self.bounds(Bounds::Count { least, most, below: None })
    }

    /// What is said of a count below its least.
    pub(super) const fn below(self, words: &'static str) -> Self {
        match self.bounds {
            Bounds::Count { least, most, .. } => {
                self.bounds(Bounds::Count { least, most, below: Some(words) })
            }
            Bounds::None | Bounds::Number { .. } => self,
        }
    }

    /// A length of a sequence in tokens.
    pub(super) const fn length(self, most: usize) -> Self {
        self.count(3, most).below(" leaves no room beside the special tokens (give 3 or more)")
    }
}

/// What a value may be, whatever the others are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bounds {
    None,
    Count { least: usize, most: usize, below: Option<&'static str> },
    Number { holds: fn(f64) -> bool, words: &'static str },
}

// Computed with in f32: what is infinite there is no number here.
pub(super) const FROM_ZERO: Bounds = Bounds::Number {
    holds: |value| value >= 0.0 && (value as f32).is_finite(),
    words: "give 0 or a number above, at most 3e38",
};
pub(super) const ABOVE_ZERO: Bounds = Bounds::Number {
    holds: |value| value > 0.0 && (value as f32).is_finite(),
    words: "give a number above 0, at most 3e38",
};
pub(super) const BELOW_ONE: Bounds =
    Bounds::Number { holds: |value| (0.0..1.0).contains(&value), words: "give 0 or more and less than 1" };
pub(super) const SHARE: Bounds =
    Bounds::Number { holds: |value| (0.0..=1.0).contains(&value), words: "give a share from 0 to 1" };

impl Bounds {
    /// What is wrong with a value, to be put behind it.
    pub fn problem(self, value: f64) -> Option<String> {
        match self {
            Self::Count { least, below, .. } if value < least as f64 => {
                Some(below.map_or_else(|| format!(" (give at least {least})"), str::to_owned))
            }
            Self::Count { most, .. } if value > most as f64 => {
                Some(format!(" is too large (give at most {most})"))
            }
            Self::Number { holds, words } if !holds(value) => Some(format!(" ({words})")),
            Self::None | Self::Count { .. } | Self::Number { .. } => None,
        }
    }
}
