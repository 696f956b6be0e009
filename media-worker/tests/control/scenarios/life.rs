//! A session's life, seen by the API and by its participants.

use std::time::Duration;

use common::broker::{BrokerErrorKind, InboxOptions, topology};
use common::message::{CommandBody, EndpointEnd, ErrorCode, EventBody, LeaveReason, Offer, ReplyBody};
use common::model::{
    EndpointId, EndpointState, ParticipantId, ParticipantState, SessionId, SessionSettings, SessionState,
    TrackId, TrackKind,
};
use common::time::UnixMillis;

use crate::control::api::{created, join_body, joined};
use crate::control::faults::{Fault, FaultyStore};
use crate::control::peer::Peer;
use crate::control::{System, config, eventually};

pub async fn a_session_lives_from_create_to_close(system: System) {
    let (worker, api) = (system.worker().await, system.api().await);
    let session = api.create().await;

    let first = ParticipantId::new();
    let mut first_events = api.events(session, first).await;
    let first_reply = api.join_as(session, first, None).await.unwrap();
    assert_eq!(first_reply.joined.target.worker_id, worker.worker.id());
    assert!(first_reply.joined.others.is_empty() && first_reply.answer.is_none());

    let second = ParticipantId::new();
    let mut second_events = api.events(session, second).await;
    let offer = Peer::new().await.offer();
    let second_reply = api.join_as(session, second, Some(offer)).await.unwrap();
    assert_eq!(second_reply.joined.others.iter().map(|other| other.id).collect::<Vec<_>>(), [first]);
    assert_eq!(second_reply.answer.expect("an answer to the offer").revision, 1);
    let tracks = second_reply.joined.participant.tracks.clone();
    assert_eq!(tracks.iter().map(|track| track.kind).collect::<Vec<_>>(), [TrackKind::Audio]);

    let first_offer = Peer::new().await.offer();
    let target = first_reply.joined.target;
    let answered =
        api.tell(target.worker_id, CommandBody::Offer { target, offer: first_offer }).await.unwrap();
    let ReplyBody::Answered { tracks: first_tracks, .. } = answered else {
        panic!("not an answer: {answered:?}")
    };
    let stored = system.store.session(session).await.unwrap().unwrap();
    assert_eq!(stored.participant(first).unwrap().tracks, first_tracks);
    assert_eq!(stored.participant(second).unwrap().tracks, tracks);

    let leave = CommandBody::Leave {
        session_id: session,
        participant_id: first,
        reason: LeaveReason::Left,
        endpoint_id: None,
        revoked_at: None,
    };
    assert_eq!(api.tell(target.worker_id, leave).await, Ok(ReplyBody::Left));
    assert_eq!(api.close(session).await, Ok(ReplyBody::SessionClosed));

    let seen = first_events.until_kind("session.closed").await;
    let kinds: Vec<_> = seen.iter().map(EventBody::kind).filter(|kind| !is_negotiation(kind)).collect();
    let expected = [
        "participant.joined", // itself
        "participant.joined",
        "track.published",
        "track.published",
        "participant.left", // itself
        "session.closed",
    ];
    assert_eq!(kinds, expected);
    let seen = second_events.until_kind("session.closed").await;
    assert!(seen.contains(&EventBody::ParticipantLeft { participant_id: first, reason: LeaveReason::Left }));

    let stored = system.store.session(session).await.unwrap().unwrap();
    assert_eq!(
        (stored.state, stored.participants.len(), stored.pipelines.len()),
        (SessionState::Closed, 0, 0)
    );
    eventually("the media plane lets go", async || (worker.endpoints().await == 0).then_some(())).await;
    let queue = topology::session_queue_name(session);
    eventually("the session's queue is deleted", async || {
        let opened = api.broker.open_inbox(&queue, InboxOptions { prefetch: 1, exclusive: false }).await;
        matches!(opened, Err(error) if error.kind == BrokerErrorKind::Unroutable).then_some(())
    })
    .await;
    worker.stop().await;
}

fn is_negotiation(kind: &str) -> bool {
    matches!(kind, "offer" | "candidates" | "endpoint.state")
}

pub async fn a_session_is_created_once_and_its_id_is_not_given_to_another_key(system: System) {
    let (worker, api) = (system.worker().await, system.api().await);
    let session_id = SessionId::new();
    api.declare(session_id).await;
    let create = |key: &str| CommandBody::CreateSession {
        session_id,
        name: None,
        key_id: key.to_owned(),
        settings: SessionSettings::default(),
    };
    let first = created(api.call(topology::WORKERS, create("a")).await);
    assert_eq!(created(api.call(topology::WORKERS, create("a")).await), first, "its owner gets what it has");
    assert_eq!(api.refusal(topology::WORKERS, create("b")).await, ErrorCode::SessionConflict);
    assert_eq!(api.close(session_id).await, Ok(ReplyBody::SessionClosed));
    assert_eq!(api.refusal(topology::WORKERS, create("a")).await, ErrorCode::SessionClosed);
    let join = join_body(session_id, ParticipantId::new(), None);
    let own = topology::worker_queue_name(worker.worker.id());
    assert_eq!(api.refusal(&own, join).await, ErrorCode::SessionClosed);
    let unknown = join_body(SessionId::new(), ParticipantId::new(), None);
    assert_eq!(api.refusal(&own, unknown).await, ErrorCode::SessionNotFound);
    worker.stop().await;
}

