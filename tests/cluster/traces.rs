//! Traces as an operator sees them: spans of real processes, at a real collector.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use support::collector::{Collector, Trace};
use support::deployment::KEY_SECRET;
use support::media::Kind;
use support::{Deployment, OneOffer, Room, Scrape, Shape, eventually, patience};

const CLUSTER: Shape = Shape::Cluster { apis: 2, workers: 2 };
const JOIN: &str = "POST /v1/sessions/{session_id}/participants";
const BOTH: [Kind; 2] = [Kind::Audio, Kind::Video];

/// A cluster that sends its traces there; its workers wait for nobody when they are to end.
async fn recorded(collector: &Collector, more: &[&str]) -> Deployment {
    let url = collector.url();
    let arguments = [&["--otlp-endpoint", &url, "--drain-timeout", "1"], more].concat();
    Deployment::start_with(CLUSTER, &arguments).await
}

/// Joins without media, with this `traceparent`; gives the one that came back and the trace id in it.
async fn join(room: &Room, traceparent: Option<&str>) -> (String, String) {
    let path = format!("/v1/sessions/{}/participants", room.id);
    let mut request = room.http.with_token(&room.token).request(Method::POST, &path);
    if let Some(traceparent) = traceparent {
        request = request.header("traceparent", traceparent);
    }
    let joined = request.json(&json!({"name": "Ada", "server_offers": true})).send().await.unwrap();
    assert_eq!(joined.status(), 201);
    let returned = joined.headers()["traceparent"].to_str().unwrap().to_owned();
    let trace = returned.split('-').nth(1).unwrap().to_owned();
    (returned, trace)
}

