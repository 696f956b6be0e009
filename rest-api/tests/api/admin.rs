//! Operators' tokens: who gets one, what it opens, and what it does not.

use std::time::Duration;

use common::model::{SessionId, WorkerId};
use common::token::VideoGrants;
use serde_json::{Value, json};

use crate::support::*;

async fn operated() -> (System, Api, Worker, Client) {
    let system = System::new();
    let worker = system.worker().await;
    let api = system
        .api_with(|config| {
            config.operator_keys = vec![KEY.to_owned()];
            config.public_url = Some("https://meet.example".to_owned());
        })
        .await;
    let backend = Client::new(&api.url, Auth::Basic(KEY, SECRET));
    (system, api, worker, backend)
}

async fn operator(backend: &Client) -> Client {
    let made = backend.post("/v1/admin/tokens", json!({})).await;
    assert_eq!(made.status, 201, "{made:?}");
    backend.with(Auth::Bearer(made.json["token"].as_str().unwrap().to_owned()))
}

#[tokio::test]
async fn an_operators_key_makes_a_token_for_the_admin_page_and_nobody_else_does() {
    let (_system, _api, _worker, backend) = operated().await;
    let before = common::time::UnixMillis::now();
    let made = backend.post("/v1/admin/tokens", json!({"ttl_seconds": 60})).await;
    assert_eq!(made.status, 201, "{made:?}");
    let token = made.json["token"].as_str().unwrap().to_owned();
    assert_eq!(made.json["admin_link"], format!("https://meet.example/admin/#token={token}"));
    let lives = made.json["expires_at"].as_i64().unwrap() - before.0;
    assert!((58_000..=65_000).contains(&lives), "{lives}");
    for ttl in [0, 59, 43_201] {
        let refused = backend.post("/v1/admin/tokens", json!({"ttl_seconds": ttl})).await;
        refused.is_problem(400, "invalid_request");
    }
    let other = backend.with(Auth::Basic(OTHER_KEY, OTHER_SECRET));
    let admin = VideoGrants { room_admin: true, ..VideoGrants::join(SessionId::new()) };
    // A token makes no other one: it would never end.
    for client in
        [other, backend.with(Auth::Bearer(token)), backend.with(Auth::Bearer(self::token(admin, None)))]
    {
        client.post("/v1/admin/tokens", json!({})).await.is_problem(403, "forbidden");
    }
}

#[tokio::test]
async fn a_token_that_another_key_signed_or_that_lasts_too_long_is_no_operators() {
    let (_system, _api, _worker, backend) = operated().await;
    let grants = VideoGrants { operator: true, ..VideoGrants::default() };
    let signed = |key: &str, ttl: u64| {
        backend.with(Auth::Bearer(token_of(key, Duration::from_secs(ttl), grants, None)))
    };
    assert_eq!(signed(KEY, 60).get("/v1/workers").await.status, 200);
    for path in ["/v1/workers", "/v1/admin/sessions"] {
        signed(OTHER_KEY, 60).get(path).await.is_problem(403, "forbidden");
        signed(KEY, 13 * 60 * 60).get(path).await.is_problem(401, "unauthorized");
        let member = token(VideoGrants::join(SessionId::new()), None);
        backend.with(Auth::Bearer(member)).get(path).await.is_problem(403, "forbidden");
    }
}

