//! The page: what the runs are, how they ended, what they recorded, how they were set.

use std::collections::BTreeSet;

use contaccum_retrieval::MeanInterval;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::ReportError;
use crate::axis::mebibytes;
use crate::figures::{Figure, Figures};
use crate::palette::{self, Role};
use crate::run::{RunFolder, Update};
use crate::settings::{Setting, settings};

const STYLE: &str = include_str!("style.css");

/// Most unreadable lines of a run that are named.
const MOST_LINES_NAMED: usize = 10;

/// The whole page.
///
/// # Errors
/// A figure that cannot be drawn.
pub fn render(runs: &[RunFolder]) -> Result<String, ReportError> {
    let figures = Figures::draw(runs)?;
    let settings = settings(runs);
    let title = match runs {
        [run] => format!("{} · contaccum report", run.name),
        runs => format!("{} runs · contaccum report", runs.len()),
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) (PreEscaped(palette::style(runs.len()))) }
            }
            body {
                header {
                    p.brand { "contaccum report" }
                    h1 { @if let [run] = runs { (run.name) } @else { (runs.len()) " runs" } }
                }
                (legend(runs))
                main {
                    (overview(runs))
                    (final_metrics(runs))
                    (charts(&figures))
                    @if runs.len() > 1 { (differing_settings(runs, &settings)) }
                    (all_settings(runs, &settings))
                }
                footer { p { "Intervals: 95 %, percentile bootstrap over queries, 10,000 draws. They speak of other \
                              queries, not of other seeds." } }
            }
        }
    };
    Ok(page.into_string())
}

/// The runs with their lines, as boxes to tick; it stays in view.
fn legend(runs: &[RunFolder]) -> Markup {
    html! {
        nav.legend aria-label="Runs" {
            @for (index, run) in runs.iter().enumerate() {
                label {
                    input type="checkbox" id={ "run-" (index) } checked;
                    (swatch(index))
                    span { (run.name) }
                }
            }
        }
    }
}

/// A piece of a run's line.
fn swatch(run: usize) -> Markup {
    let plotters::style::RGBColor(red, green, blue) = Role::Run(run).code();
    html! {
        svg.swatch viewBox="0 0 300 100" width="30" height="10" aria-hidden="true" {
            line x1="0" y1="50" x2="300" y2="50" stroke-width="26" stroke={ (format!("#{red:02X}{green:02X}{blue:02X}")) };
        }
    }
}

fn named(index: usize, run: &RunFolder) -> Markup {
    html! { th scope="row" { (swatch(index)) (run.name) } }
}

fn overview(runs: &[RunFolder]) -> Markup {
    html! {
        section {
            h2 { "Runs" }
            div.scroll {
                table {
                    thead { tr {
                        th { "run" } th { "method" } th.number { "updates" } th { "state" }
                        th.number { "loss, current rows" } th.number { "tokens/s" } th.number { "time" }
                        th.number { "memory planned" } th.number { "memory measured" }
                    } }
                    tbody {
                        @for (index, run) in runs.iter().enumerate() {
                            tr {
                                (named(index, run))
                                td { (run.setting("method").unwrap_or_else(|| "–".into())) }
                                td.number { (run.updates.last().map_or(0, |update| update.update)) }
                                td { (state(run)) }
                                td.number { (or_dash(late_mean(run, |u| u.current_rows_loss), |v| format!("{v:.3}"))) }
                                td.number { (or_dash(median(run, |u| u.tokens_per_second), |v| format!("{v:.0}"))) }
                                td.number { (or_dash(total_seconds(run), duration)) }
                                td.number { (or_dash(highest(run, |u| u.planned_bytes), mebibytes)) }
                                td.number {
                                    (or_dash(highest(run, |u| u.peak_resident_bytes.or(u.resident_bytes)), mebibytes))
                                }
                            }
                        }
                    }
                }
            }
            p.note { "Loss: mean over the last tenth of the updates. Tokens/s: median. Time: of the updates, without \
                      evaluations. Memory measured: highest resident." }
            @for run in runs { (remarks(run)) }
        }
    }
}

fn state(run: &RunFolder) -> &'static str {
    match (run.finished, run.updates.is_empty()) {
        (true, _) => "finished",
        (false, true) => "no update yet",
        (false, false) => "running or stopped",
    }
}

/// What a reader should know before trusting the figures of a run.
fn remarks(run: &RunFolder) -> Markup {
    let lines: Vec<String> =
        run.unreadable_lines.iter().take(MOST_LINES_NAMED).map(usize::to_string).collect();
    let others = run.unreadable_lines.len() - lines.len();
    html! {
        @if !lines.is_empty() {
            p.remark { strong { (run.name) } ": left out of its records, unreadable: line " (lines.join(", "))
                       @if others > 0 { " and " (others) " others" }
                       " (a stopped run can leave its last line torn; resuming repairs it)." }
        }
        @if run.settings.is_empty() {
            p.remark { strong { (run.name) } ": its folder has no " (contaccum_training::CONFIG_FILE)
                       ", so its settings are not known." }
        }
    }
}

