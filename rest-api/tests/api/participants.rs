//! Join, rejoin, leave, participant tokens.

use std::time::Duration;

use common::message::{CommandBody, ErrorCode};
use common::model::{CommandId, EndpointId, ParticipantId, SessionId};
use common::time::UnixMillis;
use common::token::VideoGrants;
use common::turn::TurnSecret;
use rest_api::{IceServer, Turn};
use serde_json::json;

use crate::support::*;

fn participants(session: SessionId) -> String {
    format!("/v1/sessions/{session}/participants")
}

#[tokio::test]
async fn the_join_reply_has_everything_to_go_on_with() {
    let system = System::new();
    let _worker = system.worker().await;
    let turn = IceServer {
        urls: vec!["turn:turn.example:3478".to_owned()],
        username: Some("u".to_owned()),
        credential: Some("p".to_owned()),
    };
    let api = system.api_with(|config| config.ice_servers = vec![turn.clone()]).await;
    let backend = Client::new(&api.url, Auth::Basic(KEY, SECRET));
    let session = create_session(&backend).await;
    let first = join(&backend, session).await;
    let guest = backend.with(Auth::Bearer(token(VideoGrants::join(session), None)));
    let offer = json!({"sdp": "an offer", "tracks": [{"mid": "0", "source": "camera"}]});
    let joined = guest.post(&participants(session), json!({"name": "Bo", "offer": offer})).await;
    assert_eq!(joined.status, 201, "{joined:?}");
    let reply = &joined.json;
    assert_eq!(reply["session_id"], session.to_string());
    assert_eq!(reply["participant"]["name"], "Bo");
    assert_eq!(reply["participant"]["state"], "joined");
    assert!(reply["endpoint_id"].as_str().unwrap().starts_with("end_"));
    assert_eq!(reply["participants"].as_array().unwrap().len(), 1);
    assert_eq!(reply["participants"][0]["id"], first.id.to_string());
    assert_eq!(reply["answer"], json!({"sdp": "answer to an offer", "revision": 1}));
    assert_eq!(reply["tracks"], reply["participant"]["tracks"]);
    assert_eq!(reply["ice_servers"], json!([{"urls": turn.urls, "username": "u", "credential": "p"}]));
    let claims = keys().verify(reply["token"].as_str().unwrap()).unwrap();
    assert_eq!(claims.sub.unwrap().to_string(), reply["participant"]["id"]);
    assert_eq!((claims.video.room, claims.iss.as_str()), (Some(session), KEY));
    assert_eq!(reply["token_expires_at"], claims.exp * 1000);
    let target = keys().open(reply["destination"].as_str().unwrap(), KEY).unwrap();
    assert_eq!(target.endpoint_id.to_string(), reply["endpoint_id"]);
}

/// What a TURN server that shares the secret lets in: for this participant, for as long as configured.
#[tokio::test]
async fn each_join_brings_turn_credentials_of_its_own() {
    let system = System::new();
    let _worker = system.worker().await;
    let secret: TurnSecret = "shared-with-the-relay".parse().unwrap();
    let urls = vec!["turn:turn.example:3478".to_owned(), "turns:turn.example:5349".to_owned()];
    let turn = Turn { urls: urls.clone(), secret: secret.clone(), ttl: Duration::from_secs(600) };
    let api = system.api_with(|config| config.turn = Some(turn)).await;
    let backend = Client::new(&api.url, Auth::Basic(KEY, SECRET));
    let session = create_session(&backend).await;
    let began = UnixMillis::now().0 / 1000;
    let joined = backend.post(&participants(session), json!({"name": "Bo"})).await;
    let server = joined.json["ice_servers"][0].clone();
    assert_eq!(server["urls"], json!(urls));
    let username = server["username"].as_str().unwrap();
    let (expires, participant) = username.split_once(':').unwrap();
    let age = expires.parse::<i64>().unwrap() - began;
    assert!((600..600 + PATIENCE.as_secs() as i64).contains(&age), "{age}");
    assert_eq!(participant, joined.json["participant"]["id"]);
    assert_eq!(server["credential"], secret.password(username));

    let again = backend.post(&participants(session), json!({"participant_id": participant})).await;
    let again = again.json["ice_servers"][0]["username"].as_str().unwrap().to_owned();
    assert!(again.as_str() >= username, "a rejoin begins anew");

    let guest = backend.with(Auth::Bearer(joined.json["token"].as_str().unwrap().to_owned()));
    let path = format!("/v1/sessions/{session}/participants/{participant}/ice-servers");
    let refreshed = guest.get(&path).await;
    assert_eq!(refreshed.status, 200, "{refreshed:?}");
    let server = &refreshed.json["ice_servers"][0];
    assert_eq!(server["credential"], secret.password(server["username"].as_str().unwrap()));
    let other = format!("/v1/sessions/{session}/participants/{}/ice-servers", ParticipantId::new());
    assert_eq!(guest.get(&other).await.status, 403, "nobody gets another one's");
}