pub async fn a_participant_that_connects_is_stored_so_and_is_gone_when_it_closes(system: System) {
    let (worker, api) = (system.worker().await, system.api().await);
    let session = api.create().await;
    let watcher = ParticipantId::new();
    let mut watcher_events = api.events(session, watcher).await;
    api.join_as(session, watcher, None).await.unwrap();

    let participant = ParticipantId::new();
    let mut events = api.events(session, participant).await;
    let mut peer = Peer::new().await;
    let reply = api.join_as(session, participant, Some(peer.offer())).await.unwrap();
    peer.accept(&reply.answer.unwrap());
    peer.connect().await;
    let endpoint_id = reply.joined.target.endpoint_id;
    let state = |state| {
        move |body: &EventBody| *body == EventBody::EndpointState { endpoint_id, state, reason: None }
    };
    let seen = events.until(state(EndpointState::Connected)).await;
    let trickled = seen.iter().find_map(|event| match event {
        EventBody::Candidates { endpoint_id: of, candidates } if *of == endpoint_id => Some(candidates),
        _ => None,
    });
    let trickled = trickled.expect("the server trickles its candidates");
    assert_eq!(trickled.last().map(|candidate| candidate.candidate.as_str()), Some(""), "with their end");
    eventually("stored as connected", async || {
        let stored = system.store.session(session).await.unwrap().unwrap();
        let stored = stored.participant(participant).unwrap();
        let is_connected = stored.endpoint.as_ref().unwrap().state == EndpointState::Connected;
        (is_connected && stored.state == ParticipantState::Connected).then_some(())
    })
    .await;

    peer.close().await;
    events.until(state(EndpointState::Closed)).await;
    let left =
        EventBody::ParticipantLeft { participant_id: participant, reason: LeaveReason::ConnectionLost };
    watcher_events.until(|body| *body == left).await;
    let stored = system.store.session(session).await.unwrap().unwrap();
    assert_eq!(stored.participants.iter().map(|participant| participant.id).collect::<Vec<_>>(), [watcher]);
    worker.stop().await;
}

/// The last event of an endpoint whose participant has another one now.
pub fn replaced(endpoint_id: EndpointId) -> EventBody {
    let reason = Some(EndpointEnd::Replaced);
    EventBody::EndpointState { endpoint_id, state: EndpointState::Closed, reason }
}

pub async fn an_endpoint_id_that_is_taken_is_refused_and_its_owner_stays(system: System) {
    let (worker, api) = (system.worker().await, system.api().await);
    let session = api.create().await;
    let owner = api.join(session).await.joined.target;
    let mut body = join_body(session, ParticipantId::new(), None);
    if let CommandBody::Join { endpoint_id, .. } = &mut body {
        *endpoint_id = owner.endpoint_id;
    }
    let refused = api.call(&topology::session_queue_name(session), body).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::EndpointConflict);
    let candidates = CommandBody::Candidates { target: owner, candidates: Vec::new() };
    assert_eq!(api.tell(owner.worker_id, candidates).await, Ok(ReplyBody::Accepted));
    assert_eq!(worker.endpoints().await, 1);
    worker.stop().await;
}

pub async fn a_rejoin_replaces_the_endpoint(system: System) {
    let (worker, api) = (system.worker().await, system.api().await);
    let session = api.create().await;
    let participant = ParticipantId::new();
    let mut events = api.events(session, participant).await;
    let old = api.join_as(session, participant, Some(Peer::new().await.offer())).await.unwrap();
    let new = api.join_as(session, participant, None).await.unwrap();
    assert_eq!(old.joined.target.pipeline_id, new.joined.target.pipeline_id);
    assert_ne!(old.joined.target.endpoint_id, new.joined.target.endpoint_id);
    assert!(new.joined.others.is_empty() && new.joined.participant.tracks.is_empty());
    eventually("only the new endpoint lives", async || (worker.endpoints().await == 1).then_some(())).await;
    let candidates = |target| CommandBody::Candidates { target, candidates: Vec::new() };
    let (old, new) = (old.joined.target, new.joined.target);
    assert_eq!(api.tell(old.worker_id, candidates(old)).await.unwrap_err().code, ErrorCode::EndpointGone);
    assert_eq!(api.tell(new.worker_id, candidates(new)).await, Ok(ReplyBody::Accepted));
    let stored = system.store.session(session).await.unwrap().unwrap();
    assert_eq!(stored.participants.len(), 1);
    // The old endpoint's stream ends with this, after it has told of the rejoin.
    let seen = events.until(|body| *body == replaced(old.endpoint_id)).await;
    assert_eq!(seen.iter().filter(|body| body.kind() == "participant.joined").count(), 2);
    worker.stop().await;
}

