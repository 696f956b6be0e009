//! OpenAPI against the routes, web assets, CORS, health, demo links, development mode.

use std::sync::Arc;

use common::model::{ParticipantId, SessionId, TrackId, WorkerId};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::*;

fn document() -> Value {
    serde_json::to_value(rest_api::openapi()).unwrap()
}

/// Every documented operation: path template, method, description.
fn operations(document: &Value) -> Vec<(String, Method, Value)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            found.push((path.clone(), method, operation.clone()));
        }
    }
    found
}

fn fill_in(template: &str) -> String {
    template
        .replace("{session_id}", &SessionId::new().to_string())
        .replace("{participant_id}", &ParticipantId::new().to_string())
        .replace("{worker_id}", &WorkerId::new().to_string())
        .replace("{track_id}", &TrackId::new().to_string())
}

/// The routes of `docs/API.md`, from its tables and headings.
fn written_down() -> Vec<(Method, String)> {
    [
        "POST /v1/sessions",
        "GET /v1/sessions",
        "GET /v1/sessions/{session_id}",
        "PATCH /v1/sessions/{session_id}",
        "DELETE /v1/sessions/{session_id}",
        "POST /v1/sessions/{session_id}/links",
        "POST /v1/sessions/{session_id}/participants",
        "GET /v1/sessions/{session_id}/participants",
        "GET /v1/sessions/{session_id}/participants/{participant_id}",
        "DELETE /v1/sessions/{session_id}/participants/{participant_id}",
        "GET /v1/sessions/{session_id}/participants/{participant_id}/ice-servers",
        "POST /v1/sessions/{session_id}/participants/{participant_id}/offer",
        "POST /v1/sessions/{session_id}/participants/{participant_id}/answer",
        "POST /v1/sessions/{session_id}/participants/{participant_id}/candidates",
        "PATCH /v1/sessions/{session_id}/participants/{participant_id}/tracks/{track_id}",
        "PATCH /v1/sessions/{session_id}/participants/{participant_id}/subscriptions/{track_id}",
        "GET /v1/sessions/{session_id}/participants/{participant_id}/stats",
        "GET /v1/sessions/{session_id}/participants/{participant_id}/events",
        "GET /v1/sessions/{session_id}/participants/{participant_id}/events/ws",
        "POST /v1/sessions/{session_id}/messages",
        "GET /v1/sessions/{session_id}/timeline",
        "POST /v1/sessions/{session_id}/participants/{participant_id}/rating",
        "POST /v1/sessions/{session_id}/participants/{participant_id}/token",
        "GET /v1/sessions/{session_id}/ratings",
        "POST /v1/admin/tokens",
        "GET /v1/admin/sessions",
        "GET /v1/admin/sessions/{session_id}",
        "GET /v1/workers",
        "POST /v1/workers/{worker_id}/drain",
        "GET /v1/webhooks/dead-letters",
        "POST /v1/webhooks/dead-letters/redeliver",
        "POST /v1/whip/{session_id}",
        "PATCH /v1/whip/{session_id}/{resource}",
        "DELETE /v1/whip/{session_id}/{resource}",
        "POST /v1/whep/{session_id}",
        "PATCH /v1/whep/{session_id}/{resource}",
        "DELETE /v1/whep/{session_id}/{resource}",
        "POST /v1/demo/links",
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",
        "GET /openapi.json",
    ]
    .into_iter()
    .map(|line| {
        let (method, path) = line.split_once(' ').unwrap();
        (Method::from_bytes(method.as_bytes()).unwrap(), path.to_owned())
    })
    .collect()
}

