//! Every command takes effect once, however often it comes and however many compete for it.

use std::collections::HashMap;
use std::time::Duration;

use common::broker::topology;
use common::message::{CommandBody, ErrorCode, EventBody, LeaveReason, ReplyBody, VERSION};
use common::model::{ParticipantId, SessionId, SessionSettings};
use common::time::UnixMillis;
use futures::future::join_all;

use crate::control::api::{Api, created, join_body, joined};
use crate::control::peer::Peer;
use crate::control::{System, eventually};

/// Sends a command, and the same again; both must give the same reply.
async fn twice(api: &Api, queue: &str, body: CommandBody) -> ReplyBody {
    let command = api.command(body);
    api.send(queue, &command).await;
    api.send(queue, &command).await;
    let replies = api.replies(command.command_id, 2).await;
    assert_eq!(replies[0], replies[1]);
    replies[0].result.clone().expect("done")
}

pub async fn every_command_sent_twice_gives_one_effect_and_the_same_reply(system: System) {
    let (worker, api) = (system.worker().await, system.api().await);
    let session_id = SessionId::new();
    api.declare(session_id).await;
    let create = CommandBody::CreateSession {
        session_id,
        name: None,
        key_id: "k".to_owned(),
        settings: SessionSettings::default(),
    };
    let session = created(Ok(twice(&api, topology::WORKERS, create).await));
    let queue = topology::session_queue_name(session_id);
    let own = topology::worker_queue_name(worker.worker.id());
    let settings = SessionSettings { last_n: Some(2), ..SessionSettings::default() };
    let change = CommandBody::ChangeSession { session_id, settings: settings.clone() };
    let ReplyBody::SessionChanged { session: changed } = twice(&api, &queue, change).await else {
        panic!("not changed")
    };
    assert_eq!(changed.settings, SessionSettings { revision: 1, ..settings }, "counted once");

    let participant_id = ParticipantId::new();
    let mut events = api.events(session_id, participant_id).await;
    let mut peer = Peer::new().await;
    let reply = joined(twice(&api, &queue, join_body(session_id, participant_id, Some(peer.offer()))).await);
    let target = reply.joined.target;
    assert_eq!(worker.endpoints().await, 1);
    peer.accept(&reply.answer.unwrap());

    peer.publish("second");
    let offer = CommandBody::Offer { target, offer: peer.offer() };
    let ReplyBody::Answered { answer, tracks } = twice(&api, &own, offer).await else {
        panic!("not an answer")
    };
    assert_eq!((answer.revision, tracks.len()), (2, 2));
    let (track_id, muted) = (tracks[0].id, true);
    twice(&api, &own, CommandBody::Mute { target, track_id, muted, by_admin: false }).await;
    twice(&api, &own, CommandBody::Candidates { target, candidates: Vec::new() }).await;
    // A refusal is repeated as well: the answer is to no offer.
    let refused = api.command(CommandBody::Answer { target, answer });
    api.send(&own, &refused).await;
    api.send(&own, &refused).await;
    let replies = api.replies(refused.command_id, 2).await;
    assert_eq!(replies[0], replies[1]);
    assert_eq!(replies[0].result.clone().unwrap_err().code, ErrorCode::NoOfferPending);

    twice(
        &api,
        &queue,
        CommandBody::Leave {
            session_id,
            participant_id,
            reason: LeaveReason::Left,
            endpoint_id: None,
            revoked_at: None,
        },
    )
    .await;
    assert_eq!(twice(&api, &queue, CommandBody::CloseSession { session_id }).await, ReplyBody::SessionClosed);
    let seen = events.until_kind("session.closed").await;
    let mut counts = HashMap::new();
    for event in &seen {
        *counts.entry(event.kind()).or_insert(0) += 1;
    }
    counts.retain(|kind, _| !matches!(*kind, "offer" | "candidates" | "endpoint.state"));
    let expected = [
        ("participant.joined", 1),
        ("track.published", 2),
        ("track.muted", 1),
        ("participant.left", 1),
        ("session.closed", 1),
    ];
    assert_eq!(counts, HashMap::from(expected));
    let stored = system.store.session(session_id).await.unwrap().unwrap();
    assert_eq!((stored.command_id, stored.created_at), (session.command_id, session.created_at));
    worker.stop().await;
}

pub async fn a_late_copy_of_a_join_or_leave_changes_nothing(system: System) {
    let (first, api) = (system.worker().await, system.api().await);
    let session = api.create().await;
    let queue = topology::session_queue_name(session);
    let member = ParticipantId::new();
    let body = CommandBody::Leave {
        session_id: session,
        participant_id: member,
        reason: LeaveReason::Left,
        endpoint_id: None,
        revoked_at: None,
    };
    let join = api.command(join_body(session, member, None));
    joined(api.call_with(&queue, &join).await.expect("to join"));
    // The second one finds nobody.
    let leaves = [api.command(body.clone()), api.command(body)];
    for leave in &leaves {
        assert_eq!(api.call_with(&queue, leave).await, Ok(ReplyBody::Left));
    }
    // From here on nobody but the store remembers them.
    let second = system.worker().await;
    first.stop().await;
    let again = api.join_patiently(session, member).await.joined;
    for leave in &leaves {
        api.send(&queue, leave).await;
        assert_eq!(api.replies(leave.command_id, 2).await[1].result, Ok(ReplyBody::Left));
    }
    api.send(&queue, &join).await;
    let refused = api.replies(join.command_id, 2).await.remove(1).result.unwrap_err();
    assert_eq!(refused.code, ErrorCode::EndpointGone);
    let stored = system.store.session(session).await.unwrap().unwrap();
    let endpoints: Vec<_> = stored.participants.iter().map(|it| it.endpoint.as_ref().unwrap().id).collect();
    assert_eq!(endpoints, [again.target.endpoint_id]);
    assert_eq!(second.endpoints().await, 1);
    second.stop().await;
}