pub async fn someone_removed_by_a_moderator_hears_of_it_like_everyone_else(system: System) {
    let (worker, api) = (system.worker().await, system.api().await);
    let session = api.create().await;
    let (participant, other) = (ParticipantId::new(), ParticipantId::new());
    let mut own_events = api.events(session, participant).await;
    let mut other_events = api.events(session, other).await;
    let target = api.join_as(session, participant, None).await.unwrap().joined.target;
    api.join_as(session, other, None).await.unwrap();
    let reason = LeaveReason::Removed;
    let remove = CommandBody::Leave {
        session_id: session,
        participant_id: participant,
        reason,
        endpoint_id: None,
        revoked_at: None,
    };
    assert_eq!(api.call(&topology::session_queue_name(session), remove.clone()).await, Ok(ReplyBody::Left));
    let left = EventBody::ParticipantLeft { participant_id: participant, reason };
    own_events.until(|body| *body == left).await;
    other_events.until(|body| *body == left).await;
    let answer = CommandBody::Candidates { target, candidates: Vec::new() };
    assert_eq!(api.tell(target.worker_id, answer).await.unwrap_err().code, ErrorCode::EndpointGone);
    assert_eq!(api.call(&topology::session_queue_name(session), remove).await, Ok(ReplyBody::Left), "again");
    worker.stop().await;
}

pub async fn who_was_removed_joins_with_newer_tokens_only(system: System) {
    let (worker, api) = (system.worker().await, system.api().await);
    let session = api.create().await;
    let participant = ParticipantId::new();
    let join = async |issued_at: Option<i64>| {
        let mut body = join_body(session, participant, None);
        if let CommandBody::Join { token_issued_at, .. } = &mut body {
            *token_issued_at = issued_at.map(UnixMillis);
        }
        api.call(&topology::session_queue_name(session), body).await
    };
    assert!(join(Some(1_000)).await.is_ok());
    let remove = CommandBody::Leave {
        session_id: session,
        participant_id: participant,
        reason: LeaveReason::Removed,
        endpoint_id: None,
        revoked_at: Some(UnixMillis(2_000)),
    };
    assert_eq!(api.call(&topology::session_queue_name(session), remove.clone()).await, Ok(ReplyBody::Left));
    // A join that was on its way when its token was revoked, which no API can know.
    for old in [1_000, 2_000] {
        assert_eq!(join(Some(old)).await.unwrap_err().code, ErrorCode::TokenRevoked);
    }
    let stored = system.store.session(session).await.unwrap().unwrap();
    assert!(stored.participants.is_empty(), "{stored:?}");
    // A newer token, which the same removal does not concern when it comes once more.
    assert!(join(Some(2_001)).await.is_ok());
    assert_eq!(api.call(&topology::session_queue_name(session), remove).await, Ok(ReplyBody::Left));
    assert!(join(None).await.is_ok(), "the backend may always");
    worker.stop().await;
}

pub async fn muting_is_stored_told_and_undone(system: System) {
    let (worker, api) = (system.worker().await, system.api().await);
    let session = api.create().await;
    let watcher = ParticipantId::new();
    let mut events = api.events(session, watcher).await;
    api.join_as(session, watcher, None).await.unwrap();
    let publisher = ParticipantId::new();
    let reply = api.join_as(session, publisher, Some(Peer::new().await.offer())).await.unwrap();
    let target = reply.joined.target;
    let track_id = reply.joined.participant.tracks[0].id;
    let mute = |track_id, muted, by_admin| {
        api.tell(target.worker_id, CommandBody::Mute { target, track_id, muted, by_admin })
    };
    let is_muted = async || {
        system.store.session(session).await.unwrap().unwrap().participant(publisher).unwrap().tracks[0].muted
    };
    for (muted, by_admin) in [(true, true), (false, false)] {
        let reply = mute(track_id, muted, by_admin).await.unwrap();
        assert!(
            matches!(&reply, ReplyBody::Muted { track } if track.muted == muted && track.id == track_id),
            "{reply:?}"
        );
        assert_eq!(is_muted().await, muted);
        // Setting what is set changes nothing and tells nobody.
        assert_eq!(mute(track_id, muted, !by_admin).await.unwrap(), reply);
    }
    assert_eq!(mute(TrackId::new(), true, false).await.unwrap_err().code, ErrorCode::TrackNotFound);
    api.close(session).await.unwrap();
    let seen = events.until_kind("session.closed").await;
    let told: Vec<_> = seen.iter().filter(|event| event.kind().ends_with("muted")).collect();
    let muted = EventBody::TrackMuted { participant_id: publisher, track_id, by_admin: true };
    let unmuted = EventBody::TrackUnmuted { participant_id: publisher, track_id, by_admin: false };
    assert_eq!(told, [&muted, &unmuted]);
    worker.stop().await;
}