/// Final metrics by data set, each mean with its interval in numbers and as a bar.
fn final_metrics(runs: &[RunFolder]) -> Markup {
    let sets: BTreeSet<&String> = runs.iter().flat_map(|run| run.evaluations.keys()).collect();
    html! {
        section {
            h2 { "Final metrics" }
            @if sets.is_empty() {
                p.note { "No run has been evaluated query by query, so there are no intervals to give; what was \
                          measured during training is among the figures." }
            }
            @for set in sets { (metrics_of(runs, set)) }
        }
    }
}

fn metrics_of(runs: &[RunFolder], set: &str) -> Markup {
    let evaluated =
        || runs.iter().enumerate().filter_map(|(index, run)| Some((index, run, run.evaluations.get(set)?)));
    let measures: BTreeSet<&String> =
        evaluated().flat_map(|(_, _, evaluation)| evaluation.measures.keys()).collect();
    html! {
        h3 { (set) }
        div.scroll {
            table.metrics {
                thead { tr {
                    th { "run" } th { "split" } th.number { "queries" }
                    @for measure in &measures { th.number { (measure) } }
                } }
                tbody {
                    @for (index, run, evaluation) in evaluated() {
                        tr {
                            (named(index, run))
                            td { (evaluation.split) }
                            td.number { (evaluation.queries.len()) }
                            @for measure in &measures {
                                td.number {
                                    @match evaluation.measures.get(*measure).and_then(|v| MeanInterval::bootstrap(v)) {
                                        Some(interval) => (interval_cell(&interval)),
                                        None => "–",
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn interval_cell(interval: &MeanInterval) -> Markup {
    let MeanInterval { mean, low, high } = interval;
    let place = |value: f64| format!("{:.2}%", 100.0 * value.clamp(0.0, 1.0));
    html! {
        span.mean { (format!("{mean:.4}")) }
        span.ends { (format!("[{low:.4}, {high:.4}]")) }
        span.scale aria-hidden="true" {
            span.span style={ "left:" (place(*low)) ";right:" (place(1.0 - high)) } {}
            span.dot style={ "left:" (place(*mean)) } {}
        }
    }
}

fn charts(figures: &Figures) -> Markup {
    html! {
        section {
            h2 { "What was recorded" }
            p.note { "Strong lines are running means over a fortieth of the updates, at least five; faint ones \
                      behind them are the updates themselves, cut off at the frame. Untick a run above to hide it." }
            div.charts { @for figure in &figures.drawn { (card(figure)) } }
            @if !figures.not_recorded.is_empty() {
                p.note { "Not recorded by any of these runs: " (figures.not_recorded.join("; ")) "." }
            }
        }
    }
}

fn card(figure: &Figure) -> Markup {
    html! {
        figure.chart {
            figcaption { h3 { (figure.title) } p { (figure.caption) } }
            (PreEscaped(&figure.svg))
        }
    }
}

fn differing_settings(runs: &[RunFolder], settings: &[Setting]) -> Markup {
    let differing: Vec<&Setting> = settings.iter().filter(|setting| setting.differs()).collect();
    html! {
        section {
            h2 { "Settings that differ" }
            @if differing.is_empty() { p.note { "None: the runs were told the same." } }
            @else {
                div.scroll {
                    table {
                        thead { tr { th { "run" } @for setting in &differing { th { code { (setting.key) } } } } }
                        tbody {
                            @for (index, run) in runs.iter().enumerate() {
                                tr {
                                    (named(index, run))
                                    @for setting in &differing { td { (shown(&setting.values[index])) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn all_settings(runs: &[RunFolder], settings: &[Setting]) -> Markup {
    html! {
        section {
            details {
                summary { h2 { "All settings" } }
                div.scroll {
                    table {
                        thead { tr {
                            th { "setting" }
                            @for (index, run) in runs.iter().enumerate() { th { (swatch(index)) (run.name) } }
                        } }
                        tbody {
                            @for setting in settings {
                                tr {
                                    th scope="row" { code { (setting.key) } }
                                    @for value in &setting.values { td { (shown(value)) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn shown(value: &Option<String>) -> &str {
    match value.as_deref() {
        Some("") => "\"\"",
        Some(value) => value,
        None => "–",
    }
}

fn or_dash(value: Option<f64>, format: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "–".into(), format)
}

fn present(run: &RunFolder, value: fn(&Update) -> Option<f64>) -> Vec<f64> {
    run.updates.iter().filter_map(value).collect()
}

fn late_mean(run: &RunFolder, value: fn(&Update) -> Option<f64>) -> Option<f64> {
    let values = present(run, value);
    let late = &values[values.len() - values.len().div_ceil(10)..];
    (!late.is_empty()).then(|| late.iter().sum::<f64>() / late.len() as f64)
}

fn median(run: &RunFolder, value: fn(&Update) -> Option<f64>) -> Option<f64> {
    let mut values = present(run, value);
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn highest(run: &RunFolder, value: fn(&Update) -> Option<f64>) -> Option<f64> {
    present(run, value).into_iter().max_by(f64::total_cmp)
}

fn total_seconds(run: &RunFolder) -> Option<f64> {
    let seconds = present(run, |update| update.seconds);
    (!seconds.is_empty()).then(|| seconds.iter().sum())
}

fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, _) => format!("{seconds:.1} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds:02} s"),
        (hours, minutes, _) => format!("{hours} h {minutes:02} min"),
    }
}
