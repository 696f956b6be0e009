//! Many workers and very many sessions in virtual time: where the worker's own placement puts them.
//!
//! What is real is the decision ([`media_worker::choose_worker`]) and what it sees: rows as old as the last heartbeat. What
//! is supposed: sizes of sessions, how soon people come, what each costs ([`ENDPOINT_BYTES`], as measured).

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use common::model::{RunId, SessionId, Worker, WorkerId, WorkerLoad, WorkerState};
use common::time::UnixMillis;
use uuid::Uuid;

/// What a worker needs without anybody, and for each endpoint (`docs/OPERATIONS.md`).
const EMPTY_BYTES: i64 = 40 << 20;
const ENDPOINT_BYTES: i64 = 70_000;
/// Rows say what was so at the last heartbeat: a third of the lease (6 s).
const HEARTBEAT_MS: i64 = 2_000;
/// The first one places a session; all are there after this.
const ARRIVAL_MS: i64 = 30_000;
const TICK_MS: i64 = 100;

/// Who decides, from the rows that it sees.
pub type Decide = fn(&[Worker], SessionId, UnixMillis) -> Option<WorkerId>;

/// As the worker does it.
pub fn by_lot(workers: &[Worker], session: SessionId, now: UnixMillis) -> Option<WorkerId> {
    media_worker::choose_worker(workers, None, session, now)
}

/// For comparison: always the one that seems the lightest.
pub fn the_lightest(workers: &[Worker], _: SessionId, now: UnixMillis) -> Option<WorkerId> {
    let takers = workers.iter().filter(|worker| worker.takes_pipelines(now));
    takers
        .min_by_key(|worker| (worker.load.memory_bytes, worker.load.endpoints, worker.id))
        .map(|worker| worker.id)
}

/// How many endpoints workers have.
#[derive(Debug, Clone, Copy)]
pub struct Balance {
    pub workers: usize,
    pub mean: f64,
    pub least: i64,
    pub most: i64,
}

impl Balance {
    /// The fullest worker, as a multiple of the mean.
    pub fn peak(&self) -> f64 {
        self.most as f64 / self.mean
    }
}

/// What the death of some workers did.
#[derive(Debug, Clone, Copy)]
pub struct Failure {
    /// Sessions that were on them, and were placed anew.
    pub lost: usize,
    /// Sessions on other workers that were moved: none, or placement is not what it says.
    pub disturbed: usize,
    /// How many living workers got some, and the most that one of them got.
    pub takers: usize,
    pub most_taken: usize,
}

struct Hosted {
    session: SessionId,
    worker: usize,
    size: i64,
}

/// The cluster.
pub struct World {
    decide: Decide,
    now: UnixMillis,
    /// What everybody sees.
    rows: Vec<Worker>,
    /// What is so.
    endpoints: Vec<i64>,
    dead: BTreeSet<usize>,
    sessions: Vec<Hosted>,
    /// Who is still to come: when, and to which session.
    coming: VecDeque<(i64, usize)>,
    random: u64,
    decisions: u64,
    deciding: Duration,
}

impl World {
    pub fn new(workers: usize, seed: u64, decide: Decide) -> Self {
        let row = |number: usize| Worker {
            id: WorkerId::from_uuid(Uuid::from_u128(number as u128 + 1)),
            run: RunId::from_uuid(Uuid::from_u128(1)),
            address: String::new(),
            lease_until: UnixMillis(i64::MAX),
            state: WorkerState::Ready,
            load: WorkerLoad { memory_bytes: EMPTY_BYTES, ..WorkerLoad::default() },
            broker_away_since: None,
        };
        Self {
            decide,
            now: UnixMillis(0),
            rows: (0..workers).map(row).collect(),
            endpoints: vec![0; workers],
            dead: BTreeSet::new(),
            sessions: Vec::new(),
            coming: VecDeque::new(),
            random: seed,
            decisions: 0,
            deciding: Duration::ZERO,
        }
    }

    /// Opens so many sessions, `each_second` of them, and waits until everybody is there.
    pub fn open(&mut self, sessions: usize, each_second: usize) {
        let for_each_tick = each_second as f64 * TICK_MS as f64 / 1_000.0;
        let (mut opened, mut due) = (0, 0.0);
        while opened < sessions || !self.coming.is_empty() {
            due += for_each_tick;
            while due >= 1.0 && opened < sessions {
                due -= 1.0;
                opened += 1;
                self.open_one();
            }
            self.tick();
        }
        for _ in 0..HEARTBEAT_MS / TICK_MS {
            self.tick();
        }
    }

