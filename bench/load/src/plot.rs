//! Lines over time or over percentiles, as SVG whose colours are those of the page around it.

use std::fmt::Write as _;

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 12.0;
const BOTTOM: f64 = 24.0;
const TOP: f64 = 20.0;
/// The highest percentile that has a place: 99.99.
const NINES: f64 = 4.0;

pub struct Line<'a> {
    pub name: &'a str,
    /// A custom property of the page.
    pub colour: &'a str,
    pub points: Vec<(f64, f64)>,
}

/// What the horizontal axis shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    Seconds,
    /// Shares from 0 to 1; every further nine takes as much room as the one before.
    Percentiles,
}

impl Axis {
    /// Where a value lies on the axis.
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Seconds => value,
            Self::Percentiles => (-(1.0 - value).max(1e-9).log10()).min(NINES),
        }
    }

    /// Marks with their names, up to the place `end`.
    fn marks(self, end: f64) -> Vec<(f64, String)> {
        match self {
            Self::Seconds => {
                let step = nice(end / 6.0).max(1.0);
                let count = (end / step + 1e-9).floor() as u32;
                (0..=count).map(|mark| f64::from(mark) * step).map(|at| (at, format!("{at:.0} s"))).collect()
            }
            Self::Percentiles => {
                [(0.0, "0"), (0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99 %")]
                    .into_iter()
                    .map(|(share, name)| (self.place(share), name.to_owned()))
                    .collect()
            }
        }
    }
}

pub struct Plot<'a> {
    pub x: Axis,
    /// Of the vertical axis.
    pub unit: &'a str,
    pub lines: Vec<Line<'a>>,
}

impl Plot<'_> {
    pub fn has_points(&self) -> bool {
        self.lines.iter().any(|line| !line.points.is_empty())
    }

    pub fn svg(&self) -> String {
        let all = || self.lines.iter().flat_map(|line| &line.points);
        let end = match self.x {
            Axis::Seconds => all().map(|point| point.0).fold(1.0, f64::max),
            Axis::Percentiles => NINES,
        };
        let top = nice(all().map(|point| point.1).fold(0.0, f64::max));
        let x = |place: f64| LEFT + place / end * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| TOP + (1.0 - value / top) * (HEIGHT - TOP - BOTTOM);
        let mut out = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
        for step in 0..=4 {
            let value = top * f64::from(step) / 4.0;
            let (at, unit) = (y(value), if step == 4 { self.unit } else { "" });
            let _ = write!(
                out,
                "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"var(--line)\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}{}{unit}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                label(value),
                if unit.is_empty() || unit.starts_with('/') { "" } else { "\u{a0}" },
            );
        }
        for (place, name) in self.x.marks(end) {
            let anchor = if x(place) > WIDTH - RIGHT - 20.0 { "end" } else { "middle" };
            let _ = write!(
                out,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{name}</text>",
                x(place),
                HEIGHT - 8.0
            );
        }
        for (index, line) in self.lines.iter().enumerate() {
            let points: Vec<String> = line
                .points
                .iter()
                .map(|(at, value)| format!("{:.1},{:.1}", x(self.x.place(*at)), y(*value)))
                .collect();
            let _ = write!(
                out,
                "<polyline fill=\"none\" stroke=\"var({colour})\" stroke-width=\"2\" stroke-linejoin=\"round\" points=\"{}\"/>\
                 <text x=\"{}\" y=\"12\" style=\"fill:var({colour});font-weight:600\">{}</text>",
                points.join(" "),
                LEFT + 4.0 + 64.0 * index as f64,
                line.name,
                colour = line.colour,
            );
        }
        out.push_str("</svg>");
        out
    }
}

/// The next of 1, 2, 2.5, 5, 10, … at or above a value.
fn nice(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|top| *top >= value).unwrap_or(value)
}

fn label(value: f64) -> String {
    match value {
        v if v >= 10_000.0 => format!("{:.0}k", v / 1_000.0),
        v if v >= 1_000.0 => format!("{:.1}k", v / 1_000.0),
        v if v == 0.0 || v.fract() == 0.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_on_round_numbers() {
        assert_eq!([0.0, 0.7, 1.0, 3.2, 18_000.0].map(nice), [1.0, 1.0, 1.0, 5.0, 20_000.0]);
        assert_eq!(
            [0.0, 0.25, 12.0, 12.5, 1_500.0, 20_000.0].map(label),
            ["0", "0.25", "12", "12.5", "1.5k", "20k"]
        );
    }

    #[test]
    fn a_line_stays_within_its_plot() {
        let line = Line { name: "x", colour: "--a", points: vec![(0.0, 0.0), (15.0, 3.0)] };
        let svg = Plot { x: Axis::Seconds, unit: "ms", lines: vec![line] }.svg();
        assert!(svg.contains("points=\"52.0,176.0 508.0,82.4\""), "{svg}");
    }

    #[test]
    fn every_nine_takes_the_same_room() {
        let at = |share| Axis::Percentiles.place(share);
        assert!((at(0.99) - at(0.9) - (at(0.999) - at(0.99))).abs() < 1e-9);
        assert_eq!(at(1.0), NINES);
        assert_eq!(Axis::Seconds.marks(15.0).last().unwrap().1, "15 s");
    }
}