/// Every span but the first is below another one of the trace, and has not begun before it.
fn assert_one_tree(trace: &Trace, outermost: &str) {
    let roots: Vec<_> = trace.0.iter().filter(|span| trace.parent(span).is_none()).collect();
    assert_eq!(roots.iter().map(|span| span.name.as_str()).collect::<Vec<_>>(), [outermost], "{trace:#?}");
    for span in &trace.0 {
        assert!(span.start <= span.end, "{span:?}");
        if let Some(parent) = trace.parent(span) {
            assert!(parent.start <= span.start, "{span:?} begins before {parent:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_is_one_trace_from_the_request_to_the_first_media() {
    let collector = Collector::start().await;
    let deployment = recorded(&collector, &[]).await;
    let room = deployment.room().await;
    let ada = room.join("Ada").await;
    let ben = room.join("Ben").await;
    ada.hears(&ben, &BOTH).await;
    ben.hears(&ada, &BOTH).await;
    for client in [&ada, &ben] {
        let id = client.participant_id();
        let first = collector
            .span("the first media of the join", |span| {
                span.name == "first media in"
                    && span.attributes["switchyard.endpoint.id"] == client.endpoint_id()
            })
            .await;
        let names = [
            "connect ice",
            "connect dtls",
            "first media in",
            "first media out",
            "negotiate offer",
            "open endpoint",
            "process join",
            "send join",
            "store put_participant",
            "store session",
            JOIN,
        ];
        let trace = collector.whole(&first.trace, &names).await;
        assert_one_tree(&trace, JOIN);

        let request = trace.one(JOIN);
        assert_eq!((request.service.as_str(), request.parent.as_str()), ("switchyard-api", ""));
        assert_eq!(format!("{:?}", request.kind), "Server");
        assert_eq!(request.attributes["http.request.method"], "POST");
        assert_eq!(request.attributes["http.response.status_code"], "201");

        // By way of the other worker, when that one took it from the session's queue.
        let done = trace.parent(&first).unwrap();
        assert_eq!((done.name.as_str(), done.service.as_str()), ("process join", "switchyard-worker"));
        assert_eq!(done.attributes["switchyard.outcome"], "done");
        assert_eq!(done.attributes["switchyard.participant.id"], id);
        assert_eq!(done.attributes["messaging.system"], "rabbitmq");
        for wait in ["switchyard.queue_wait_ms", "switchyard.lane_wait_ms"] {
            let waited: u64 = done.attributes[wait].parse().unwrap();
            assert!(waited < 20_000, "{wait}: {waited}");
        }
        let mut handling = done;
        loop {
            assert_eq!(format!("{:?}", handling.kind), "Consumer");
            let sending = trace.parent(handling).unwrap();
            assert_eq!(
                (sending.name.as_str(), format!("{:?}", sending.kind).as_str()),
                ("send join", "Producer")
            );
            assert_ne!(sending.instance, handling.instance);
            handling = match trace.parent(sending).unwrap() {
                outermost if outermost.id == request.id => break,
                other => other,
            };
            assert_eq!(handling.attributes["switchyard.outcome"], "forwarded");
        }
        for name in ["store put_participant", "open endpoint", "negotiate offer"] {
            let part = trace.one(name);
            assert_eq!(part.parent, done.id, "{part:?}");
            assert!(done.start <= part.start && part.end <= done.end, "{part:?} is not within {done:?}");
        }
        assert_eq!(trace.one("store put_participant").attributes["db.system.name"], "mongodb");
        // What comes after the reply is below what began it, and in the order in which it happens.
        let ends = ["connect ice", "connect dtls", "first media in"].map(|name| {
            assert_eq!(trace.one(name).parent, done.id);
            trace.one(name).end
        });
        assert!(ends.is_sorted(), "{trace:#?}");
        assert!(first.end > request.end);
    }
    assert_eq!(ada.errors(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_that_is_handed_on_is_still_one_trace() {
    let collector = Collector::start().await;
    let deployment = recorded(&collector, &[]).await;
    let room = deployment.room().await;
    // Both workers read the session's queue in turns, and one of them has the session.
    for _ in 0..4 {
        join(&room, None).await;
    }
    let handed_on = collector
        .span("a join is handed on", |span| {
            span.attributes.get("switchyard.outcome").is_some_and(|outcome| outcome == "forwarded")
        })
        .await;
    eventually("both handlings are there", || async {
        match collector.trace(&handed_on.trace).named("process join").count() {
            2 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    let both = collector.whole(&handed_on.trace, &[JOIN]).await;
    assert_one_tree(&both, JOIN);
    let done = both.named("process join").find(|span| span.id != handed_on.id).unwrap();
    let sending = both.parent(done).unwrap();
    assert_eq!((sending.name.as_str(), &sending.parent), ("send join", &handed_on.id));
    assert_eq!(done.attributes["switchyard.outcome"], "done");
    assert_ne!(done.instance, handed_on.instance);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clients_own_trace_is_continued_and_what_is_not_sampled_is_not_sent() {
    const SAMPLED: &str = "0af7651916cd43dd8448eb211c80319c";
    const NOT: &str = "1bf7651916cd43dd8448eb211c80319c";
    let collector = Collector::start().await;
    let mut deployment = recorded(&collector, &[]).await;
    let room = deployment.room().await;
    let (returned, _) = join(&room, Some(&format!("00-{NOT}-b7ad6b7169203331-00"))).await;
    assert_eq!(returned, format!("00-{NOT}-b7ad6b7169203331-00"));
    let (returned, id) = join(&room, Some(&format!("00-{SAMPLED}-b7ad6b7169203331-01"))).await;
    assert_eq!(id, SAMPLED);
    let trace = collector.whole(SAMPLED, &[JOIN, "send join", "process join"]).await;
    let request = trace.one(JOIN);
    assert_eq!(request.parent, "b7ad6b7169203331");
    assert_eq!(returned, format!("00-{SAMPLED}-{}-01", request.id));
    assert_one_tree(&trace, JOIN);
    // One id: in the timeline, in the logs, at the collector.
    let timeline = format!("/v1/sessions/{}/timeline", room.id);
    eventually("the timeline names the trace", || async {
        let page = room.backend.get(&timeline).await.expect(200);
        let entries = page["entries"].as_array().unwrap();
        let named =
            entries.iter().any(|it| it["cause"]["trace_id"] == SAMPLED && it["what"] == "participant.joined");
        if named { Ok(()) } else { Err(page.to_string()) }
    })
    .await;
    // Whatever was recorded has come once its process has ended.
    stop(&mut deployment);
    assert_eq!(collector.trace(NOT).0, []);

    // With a ratio of 0 only what a client samples is recorded.
    let collector = Collector::start().await;
    let mut deployment = recorded(&collector, &["--otlp-sample-ratio", "0"]).await;
    let room = deployment.room().await;
    let (returned, _) = join(&room, None).await;
    assert!(returned.ends_with("-00"), "{returned}");
    join(&room, Some(&format!("00-{SAMPLED}-b7ad6b7169203331-01"))).await;
    collector.whole(SAMPLED, &[JOIN, "process join"]).await;
    stop(&mut deployment);
    let traces: BTreeSet<_> = collector.spans().into_iter().map(|span| span.trace).collect();
    assert_eq!(traces, BTreeSet::from([SAMPLED.to_owned()]));
}

/// Ends all processes as an operator does, with everything that they have to say.
fn stop(deployment: &mut Deployment) {
    for process in deployment.apis.drain(..).chain(deployment.workers.drain(..)) {
        assert!(process.stop().success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_span_tells_a_secret() {
    let collector = Collector::start().await;
    let mut deployment = recorded(&collector, &[]).await;
    let room = deployment.room().await;
    let ada = room.join("Ada Lovelace").await;
    let http = deployment.http().with_token(&room.token);
    let studio = OneOffer::publish(&http, &room.id, &BOTH).await;
    let player = OneOffer::watch(&http, &room.id, "", &[Kind::Audio]).await;
    let message = json!({"data": "a message that is nobody's business"});
    ada.http().post(&format!("/v1/sessions/{}/messages", room.id), &message).await;
    let refused =
        deployment.http().with_token("a-token-that-is-refused").get("/v1/sessions?token=in-the-query").await;
    assert_eq!(refused.status, 401);
    for resource in [&studio, &player] {
        assert_eq!(resource.delete().await.status, 200);
    }
    collector.span("the end of the stream", |span| span.name.starts_with("DELETE /v1/whep/")).await;
    let last = |text: &str, at: char| text.rsplit(at).next().unwrap().to_owned();
    let mut secrets = vec![
        ("secret of the API key", KEY_SECRET.to_owned()),
        ("token of the room", last(&room.token, '.')),
        ("token of the participant", last(&ada.token, '.')),
        ("refused token", "a-token-that-is-refused".to_owned()),
        ("destination", ada.destination().to_owned()),
        ("address of a publisher", last(&studio.location, '/')),
        ("address of a player", last(&player.location, '/')),
        ("query", "in-the-query".to_owned()),
        ("message", "nobody's business".to_owned()),
        ("name", "Lovelace".to_owned()),
        ("description", "a=ice-pwd".to_owned()),
    ];
    for (what, url) in [("broker", &deployment.location().broker), ("store", &deployment.location().store)] {
        secrets.push((what, url.clone()));
    }
    stop(&mut deployment);
    assert!(collector.has_read("switchyard.session.id"));
    for (what, secret) in secrets {
        assert!(!collector.has_read(&secret), "the {what} is in a span");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_hangs_or_is_not_there_costs_nothing_but_its_spans() {
    let collector = Collector::start().await;
    collector.hang();
    for (what, url) in [("hangs", collector.url()), ("is not there", "http://127.0.0.1:9".to_owned())] {
        let arguments = ["--otlp-endpoint", &url, "--admin-listen", "127.0.0.1:0"];
        let mut deployment = Deployment::start_with(CLUSTER, &arguments).await;
        let admins = deployment.admins();
        let room = deployment.room().await;
        let (ada, ben) = (room.join("Ada").await, room.join("Ben").await);
        ada.hears(&ben, &BOTH).await;
        let started = Instant::now();
        for _ in 0..20 {
            join(&room, None).await;
        }
        let took = started.elapsed();
        assert!(took < patience(10.0), "20 joins took {took:?} while the collector {what}");
        eventually("what the collector did not take is counted", || async {
            let scrape = Scrape::of(&admins).await;
            let of = |outcome| scrape.sum("switchyard_trace_spans_total", &[("outcome", outcome)]);
            match (of("failed"), of("exported")) {
                (failed, 0.0) if failed > 0.0 => Ok(()),
                other => Err(format!("{other:?} failed and exported while it {what}")),
            }
        })
        .await;
        assert_eq!(ada.errors(), Vec::<String>::new());
        // Its last spans hold nobody up: some seconds at most.
        drop((ada, ben));
        let started = Instant::now();
        for process in deployment.apis.drain(..) {
            assert!(process.stop().success());
        }
        let took = started.elapsed();
        assert!(took < 2 * Duration::from_secs(3) + patience(4.0), "two ends took {took:?} while it {what}");
    }
    assert!(collector.requests() > 0);
}
