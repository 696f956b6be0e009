//! What is measured while people meet: everything that is documented, nothing else, and the figures are so.

use std::collections::BTreeMap;
use std::net::UdpSocket;

use common::catalogue::{Metric, Values};
use serde_json::json;
use support::media::Kind;
use support::{Deployment, JoinOptions, Scrape, eventually};

const BOTH: [Kind; 2] = [Kind::Audio, Kind::Video];
/// Each process opens its port for operators, and has a receiver of webhooks where nobody listens.
pub const ARGUMENTS: [&str; 4] =
    ["--admin-listen", "127.0.0.1:0", "--webhook-urls", "http://127.0.0.1:9/nobody"];

/// What makes a figure wrong that should be there by now.
type Wrong = Vec<String>;

pub async fn everything_that_is_documented_is_measured(
    deployment: &mut Deployment,
    catalogue: &[&'static [Metric]],
    broker: &str,
) {
    let admins = deployment.admins();
    let media = match deployment.workers.first_mut() {
        Some(worker) => worker.media(),
        None => deployment.apis[0].media(),
    };
    let before = Scrape::of(&admins).await;
    assert_eq!(before.sum("switchyard_worker_connections_total", &[("outcome", "connected")]), 0.0);
    let room = deployment.room().await;
    let ada = room.join_as(JoinOptions { channels: true, ..JoinOptions::publishing("Ada") }).await;
    let ben = room.join("Ben").await;
    ada.hears(&ben, &BOTH).await;
    ben.hears(&ada, &BOTH).await;
    ada.say("reliable", &json!({"data": "to whoever has a channel", "events": true})).await;
    ben.event("message", |_| true).await;
    // Somebody who belongs to nobody.
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.send_to(&[0x80; 64], media).unwrap();

    let scrape = eventually("the figures are those of two people who meet", || async {
        let scrape = Scrape::of(&admins).await;
        let wrong = wrong(&scrape, broker);
        if wrong.is_empty() { Ok(scrape) } else { Err(wrong.join("; ")) }
    })
    .await;
    assert_documented(&scrape, catalogue, broker);

    ada.leave().await.expect(204);
    ben.leave().await.expect(204);
    eventually("who has left is counted no more, and what was counted stays", || async {
        let scrape = Scrape::of(&admins).await;
        let gone = ["endpoints", "pipelines", "published_tracks", "estimated_endpoints", "data_channels"];
        let left: f64 = gone.iter().map(|name| scrape.sum(&format!("switchyard_worker_{name}"), &[])).sum();
        let connected = scrape.sum("switchyard_worker_connections_total", &[("outcome", "connected")]);
        if (left, connected) == (0.0, 2.0) {
            Ok(())
        } else {
            Err(format!("{left} left, {connected} connected"))
        }
    })
    .await;
}

/// Names what is not as it should be with two people in one room, one of them with data channels.
fn wrong(scrape: &Scrape, broker: &str) -> Wrong {
    let mut wrong = Wrong::new();
    let mut is = |name: &str, labels: &[(&str, &str)], right: &dyn Fn(f64) -> bool| {
        let value = scrape.sum(name, labels);
        if !right(value) {
            wrong.push(format!("{name} {labels:?} is {value}"));
        }
    };
    let some = |value: f64| value > 0.0;
    let one = |value: f64| value == 1.0;
    let two = |value: f64| value == 2.0;
    is("switchyard_worker_pipelines", &[], &one);
    is("switchyard_worker_endpoints", &[], &two);
    is("switchyard_worker_published_tracks", &[], &|tracks| tracks == 4.0);
    is("switchyard_worker_tracks", &[], &|tracks| tracks == 8.0);
    is("switchyard_worker_quality_endpoints", &[], &two);
    is("switchyard_worker_estimated_endpoints", &[], &|known| known <= 2.0);
    is("switchyard_worker_connections_total", &[("outcome", "connected")], &two);
    is("switchyard_worker_connections_total", &[], &two);
    for step in ["ice", "dtls"] {
        is("switchyard_worker_connect_seconds_count", &[("step", step)], &two);
        is("switchyard_worker_connect_seconds_sum", &[("step", step)], &|seconds| seconds < 60.0);
    }
    for direction in ["in", "out"] {
        let labels = [("direction", direction)];
        is("switchyard_worker_first_media_seconds_count", &labels, &two);
        is("switchyard_worker_first_media_seconds_sum", &labels, &some);
        is("switchyard_worker_media_packets_total", &labels, &|packets| packets > 300.0);
        is("switchyard_worker_media_bytes_total", &labels, &|bytes| bytes > 10_000.0);
    }
    is("switchyard_worker_forward_seconds_count", &[], &some);
    is("switchyard_worker_forward_seconds_sum", &[], &some);
    // Whoever comes to a picture needs a whole one.
    is("switchyard_worker_keyframe_requests_total", &[("direction", "out")], &some);
    is("switchyard_worker_media_drops_total", &[("reason", "stranger")], &some);
    is("switchyard_worker_media_drops_total", &[("reason", "malformed")], &|drops| drops == 0.0);
    is("switchyard_worker_data_channels", &[], &two);
    is("switchyard_worker_data_messages_total", &[("channel", "reliable"), ("direction", "in")], &one);
    is("switchyard_worker_data_events_total", &[], &one);
    is("switchyard_worker_load", &[], &|load| load > 0.0 && load < 2.0);
    is("switchyard_worker_draining", &[], &|draining| draining == 0.0);
    is("switchyard_worker_lease_age_seconds", &[], &|age| age > 0.0 && age < 12.0);
    is("switchyard_worker_heartbeats_total", &[("outcome", "renewed")], &some);
    is("switchyard_worker_commands_total", &[("kind", "join"), ("outcome", "done")], &two);
    is("switchyard_worker_command_seconds_count", &[("kind", "join")], &|joins| joins >= 2.0);
    is("switchyard_worker_commands_under_way", &[], &|commands| commands >= 0.0);
    is("switchyard_worker_events_total", &[("kind", "track.published"), ("outcome", "sent")], &some);
    is("switchyard_worker_timeline_entries_total", &[("outcome", "written")], &some);
    is("switchyard_api_requests_total", &[("status", "2xx")], &some);
    is("switchyard_api_request_seconds_count", &[("method", "POST")], &some);
    is("switchyard_api_streams", &[("transport", "poll")], &two);
    is("switchyard_api_events_delivered_total", &[("transport", "poll")], &some);
    is("switchyard_api_replies_total", &[("outcome", "direct")], &some);
    is("switchyard_broker_connected", &[("broker", broker)], &|parts| parts >= 1.0);
    is("switchyard_broker_sends_total", &[("broker", broker), ("outcome", "ok")], &some);
    is("switchyard_broker_deliveries_total", &[("broker", broker)], &some);
    is("switchyard_broker_queue_messages", &[("queue", "dead-letters")], &|messages| messages == 0.0);
    is("switchyard_store_connected", &[], &|parts| parts >= 1.0);
    is("switchyard_store_operations_total", &[("operation", "put_participant"), ("outcome", "ok")], &two);
    if broker == "rabbitmq" {
        is("switchyard_store_change_lag_seconds_count", &[], &some);
    }
    is("process_resident_memory_bytes", &[], &|bytes| bytes > 5e6);
    is("process_cpu_seconds_total", &[], &|seconds| seconds >= 0.0);
    is("process_open_fds", &[], &|open| open > 10.0);
    is("process_max_fds", &[], &|most| most > 100.0);
    is("process_threads", &[], &|threads| threads > 2.0);
    is("process_start_time_seconds", &[], &|at| at > 1.7e9);
    wrong
}

/// Every metric of the catalogue is there, is what it says, and has only the labels that it may have; no other is.
#[track_caller]
fn assert_documented(scrape: &Scrape, catalogue: &[&'static [Metric]], broker: &str) {
    let known: BTreeMap<&str, &Metric> =
        catalogue.iter().copied().flatten().map(|metric| (metric.name, metric)).collect();
    let missing: Vec<&&str> = known.keys().filter(|name| !scrape.kinds().contains_key(**name)).collect();
    assert!(missing.is_empty(), "documented and not measured: {missing:?}");
    for (name, kind) in scrape.kinds() {
        let metric =
            known.get(name.as_str()).unwrap_or_else(|| panic!("measured and not documented: {name}"));
        assert_eq!(metric.kind.name(), kind, "{name}");
        let labels = scrape.labels(name);
        assert!(!labels.is_empty(), "{name} has no series");
        for labels in labels {
            assert!(labels.keys().eq(names(metric).iter()), "{name} has {labels:?}");
            for (label, value) in &labels {
                let (_, values) =
                    metric.labels.iter().find(|(known, _)| known == label).expect("just compared");
                match values {
                    Values::Listed(values) => {
                        assert!(values.contains(&value.as_str()), "{name}: {label}={value}")
                    }
                    // Whatever the code has: words and templates, no ids but those of the configuration's receivers.
                    Values::Named(_) => assert!(
                        ["version", "receiver"].contains(&label.as_str())
                            || value.contains("/v1/")
                            || !value.chars().any(|c| c.is_ascii_digit()),
                        "{name}: {label}={value}"
                    ),
                }
            }
            assert!(
                labels.get("broker").is_none_or(|it| it == broker),
                "{name} is of another broker: {labels:?}"
            );
        }
    }
}

/// In alphabetical order, as the scrape has them.
fn names(metric: &Metric) -> Vec<String> {
    let mut names: Vec<String> = metric.labels.iter().map(|(name, _)| (*name).to_owned()).collect();
    names.sort();
    names
}
