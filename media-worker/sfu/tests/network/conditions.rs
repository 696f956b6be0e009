//! What must hold of the plans: each a figure of a run and a bound. The tests check them with the seeds that the estimate was
//! fitted to, `examples/seeds.rs` counts with how many others they hold.

use crate::sim::{MS, SECOND, Sample, World};

pub struct Condition {
    /// The plan's name.
    pub scenario: &'static str,
    pub says: &'static str,
    /// `NAN`: it never came to that.
    pub figure: fn(&World) -> f64,
    pub holds: fn(f64) -> bool,
}

const fn condition(
    scenario: &'static str,
    says: &'static str,
    figure: fn(&World) -> f64,
    holds: fn(f64) -> bool,
) -> Condition {
    Condition { scenario, says, figure, holds }
}

pub const CONDITIONS: &[Condition] = &[
    condition("drop", "sends no more than the link carries within 1 s (ms)", followed, |it| it < 1000.0),
    condition("drop", "gap in the voice at most 100 ms", |world| gap(world, 20, 75), |it| it <= 100.0),
    condition("drop", "estimate over 400 kbit/s of 500", |world| mean(world, 30, 50).1, |it| it > 4e5),
    condition("drop", "top layer back within 10 s (ms)", |world| back(world, 50, 2), |it| it < 1e4),
    condition("drop-fine", "sends no more than the link carries within 1 s (ms)", followed, |it| it < 1000.0),
    condition("drop-fine", "gap in the voice at most 100 ms", |world| gap(world, 20, 75), |it| it <= 100.0),
    condition("drop-fine", "goodput over 425 kbit/s of 500", |world| mean(world, 30, 50).0, |it| it > 4.25e5),
    condition("far", "goodput over 960 kbit/s of 1200", |world| mean(world, 20, 60).0, |it| it > 9.6e5),
    condition("loss-5", "frozen less than 1 %", frozen, |it| it < 1.0),
    condition("loss-5", "top layer more than 80 % of the time", top, |it| it > 80.0),
    condition("loss-20", "goodput over 500 kbit/s", |world| mean(world, 20, 60).0, |it| it > 5e5),
    condition("bursts", "goodput over 1 Mbit/s", |world| mean(world, 15, 60).0, |it| it > 1e6),
    condition("outage", "target less than half after 3 s without feedback (%)", kept, |it| it < 50.0),
    condition("outage", "top layer back within 8 s (ms)", |world| back(world, 24, 2), |it| it < 8e3),
    condition(
        "narrow",
        "sends less than 36 kbit/s over a link of 35",
        |world| sent(world, 28, 35),
        |it| it < 3.6e4,
    ),
    condition("narrow", "gap in the voice at most 100 ms", |world| gap(world, 26, 35), |it| it <= 100.0),
    condition("narrow", "picture back within 12 s (ms)", |world| back(world, 35, 0), |it| it < 1.2e4),
    condition("late", "estimate never below 100 kbit/s of 300", least, |it| it > 1e5),
    condition("late", "picture suspended less than a quarter of the time (%)", suspended, |it| it < 25.0),
    condition(
        "late",
        "sends no more than the link carries, 25 to 40 s",
        |world| sent(world, 25, 40),
        |it| it < 3e5,
    ),
    condition("pauses", "estimate never below 100 kbit/s of 300", least, |it| it > 1e5),
    condition("pauses", "picture suspended less than a quarter of the time (%)", suspended, |it| it < 25.0),
    condition(
        "pauses",
        "sends no more than the link carries, 25 to 40 s",
        |world| sent(world, 25, 40),
        |it| it < 3e5,
    ),
    condition("two", "both together over 1.6 Mbit/s of 2", |world| shares(world).0, |it| it > 1.6e6),
    condition("two", "the smaller share over 300 kbit/s", |world| shares(world).1, |it| it > 3e5),
];

fn followed(world: &World) -> f64 {
    let within = world.subscribers[0].within(20 * SECOND, 49 * SECOND, 5e5);
    within.map_or(f64::NAN, |after| (after / MS) as f64)
}

fn gap(world: &World, from: i64, to: i64) -> f64 {
    (world.subscribers[0].longest_gap(from * SECOND, to * SECOND) / MS) as f64
}

/// Goodput and estimate.
fn mean(world: &World, from: i64, to: i64) -> (f64, f64) {
    let subscriber = &world.subscribers[0];
    let (from, to) = (from * SECOND, to * SECOND);
    let goodput = subscriber.mean(from, to, |sample| sample.goodput);
    (goodput, subscriber.mean(from, to, |sample| sample.estimate))
}

fn sent(world: &World, from: i64, to: i64) -> f64 {
    world.subscribers[0].mean(from * SECOND, to * SECOND, |sample| sample.sent)
}

fn back(world: &World, from: i64, layer: usize) -> f64 {
    let after = world.subscribers[0].reaches(from * SECOND, layer);
    after.map_or(f64::NAN, |after| (after / MS) as f64)
}

fn frozen(world: &World) -> f64 {
    100.0 * world.subscribers[0].frozen(5 * SECOND, 60 * SECOND)
}

fn top(world: &World) -> f64 {
    let samples = &world.subscribers[0].samples;
    100.0 * samples.iter().filter(|it| it.layer == Some(2)).count() as f64 / samples.len() as f64
}

fn kept(world: &World) -> f64 {
    let target =
        |from: i64, to: i64| world.subscribers[0].mean(from * SECOND, to * SECOND, |sample| sample.target);
    100.0 * target(23, 24) / target(10, 20)
}

/// Of the estimates on the narrow link.
fn least(world: &World) -> f64 {
    narrowed(world).map(|sample| sample.estimate).fold(f64::INFINITY, f64::min)
}

fn suspended(world: &World) -> f64 {
    let all = narrowed(world).count();
    100.0 * narrowed(world).filter(|sample| sample.layer.is_none()).count() as f64 / all as f64
}

fn narrowed(world: &World) -> impl Iterator<Item = &Sample> {
    world.subscribers[0].samples.iter().filter(|sample| (20 * SECOND..40 * SECOND).contains(&sample.at))
}

fn shares(world: &World) -> (f64, f64) {
    let share =
        |index: usize| world.subscribers[index].mean(50 * SECOND, 90 * SECOND, |sample| sample.goodput);
    (share(0) + share(1), share(0).min(share(1)))
}
