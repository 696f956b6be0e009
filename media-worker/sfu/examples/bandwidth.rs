//! Draws `docs/bandwidth/*.svg` and writes the table of `docs/BANDWIDTH.md` between its marks: every plan of
//! the network tests, in virtual time, with one seed.
//!
//! `cargo run -p sfu --example bandwidth`, in any folder of the repository.

#[path = "../tests/network/scenarios.rs"]
mod scenarios;
#[path = "../tests/network/sim/mod.rs"]
mod sim;

use std::fmt::Write;
use std::path::Path;
use std::{fs, io};

use scenarios::{ALL, SEED};
use sim::{MS, SECOND, Sample, Subscriber, World};

const BEGIN: &str = "<!-- figures -->\n";
const END: &str = "<!-- end of figures -->";
const SIZE: (f64, f64) = (760.0, 240.0);
/// Left, top, right, bottom.
const MARGIN: (f64, f64, f64, f64) = (48.0, 28.0, 8.0, 24.0);
/// Samples that make one point.
const JOIN: usize = 5;

fn main() -> io::Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    fs::create_dir_all(docs.join("bandwidth"))?;
    let mut table = String::from(
        "| plan | carried | estimate | goodput | longest gap in the voice | frozen |\n|---|---|---|---|---|---|\n",
    );
    for scenario in ALL {
        let mut world = (scenario.world)(SEED);
        world.run(scenario.length * SECOND);
        fs::write(
            docs.join("bandwidth").join(format!("{}.svg", scenario.name)),
            plot(scenario.title, &world),
        )?;
        for subscriber in &world.subscribers {
            row(&mut table, scenario.title, subscriber, scenario.length * SECOND);
        }
    }
    let page = docs.join("BANDWIDTH.md");
    let text = fs::read_to_string(&page)?;
    let marks = text.split_once(BEGIN).and_then(|(head, rest)| Some((head, rest.split_once(END)?.1)));
    let Some((head, tail)) = marks else {
        return Err(io::Error::other("docs/BANDWIDTH.md has no marks for the figures"));
    };
    fs::write(page, format!("{head}{BEGIN}{table}{END}{tail}"))
}

/// The first five seconds, in which a path is met, do not count.
fn row(table: &mut String, title: &str, subscriber: &Subscriber, until: i64) {
    let from = subscriber.samples.first().map_or(0, |sample| sample.at) + 5 * SECOND;
    let mean = |of: fn(&Sample) -> f64| subscriber.mean(from, until, of) / 1e3;
    let _ = writeln!(
        table,
        "| {title} | {:.0} | {:.0} | {:.0} kbit/s | {} ms | {:.2} % |",
        mean(|it| it.capacity),
        mean(|it| it.estimate.min(2.0 * it.capacity)),
        mean(|it| it.goodput),
        subscriber.longest_gap(from, until) / MS,
        100.0 * subscriber.frozen(from, until),
    );
}

fn plot(title: &str, world: &World) -> String {
    let first = &world.subscribers[0];
    let length = first.samples.last().map_or(1, |sample| sample.at) as f64;
    let highest = first.samples.iter().map(|it| it.capacity).fold(0.0, f64::max) * 1.25;
    let (left, top, right, bottom) = MARGIN;
    let x = |at: f64| left + at / length * (SIZE.0 - left - right);
    let y = |rate: f64| top + (1.0 - rate.min(highest) / highest) * (SIZE.1 - top - bottom);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"{left}\" y=\"14\" \
         font-size=\"12\">{title}</text>\n",
        SIZE.0, SIZE.1
    );
    for share in [0.25, 0.5, 0.75, 1.0] {
        let rate = highest * share / 1.25;
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {0:.1}H{1}\" stroke=\"#ddd\"/><text x=\"{2}\" y=\"{3:.1}\" \
             text-anchor=\"end\">{4:.0}</text>",
            y(rate),
            SIZE.0 - right,
            left - 4.0,
            y(rate) + 4.0,
            rate / 1e3
        );
    }
    for seconds in (0..=(length / 1e6) as i64).step_by(10) {
        let at = x((seconds * SECOND) as f64);
        let _ = writeln!(
            svg,
            "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{seconds} s</text>",
            SIZE.1 - 8.0
        );
    }
    let mut legend = 330.0;
    let mut line = |subscriber: &Subscriber, of: fn(&Sample) -> f64, colour: &str, width: f64, name: &str| {
        let mut path = String::new();
        for joined in subscriber.samples.chunks(JOIN) {
            let rate = joined.iter().map(of).sum::<f64>() / joined.len() as f64;
            let at = joined[joined.len() - 1].at as f64;
            let letter = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{letter}{:.0} {:.0}", x(at), y(rate));
        }
        let _ =
            writeln!(svg, "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>");
        if !name.is_empty() {
            let _ = writeln!(svg, "<text x=\"{legend}\" y=\"14\" fill=\"{colour}\">{name}</text>");
            legend += 110.0;
        }
    };
    line(first, |it| it.capacity, "#999", 1.0, "link (kbit/s)");
    line(first, |it| it.estimate, "#e69f00", 1.0, "estimate");
    line(first, |it| it.target, "#0072b2", 1.0, "target");
    line(first, |it| it.goodput, "#009e73", 1.5, "goodput");
    for other in &world.subscribers[1..] {
        line(other, |it| it.estimate, "#e69f00", 0.5, "");
        line(other, |it| it.goodput, "#cc79a7", 1.5, "");
    }
    svg + "</svg>\n"
}
