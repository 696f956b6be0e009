//! What all processes of a schedule share: chance, time, the broker, the store, and the records that the invariants are
//! checked against.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use common::ambient;
use common::broker::embedded::EmbeddedBroker;
use common::model::RunId;
use common::store::embedded::EmbeddedStore;
use common::time::UnixMillis;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ledger::Ledger;
use crate::media::Peers;
use crate::process::Process;
use crate::random::Random;
use crate::trace::Trace;

/// A defect that is built in on purpose, to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// Deliveries count as acknowledged when they are handed out.
    AcknowledgedEarly,
    /// The change stream tells of nothing.
    ChangesForgotten,
    /// A confirmed message to an exchange reaches all queues but one, now and then.
    FanoutIncomplete,
    /// Of two events that wait in a user queue, the second comes first.
    Reordered,
    /// The store does not remember which joins were done.
    JoinsForgotten,
    /// Nor which leaves.
    LeavesForgotten,
    /// A participant is stored whatever the session's epoch is by then.
    EpochIgnored,
}

/// How rough a schedule is besides its great faults.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Operations that take some 10 ms, per mille.
    pub slow: u64,
    /// Sends whose confirmation is lost, per mille.
    pub lost_confirms: u64,
    /// Commands that arrive a second time later, per mille.
    pub repeats: u64,
    /// Writes whose reply is lost, per mille.
    pub lost_replies: u64,
    /// Requests whose connection to the API breaks, per mille.
    pub broken_requests: u64,
}

impl Weather {
    fn of(random: &mut Random) -> Self {
        let mut up_to = |most: u64| if random.per_mille(500) { 0 } else { random.between(1, most) };
        Self {
            slow: up_to(150),
            lost_confirms: up_to(20),
            repeats: up_to(80),
            lost_replies: up_to(10),
            broken_requests: up_to(80),
        }
    }
}

/// The schedule's chance; locked for single draws only.
#[derive(Clone, Copy)]
pub struct Chance<'a>(&'a Mutex<Random>);

impl Chance<'_> {
    pub fn bits(self) -> u64 {
        self.0.lock().unwrap().bits()
    }

    /// A number from 0 up to and not including `bound`.
    pub fn below(self, bound: u64) -> u64 {
        self.0.lock().unwrap().below(bound)
    }

    /// A number from `low` up to and including `high`.
    pub fn between(self, low: u64, high: u64) -> u64 {
        self.0.lock().unwrap().between(low, high)
    }

    /// One of so many.
    pub fn index(self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// `true` so often in a thousand.
    pub fn per_mille(self, often: u64) -> bool {
        self.below(1_000) < often
    }

    pub fn millis(self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }
}

pub struct World {
    random: Mutex<Random>,
    start: Instant,
    trace: Trace,
    /// A connection that never breaks, for whoever is no process.
    pub broker: EmbeddedBroker,
    pub store: EmbeddedStore,
    /// Told of every write.
    pub stored: Notify,
    pub ledger: Mutex<Ledger>,
    pub peers: Mutex<Peers>,
    /// Which process wrote a worker's row.
    runs: Mutex<BTreeMap<RunId, Arc<Process>>>,
    pub weather: Weather,
    pub sabotage: Option<Sabotage>,
    broker_down: AtomicBool,
    store_down: AtomicBool,
    calm: CancellationToken,
}

impl World {
    pub fn new(seed: u64, traced: bool, sabotage: Option<Sabotage>) -> Arc<Self> {
        let mut random = Random::new(seed);
        let weather = Weather::of(&mut random);
        Arc::new(Self {
            random: Mutex::new(random),
            start: Instant::now(),
            trace: Trace::new(traced),
            broker: EmbeddedBroker::new(),
            store: EmbeddedStore::new(),
            stored: Notify::new(),
            ledger: Mutex::default(),
            peers: Mutex::default(),
            runs: Mutex::default(),
            weather,
            sabotage,
            broker_down: AtomicBool::new(false),
            store_down: AtomicBool::new(false),
            calm: CancellationToken::new(),
        })
    }

    pub fn random(&self) -> Chance<'_> {
        Chance(&self.random)
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    pub fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap()
    }

    pub fn runs(&self) -> MutexGuard<'_, BTreeMap<RunId, Arc<Process>>> {
        self.runs.lock().unwrap()
    }

    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub fn note(&self, who: &str, what: impl FnOnce() -> String) {
        self.trace.note(self.elapsed(), who, what);
    }

    pub fn take_trace(&self) -> Vec<String> {
        self.trace.take()
    }

    /// Something that must never be.
    pub fn violated(&self, what: String) {
        self.note("VIOLATION", || what.clone());
        self.ledger().violations.push(what);
    }

    /// From now on nothing befalls anybody.
    pub fn calm_down(&self) {
        self.note("world", || "the faults are over".to_owned());
        self.calm.cancel();
    }

    pub fn is_calm(&self) -> bool {
        self.calm.is_cancelled()
    }

    pub fn calm(&self) -> CancellationToken {
        self.calm.clone()
    }

    /// Whether something with this rate befalls somebody now.
    pub fn befalls(&self, per_mille: u64) -> bool {
        per_mille > 0 && !self.is_calm() && self.random().per_mille(per_mille)
    }

    /// How long one way of one operation takes.
    pub fn delay(&self) -> Duration {
        let slow = if self.is_calm() { 0 } else { self.weather.slow };
        let random = self.random();
        if random.per_mille(slow) {
            return random.millis(5, 40);
        }
        // Most take less than a millisecond, and some of those overtake each other by it.
        if random.per_mille(600) { Duration::ZERO } else { random.millis(1, 3) }
    }

    pub fn broker_is_down(&self) -> bool {
        self.broker_down.load(Ordering::Relaxed)
    }

    pub fn set_broker_down(&self, down: bool) {
        self.broker_down.store(down, Ordering::Relaxed);
        self.note("broker", || if down { "DOWN" } else { "UP" }.to_owned());
    }

    pub fn store_is_down(&self) -> bool {
        self.store_down.load(Ordering::Relaxed)
    }

    pub fn set_store_down(&self, down: bool) {
        self.store_down.store(down, Ordering::Relaxed);
        self.note("store", || if down { "DOWN" } else { "UP" }.to_owned());
    }
}

/// The clock, chance and ids of the code under test, steered by the schedule.
pub struct Ambient {
    world: Arc<World>,
    random: Random,
    count: u64,
}

impl Ambient {
    pub fn new(world: Arc<World>) -> Self {
        let random = Random::new(world.random().bits());
        Self { world, random, count: 0 }
    }
}

impl ambient::Source for Ambient {
    fn now(&mut self) -> UnixMillis {
        // Some day in 2026, the same for every schedule.
        UnixMillis(1_790_000_000_000).plus(self.world.elapsed())
    }

    fn random(&mut self) -> u64 {
        self.random.bits()
    }

    fn count(&mut self) -> u64 {
        self.count += 1;
        self.count
    }
}
