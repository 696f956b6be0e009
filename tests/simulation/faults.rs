//! What befalls the processes of a schedule: a few great faults at moments that the seed picks.

use std::sync::Arc;
use std::time::Duration;

use crate::process::{Process, StreamFault, Strike};
use crate::servers::{LEASE, Order, Servers};
use crate::world::World;

/// Faults begin within this.
const SEASON_MS: u64 = 3_000;
/// How long others may think somebody dead for what befell it before.
const AFTERMATH: Duration = Duration::from_secs(4);

/// Brings on the faults of this schedule; returns when all are over.
pub async fn befall(world: Arc<World>, servers: Arc<Servers>) {
    let count = [0, 1, 1, 2, 2, 3, 4][world.random().index(7)];
    let faults: Vec<_> = (0..count)
        .map(|_| {
            let at = world.random().millis(200, SEASON_MS);
            let (world, servers) = (world.clone(), servers.clone());
            tokio::spawn(async move {
                tokio::time::sleep(at).await;
                one(&world, &servers).await;
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(SEASON_MS)).await;
    for fault in faults {
        fault.await.expect("faults do not fail");
    }
}

async fn one(world: &Arc<World>, servers: &Servers) {
    let dice = world.random().below(100);
    match dice {
        0..28 => crash(world, servers, true),
        28..38 => crash(world, servers, false),
        38..48 => pause(world, servers).await,
        48..58 => cut_from_broker(world, servers).await,
        58..66 => cut_from_store(world, servers).await,
        66..72 => broker_away(world, servers).await,
        72..78 => store_away(world).await,
        78..86 => lose_stream(world, servers),
        86..94 => order(world, servers, Order::Drain),
        _ => order(world, servers, Order::Stop),
    }
}

fn some_worker(world: &World, servers: &Servers) -> Option<Arc<Process>> {
    let place = world.random().index(servers.workers.len());
    servers.workers[place].process()
}

fn somebody(world: &World, servers: &Servers) -> Option<Arc<Process>> {
    if world.random().per_mille(700) {
        return some_worker(world, servers);
    }
    let place = world.random().index(servers.apis.len());
    servers.apis[place].process()
}

/// At one of its next operations, whatever that is.
fn crash(world: &World, servers: &Servers, worker: bool) {
    let process = if worker {
        some_worker(world, servers)
    } else {
        let place = world.random().index(servers.apis.len());
        servers.apis[place].process()
    };
    let Some(process) = process else { return };
    let random = world.random();
    let strike = Strike {
        operations: random.below(60),
        after_effect: random.per_mille(500),
        noticed_after: if random.per_mille(800) { Duration::ZERO } else { random.millis(50, 4_000) },
    };
    process.note(|| format!("is to crash: {strike:?}"));
    process.strike(strike);
}

/// Shorter or longer than the lease.
async fn pause(world: &World, servers: &Servers) {
    let Some(process) = somebody(world, servers) else { return };
    let time = world.random().millis(100, 3 * LEASE.as_millis() as u64);
    process.troubled_for(time + AFTERMATH);
    process.pause();
    // RabbitMQ drops the connection of a process that says nothing.
    let dropped = time > LEASE && world.random().per_mille(300);
    if dropped {
        tokio::time::sleep(time / 2).await;
        process.note(|| "the broker drops its connection".to_owned());
        process.link.break_off();
        tokio::time::sleep(time / 2).await;
    } else {
        tokio::time::sleep(time).await;
    }
    process.resume();
    process.link.mend();
}

async fn cut_from_broker(world: &World, servers: &Servers) {
    let Some(process) = somebody(world, servers) else { return };
    let time = world.random().millis(10, 4_000);
    process.troubled_for(time + AFTERMATH);
    process.note(|| format!("CUT from the broker for {} ms", time.as_millis()));
    process.link.set_cut(true);
    tokio::time::sleep(time).await;
    process.note(|| "reaches the broker again".to_owned());
    process.link.set_cut(false);
}

async fn cut_from_store(world: &World, servers: &Servers) {
    let Some(process) = somebody(world, servers) else { return };
    let time = world.random().millis(10, 4_000);
    process.troubled_for(time + AFTERMATH);
    process.note(|| format!("CUT from the store for {} ms", time.as_millis()));
    *process.store_cut.lock().unwrap() = true;
    process.stream.changed.notify_waiters();
    tokio::time::sleep(time).await;
    process.note(|| "reaches the store again".to_owned());
    *process.store_cut.lock().unwrap() = false;
}

/// A restart, or an outage of seconds. What is durable stays.
async fn broker_away(world: &World, servers: &Servers) {
    let time = world.random().millis(50, 3_000);
    world.set_broker_down(true);
    for process in servers.processes() {
        process.link.break_off();
    }
    tokio::time::sleep(time).await;
    world.set_broker_down(false);
    // The order in which they are back is anybody's.
    let mut processes = servers.processes();
    while !processes.is_empty() {
        let next = world.random().index(processes.len());
        let process = processes.swap_remove(next);
        process.link.mend();
        let pause = world.random().millis(0, 300);
        tokio::time::sleep(pause).await;
    }
}

async fn store_away(world: &World) {
    let time = world.random().millis(50, 4_000);
    world.set_store_down(true);
    world.stored.notify_waiters();
    tokio::time::sleep(time).await;
    world.set_store_down(false);
}

fn lose_stream(world: &World, servers: &Servers) {
    let Some(process) = some_worker(world, servers) else { return };
    let fault = if world.random().per_mille(500) { StreamFault::Broken } else { StreamFault::HistoryLost };
    process.note(|| format!("change stream: {fault:?}"));
    *process.stream.fault.lock().unwrap() = Some(fault);
    process.stream.changed.notify_waiters();
}

fn order(world: &World, servers: &Servers, order: Order) {
    let place = world.random().index(servers.workers.len());
    servers.workers[place].order(order);
}
