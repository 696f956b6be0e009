//! A report as one HTML page: the figures that matter first, then plots in SVG, then everything. It needs nothing from
//! anywhere else, and follows the reader's light or dark setting.

use std::fmt::Write as _;

use crate::plot::{Axis, Line, Plot};
use crate::report::{Quantiles, Report, Second};

const STYLE: &str = "
:root{--ink:#172030;--soft:#5b6678;--line:#dfe4ec;--paper:#fff;--back:#f4f6f9;--a:#2563eb;--b:#dc2626;--c:#15803d;--d:#9333ea}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaf1;--soft:#97a3b6;--line:#2c3647;--paper:#182131;--back:#0f1623;
--a:#60a5fa;--b:#f87171;--c:#4ade80;--d:#c084fc}}
*{box-sizing:border-box}body{font:15px/1.45 system-ui,sans-serif;max-width:1180px;margin:0 auto;padding:2rem 1rem;
color:var(--ink);background:var(--back)}h1{font-size:1.5rem;margin:0}h2{font-size:1.05rem;margin:2rem 0 .7rem}
.soft{color:var(--soft);margin:.2rem 0 1.4rem}.tiles,.plots{display:grid;gap:.8rem}
.tiles{grid-template-columns:repeat(auto-fit,minmax(138px,1fr))}.plots{grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr))}
.tile,figure,pre{background:var(--paper);border:1px solid var(--line);border-radius:8px;margin:0;padding:.8rem 1rem}
.tile b{display:block;font-size:1.45rem;font-variant-numeric:tabular-nums}.tile span{color:var(--soft);font-size:.82rem;display:block}
figcaption{font-weight:600;margin-bottom:.4rem}svg{width:100%;height:auto;display:block}svg text{font-size:11px;fill:var(--soft)}
pre{overflow:auto;font-size:13px}.bad b{color:var(--b)}
";

/// The page.
pub fn page(report: &Report) -> String {
    let title = if report.label.is_empty() {
        report.server.to_owned()
    } else {
        format!("{}: {}", report.label, report.server)
    };
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Load: {0}</title><style>{STYLE}</style></head>\n\
         <body><h1>{0}</h1>\n<p class=\"soft\">{1}<br>{2}</p>\n<div class=\"tiles\">\n",
        escape(&title),
        escape(&scene(report)),
        escape(&report.machine),
    );
    for tile in tiles(report) {
        out.push_str(&tile.html());
    }
    out.push_str("</div>\n<h2>Over the measured time</h2>\n<div class=\"plots\">\n");
    for (caption, plot) in plots(report) {
        if plot.has_points() {
            let _ = writeln!(out, "<figure><figcaption>{caption}</figcaption>{}</figure>", plot.svg());
        }
    }
    let _ =
        write!(out, "</div>\n<h2>All figures</h2>\n<pre>{}</pre>\n</body></html>\n", escape(&report.table()));
    out
}

/// The scenario in words.
fn scene(report: &Report) -> String {
    let it = &report.scenario;
    let mut clients = Vec::new();
    for (count, one, many) in [
        (it.publishers, "publisher", "publishers"),
        (it.subscribers, "subscriber", "subscribers"),
        (it.parties, "party", "parties"),
    ] {
        if count > 0 {
            clients.push(format!("{count} {}", if count == 1 { one } else { many }));
        }
    }
    let rooms = if it.rooms == 1 { "1 room".to_owned() } else { format!("{} rooms, each", it.rooms) };
    let mut text = format!("{rooms} with {}", clients.join(" and "));
    if it.storm > 0 {
        let _ = write!(text, ", then a storm of {}", it.storm);
    }
    if let Some(flood) = &report.flood {
        let _ = write!(text, ", under {:.0} hostile datagrams/s ({:?})", flood.per_second, flood.kind);
    }
    let _ = write!(text, "; measured for {:.0} s", report.window_seconds);
    text
}

struct Tile {
    name: &'static str,
    value: String,
    note: String,
    is_bad: bool,
}

impl Tile {
    fn html(&self) -> String {
        format!(
            "<div class=\"tile{}\"><span>{}</span><b>{}</b><span>{}</span></div>\n",
            if self.is_bad { " bad" } else { "" },
            self.name,
            escape(&self.value),
            escape(&self.note),
        )
    }
}

