//! The recipe of a study: a TOML file.
//!
//! ```toml
//! seeds = [1, 2, 3]           # every cell is trained once with each
//! measure = "nDCG@10"         # the measure of the tables; all are in the JSON file
//! keep_models = false         # keep the trained models beside their measures
//!
//! [base]                      # what all runs share: keys of `contaccum train`
//! train = "data/squad"
//! max_steps = 200
//!
//! [start]                     # optional: a fresh encoder in place of base.model, one per seed
//! tokenizer = "models/bert"   # folder or hub name
//! hidden_size = 128
//! num_hidden_layers = 2
//! num_attention_heads = 4
//! intermediate_size = 512
//! [start.train]               # how it is trained before the cells begin, over [base]; on other batches than theirs
//! method = "grad-accum"
//!
//! [[evaluation]]              # what every model is measured on
//! data = "data/squad"         # BEIR folder
//! split = "test"
//! max_queries = 2000          # optional: the first so many
//!
//! [[group]]                   # a table: its cells against a baseline
//! name = "size"
//! title = "Size of the bank"
//! baseline = "contaccum 512"  # a cell, of this group or another
//! also = ["grad-accum"]       # optional: cells of other groups to stand in this table too
//!
//! [[cell]]                    # a setting of its own, over [base]: keys of `contaccum train`
//! group = "size"
//! name = "contaccum {memory_bank_size}"   # a list multiplies the cell; its values stand in the name
//! method = "contaccum"
//! memory_bank_size = [128, 512, 2048]
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use contaccum_data::with_nearest;
use contaccum_retrieval::{DEV_MEASURES, Measure};
use contaccum_training::{Scope, Setting, TrainConfig};
use serde::Deserialize;
use toml::{Spanned, Table, Value};

use crate::StudyError;
use crate::grid;

/// Settings with their places in the file.
pub(crate) type Settings = BTreeMap<Spanned<String>, Spanned<Value>>;

/// Most runs of a study: at a minute each, a week.
const MOST_RUNS: usize = 10_000;

/// A study as its file tells it, lists multiplied out, settings checked.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The file.
    pub path: PathBuf,
    /// Seeds of every cell.
    pub seeds: Vec<u64>,
    /// The measure of the tables.
    pub measure: Measure,
    /// Trained models are kept.
    pub keep_models: bool,
    /// What all runs share.
    pub base: TrainConfig,
    /// A fresh encoder for every seed.
    pub start: Option<Start>,
    /// What is measured on.
    pub evaluations: Vec<EvaluationData>,
    /// Tables.
    pub groups: Vec<Group>,
    /// What is compared.
    pub cells: Vec<Cell>,
}

/// A fresh encoder, and how it is trained before the cells begin.
#[derive(Clone, Debug)]
pub struct Start {
    /// Its shape and tokenizer.
    pub shape: Shape,
    /// Its training.
    pub config: TrainConfig,
}

/// Shape of a fresh encoder, named as in `config.json`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Model folder or hub name to take the tokenizer and its vocabulary from.
    pub tokenizer: String,
    /// Width of a hidden state.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
}

/// Judged queries that every model is measured on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationData {
    /// BEIR folder.
    pub data: PathBuf,
    /// Split of its judgments.
    pub split: String,
    /// The first so many queries; all of them without.
    pub max_queries: Option<usize>,
}

/// Cells that are compared with a baseline in one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Heading.
    pub title: String,
    /// The cell that the others are compared with.
    pub baseline: usize,
    /// All cells of the table, the baseline first.
    pub cells: Vec<usize>,
}

/// One setting of the grid, to be trained with every seed.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Unique name.
    pub name: String,
    /// The settings of its runs but for seed, model and folder.
    pub config: TrainConfig,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecipeFile {
    seeds: Spanned<Vec<u64>>,
    #[serde(default = "default_measure")]
    measure: Spanned<Measure>,
    #[serde(default)]
    keep_models: bool,
    #[serde(default)]
    base: Settings,
    start: Option<StartTable>,
    #[serde(default)]
    evaluation: Vec<EvaluationData>,
    #[serde(default)]
    group: Vec<Spanned<GroupTable>>,
    #[serde(default)]
    cell: Vec<Spanned<Settings>>,
}

fn default_measure() -> Spanned<Measure> {
    Spanned::new(0..0, DEV_MEASURES[0])
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StartTable {
    tokenizer: Spanned<String>,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    train: Settings,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupTable {
    name: String,
    title: String,
    baseline: Spanned<String>,
    #[serde(default)]
    also: Vec<Spanned<String>>,
}

impl Recipe {
    /// Reads a recipe, multiplies its lists out and checks every setting.
    ///
    /// # Errors
    /// An unreadable file; unknown keys, wrong or contradicting values and names, with line and cell.
    pub fn read(path: &Path) -> Result<Self, StudyError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| StudyError::Read { path: path.into(), source })?;
        Reader { path, text: &text }.read()
    }
}

