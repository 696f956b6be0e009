//! Drain: sessions move to another worker while the old endpoints go on; what crosses such a move.

use std::time::Duration;

use common::broker::topology;
use common::message::{CommandBody, ErrorCode, EventBody, LeaveReason, ReplyBody, Target};
use common::model::{
    EndpointState, ParticipantId, ParticipantState, PipelineState, SessionId, WorkerId, WorkerState,
};
use media_worker::WorkerConfig;

use crate::control::api::{Api, Events};
use crate::control::peer::Peer;
use crate::control::{System, TestWorker, config, eventually, hasty, patience};

/// A participant with a real connection.
struct Member {
    id: ParticipantId,
    target: Target,
    peer: Peer,
}

async fn join(api: &Api, session: SessionId, id: ParticipantId) -> Member {
    let mut peer = Peer::new().await;
    let reply = api.join_as(session, id, Some(peer.offer())).await.expect("to join");
    peer.accept(&reply.answer.expect("an answer"));
    peer.connect().await;
    Member { id, target: reply.joined.target, peer }
}

/// Whether the endpoint still does what it is told.
async fn lives(api: &Api, target: Target) -> bool {
    let command = CommandBody::Candidates { target, candidates: Vec::new() };
    match api.tell(target.worker_id, command).await {
        Ok(reply) => reply == ReplyBody::Accepted,
        Err(refused) => {
            assert_eq!(refused.code, ErrorCode::EndpointGone);
            false
        }
    }
}

async fn drained(worker: &TestWorker) {
    tokio::time::timeout(patience(), worker.worker.drained()).await.expect("drained in time");
}

/// The workers as (the one that hosts this, the other).
fn split(workers: [TestWorker; 2], host: WorkerId) -> (TestWorker, TestWorker) {
    let [first, second] = workers;
    if first.worker.id() == host { (first, second) } else { (second, first) }
}

fn interruptions(events: &[EventBody]) -> usize {
    events.iter().filter(|event| event.kind() == "session.interrupted").count()
}

/// Everything up to the end of the session, which is brought about now.
async fn rest(api: &Api, session: SessionId, events: &mut Events) -> Vec<EventBody> {
    api.close(session).await.unwrap();
    events.until_kind("session.closed").await
}

pub async fn a_drained_worker_keeps_the_old_endpoints_until_everyone_has_moved(system: System) {
    let workers = [system.worker().await, system.worker().await];
    let api = system.api().await;
    let session = api.create().await;
    let ids = [ParticipantId::new(), ParticipantId::new()];
    let mut events = api.events(session, ids[0]).await;
    let old = [join(&api, session, ids[0]).await, join(&api, session, ids[1]).await];
    let (draining, other) = split(workers, old[0].target.worker_id);
    draining.worker.drain();
    let seen = events.until_kind("session.moving").await;
    let Some(EventBody::SessionMoving { epoch, deadline }) = seen.last() else { unreachable!("just read") };
    assert_eq!(*epoch, old[0].target.epoch + 1);
    let left = common::time::UnixMillis::now().until(*deadline);
    assert!(left > Duration::from_secs(30) && left <= Duration::from_secs(60), "{left:?}");
    eventually("its row says that it drains", async || {
        let row = system.store.worker(draining.worker.id()).await.unwrap()?;
        (row.state == WorkerState::Draining).then_some(())
    })
    .await;
    let stored = system.store.session(session).await.unwrap().unwrap();
    assert_eq!(stored.pipelines.len(), 2);
    assert_eq!(stored.pipelines[0].worker_id, other.worker.id());
    assert_eq!(stored.pipelines[1].state, PipelineState::Draining);

    // The first moves: it has two living endpoints, and the second one's goes on as well.
    let first = join(&api, session, ids[0]).await;
    assert_eq!((first.target.worker_id, first.target.epoch), (other.worker.id(), *epoch));
    for target in [old[0].target, old[1].target, first.target] {
        assert!(lives(&api, target).await, "{target:?}");
    }
    // A look-up names the session's epoch, which has gone on.
    assert!(lives(&api, Target { epoch: *epoch, ..old[1].target }).await);
    let second = join(&api, session, ids[1]).await;
    events
        .until(
            |event| matches!(event, EventBody::ParticipantJoined { participant } if participant.id == ids[1]),
        )
        .await;
    assert_eq!(draining.endpoints().await, 2, "the clients decide when the old connections end");
    for member in old {
        member.peer.close().await;
    }
    drained(&draining).await;
    let stored = system.store.session(session).await.unwrap().unwrap();
    assert_eq!((stored.pipelines.len(), stored.pipelines[0].worker_id), (1, other.worker.id()));
    assert!(stored.participants.iter().all(|entry| entry.state == ParticipantState::Connected), "{stored:?}");
    draining.stop().await;
    for target in [first.target, second.target] {
        assert!(lives(&api, target).await);
    }
    let seen = rest(&api, session, &mut events).await;
    assert_eq!(interruptions(&seen), 0, "{seen:?}");
    assert!(seen.iter().all(|event| event.kind() != "participant.left"), "{seen:?}");
    other.stop().await;
}

