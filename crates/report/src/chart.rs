//! One chart as SVG.

use std::error::Error;

use plotters::prelude::*;
use plotters::style::FontFamily;

use crate::axis::Axis;
use crate::palette::Role;
use crate::series::{Series, unbroken};

/// Width and height in tenths of a pixel: plotters rounds to whole units.
const SIZE: (u32, u32) = (4200, 2500);

/// Font size in the same units, as plotters counts it: 1.24 times the one that is seen.
const FONT_SIZE: i32 = 143;

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stroke {
    /// Thin and faint, behind the others.
    Faint,
    /// A line.
    Line,
    /// A line with a dot at each value: there are few.
    Dots,
}

/// One line of a chart.
#[derive(Clone, Debug)]
pub struct Line {
    /// The run it belongs to, by its place on the page.
    pub run: usize,
    /// How it is drawn.
    pub stroke: Stroke,
    /// Its points.
    pub points: Series,
}

/// A chart with its axes, before it is drawn.
#[derive(Clone, Debug)]
pub struct Chart {
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// Name of the horizontal axis.
    pub x_name: &'static str,
    /// What is drawn, the last on top.
    pub lines: Vec<Line>,
}

impl Chart {
    /// Draws the chart.
    ///
    /// # Errors
    /// What plotters says.
    pub fn draw(self) -> Result<String, Box<dyn Error>> {
        let mut svg = String::new();
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let text = (FontFamily::SansSerif, FONT_SIZE).into_font().color(&Role::Text.code());
        let grid = Role::Grid.code().stroke_width(8);
        let mut context = ChartBuilder::on(&root)
            .margin_top(80)
            .margin_right(200)
            .x_label_area_size(360)
            .y_label_area_size(620)
            .build_cartesian_2d(self.x.clone(), self.y.clone())?;
        context
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(5)
            .y_labels(5)
            .y_max_light_lines(0)
            .x_max_light_lines(0)
            .bold_line_style(grid)
            .light_line_style(grid)
            .axis_style(grid)
            .label_style(text)
            .x_desc(self.x_name)
            .set_all_tick_mark_size(30)
            .draw()?;
        for line in &self.lines {
            for stretch in unbroken(&line.points) {
                // A line of one point would not be seen.
                let dots = line.stroke == Stroke::Dots || stretch.len() == 1;
                let points = stretch.into_iter().map(|(x, y)| (x, self.y.clamp(y)));
                let (role, width) = match line.stroke {
                    Stroke::Faint => (Role::Faint(line.run), 8),
                    Stroke::Line | Stroke::Dots => (Role::Run(line.run), 18),
                };
                let series = LineSeries::new(points, role.code().stroke_width(width).filled());
                context.draw_series(if dots { series.point_size(26) } else { series })?;
            }
        }
        drop(context);
        root.present()?;
        drop(root);
        Ok(svg)
    }
}
