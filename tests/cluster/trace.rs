//! One command's whole path through real processes, found in their logs by its trace id.

use serde_json::{Value, json};
use support::{Deployment, Shape, eventually};

/// A line and the spans that it stands in, as the JSON format writes them.
fn lines_of(log: &str, trace_id: &str) -> Vec<Value> {
    log.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| {
            let spans = line["spans"].as_array().into_iter().flatten();
            spans.chain([&line["span"]]).any(|span| span["trace_id"] == trace_id)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_path_of_a_command_is_found_by_its_trace_id() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let filter = "info,rest_api=debug,media_worker=debug,common::store=debug";
    let arguments = ["--log-format", "json", "--log", filter];
    let deployment = Deployment::start_with(Shape::Cluster { apis: 1, workers: 1 }, &arguments).await;
    let room = deployment.room().await;
    let sent = format!("00-{TRACE}-b7ad6b7169203331-01");
    let joined = room
        .http
        .with_token(&room.token)
        .request(reqwest::Method::POST, &format!("/v1/sessions/{}/participants", room.id))
        .header("traceparent", &sent)
        .json(&json!({"name": "Ada", "server_offers": true}))
        .send()
        .await
        .unwrap();
    assert_eq!(joined.status(), 201);
    assert_eq!(joined.headers()["traceparent"], sent.as_str());
    let (api, worker) = (&deployment.apis[0], &deployment.workers[0]);
    for (process, expected) in [
        (api, &["command sent", "reply received", "answered"][..]),
        (worker, &["store operation", "participant joined", "command settled"][..]),
    ] {
        eventually("the path is in the log", || {
            let lines = lines_of(&process.log(), TRACE);
            let told: Vec<_> = lines.iter().filter_map(|line| line["message"].as_str()).collect();
            let missing: Vec<_> = expected.iter().filter(|what| !told.contains(what)).collect();
            let result =
                if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} not in {told:?}")) };
            async move { result }
        })
        .await;
    }
    let stored = lines_of(&worker.log(), TRACE);
    assert!(stored.iter().any(|line| line["operation"] == "put_participant"), "{stored:?}");
    // A request without one gets one of its own, and nobody else's lines are among ours.
    let made = room.http.request(reqwest::Method::GET, "/healthz").send().await.unwrap();
    let made = made.headers()["traceparent"].to_str().unwrap().to_owned();
    assert!(!made.contains(TRACE) && made.len() == sent.len(), "{made}");
    assert!(stored.iter().all(|line| line["span"]["kind"] == "join" || line["spans"][0]["kind"] == "join"));
}
