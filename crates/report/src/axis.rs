//! One axis: its range, linear or logarithmic, and where its ticks are.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// The largest value that is told from a larger one; its reciprocal is the smallest on a logarithmic axis. The room
/// around them, and products with a tick's index, stay finite.
const LARGEST: f64 = 1e250;

/// Share of their size by which values must differ to be told apart.
const SAME: f64 = 1e-9;

/// How values are laid along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly, from 0.
    FromZero,
    /// Evenly, from the lowest value.
    Linear,
    /// By their logarithm; only values above 0 are drawn.
    Log,
}

/// An axis over a range of values, drawn by plotters.
#[derive(Clone, Debug)]
pub struct Axis {
    range: Range<f64>,
    log: bool,
    format: fn(f64) -> String,
}

impl Axis {
    /// An axis of exactly this range, with round ticks.
    pub fn plain(range: Range<f64>) -> Self {
        Self { range, log: false, format: short_number }
    }

    /// An axis that shows all of `values` with a little room, with ticks written by `format`; what is not finite, or
    /// not drawn on this scale, is left out, and what is beyond [`LARGEST`] lies at the frame. `None` when there is
    /// nothing to show.
    pub fn around(
        values: impl Iterator<Item = f64>,
        scale: Scale,
        format: fn(f64) -> String,
    ) -> Option<Self> {
        let least = if scale == Scale::Log { 1.0 / LARGEST } else { -LARGEST };
        let (low, high) = values
            .filter(|value| value.is_finite() && (scale != Scale::Log || *value > 0.0))
            .map(|value| value.clamp(least, LARGEST))
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            return None;
        }
        // Values that differ by rounding alone are a constant: between them there is no place for ticks.
        let room = |low: f64, high: f64, size: f64| {
            if high - low > SAME * size { 0.06 * (high - low) } else { 0.1 * size }
        };
        let size = low.abs().max(high.abs()).max(1e-9);
        let range = match scale {
            Scale::FromZero if low >= 0.0 => 0.0..high + room(0.0, high, size),
            Scale::FromZero | Scale::Linear => low - room(low, high, size)..high + room(low, high, size),
            Scale::Log => {
                let (low, high) = (low.ln(), high.ln());
                let room = room(low, high, 1.0).max(0.05);
                (low - room).exp()..(high + room).exp()
            }
        };
        Some(Self { range, log: scale == Scale::Log, format })
    }

    /// A value moved to the nearest one on the axis.
    pub fn clamp(&self, value: f64) -> f64 {
        value.clamp(self.range.start, self.range.end)
    }

    /// Where a value lies, 0 at the start of the axis and 1 at its end.
    fn place(&self, value: f64) -> f64 {
        let Range { start, end } = self.range;
        match self.log {
            true => (value.ln() - start.ln()) / (end.ln() - start.ln()),
            false => (value - start) / (end - start),
        }
    }

    fn ticks(&self, most: usize) -> Vec<f64> {
        let Range { start, end } = self.range;
        // Within half a decade round steps are easier to read than 1, 2, 5.
        if self.log && end / start > 3.0 {
            log_ticks(start, end, most)
        } else {
            linear_ticks(start, end, most)
        }
    }
}

impl Ranged for Axis {
    type ValueType = f64;
    type FormatOption = NoDefaultFormatting;

    fn map(&self, &value: &f64, limit: (i32, i32)) -> i32 {
        limit.0 + (f64::from(limit.1 - limit.0) * self.place(value)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        self.ticks(hint.bold_points())
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, &value: &f64) -> String {
        (self.format)(value)
    }
}

/// Multiples of 1, 2 or 5 times a power of ten, at most `most` of them and one for each end that lies on one.
fn linear_ticks(start: f64, end: f64, most: usize) -> Vec<f64> {
    let rough = (end - start) / most.max(1) as f64;
    let decade = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * decade).into_iter().find(|&step| step >= rough);
    let step = step.unwrap_or(10.0 * decade);
    let (first, last) = (start / step, end / step + 1e-9 * (end / step).abs());
    // Indices from the first tick on, so that neither rounding adds up nor a step is too small to get anywhere.
    (0..=most)
        .map(|index| (first.ceil() + index as f64) * step)
        .take_while(|&tick| tick <= last * step)
        .collect()
}

