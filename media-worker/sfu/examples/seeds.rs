//! With how many seeds that the estimate was never fitted to the conditions of the network tests hold.
//!
//! `cargo run --release -p sfu --example seeds -- 200 1000` runs 200 seeds from 1000 on and writes a table.

#[path = "../tests/network/conditions.rs"]
mod conditions;
#[path = "../tests/network/scenarios.rs"]
mod scenarios;
#[path = "../tests/network/sim/mod.rs"]
mod sim;

use conditions::{CONDITIONS, Condition};
use scenarios::{ALL, SEED};
use sim::SECOND;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|it| it.parse::<u64>().expect("a number"));
    let (count, first) = (arguments.next().unwrap_or(200), arguments.next().unwrap_or(1000));
    // Those of the tests are not fresh.
    let first = first.max(SEED + 100);
    let mut figures: Vec<Vec<(u64, f64)>> = vec![Vec::new(); CONDITIONS.len()];
    for scenario in ALL {
        for seed in first..first + count {
            let mut world = (scenario.world)(seed);
            world.run(scenario.length * SECOND);
            let of_it = CONDITIONS.iter().zip(&mut figures).filter(|(it, _)| it.scenario == scenario.name);
            of_it.for_each(|(condition, figures)| figures.push((seed, (condition.figure)(&world))));
        }
    }
    println!("| plan | condition | holds | least | median | most |\n|---|---|---|---|---|---|");
    for (condition, mut figures) in CONDITIONS.iter().zip(figures) {
        let holds = figures.iter().filter(|(_, figure)| (condition.holds)(*figure)).count();
        let failed: Vec<u64> =
            figures.iter().filter(|(_, figure)| !(condition.holds)(*figure)).map(|(seed, _)| *seed).collect();
        figures.sort_by(|(_, one), (_, other)| one.total_cmp(other));
        let at = |index: usize| figures.get(index).map_or(f64::NAN, |(_, figure)| *figure);
        let (least, median, most) = (at(0), at(figures.len() / 2), at(figures.len().saturating_sub(1)));
        let Condition { scenario, says, .. } = condition;
        let title = ALL.iter().find(|it| it.name == *scenario).map_or("", |it| it.title);
        println!("| {title} | {says} | {holds} of {count} | {least:.0} | {median:.0} | {most:.0} |");
        if !failed.is_empty() {
            eprintln!("{scenario}, {says}: fails with seeds {failed:?}");
        }
    }
}
