//! What a removal takes away, and what it leaves; tokens in place of those that expire.

use common::model::{ParticipantId, SessionId};
use common::time::UnixMillis;
use common::token::{Claims, IssuedAt, VideoGrants};
use serde_json::{Value, json};

use crate::streams::{Sse, close_code, event, open};
use crate::support::*;

fn participants(session: SessionId) -> String {
    format!("/v1/sessions/{session}/participants")
}

/// A link for one participant, from the backend.
async fn link_for(backend: &Client, session: SessionId, wish: Value) -> Client {
    let link = backend.post(&format!("/v1/sessions/{session}/links"), wish).await;
    backend.with(Auth::Bearer(link.json["token"].as_str().unwrap().to_owned()))
}

#[tokio::test]
async fn who_was_removed_stays_away_until_it_gets_a_new_token() {
    let (_system, _api, _worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let id = ParticipantId::new();
    let old_link = link_for(&backend, session, json!({"participant_id": id})).await;
    let joined = old_link.post(&participants(session), json!({})).await;
    let gone = member(&backend, session, &joined);
    let stays = join(&backend, session).await;
    let refresh = |client: &Client| {
        let (client, path) = (client.clone(), gone.path("/token"));
        async move { client.post(&path, json!({})).await }
    };
    assert_eq!(refresh(&gone.client).await.status, 200);
    let refreshed = refresh(&gone.client).await.json["token"].as_str().unwrap().to_owned();
    let refreshed = backend.with(Auth::Bearer(refreshed));

    assert_eq!(backend.delete(&gone.path("")).await.status, 204);
    let own = json!({"participant_id": id});
    // Whatever came of the old link, and everybody's link under its name.
    let everybody = link_for(&backend, session, json!({})).await;
    assert_eq!(everybody.post(&participants(session), own.clone()).await.status, 201, "it is newer");
    assert_eq!(backend.delete(&gone.path("")).await.status, 204);
    for client in [&old_link, &gone.client, &refreshed, &everybody] {
        client.post(&participants(session), own.clone()).await.is_problem(401, "token_revoked");
    }
    for client in [&gone.client, &refreshed] {
        refresh(client).await.is_problem(401, "token_revoked");
        client.get(&format!("/v1/sessions/{session}")).await.is_problem(401, "token_revoked");
        client.get(&participants(session)).await.is_problem(401, "token_revoked");
        let message = json!({"data": "let me in"});
        client
            .post(&format!("/v1/sessions/{session}/messages"), message)
            .await
            .is_problem(401, "token_revoked");
        client.post(&gone.path("/offer"), json!({"sdp": "v=0"})).await.is_problem(401, "token_revoked");
        client.get(&gone.path("/stats")).await.is_problem(401, "token_revoked");
        client.post(&gone.path("/rating"), json!({"stars": 1})).await.is_problem(401, "token_revoked");
        client.get(&gone.path("/events")).await.is_problem(401, "token_revoked");
    }
    // Everybody else goes on, and everybody's link brings in others.
    assert_eq!(stays.client.get(&stays.path("")).await.status, 200);
    assert_eq!(everybody.post(&participants(session), json!({})).await.status, 201);
    // The backend has changed its mind.
    let new_link = link_for(&backend, session, json!({"participant_id": id})).await;
    let back = new_link.post(&participants(session), json!({})).await;
    assert_eq!(back.status, 201, "{back:?}");
    let back = member(&backend, session, &back);
    assert_eq!(back.client.post(&back.path("/offer"), json!({"sdp": "v=0"})).await.status, 200);
    gone.client.post(&back.path("/offer"), json!({"sdp": "v=0"})).await.is_problem(401, "token_revoked");
}

#[tokio::test]
async fn who_is_not_there_can_be_removed_too() {
    let (_system, _api, _worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let id = ParticipantId::new();
    let link = link_for(&backend, session, json!({"participant_id": id})).await;
    assert_eq!(backend.delete(&format!("{}/{id}", participants(session))).await.status, 204);
    link.post(&participants(session), json!({})).await.is_problem(401, "token_revoked");
}

#[tokio::test]
async fn who_leaves_may_come_back() {
    let (_system, _api, _worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let first = join(&backend, session).await;
    assert_eq!(first.client.delete(&first.path("")).await.status, 204);
    rejoin(&backend, &first).await;
}

#[tokio::test]
async fn a_token_without_a_time_of_issue_is_revoked_by_any_removal() {
    let (_system, _api, _worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let id = ParticipantId::new();
    let claims = Claims::expiring_in(KEY, std::time::Duration::from_secs(60), VideoGrants::join(session));
    let minted = |iat| {
        let token = keys().mint(&Claims { sub: Some(id), iat, ..claims.clone() }).unwrap();
        backend.with(Auth::Bearer(token))
    };
    let silent = minted(None);
    let joined = silent.post(&participants(session), json!({})).await;
    assert_eq!(joined.status, 201, "{joined:?}");
    let own = member(&backend, session, &joined);
    assert_eq!(backend.delete(&own.path("")).await.status, 204);
    silent.post(&participants(session), json!({})).await.is_problem(401, "token_revoked");
    own.client.post(&participants(session), json!({})).await.is_problem(401, "token_revoked");
    let later = minted(Some(IssuedAt(UnixMillis(UnixMillis::now().0 + 1_000))));
    assert_eq!(later.post(&participants(session), json!({})).await.status, 201);
}

#[tokio::test]
async fn a_moderator_who_was_removed_moderates_no_more() {
    let (_system, _api, _worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let victim = join(&backend, session).await;
    let wish = json!({"participant_id": ParticipantId::new(), "admin": true});
    let moderator = link_for(&backend, session, wish).await;
    let joined = moderator.post(&participants(session), json!({})).await;
    let own = member(&backend, session, &joined);
    let mute = victim.path(&format!("/tracks/{}", common::model::TrackId::new()));
    let muted = || json!({"muted": true, "destination": victim.destination});
    assert_eq!(own.client.patch(&mute, muted()).await.status, 200);
    assert_eq!(backend.delete(&own.path("")).await.status, 204);
    for client in [&moderator, &own.client] {
        client.patch(&mute, muted()).await.is_problem(401, "token_revoked");
        client.delete(&victim.path("")).await.is_problem(401, "token_revoked");
        client.delete(&format!("/v1/sessions/{session}")).await.is_problem(401, "token_revoked");
        client
            .post(&format!("/v1/sessions/{session}/links"), json!({}))
            .await
            .is_problem(401, "token_revoked");
        client.get(&victim.path("")).await.is_problem(401, "token_revoked");
    }
    assert_eq!(victim.client.get(&victim.path("")).await.status, 200);
}

#[tokio::test]
async fn open_streams_of_who_is_removed_end_at_once() {
    let (_system, api, _worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let by_poll = join(&backend, session).await;
    let poll = {
        let by_poll = by_poll.clone();
        tokio::spawn(async move {
            let mut cursor = String::new();
            loop {
                let page = by_poll.client.get(&by_poll.events(&format!("wait=30{cursor}"))).await;
                let last = page.json["events"].as_array().unwrap().last().cloned();
                if let Some(last) = last.filter(|last| last["data"]["participant_id"] == json!(by_poll.id)) {
                    return last;
                }
                cursor = format!("&cursor={}", page.json["cursor"].as_str().unwrap());
            }
        })
    };
    let (by_sse, by_socket) = (join(&backend, session).await, join(&backend, session).await);
    let mut sse = Sse::open(&by_sse.client, &by_sse.events("")).await;
    let mut socket = open(&api, &by_socket).await;
    for member in [&by_poll, &by_sse, &by_socket] {
        assert_eq!(backend.delete(&member.path("")).await.status, 204);
    }
    let last = tokio::time::timeout(PATIENCE, poll).await.expect("the poll ends").unwrap();
    assert_eq!(last["data"]["reason"], "removed");
    let mut last = None;
    while let Some((_, kind, data)) = sse.event().await {
        last = Some((kind, data["data"]["participant_id"].clone()));
    }
    assert_eq!(last, Some(("participant.left".to_owned(), json!(by_sse.id))));
    while event(&mut socket).await["data"]["participant_id"] != json!(by_socket.id) {}
    assert_eq!(close_code(&mut socket).await, 4001);
}

#[tokio::test]
async fn a_token_is_refreshed_with_what_it_was_granted() {
    let (_system, _api, _worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let wish = json!({"name": "Ada", "can_publish": false});
    let link = link_for(&backend, session, wish).await;
    let own = member(&backend, session, &link.post(&participants(session), json!({})).await);
    let body = json!({"destination": own.destination});
    let refreshed = own.client.post(&own.path("/token"), body).await;
    assert_eq!(refreshed.status, 200, "{refreshed:?}");
    assert_eq!(refreshed.headers["cache-control"], "no-store");
    let claims = |token: &str| keys().verify(token).unwrap();
    let (before, after) = (claims(&own.token), claims(refreshed.json["token"].as_str().unwrap()));
    assert_eq!((after.sub, &after.name, after.video), (before.sub, &before.name, before.video));
    assert_eq!(after.issued_at(), before.issued_at(), "what revokes the one revokes the other");
    assert!(after.exp >= before.exp && refreshed.json["token_expires_at"] == after.exp * 1000);
    let again = json!({"sdp": "v=0", "destination": refreshed.json["destination"]});
    assert_eq!(own.client.post(&own.path("/offer"), again).await.status, 200);

    // Only who is there, and for itself.
    let other = join(&backend, session).await;
    other.client.post(&own.path("/token"), json!({})).await.is_problem(403, "forbidden");
    let foreign = json!({"destination": other.destination});
    own.client.post(&own.path("/token"), foreign).await.is_problem(403, "forbidden");
    assert_eq!(own.client.delete(&own.path("")).await.status, 204);
    own.client.post(&own.path("/token"), json!({})).await.is_problem(404, "participant_not_found");
}
