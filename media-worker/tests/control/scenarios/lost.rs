//! Workers that stop, die, or are taken for dead; participants and sessions that nobody ends.

use std::time::Duration;

use common::broker::{BrokerErrorKind, Destination, Message, topology};
use common::message::{CommandBody, ErrorCode, EventBody, LeaveReason};
use common::model::{ParticipantId, ParticipantState, SessionState};
use common::time::UnixMillis;
use media_worker::WorkerConfig;

use crate::control::api::{join_body, joined};
use crate::control::scenarios::life::replaced;
use crate::control::{System, eventually, hasty, patience};

pub async fn a_stopped_worker_hands_its_sessions_over(system: System) {
    let workers = [system.worker().await, system.worker().await];
    let api = system.api().await;
    let session = api.create().await;
    let participant = ParticipantId::new();
    let mut events = api.events(session, participant).await;
    let target = api.join_as(session, participant, None).await.unwrap().joined.target;
    let (stopping, staying): (Vec<_>, Vec<_>) =
        workers.into_iter().partition(|worker| worker.worker.id() == target.worker_id);
    for worker in stopping {
        worker.stop().await;
    }
    let seen = events.until_kind("session.interrupted").await;
    assert_eq!(seen.last(), Some(&EventBody::SessionInterrupted { epoch: target.epoch + 1 }));
    assert_eq!(system.store.worker(target.worker_id).await.unwrap(), None);
    let stored = system.store.session(session).await.unwrap().unwrap();
    assert_eq!(stored.participants[0].state, ParticipantState::Disconnected);

    let again = api.join_as(session, participant, None).await.unwrap().joined;
    assert_eq!(again.target.worker_id, staying[0].worker.id());
    assert_eq!(again.target.epoch, target.epoch + 2, "dropped, then placed");
    assert_eq!(again.participant.id, participant);
    // Whoever still reads for the lost endpoint learns that it is over.
    events.until(|body| *body == replaced(target.endpoint_id)).await;
    for worker in staying {
        worker.stop().await;
    }
}

pub async fn a_join_right_after_a_crash_goes_to_the_survivor(system: System) {
    let workers = [system.worker().await, system.worker().await];
    let api = system.api().await;
    let session = api.create().await;
    let participant = ParticipantId::new();
    let mut events = api.events(session, participant).await;
    let target = api.join_as(session, participant, None).await.unwrap().joined.target;
    let (dead, alive): (Vec<_>, Vec<_>) =
        workers.into_iter().partition(|worker| worker.worker.id() == target.worker_id);
    for worker in dead {
        worker.crash().await;
    }
    // Its lease runs for another half minute; its queue is gone, and that tells.
    let other = api.join_patiently(session, ParticipantId::new()).await.joined;
    assert_eq!(other.target.worker_id, alive[0].worker.id());
    events.until_kind("session.interrupted").await;
    assert_eq!(other.others[0].state, ParticipantState::Disconnected);
    for worker in alive {
        worker.stop().await;
    }
}

pub async fn a_join_that_outlived_its_worker_is_not_done_again(system: System) {
    let workers = [system.worker().await, system.worker().await];
    let api = system.api().await;
    let session = api.create().await;
    let queue = topology::session_queue_name(session);
    let command = api.command(join_body(session, ParticipantId::new(), None));
    let target = joined(api.call_with(&queue, &command).await.unwrap()).joined.target;
    let (dead, alive): (Vec<_>, Vec<_>) =
        workers.into_iter().partition(|worker| worker.worker.id() == target.worker_id);
    for worker in dead {
        worker.crash().await;
    }
    // As when the worker died between its reply and the acknowledgement.
    let mut replies = 1;
    let refusal = eventually("decided", async || {
        api.send(&queue, &command).await;
        replies += 1;
        let last = api.replies(command.command_id, replies).await.pop().expect("as many as asked for");
        let error = last.result.expect_err("the join had taken effect");
        // Nobody can know yet whether its worker lives.
        (error.code != ErrorCode::Unavailable).then_some(error.code)
    })
    .await;
    assert_eq!(refusal, ErrorCode::EndpointGone);
    let stored = system.store.session(session).await.unwrap().unwrap();
    assert_eq!(stored.participants[0].state, ParticipantState::Disconnected);
    assert_eq!(alive[0].endpoints().await, 0, "no ghost");
    for worker in alive {
        worker.stop().await;
    }
}

