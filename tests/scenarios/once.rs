//! Each command takes effect once, whoever sends it how often through whichever API instance.

use std::collections::HashSet;

use reqwest::Method;
use serde_json::{Value, json};
use support::deployment::text;
use support::http::send;
use support::media::Kind;
use support::{Deployment, Http, Response};
use uuid::Uuid;

fn key() -> String {
    format!("cmd_{}", Uuid::now_v7())
}

async fn post_with_key(http: &Http, path: &str, key: &str, body: &Value) -> Response {
    send(http.request(Method::POST, path).header("Idempotency-Key", key).json(body)).await
}

pub async fn a_join_that_is_sent_twice_happens_once(deployment: &Deployment) {
    let room = deployment.room().await;
    let observer = room.join("observer").await;
    let path = format!("/v1/sessions/{}/participants", room.id);
    let http = room.http.with_token(&room.token);
    let key = key();
    let body = json!({"participant_id": format!("par_{}", Uuid::now_v7()), "name": "twice"});
    // At the same time, and once more when it is long done.
    let (first, second) =
        tokio::join!(post_with_key(&http, &path, &key, &body), post_with_key(&http, &path, &key, &body));
    let third = post_with_key(&http, &path, &key, &body).await;
    assert_eq!(first.command_id.as_deref(), Some(key.as_str()));
    let (first, second, third) = (first.expect(201), second.expect(201), third.expect(201));
    for other in [&second, &third] {
        assert_eq!(first["participant"]["id"], other["participant"]["id"]);
        assert_eq!(first["endpoint_id"], other["endpoint_id"]);
    }
    let id = text(&first["participant"]["id"]);
    observer.event("participant.joined", |data| data["participant"]["id"] == id.as_str()).await;
    // Whatever a second join would have sent comes before what is asked for now.
    observer.set_muted(Kind::Audio, true).await.expect(200);
    observer.event("track.muted", |_| true).await;
    let joins = observer.events_of("participant.joined");
    assert_eq!(joins.iter().filter(|data| data["participant"]["id"] == id.as_str()).count(), 1, "{joins:?}");
    assert_eq!(room.session().await["participants"].as_array().map(Vec::len), Some(2));
}

pub async fn a_session_that_is_created_twice_is_one(deployment: &Deployment) {
    let backend = deployment.backend();
    let id = format!("ses_{}", Uuid::now_v7());
    let body = json!({"id": id, "name": "mine"});
    let first = backend.post("/v1/sessions", &body).await.expect(201);
    // With another command but the same id: the same key created it before.
    let second = backend.post("/v1/sessions", &body).await.expect(200);
    assert_eq!(first["session"]["id"], id.as_str());
    assert_eq!(first["session"]["created_at"], second["session"]["created_at"]);
    let key = key();
    let body = json!({"name": "made here"});
    let first = post_with_key(&backend, "/v1/sessions", &key, &body).await;
    let second = post_with_key(&backend, "/v1/sessions", &key, &body).await;
    assert!([200, 201].contains(&second.status), "{second:?}");
    assert_eq!(first.expect(201)["session"]["id"], second.body["session"]["id"]);
}

pub async fn sessions_created_at_once_are_each_there_once(deployment: &Deployment) {
    let backend = deployment.backend();
    let ids: Vec<String> = (0..40).map(|_| format!("ses_{}", Uuid::now_v7())).collect();
    let creations = ids.iter().map(|id| {
        let backend = backend.clone();
        let body = json!({"id": id});
        tokio::spawn(async move { backend.post("/v1/sessions", &body).await })
    });
    for creation in creations.collect::<Vec<_>>() {
        creation.await.unwrap().expect(201);
    }
    let mut listed = Vec::new();
    let mut after = String::new();
    loop {
        let page = backend.get(&format!("/v1/sessions?limit=15{after}")).await.expect(200);
        listed.extend(page["sessions"].as_array().unwrap().iter().map(|session| text(&session["id"])));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    let unique: HashSet<&String> = listed.iter().collect();
    assert_eq!(unique.len(), listed.len(), "none is listed twice");
    assert_eq!(unique, ids.iter().collect::<HashSet<_>>(), "all are listed");
}

pub async fn muting_twice_with_one_key_is_told_once(deployment: &Deployment) {
    let room = deployment.room().await;
    let speaker = room.join("speaker").await;
    let observer = room.join("observer").await;
    speaker.hears(&observer, &[Kind::Audio]).await;
    let path = format!("{}/tracks/{}", speaker.path(), speaker.own_track(Kind::Audio));
    let key = key();
    for _ in 0..3 {
        let body = json!({"destination": speaker.destination(), "muted": true});
        let request =
            speaker.http().request(Method::PATCH, &path).header("Idempotency-Key", &key).json(&body);
        assert_eq!(send(request).await.expect(200)["muted"], true);
    }
    speaker.set_muted(Kind::Audio, false).await.expect(200);
    observer.event("track.unmuted", |_| true).await;
    assert_eq!(observer.events_of("track.muted").len(), 1);
}