/// A client that gives a connection up half-way cannot say so, and the time that one gets to connect is longer than a drain
/// should take.
pub async fn who_moves_before_the_old_endpoint_connected_is_not_waited_for(system: System) {
    let workers = [system.worker().await, system.worker().await];
    let api = system.api().await;
    let session = api.create().await;
    let id = ParticipantId::new();
    let mut events = api.events(session, id).await;
    let mut given_up = Peer::new().await;
    let reply = api.join_as(session, id, Some(given_up.offer())).await.expect("to join");
    let (draining, other) = split(workers, reply.joined.target.worker_id);
    draining.worker.drain();
    events.until_kind("session.moving").await;
    assert!(lives(&api, reply.joined.target).await, "it may still connect, as long as it has not moved");
    let moved = join(&api, session, id).await;
    drained(&draining).await;
    assert!(!lives(&api, reply.joined.target).await);
    assert!(lives(&api, moved.target).await);
    let seen = rest(&api, session, &mut events).await;
    assert_eq!(interruptions(&seen), 0, "{seen:?}");
    draining.stop().await;
    other.stop().await;
}

pub async fn who_joins_during_a_move_is_placed_with_those_who_have_moved(system: System) {
    let workers = [system.worker().await, system.worker().await];
    let api = system.api().await;
    let session = api.create().await;
    let resident = join(&api, session, ParticipantId::new()).await;
    let (draining, other) = split(workers, resident.target.worker_id);
    draining.worker.drain();
    // Straight to the worker that drains, perhaps before it has looked at the session itself.
    let id = ParticipantId::new();
    let mut events = api.events(session, id).await;
    let newcomer = api.join_as(session, id, None).await.unwrap().joined;
    assert_eq!(newcomer.target.worker_id, other.worker.id());
    assert_eq!(newcomer.others.len(), 1, "who has not moved yet is in the session all the same");
    let again = join(&api, session, resident.id).await;
    let moved = events.until(|event| matches!(event, EventBody::ParticipantJoined { participant } if participant.id == resident.id)).await;
    let Some(EventBody::ParticipantJoined { participant }) = moved.last() else { unreachable!("just read") };
    assert_eq!(participant.endpoint.as_ref().unwrap().id, again.target.endpoint_id);
    assert_eq!(participant.tracks.len(), 1, "with its tracks on the new endpoint");
    resident.peer.close().await;
    drained(&draining).await;
    draining.stop().await;
    other.stop().await;
}

pub async fn without_another_worker_a_drain_waits_for_one(system: System) {
    let draining = system.worker().await;
    let api = system.api().await;
    let (session, empty) = (api.create().await, api.create().await);
    let id = ParticipantId::new();
    let mut events = api.events(session, id).await;
    let member = join(&api, session, id).await;
    draining.worker.drain();
    eventually("its row says that it drains", async || {
        let row = system.store.worker(draining.worker.id()).await.unwrap()?;
        (row.state == WorkerState::Draining).then_some(())
    })
    .await;
    // Nobody else could take them: they may still come.
    let latecomer = api.join(session).await.joined;
    assert_eq!(latecomer.target.worker_id, draining.worker.id());
    // A session that it does not host yet is nobody's.
    let refused = api.join_as(empty, ParticipantId::new(), None).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Unavailable);
    let late = system.worker().await;
    let seen = events.until_kind("session.moving").await;
    assert_eq!(interruptions(&seen), 0);
    assert_eq!(join(&api, session, id).await.target.worker_id, late.worker.id());
    member.peer.close().await;
    let leave = CommandBody::Leave {
        session_id: session,
        participant_id: latecomer.participant.id,
        reason: LeaveReason::Left,
        endpoint_id: None,
        revoked_at: None,
    };
    api.call(&topology::session_queue_name(session), leave).await.unwrap();
    drained(&draining).await;
    draining.stop().await;
    late.stop().await;
}

