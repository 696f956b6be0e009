//! `switchyard doctor` on a machine where things are right, and where they are not.

use std::collections::BTreeMap;
use std::net::{TcpListener, UdpSocket};

use serde_json::Value;
use support::process::{Output, run_to_end};
use support::{Deployment, Shape};

/// Runs it, and gives what it says of each check; of several with one name the worst.
fn examine(arguments: &[&str]) -> (Output, BTreeMap<String, Value>) {
    let output = run_to_end(&[&["doctor", "--json"], arguments].concat(), &[]);
    let report: Value =
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let badness =
        |finding: &Value| ["ok", "warn", "fail"].iter().position(|state| finding["state"] == *state);
    let mut findings: BTreeMap<String, Value> = BTreeMap::new();
    for finding in report["findings"].as_array().unwrap() {
        assert!(finding["state"] == "ok" || finding["advice"].is_string(), "what to do: {finding}");
        let check = finding["check"].as_str().unwrap();
        if findings.get(check).is_none_or(|known| badness(known) < badness(finding)) {
            findings.insert(check.to_owned(), finding.clone());
        }
    }
    let failed = findings.values().any(|finding| finding["state"] == "fail");
    assert_eq!(report["ok"], !failed, "{report}");
    assert_eq!(output.status.code(), Some(if failed { 69 } else { 0 }), "{report}");
    (output, findings)
}

/// A port that nothing listens on.
fn free() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_laptop_is_well() {
    let listen = format!("127.0.0.1:{}", free());
    let (_, findings) = examine(&["--listen", &listen, "--media-port", "0"]);
    for (check, state) in [
        ("listen", "ok"),
        ("udp", "ok"),
        ("broker", "ok"),
        ("store", "ok"),
        // Fine for this machine, and said to be no more.
        ("api_keys", "warn"),
        ("public_address", "warn"),
        ("media_port", "warn"),
    ] {
        assert_eq!(findings[check]["state"], state, "{:?}", findings[check]);
    }
    assert!(findings.contains_key("open_files") && findings.contains_key("socket_buffers"));

    let lines = run_to_end(&["doctor", "--listen", &listen, "--media-port", "0"], &[]);
    assert!(lines.stdout.contains("warn  api_keys") && lines.stdout.contains("-> set api_keys"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn taken_ports_are_found() {
    let deployment = Deployment::start(Shape::Embedded).await;
    let listen = deployment.urls()[0].trim_start_matches("http://").to_owned();
    let media = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = media.local_addr().unwrap().port().to_string();
    let (_, findings) = examine(&["--listen", &listen, "--media-port", &port]);
    assert_eq!(findings["media_port"]["state"], "fail", "{findings:?}");
    // Another Switchyard is no fault.
    assert_eq!(findings["listen"]["state"], "warn", "{findings:?}");
    assert!(findings["listen"]["found"].as_str().unwrap().contains("a Switchyard that is well"));
}

#[test]
fn servers_that_are_away_are_found_and_no_password_is_told() {
    let broker = format!("amqp://user:hidden-1@127.0.0.1:{}/%2f", free());
    let store = format!("mongodb://user:hidden-2@127.0.0.1:{}/?replicaSet=rs0", free());
    let (output, findings) = examine(&["--part", "worker", "--broker", &broker, "--store", &store]);
    assert_eq!(findings["broker"]["state"], "fail", "{findings:?}");
    assert_eq!(findings["store"]["state"], "fail", "{findings:?}");
    assert!(!findings.contains_key("listen"), "a worker serves no requests");
    assert!(!format!("{output:?}").contains("hidden"), "{output:?}");
}

#[test]
fn what_is_no_broker_is_found() {
    // Whoever listens there may say anything.
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let broker = format!("amqp://user:password@{}/", web.local_addr().unwrap());
    std::thread::spawn(move || {
        while let Ok((mut client, _)) = web.accept() {
            let _ = std::io::Write::write_all(&mut client, b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let (_, findings) = examine(&["--broker", &broker, "--media-port", "0", "--listen", "127.0.0.1:0"]);
    assert_eq!(findings["broker"]["state"], "fail", "{findings:?}");
}

#[test]
fn bad_settings_are_refused_first() {
    let refused = run_to_end(&["doctor", "--part", "worker"], &[]);
    assert_eq!(refused.status.code(), Some(78), "{refused:?}");
    assert!(refused.stderr.contains("broker"), "{refused:?}");
}