#[tokio::test]
async fn grants_and_name_come_from_the_token() {
    let (_system, _api, worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let links = format!("/v1/sessions/{session}/links");
    let link = backend.post(&links, json!({"name": "Official", "can_publish": false})).await;
    let guest = backend.with(Auth::Bearer(link.json["token"].as_str().unwrap().to_owned()));
    let joined = guest.post(&participants(session), json!({"name": "Impostor"})).await;
    assert_eq!(joined.json["participant"]["name"], "Official");
    match worker.seen().pop().unwrap().body {
        CommandBody::Join { grants, .. } => assert!(!grants.can_publish && grants.can_subscribe),
        other => panic!("{other:?}"),
    }
    // The participant token grants no more, also when it rejoins.
    let member = member(&backend, session, &joined);
    let again = member.client.post(&participants(session), json!({"name": "Impostor"})).await;
    assert_eq!(again.json["participant"]["name"], "Official");
    let grants = keys().verify(again.json["token"].as_str().unwrap()).unwrap().video.participant();
    assert!(!grants.can_publish && grants.can_subscribe && !grants.admin);
}

#[tokio::test]
async fn rejoining_keeps_the_participant_and_gives_a_new_endpoint_and_token() {
    let (_system, _api, _worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    let again = member.client.post(&participants(session), json!({})).await;
    assert_eq!(again.status, 201);
    assert_eq!(again.json["participant"]["id"], member.id.to_string());
    assert_eq!(again.json["participant"]["name"], "somebody", "a rejoin without a name keeps it");
    assert_ne!(again.json["destination"], member.destination);
    let by_backend = backend.post(&participants(session), json!({"participant_id": member.id})).await;
    assert_eq!(by_backend.json["participant"]["id"], member.id.to_string());
    assert_eq!(by_backend.json["participants"], json!([]), "one participant, however often it joins");
}

#[tokio::test]
async fn an_open_link_does_not_take_the_place_of_somebody() {
    let (_system, _api, _worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    let guest = backend.with(Auth::Bearer(token(VideoGrants::join(session), None)));
    let taken = guest.post(&participants(session), json!({"participant_id": member.id})).await;
    taken.is_problem(409, "participant_conflict");
    // Its own new id is its own business; the same join again is the same join.
    let own = ParticipantId::new();
    let keyed = guest.header("idempotency-key", &CommandId::new().to_string());
    let first = keyed.post(&participants(session), json!({"participant_id": own})).await;
    let second = keyed.post(&participants(session), json!({"participant_id": own})).await;
    assert_eq!((first.status, second.status), (201, 201));
    assert_eq!(first.json["endpoint_id"], second.json["endpoint_id"]);
    guest
        .post(&participants(session), json!({"participant_id": own}))
        .await
        .is_problem(409, "participant_conflict");
    // A token for one participant cannot join as another.
    let other = member.client.post(&participants(session), json!({"participant_id": own})).await;
    other.is_problem(403, "forbidden");
}

#[tokio::test]
async fn the_same_join_twice_is_one_participant_whose_id_tells_nothing() {
    let (_system, _api, _worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let command = CommandId::new();
    let guest = backend
        .with(Auth::Bearer(token(VideoGrants::join(session), None)))
        .header("idempotency-key", &command.to_string());
    let first = guest.post(&participants(session), json!({})).await;
    let second = guest.post(&participants(session), json!({})).await;
    assert_eq!(first.json["participant"], second.json["participant"]);
    assert_eq!(first.json["endpoint_id"], second.json["endpoint_id"]);
    let uuid = command.uuid().to_string();
    assert!(!first.text.contains(&uuid), "the command's id would let others repeat the join");
}

#[tokio::test]
async fn participants_are_listed_and_read() {
    let (_system, _api, _worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let (first, second) = (join(&backend, session).await, join(&backend, session).await);
    let listed = second.client.get(&participants(session)).await;
    let ids: Vec<_> =
        listed.json["participants"].as_array().unwrap().iter().map(|one| one["id"].clone()).collect();
    assert_eq!(ids, [json!(first.id), json!(second.id)]);
    assert_eq!(first.client.get(&first.path("")).await.json["id"], first.id.to_string());
    let nobody = format!("{}/{}", participants(session), ParticipantId::new());
    backend.get(&nobody).await.is_problem(404, "participant_not_found");
}

#[tokio::test]
async fn who_leaves_is_gone() {
    let (_system, _api, worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    let left = member.client.delete(&member.path("")).await;
    assert_eq!((left.status, left.text.as_str()), (204, ""));
    assert!(left.headers.contains_key("command-id"));
    match worker.seen().pop().unwrap().body {
        CommandBody::Leave { reason, .. } => assert_eq!(reason, common::message::LeaveReason::Left),
        other => panic!("{other:?}"),
    }
    member.client.get(&member.path("")).await.is_problem(404, "participant_not_found");
    member
        .client
        .post(&member.path("/offer"), json!({"sdp": "x"}))
        .await
        .is_problem(404, "participant_not_found");
}

#[tokio::test]
async fn a_refused_join_leaves_no_queue_behind() {
    let (system, _api, worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let id = ParticipantId::new();
    worker.refuse(ErrorCode::InvalidSdp);
    let endpoint = EndpointId::new();
    let body = json!({"participant_id": id, "endpoint_id": endpoint, "offer": {"sdp": "nonsense"}});
    backend.post(&participants(session), body).await.is_problem(400, "invalid_sdp");
    let queue = common::broker::topology::user_queue_name(session, id, endpoint);
    let options = common::broker::InboxOptions { prefetch: 1, exclusive: true };
    let missing = system.broker.open_inbox(&queue, options).await.err().unwrap();
    assert_eq!(missing.kind, common::broker::BrokerErrorKind::Unroutable);
    backend
        .get(&format!("{}/{id}/events?endpoint={endpoint}", participants(session)))
        .await
        .is_problem(410, "endpoint_gone");
}

#[tokio::test]
async fn an_endpoint_id_may_be_brought_and_is_taken_once() {
    let (_system, _api, worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let (id, endpoint) = (ParticipantId::new(), EndpointId::new());
    let body = json!({"participant_id": id, "endpoint_id": endpoint});
    let key = CommandId::new().to_string();
    let keyed = backend.header("idempotency-key", &key);
    let joined = keyed.post(&participants(session), body.clone()).await;
    assert_eq!((joined.status, &joined.json["endpoint_id"]), (201, &json!(endpoint)));
    // The same join once more is the same endpoint; another join needs an id of its own.
    let again = keyed.post(&participants(session), body.clone()).await;
    assert_eq!((again.status, &again.json["endpoint_id"]), (201, &json!(endpoint)));
    let joins = worker.seen().len();
    backend.post(&participants(session), body).await.is_problem(409, "endpoint_conflict");
    let other = json!({"endpoint_id": endpoint});
    backend.post(&participants(session), other).await.is_problem(409, "endpoint_conflict");
    assert_eq!(worker.seen().len(), joins, "refused before any worker is asked");
    // Whose it is still reads its events.
    let events = format!("{}/{id}/events?endpoint={endpoint}", participants(session));
    assert_eq!(backend.get(&events).await.status, 200);
}

#[tokio::test]
async fn the_same_join_without_an_endpoint_id_names_the_same_endpoint() {
    let (_system, _api, worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let key = CommandId::new().to_string();
    let keyed = backend.header("idempotency-key", &key);
    for _ in 0..2 {
        assert_eq!(keyed.post(&participants(session), json!({})).await.status, 201);
    }
    let endpoints: Vec<_> = worker
        .seen()
        .into_iter()
        .filter_map(|command| match command.body {
            CommandBody::Join { endpoint_id, .. } => Some(endpoint_id),
            _ => None,
        })
        .collect();
    assert_eq!(endpoints.len(), 2);
    assert_eq!(endpoints[0], endpoints[1]);
}