pub async fn a_dead_workers_sessions_are_interrupted_once_its_lease_ran_out(system: System) {
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(system.worker_with(hasty(), system.store.clone()).await);
    }
    let api = system.api().await;
    let session = api.create().await;
    let participant = ParticipantId::new();
    let mut events = api.events(session, participant).await;
    let target = api.join_as(session, participant, None).await.unwrap().joined.target;
    let (dead, alive): (Vec<_>, Vec<_>) =
        workers.into_iter().partition(|worker| worker.worker.id() == target.worker_id);
    for worker in dead {
        worker.crash().await;
    }
    events.until_kind("session.interrupted").await;
    eventually("the dead worker's row is removed", async || {
        system.store.worker(target.worker_id).await.unwrap().is_none().then_some(())
    })
    .await;
    let stored = system.store.session(session).await.unwrap().unwrap();
    assert_eq!((stored.epoch, stored.pipelines.len()), (target.epoch + 1, 0));
    api.close(session).await.unwrap();
    let rest = events.until_kind("session.closed").await;
    assert!(
        rest.iter().all(|event| event.kind() != "session.interrupted"),
        "one of the survivors told: {rest:?}"
    );
    for worker in alive {
        worker.stop().await;
    }
}

pub async fn a_worker_declared_dead_starts_anew(system: System) {
    let worker = system.worker_with(hasty(), system.store.clone()).await;
    let api = system.api().await;
    let session = api.create().await;
    let participant = ParticipantId::new();
    let mut events = api.events(session, participant).await;
    let target = api.join_as(session, participant, None).await.unwrap().joined.target;
    let row = system.store.worker(worker.worker.id()).await.unwrap().unwrap();
    system.store.remove_worker(row.id, row.run).await.unwrap();
    events.until_kind("session.interrupted").await;
    eventually("its row is back", async || system.store.worker(worker.worker.id()).await.unwrap()).await;
    assert_eq!(worker.endpoints().await, 0);
    let candidates = CommandBody::Candidates { target, candidates: Vec::new() };
    assert_eq!(api.tell(target.worker_id, candidates).await.unwrap_err().code, ErrorCode::EndpointGone);
    let again = api.join_as(session, participant, None).await.unwrap().joined.target;
    assert_eq!((again.worker_id, again.epoch), (target.worker_id, target.epoch + 2));
    worker.stop().await;
}

pub async fn who_does_not_rejoin_and_sessions_that_stay_empty_are_cleared_away(system: System) {
    let config = || WorkerConfig {
        rejoin_timeout: Duration::from_millis(800),
        empty_timeout: Some(Duration::from_millis(800)),
        ..hasty()
    };
    let workers = [
        system.worker_with(config(), system.store.clone()).await,
        system.worker_with(config(), system.store.clone()).await,
    ];
    let api = system.api().await;
    let session = api.create().await;
    let participant = ParticipantId::new();
    let mut events = api.events(session, participant).await;
    let target = api.join_as(session, participant, None).await.unwrap().joined.target;
    let (dead, alive): (Vec<_>, Vec<_>) =
        workers.into_iter().partition(|worker| worker.worker.id() == target.worker_id);
    for worker in dead {
        worker.crash().await;
    }
    let seen = events.until_kind("session.closed").await;
    let ends: Vec<_> =
        seen.iter().skip_while(|event| event.kind() != "session.interrupted").cloned().collect();
    let expected = [
        EventBody::SessionInterrupted { epoch: target.epoch + 1 },
        EventBody::ParticipantLeft { participant_id: participant, reason: LeaveReason::ConnectionLost },
        EventBody::SessionClosed {},
    ];
    assert_eq!(ends, expected);
    let stored = system.store.session(session).await.unwrap().unwrap();
    assert_eq!((stored.state, stored.participants.len()), (SessionState::Closed, 0));
    let own = topology::worker_queue_name(alive[0].worker.id());
    let join = join_body(session, participant, None);
    assert_eq!(api.refusal(&own, join).await, ErrorCode::SessionClosed);
    for worker in alive {
        worker.stop().await;
    }
}

