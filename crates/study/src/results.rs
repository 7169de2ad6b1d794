//! What a study's runs reached and cost, and how cells compare with the baseline of their group.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use contaccum_retrieval::{MeanInterval, QueryMeasures, holm, mean_over_seeds, randomisation_test};
use contaccum_training::METRICS_FILE;
use serde::{Deserialize, Serialize};

use crate::run::StudyRun;
use crate::study::{Failure, Study};
use crate::{StudyError, table};

/// The comparison of a study: what `study.json` holds.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// The recipe.
    pub recipe: PathBuf,
    /// Seeds asked for.
    pub seeds: Vec<u64>,
    /// The measure of the tables.
    pub measure: String,
    /// What was measured on.
    pub data: Vec<DataResults>,
    /// Means of the fresh encoders by seed, where there are any.
    pub starts: Vec<StartResults>,
    /// Every cell, in the recipe's order.
    pub cells: Vec<CellResults>,
    /// Every table, in the recipe's order.
    pub groups: Vec<GroupResults>,
    /// Runs that failed in this call.
    pub failures: Vec<Failure>,
}

/// Queries that models are measured on.
#[derive(Clone, Debug, Serialize)]
pub struct DataResults {
    /// Name: that of the folder.
    pub name: String,
    /// Split of the judgments.
    pub split: String,
    /// Number of queries.
    pub queries: usize,
}

/// A measure of means: by data set, then by measure.
type Means = BTreeMap<String, BTreeMap<String, f64>>;

/// What the fresh encoder of a seed reaches.
#[derive(Clone, Debug, Serialize)]
pub struct StartResults {
    /// The seed.
    pub seed: u64,
    /// By data set and measure.
    pub means: Means,
}

/// What the runs of a cell reached and cost.
#[derive(Clone, Debug, Serialize)]
pub struct CellResults {
    /// The cell.
    pub name: String,
    /// Its runs that are done, by seed.
    pub runs: Vec<RunResults>,
    /// Means over seeds and queries with their intervals, by data set and measure.
    pub means: BTreeMap<String, BTreeMap<String, MeanInterval>>,
    /// Runs whose measure fell below that of their start, on the first data set.
    pub below_start: usize,
}

/// What a run reached and cost.
#[derive(Clone, Debug, Serialize)]
pub struct RunResults {
    /// Its seed.
    pub seed: u64,
    /// By data set and measure.
    pub means: Means,
    /// What it cost.
    #[serde(flatten)]
    pub cost: Cost,
    #[serde(skip)]
    per_query: BTreeMap<String, QueryMeasures>,
}

/// What a run cost, and how its gradients behaved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Updates.
    pub updates: usize,
    /// Wall time of all updates.
    pub seconds: f64,
    /// Median wall time of an update.
    pub seconds_per_update: f64,
    /// Highest resident memory of the process, where the system tells it.
    pub peak_resident_bytes: Option<u64>,
    /// Negatives of a query at the last update.
    pub negatives_per_query: f64,
    /// Gradient norm of the passage encoder over that of the query encoder: median over all updates.
    pub grad_norm_ratio: Option<f64>,
    /// The same over the last quarter of the updates.
    pub grad_norm_ratio_last_quarter: Option<f64>,
    /// Mean loss over current rows in the last quarter.
    pub current_rows_loss: Option<f64>,
}

/// One table: cells compared with a baseline.
#[derive(Clone, Debug, Serialize)]
pub struct GroupResults {
    /// Heading.
    pub title: String,
    /// Index of the baseline among the cells.
    pub baseline: usize,
    /// Indices of the table's cells, the baseline first.
    pub cells: Vec<usize>,
    /// Comparisons with the baseline, of cells that have a seed in common with it.
    pub comparisons: Vec<Comparison>,
}

