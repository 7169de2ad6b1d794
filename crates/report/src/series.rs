//! What is drawn of a number that was recorded of every update: at most a few hundred points of it.

/// A recorded number over updates; `None` where it was not recorded or not finite.
pub type Series = Vec<(f64, Option<f64>)>;

/// Columns that a series is thinned to: about as many as a chart has pixels in width, halved.
pub const COLUMNS: usize = 180;

/// Columns over all lines of a chart.
const MOST_COLUMNS: usize = 24 * COLUMNS;

/// A running mean covers one in so many of the updates, but at least five of them.
const WINDOWS: usize = 40;

/// Series up to this length are not smoothed.
const SHORT: usize = 20;

/// The mean of values and their neighbours, as many to each side, fewer near the ends; missing where the value is. Of
/// a long series it is made only about as often as is drawn: in the middle of short stretches, and at their gaps.
pub fn running_mean(series: &Series) -> Series {
    let reach = if series.len() <= SHORT { 0 } else { (series.len() / WINDOWS / 2).max(2) };
    let mean = |index: usize| {
        let reach = reach.min(index).min(series.len() - 1 - index);
        let window = series[index - reach..=index + reach].iter().filter_map(|&(_, value)| value);
        let (sum, count) = window.fold((0.0, 0usize), |(sum, count), value| (sum + value, count + 1));
        (series[index].0, series[index].1.map(|_| sum / count as f64))
    };
    let stretch = series.len().div_ceil(4 * COLUMNS).max(1);
    let means = (0..series.len()).step_by(stretch).flat_map(|first| {
        let of_stretch = first..series.len().min(first + stretch);
        let middle = first.midpoint(of_stretch.end);
        let gap = of_stretch.clone().find(|&index| index != middle && series[index].1.is_none());
        let (before, after) = (gap.filter(|&gap| gap < middle), gap.filter(|&gap| gap > middle));
        [before, Some(middle), after].into_iter().flatten().map(mean)
    });
    means.collect()
}

/// Thins a long series: of each of `columns` stretches of its length its lowest and highest value stay, in their order,
/// so that no spike is lost, and a gap where there is one.
pub fn thin(series: &Series, columns: usize) -> Series {
    let (Some(first), Some(last)) = (series.first(), series.last()) else { return Series::new() };
    if series.len() <= 2 * columns {
        return series.clone();
    }
    let (start, width) = (first.0, (last.0 - first.0).max(f64::MIN_POSITIVE));
    let column = |x: f64| (((x - start) / width * columns as f64) as usize).min(columns - 1);
    series.chunk_by(|a, b| column(a.0) == column(b.0)).flat_map(extremes).collect()
}

/// Columns that each of `lines` lines of a chart is thinned to: fewer where there are many, so that a chart's points
/// stay few whatever is drawn.
pub fn columns(lines: usize) -> usize {
    (MOST_COLUMNS / lines.max(1)).clamp(8, COLUMNS)
}

/// The lowest and the highest value in the order they come, and a gap after them where a value is missing.
fn extremes(stretch: &[(f64, Option<f64>)]) -> Series {
    let present = || stretch.iter().filter_map(|&(x, value)| value.map(|value| (x, value)));
    let by_value = |a: &(f64, f64), b: &(f64, f64)| a.1.total_cmp(&b.1);
    let gap = stretch.iter().find(|(_, value)| value.is_none()).copied();
    let mut kept: Series = Vec::with_capacity(3);
    if let (Some(low), Some(high)) = (present().min_by(by_value), present().max_by(by_value)) {
        kept.push((low.0, Some(low.1)));
        if high.0 != low.0 {
            kept.push((high.0, Some(high.1)));
        }
    }
    kept.extend(gap);
    kept.sort_by(|a, b| a.0.total_cmp(&b.0));
    kept
}

/// The stretches without a gap.
pub fn unbroken(series: &Series) -> impl Iterator<Item = Vec<(f64, f64)>> {
    series
        .split(|(_, value)| value.is_none())
        .map(|stretch| {
            stretch.iter().filter_map(|&(x, value)| value.map(|value| (x, value))).collect::<Vec<_>>()
        })
        .filter(|stretch| !stretch.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(count: usize, value: impl Fn(usize) -> Option<f64>) -> Series {
        (0..count).map(|i| (i as f64, value(i))).collect()
    }

    #[test]
    fn a_line_is_its_own_running_mean() {
        for length in [1, 15, 400, 10_007] {
            for (x, mean) in running_mean(&series(length, |i| Some(i as f64))) {
                assert!((x - mean.unwrap()).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn noise_around_a_level_is_averaged_away() {
        let noise = running_mean(&series(2000, |i| Some(if i % 2 == 0 { 1.0 } else { -1.0 })));
        let inner = noise.iter().filter(|(x, _)| (100.0..1900.0).contains(x));
        assert!(inner.clone().count() > 500 && inner.clone().all(|(_, mean)| mean.unwrap().abs() < 0.05));
    }

    #[test]
    fn a_missing_value_is_a_gap_and_spoils_no_mean_around_it() {
        let mean = running_mean(&series(400, |i| (i != 200).then_some(3.0)));
        assert_eq!(mean[200].1, None);
        assert!(mean.iter().filter_map(|(_, mean)| *mean).all(|mean| mean == 3.0));
    }

    #[test]
    fn a_thinned_series_keeps_its_spikes_and_gaps_and_is_short() {
        let long = series(10_000, |i| match i {
            5003 => Some(100.0),
            7001 => None,
            i => Some((i % 7) as f64),
        });
        let thinned = thin(&long, COLUMNS);
        assert!(thinned.len() <= 2 * COLUMNS + 1);
        assert!(thinned.contains(&(5003.0, Some(100.0))) && thinned.contains(&(7001.0, None)));
        assert!(thinned.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn the_running_mean_of_a_long_series_is_short_and_keeps_gaps() {
        let mean = running_mean(&series(300_000, |i| (i != 77_777).then_some(1.0)));
        assert!(mean.len() < 5 * COLUMNS && mean.contains(&(77_777.0, None)));
        assert!(mean.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn many_lines_are_drawn_with_fewer_points_each() {
        assert_eq!(columns(8), COLUMNS);
        let points = |lines: usize| lines * 2 * columns(lines);
        assert!(points(100) <= 2 * MOST_COLUMNS && points(500) <= 2 * MOST_COLUMNS);
        let long = series(10_000, |i| Some((i % 7) as f64));
        assert!(thin(&long, columns(500)).len() <= 2 * columns(500));
    }

    #[test]
    fn points_that_lie_unevenly_are_thinned_by_their_place() {
        let mut bunched = series(5_000, |i| Some(i as f64));
        bunched.push((1e9, Some(0.0)));
        let thinned = thin(&bunched, COLUMNS);
        assert_eq!(thinned, [(0.0, Some(0.0)), (4999.0, Some(4999.0)), (1e9, Some(0.0))]);
    }

    #[test]
    fn a_short_series_is_left_as_it_is() {
        let short = series(50, |i| Some(i as f64));
        assert_eq!(thin(&short, COLUMNS), short);
    }

    #[test]
    fn gaps_break_a_series_into_stretches() {
        let broken = series(6, |i| (i != 0 && i != 3).then_some(1.0));
        let stretches: Vec<_> = unbroken(&broken).map(|stretch| stretch.len()).collect();
        assert_eq!(stretches, [2, 2]);
    }
}