pub async fn what_an_ended_session_has_left_at_the_broker_goes_before_its_record(system: System) {
    let worker = system.worker_with(hasty(), system.store.clone()).await;
    let session = system.api().await.create().await;
    // As by a worker that died right after this write: nobody clears up.
    system.store.close_session(session, UnixMillis::now()).await.unwrap();
    worker.stop().await;
    let (queue, exchange) = (topology::session_queue_name(session), topology::session_exchange_name(session));
    let broker = system.connection().await;
    let is_there =
        async |to| match broker.send(to, Message { body: b"{}".to_vec(), ..Message::default() }).await {
            Ok(()) => true,
            Err(error) if error.kind == BrokerErrorKind::Unroutable => false,
            Err(error) => panic!("{error}"),
        };
    assert!(is_there(Destination::Exchange(&exchange)).await && is_there(Destination::Queue(&queue)).await);

    let config = WorkerConfig { closed_retention: Duration::ZERO, ..hasty() };
    let worker = system.worker_with(config, system.store.clone()).await;
    eventually("its record goes", async || {
        system.store.session(session).await.unwrap().is_none().then_some(())
    })
    .await;
    assert!(!is_there(Destination::Exchange(&exchange)).await, "an exchange would stay for ever");
    assert!(!is_there(Destination::Queue(&queue)).await);
    worker.stop().await;
}

pub async fn who_never_connects_is_there_as_long_as_somebody_reads_its_events(system: System) {
    let config = WorkerConfig { unread_timeout: Duration::from_millis(600), ..hasty() };
    let worker = system.worker_with(config, system.store.clone()).await;
    let api = system.api().await;
    let session = api.create().await;
    let (reader, gone) = (ParticipantId::new(), ParticipantId::new());
    let mut events = api.events(session, reader).await;
    api.join_as(session, reader, None).await.unwrap();
    let others = api.events(session, gone).await;
    let target = api.join_as(session, gone, None).await.unwrap().joined.target;
    // What becomes of a queue that nobody has read for two minutes.
    drop(others);
    let queue = topology::user_queue_name(session, gone, target.endpoint_id);
    system.connection().await.delete_queue(&queue).await.unwrap();
    let seen = events.until_kind("participant.left").await;
    let left = EventBody::ParticipantLeft { participant_id: gone, reason: LeaveReason::ConnectionLost };
    assert_eq!(seen.last(), Some(&left));
    // Some passes later the one whose queue is there is still in.
    tokio::time::sleep(Duration::from_millis(2_000)).await;
    let stored = system.store.session(session).await.unwrap().unwrap();
    assert_eq!(stored.participants.iter().map(|present| present.id).collect::<Vec<_>>(), [reader]);
    assert_eq!(worker.endpoints().await, 1);
    worker.stop().await;
}

pub async fn a_worker_without_its_media_thread_says_that_it_ended(system: System) {
    let worker = system.worker().await;
    worker.worker.media().shutdown().await;
    tokio::time::timeout(patience(), worker.worker.ended()).await.expect("to be told");
    // Asked again, it says so at once.
    tokio::time::timeout(patience(), worker.worker.ended()).await.expect("to be told again");
    worker.stop().await;
}
