//! Garbage, a store that is away, and code that panics.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::broker::topology;
use common::message::{Answer, CommandBody, ErrorCode, EventBody, LeaveReason, ReplyBody};
use common::model::{CommandId, ParticipantId, SessionId, SessionSettings};
use common::store::{Guarded, RemoveIf, Store, StoreErrorKind};
use common::time::UnixMillis;

use crate::control::api::{created, dead_letter, join_body, joined};
use crate::control::faults::{Fault, FaultyBroker, FaultyStore};
use crate::control::peer::Peer;
use crate::control::{System, TestWorker, config, eventually, hasty};

async fn faulty_worker(system: &System) -> (Arc<FaultyStore>, TestWorker) {
    let store = FaultyStore::over(system.store.clone());
    let worker = system.worker_with(config(), store.clone()).await;
    (store, worker)
}

pub async fn what_is_no_command_is_dead_lettered(system: System) {
    let (worker, api) = (system.worker().await, system.api().await);
    let own = topology::worker_queue_name(worker.worker.id());
    let half_a_command = br#"{"version":1,"command_id":"#.to_vec();
    for body in [b"\xff\x00 not JSON".to_vec(), half_a_command, b"{}".to_vec()] {
        let id = CommandId::new().to_string();
        api.send_raw(&own, &id, body.clone()).await;
        assert_eq!(dead_letter(&*api.broker, &id).await.body, body);
    }
    // Whoever can be told is told.
    let broken = api.command(CommandBody::CloseSession { session_id: SessionId::new() });
    let mut json = serde_json::to_value(&broken).unwrap();
    json["body"]["session_id"] = 7.into();
    let (id, body) = (broken.command_id.to_string(), serde_json::to_vec(&json).unwrap());
    api.send_raw(&own, &id, body.clone()).await;
    assert_eq!(dead_letter(&*api.broker, &id).await.body, body);
    let refused = api.replies(broken.command_id, 1).await.remove(0).result.unwrap_err();
    assert_eq!(refused.code, ErrorCode::UnsupportedVersion);
    api.create().await;
    worker.stop().await;
}

pub async fn a_command_that_keeps_failing_is_dead_lettered_and_its_sender_told(system: System) {
    for (kind, code) in [
        (StoreErrorKind::Internal, ErrorCode::Internal),
        (StoreErrorKind::Unavailable, ErrorCode::Unavailable),
    ] {
        let (store, worker) = faulty_worker(&system).await;
        let api = system.api().await;
        let tries = Arc::new(AtomicUsize::new(0));
        let counted = tries.clone();
        store.plan(move |operation| {
            (operation == "insert_session").then(|| {
                counted.fetch_add(1, Ordering::SeqCst);
                Fault::Fail(kind)
            })
        });
        let create = |session_id| CommandBody::CreateSession {
            session_id,
            name: None,
            key_id: "k".to_owned(),
            settings: SessionSettings::default(),
        };
        let poison = api.command(create(SessionId::new()));
        let refused = api.call_with(topology::WORKERS, &poison).await.unwrap_err();
        assert_eq!(refused.code, code);
        assert_eq!(tries.load(Ordering::SeqCst), topology::COMMAND_DELIVERY_LIMIT as usize);
        let dead = dead_letter(&*api.broker, &poison.command_id.to_string()).await;
        assert_eq!(dead.body, serde_json::to_vec(&poison).unwrap());
        store.heal();
        let session_id = SessionId::new();
        assert_eq!(created(api.call(topology::WORKERS, create(session_id)).await).id, session_id);
        assert_eq!(api.replies_so_far(poison.command_id), 1);
        worker.stop().await;
    }
}

pub async fn a_command_outlives_a_short_outage_of_the_store(system: System) {
    let (store, worker) = faulty_worker(&system).await;
    let api = system.api().await;
    let session = api.create().await;
    // The first try opens the endpoint and cannot store it; the second can.
    let mut failures = 1;
    store.plan(move |operation| {
        let fails = operation == "put_participant" && failures > 0;
        failures -= i32::from(fails);
        fails.then_some(Fault::Fail(StoreErrorKind::Unavailable))
    });
    let reply = api.join_as(session, ParticipantId::new(), Some(Peer::new().await.offer())).await.unwrap();
    assert_eq!(reply.joined.participant.tracks.len(), 1);
    eventually("the endpoint of the failed try is closed", async || {
        (worker.endpoints().await == 1).then_some(())
    })
    .await;
    assert_eq!(store.session(session).await.unwrap().unwrap().participants.len(), 1);
    worker.stop().await;
}

