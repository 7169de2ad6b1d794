//! The figures of a page: which recorded number each shows, and how.

use std::collections::BTreeSet;

use crate::ReportError;
use crate::axis::{Axis, MEBIBYTE, Scale, percent, short_number};
use crate::chart::{Chart, Line, Stroke};
use crate::run::{RunFolder, Update};
use crate::series::{COLUMNS, Series, columns, running_mean, thin};

/// Most runs whose every update is drawn, faint, behind their running means: more hide one another.
const MOST_FAINT: usize = 8;

/// Most values of a line that each have a dot.
const MOST_DOTS: usize = COLUMNS;

/// Most parts of the banks by age that are drawn; runs record eight.
const MOST_AGES: usize = 64;

/// Most development metrics that are drawn; runs record four.
const MOST_METRICS: usize = 24;

/// Share of the updates, at the end, over which similarity mass by age is averaged.
const LATE: usize = 10;

/// A drawn figure.
pub struct Figure {
    /// What it shows.
    pub title: String,
    /// How to read it, in a sentence.
    pub caption: &'static str,
    /// The chart, as SVG.
    pub svg: String,
}

/// The figures of the runs that have something to show, and the titles of those that have not.
pub struct Figures {
    /// In the order they are shown.
    pub drawn: Vec<Figure>,
    /// Titles of those that no run recorded anything for.
    pub not_recorded: Vec<String>,
}

/// A number recorded of every update.
struct Recorded {
    title: &'static str,
    caption: &'static str,
    value: fn(&Update) -> Option<f64>,
    /// A second number, drawn faint, instead of the single updates.
    beside: Option<fn(&Update) -> Option<f64>>,
    scale: Scale,
    format: fn(f64) -> String,
    /// It jumps from update to update: a running mean is drawn, and the single updates faint behind it.
    noisy: bool,
}

const RECORDED: [Recorded; 14] = [
    Recorded {
        title: "Loss over current rows",
        caption: "Of the queries of the batch alone, in nats: comparable between methods where they score a query \
                  against as many passages.",
        value: |update| update.current_rows_loss,
        beside: None,
        scale: Scale::Linear,
        format: short_number,
        noisy: true,
    },
    Recorded {
        title: "Loss over all rows",
        caption: "What is trained on, banked queries included where the method has them, in nats.",
        value: |update| update.loss,
        beside: None,
        scale: Scale::Linear,
        format: short_number,
        noisy: true,
    },
    Recorded {
        title: "Gradient norm, query encoder",
        caption: "Before clipping; logarithmic.",
        value: |update| update.grad_norm_query,
        beside: None,
        scale: Scale::Log,
        format: short_number,
        noisy: true,
    },
    Recorded {
        title: "Gradient norm, passage encoder",
        caption: "Before clipping; logarithmic.",
        value: |update| update.grad_norm_passage,
        beside: None,
        scale: Scale::Log,
        format: short_number,
        noisy: true,
    },
    Recorded {
        title: "Gradient norm ratio, passage / query",
        caption: "1 is balance: a bank of passages alone drives it up; logarithmic.",
        value: |update| update.grad_norm_ratio,
        beside: None,
        scale: Scale::Log,
        format: short_number,
        noisy: true,
    },
    Recorded {
        title: "Similarity mass on the banks",
        caption: "Share of the softmax of current queries that lies on banked passages.",
        value: |update| update.bank_mass.filter(|_| update.bank_samples.is_none_or(|samples| samples > 0.0)),
        beside: None,
        scale: Scale::FromZero,
        format: percent,
        noisy: true,
    },
    Recorded {
        title: "Negatives per query",
        caption: "Mean over the current queries; it grows while the banks fill.",
        value: |update| update.negatives_per_query,
        beside: None,
        scale: Scale::FromZero,
        format: short_number,
        noisy: false,
    },
    Recorded {
        title: "Drift of the encoder",
        caption: "What an update does to vectors: mean of one minus the cosine of a few of them before and after it; \
                  logarithmic.",
        value: |update| update.bank_drift,
        beside: None,
        scale: Scale::Log,
        format: short_number,
        noisy: true,
    },
    Recorded {
        title: "Path of the oldest banked sample",
        caption: "How far it has been moved with the encoder since it entered: beyond 0.35 it leaves the banks.",
        value: |update| update.bank_path,
        beside: None,
        scale: Scale::FromZero,
        format: short_number,
        noisy: false,
    },
    Recorded {
        title: "Samples in the banks",
        caption: "Strong: after each update. Faint: those that left in it because they had been moved too far.",
        value: |update| update.bank_samples.filter(|_| update.bank_drift.is_some()),
        beside: Some(|update| update.bank_evicted),
        scale: Scale::FromZero,
        format: short_number,
        noisy: false,
    },
    Recorded {
        title: "Learning rate",
        caption: "Of each update.",
        value: |update| update.learning_rate,
        beside: None,
        scale: Scale::FromZero,
        format: short_number,
        noisy: false,
    },
    Recorded {
        title: "Tokens per second",
        caption: "Real tokens of queries and passages over the wall time of an update.",
        value: |update| update.tokens_per_second,
        beside: None,
        scale: Scale::FromZero,
        format: short_number,
        noisy: true,
    },
    Recorded {
        title: "Time per update",
        caption: "Wall time in seconds.",
        value: |update| update.seconds,
        beside: None,
        scale: Scale::FromZero,
        format: short_number,
        noisy: true,
    },
    Recorded {
        title: "Memory (MiB)",
        caption: "Strong: resident, highest so far. Faint: planned before the first update (model, optimizer, \
                  activations, banks), where it was recorded.",
        value: |update| update.peak_resident_bytes.or(update.resident_bytes).map(|bytes| bytes / MEBIBYTE),
        beside: Some(|update| update.planned_bytes.map(|bytes| bytes / MEBIBYTE)),
        scale: Scale::FromZero,
        format: short_number,
        noisy: false,
    },
];