pub async fn who_has_not_moved_at_the_deadline_is_interrupted_alone(system: System) {
    let hasty = || WorkerConfig { drain_timeout: Duration::from_secs(2), ..config() };
    let workers = [
        system.worker_with(hasty(), system.store.clone()).await,
        system.worker_with(hasty(), system.store.clone()).await,
    ];
    let api = system.api().await;
    let session = api.create().await;
    let ids = [ParticipantId::new(), ParticipantId::new()];
    let mut moves = api.events(session, ids[0]).await;
    let mut stays = api.events(session, ids[1]).await;
    let first = join(&api, session, ids[0]).await;
    let second = join(&api, session, ids[1]).await;
    let (draining, other) = split(workers, first.target.worker_id);
    draining.worker.drain();
    moves.until_kind("session.moving").await;
    let moved = join(&api, session, ids[0]).await;
    drained(&draining).await;
    draining.stop().await;
    let seen = stays.until_kind("session.interrupted").await;
    assert_eq!(seen.last(), Some(&EventBody::SessionInterrupted { epoch: moved.target.epoch }));
    let stored = system.store.session(session).await.unwrap().unwrap();
    assert_eq!(stored.pipelines.len(), 1);
    let left = stored.participant(second.id).unwrap();
    assert_eq!(left.state, ParticipantState::Disconnected);
    assert_eq!(left.endpoint.as_ref().unwrap().state, EndpointState::Closed);
    assert!(lives(&api, moved.target).await);
    let again = join(&api, session, ids[1]).await;
    assert_eq!(again.target.pipeline_id, moved.target.pipeline_id);
    let seen = rest(&api, session, &mut moves).await;
    assert_eq!(interruptions(&seen), 0, "who has moved need not hear of it: {seen:?}");
    other.stop().await;
}

pub async fn leaving_and_being_removed_during_a_move_ends_both_endpoints(system: System) {
    let workers = [system.worker().await, system.worker().await];
    let api = system.api().await;
    let session = api.create().await;
    let ids = [ParticipantId::new(), ParticipantId::new(), ParticipantId::new()];
    let mut events = api.events(session, ids[2]).await;
    let mut old = Vec::new();
    for id in ids {
        old.push(join(&api, session, id).await);
    }
    let (draining, other) = split(workers, old[0].target.worker_id);
    draining.worker.drain();
    events.until_kind("session.moving").await;
    // The first has moved, the second has not.
    let moved = join(&api, session, ids[0]).await;
    for (id, reason) in [(ids[0], LeaveReason::Removed), (ids[1], LeaveReason::Left)] {
        let leave = CommandBody::Leave {
            session_id: session,
            participant_id: id,
            reason,
            endpoint_id: None,
            revoked_at: None,
        };
        assert_eq!(api.call(&topology::session_queue_name(session), leave).await, Ok(ReplyBody::Left));
        events.until(|event| *event == EventBody::ParticipantLeft { participant_id: id, reason }).await;
    }
    assert!(!lives(&api, moved.target).await);
    assert!(!lives(&api, old[1].target).await);
    eventually("the endpoint that was left behind ends as well", async || {
        (!lives(&api, old[0].target).await).then_some(())
    })
    .await;
    assert!(lives(&api, old[2].target).await, "the third still has time");
    let third = join(&api, session, ids[2]).await;
    old.pop().expect("the third").peer.close().await;
    drained(&draining).await;
    draining.stop().await;
    assert!(lives(&api, third.target).await);
    other.stop().await;
}

pub async fn muting_works_during_a_move_on_whichever_side_the_track_is(system: System) {
    let workers = [system.worker().await, system.worker().await];
    let api = system.api().await;
    let session = api.create().await;
    let id = ParticipantId::new();
    let mut events = api.events(session, id).await;
    let old = join(&api, session, id).await;
    let track_of =
        async || system.store.session(session).await.unwrap().unwrap().participants[0].tracks[0].clone();
    let mute = async |target: Target, track_id, muted| {
        api.tell(target.worker_id, CommandBody::Mute { target, track_id, muted, by_admin: false }).await
    };
    let (draining, other) = split(workers, old.target.worker_id);
    draining.worker.drain();
    events.until_kind("session.moving").await;
    let before = track_of().await.id;
    assert!(matches!(mute(old.target, before, true).await, Ok(ReplyBody::Muted { track }) if track.muted));
    events.until_kind("track.muted").await;
    assert!(track_of().await.muted, "it has not moved: stored as ever");

    let new = join(&api, session, id).await;
    let after = track_of().await;
    assert!(!after.muted && after.id != before);
    // The old endpoint's track is still heard by those who have not moved, and nothing but that.
    assert!(matches!(mute(old.target, before, false).await, Ok(ReplyBody::Muted { track }) if !track.muted));
    assert!(!track_of().await.muted);
    assert!(matches!(mute(new.target, after.id, true).await, Ok(ReplyBody::Muted { .. })));
    assert!(track_of().await.muted);
    let seen = events.until_kind("track.muted").await;
    assert!(seen.iter().all(|event| event.kind() != "track.unmuted"), "{seen:?}");
    old.peer.close().await;
    drained(&draining).await;
    draining.stop().await;
    other.stop().await;
}

