//! The tables of a study in Markdown, to be read as they are and to be pasted.

use comfy_table::{CellAlignment, Table, presets};
use contaccum_retrieval::MeanInterval;

use crate::results::{CellResults, Comparison, Cost, GroupResults, Results, median};

/// What the numbers mean, told in every study.
const LEGEND: &str = "\
Means and differences stand with 95 % intervals of a two-level bootstrap over seeds and queries, paired for differences. \
With few seeds the part that seeds play in them is estimated from few numbers: they hold for other queries, and only \
roughly for other seeds. p is that of a randomisation test over queries of differences averaged over seeds (do these \
models differ on other queries?), with Holm's correction over the rows of a table. Memory is the highest resident memory \
of a run's process; the gradient norm ratio is ‖∇passage‖/‖∇query‖ before clipping, its median over all updates and over \
the last quarter; a run is *below start* when it ends worse than it began.";

pub(crate) fn markdown(results: &Results) -> String {
    let done: usize = results.cells.iter().map(|cell| cell.runs.len()).sum();
    let all = results.cells.len() * results.seeds.len();
    let seeds: Vec<String> = results.seeds.iter().map(u64::to_string).collect();
    let data: Vec<String> = results
        .data
        .iter()
        .map(|set| format!("{} ({}, {} queries)", set.name, set.split, set.queries))
        .collect();
    let mut text = format!(
        "# Study: {}\n\n{done} of {all} runs done; seeds {}; {} on {}.\n\n{LEGEND}\n",
        results.recipe.display(),
        seeds.join(", "),
        results.measure,
        data.join(", "),
    );
    if !results.starts.is_empty() {
        text += &format!("\n## Start: the fresh encoders before the cells\n\n{}\n", starts(results));
    }
    for group in &results.groups {
        text +=
            &format!("\n## {}\n\n{}\n\n{}\n", group.title, quality(results, group), costs(results, group));
    }
    if !results.failures.is_empty() {
        text += "\n## Failed\n\n";
        for failure in &results.failures {
            text += &format!("- {}: {}\n", failure.run, failure.reason);
        }
    }
    text
}

fn starts(results: &Results) -> Table {
    let names = results.data.iter().map(|set| set.name.clone());
    let mut table = table(["seed".to_owned()].into_iter().chain(names).collect(), 0);
    for start in &results.starts {
        let value = |set: &str| format!("{:.3}", start.means[set][&results.measure]);
        let values = results.data.iter().map(|set| value(&set.name));
        table.add_row([start.seed.to_string()].into_iter().chain(values));
    }
    table
}

/// What the cells of a group reach, each beside its difference to the baseline.
fn quality(results: &Results, group: &GroupResults) -> Table {
    let mut headers = vec!["cell".to_owned(), "seeds".into()];
    for set in &results.data {
        headers.extend([format!("{} {}", set.name, results.measure), "difference".into(), "p (Holm)".into()]);
    }
    let mut table = table(headers, 1);
    for &index in &group.cells {
        let cell = &results.cells[index];
        let mut row = vec![cell.name.clone(), cell.runs.len().to_string()];
        for set in &results.data {
            let mean = cell.means.get(&set.name).and_then(|means| means.get(&results.measure));
            row.push(mean.map_or("–".into(), |mean| interval(mean, "")));
            let compared =
                |c: &&Comparison| c.cell == index && c.data == set.name && c.measure == results.measure;
            row.extend(match group.comparisons.iter().find(compared) {
                Some(comparison) => [interval(&comparison.difference, "+"), p_value(comparison.p_holm)],
                None if index == group.baseline => ["baseline".into(), String::new()],
                None => ["–".into(), "–".into()],
            });
        }
        table.add_row(row);
    }
    table
}

/// What the cells of a group cost, as medians over their runs.
fn costs(results: &Results, group: &GroupResults) -> Table {
    let headers = [
        "cell",
        "updates",
        "seconds",
        "ms/update",
        "memory, MiB",
        "negatives",
        "gradient norm ratio",
        "last quarter",
        "loss, current rows",
        "below start",
    ];
    let mut table = table(headers.map(str::to_owned).to_vec(), 1);
    for &index in &group.cells {
        let cell = &results.cells[index];
        let mib = |cost: &Cost| cost.peak_resident_bytes.map(|bytes| bytes as f64 / f64::from(1 << 20));
        table.add_row([
            cell.name.clone(),
            typical(cell, 0, |cost| Some(cost.updates as f64)),
            typical(cell, 1, |cost| Some(cost.seconds)),
            typical(cell, 1, |cost| Some(1e3 * cost.seconds_per_update)),
            typical(cell, 0, mib),
            typical(cell, 0, |cost| Some(cost.negatives_per_query)),
            typical(cell, 2, |cost| cost.grad_norm_ratio),
            typical(cell, 2, |cost| cost.grad_norm_ratio_last_quarter),
            typical(cell, 3, |cost| cost.current_rows_loss),
            format!("{} of {}", cell.below_start, cell.runs.len()),
        ]);
    }
    table
}

/// The median over a cell's runs.
fn typical(cell: &CellResults, decimals: usize, value: impl Fn(&Cost) -> Option<f64>) -> String {
    let values = cell.runs.iter().filter_map(|run| value(&run.cost)).collect();
    median(values).map_or("–".into(), |value| format!("{value:.decimals$}"))
}

fn interval(interval: &MeanInterval, sign: &str) -> String {
    let MeanInterval { mean, low, high } = interval;
    match sign {
        "+" => format!("{mean:+.3} [{low:+.3}, {high:+.3}]"),
        _ => format!("{mean:.3} [{low:.3}, {high:.3}]"),
    }
}

fn p_value(p: f64) -> String {
    if p < 0.001 { "< 0.001".into() } else { format!("{p:.3}") }
}

/// An empty table whose columns from `first_number` on are flush right.
fn table(headers: Vec<String>, first_number: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(headers);
    for column in table.column_iter_mut().skip(first_number) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
