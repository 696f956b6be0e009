//! Long poll: cursor, limit, waiting, the end of a stream.

use std::time::{Duration, Instant};

use common::broker::topology;
use common::message::{EventBody, LeaveReason};
use common::model::{EndpointId, EventId, ParticipantId};
use serde_json::{Value, json};

use crate::support::*;

fn numbers(page: &Replied) -> Vec<i64> {
    assert_eq!(page.status, 200, "{page:?}");
    page.json["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["data"]["epoch"].as_i64().unwrap_or_else(|| panic!("{event}")))
        .collect()
}

async fn single_member() -> (System, Api, Worker, Client, Member) {
    let (system, api, worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    (system, api, worker, backend, member)
}

#[tokio::test]
async fn events_stay_until_the_cursor_confirms_them() {
    let (system, _api, _worker, _backend, member) = single_member().await;
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(system.send_number(&member, number).await);
    }
    let poll = async |query: &str| member.client.get(&member.events(query)).await;
    let first = poll("limit=3").await;
    assert_eq!(numbers(&first), [0, 1, 2]);
    assert_eq!(first.json["cursor"], ids[2].to_string());
    assert_eq!(first.json["events"][0]["id"], ids[0].to_string());
    assert_eq!(numbers(&poll("limit=3").await), [0, 1, 2], "not confirmed: given again");
    assert_eq!(numbers(&poll(&format!("cursor={}", ids[1])).await), [2, 3, 4]);
    assert_eq!(
        numbers(&poll(&format!("cursor={}", ids[0])).await),
        [2, 3, 4],
        "an old cursor confirms nothing"
    );
    assert_eq!(numbers(&poll(&format!("cursor={}", EventId::new())).await), [2, 3, 4], "nor an unknown one");
    let last = poll(&format!("cursor={}", ids[4])).await;
    assert_eq!(last.json, json!({"events": [], "cursor": ids[4]}));
    assert_eq!(poll("").await.json, json!({"events": [], "cursor": null}));
}

#[tokio::test]
async fn a_poll_returns_as_soon_as_there_is_an_event_and_not_before() {
    let (system, _api, _worker, _backend, member) = single_member().await;
    let started = Instant::now();
    let empty = member.client.get(&member.events("wait=1")).await;
    assert_eq!(empty.json["events"], json!([]));
    assert!(started.elapsed() >= Duration::from_millis(990));
    let waiting = tokio::spawn({
        let (client, path) = (member.client.clone(), member.events("wait=30"));
        async move { (client.get(&path).await, Instant::now()) }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    let sent = Instant::now();
    system.send_number(&member, 1).await;
    let (page, answered) = waiting.await.unwrap();
    assert_eq!(numbers(&page), [1]);
    assert!(answered - sent < Duration::from_secs(5), "{:?}", answered - sent);
}

#[tokio::test]
async fn a_poll_that_hangs_up_loses_nothing() {
    let (system, _api, _worker, _backend, member) = single_member().await;
    for number in 0..20 {
        let path = member.events("wait=30");
        let request = member.client.request(reqwest::Method::GET, &path).timeout(Duration::from_millis(3));
        let _ = tokio::join!(system.send_number(&member, number), request.send());
    }
    let page = member.client.get(&member.events("wait=20&limit=500")).await;
    assert_eq!(numbers(&page), (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_newer_poll_ends_an_older_one() {
    let (system, _api, _worker, _backend, member) = single_member().await;
    let older = tokio::spawn({
        let (client, path) = (member.client.clone(), member.events("wait=30"));
        async move { client.get(&path).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let newer = tokio::spawn({
        let (client, path) = (member.client.clone(), member.events("wait=30"));
        async move { client.get(&path).await }
    });
    let superseded =
        tokio::time::timeout(Duration::from_secs(5), older).await.expect("ends at once").unwrap();
    assert_eq!((superseded.status, &superseded.json["events"]), (200, &json!([])));
    system.send_number(&member, 3).await;
    assert_eq!(numbers(&newer.await.unwrap()), [3]);
}

#[tokio::test]
async fn events_are_shown_in_their_public_form() {
    let (system, _api, _worker, backend, member) = single_member().await;
    let other = join(&backend, member.session).await;
    let stored = common::store::Store::session(&*system.store, member.session).await.unwrap().unwrap();
    let participant = stored.participant(other.id).unwrap().clone();
    let secret = participant.command_id.to_string();
    system.send_event(&member, EventBody::ParticipantJoined { participant }).await;
    let page = member.client.get(&member.events("wait=20")).await;
    let event = &page.json["events"][0];
    assert_eq!(event["type"], "participant.joined");
    assert_eq!(event["data"]["participant"]["id"], other.id.to_string());
    assert_eq!(event["data"]["participant"]["tracks"][0]["source"], "camera");
    assert!(event["time"].as_i64().unwrap() > 1_700_000_000_000);
    for internal in [&*secret, "grants", "_id\":\"par", "worker", "pipeline", "command_id"] {
        let internal_key = internal.trim_end_matches("\":\"par");
        if internal_key == "_id" {
            assert!(!page.text.contains("\"_id\""), "{}", page.text);
        } else {
            assert!(!page.text.contains(internal), "{internal} in {}", page.text);
        }
    }
}

#[tokio::test]
async fn what_is_no_event_is_skipped() {
    let (system, _api, _worker, _backend, member) = single_member().await;
    let queue = member.queue();
    for body in [&b"nonsense"[..], b"{}", b"", b"{\"id\": \"evt_x\"}"] {
        let message = common::broker::Message { body: body.to_vec(), ..Default::default() };
        system.broker.send(common::broker::Destination::Queue(&queue), message).await.unwrap();
    }
    system.send_number(&member, 5).await;
    assert_eq!(numbers(&member.client.get(&member.events("wait=20")).await), [5]);
}

#[tokio::test]
async fn who_left_reads_its_own_leaving_and_then_there_is_nothing() {
    let (system, _api, _worker, backend, member) = single_member().await;
    let other = join(&backend, member.session).await;
    assert_eq!(member.client.delete(&member.path("")).await.status, 204);
    // What comes after its leaving is none of its business any more.
    let body = EventBody::ParticipantLeft { participant_id: other.id, reason: LeaveReason::Left };
    system.send_event(&member, body).await;
    let page = member.client.get(&member.events("wait=20")).await;
    assert_eq!(page.json["events"].as_array().unwrap().len(), 1);
    assert_eq!(page.json["events"][0]["type"], "participant.left");
    assert_eq!(page.json["events"][0]["data"], json!({"participant_id": member.id, "reason": "left"}));
    let again = member.client.get(&member.events("wait=20")).await;
    assert_eq!(again.json, page.json, "until it is confirmed");
    let cursor = page.json["cursor"].as_str().unwrap();
    let confirmed = member.client.get(&member.events(&format!("wait=20&cursor={cursor}"))).await;
    assert_eq!((confirmed.status, &confirmed.json["events"]), (200, &json!([])));
    member.client.get(&member.events("wait=20")).await.is_problem(410, "endpoint_gone");
    member.client.get(&member.path("/events")).await.is_problem(404, "participant_not_found");
}

#[tokio::test]
async fn the_end_of_the_session_is_the_last_event() {
    let (_system, _api, _worker, backend, member) = single_member().await;
    assert_eq!(backend.delete(&format!("/v1/sessions/{}", member.session)).await.status, 204);
    let page = member.client.get(&member.events("wait=20")).await;
    let last = page.json["events"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["type"], "session.closed");
    let confirm = format!("cursor={}", last["id"].as_str().unwrap());
    assert_eq!(member.client.get(&member.events(&confirm)).await.json["events"], Value::Array(Vec::new()));
    member.client.get(&member.events("")).await.is_problem(410, "endpoint_gone");
    member.client.get(&member.path("/events")).await.is_problem(410, "session_closed");
}

#[tokio::test]
async fn a_queue_that_comes_back_after_the_end_of_its_session_keeps_nobody_waiting() {
    let (system, _api, _worker, backend, member) = single_member().await;
    assert_eq!(backend.delete(&format!("/v1/sessions/{}", member.session)).await.status, 204);
    let page = member.client.get(&member.events("wait=20")).await;
    let confirm = format!("cursor={}", page.json["cursor"].as_str().unwrap());
    assert_eq!(member.client.get(&member.events(&confirm)).await.json["events"], json!([]));
    // As RabbitMQ does when queue and exchange are deleted at once.
    let queue = topology::user_queue(member.session, member.id, member.endpoint);
    system.broker.declare_queue(&queue).await.unwrap();
    member.client.get(&member.events("wait=20")).await.is_problem(410, "endpoint_gone");
}

#[tokio::test]
async fn a_left_over_of_an_earlier_stay_does_not_end_a_new_one() {
    let (system, _api, _worker, backend, first) = single_member().await;
    let member = rejoin(&backend, &first).await;
    // The leaving of the earlier stay comes late, when the new endpoint's queue is bound already.
    let left = EventBody::ParticipantLeft { participant_id: member.id, reason: LeaveReason::ConnectionLost };
    system.send_event(&member, left).await;
    system.send_number(&member, 8).await;
    assert_eq!(numbers(&member.client.get(&member.events("wait=20")).await), [8]);
}

#[tokio::test]
async fn who_leaves_and_joins_again_reads_a_new_stream_and_the_old_one_ends() {
    let (system, _api, _worker, backend, old) = single_member().await;
    assert_eq!(old.client.delete(&old.path("")).await.status, 204);
    let new = rejoin(&backend, &old).await;
    assert_eq!((new.id, new.endpoint == old.endpoint), (old.id, false));
    system.send_number(&new, 9).await;
    assert_eq!(numbers(&new.client.get(&new.events("wait=20")).await), [9]);
    let page = old.client.get(&old.events("wait=20")).await;
    let kinds: Vec<_> =
        page.json["events"].as_array().unwrap().iter().map(|event| event["type"].clone()).collect();
    assert_eq!(kinds, ["participant.left"]);
    let cursor = page.json["cursor"].as_str().unwrap();
    assert_eq!(old.client.get(&old.events(&format!("cursor={cursor}"))).await.status, 200);
    old.client.get(&old.events("")).await.is_problem(410, "endpoint_gone");
    system.send_number(&new, 10).await;
    assert_eq!(numbers(&new.client.get(&new.events("wait=20")).await), [9, 10]);
}

#[tokio::test]
async fn a_replaced_endpoint_reads_its_end_and_takes_nothing_from_the_new_one() {
    let (system, _api, _worker, backend, old) = single_member().await;
    system.send_number(&old, 1).await;
    let new = rejoin(&backend, &old).await;
    system.send_number(&new, 2).await;
    let page = old.client.get(&old.events("wait=20")).await;
    assert_eq!(page.json["events"][0]["data"]["epoch"], 1);
    let last = &page.json["events"][1];
    assert_eq!(last["type"], "endpoint.state");
    let replaced = json!({"endpoint_id": old.endpoint, "state": "closed", "reason": "replaced"});
    assert_eq!(last["data"], replaced);
    let cursor = page.json["cursor"].as_str().unwrap();
    let confirmed = old.client.get(&old.events(&format!("wait=20&cursor={cursor}"))).await;
    assert_eq!((confirmed.status, &confirmed.json["events"]), (200, &json!([])));
    old.client.get(&old.events("wait=20")).await.is_problem(410, "endpoint_gone");
    // Without an endpoint it is the current one's.
    assert_eq!(numbers(&new.client.get(&new.path("/events?wait=20")).await), [2]);
    assert_eq!(numbers(&new.client.get(&new.events("wait=20")).await), [2]);
}

#[tokio::test]
async fn leaving_ends_every_stream_of_the_participant() {
    let (system, _api, _worker, backend, old) = single_member().await;
    let new = rejoin(&backend, &old).await;
    // As when an endpoint lives on in a pipeline that drains: nobody has told it that it is replaced.
    let draining = Member { endpoint: EndpointId::new(), ..old };
    let queue = common::broker::topology::user_queue(draining.session, draining.id, draining.endpoint);
    system.broker.declare_queue(&queue).await.unwrap();
    let exchange = common::broker::topology::session_exchange_name(draining.session);
    system.broker.bind(&queue.name, &exchange).await.unwrap();
    assert_eq!(new.client.delete(&new.path("")).await.status, 204);
    for member in [&draining, &new] {
        let page = member.client.get(&member.events("wait=20")).await;
        let last = page.json["events"].as_array().unwrap().last().unwrap();
        assert_eq!(last["type"], "participant.left", "{}", page.text);
        let cursor = page.json["cursor"].as_str().unwrap();
        assert_eq!(member.client.get(&member.events(&format!("cursor={cursor}"))).await.status, 200);
        member.client.get(&member.events("")).await.is_problem(410, "endpoint_gone");
    }
}

#[tokio::test]
async fn who_never_joined_has_no_events() {
    let (_system, _api, _worker, backend, member) = single_member().await;
    let nobody = ParticipantId::new();
    let path = format!("/v1/sessions/{}/participants/{nobody}/events?wait=20", member.session);
    backend.get(&path).await.is_problem(404, "participant_not_found");
    let unknown = member.path(&format!("/events?endpoint={}", EndpointId::new()));
    backend.get(&unknown).await.is_problem(410, "endpoint_gone");
    let grants = common::token::VideoGrants::join(member.session);
    let client = backend.with(Auth::Bearer(token(grants, Some(nobody))));
    client.get(&path).await.is_problem(404, "participant_not_found");
}
