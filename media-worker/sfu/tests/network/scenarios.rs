//! The plans that are tested, and plotted into `docs/BANDWIDTH.md`.

use crate::sim::{Ladder, MS, Plan, SECOND, World};

pub const SEED: u64 = 7;

pub struct Scenario {
    pub name: &'static str,
    pub title: &'static str,
    /// In seconds.
    pub length: i64,
    pub world: fn(seed: u64) -> World,
}

pub const ALL: &[Scenario] = &[
    Scenario {
        name: "drop",
        title: "2 Mbit/s, from 20 s to 50 s 500 kbit/s; simulcast",
        length: 75,
        world: drop,
    },
    Scenario {
        name: "drop-fine",
        title: "2 Mbit/s, from 20 s to 50 s 500 kbit/s; scalable video in fine steps",
        length: 75,
        world: drop_fine,
    },
    Scenario { name: "far", title: "150 ms round trip, 1.2 Mbit/s", length: 60, world: far },
    Scenario { name: "loss-5", title: "5 % random loss, 3 Mbit/s", length: 60, world: loss_5 },
    Scenario { name: "loss-20", title: "20 % random loss, 3 Mbit/s", length: 60, world: loss_20 },
    Scenario {
        name: "bursts",
        title: "Loss in bursts, jitter, reordering, 2.5 Mbit/s",
        length: 60,
        world: bursts,
    },
    Scenario { name: "outage", title: "No feedback from 20 s to 24 s, 2 Mbit/s", length: 45, world: outage },
    Scenario { name: "narrow", title: "300 kbit/s, from 20 s to 35 s 35 kbit/s", length: 60, world: narrow },
    Scenario {
        name: "late",
        title: "3 Mbit/s, from 20 s to 40 s 300 kbit/s, packets held up for as long as 200 ms; camera of 10 frames/s",
        length: 60,
        world: late,
    },
    Scenario {
        name: "pauses",
        title: "3 Mbit/s, from 20 s to 40 s 300 kbit/s, and for 150 ms of each second nothing; camera of 10 frames/s",
        length: 60,
        world: pauses,
    },
    Scenario {
        name: "two",
        title: "Two subscribers behind 2 Mbit/s, the second from 20 s on",
        length: 90,
        world: two,
    },
];

pub fn stepped() -> Plan {
    Plan::new(2e6).then(20 * SECOND, 5e5).then(50 * SECOND, 2e6)
}

fn drop(seed: u64) -> World {
    World::one(seed, stepped(), Ladder::simulcast())
}

fn drop_fine(seed: u64) -> World {
    World::one(seed, stepped(), Ladder::fine())
}

fn far(seed: u64) -> World {
    World::one(seed, Plan { delay: 75 * MS, ..Plan::new(1.2e6) }, Ladder::fine())
}

fn loss_5(seed: u64) -> World {
    World::one(seed, Plan { loss: 0.05, ..Plan::new(3e6) }, Ladder::simulcast())
}

fn loss_20(seed: u64) -> World {
    World::one(seed, Plan { loss: 0.2, ..Plan::new(3e6) }, Ladder::simulcast())
}

fn bursts(seed: u64) -> World {
    let plan = Plan { bursts: Some((0.002, 0.2, 0.5)), jitter: 15 * MS, reordered: 0.01, ..Plan::new(2.5e6) };
    World::one(seed, plan, Ladder::simulcast())
}

fn outage(seed: u64) -> World {
    let mut world = World::one(seed, Plan::new(2e6), Ladder::simulcast());
    world.uplink().outages.push((20 * SECOND, 24 * SECOND));
    world
}

fn narrow(seed: u64) -> World {
    let plan = Plan { queue: 1500 * MS, ..Plan::new(3e5) }.then(20 * SECOND, 3.5e4).then(35 * SECOND, 3e5);
    World::one(seed, plan, Ladder::simulcast())
}

fn late(seed: u64) -> World {
    let plan = Plan { delay: MS, jitter: 200 * MS, queue: 30 * MS, ..Plan::new(3e6) };
    World::one(seed, plan.then(20 * SECOND, 3e5).then(40 * SECOND, 3e6), Ladder::slow())
}

fn pauses(seed: u64) -> World {
    let plan = Plan { delay: MS, pauses: Some(150 * MS), queue: 30 * MS, ..Plan::new(3e6) };
    World::one(seed, plan.then(20 * SECOND, 3e5).then(40 * SECOND, 3e6), Ladder::slow())
}

fn two(seed: u64) -> World {
    let mut world = World::one(seed, Plan::new(2e6), Ladder::fine());
    let controller = Box::new(crate::sim::Ours::new(world.epoch()));
    world.join(20 * SECOND, Ladder::fine(), controller);
    world
}
