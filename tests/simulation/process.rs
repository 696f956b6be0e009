//! One simulated process: it runs, stands still (SIGSTOP, a machine that is suspended) or is dead.
//!
//! Everything it does to the outside passes [`Process::before`] and [`Process::after`] in the wrappers of broker and
//! store: there it takes its time, and there it may be struck down, before the effect or between the effect and its
//! reply. Dead, all its tasks are dropped at once and nothing it had under way has an effect any more.

use std::sync::{Arc, Mutex, Weak};
use std::task::Waker;
use std::time::Duration;

use common::ambient;
use common::time::UnixMillis;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::Link;
use crate::world::World;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Running,
    Paused,
    Dead,
}

/// Where a crash strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strike {
    /// After so many more operations.
    pub operations: u64,
    /// The operation has its effect first.
    pub after_effect: bool,
    /// How long the broker takes to notice that the connection is dead.
    pub noticed_after: Duration,
}

struct State {
    life: Life,
    stalled: Vec<Waker>,
    tasks: Vec<AbortHandle>,
    strike: Option<Strike>,
    /// Until when whatever befell it may make others think it dead.
    troubled_until: Instant,
}

pub struct Process {
    pub name: String,
    pub world: Weak<World>,
    pub link: Arc<Link>,
    /// The store cannot be reached from here.
    pub store_cut: Mutex<bool>,
    pub stream: Stream,
    /// By how much its machine's clock is off.
    skew_ms: i64,
    state: Mutex<State>,
    pub died: CancellationToken,
}

/// What befalls the change streams of one process.
#[derive(Default)]
pub struct Stream {
    pub fault: Mutex<Option<StreamFault>>,
    pub changed: Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamFault {
    /// Resuming works.
    Broken,
    /// Resuming does not: the history is gone.
    HistoryLost,
}

impl Process {
    pub fn start(world: &Arc<World>, name: String) -> Arc<Self> {
        let skew_ms = world.random().between(0, 300) as i64 - 150;
        let state = State {
            life: Life::Running,
            stalled: Vec::new(),
            tasks: Vec::new(),
            strike: None,
            troubled_until: Instant::now(),
        };
        Arc::new(Self {
            link: Link::open(world),
            name,
            world: Arc::downgrade(world),
            store_cut: Mutex::new(false),
            stream: Stream::default(),
            skew_ms,
            state: Mutex::new(state),
            died: CancellationToken::new(),
        })
    }

    pub fn world(&self) -> Arc<World> {
        self.world.upgrade().expect("the world outlives what is in it")
    }

    pub fn note(&self, what: impl FnOnce() -> String) {
        if let Some(world) = self.world.upgrade() {
            world.note(&self.name, what);
        }
    }

    /// Runs a task in this process. Dropping the handle leaves it running.
    pub fn run<F>(self: &Arc<Self>, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        ambient::spawn_in(self.clone(), task)
    }

    pub fn is_alive(&self) -> bool {
        self.state.lock().unwrap().life != Life::Dead
    }

    pub fn pause(&self) {
        let mut state = self.state.lock().unwrap();
        if state.life == Life::Running {
            state.life = Life::Paused;
            drop(state);
            self.note(|| "PAUSED".to_owned());
        }
    }

    pub fn resume(&self) {
        let mut state = self.state.lock().unwrap();
        if state.life == Life::Paused {
            state.life = Life::Running;
            let stalled = std::mem::take(&mut state.stalled);
            drop(state);
            self.note(|| "RESUMED".to_owned());
            stalled.into_iter().for_each(Waker::wake);
        }
    }

    /// Lets it die at a later operation.
    pub fn strike(&self, strike: Strike) {
        self.state.lock().unwrap().strike = Some(strike);
    }

    /// Calls off what has not struck yet.
    pub fn spare(&self) {
        self.state.lock().unwrap().strike = None;
    }

    /// The end, without a word to anyone.
    pub fn die(self: &Arc<Self>, noticed_after: Duration) {
        let tasks = {
            let mut state = self.state.lock().unwrap();
            if state.life == Life::Dead {
                return;
            }
            state.life = Life::Dead;
            state.stalled.clear();
            std::mem::take(&mut state.tasks)
        };
        self.note(|| format!("DEAD, noticed after {} ms", noticed_after.as_millis()));
        self.died.cancel();
        tasks.iter().for_each(AbortHandle::abort);
        if noticed_after.is_zero() {
            self.link.end();
            return;
        }
        let link = self.link.clone();
        tokio::spawn(async move {
            tokio::time::sleep(noticed_after).await;
            link.end();
        });
    }

    /// Others may take it for dead for what befell it, until so long from now.
    pub fn troubled_for(&self, time: Duration) {
        let mut state = self.state.lock().unwrap();
        state.troubled_until = state.troubled_until.max(Instant::now() + time);
    }

    pub fn is_troubled(&self) -> bool {
        self.state.lock().unwrap().troubled_until > Instant::now()
    }

    /// An operation is on its way out.
    pub async fn before(self: &Arc<Self>) {
        self.step(false).await;
        self.take_time().await;
    }

    /// It has had its effect; its reply is on its way back.
    pub async fn after(self: &Arc<Self>) {
        self.step(true).await;
        self.take_time().await;
    }

    async fn take_time(&self) {
        let delay = self.world().delay();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }

    async fn step(self: &Arc<Self>, after_effect: bool) {
        let struck = {
            let mut state = self.state.lock().unwrap();
            match &mut state.strike {
                Some(strike) if strike.operations == 0 && strike.after_effect == after_effect => {
                    state.strike.take()
                }
                Some(strike) => {
                    if after_effect {
                        strike.operations = strike.operations.saturating_sub(1);
                    }
                    None
                }
                None => None,
            }
        };
        if let Some(strike) = struck {
            self.die(strike.noticed_after);
        }
        if !self.is_alive() {
            // Its task is dropped as soon as it waits.
            std::future::pending::<()>().await;
        }
    }
}

impl ambient::Process for Process {
    fn runs(&self, waker: &Waker) -> bool {
        let mut state = self.state.lock().unwrap();
        if state.life == Life::Paused {
            state.stalled.push(waker.clone());
        }
        state.life == Life::Running
    }

    fn started(&self, task: AbortHandle) {
        let mut state = self.state.lock().unwrap();
        if state.life == Life::Dead {
            task.abort();
            return;
        }
        if state.tasks.len() >= 256 {
            state.tasks.retain(|task| !task.is_finished());
        }
        state.tasks.push(task);
    }

    fn clock(&self, now: UnixMillis) -> UnixMillis {
        UnixMillis(now.0 + self.skew_ms)
    }
}