pub async fn a_refused_offer_undoes_the_whole_join(system: System) {
    let (worker, api) = (system.worker().await, system.api().await);
    let session = api.create().await;
    let watcher = ParticipantId::new();
    let mut events = api.events(session, watcher).await;
    let before = api.join_as(session, watcher, None).await.unwrap();
    let bad = || Some(Offer { sdp: "not SDP".to_owned(), revision: None, tracks: Vec::new() });
    let refused = api.join_as(session, ParticipantId::new(), bad()).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidSdp);
    // A bad rejoin does not cost whoever is there its endpoint.
    assert_eq!(api.join_as(session, watcher, bad()).await.unwrap_err().code, ErrorCode::InvalidSdp);
    let target = before.joined.target;
    let candidates = CommandBody::Candidates { target, candidates: Vec::new() };
    assert_eq!(api.tell(target.worker_id, candidates).await, Ok(ReplyBody::Accepted));
    eventually("the refused endpoints are closed", async || (worker.endpoints().await == 1).then_some(()))
        .await;
    let stored = system.store.session(session).await.unwrap().unwrap();
    assert_eq!(stored.participants, [before.joined.participant]);
    api.close(session).await.unwrap();
    let seen = events.until_kind("session.closed").await;
    assert_eq!(seen.iter().filter(|event| event.kind() == "participant.joined").count(), 1, "only its own");
    worker.stop().await;
}

pub async fn bad_offers_are_refused_and_the_room_goes_on(system: System) {
    let (worker, api) = (system.worker().await, system.api().await);
    let session = api.create().await;
    let join = joined(
        api.call(
            &topology::session_queue_name(session),
            join_body(session, ParticipantId::new(), Some(Peer::new().await.offer())),
        )
        .await
        .unwrap(),
    );
    let target = join.joined.target;
    let offer = |sdp: &str| CommandBody::Offer {
        target,
        offer: Offer { sdp: sdp.to_owned(), revision: None, tracks: Vec::new() },
    };
    let bad = api.tell(target.worker_id, offer("v=0\r\n")).await.unwrap_err();
    assert_eq!(bad.code, ErrorCode::InvalidSdp);
    let answer = common::message::Answer { sdp: "v=0\r\n".to_owned(), revision: 9 };
    let unasked = api.tell(target.worker_id, CommandBody::Answer { target, answer }).await.unwrap_err();
    assert_eq!(unasked.code, ErrorCode::NoOfferPending);
    let stored = system.store.session(session).await.unwrap().unwrap();
    assert_eq!(stored.participants, [join.joined.participant]);
    let other = api.join_as(session, ParticipantId::new(), Some(Peer::new().await.offer())).await.unwrap();
    assert_eq!(other.joined.others.len(), 1);
    worker.stop().await;
}

pub async fn others_hear_of_a_participant_before_they_are_offered_its_tracks(system: System) {
    let store = FaultyStore::over(system.store.clone());
    let worker = system.worker_with(config(), store.clone()).await;
    let api = system.api().await;
    let session = api.create().await;
    let (watcher, publisher) = (ParticipantId::new(), ParticipantId::new());
    let mut events = api.events(session, watcher).await;
    let mut watch = join_body(session, watcher, None);
    if let CommandBody::Join { server_offers, .. } = &mut watch {
        *server_offers = true;
    }
    api.call(&topology::session_queue_name(session), watch).await.unwrap();
    // The media plane has its offer ready long before the store has the participant.
    store.plan(|operation| {
        (operation == "put_participant").then_some(Fault::Dawdle(Duration::from_millis(300)))
    });
    api.join_as(session, publisher, Some(Peer::new().await.offer())).await.unwrap();
    let seen = events.until_kind("offer").await;
    let about: Vec<_> = seen
        .iter()
        .filter(|event| match event {
            EventBody::ParticipantJoined { participant } => participant.id == publisher,
            EventBody::TrackPublished { participant_id, .. } => *participant_id == publisher,
            EventBody::Offer { tracks, .. } => tracks.iter().any(|track| track.participant_id == publisher),
            _ => false,
        })
        .map(EventBody::kind)
        .collect();
    assert_eq!(about, ["participant.joined", "track.published", "offer"]);
    worker.stop().await;
}
