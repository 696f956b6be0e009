//! A subscriber's path in virtual time: what the estimate, the layers, the voice and the picture do on links
//! that change, lose, delay and are shared. `docs/BANDWIDTH.md` shows the same plans as plots.

mod conditions;
mod scenarios;
mod sim;

use conditions::CONDITIONS;
use scenarios::{ALL, SEED, Scenario};
use sim::SECOND;

fn find(name: &str) -> &'static Scenario {
    ALL.iter().find(|it| it.name == name).expect("a scenario of that name")
}

/// Everything that must hold of a plan holds with the seeds that the estimate was fitted to.
fn holds(name: &str) {
    let scenario = find(name);
    for seed in SEED..SEED + 5 {
        let mut world = (scenario.world)(seed);
        world.run(scenario.length * SECOND);
        for condition in CONDITIONS.iter().filter(|it| it.scenario == name) {
            let figure = (condition.figure)(&world);
            println!("{}, seed {seed}: {}: {figure:.0}", scenario.title, condition.says);
            assert!((condition.holds)(figure), "{name}, seed {seed}: {}: {figure}", condition.says);
        }
    }
}

#[test]
fn a_drop_is_followed_within_a_second_without_a_hole_in_the_voice_and_the_top_layer_is_back_soon() {
    holds("drop");
}

#[test]
fn a_narrow_link_is_used_well() {
    holds("drop-fine");
}

#[test]
fn random_loss_freezes_little_and_costs_no_layer() {
    holds("loss-5");
    // A fifth lost is no reason to send next to nothing.
    holds("loss-20");
}

#[test]
fn a_long_way_is_used_well_too() {
    holds("far");
}

#[test]
fn bursts_jitter_and_reordering_are_no_congestion() {
    holds("bursts");
}

#[test]
fn without_feedback_less_is_sent_and_afterwards_as_before() {
    holds("outage");
}

#[test]
fn a_very_narrow_link_keeps_the_voice_and_gets_its_picture_back() {
    holds("narrow");
}

#[test]
fn packets_that_are_held_up_are_no_queue() {
    holds("late");
}

#[test]
fn a_path_that_stands_still_for_moments_is_no_narrower_one() {
    holds("pauses");
}

#[test]
fn two_share_a_link() {
    holds("two");
}

#[test]
fn every_condition_is_of_a_plan_that_there_is() {
    for condition in CONDITIONS {
        find(condition.scenario);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut world = (find("bursts").world)(seed);
        world.run(10 * SECOND);
        world.subscribers[0].samples.iter().map(|it| (it.sent as u64, it.received as u64)).collect::<Vec<_>>()
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}
