//! What things look like.
//!
//! A chart is drawn in colours that are codes of roles; the page's style sheet gives each role the colour and dashes
//! that are seen, other ones in light, in dark and in print. Runs have the colours of Okabe and Ito (*Color Universal
//! Design*, 2008), made for all kinds of colour vision, less the yellow that is lost on white; dashes of five kinds
//! tell them apart in grey, and make 35 pairs before one comes again.

use std::fmt::Write;

use plotters::style::RGBColor;

/// Colours of runs in a light and a dark page, neighbours far apart in lightness.
const COLOURS: [(&str, &str); 7] = [
    ("#0072b2", "#4aa8e0"),
    ("#d55e00", "#f0792b"),
    ("#009e73", "#2fc79c"),
    ("#b8578f", "#e08fbd"),
    ("#1a1a1a", "#ededed"),
    ("#c98500", "#f0b429"),
    ("#4ba3d9", "#9bd3f5"),
];

/// Dashes and gaps in pixels.
const DASHES: [&[u32]; 5] = [&[], &[7, 3], &[2, 2], &[9, 3, 2, 3], &[4, 2]];

/// What a stroke or a text in a chart is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Numbers and names of axes.
    Text,
    /// Lines across the chart at ticks.
    Grid,
    /// The line of a run, by its place on the page.
    Run(usize),
    /// What lies faint behind the line of a run.
    Faint(usize),
}

impl Role {
    /// The colour that stands for the role in a chart.
    pub fn code(self) -> RGBColor {
        let of_run = |kind: u8, run: usize| RGBColor(kind, (run >> 8) as u8, run as u8);
        match self {
            Self::Text => RGBColor(0, 0, 1),
            Self::Grid => RGBColor(0, 0, 2),
            Self::Run(run) => of_run(1, run),
            Self::Faint(run) => of_run(2, run),
        }
    }

    fn hex(self) -> String {
        let RGBColor(red, green, blue) = self.code();
        format!("#{red:02X}{green:02X}{blue:02X}")
    }
}

/// The rules that show charts of `runs` runs, and that hide a run whose box in the legend is not ticked.
pub fn style(runs: usize) -> String {
    let mut css = String::from(":root{");
    let colours = |css: &mut String, of: fn(&(&'static str, &'static str)) -> &'static str| {
        for (index, colour) in COLOURS.iter().enumerate() {
            let _ = write!(css, "--run-{index}:{};", of(colour));
        }
    };
    colours(&mut css, |pair| pair.0);
    css += "}@media screen and (prefers-color-scheme:dark){:root{";
    colours(&mut css, |pair| pair.1);
    css += "}}";
    let (text, grid) = (Role::Text.hex(), Role::Grid.hex());
    let _ = write!(css, "[fill=\"{text}\"]{{fill:var(--muted)}}[stroke=\"{grid}\"]{{stroke:var(--grid)}}");
    for run in 0..runs {
        let (line, faint, colour) = (Role::Run(run).hex(), Role::Faint(run).hex(), run % COLOURS.len());
        let dashes: Vec<String> =
            DASHES[run % DASHES.len()].iter().map(|pixels| (10 * pixels).to_string()).collect();
        let dashes = if dashes.is_empty() { "none".into() } else { dashes.join(" ") };
        let _ = write!(
            css,
            "[stroke=\"{line}\"]{{stroke:var(--run-{colour});stroke-dasharray:{dashes}}}\
             [fill=\"{line}\"]{{fill:var(--run-{colour})}}\
             [stroke=\"{faint}\"]{{stroke:var(--run-{colour});opacity:.25}}\
             body:has(#run-{run}:not(:checked)) .chart :is([stroke=\"{line}\"],[fill=\"{line}\"],[stroke=\"{faint}\"])\
             {{display:none}}",
        );
    }
    css
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirty_five_runs_look_different() {
        let mut looks: Vec<_> = (0..35).map(|run| (run % COLOURS.len(), run % DASHES.len())).collect();
        looks.sort_unstable();
        looks.dedup();
        assert_eq!(looks.len(), 35);
    }

    #[test]
    fn roles_have_codes_of_their_own() {
        let roles = [
            Role::Text,
            Role::Grid,
            Role::Run(0),
            Role::Run(1),
            Role::Run(256),
            Role::Faint(0),
            Role::Faint(1),
        ];
        for (index, role) in roles.iter().enumerate() {
            assert!(roles[..index].iter().all(|other| other.hex() != role.hex()), "{role:?}");
        }
    }
}