/// Powers of ten, with 2 and 5 times them where there is room, or every second or third where there is none.
fn log_ticks(start: f64, end: f64, most: usize) -> Vec<f64> {
    let decades = start.log10().floor() as i32..=end.log10().ceil() as i32;
    let ticks = |factors: &'static [f64], every: usize| -> Vec<f64> {
        let powers = decades.clone().filter(|power| power.rem_euclid(every as i32) == 0);
        let ticks = powers.flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power)));
        ticks.filter(|tick| (start..=end).contains(tick)).collect()
    };
    let candidates: [(&'static [f64], usize); 3] = [(&[1.0, 2.0, 5.0], 1), (&[1.0, 3.0], 1), (&[1.0], 1)];
    let fitting = candidates.into_iter().map(|(factors, every)| ticks(factors, every));
    let sparse = (2..=decades.clone().count().max(2)).map(|every| ticks(&[1.0], every));
    fitting.chain(sparse).find(|ticks| ticks.len() <= most).unwrap_or_default()
}

/// A number in few characters: 0.25, 12k, 3.4M, 2e-5.
pub fn short_number(value: f64) -> String {
    let size = value.abs();
    let trimmed = |value: f64, decimals: usize| {
        let text = format!("{value:.decimals$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    };
    match size {
        0.0 => "0".into(),
        size if !(1e-3..1e9).contains(&size) => {
            let exponent = size.log10().floor() as i32;
            format!("{}e{exponent}", trimmed(value / 10f64.powi(exponent), 2))
        }
        size if size >= 1e6 => trimmed(value / 1e6, 2) + "M",
        size if size >= 1e4 => trimmed(value / 1e3, 1) + "k",
        size if size >= 1.0 => trimmed(value, 2),
        _ => trimmed(value, 4),
    }
}

/// Bytes in a MiB.
pub const MEBIBYTE: f64 = 1_048_576.0;

/// A number of bytes in MiB.
pub fn mebibytes(bytes: f64) -> String {
    format!("{:.0} MiB", bytes / MEBIBYTE)
}

/// A share as a percentage.
pub fn percent(value: f64) -> String {
    short_number(100.0 * value) + " %"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_exact_enough() {
        let written = [0.0, 2e-5, 0.05, 0.305, 7.25, 128.0, 12_345.0, 3.4e6, 2.5e9].map(short_number);
        assert_eq!(written, ["0", "2e-5", "0.05", "0.305", "7.25", "128", "12.3k", "3.4M", "2.5e9"]);
        assert_eq!(mebibytes(300.0 * MEBIBYTE), "300 MiB");
        assert_eq!(percent(0.125), "12.5 %");
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(linear_ticks(0.0, 0.33, 4), [0.0, 0.1, 0.2, 0.30000000000000004]);
        assert_eq!(linear_ticks(-3.0, 41.0, 5), [0.0, 10.0, 20.0, 30.0, 40.0]);
        assert_eq!(log_ticks(0.9, 12.0, 5), [1.0, 2.0, 5.0, 10.0]);
        assert_eq!(log_ticks(1e-3, 1e4, 4), [1e-2, 1.0, 1e2, 1e4]);
    }

    #[test]
    fn extreme_values_have_finite_axes_with_few_ticks() {
        let ulp = 1.0 + f64::EPSILON;
        let pairs = [
            [1.0, ulp],
            [1e300, 1e300 * ulp],
            [f64::MIN, f64::MAX],
            [1e308, 1.7e308],
            [1e-308, 1e308],
            [5e-324, 1e-323],
            [0.0, 5e-324],
            [-5e-324, 1e-300],
            [f64::MIN_POSITIVE, 1.0],
            [f64::NAN, 1.0],
            [f64::NEG_INFINITY, f64::INFINITY],
            [-1.0, 1e-300],
            [1e15, 1e15 + 0.125],
            [-1e300, -1e300],
        ];
        for (pair, scale) in pairs
            .iter()
            .flat_map(|pair| [Scale::FromZero, Scale::Linear, Scale::Log].map(|scale| (pair, scale)))
        {
            let Some(axis) = Axis::around(pair.iter().copied(), scale, short_number) else { continue };
            let Range { start, end } = axis.range;
            assert!(start.is_finite() && end.is_finite() && start < end, "{pair:?} {scale:?}: {axis:?}");
            for most in [0, 1, 5, 10] {
                let ticks = axis.ticks(most);
                assert!(ticks.len() <= most + 1, "{pair:?} {scale:?}: {ticks:?}");
                assert!(ticks.iter().all(|tick| tick.is_finite()), "{pair:?} {scale:?}: {ticks:?}");
                assert!(ticks.is_sorted_by(|a, b| a < b), "{pair:?} {scale:?}: {ticks:?}");
            }
            for value in [start, end, f64::midpoint(start, end)] {
                assert!((0..=1000).contains(&axis.map(&value, (0, 1000))), "{pair:?} {scale:?}");
            }
        }
    }

    #[test]
    fn a_logarithmic_axis_puts_the_geometric_mean_in_the_middle() {
        let axis = Axis::around([0.01, 100.0].into_iter(), Scale::Log, short_number).unwrap();
        assert_eq!(axis.map(&1.0, (0, 1000)), 500);
    }

    #[test]
    fn a_constant_still_has_an_axis_around_it_and_nothing_has_none() {
        for scale in [Scale::FromZero, Scale::Linear, Scale::Log] {
            let axis = Axis::around([2.0, 2.0].into_iter(), scale, short_number).unwrap();
            assert!(axis.range.start < 2.0 && axis.range.end > 2.0, "{axis:?}");
            assert!(Axis::around([].into_iter(), scale, short_number).is_none());
        }
        let zero = Axis::around([0.0].into_iter(), Scale::FromZero, short_number).unwrap();
        assert!(zero.range.end > 0.0);
    }
}
