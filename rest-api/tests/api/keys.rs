//! API keys that change while the server runs.

use common::keyring::Keyring;
use common::token::ApiKeys;
use serde_json::json;

use crate::streams::{Sse, close_code, open};
use crate::support::*;

const NEW_SECRET: &str = "the-new-secret-of-key-one";

fn keys_of(text: &str) -> ApiKeys {
    text.parse().unwrap()
}

/// An API whose keys can be changed, with a worker.
async fn rotating() -> (System, Api, Worker, Keyring) {
    let system = System::new();
    let worker = system.worker().await;
    let keyring = Keyring::new(keys());
    let own = keyring.clone();
    let api = system.api_with(|config| config.keys = own).await;
    (system, api, worker, keyring)
}

#[tokio::test]
async fn during_the_overlap_both_secrets_count_and_afterwards_only_the_new_one() {
    let (_system, api, _worker, keyring) = rotating().await;
    let old = Client::new(&api.url, Auth::Basic(KEY, SECRET));
    let new = old.with(Auth::Basic(KEY, NEW_SECRET));
    let session = create_session(&old).await;
    let member = join(&old, session).await;
    new.get("/v1/sessions").await.is_problem(401, "unauthorized");

    keyring.replace(keys_of(&format!("{KEY}:{NEW_SECRET},{KEY}:{SECRET}")));
    for backend in [&old, &new] {
        assert_eq!(
            backend.get(&format!("/v1/sessions/{session}")).await.status,
            200,
            "its session is the key's"
        );
    }
    let offer = |destination: &str| json!({"sdp": "v=0", "destination": destination});
    assert_eq!(member.client.post(&member.path("/offer"), offer(&member.destination)).await.status, 200);
    let body = json!({"destination": member.destination});
    let refreshed = member.client.post(&member.path("/token"), body).await;
    let text = |name: &str| refreshed.json[name].as_str().unwrap().to_owned();
    let (token, destination) = (text("token"), text("destination"));
    assert_ne!(destination, member.destination, "sealed anew");

    keyring.replace(keys_of(&format!("{KEY}:{NEW_SECRET}")));
    old.get("/v1/sessions").await.is_problem(401, "unauthorized");
    member.client.get(&member.path("")).await.is_problem(401, "unauthorized");
    let renewed = member.client.with(Auth::Bearer(token));
    assert_eq!(renewed.post(&member.path("/offer"), offer(&destination)).await.status, 200);
    renewed.post(&member.path("/offer"), offer(&member.destination)).await.is_problem(400, "invalid_request");
    assert_eq!(new.get(&format!("/v1/sessions/{session}")).await.status, 200);
}

#[tokio::test]
async fn streams_of_a_removed_key_end_at_once_and_others_go_on() {
    let (system, api, _worker, keyring) = rotating().await;
    let backend = Client::new(&api.url, Auth::Basic(KEY, SECRET));
    let session = create_session(&backend).await;
    let [by_poll, by_sse, by_socket] =
        [join(&backend, session).await, join(&backend, session).await, join(&backend, session).await];
    // Long before the key goes: several round trips to the same server lie between.
    let poll = {
        let by_poll = by_poll.clone();
        tokio::spawn(async move { by_poll.client.get(&by_poll.events("wait=30")).await })
    };
    let other_backend = backend.with(Auth::Basic(OTHER_KEY, OTHER_SECRET));
    let other_session = create_session(&other_backend).await;
    let claims = common::token::Claims::expiring_in(
        OTHER_KEY,
        std::time::Duration::from_secs(60),
        common::token::VideoGrants::join(other_session),
    );
    let guest = backend.with(Auth::Bearer(keys().mint(&claims).unwrap()));
    let joined = guest.post(&format!("/v1/sessions/{other_session}/participants"), json!({})).await;
    let other = member(&other_backend, other_session, &joined);
    let mut other_socket = open(&api, &other).await;

    let mut socket = open(&api, &by_socket).await;
    let mut sse = Sse::open(&by_sse.client, &by_sse.events("")).await;
    keyring.replace(keys_of(&format!("{OTHER_KEY}:{OTHER_SECRET}")));
    assert_eq!(close_code(&mut socket).await, 4004);
    while sse.frame().await.is_some() {}
    let refused = tokio::time::timeout(PATIENCE, poll).await.expect("the poll ends").unwrap();
    refused.is_problem(401, "unauthorized");

    let id = system.send_number(&other, 7).await;
    while crate::streams::event(&mut other_socket).await["id"] != json!(id) {}
}
