//! Placement keeps many workers even, and a death touches only what was there; always the same numbers.

use bench::placement::{World, by_lot};

#[test]
fn sessions_spread_evenly_over_many_workers_and_deaths_move_only_their_own() {
    let mut world = World::new(50, 7, by_lot);
    world.open(20_000, 200);
    let balance = world.balance();
    assert!(balance.peak() < 1.25 && balance.least as f64 > 0.75 * balance.mean, "{balance:?}");
    let one = world.kill(1);
    assert!(one.lost > 300 && one.disturbed == 0, "{one:?}");
    // No one of the others is buried under what one had.
    assert!(one.takers > 45 && one.most_taken < one.lost / 10, "{one:?}");
    let more = world.kill(9);
    assert_eq!(more.disturbed, 0);
    let after = world.balance();
    assert!(after.peak() < 1.25, "{after:?}");
}

#[test]
fn two_survivors_of_three_share_what_the_third_had() {
    let mut world = World::new(3, 7, by_lot);
    world.open(900, 20);
    let failure = world.kill(1);
    assert_eq!(failure.takers, 2);
    assert!(failure.most_taken < failure.lost * 2 / 3, "{failure:?}");
    assert!(world.balance().peak() < 1.2, "{:?}", world.balance());
}