pub async fn who_was_removed_while_the_answer_was_lost_is_gone_and_everyone_is_told(system: System) {
    for is_repeated in [true, false] {
        let store = FaultyStore::over(system.store.clone());
        let worker = system.worker_with(hasty(), store.clone()).await;
        let api = system.api().await;
        let session = api.create().await;
        let (witness, removed) = (ParticipantId::new(), ParticipantId::new());
        let mut events = api.events(session, witness).await;
        api.join_as(session, witness, None).await.unwrap();
        api.join_as(session, removed, None).await.unwrap();
        // The removal is stored, and the worker does not learn that: its next try finds out, or its own look.
        let mut lost = 1;
        store.plan(move |operation| {
            let fails = operation == "remove_participant" && lost > 0;
            lost -= i32::from(fails);
            fails.then_some(Fault::LoseAnswer(StoreErrorKind::Unavailable))
        });
        let leave = CommandBody::Leave {
            session_id: session,
            participant_id: removed,
            reason: LeaveReason::Removed,
            endpoint_id: None,
            revoked_at: None,
        };
        if is_repeated {
            api.call(&topology::session_queue_name(session), leave).await.expect("removed");
        } else {
            // Not through the worker: as one would that died before it could tell.
            let gone = system.store.remove_participant(session, removed, RemoveIf::Present, None).await;
            assert!(matches!(gone, Ok(Guarded::Applied(_))));
        }
        if is_repeated {
            let seen = events.until_kind("participant.left").await;
            let left = EventBody::ParticipantLeft { participant_id: removed, reason: LeaveReason::Removed };
            assert_eq!(seen.last(), Some(&left));
        }
        eventually("its endpoint is closed", async || (worker.endpoints().await == 1).then_some(())).await;
        worker.stop().await;
    }
}

pub async fn a_join_done_again_makes_one_endpoint_and_one_offer(system: System) {
    let (store, worker) = faulty_worker(&system).await;
    let api = system.api().await;
    let session = api.create().await;
    api.join_as(session, ParticipantId::new(), Some(Peer::new().await.offer())).await.unwrap();
    let watcher = ParticipantId::new();
    let mut events = api.events(session, watcher).await;
    let mut watch = join_body(session, watcher, None);
    if let CommandBody::Join { server_offers, .. } = &mut watch {
        *server_offers = true;
    }
    // The first try opens the endpoint, and by the time that it cannot be stored the server has made its offer. The next
    // try at this worker opens an endpoint of the same id.
    let mut failures = 1;
    store.plan(move |operation| {
        let fails = operation == "put_participant" && failures > 0;
        failures -= i32::from(fails);
        fails.then_some(Fault::FailAfter(Duration::from_millis(300), StoreErrorKind::Unavailable))
    });
    let reply = joined(api.call(&topology::session_queue_name(session), watch).await.unwrap());
    let target = reply.joined.target;
    let seen = events.until_kind("offer").await;
    let own = seen.iter().position(
        |event| matches!(event, EventBody::ParticipantJoined { participant } if participant.id == watcher),
    );
    assert!(own.is_some(), "nothing for an endpoint before its join is told: {seen:?}");
    // Of the endpoint that is there now: the media plane knows its revision.
    assert!(matches!(seen.last(), Some(EventBody::Offer { revision: 1, .. })), "{seen:?}");
    let answer = Answer { sdp: "v=0\r\n".to_owned(), revision: 1 };
    let refused = api.tell(target.worker_id, CommandBody::Answer { target, answer }).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidSdp, "the offer is outstanding");
    assert_eq!(worker.endpoints().await, 2);
    // And no second one comes: whatever a failed try had reported is gone with it.
    api.close(session).await.unwrap();
    let rest = events.until_kind("session.closed").await;
    assert!(rest.iter().all(|event| event.kind() != "offer"), "{rest:?}");
    worker.stop().await;
}

pub async fn an_accepted_offer_is_answered_in_an_outage_and_stored_after_it(system: System) {
    let store = FaultyStore::over(system.store.clone());
    let worker = system.worker_with(hasty(), store.clone()).await;
    let api = system.api().await;
    let session = api.create().await;
    let participant = ParticipantId::new();
    let mut events = api.events(session, participant).await;
    let target = api.join_as(session, participant, None).await.unwrap().joined.target;
    store.plan(|operation| (operation == "set_tracks").then_some(Fault::Fail(StoreErrorKind::Unavailable)));
    let offer = CommandBody::Offer { target, offer: Peer::new().await.offer() };
    let reply = api.tell(target.worker_id, offer).await.expect("the media plane has accepted it");
    let ReplyBody::Answered { tracks, .. } = reply else { panic!("not an answer: {reply:?}") };
    assert!(system.store.session(session).await.unwrap().unwrap().participants[0].tracks.is_empty());
    store.heal();
    events.until_kind("track.published").await;
    assert_eq!(system.store.session(session).await.unwrap().unwrap().participants[0].tracks, tracks);
    worker.stop().await;
}