/// A cell minus the baseline, on one data set and measure.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Index of the cell.
    pub cell: usize,
    /// Name of the data set.
    pub data: String,
    /// The measure.
    pub measure: String,
    /// Seeds that both have.
    pub seeds: usize,
    /// Mean difference with its interval over seeds and queries.
    pub difference: MeanInterval,
    /// Of the randomisation test over queries.
    pub p: f64,
    /// The same, corrected for the comparisons of this group on this data set and measure.
    pub p_holm: f64,
}

impl Results {
    /// Reads what the folder of a study holds and compares it.
    pub(crate) fn collect(study: &Study, failures: &[Failure]) -> Result<Self, StudyError> {
        let measure = study.recipe.measure.to_string();
        let mut starts = Vec::new();
        for &seed in &study.recipe.seeds {
            if let Some(start) = study.start(seed)
                && let Some(per_query) = measures(study, &start)?
            {
                starts.push(StartResults { seed, means: means(&per_query) });
            }
        }
        let mut cells = Vec::new();
        for (index, cell) in study.recipe.cells.iter().enumerate() {
            let mut runs = Vec::new();
            for &seed in &study.recipe.seeds {
                let run = study.run_of(index, seed);
                if let Some(per_query) = measures(study, &run)? {
                    let cost = Cost::read(&run.folder().join(METRICS_FILE))?;
                    runs.push(RunResults { seed, means: means(&per_query), cost, per_query });
                }
            }
            let below = |run: &&RunResults| below_start(run, &starts, &study.sets[0].name(), &measure);
            cells.push(CellResults {
                name: cell.name.clone(),
                means: intervals(&runs),
                below_start: runs.iter().filter(below).count(),
                runs,
            });
        }
        let groups = study.recipe.groups.iter().map(|group| GroupResults {
            title: group.title.clone(),
            baseline: group.baseline,
            cells: group.cells.clone(),
            comparisons: compare(&cells, group.baseline, &group.cells),
        });
        let data = study.recipe.evaluations.iter().zip(&study.sets).map(|(evaluation, set)| DataResults {
            name: set.name(),
            split: evaluation.split.clone(),
            queries: set.queries(),
        });
        Ok(Self {
            recipe: study.recipe.path.clone(),
            seeds: study.recipe.seeds.clone(),
            measure,
            data: data.collect(),
            starts,
            groups: groups.collect(),
            cells,
            failures: failures.to_vec(),
        })
    }

    /// Writes the tables as `study.md` and everything as `study.json` into the study's folder; returns the files.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<[PathBuf; 2], StudyError> {
        let files = ["study.md", "study.json"].map(|name| folder.join(name));
        let json = serde_json::to_string_pretty(self).expect("numbers and strings are JSON");
        for (path, text) in files.iter().zip([self.markdown(), json]) {
            contaccum_files::write(path, |file| file.write_all(text.as_bytes()))?;
        }
        Ok(files)
    }

    /// The tables, in Markdown.
    pub fn markdown(&self) -> String {
        table::markdown(self)
    }
}

/// The measures of a run by data set, if all are there.
fn measures(study: &Study, run: &StudyRun) -> Result<Option<BTreeMap<String, QueryMeasures>>, StudyError> {
    let mut by_set = BTreeMap::new();
    for set in &study.sets {
        let Some(measured) = run.measures(set)? else { return Ok(None) };
        by_set.insert(set.name(), measured);
    }
    Ok(Some(by_set))
}

fn means(per_query: &BTreeMap<String, QueryMeasures>) -> Means {
    per_query.iter().map(|(set, measured)| (set.clone(), measured.means())).collect()
}

fn below_start(run: &RunResults, starts: &[StartResults], set: &str, measure: &str) -> bool {
    let start = starts.iter().find(|start| start.seed == run.seed);
    start.is_some_and(|start| run.means[set][measure] < start.means[set][measure])
}

/// Every data set and measure that runs have, in order.
fn all_measures(runs: &[RunResults]) -> Vec<(&String, &String)> {
    let sets = runs.first().map(|run| &run.per_query).into_iter().flatten();
    sets.flat_map(|(set, measured)| measured.measures.keys().map(move |measure| (set, measure))).collect()
}