pub async fn a_session_that_closes_during_a_move_ends_on_both_sides(system: System) {
    let workers = [system.worker().await, system.worker().await];
    let api = system.api().await;
    let session = api.create().await;
    let id = ParticipantId::new();
    let mut events = api.events(session, id).await;
    let old = join(&api, session, id).await;
    let (draining, other) = split(workers, old.target.worker_id);
    draining.worker.drain();
    events.until_kind("session.moving").await;
    let new = join(&api, session, id).await;
    assert_eq!(new.target.worker_id, other.worker.id());
    rest(&api, session, &mut events).await;
    drained(&draining).await;
    for worker in [draining, other] {
        eventually("no endpoint is left", async || (worker.endpoints().await == 0).then_some(())).await;
        worker.stop().await;
    }
}

pub async fn a_crash_of_the_draining_worker_interrupts_only_those_on_it(system: System) {
    let workers = [
        system.worker_with(hasty(), system.store.clone()).await,
        system.worker_with(hasty(), system.store.clone()).await,
    ];
    let api = system.api().await;
    let session = api.create().await;
    let ids = [ParticipantId::new(), ParticipantId::new()];
    let mut moves = api.events(session, ids[0]).await;
    let mut stays = api.events(session, ids[1]).await;
    let first = join(&api, session, ids[0]).await;
    join(&api, session, ids[1]).await;
    let (draining, other) = split(workers, first.target.worker_id);
    draining.worker.drain();
    moves.until_kind("session.moving").await;
    let moved = join(&api, session, ids[0]).await;
    draining.crash().await;
    stays.until_kind("session.interrupted").await;
    let again = join(&api, session, ids[1]).await;
    assert_eq!(again.target.pipeline_id, moved.target.pipeline_id);
    assert!(lives(&api, moved.target).await);
    let seen = rest(&api, session, &mut moves).await;
    assert_eq!(interruptions(&seen), 0, "{seen:?}");
    other.stop().await;
}

pub async fn a_crash_of_the_new_worker_during_a_move_makes_it_move_again(system: System) {
    let start = async || system.worker_with(hasty(), system.store.clone()).await;
    let draining = start().await;
    let api = system.api().await;
    let session = api.create().await;
    let ids = [ParticipantId::new(), ParticipantId::new()];
    let mut events = api.events(session, ids[1]).await;
    let old = [join(&api, session, ids[0]).await, join(&api, session, ids[1]).await];
    let doomed = start().await;
    draining.worker.drain();
    let first_move = events.until_kind("session.moving").await;
    let moved = join(&api, session, ids[0]).await;
    assert_eq!(moved.target.worker_id, doomed.worker.id());
    doomed.crash().await;
    events.until_kind("session.interrupted").await;
    let last = start().await;
    let second_move = events.until_kind("session.moving").await;
    let epoch = |events: &[EventBody]| match events.last() {
        Some(EventBody::SessionMoving { epoch, .. }) => *epoch,
        other => panic!("not a move: {other:?}"),
    };
    assert!(epoch(&second_move) > epoch(&first_move));
    assert!(lives(&api, old[1].target).await, "who had not moved lost nothing");
    for id in ids {
        assert_eq!(join(&api, session, id).await.target.worker_id, last.worker.id());
    }
    for member in old {
        member.peer.close().await;
    }
    drained(&draining).await;
    draining.stop().await;
    last.stop().await;
}

pub async fn a_drain_is_asked_for_by_command_and_refused_where_nobody_could_take_over(system: System) {
    let alone = system.worker_with(WorkerConfig { can_drain: false, ..config() }, system.store.clone()).await;
    let api = system.api().await;
    let drain = async |worker_id| api.tell(worker_id, CommandBody::Drain { worker_id }).await;
    assert_eq!(drain(alone.worker.id()).await.unwrap_err().code, ErrorCode::CannotDrain);
    let other = system.worker().await;
    let misdirected = CommandBody::Drain { worker_id: alone.worker.id() };
    assert_eq!(api.tell(other.worker.id(), misdirected).await.unwrap_err().code, ErrorCode::EndpointGone);
    for _ in 0..2 {
        assert_eq!(drain(other.worker.id()).await, Ok(ReplyBody::Draining), "asking twice changes nothing");
    }
    tokio::time::timeout(patience(), other.worker.drain_asked()).await.expect("to be told");
    drained(&other).await;
    other.stop().await;
    alone.stop().await;
}
