//! A report as one HTML page with plots in SVG; it needs nothing from anywhere else.

use std::fmt::Write as _;

use crate::report::{Report, Second};

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 180.0;
const LEFT: f64 = 56.0;
const BOTTOM: f64 = 24.0;
const TOP: f64 = 10.0;

struct Line<'a> {
    name: &'a str,
    colour: &'a str,
    points: Vec<(f64, f64)>,
}

/// The page.
pub fn page(report: &Report) -> String {
    let title = escape(&format!("{} {}", report.server, report.label));
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Load: {title}</title>\n<style>\
         body{{font:15px system-ui,sans-serif;max-width:1200px;margin:2rem auto;padding:0 1rem;color:#1b2430}}\
         pre{{background:#f3f5f8;padding:1rem;overflow:auto}}figure{{display:inline-block;margin:0 1rem 1rem 0}}\
         figcaption{{font-weight:600}}svg{{background:#fff;border:1px solid #d7dde5}}text{{font-size:11px;fill:#556}}\
         </style>\n<h1>Load: {title}</h1>\n<p>{}</p>\n<pre>{}</pre>\n",
        escape(&report.machine),
        escape(&report.table()),
    );
    let over_time = |of: fn(&Second) -> Option<f64>| -> Vec<(f64, f64)> {
        report.seconds.iter().filter_map(|second| Some((second.at, of(second)?))).collect()
    };
    let line = |name, colour, points| Line { name, colour, points };
    let plots = [
        (
            "Packets forwarded per second",
            vec![line("packets/s", "#2563eb", over_time(|it| Some(it.forwarded_per_second)))],
        ),
        (
            "One-way latency, ms",
            vec![
                line("p99", "#dc2626", over_time(|it| it.latency_p99_ms)),
                line("p50", "#16a34a", over_time(|it| it.latency_p50_ms)),
            ],
        ),
        ("Processor time of the server, %", vec![line("CPU", "#9333ea", over_time(|it| it.cpu_percent))]),
        (
            "Memory of the server, MB",
            vec![line("RSS", "#0891b2", over_time(|it| Some(it.resident_bytes? as f64 / 1e6)))],
        ),
        ("Packets lost per second", vec![line("lost", "#ea580c", over_time(|it| Some(it.lost as f64)))]),
    ];
    for (caption, lines) in plots {
        if lines.iter().any(|line| !line.points.is_empty()) {
            let _ = writeln!(out, "<figure><figcaption>{caption}</figcaption>{}</figure>", plot(&lines));
        }
    }
    out.push_str("</html>\n");
    out
}

fn plot(lines: &[Line<'_>]) -> String {
    let all = || lines.iter().flat_map(|line| &line.points);
    let right = all().map(|point| point.0).fold(1.0, f64::max);
    let top = nice(all().map(|point| point.1).fold(0.0, f64::max));
    let x = |value: f64| LEFT + value / right * (WIDTH - LEFT - 10.0);
    let y = |value: f64| TOP + (1.0 - value / top) * (HEIGHT - TOP - BOTTOM);
    let mut out = format!("<svg width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\">");
    for step in 0..=4 {
        let value = top * f64::from(step) / 4.0;
        let at = y(value);
        let _ = write!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#e5e9ef\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - 10.0,
            LEFT - 6.0,
            at + 4.0,
            label(value),
        );
    }
    let base = HEIGHT - 8.0;
    let _ = write!(out, "<text x=\"{LEFT}\" y=\"{base}\">0 s</text>");
    let _ = write!(out, "<text x=\"{}\" y=\"{base}\" text-anchor=\"end\">{right:.0} s</text>", WIDTH - 10.0);
    for (index, line) in lines.iter().enumerate() {
        let points: Vec<String> =
            line.points.iter().map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value))).collect();
        let _ = write!(
            out,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>\
             <text x=\"{}\" y=\"{}\" style=\"fill:{colour}\">{}</text>",
            points.join(" "),
            LEFT + 8.0 + 60.0 * index as f64,
            TOP + 12.0,
            line.name,
            colour = line.colour,
        );
    }
    out.push_str("</svg>");
    out
}

/// The next of 1, 2, 5, 10, … above a value.
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
        v if v >= 10.0 || v == 0.0 => format!("{v:.0}"),
        v => format!("{v:.2}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_on_round_numbers() {
        assert_eq!([0.0, 0.7, 1.0, 3.2, 18_000.0].map(nice), [1.0, 1.0, 1.0, 5.0, 20_000.0]);
        assert_eq!([0.0, 0.25, 12.0, 20_000.0].map(label), ["0", "0.25", "12", "20k"]);
    }

    #[test]
    fn a_line_stays_within_its_plot() {
        let svg = plot(&[Line { name: "x", colour: "red", points: vec![(0.0, 0.0), (15.0, 3.0)] }]);
        assert!(svg.contains("points=\"56.0,156.0 550.0,68.4\""), "{svg}");
    }

    #[test]
    fn nothing_from_outside_is_markup() {
        assert_eq!(escape("<b>&"), "&lt;b&gt;&amp;");
    }
}