fn intervals(runs: &[RunResults]) -> BTreeMap<String, BTreeMap<String, MeanInterval>> {
    let mut by_set = BTreeMap::<_, BTreeMap<_, _>>::new();
    for (set, measure) in all_measures(runs) {
        let values: Vec<Vec<f64>> =
            runs.iter().map(|run| run.per_query[set].measures[measure].clone()).collect();
        if let Some(interval) = MeanInterval::two_level_bootstrap(&values) {
            by_set.entry(set.clone()).or_default().insert(measure.clone(), interval);
        }
    }
    by_set
}

/// All comparisons of a group's cells with its baseline.
fn compare(cells: &[CellResults], baseline: usize, members: &[usize]) -> Vec<Comparison> {
    let mut comparisons = Vec::new();
    for (set, measure) in all_measures(&cells[baseline].runs) {
        let others = members.iter().filter(|&&cell| cell != baseline);
        let mut family: Vec<Comparison> = others
            .filter_map(|&cell| {
                let differences = paired(&cells[cell].runs, &cells[baseline].runs, set, measure);
                let difference = MeanInterval::two_level_bootstrap(&differences)?;
                let p = randomisation_test(&mean_over_seeds(&differences));
                Some(Comparison {
                    cell,
                    data: set.clone(),
                    measure: measure.clone(),
                    seeds: differences.len(),
                    difference,
                    p,
                    p_holm: p,
                })
            })
            .collect();
        let p_values: Vec<f64> = family.iter().map(|comparison| comparison.p).collect();
        for (comparison, corrected) in family.iter_mut().zip(holm(&p_values)) {
            comparison.p_holm = corrected;
        }
        comparisons.extend(family);
    }
    comparisons
}

/// Differences by seed and query, of the seeds that both have.
fn paired(runs: &[RunResults], baseline: &[RunResults], set: &str, measure: &str) -> Vec<Vec<f64>> {
    let of = |run: &RunResults| run.per_query[set].measures[measure].clone();
    let pair = |run: &RunResults| baseline.iter().find(|base| base.seed == run.seed).map(of);
    runs.iter()
        .filter_map(|run| Some(of(run).iter().zip(pair(run)?).map(|(value, base)| value - base).collect()))
        .collect()
}

/// The fields of a record that a study looks at.
#[derive(Deserialize)]
struct Record {
    seconds: f64,
    peak_resident_bytes: Option<u64>,
    negatives_per_query: f64,
    grad_norm_ratio: Option<f64>,
    current_rows_loss: Option<f64>,
}

impl Cost {
    fn read(path: &Path) -> Result<Self, StudyError> {
        let not_read = |reason: String| StudyError::Record { path: path.into(), reason };
        let text = fs::read_to_string(path).map_err(|error| not_read(error.to_string()))?;
        let parse = |line| serde_json::from_str(line).map_err(|error| not_read(error.to_string()));
        let records: Vec<Record> = text.lines().map(parse).collect::<Result<_, _>>()?;
        let last = records.last().ok_or_else(|| not_read("no update in it".into()))?;
        let last_quarter = &records[records.len() - records.len().div_ceil(4)..];
        let ratio = |records: &[Record]| median(records.iter().filter_map(|r| r.grad_norm_ratio).collect());
        let losses: Vec<f64> = last_quarter.iter().filter_map(|record| record.current_rows_loss).collect();
        Ok(Self {
            updates: records.len(),
            seconds: records.iter().map(|record| record.seconds).sum(),
            seconds_per_update: median(records.iter().map(|record| record.seconds).collect())
                .unwrap_or_default(),
            // A resumed run is another process: the highest of all counts.
            peak_resident_bytes: records.iter().filter_map(|record| record.peak_resident_bytes).max(),
            negatives_per_query: last.negatives_per_query,
            grad_norm_ratio: ratio(&records),
            grad_norm_ratio_last_quarter: ratio(last_quarter),
            current_rows_loss: (!losses.is_empty()).then(|| losses.iter().sum::<f64>() / losses.len() as f64),
        })
    }
}

