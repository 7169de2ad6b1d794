//! What is drawn of a number that was recorded of every update: at most a few hundred points of it.

/// A recorded number over updates; `None` where it was not recorded or not finite.
pub type Series = Vec<(f64, Option<f64>)>;

/// Columns that a series is thinned to: about as many as a chart has pixels in width, halved.
const COLUMNS: usize = 180;

/// A running mean covers one in so many of the updates, but at least five of them.
const WINDOWS: usize = 40;

/// Series up to this length are not smoothed.
const SHORT: usize = 20;

/// The mean of each value and its neighbours, as many to each side, fewer near the ends; missing where the value is.
pub fn running_mean(series: &Series) -> Series {
    let reach = if series.len() <= SHORT { 0 } else { (series.len() / WINDOWS / 2).max(2) };
    let mean = |(index, &(x, value)): (usize, &(f64, Option<f64>))| {
        let reach = reach.min(index).min(series.len() - 1 - index);
        let window = series[index - reach..=index + reach].iter().filter_map(|&(_, value)| value);
        let (sum, count) = window.fold((0.0, 0usize), |(sum, count), value| (sum + value, count + 1));
        (x, value.map(|_| sum / count as f64))
    };
    series.iter().enumerate().map(mean).collect()
}

/// Thins a long series: of each of [`COLUMNS`] stretches its lowest and highest value stay, in their order, so that
/// no spike is lost, and a gap where there is one.
pub fn thin(series: &Series) -> Series {
    if series.len() <= 2 * COLUMNS {
        return series.clone();
    }
    let stretch =
        |column: usize| &series[column * series.len() / COLUMNS..(column + 1) * series.len() / COLUMNS];
    (0..COLUMNS).flat_map(|column| extremes(stretch(column))).collect()
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
        let line = series(400, |i| Some(i as f64));
        for ((_, value), (_, mean)) in line.iter().zip(running_mean(&line)) {
            assert!((value.unwrap() - mean.unwrap()).abs() < 1e-9);
        }
    }

    #[test]
    fn noise_around_a_level_is_averaged_away() {
        let noise = running_mean(&series(2000, |i| Some(if i % 2 == 0 { 1.0 } else { -1.0 })));
        assert!(noise[100..1900].iter().all(|(_, mean)| mean.unwrap().abs() < 0.05));
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
        let thinned = thin(&long);
        assert!(thinned.len() <= 2 * COLUMNS + 1);
        assert!(thinned.contains(&(5003.0, Some(100.0))) && thinned.contains(&(7001.0, None)));
        assert!(thinned.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn a_short_series_is_left_as_it_is() {
        let short = series(50, |i| Some(i as f64));
        assert_eq!(thin(&short), short);
    }

    #[test]
    fn gaps_break_a_series_into_stretches() {
        let broken = series(6, |i| (i != 0 && i != 3).then_some(1.0));
        let stretches: Vec<_> = unbroken(&broken).map(|stretch| stretch.len()).collect();
        assert_eq!(stretches, [2, 2]);
    }
}
