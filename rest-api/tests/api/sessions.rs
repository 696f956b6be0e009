//! Create, list, read, close, links.

use std::sync::Arc;

use common::model::{CommandId, ParticipantId, SessionId};
use common::token::VideoGrants;
use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn a_created_session_has_a_link_that_joins_it() {
    let system = System::new();
    let _worker = system.worker().await;
    let api = system.api_with(|config| config.public_url = Some("https://meet.example/".to_owned())).await;
    let backend = Client::new(&api.url, Auth::Basic(KEY, SECRET));
    let created = backend.post("/v1/sessions", json!({"name": "stand-up"})).await;
    assert_eq!(created.status, 201);
    let id = created.json["session"]["id"].as_str().unwrap();
    assert_eq!(created.headers["location"], format!("/v1/sessions/{id}"));
    assert_eq!(created.json["session"]["name"], "stand-up");
    assert_eq!(created.json["session"]["state"], "open");
    assert_eq!(created.json["session"]["participants"], json!([]));
    let token = created.json["token"].as_str().unwrap();
    let link = format!("https://meet.example/#session={id}&token={token}");
    assert_eq!(created.json["join_link"], link);
    let guest = backend.with(Auth::Bearer(token.to_owned()));
    let joined = guest.post(&format!("/v1/sessions/{id}/participants"), json!({})).await;
    assert_eq!(joined.status, 201, "{joined:?}");
}

#[tokio::test]
async fn without_a_public_url_links_start_with_the_address_of_the_request() {
    let (_system, api, _worker, backend) = System::single().await;
    let created = backend.post("/v1/sessions", json!({})).await;
    let link = created.json["join_link"].as_str().unwrap();
    assert!(link.starts_with(&format!("{}/#session=ses_", api.url)), "{link}");
}

#[tokio::test]
async fn only_a_trusted_proxy_says_that_a_client_came_by_https() {
    let (system, _api, _worker, backend) = System::single().await;
    let proxied = backend.header("x-forwarded-proto", "https").header("host", "meet.example");
    let reply = proxied.post("/v1/sessions", json!({})).await;
    let link = reply.json["join_link"].as_str().unwrap().to_owned();
    assert!(link.starts_with("http://meet.example/#session=ses_"), "anybody may write that header: {link}");
    assert!(!reply.headers.contains_key("strict-transport-security"));

    let networks = vec!["127.0.0.0/8".parse().unwrap()];
    let trusted = rest_api::TrustedProxies { networks, ..Default::default() };
    let behind = system.api_with(|config| config.trusted_proxies = Arc::new(trusted)).await;
    let client = Client::new(&behind.url, backend.auth.clone());
    let proxied = client.header("x-forwarded-proto", "https").header("host", "meet.example");
    let reply = proxied.post("/v1/sessions", json!({})).await;
    let link = reply.json["join_link"].as_str().unwrap();
    assert!(link.starts_with("https://meet.example/#session=ses_"), "{link}");
    assert_eq!(reply.headers["strict-transport-security"], "max-age=31536000");
    let plain = client.get("/healthz").await;
    assert!(!plain.headers.contains_key("strict-transport-security"), "the proxy did not say https");
}

#[tokio::test]
async fn a_session_is_created_once_per_id_and_per_key() {
    let (_system, _api, _worker, backend) = System::single().await;
    let id = SessionId::new();
    let first = backend.post("/v1/sessions", json!({"id": id, "name": "one"})).await;
    assert_eq!(first.status, 201);
    let second = backend.post("/v1/sessions", json!({"id": id, "name": "two"})).await;
    assert_eq!(second.status, 200);
    assert_eq!(second.json["session"], first.json["session"]);
    let other = backend.with(Auth::Basic(OTHER_KEY, OTHER_SECRET));
    other.post("/v1/sessions", json!({"id": id})).await.is_problem(409, "session_conflict");
}