/// The middle value, or the mean of the two middle ones; `None` of no values.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().wrapping_sub(1) / 2)?, values.get(values.len() / 2)?);
    Some((low + high) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seed: u64, values: &[f64]) -> RunResults {
        let measured = QueryMeasures {
            data: "data".into(),
            split: "test".into(),
            content: None,
            queries: (0..values.len()).map(|i| i.to_string()).collect(),
            measures: BTreeMap::from([("RR@10".to_owned(), values.to_vec())]),
        };
        let per_query = BTreeMap::from([("data".to_owned(), measured)]);
        RunResults { seed, means: means(&per_query), cost: Cost::default(), per_query }
    }

    fn cell(runs: Vec<RunResults>) -> CellResults {
        CellResults { name: "cell".into(), means: intervals(&runs), below_start: 0, runs }
    }

    #[test]
    fn differences_are_paired_by_seed_and_query() {
        let baseline = [run(1, &[0.5, 0.5]), run(2, &[0.0, 1.0])];
        // Seed 3 has no partner; the order of seeds does not matter.
        let runs = [run(3, &[1.0, 1.0]), run(2, &[0.5, 1.0]), run(1, &[1.0, 0.25])];
        assert_eq!(paired(&runs, &baseline, "data", "RR@10"), [[0.5, 0.0], [0.5, -0.25]]);
    }

    #[test]
    fn p_values_of_a_group_are_corrected_together() {
        let ones = vec![1.0; 12];
        let baseline = cell(vec![run(1, &[0.0; 12])]);
        let cells = [baseline, cell(vec![run(1, &ones)]), cell(vec![run(1, &ones)]), cell(Vec::new())];
        let comparisons = compare(&cells, 0, &[0, 1, 2, 3]);
        assert_eq!(comparisons.iter().map(|c| c.cell).collect::<Vec<_>>(), [1, 2]);
        for comparison in &comparisons {
            assert_eq!(comparison.difference, MeanInterval { mean: 1.0, low: 1.0, high: 1.0 });
            assert_eq!(comparison.p_holm, 2.0 * comparison.p);
        }
        // Alone it is corrected for nothing.
        let alone = compare(&cells, 0, &[0, 1]);
        assert_eq!(alone[0].p_holm, alone[0].p);
    }

    #[test]
    fn a_run_below_its_own_start_is_counted() {
        let start = |seed, value| StartResults {
            seed,
            means: BTreeMap::from([("data".into(), BTreeMap::from([("RR@10".into(), value)]))]),
        };
        let starts = [start(1, 0.5), start(2, 0.1)];
        assert!(below_start(&run(1, &[0.25, 0.25]), &starts, "data", "RR@10"));
        assert!(!below_start(&run(2, &[0.25, 0.25]), &starts, "data", "RR@10"));
        assert!(!below_start(&run(3, &[0.0]), &starts, "data", "RR@10"));
    }

    #[test]
    fn costs_are_read_from_the_records() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let line = |seconds: f64, peak: u64, ratio: &str| {
            format!(
                "{{\"update\":1,\"seconds\":{seconds},\"peak_resident_bytes\":{peak},\"negatives_per_query\":{peak},\
                 \"grad_norm_ratio\":{ratio},\"current_rows_loss\":{seconds},\"loss\":1}}\n"
            )
        };
        // A ratio that is not finite is recorded as null.
        let text =
            line(1.0, 30, "2.0") + &line(2.0, 10, "null") + &line(4.0, 20, "3.0") + &line(3.0, 25, "7.0");
        fs::write(file.path(), text).unwrap();
        let expected = Cost {
            updates: 4,
            seconds: 10.0,
            seconds_per_update: 2.5,
            peak_resident_bytes: Some(30),
            negatives_per_query: 25.0,
            grad_norm_ratio: Some(3.0),
            grad_norm_ratio_last_quarter: Some(7.0),
            current_rows_loss: Some(3.0),
        };
        assert_eq!(Cost::read(file.path()).unwrap(), expected);
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }
}