#[tokio::test]
async fn the_document_has_exactly_the_routes_that_there_are() {
    let (_system, _api, _worker, backend) = System::single().await;
    let served = backend.get("/openapi.json").await;
    assert_eq!(served.json, document(), "what is served is what the routes say");
    assert!(served.json["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut documented: Vec<_> =
        operations(&served.json).into_iter().map(|(path, method, _)| format!("{method} {path}")).collect();
    let mut expected: Vec<_> =
        written_down().into_iter().map(|(method, path)| format!("{method} {path}")).collect();
    documented.sort();
    expected.sort();
    assert_eq!(documented, expected);
    let anonymous = backend.with(Auth::None);
    for (template, method, operation) in operations(&served.json) {
        let path = fill_in(&template);
        let replied = anonymous.send(method.clone(), &path, anonymous.request(method.clone(), &path)).await;
        let open = operation["security"] == json!([{}]);
        if open {
            assert_ne!(replied.status, 401, "{method} {template}");
        } else {
            replied.is_problem(401, "unauthorized");
        }
        // No other method has a handler there.
        for other in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let item = &served.json["paths"][&template];
            if item.get(other.as_str().to_lowercase()).is_none() {
                let refused = anonymous.send(other.clone(), &path, anonymous.request(other, &path)).await;
                refused.is_problem(405, "method_not_allowed");
            }
        }
    }
}

#[test]
fn every_operation_documents_its_statuses_parameters_and_problems() {
    let document = document();
    let codes: Vec<_> = document["components"]["schemas"]["Code"]["enum"].as_array().unwrap().clone();
    assert_eq!(codes.len(), 30);
    for (path, method, operation) in operations(&document) {
        let name = format!("{method} {path}");
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with('2') || status == "101"), "{name}");
        for (status, response) in responses {
            let description = response["description"].as_str().unwrap();
            assert!(!description.is_empty(), "{name} {status}");
            if status.as_str() >= "400" && path != "/readyz" {
                let schema = &response["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/Problem", "{name} {status}");
                for code in description.split(", ") {
                    assert!(codes.contains(&json!(code.trim_matches('`'))), "{name} {status}: {code}");
                }
            }
        }
        let v1 = path.starts_with("/v1/") && path != "/v1/demo/links";
        for status in ["400", "401", "403", "500", "503"] {
            assert!(!v1 || responses.contains_key(status), "{name} lacks {status}");
        }
        if operation.get("requestBody").is_some() {
            assert!(responses.contains_key("413") && responses.contains_key("415"), "{name}");
        }
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        for part in path.split('/').filter_map(|part| part.strip_prefix('{')) {
            let wanted = part.trim_end_matches('}');
            let found = parameters.iter().any(|one| one["name"] == wanted && one["in"] == "path");
            assert!(found, "{name} lacks {wanted}");
        }
        if method != Method::GET {
            assert!(parameters.iter().any(|one| one["name"] == "Idempotency-Key"), "{name}");
        }
    }
}

#[test]
fn every_reference_in_the_document_leads_somewhere() {
    let document = document();
    let mut open = vec![&document];
    let mut followed = 0;
    while let Some(value) = open.pop() {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(reference)) = map.get("$ref") {
                    let pointer = reference.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
                    followed += 1;
                }
                open.extend(map.values());
            }
            Value::Array(list) => open.extend(list),
            _ => {}
        }
    }
    assert!(followed > 50);
}