#[tokio::test]
async fn the_same_idempotency_key_creates_once() {
    let (_system, _api, _worker, backend) = System::single().await;
    let command = CommandId::new();
    let keyed = backend.header("idempotency-key", &command.to_string());
    let body = json!({"id": SessionId::new()});
    let first = keyed.post("/v1/sessions", body.clone()).await;
    let second = keyed.post("/v1/sessions", body).await;
    assert_eq!((first.status, second.status), (201, 201));
    assert_eq!(first.json["session"], second.json["session"]);
    assert_eq!(first.headers["command-id"], command.to_string());
    assert_eq!(backend.get("/v1/sessions").await.json["sessions"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_same_idempotency_key_without_an_id_creates_once_too() {
    let (_system, _api, _worker, backend) = System::single().await;
    let keyed = backend.header("idempotency-key", &CommandId::new().to_string());
    let first = keyed.post("/v1/sessions", json!({})).await;
    let second = keyed.post("/v1/sessions", json!({})).await;
    assert_eq!((first.status, second.status), (201, 201));
    assert_eq!(first.json["session"]["id"], second.json["session"]["id"]);
}

#[tokio::test]
async fn sessions_are_listed_in_pages_for_their_own_key() {
    let (_system, _api, _worker, backend) = System::single().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(create_session(&backend).await.to_string());
    }
    ids.sort();
    create_session(&backend.with(Auth::Basic(OTHER_KEY, OTHER_SECRET))).await;
    let closed = create_session(&backend).await;
    backend.delete(&format!("/v1/sessions/{closed}")).await;
    let (mut seen, mut after) = (Vec::new(), String::new());
    for expected in [2, 2, 1] {
        let page = backend.get(&format!("/v1/sessions?limit=2{after}")).await;
        let sessions = page.json["sessions"].as_array().unwrap();
        assert_eq!(sessions.len(), expected);
        seen.extend(sessions.iter().map(|session| session["id"].as_str().unwrap().to_owned()));
        after = format!("&after={}", page.json["next"].as_str().unwrap_or("none"));
    }
    assert_eq!(seen, ids);
    assert_eq!(after, "&after=none");
}

#[tokio::test]
async fn a_session_shows_its_participants_and_nothing_internal() {
    let (_system, _api, _worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    for client in [&backend, &member.client] {
        let shown = client.get(&format!("/v1/sessions/{session}")).await;
        assert_eq!(shown.status, 200);
        assert_eq!(shown.json["participants"][0]["id"], member.id.to_string());
        assert_eq!(shown.json["participants"][0]["name"], "somebody");
        for internal in
            ["command_id", "worker_id", "pipeline", "key_id", "grants", "_id", "epoch", "endpoint"]
        {
            assert!(!shown.text.contains(internal), "{internal} in {}", shown.text);
        }
        assert_eq!(shown.headers["cache-control"], "no-store");
    }
}

#[tokio::test]
async fn a_closed_session_stays_closed() {
    let (_system, _api, worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let path = format!("/v1/sessions/{session}");
    assert_eq!(backend.delete(&path).await.status, 204);
    let before = worker.seen().len();
    assert_eq!(backend.delete(&path).await.status, 204);
    assert_eq!(worker.seen().len(), before, "closing twice is one command");
    assert_eq!(backend.get(&path).await.json["state"], "closed");
    backend.post(&format!("{path}/participants"), json!({})).await.is_problem(410, "session_closed");
    backend.get(&format!("{path}/participants")).await.is_problem(410, "session_closed");
    backend.post(&format!("{path}/links"), json!({})).await.is_problem(410, "session_closed");
    backend.post("/v1/sessions", json!({"id": session})).await.is_problem(410, "session_closed");
}

#[tokio::test]
async fn a_session_that_never_was_is_not_found() {
    let (_system, _api, worker, backend) = System::single().await;
    let path = format!("/v1/sessions/{}", SessionId::new());
    backend.get(&path).await.is_problem(404, "session_not_found");
    backend.delete(&path).await.is_problem(404, "session_not_found");
    backend.post(&format!("{path}/links"), json!({})).await.is_problem(404, "session_not_found");
    backend.post(&format!("{path}/participants"), json!({})).await.is_problem(404, "session_not_found");
    backend.get(&format!("{path}/participants")).await.is_problem(404, "session_not_found");
    let participant = format!("{path}/participants/{}", ParticipantId::new());
    backend.get(&participant).await.is_problem(404, "session_not_found");
    backend.get(&format!("{participant}/events")).await.is_problem(404, "session_not_found");
    backend
        .post(&format!("{participant}/offer"), json!({"sdp": "v=0"}))
        .await
        .is_problem(404, "session_not_found");
    assert!(worker.seen().is_empty());
}

#[tokio::test]
async fn links_carry_what_was_asked_for() {
    let (_system, _api, _worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let participant = ParticipantId::new();
    let wanted = json!({"name": "Zoë", "participant_id": participant, "ttl_seconds": 60, "can_publish": false,
        "admin": true});
    let link = backend.post(&format!("/v1/sessions/{session}/links"), wanted).await;
    assert_eq!(link.status, 201);
    let claims = keys().verify(link.json["token"].as_str().unwrap()).unwrap();
    assert_eq!(
        (claims.sub, claims.name.as_deref(), claims.iss.as_str()),
        (Some(participant), Some("Zoë"), KEY)
    );
    let grants = claims.video.participant();
    assert!(!grants.can_publish && grants.can_subscribe && grants.admin);
    assert_eq!(link.json["expires_at"], claims.exp * 1000);
    let left = claims.exp - common::time::UnixMillis::now().0 / 1000;
    assert!((55..=61).contains(&left), "{left}");
    // A moderator's token makes links as well.
    let admin = VideoGrants { room_admin: true, ..VideoGrants::join(session) };
    let moderator = backend.with(Auth::Bearer(token(admin, None)));
    assert_eq!(moderator.post(&format!("/v1/sessions/{session}/links"), json!({})).await.status, 201);
}

#[tokio::test]
async fn a_create_token_creates_the_session_it_names() {
    let (_system, _api, _worker, backend) = System::single().await;
    let id = SessionId::new();
    let grants = VideoGrants { room: Some(id), room_create: true, ..VideoGrants::default() };
    let client = backend.with(Auth::Bearer(token(grants, None)));
    client.post("/v1/sessions", json!({"id": SessionId::new()})).await.is_problem(403, "forbidden");
    let created = client.post("/v1/sessions", json!({})).await;
    assert_eq!((created.status, &created.json["session"]["id"]), (201, &json!(id)));
    assert_eq!(backend.get(&format!("/v1/sessions/{id}")).await.status, 200);
}