fn tiles(report: &Report) -> Vec<Tile> {
    let packets = &report.packets;
    let tile = |name, value, note| Tile { name, value, note, is_bad: false };
    let mut tiles = vec![
        tile(
            "Forwarded",
            format!("{}/s", grouped(packets.forwarded_per_second)),
            format!(
                "{} packets, {:.1} Mbit/s",
                grouped(packets.forwarded as f64),
                packets.forwarded_mbit_per_second
            ),
        ),
        Tile {
            is_bad: packets.loss_percent > 0.1,
            ..tile(
                "Lost",
                format!("{:.3} %", packets.loss_percent),
                format!("{} packets", grouped(packets.lost as f64)),
            )
        },
    ];
    if let Some(it) = &report.latency_ms {
        let note = format!("p50 {:.2}, p90 {:.2}, max {:.1} ms", it.p50, it.p90, it.max);
        tiles.push(tile("One-way latency, p99", format!("{:.2} ms", it.p99), note));
    }
    let times = |it: &Quantiles| format!("p99 {:.0}, max {:.0} ms", it.p99, it.max);
    for (name, joins) in
        [("Join → first media", Some(&report.joins)), ("Storm → all media", report.storm.as_ref())]
    {
        let Some(joins) = joins else { continue };
        let quantiles = if name.starts_with("Storm") { &joins.all_media_ms } else { &joins.first_media_ms };
        let Some(it) = quantiles else { continue };
        let failed = if joins.failed > 0 { format!(", {} failed", joins.failed) } else { String::new() };
        let tile = tile(name, format!("{:.0} ms", it.p50), format!("{}{failed}", times(it)));
        tiles.push(Tile { is_bad: joins.failed > 0, ..tile });
    }
    if let Some(cost) = report.cpu_us_per_forwarded_packet {
        let percent: f64 = report.processes.iter().map(|process| process.cpu_percent).sum();
        let note = format!("{percent:.1} % of a core in all");
        tiles.push(tile("CPU per forwarded packet", format!("{cost:.2} µs"), note));
    }
    if !report.processes.is_empty() {
        let bytes: u64 = report.processes.iter().map(|process| process.resident_end).sum();
        let note = report
            .memory_bytes_per_subscriber
            .map_or(String::new(), |bytes| format!("{:.0} KB for each receiving client", bytes / 1e3));
        tiles.push(tile("Resident memory", format!("{:.1} MB", bytes as f64 / 1e6), note));
    }
    let generator = &report.generator;
    tiles.push(Tile {
        is_bad: generator.overflow > 0,
        ..tile(
            "Generator busy",
            format!("{:.0} %", generator.busy_percent / f64::from(generator.threads.max(1))),
            format!("{} datagrams missed by it", grouped(generator.overflow as f64)),
        )
    });
    tiles
}

fn plots(report: &Report) -> Vec<(&'static str, Plot<'static>)> {
    let over_time = |of: fn(&Second) -> Option<f64>| -> Vec<(f64, f64)> {
        report.seconds.iter().filter_map(|second| Some((second.at, of(second)?))).collect()
    };
    let line = |name, colour, points| Line { name, colour, points };
    let timed = |unit, lines| Plot { x: Axis::Seconds, unit, lines };
    vec![
        (
            "Packets forwarded per second",
            timed("/s", vec![line("packets", "--a", over_time(|it| Some(it.forwarded_per_second)))]),
        ),
        (
            "One-way latency",
            timed(
                "ms",
                vec![
                    line("p99", "--b", over_time(|it| it.latency_p99_ms)),
                    line("p50", "--c", over_time(|it| it.latency_p50_ms)),
                ],
            ),
        ),
        (
            "Latency by percentile",
            Plot {
                x: Axis::Percentiles,
                unit: "ms",
                lines: vec![line("latency", "--b", report.latency_percentiles.clone())],
            },
        ),
        (
            "Processor time of the server, % of a core",
            timed("%", vec![line("CPU", "--d", over_time(|it| it.cpu_percent))]),
        ),
        (
            "Resident memory of the server",
            timed("MB", vec![line("RSS", "--a", over_time(|it| Some(it.resident_bytes? as f64 / 1e6)))]),
        ),
        (
            "Packets lost per second",
            timed("/s", vec![line("lost", "--b", over_time(|it| Some(it.lost as f64)))]),
        ),
    ]
}

/// A whole number with its thousands apart.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        assert_eq!([0.0, 999.0, 1_000.0, 1_234_567.4].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn nothing_from_outside_is_markup() {
        assert_eq!(escape("<b>&"), "&lt;b&gt;&amp;");
    }
}