pub async fn a_copy_of_a_join_whose_session_moves_on_is_answered_where_it_was_done(system: System) {
    let (first, api) = (system.worker().await, system.api().await);
    let session = api.create().await;
    let queue = topology::session_queue_name(session);
    let join = api.command(join_body(session, ParticipantId::new(), None));
    let done = joined(api.call_with(&queue, &join).await.expect("to join")).joined.target;
    let second = system.worker().await;
    let worker_id = first.worker.id();
    api.tell(worker_id, CommandBody::Drain { worker_id }).await.expect("to drain");
    eventually("the session moves", async || {
        let stored = system.store.session(session).await.unwrap().unwrap();
        (stored.pipeline()?.worker_id == second.worker.id()).then_some(())
    })
    .await;
    // More than one for each worker that reads the session's queue.
    for copy in 2..6 {
        api.send(&queue, &join).await;
        let reply = api.replies(join.command_id, copy).await.remove(copy - 1).result;
        assert_eq!(joined(reply.expect("the reply of then")).joined.target, done);
    }
    assert_eq!((first.endpoints().await, second.endpoints().await), (1, 0));
    second.stop().await;
    first.crash().await;
}

pub async fn competing_workers_do_each_command_once(system: System) {
    const SESSIONS: usize = 12;
    const MEMBERS: usize = 5;
    let workers = [system.worker().await, system.worker().await];
    let api = system.api().await;
    let sessions = join_all((0..SESSIONS).map(|_| api.create())).await;
    let witnesses = join_all(sessions.iter().map(async |session| {
        let witness = ParticipantId::new();
        let events = api.events(*session, witness).await;
        api.join_as(*session, witness, None).await.unwrap();
        (*session, events)
    }))
    .await;
    let commands: Vec<_> = sessions
        .iter()
        .flat_map(|session| (0..MEMBERS).map(|_| (*session, ParticipantId::new())))
        .map(|(session, member)| (session, api.command(join_body(session, member, None))))
        .collect();
    join_all(commands.iter().map(async |(session, command)| {
        api.send(&topology::session_queue_name(*session), command).await;
    }))
    .await;
    let mut pipelines = HashMap::new();
    for (session, command) in &commands {
        let reply = api.replies(command.command_id, 1).await.remove(0);
        let target = joined(reply.result.expect("to join")).joined.target;
        pipelines.entry(*session).or_insert_with(Vec::new).push(target.pipeline_id);
    }
    for (session, of_session) in pipelines {
        let stored = system.store.session(session).await.unwrap().unwrap();
        assert!(
            of_session.iter().all(|pipeline| *pipeline == stored.pipeline().unwrap().id),
            "one pipeline for all"
        );
        assert_eq!(stored.participants.len(), MEMBERS + 1);
    }
    let hosted = workers[0].endpoints().await + workers[1].endpoints().await;
    assert_eq!(hosted as usize, SESSIONS * (MEMBERS + 1), "every join opened one endpoint");
    for (session, mut events) in witnesses {
        api.close(session).await.unwrap();
        let seen = events.until_kind("session.closed").await;
        let joins = seen.iter().filter(|event| matches!(event, EventBody::ParticipantJoined { .. }));
        assert_eq!(joins.count(), MEMBERS + 1, "every join was told once");
    }
    assert!(commands.iter().all(|(_, command)| api.replies_so_far(command.command_id) == 1));
    for worker in workers {
        worker.stop().await;
    }
}

pub async fn an_expired_command_and_a_newer_version_are_refused(system: System) {
    let (worker, api) = (system.worker().await, system.api().await);
    let session_id = SessionId::new();
    let body = CommandBody::CreateSession {
        session_id,
        name: None,
        key_id: "k".to_owned(),
        settings: SessionSettings::default(),
    };
    let mut late = api.command(body.clone());
    late.deadline = UnixMillis(UnixMillis::now().0 - Duration::from_secs(1).as_millis() as i64);
    let refused = api.call_with(topology::WORKERS, &late).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Expired);
    let newer = api.command(body);
    let mut json = serde_json::to_value(&newer).unwrap();
    json["version"] = (VERSION + 1).into();
    json["body"] = serde_json::json!({"type": "of_the_future"});
    let id = newer.command_id.to_string();
    api.send_raw(topology::WORKERS, &id, serde_json::to_vec(&json).unwrap()).await;
    let refused = api.replies(newer.command_id, 1).await.remove(0).result.unwrap_err();
    assert_eq!(refused.code, ErrorCode::UnsupportedVersion);
    // A command that was added without a new version: no dead letter, and nobody waits for nothing.
    let added = api.command(CommandBody::CloseSession { session_id });
    let mut json = serde_json::to_value(&added).unwrap();
    json["body"] = serde_json::json!({"type": "of_the_future", "session_id": session_id});
    let id = added.command_id.to_string();
    api.send_raw(topology::WORKERS, &id, serde_json::to_vec(&json).unwrap()).await;
    let refused = api.replies(added.command_id, 1).await.remove(0).result.unwrap_err();
    assert_eq!(refused.code, ErrorCode::UnsupportedVersion);
    assert!(refused.message.contains("of_the_future"), "{refused}");
    assert_eq!(system.store.session(session_id).await.unwrap(), None);
    worker.stop().await;
}