/// A chart that waits for its axes.
struct Sketch {
    title: String,
    caption: &'static str,
    x_name: &'static str,
    scale: Scale,
    format: fn(f64) -> String,
    lines: Vec<Line>,
}

impl Figures {
    /// Draws the figures of the runs.
    ///
    /// # Errors
    /// What the plotting library says.
    pub fn draw(runs: &[RunFolder]) -> Result<Self, ReportError> {
        let mut sketches: Vec<Sketch> = RECORDED.iter().map(|recorded| recorded.sketch(runs)).collect();
        // Beside the mass as a whole.
        sketches.insert(6, mass_by_age(runs));
        let metrics: BTreeSet<&String> =
            runs.iter().flat_map(|run| &run.updates).flat_map(|update| update.dev.keys()).collect();
        sketches.extend(metrics.into_iter().take(MOST_METRICS).map(|metric| dev_metric(runs, metric)));
        let mut figures = Self { drawn: Vec::new(), not_recorded: Vec::new() };
        for sketch in sketches {
            match sketch.chart() {
                None => figures.not_recorded.push(sketch.title),
                Some(chart) => {
                    let failed = |error: Box<dyn std::error::Error>| ReportError::Draw {
                        figure: sketch.title.clone(),
                        reason: error.to_string(),
                    };
                    let svg = chart.draw().map_err(failed)?;
                    figures.drawn.push(Figure { title: sketch.title, caption: sketch.caption, svg });
                }
            }
        }
        Ok(figures)
    }
}

impl Recorded {
    fn sketch(&self, runs: &[RunFolder]) -> Sketch {
        let (mut faint, mut lines) = (Vec::new(), Vec::new());
        let columns = columns(runs.len());
        for (run, folder) in runs.iter().enumerate() {
            let values = self.drawable(&folder.updates, self.value);
            if let Some(beside) = self.beside {
                let points = thin(&self.drawable(&folder.updates, beside), columns);
                faint.push(Line { run, stroke: Stroke::Faint, points });
            }
            if self.noisy {
                if runs.len() <= MOST_FAINT {
                    faint.push(Line { run, stroke: Stroke::Faint, points: thin(&values, columns) });
                }
                let points = thin(&self.smooth(&values), columns);
                lines.push(Line { run, stroke: Stroke::Line, points });
            } else {
                lines.push(Line { run, stroke: Stroke::Line, points: thin(&values, columns) });
            }
        }
        faint.extend(lines);
        Sketch {
            title: self.title.into(),
            caption: self.caption,
            x_name: "update",
            scale: self.scale,
            format: self.format,
            lines: faint,
        }
    }