pub async fn an_outage_of_the_store_does_not_touch_what_runs(system: System) {
    let store = FaultyStore::over(system.store.clone());
    let worker = system.worker_with(hasty(), store.clone()).await;
    let api = system.api().await;
    let session = api.create().await;
    let target = api.join(session).await.joined.target;
    let failures = Arc::new(AtomicUsize::new(0));
    let counted = failures.clone();
    store.plan(move |operation| {
        counted.fetch_add(usize::from(operation == "renew_worker"), Ordering::SeqCst);
        Some(Fault::Fail(StoreErrorKind::Unavailable))
    });
    // Longer than a lease: nobody could see this worker alive.
    eventually("many heartbeats failed", async || (failures.load(Ordering::SeqCst) > 4).then_some(())).await;
    assert_eq!(worker.endpoints().await, 1);
    let candidates = CommandBody::Candidates { target, candidates: Vec::new() };
    assert_eq!(api.tell(target.worker_id, candidates.clone()).await, Ok(ReplyBody::Accepted));
    store.heal();
    eventually("the lease is renewed", async || {
        let row = system.store.worker(target.worker_id).await.unwrap()?;
        (row.lease_until > UnixMillis::now()).then_some(())
    })
    .await;
    assert_eq!(api.tell(target.worker_id, candidates).await, Ok(ReplyBody::Accepted));
    assert_eq!(api.join(session).await.joined.target.pipeline_id, target.pipeline_id);
    worker.stop().await;
}

pub async fn a_panic_ends_only_its_command(system: System) {
    let (store, worker) = faulty_worker(&system).await;
    let api = system.api().await;
    let session = api.create().await;
    store.plan(|operation| (operation == "put_participant").then_some(Fault::Panic));
    let command = api.command(join_body(session, ParticipantId::new(), None));
    let refused = api.call_with(&topology::session_queue_name(session), &command).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Internal);
    assert!(!refused.message.contains("planned"), "internal text stays inside: {refused}");
    dead_letter(&*api.broker, &command.command_id.to_string()).await;
    store.heal();
    let reply = api
        .call(&topology::session_queue_name(session), join_body(session, ParticipantId::new(), None))
        .await;
    assert!(joined(reply.unwrap()).joined.others.is_empty(), "the panicked join left nobody behind");
    eventually("nor an endpoint", async || (worker.endpoints().await == 1).then_some(())).await;
    worker.stop().await;
}

pub async fn a_lost_change_stream_is_made_up_for(system: System) {
    for kind in [StoreErrorKind::HistoryLost, StoreErrorKind::Unavailable] {
        let (store, faulty) = faulty_worker(&system).await;
        let healthy = system.worker().await;
        let api = system.api().await;
        let before = api.create().await;
        let mut lost = 0;
        store.plan(move |operation| {
            let fails = operation == "next_change" && lost == 0;
            lost += i32::from(fails);
            fails.then_some(Fault::Fail(kind))
        });
        let missed = api.create().await;
        healthy.stop().await;
        for session in [before, missed] {
            assert_eq!(api.join(session).await.joined.target.worker_id, faulty.worker.id(), "{kind:?}");
        }
        faulty.stop().await;
    }
}

pub async fn events_wait_for_a_broker_that_is_away_and_keep_their_order(system: System) {
    let broker = FaultyBroker::over(system.connection().await);
    let worker = system.worker_on(config(), broker.clone(), system.store.clone()).await;
    let api = system.api().await;
    let session = api.create().await;
    let participants = [ParticipantId::new(), ParticipantId::new(), ParticipantId::new()];
    let mut events = api.events(session, participants[0]).await;
    let exchange = topology::session_exchange_name(session);
    let failures = Arc::new(AtomicUsize::new(0));
    let counted = failures.clone();
    broker.plan(move |to| {
        (to == exchange).then(|| {
            counted.fetch_add(1, Ordering::SeqCst);
            Fault::Fail(StoreErrorKind::Unavailable)
        })
    });
    for participant in participants {
        api.join_as(session, participant, None).await.expect("replies need no exchange");
    }
    eventually("the events are tried", async || (failures.load(Ordering::SeqCst) > 1).then_some(())).await;
    broker.plan(|_| None);
    api.close(session).await.unwrap();
    let seen = events.until_kind("session.closed").await;
    let joined: Vec<_> = seen
        .iter()
        .filter_map(|event| match event {
            EventBody::ParticipantJoined { participant } => Some(participant.id),
            _ => None,
        })
        .collect();
    assert_eq!(joined, participants);
    worker.stop().await;
}

pub async fn a_reply_that_could_not_be_sent_comes_with_the_next_try(system: System) {
    let broker = FaultyBroker::over(system.connection().await);
    let worker = system.worker_on(config(), broker.clone(), system.store.clone()).await;
    let api = system.api().await;
    let session = api.create().await;
    let participant = ParticipantId::new();
    let mut events = api.events(session, participant).await;
    let mut failures = 1;
    broker.plan(move |to| {
        let fails = to.starts_with("replies.") && failures > 0;
        failures -= i32::from(fails);
        fails.then_some(Fault::Fail(StoreErrorKind::Unavailable))
    });
    let reply = api.join_as(session, participant, Some(Peer::new().await.offer())).await.unwrap();
    assert_eq!(reply.answer.expect("the answer of the first try").revision, 1);
    assert_eq!(worker.endpoints().await, 1);
    api.close(session).await.unwrap();
    let seen = events.until_kind("session.closed").await;
    assert_eq!(seen.iter().filter(|event| event.kind() == "participant.joined").count(), 1);
    worker.stop().await;
}
