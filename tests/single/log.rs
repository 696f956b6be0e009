//! What is logged can be changed while a process runs, by who may.

use reqwest::Method;
use support::deployment::{KEY_ID, KEY_SECRET};
use support::http::{send, try_text};
use support::{Deployment, Http, Response, Shape, eventually};

const FILTER: &str = "warn,rest_api=debug";

async fn set(http: &Http, filter: &str) -> Response {
    send(http.request(Method::PUT, "/log").body(filter.to_owned())).await
}

/// How many answered requests the process has logged.
fn answered(deployment: &Deployment) -> usize {
    deployment.logs().matches("answered").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_changes_what_is_logged() {
    let arguments = ["--admin-listen", "127.0.0.1:0", "--operator-keys", KEY_ID, "--log", "warn"];
    let mut deployment = Deployment::start_with(Shape::Embedded, &arguments).await;
    let anybody = Http::new(&deployment.admins());
    let operator = anybody.with_key(KEY_ID, KEY_SECRET);
    deployment.backend().get("/v1/sessions").await.expect(200);
    assert_eq!(answered(&deployment), 0, "{}", deployment.logs());

    // Not by others, and not to what is no filter.
    set(&anybody, FILTER).await.expect_problem(401, "unauthorized");
    set(&anybody.with_key(KEY_ID, "not-the-secret"), FILTER).await.expect_problem(401, "unauthorized");
    set(&operator, "rest_api=loud").await.expect_problem(400, "invalid_request");
    set(&operator, &"a=info,".repeat(1000)).await.expect_problem(413, "body_too_large");
    let not_text = send(operator.request(Method::PUT, "/log").body(vec![0xFF, 0xFE])).await;
    not_text.expect_problem(400, "invalid_request");
    assert_eq!(try_text(operator.request(Method::GET, "/log")).await.unwrap(), "warn");

    set(&operator, FILTER).await.expect(204);
    assert_eq!(try_text(operator.request(Method::GET, "/log")).await.unwrap(), FILTER);
    deployment.backend().get("/v1/sessions").await.expect(200);
    eventually("the request is logged", || {
        let lines = answered(&deployment);
        async move { if lines > 0 { Ok(()) } else { Err("nothing is logged".to_owned()) } }
    })
    .await;

    // Back again: an answer is logged before it is sent.
    set(&operator, "warn").await.expect(204);
    let before = answered(&deployment);
    deployment.backend().get("/v1/sessions").await.expect(200);
    assert_eq!(answered(&deployment), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_key_that_is_no_operators_changes_nothing() {
    let mut deployment = Deployment::start_with(Shape::Embedded, &["--admin-listen", "127.0.0.1:0"]).await;
    let http = Http::new(&deployment.admins()).with_key(KEY_ID, KEY_SECRET);
    set(&http, FILTER).await.expect_problem(403, "forbidden");
}
