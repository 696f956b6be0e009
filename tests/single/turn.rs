//! The TURN server of the all-in-one process: clients are told of it, get through by it and nowhere else, and
//! `switchyard doctor` can tell whether one works.

use std::net::UdpSocket;

use reqwest::Method;
use serde_json::Value;
use support::deployment::text;
use support::media::Kind;
use support::peer::RTCIceServer;
use support::process::run_to_end;
use support::{Deployment, JoinOptions, Scrape, Shape, eventually};

const BOTH: [Kind; 2] = [Kind::Audio, Kind::Video];
const SECRET: &str = "north-wind-and-sun";

/// What the server tells a participant of TURN, and of STUN.
fn servers(reply: &Value) -> (RTCIceServer, Vec<String>, String) {
    let all = reply["ice_servers"].as_array().unwrap();
    let urls =
        |server: &Value| -> Vec<String> { server["urls"].as_array().unwrap().iter().map(text).collect() };
    let turn = all.iter().find(|server| server["credential"].is_string()).expect("a TURN server");
    let stun = all.iter().find(|server| server["credential"].is_null()).expect("a STUN server");
    let [udp, tcp] = <[String; 2]>::try_from(urls(turn)).unwrap();
    assert_eq!(udp.replace("=udp", "=tcp"), tcp, "one port over both");
    let (username, credential) = (text(&turn["username"]), text(&turn["credential"]));
    (RTCIceServer { urls: vec![udp], username, credential }, urls(stun), tcp)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_other_way_gets_through_by_the_servers_own_relay() {
    let arguments = ["--turn-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let mut deployment = Deployment::start_with(Shape::Embedded, &arguments).await;
    let admins = deployment.admins();
    let room = deployment.room().await;
    let ada = room.join("Ada").await;
    let reply = ada.http().get(&format!("{}/ice-servers", ada.path())).await.expect(200);
    let (turn, stun, _) = servers(&reply);
    let address = turn.urls[0].trim_start_matches("turn:").trim_end_matches("?transport=udp").to_owned();
    assert_eq!(stun, [format!("stun:{address}")]);

    let ben = room.join_as(JoinOptions { turn: Some(turn.clone()), ..JoinOptions::publishing("Ben") }).await;
    ada.hears(&ben, &BOTH).await;
    ben.hears(&ada, &BOTH).await;
    eventually("what went by the relay is counted", || async {
        let scrape = Scrape::of(&admins).await;
        let relayed =
            |direction| scrape.sum("switchyard_worker_turn_bytes_total", &[("direction", direction)]);
        let allocations = scrape.sum("switchyard_worker_turn_allocations", &[]);
        let (bytes_in, bytes_out) = (relayed("in"), relayed("out"));
        if allocations >= 1.0 && bytes_in > 10_000.0 && bytes_out > 10_000.0 {
            Ok(())
        } else {
            Err(format!("{allocations} allocations, {bytes_in} bytes in, {bytes_out} out"))
        }
    })
    .await;

    // Somebody else's password, and bytes of nobody.
    let junk = UdpSocket::bind("127.0.0.1:0").unwrap();
    junk.send_to(b"GET / HTTP/1.1\r\n\r\n", &address).unwrap();
    let wrong = ["doctor", "--json", "--turn-secret", SECRET, "--turn-urls", &format!("turn:{address}")];
    assert_eq!(run_to_end(&wrong, &[]).status.code(), Some(69));
    eventually("what was refused is counted", || async {
        let scrape = Scrape::of(&admins).await;
        let refused = scrape.sum("switchyard_worker_turn_refused_total", &[("reason", "credentials")]);
        let junk = scrape.sum("switchyard_worker_turn_drops_total", &[("reason", "malformed")]);
        if (refused, junk) == (1.0, 1.0) { Ok(()) } else { Err(format!("{refused} refused, {junk} dropped")) }
    })
    .await;
    ben.hears(&ada, &BOTH).await;

    ben.leave().await.expect(204);
    ada.leave().await.expect(204);
    let page = support::http::send(deployment.http().request(Method::GET, "/healthz")).await;
    page.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_tries_turn_servers() {
    let arguments = ["--turn-listen", "127.0.0.1:0", "--turn-secret", SECRET];
    let deployment = Deployment::start_with(Shape::Embedded, &arguments).await;
    let ada = deployment.room().await.join("Ada").await;
    let reply = ada.http().get(&format!("{}/ice-servers", ada.path())).await.expect(200);
    let (turn, _, tcp) = servers(&reply);
    let both = format!("{},{tcp}", turn.urls[0]);
    let address = turn.urls[0].trim_start_matches("turn:").trim_end_matches("?transport=udp").to_owned();
    let state = |arguments: &[&str], check: &str| -> (Vec<String>, String) {
        let always = ["doctor", "--json", "--media-port", "0", "--listen", "127.0.0.1:0"];
        let output = run_to_end(&[&always, arguments].concat(), &[]);
        assert!(!format!("{output:?}").contains(SECRET), "{output:?}");
        let report: Value = serde_json::from_str(&output.stdout).unwrap();
        let findings = report["findings"].as_array().unwrap().iter().filter(|it| it["check"] == check);
        (findings.clone().map(|it| text(&it["state"])).collect(), findings.map(Value::to_string).collect())
    };
    let (states, all) = state(&["--turn-secret", SECRET, "--turn-urls", &both], "turn");
    assert_eq!(states, ["ok", "ok"], "{all}");
    let (states, all) = state(&["--turn-secret", "another-long-secret", "--turn-urls", &both], "turn");
    assert_eq!(states, ["fail", "fail"], "{all}");
    assert!(all.contains("401") && all.contains("the same turn_secret"), "{all}");
    // Nobody listens there.
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (states, all) = state(&["--turn-secret", SECRET, "--turn-urls", &format!("turn:{nobody}")], "turn");
    assert_eq!(states, ["fail"], "{all}");
    // The port of the worker's own.
    for (listen, secret, expected) in [
        (&*address, SECRET, "ok"),
        (&*address, "another-long-secret", "fail"),
        ("192.0.2.1:3478", SECRET, "fail"),
    ] {
        let open = ["--api-keys", "key:a-long-enough-secret-of-32-bytes-or-more"];
        let (states, all) =
            state(&[&open[..], &["--turn-listen", listen, "--turn-secret", secret]].concat(), "turn_listen");
        assert_eq!(states, [expected], "{all}");
    }
}