    fn open_one(&mut self) {
        let session =
            SessionId::from_uuid(Uuid::from_u128((u128::from(self.next()) << 64) | u128::from(self.next())));
        // Most calls are small: six of ten are of two, one of a hundred is of a hundred.
        let size = match self.next() % 100 {
            0..60 => 2,
            60..90 => 3 + (self.next() % 6) as i64,
            90..99 => 10 + (self.next() % 16) as i64,
            _ => 100,
        };
        let worker = self.place(session);
        self.sessions.push(Hosted { session, worker, size });
        self.endpoints[worker] += 1;
        let last = self.now.0 + ARRIVAL_MS;
        self.coming.push_back((last, self.sessions.len() - 1));
    }

    fn place(&mut self, session: SessionId) -> usize {
        let started = Instant::now();
        let chosen = (self.decide)(&self.rows, session, self.now).expect("somebody is alive");
        self.deciding += started.elapsed();
        self.decisions += 1;
        (chosen.uuid().as_u128() - 1) as usize
    }

    /// A tenth of a second: heartbeats of those whose turn it is, and everyone who comes.
    fn tick(&mut self) {
        self.now = UnixMillis(self.now.0 + TICK_MS);
        while let Some((_, session)) = self.coming.pop_front_if(|(at, _)| *at <= self.now.0) {
            let hosted = &self.sessions[session];
            self.endpoints[hosted.worker] += hosted.size - 1;
        }
        let turns = (HEARTBEAT_MS / TICK_MS) as usize;
        let turn = (self.now.0 / TICK_MS) as usize % turns;
        for number in (turn..self.rows.len()).step_by(turns) {
            let endpoints = self.endpoints[number];
            self.rows[number].load.endpoints = endpoints;
            self.rows[number].load.memory_bytes = EMPTY_BYTES + endpoints * ENDPOINT_BYTES;
        }
    }

    /// Ends so many workers at once. Their people come back within three seconds, the first of each session in the first
    /// 300 ms, when no living worker has written a row that tells of it.
    pub fn kill(&mut self, workers: usize) -> Failure {
        for _ in 0..workers {
            let mut victim = (self.next() % self.rows.len() as u64) as usize;
            while !self.dead.insert(victim) {
                victim = (victim + 1) % self.rows.len();
            }
            self.rows[victim].lease_until = UnixMillis(0);
        }
        let before: Vec<usize> = self.sessions.iter().map(|hosted| hosted.worker).collect();
        let lost: Vec<usize> =
            (0..before.len()).filter(|&index| self.dead.contains(&before[index])).collect();
        let in_each_tick = lost.len().div_ceil(3).max(1);
        for some in lost.chunks(in_each_tick) {
            for &index in some {
                let Hosted { session, worker: old, size } = self.sessions[index];
                let worker = self.place(session);
                self.sessions[index].worker = worker;
                self.endpoints[old] -= size;
                self.endpoints[worker] += size;
            }
            self.tick();
        }
        let mut taken = vec![0; self.rows.len()];
        for &index in &lost {
            taken[self.sessions[index].worker] += 1;
        }
        let disturbed = self
            .sessions
            .iter()
            .zip(&before)
            .filter(|(hosted, was)| hosted.worker != **was && !self.dead.contains(*was));
        Failure {
            lost: lost.len(),
            disturbed: disturbed.count(),
            takers: taken.iter().filter(|number| **number > 0).count(),
            most_taken: taken.into_iter().max().unwrap_or(0),
        }
    }

    /// How the living stand now.
    pub fn balance(&self) -> Balance {
        let living = || {
            (0..self.rows.len())
                .filter(|number| !self.dead.contains(number))
                .map(|number| self.endpoints[number])
        };
        let workers = living().count();
        Balance {
            workers,
            mean: living().sum::<i64>() as f64 / workers as f64,
            least: living().min().unwrap_or(0),
            most: living().max().unwrap_or(0),
        }
    }

    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// What one decision took, on average, on this machine.
    pub fn cost(&self) -> Duration {
        self.deciding / u32::try_from(self.decisions.max(1)).unwrap_or(u32::MAX)
    }

    /// SplitMix64: the same numbers for the same seed everywhere.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
