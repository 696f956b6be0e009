//! The control plane under seeded schedules in virtual time: `docs/SIMULATION.md`.
//!
//! ```text
//!   seed ─▶ chance ─▶ clients ──▶ API instances (real) ──▶ broker and store (embedded, real)
//!                 └─▶ faults ───▶ workers (real) ────────▶      through wrappers that delay, lose, repeat
//! ```
//!
//! | file | is |
//! |---|---|
//! | `schedule` | one seed, from its first moment to its verdict |
//! | `world`, `random`, `trace` | what all share: time, chance, records |
//! | `process` | a process that stands still or dies as a whole, at any of its operations |
//! | `broker`, `store`, `media` | the edges of a process |
//! | `servers`, `client`, `faults` | who lives in a schedule, and what befalls them |
//! | `ledger`, `invariants` | what must never be, and what must be true at the end |

mod broker;
mod client;
mod faults;
mod invariants;
mod ledger;
mod media;
mod process;
mod random;
mod schedule;
mod servers;
mod store;
mod trace;
mod world;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use schedule::Verdict;
use world::Sabotage;

/// Where the seeds of CI begin: the same schedules every time.
const FIRST_SEED: u64 = 1;
const SCHEDULES: u64 = 10_000;
/// Failing seeds after which the rest is not run.
const ENOUGH: usize = 10;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, and is {text:?}")))
}

/// Runs the seeds on all cores, until so many have failed.
fn explore(
    first: u64,
    count: u64,
    enough: usize,
    sabotage: Option<Sabotage>,
) -> (BTreeMap<u64, Verdict>, u64) {
    let (next, done) = (AtomicU64::new(first), AtomicU64::new(0));
    let failed = Mutex::new(BTreeMap::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failed.lock().unwrap().len() < enough {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let verdict = schedule::run(seed, false, sabotage);
                    done.fetch_add(1, Ordering::Relaxed);
                    if !verdict.violations.is_empty() {
                        failed.lock().unwrap().insert(seed, verdict);
                    }
                }
            });
        }
    });
    (failed.into_inner().unwrap(), done.into_inner())
}

#[test]
fn no_schedule_breaks_a_promise() {
    if let Some(seed) = setting("SWITCHYARD_SIMULATION_SEED") {
        let verdict = schedule::run(seed, true, None);
        verdict.trace.iter().for_each(|line| println!("{line}"));
        assert!(verdict.violations.is_empty(), "seed {seed}: {:#?}", verdict.violations);
        return;
    }
    let first = setting("SWITCHYARD_SIMULATION_FIRST").unwrap_or(FIRST_SEED);
    let count = setting("SWITCHYARD_SIMULATION_SCHEDULES").unwrap_or(SCHEDULES);
    let started = Instant::now();
    let (failed, done) = explore(first, count, ENOUGH, None);
    let seconds = started.elapsed().as_secs_f64();
    println!("{done} schedules in {seconds:.1} s, {:.0} per second", done as f64 / seconds);
    for (seed, verdict) in &failed {
        eprintln!("seed {seed}: {:#?}", verdict.violations);
        eprintln!(
            "to replay: SWITCHYARD_SIMULATION_SEED={seed} cargo test --test simulation -- --nocapture no_schedule"
        );
    }
    assert!(failed.is_empty(), "seeds {:?} failed", failed.keys());
}

#[test]
fn a_seed_is_the_same_schedule_every_time() {
    for seed in 1..=40 {
        let (first, again) = (schedule::run(seed, true, None), schedule::run(seed, true, None));
        let differs = first.trace.iter().zip(&again.trace).find(|(first, again)| first != again);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first.trace.len(), again.trace.len(), "seed {seed}");
        assert!(first.trace.len() > 100, "seed {seed} is a schedule in which something happens");
    }
}

fn is_found(sabotage: Sabotage) {
    is_found_among(400, sabotage);
}

fn is_found_among(schedules: u64, sabotage: Sabotage) {
    let (failed, done) = explore(1, schedules, 1, Some(sabotage));
    assert!(!failed.is_empty(), "{done} schedules did not notice {sabotage:?}");
}

#[test]
fn it_is_noticed_when_deliveries_are_acknowledged_before_they_are_handled() {
    is_found(Sabotage::AcknowledgedEarly);
}

#[test]
fn it_is_noticed_when_the_change_stream_is_silent() {
    is_found(Sabotage::ChangesForgotten);
}

#[test]
fn it_is_noticed_when_an_event_misses_a_queue() {
    is_found(Sabotage::FanoutIncomplete);
}

#[test]
fn it_is_noticed_when_nobody_remembers_which_joins_were_done() {
    is_found(Sabotage::JoinsForgotten);
}

#[test]
fn it_is_noticed_when_nobody_remembers_which_leaves_were_done() {
    is_found_among(4_000, Sabotage::LeavesForgotten);
}

#[test]
fn it_is_noticed_when_a_participant_is_stored_in_a_later_epoch() {
    // A join must be overtaken by a change of its session's place.
    is_found_among(4_000, Sabotage::EpochIgnored);
}

#[test]
fn it_is_noticed_when_events_are_reordered() {
    is_found(Sabotage::Reordered);
}
