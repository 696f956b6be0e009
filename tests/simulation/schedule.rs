//! One seed, from its first moment to its verdict.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use common::ambient;
use common::model::{ParticipantId, SessionId};

use crate::client::{self, Client};
use crate::servers::Servers;
use crate::world::{Ambient, Sabotage, World};
use crate::{faults, invariants};

/// How long everybody may take to settle once the faults are over.
const SETTLING: Duration = Duration::from_secs(40);
const LOOK: Duration = Duration::from_millis(250);

pub struct Verdict {
    pub violations: Vec<String>,
    /// What happened, when that was asked for.
    pub trace: Vec<String>,
}

thread_local! {
    /// The code under test must not panic, whoever catches it.
    static PANICKED: Cell<bool> = const { Cell::new(false) };
}

/// Runs one schedule on this thread.
pub fn run(seed: u64, traced: bool, sabotage: Option<Sabotage>) -> Verdict {
    note_panics();
    PANICKED.set(false);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O");
    let (world, steered) = {
        let _within = runtime.enter();
        let world = World::new(seed, traced, sabotage);
        let steered = ambient::steer(Box::new(Ambient::new(world.clone())));
        (world, steered)
    };
    runtime.block_on(live(&world));
    drop(runtime);
    drop(steered);
    let mut violations = std::mem::take(&mut world.ledger().violations);
    if PANICKED.get() {
        violations.push("something panicked".to_owned());
    }
    Verdict { violations, trace: world.take_trace() }
}

fn note_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICKED.set(true);
            default(info);
        }));
    });
}

async fn live(world: &Arc<World>) {
    let servers = Arc::new(Servers::start(world));
    let clients = clients(world, &servers);
    for client in &clients {
        tokio::spawn(client.clone().live());
    }
    if world.random().per_mille(150) {
        let (client, at) = (clients[0].clone(), world.random().millis(1_000, 3_000));
        tokio::spawn(async move {
            tokio::time::sleep(at).await;
            client::close(&client).await;
        });
    }
    faults::befall(world.clone(), servers.clone()).await;
    world.calm_down();
    for process in servers.processes() {
        process.spare();
        process.resume();
        process.link.mend();
    }
    settle(world, &servers, &clients).await;
}

fn clients(world: &Arc<World>, servers: &Arc<Servers>) -> Vec<Arc<Client>> {
    let (sessions, members) = {
        let random = world.random();
        [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2)][random.index(6)]
    };
    let mut clients = Vec::new();
    for session in 0..sessions {
        let id = SessionId::new();
        let participants: Vec<ParticipantId> = (0..members).map(|_| ParticipantId::new()).collect();
        for (index, participant) in participants.iter().enumerate() {
            let others = participants.iter().copied().filter(|other| other != participant).collect();
            let name = format!("client{session}.{index}");
            clients.push(Client::new(world, servers, name, id, *participant, others));
        }
    }
    clients
}

/// Waits until everything is as it must be, twice in a row.
async fn settle(world: &Arc<World>, servers: &Servers, clients: &[Arc<Client>]) {
    let until = world.elapsed() + SETTLING;
    let mut settled = 0;
    loop {
        tokio::time::sleep(LOOK).await;
        if !world.ledger().violations.is_empty() {
            return;
        }
        let unmet = invariants::unmet(world, servers, clients);
        settled = if unmet.is_empty() { settled + 1 } else { 0 };
        if settled == 2 {
            return world.note("world", || "settled".to_owned());
        }
        if world.elapsed() >= until {
            unmet.into_iter().for_each(|unmet| world.violated(unmet));
            return;
        }
    }
}
