//! What must be true once the faults are over and everybody has had time to settle.

use std::collections::BTreeSet;
use std::sync::Arc;

use common::broker::topology;
use common::model::{EndpointState, Session, SessionState};
use common::store::{SessionFilter, Store};

use crate::broker::{at_once, exchange_exists, queue_exists};
use crate::client::{Client, Status};
use crate::servers::Servers;
use crate::world::World;

/// What is not as it must be. Empty: everything has settled.
pub fn unmet(world: &World, servers: &Servers, clients: &[Arc<Client>]) -> Vec<String> {
    let mut unmet = Vec::new();
    everybody_works(servers, &mut unmet);
    if !unmet.is_empty() {
        return unmet;
    }
    let sessions = at_once(world.store.sessions(&SessionFilter::default())).expect("the store is there");
    let (open, closed): (Vec<Session>, Vec<Session>) =
        sessions.into_iter().partition(|session| session.state == SessionState::Open);
    rows_are_those_of_the_living(world, servers, &mut unmet);
    clients_are_where_they_want_to_be(world, clients, &open, &mut unmet);
    stored_is_what_runs(servers, &open, &mut unmet);
    everybody_listens(servers, &open, &mut unmet);
    the_ended_have_left_nothing(world, &open, &closed, &mut unmet);
    unmet
}

fn everybody_works(servers: &Servers, unmet: &mut Vec<String>) {
    for (index, api) in servers.apis.iter().enumerate() {
        if api.serving().is_none() {
            unmet.push(format!("api{index} does not serve"));
        }
    }
    for (index, worker) in servers.workers.iter().enumerate() {
        if worker.with(|working| working.worker.is_some()) != Some(true) {
            unmet.push(format!("worker{index} does not work"));
        }
    }
}

fn rows_are_those_of_the_living(world: &World, servers: &Servers, unmet: &mut Vec<String>) {
    let rows: BTreeSet<_> =
        at_once(world.store.workers()).expect("the store is there").iter().map(|row| row.id).collect();
    let living: BTreeSet<_> =
        servers.workers.iter().filter_map(|place| place.with(|working| working.id)).collect();
    if rows != living {
        unmet.push(format!("rows {rows:?}, living {living:?}"));
    }
}

fn clients_are_where_they_want_to_be(
    world: &World,
    clients: &[Arc<Client>],
    open: &[Session],
    unmet: &mut Vec<String>,
) {
    for client in clients {
        let session = open.iter().find(|session| session.id == client.session);
        let stored = session.and_then(|session| session.participant(client.participant));
        match client.status() {
            Status::Busy => unmet.push(format!("{} is on its way", client.name)),
            Status::In(endpoint) => {
                let there = stored.and_then(|stored| stored.endpoint.as_ref());
                let is_there = there
                    .is_some_and(|there| there.id == endpoint && there.state == EndpointState::Connected);
                if !is_there {
                    unmet.push(format!("{} is in with {endpoint}, stored is {there:?}", client.name));
                }
                if !world.ledger().has_read_all(&client.queue(endpoint), client.participant) {
                    unmet.push(format!("{} has not seen all events of {endpoint}", client.name));
                }
                for track in stored.into_iter().flat_map(|stored| &stored.tracks) {
                    let told = world.ledger().muted.get(&track.id).copied();
                    if told.is_some_and(|told| told != track.muted) {
                        unmet.push(format!(
                            "{} was told {told:?} of {}, stored is {}",
                            client.name, track.id, track.muted
                        ));
                    }
                }
            }
            Status::Out | Status::Ended => {
                if stored.is_some() {
                    unmet.push(format!("{} is gone, and is stored", client.name));
                }
            }
        }
        if client.status() == Status::Ended && session.is_some() {
            unmet.push(format!("{} was told that {} has ended, and it is open", client.name, client.session));
        }
    }
}

fn stored_is_what_runs(servers: &Servers, open: &[Session], unmet: &mut Vec<String>) {
    let mut running = BTreeSet::new();
    for place in &servers.workers {
        place.with(|working| {
            running.extend(working.media.endpoints().into_iter().map(|(id, ..)| (working.id, id)));
        });
    }
    let mut stored = BTreeSet::new();
    for session in open {
        let hosted = session.pipelines.len();
        if hosted > 1 || (hosted == 0 && !session.participants.is_empty()) {
            unmet.push(format!(
                "{} has {hosted} pipelines and {} participants",
                session.id,
                session.participants.len()
            ));
        }
        for pipeline in &session.pipelines {
            if !servers
                .workers
                .iter()
                .any(|place| place.with(|working| working.id) == Some(pipeline.worker_id))
            {
                unmet.push(format!("{} is on {}, which is no more", session.id, pipeline.worker_id));
            }
        }
        for endpoint in session.participants.iter().filter_map(|participant| participant.endpoint.as_ref()) {
            if session.pipeline().is_none_or(|pipeline| pipeline.id != endpoint.pipeline_id) {
                unmet.push(format!("{} is on no pipeline of {}", endpoint.id, session.id));
            }
            stored.insert((endpoint.worker_id, endpoint.id));
        }
    }
    if stored != running {
        let ghosts: Vec<_> = stored.difference(&running).collect();
        let strays: Vec<_> = running.difference(&stored).collect();
        unmet.push(format!("stored and not running {ghosts:?}, running and not stored {strays:?}"));
    }
}

fn everybody_listens(servers: &Servers, open: &[Session], unmet: &mut Vec<String>) {
    for place in &servers.workers {
        let listening = place.with(|working| working.worker.as_ref().map(|worker| worker.session_inboxes()));
        if listening.flatten() != Some(open.len()) {
            unmet.push(format!("{listening:?} inboxes for {} sessions", open.len()));
        }
    }
}

fn the_ended_have_left_nothing(world: &World, open: &[Session], closed: &[Session], unmet: &mut Vec<String>) {
    for session in open {
        if !queue_exists(world, &topology::session_queue_name(session.id)) {
            unmet.push(format!("the queue of {} is missing", session.id));
        }
    }
    let deleted = world.ledger().ended.clone();
    for id in deleted.iter().copied().chain(closed.iter().map(|session| session.id)) {
        if queue_exists(world, &topology::session_queue_name(id)) {
            unmet.push(format!("the queue of {id} is left"));
        }
        if exchange_exists(world, &topology::session_exchange_name(id)) {
            unmet.push(format!("the exchange of {id} is left"));
        }
    }
}