    /// One number of every update, missing where it cannot be drawn.
    fn drawable(&self, updates: &[Update], value: fn(&Update) -> Option<f64>) -> Series {
        let drawable = |value: &f64| value.is_finite() && (self.scale != Scale::Log || *value > 0.0);
        updates.iter().map(|update| (update.update as f64, value(update).filter(drawable))).collect()
    }

    /// The running mean, of logarithms where the axis is logarithmic.
    fn smooth(&self, values: &Series) -> Series {
        let through = |values: &Series, map: fn(f64) -> f64| -> Series {
            values.iter().map(|&(x, value)| (x, value.map(map))).collect()
        };
        match self.scale {
            Scale::FromZero | Scale::Linear => running_mean(values),
            Scale::Log => through(&running_mean(&through(values, f64::ln)), f64::exp),
        }
    }
}

/// The mass on the banks by the age of their entries, over the last updates of each run.
fn mass_by_age(runs: &[RunFolder]) -> Sketch {
    let line = |(run, folder): (usize, &RunFolder)| {
        let recorded: Vec<_> =
            folder.updates.iter().filter(|update| !update.bank_mass_by_age.is_empty()).collect();
        let late = &recorded[recorded.len() - recorded.len().div_ceil(LATE)..];
        let ages = late.iter().map(|update| update.bank_mass_by_age.len()).max().unwrap_or(0).min(MOST_AGES);
        let mean = |age: usize| {
            let values: Vec<f64> =
                late.iter().filter_map(|update| *update.bank_mass_by_age.get(age)?).collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            // Recorded oldest first; drawn newest first, at the middle of each eighth.
            ((ages - age) as f64 - 0.5, (!values.is_empty()).then_some(mean))
        };
        let points = (0..ages).rev().map(mean).collect();
        Line { run, stroke: Stroke::Dots, points }
    };
    Sketch {
        title: "Similarity mass by age".into(),
        caption: "Share of the softmax on each eighth of the banks, mean of the last tenth of the updates: it falls \
                  where old entries are stale.",
        x_name: "age, in eighths of the bank (newest at the left)",
        scale: Scale::FromZero,
        format: percent,
        lines: runs.iter().enumerate().map(line).collect(),
    }
}

fn dev_metric(runs: &[RunFolder], metric: &str) -> Sketch {
    let line = |(run, folder): (usize, &RunFolder)| {
        // Between evaluations there is nothing, not a gap.
        let value = |update: &Update| Some((update.update as f64, Some((*update.dev.get(metric)?)?)));
        let points: Series = folder.updates.iter().filter_map(value).collect();
        let stroke = if points.len() <= MOST_DOTS { Stroke::Dots } else { Stroke::Line };
        Line { run, stroke, points: thin(&points, columns(runs.len())) }
    };
    Sketch {
        title: format!("Development {metric}"),
        caption: "On the development queries.",
        x_name: "update",
        scale: Scale::Linear,
        format: short_number,
        lines: runs.iter().enumerate().map(line).collect(),
    }
}

impl Sketch {
    /// The chart with its axes, `None` where no run has anything to show.
    fn chart(&self) -> Option<Chart> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let shown = || points().filter(|(_, value)| value.is_some());
        let (first, last) = shown()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(first, last), &(x, _)| (first.min(x), last.max(x)));
        if first > last {
            return None;
        }
        let values = self.lines.iter().flat_map(|line| {
            let mut values: Vec<f64> = line.points.iter().filter_map(|&(_, value)| value).collect();
            values.sort_unstable_by(f64::total_cmp);
            // One wild update shall not flatten all others: what is faint may go beyond the frame.
            let beyond = if line.stroke == Stroke::Faint { values.len() / 50 } else { 0 };
            values.into_iter().skip(beyond).rev().skip(beyond).collect::<Vec<_>>()
        });
        let y = Axis::around(values, self.scale, self.format)?;
        let x = Axis::plain(0.0..last.ceil().max(1.0));
        Some(Chart { x, y, x_name: self.x_name, lines: self.lines.clone() })
    }
}