#[tokio::test]
async fn the_demo_and_the_sdk_are_served_safely() {
    let (_system, _api, _worker, backend) = System::single().await;
    let anonymous = backend.with(Auth::None);
    let get = async |path: &str| anonymous.request(Method::GET, path).send().await.unwrap();
    for (path, content_type) in [
        ("/", "text/html"),
        ("/demo/", "text/html"),
        ("/demo/index.html", "text/html"),
        ("/admin/", "text/html"),
        ("/admin/app.js", "text/javascript"),
        ("/sdk/switchyard.js", "text/javascript"),
    ] {
        let response = get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        let headers = response.headers().clone();
        assert_eq!(headers["content-type"], format!("{content_type}; charset=utf-8"), "{path}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["referrer-policy"], "no-referrer");
        assert_eq!(headers["cache-control"], "no-cache");
        assert_eq!(headers["permissions-policy"], "camera=(self), microphone=(self), display-capture=(self)");
        let policy = headers["content-security-policy"].to_str().unwrap();
        for part in [
            "default-src 'self'",
            "connect-src 'self';",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "script-src 'self'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        let tag = headers["etag"].to_str().unwrap().to_owned();
        for condition in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
            let request = anonymous.request(Method::GET, path).header("if-none-match", &condition);
            let unchanged = request.send().await.unwrap();
            assert_eq!(unchanged.status(), 304, "{path} {condition}");
            assert_eq!(unchanged.headers()["etag"], tag);
            assert!(unchanged.bytes().await.unwrap().is_empty());
        }
        let request = anonymous.request(Method::GET, path).header("if-none-match", "\"other\"");
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn only_the_demo_and_the_sdk_are_served() {
    let (_system, api, _worker, backend) = System::single().await;
    let anonymous = backend.with(Auth::None);
    for path in ["/package.json", "/demo/none.js", "/sdk/", "/demo/../package.json", "/sdk/..%2fpackage.json"]
    {
        let response = anonymous.request(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), 404, "{path}");
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{path}");
    }
    // A client that does not tidy its paths up.
    let address = api.url.trim_start_matches("http://");
    for path in [
        "/demo/../package.json",
        "/demo/../../rest-api/Cargo.toml",
        "/demo//etc/passwd",
        "/demo/.%2e/package.json",
        "/sdk/%2e%2e/package.json",
        "/demo/\\..\\package.json",
    ] {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 404") || answer.starts_with("HTTP/1.1 400"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn web_pages_of_other_origins_may_call_the_api_but_not_the_demo() {
    let system = System::new();
    let _worker = system.worker().await;
    let api = system.api_with(|config| config.demo = true).await;
    let client = Client::new(&api.url, Auth::None);
    let preflight = async |path: &str| {
        let request = client
            .request(Method::OPTIONS, path)
            .header("origin", "https://app.example")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type,idempotency-key,prefer");
        request.send().await.unwrap()
    };
    let allowed = preflight("/v1/sessions").await;
    assert_eq!(allowed.status(), 200);
    assert_eq!(allowed.headers()["access-control-allow-origin"], "*");
    let headers = allowed.headers()["access-control-allow-headers"].to_str().unwrap().to_lowercase();
    for name in ["authorization", "content-type", "idempotency-key", "prefer", "last-event-id"] {
        assert!(headers.contains(name), "{headers}");
    }
    assert!(!allowed.headers().contains_key("access-control-allow-credentials"));
    let request = client.request(Method::GET, "/v1/sessions").header("origin", "https://app.example");
    let refused = request.send().await.unwrap();
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.headers()["access-control-allow-origin"], "*", "a page can read why it was refused");
    let exposed = refused.headers()["access-control-expose-headers"].to_str().unwrap().to_lowercase();
    for name in ["command-id", "retry-after", "location"] {
        assert!(exposed.contains(name), "{exposed}");
    }
    assert!(!preflight("/v1/demo/links").await.headers().contains_key("access-control-allow-origin"));
    let request = client.request(Method::POST, "/v1/demo/links").header("origin", "https://app.example");
    let made = request.json(&json!({})).send().await.unwrap();
    assert!(!made.headers().contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn health_and_metrics_answer_without_credentials() {
    let system = System::new();
    let api =
        system.api_with(|config| config.metrics = Some(Arc::new(|| "switchyard_up 1\n".to_owned()))).await;
    let client = Client::new(&api.url, Auth::None);
    assert_eq!(client.get("/healthz").await.json, json!({"status": "live"}));
    let ready = client.get("/readyz").await;
    assert_eq!((ready.status, &ready.json), (200, &json!({"ready": true, "broker": "ok", "store": "ok"})));
    assert_eq!(client.get("/metrics").await.text, "switchyard_up 1\n");
    let without = system.api().await;
    Client::new(&without.url, Auth::None).get("/metrics").await.is_problem(404, "not_found");
}

#[tokio::test]
async fn demo_links_lead_everybody_into_the_same_room() {
    let system = System::new();
    let _worker = system.worker().await;
    let apis = [
        system.api_with(|config| config.demo = true).await,
        system.api_with(|config| config.demo = true).await,
    ];
    let clients = apis.each_ref().map(|api| Client::new(&api.url, Auth::None));
    let link = async |client: &Client, body: Value| {
        let made = client.post("/v1/demo/links", body).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.json
    };
    let (first, second) =
        tokio::join!(link(&clients[0], json!({})), link(&clients[1], json!({"room": "lobby"})));
    assert_eq!(first["session_id"], second["session_id"]);
    let attic = link(&clients[0], json!({"room": "attic ☂"})).await;
    assert_ne!(attic["session_id"], first["session_id"]);
    let session = first["session_id"].as_str().unwrap();
    let token = first["token"].as_str().unwrap();
    let expected = format!("{}/#session={session}&token={token}", apis[0].url);
    assert_eq!(first["join_link"], expected);
    let guest = clients[1].with(Auth::Bearer(token.to_owned()));
    assert_eq!(guest.post(&format!("/v1/sessions/{session}/participants"), json!({})).await.status, 201);
    // A room that was closed opens again, as a new session, for everybody the same.
    let backend = clients[0].with(Auth::Basic(KEY, SECRET));
    for _ in 0..3 {
        let open = link(&clients[0], json!({})).await;
        let open = open["session_id"].as_str().unwrap();
        assert_eq!(backend.delete(&format!("/v1/sessions/{open}")).await.status, 204);
        let again = link(&clients[1], json!({})).await;
        assert_ne!(again["session_id"], open);
        assert_eq!(again["session_id"], link(&clients[0], json!({})).await["session_id"]);
    }
    // A session of that name made by the backend is not the demo's room.
    backend.post("/v1/sessions", json!({"name": "cellar"})).await;
    let cellar = link(&clients[0], json!({"room": "cellar"})).await;
    let named = backend.get("/v1/sessions").await;
    let same: Vec<_> =
        named.json["sessions"].as_array().unwrap().iter().filter(|one| one["name"] == "cellar").collect();
    assert_eq!(same.len(), 2);
    assert!(same.iter().any(|one| one["id"] == cellar["session_id"]));
    for room in ["", "a\nb", &"x".repeat(65)] {
        clients[0].post("/v1/demo/links", json!({"room": room})).await.is_problem(400, "invalid_request");
    }
}

#[tokio::test]
async fn without_the_demo_there_are_no_demo_links() {
    let (_system, _api, worker, backend) = System::single().await;
    backend.post("/v1/demo/links", json!({})).await.is_problem(404, "not_found");
    assert!(worker.seen().is_empty());
}

#[tokio::test]
async fn with_the_development_key_only_loopback_names_are_answered() {
    let system = System::new();
    let api = system.api_with(|config| (config.dev, config.demo) = (true, true)).await;
    let client = Client::new(&api.url, Auth::None);
    let port = api.url.rsplit(':').next().unwrap();
    for host in ["localhost", "127.0.0.1", "[::1]", "app.localhost"] {
        assert_eq!(
            client.header("host", &format!("{host}:{port}")).get("/healthz").await.status,
            200,
            "{host}"
        );
    }
    for host in ["evil.example", "127.0.0.1.evil.example", "192.0.2.7", "localhost@evil.example"] {
        for path in ["/", "/healthz", "/v1/sessions", "/openapi.json", "/nowhere"] {
            let request = client.request(Method::GET, path).header("host", host);
            let refused = request.send().await.unwrap();
            assert_eq!(refused.status(), 403, "{host} {path}");
        }
    }
    let production = system.api().await;
    let client = Client::new(&production.url, Auth::None).header("host", "meet.example");
    assert_eq!(client.get("/healthz").await.status, 200);
}