/// A recipe's text, for the lines in messages.
pub(crate) struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Reader<'_> {
    /// An error at a place in the file.
    pub(crate) fn refuse<T>(&self, at: usize, message: impl Into<String>) -> Result<T, StudyError> {
        let line = 1 + self.text.as_bytes().iter().take(at).filter(|&&byte| byte == b'\n').count();
        let place = format!("{}: line {line}", self.path.display());
        Err(StudyError::Recipe { place, message: message.into() })
    }

    fn read(&self) -> Result<Recipe, StudyError> {
        let file: RecipeFile = toml::from_str(self.text).or_else(|error| {
            let message = with_nearest(error.message());
            self.refuse(error.span().map_or(0, |span| span.start), message)
        })?;
        self.check_lists(&file)?;
        self.check_size(&file)?;
        let base = self.checked("base", &file.base, Scope::Base)?;
        let start = file.start.map(|table| self.start(&base, table)).transpose()?;
        let mut shared = base.clone();
        if start.is_some() {
            if let Some((key, _)) = file.base.iter().find(|(key, _)| key.as_ref() == "model") {
                return self.refuse(key.span().start, "model: [start] makes the model (drop one of the two)");
            }
            shared.insert("model".into(), "start".into());
        }
        let base = self.config("base", 0, &shared, Table::new())?;
        let mut cells = Vec::new();
        let mut groups = Vec::new();
        for table in &file.cell {
            let (group, of_table) = self.cells(&shared, table)?;
            groups.extend(of_table.iter().map(|_| group.clone()));
            cells.extend(of_table);
        }
        self.check_names(&file.cell, &cells)?;
        Ok(Recipe {
            path: self.path.into(),
            seeds: file.seeds.into_inner(),
            measure: file.measure.into_inner(),
            keep_models: file.keep_models,
            base,
            start,
            evaluations: file.evaluation,
            groups: self.groups(&file.group, &cells, &groups)?,
            cells,
        })
    }

    fn check_lists(&self, file: &RecipeFile) -> Result<(), StudyError> {
        let seeds = &file.seeds;
        let distinct: BTreeSet<u64> = seeds.as_ref().iter().copied().collect();
        if distinct.is_empty() || distinct.len() < seeds.as_ref().len() {
            return self.refuse(seeds.span().start, "seeds: give at least one, each once");
        }
        if !DEV_MEASURES.contains(file.measure.as_ref()) {
            let known = DEV_MEASURES.map(|measure| measure.to_string()).join(", ");
            let message = format!("measure: {} is not measured (one of {known})", file.measure.as_ref());
            return self.refuse(file.measure.span().start, message);
        }
        for (name, missing) in [
            ("[[evaluation]]", file.evaluation.is_empty()),
            ("[[group]]", file.group.is_empty()),
            ("[[cell]]", file.cell.is_empty()),
        ] {
            if missing {
                return self.refuse(0, format!("no {name} in it (give at least one)"));
            }
        }
        let names: BTreeSet<_> = file.evaluation.iter().map(|set| set.data.file_name()).collect();
        if names.len() < file.evaluation.len() {
            return self
                .refuse(0, "two [[evaluation]] folders have the same name, which names their results");
        }
        Ok(())
    }

    /// Refuses more runs than could ever be trained, before a cell is made.
    fn check_size(&self, file: &RecipeFile) -> Result<(), StudyError> {
        let mut runs = 0usize;
        for table in &file.cell {
            let of_table =
                grid::count(table.as_ref()).and_then(|cells| cells.checked_mul(file.seeds.as_ref().len()));
            runs = of_table.and_then(|of_table| runs.checked_add(of_table)).unwrap_or(usize::MAX);
            if runs > MOST_RUNS {
                let message = format!(
                    "[[cell]]: the lists up to here multiply to more than {MOST_RUNS} runs, cells times seeds \
                     (shorten them, or make several studies)"
                );
                return self.refuse(table.span().start, message);
            }
        }
        Ok(())
    }

    /// Settings as a table of `contaccum train`, each checked on its own; those that are not given `here` are refused.
    fn checked(&self, place: &str, settings: &Settings, here: Scope) -> Result<Table, StudyError> {
        let mut table = Table::new();
        for (key, value) in settings {
            let refuse = |message: String| self.refuse(key.span().start, format!("{place}: {message}"));
            let name = key.as_ref().as_str();
            let why = match (Setting::of(name).map(|setting| setting.facts.scope), here) {
                (Some(Scope::Study), _) => {
                    "is decided by the study (drop it; [[evaluation]] says what is measured on)"
                }
                (Some(Scope::Base), Scope::Cell) => {
                    "decides what is measured on, which all cells share (give it in [base])"
                }
                (Some(Scope::Base | Scope::Cell) | None, _) => "",
            };
            if !why.is_empty() {
                return refuse(format!("{name} {why}"));
            }
            let alone = Table::from_iter([(name.to_owned(), value.as_ref().clone())]);
            if let Err(error) = alone.clone().try_into::<TrainConfig>() {
                return refuse(with_nearest(error.message()));
            }
            table.extend(alone);
        }
        Ok(table)
    }

    /// The configuration that settings laid over the base come to.
    fn config(&self, place: &str, at: usize, base: &Table, over: Table) -> Result<TrainConfig, StudyError> {
        let mut base = base.clone();
        base.insert("output_dir".into(), "study".into());
        TrainConfig::layered(base, over).or_else(|error| self.refuse(at, format!("{place}: {error}")))
    }

    fn start(&self, base: &Table, table: StartTable) -> Result<Start, StudyError> {
        let at = table.tokenizer.span().start;
        let shape = Shape {
            tokenizer: table.tokenizer.into_inner(),
            hidden_size: table.hidden_size,
            num_hidden_layers: table.num_hidden_layers,
            num_attention_heads: table.num_attention_heads,
            intermediate_size: table.intermediate_size,
        };
        let over = self.checked("start.train", &table.train, Scope::Cell)?;
        let mut base = base.clone();
        base.insert("model".into(), "start".into());
        Ok(Start { shape, config: self.config("start.train", at, &base, over)? })
    }

    /// The group and the cells of one `[[cell]]` table.
    fn cells(&self, base: &Table, table: &Spanned<Settings>) -> Result<(String, Vec<Cell>), StudyError> {
        let at = table.span().start;
        let mut settings = table.as_ref().clone();
        let mut word = |key: &str| match settings.remove(key).map(Spanned::into_inner) {
            Some(Value::String(word)) => Ok(word),
            Some(_) => self.refuse(at, format!("[[cell]]: {key} is not a text")),
            None => self.refuse(at, format!("[[cell]] without {key} (give it one)")),
        };
        let (name, group) = (word("name")?, word("group")?);
        let mut cells = Vec::new();
        for one in grid::multiply(&settings) {
            let place = format!("cell {name:?}");
            let over = self.checked(&place, &one, Scope::Cell)?;
            let name = grid::fill(&name, &settings, &one)
                .or_else(|message| self.refuse(at, format!("{place}: {message}")))?;
            cells.push(Cell { config: self.config(&format!("cell {name:?}"), at, base, over)?, name });
        }
        if cells.is_empty() {
            return self.refuse(at, format!("cell {name:?}: an empty list multiplies it away"));
        }
        Ok((group, cells))
    }

    fn check_names(&self, tables: &[Spanned<Settings>], cells: &[Cell]) -> Result<(), StudyError> {
        let mut folders = BTreeMap::from([(grid::folder_name("start"), "[start]")]);
        for cell in cells {
            if let Some(other) = folders.insert(grid::folder_name(&cell.name), &cell.name) {
                let at = tables.last().map_or(0, |table| table.span().start);
                let message = format!("cell {:?} and {other:?} would share a folder (rename one)", cell.name);
                return self.refuse(at, message);
            }
        }
        Ok(())
    }

    fn groups(
        &self,
        tables: &[Spanned<GroupTable>],
        cells: &[Cell],
        groups_of_cells: &[String],
    ) -> Result<Vec<Group>, StudyError> {
        let find = |name: &Spanned<String>, what: &str| {
            let found = cells.iter().position(|cell| cell.name == *name.as_ref());
            found.map_or_else(
                || self.refuse(name.span().start, format!("{what} {:?} is no cell's name", name.as_ref())),
                Ok,
            )
        };
        let known: BTreeSet<&str> = tables.iter().map(|table| table.as_ref().name.as_str()).collect();
        if let Some(unknown) = groups_of_cells.iter().position(|group| !known.contains(group.as_str())) {
            let (cell, group) = (&cells[unknown].name, &groups_of_cells[unknown]);
            return self.refuse(0, format!("cell {cell:?}: group {group:?} is no [[group]]'s name"));
        }
        let mut groups = Vec::new();
        for table in tables {
            let GroupTable { name, title, baseline, also } = table.as_ref();
            let baseline = find(baseline, "baseline")?;
            let mut members = vec![baseline];
            for other in also {
                members.push(find(other, "also")?);
            }
            members.extend((0..cells.len()).filter(|&cell| groups_of_cells[cell] == *name));
            let mut seen = BTreeSet::new();
            members.retain(|&cell| seen.insert(cell));
            groups.push(Group { title: title.clone(), baseline, cells: members });
        }
        Ok(groups)
    }
}
