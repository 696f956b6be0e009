//! The load generator against the real server: what it says is what happened.

use serde_json::Value;
use support::deployment::{KEY_ID, KEY_SECRET};
use support::process::{Output, run_to_end};
use support::{Deployment, Shape};

/// Runs `switchyard load` with a short measurement.
fn load(deployment: &Deployment, arguments: &[&str]) -> Output {
    let key = format!("{KEY_ID}:{KEY_SECRET}");
    let (url, pid) = (&deployment.urls()[0], deployment.apis[0].pid().to_string());
    let mut all = vec!["load", "--url", url, "--api-key", &key, "--pid", &pid, "--json", "-"];
    all.extend(["--duration", "3s", "--settle", "200ms", "--join-rate", "50", "--timeout", "15s"]);
    all.extend(arguments);
    run_to_end(&all, &[])
}

fn report(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Every packet went to everyone who should have it, whole, in time measured.
#[track_caller]
fn assert_all_arrived(report: &Value) {
    assert_eq!(report["joins"]["failed"], 0, "{report:#}");
    assert!(report["packets"]["forwarded"].as_u64().unwrap() > 100, "{report:#}");
    assert_eq!(report["packets"]["lost"], 0, "{report:#}");
    let delivered = report["packets"]["delivered_percent"].as_f64().unwrap();
    assert!((90.0..110.0).contains(&delivered), "{report:#}");
    assert!(report["generator"]["checked"].as_u64().unwrap() > 10, "{report:#}");
    assert_eq!(report["generator"]["unreadable"], 0, "{report:#}");
    assert_eq!(report["generator"]["misrouted"], 0, "{report:#}");
    let latency = &report["latency_ms"];
    let quantiles: Vec<f64> =
        ["p50", "p90", "p99", "max"].iter().map(|name| latency[name].as_f64().unwrap()).collect();
    assert!(quantiles[0] > 0.0 && quantiles.is_sorted(), "{report:#}");
}

#[tokio::test]
async fn subscribers_of_two_rooms_get_everything_of_their_own() {
    let deployment = Deployment::start(Shape::Embedded).await;
    let page = tempfile::NamedTempFile::new().unwrap();
    let html = page.path().to_str().unwrap();
    let output = load(
        &deployment,
        &["--rooms", "2", "--publishers", "1", "--subscribers", "2", "--check-one-of", "1", "--html", html],
    );
    let report = report(&output);
    assert_all_arrived(&report);
    assert_eq!(report["joins"]["clients"], 6);
    assert_eq!(report["scenario"]["srtp_profiles"]["AEAD_AES_128_GCM"], 6, "{report:#}");
    assert_eq!(report["generator"]["checked"], report["packets"]["forwarded"], "{report:#}");
    assert!(report["joins"]["first_media_ms"]["max"].as_f64().unwrap() > 0.0, "{report:#}");
    assert!(report["cpu_us_per_forwarded_packet"].as_f64().unwrap() > 0.0, "{report:#}");
    assert!(report["processes"][0]["resident_end"].as_u64().unwrap() > 1_000_000, "{report:#}");
    assert!(std::fs::read_to_string(page.path()).unwrap().contains("<svg"));
}

#[tokio::test]
async fn parties_get_each_others_media_while_strangers_flood_the_port() {
    let deployment = Deployment::start(Shape::Embedded).await;
    let output = load(&deployment, &["--parties", "3", "--flood", "stun", "--flood-rate", "2000"]);
    let report = report(&output);
    assert_all_arrived(&report);
    assert!(report["flood"]["sent"].as_u64().unwrap() > 2_000, "{report:#}");
}

#[tokio::test]
async fn a_storm_of_joins_gets_its_media() {
    let deployment = Deployment::start(Shape::Embedded).await;
    let output = load(&deployment, &["--subscribers", "1", "--storm", "10", "--storm-within", "500ms"]);
    let report = report(&output);
    assert_eq!(report["storm"]["clients"], 10, "{report:#}");
    assert_eq!(report["storm"]["failed"], 0, "{report:#}");
    assert!(report["storm"]["all_media_ms"]["p99"].as_f64().unwrap() > 0.0, "{report:#}");
    assert!(report["latency_ms"]["count"].as_u64().unwrap() > 0, "{report:#}");
}

#[tokio::test]
async fn a_wrong_key_is_refused_in_words() {
    let deployment = Deployment::start(Shape::Embedded).await;
    let output = run_to_end(
        &["load", "--url", &deployment.urls()[0], "--api-key", "nobody:a-secret-that-is-not-known"],
        &[],
    );
    assert_eq!(output.status.code(), Some(70), "{output:?}");
    assert!(output.stderr.contains("401"), "{output:?}");
}