#[tokio::test]
async fn an_operator_looks_after_every_keys_sessions_and_takes_part_in_none() {
    let (_system, _api, worker, backend) = operated().await;
    let other = backend.with(Auth::Basic(OTHER_KEY, OTHER_SECRET));
    let created = other.post("/v1/sessions", json!({"name": "theirs"})).await;
    let session: SessionId = created.json["session"]["id"].as_str().unwrap().parse().unwrap();
    let guest = other.with(Auth::Bearer(created.json["token"].as_str().unwrap().to_owned()));
    let joined = guest.post(&format!("/v1/sessions/{session}/participants"), json!({"name": "Zoë"})).await;
    let member = member(&other, session, &joined);
    let operator = operator(&backend).await;

    let read = operator.get(&format!("/v1/admin/sessions/{session}")).await;
    assert_eq!(read.status, 200, "{read:?}");
    assert_eq!((&read.json["name"], &read.json["key_id"]), (&json!("theirs"), &json!(OTHER_KEY)));
    assert_eq!(read.json["members"][0]["name"], "Zoë");
    assert_eq!(read.json["members"][0]["endpoint"]["id"], member.endpoint.to_string());
    for path in ["", "/timeline", "/participants"] {
        let read = operator.get(&format!("/v1/sessions/{session}{path}")).await;
        assert_eq!(read.status, 200, "{path} {read:?}");
    }
    assert_eq!(operator.get(&member.path("/stats")).await.status, 200);

    let path = format!("/v1/sessions/{session}");
    for (path, body) in [
        ("/v1/sessions".to_owned(), json!({})),
        (format!("{path}/participants"), json!({})),
        (format!("{path}/links"), json!({})),
        (format!("{path}/messages"), json!({"data": "boo"})),
        (member.path("/rating"), json!({"stars": 1})),
    ] {
        operator.post(&path, body).await.is_problem(403, "forbidden");
    }
    operator.patch(&path, json!({"settings": {}})).await.is_problem(403, "forbidden");
    operator.get(&member.events("wait=0")).await.is_problem(403, "forbidden");
    // The other key is no operator: it sees its own, and that in its own routes.
    other.get(&format!("/v1/admin/sessions/{session}")).await.is_problem(403, "forbidden");

    assert_eq!(operator.delete(&member.path("")).await.status, 204);
    assert_eq!(operator.delete(&path).await.status, 204);
    assert_eq!(operator.get(&format!("/v1/admin/sessions/{session}")).await.json["state"], "closed");
    let none = operator.get(&format!("/v1/admin/sessions/{}", SessionId::new())).await;
    none.is_problem(404, "session_not_found");
    drop(worker);
}

#[tokio::test]
async fn sessions_are_searched_and_listed_in_pages() {
    let (_system, _api, worker, backend) = operated().await;
    let mut ids = Vec::new();
    for name in ["alpha", "beta", "Alphabet"] {
        let created = backend.post("/v1/sessions", json!({"name": name})).await;
        ids.push(created.json["session"]["id"].as_str().unwrap().to_owned());
    }
    ids.sort();
    backend.delete(&format!("/v1/sessions/{}", ids[1])).await;
    let operator = operator(&backend).await;
    let found = async |query: &str| -> (Vec<String>, Value) {
        let page = operator.get(&format!("/v1/admin/sessions?{query}")).await;
        assert_eq!(page.status, 200, "{page:?}");
        let listed = page.json["sessions"].as_array().unwrap();
        let ids = listed.iter().map(|session| session["id"].as_str().unwrap().to_owned()).collect();
        (ids, page.json["next"].clone())
    };
    let all = found("state=any").await;
    assert_eq!(all, (ids.clone(), Value::Null));
    let open = [ids[0].clone(), ids[2].clone()];
    assert_eq!(found("").await.0, open);
    assert_eq!(found("state=open&search=%20%20").await.0, open);
    assert_eq!(found("state=any&limit=2").await, (ids[..2].to_vec(), json!(ids[1])));
    assert_eq!(found(&format!("state=any&limit=2&after={}", ids[1])).await, (ids[2..].to_vec(), Value::Null));
    assert_eq!(found("state=any&search=ALPHA").await.0.len(), 2);
    assert_eq!(found(&format!("search={}", ids[2])).await.0, [ids[2].clone()]);
    assert_eq!(found(&format!("worker_id={}", WorkerId::new())).await.0, Vec::<String>::new());
    let long = "x".repeat(257);
    operator.get(&format!("/v1/admin/sessions?search={long}")).await.is_problem(422, "limit_exceeded");
    for bad in ["limit=0", "limit=201", "after=x", "worker_id=1", "state=shut", "search=%00"] {
        operator.get(&format!("/v1/admin/sessions?{bad}")).await.is_problem(400, "invalid_request");
    }
    drop(worker);
}
