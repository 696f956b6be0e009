//! Bandwidth estimators that can be called purely, in the same simulator, server and allocation as ours: a table of
//! what each makes of every plan. `cargo run --release` here; `docs/BANDWIDTH.md` has the result.

#[path = "../../../media-worker/sfu/tests/network/scenarios.rs"]
mod scenarios;
#[path = "../../../media-worker/sfu/tests/network/sim/mod.rs"]
mod sim;

mod goog;
mod rtc;

use std::time::Instant;

use scenarios::{ALL, SEED};
use sim::{Controller, MS, Ours, SECOND};

fn main() {
    println!("| plan | estimator | carried | goodput (kbit/s) | frozen | longest gap in the voice |");
    println!("|---|---|---|---|---|---|");
    type Make = fn(Instant) -> Box<dyn Controller>;
    let all: [(&str, Make); 3] = [
        ("ours", |now| Box::new(Ours::new(now))),
        ("goog_cc", |now| Box::new(goog::GoogCc::new(now))),
        ("rtc-interceptor", |now| Box::new(rtc::Gcc::new(now))),
    ];
    // The last plan has two subscribers, and says something of ours only.
    for scenario in ALL.iter().filter(|it| it.name != "two") {
        for (name, make) in &all {
            let (mut goodput, mut frozen, mut gap, mut carried) = (0.0, 0.0, 0, 0.0);
            const SEEDS: u64 = 5;
            for seed in SEED..SEED + SEEDS {
                let mut world = (scenario.world)(seed);
                let controller = make(world.epoch());
                world.subscribers[0].server.controller = controller;
                world.run(scenario.length * SECOND);
                let subscriber = &world.subscribers[0];
                let (from, until) = (5 * SECOND, scenario.length * SECOND);
                goodput += subscriber.mean(from, until, |it| it.goodput) / 1e3 / SEEDS as f64;
                carried += subscriber.mean(from, until, |it| it.capacity) / 1e3 / SEEDS as f64;
                frozen += subscriber.frozen(from, until) * 100.0 / SEEDS as f64;
                gap = gap.max(subscriber.longest_gap(from, until));
            }
            println!(
                "| {} | {name} | {carried:.0} | {goodput:.0} | {frozen:.2} % | {} ms |",
                scenario.title,
                gap / MS
            );
        }
    }
}
