//! No log of any process tells a secret, at the most talkative level of all our crates; and no error does.

use reqwest::Method;
use serde_json::{Value, json};
use support::deployment::{KEY_ID, KEY_SECRET};
use support::http::{send, try_send};
use support::media::Kind;
use support::peer::Peer;
use support::{Deployment, OneOffer, Shape, eventually};
use uuid::Uuid;

const EVERYTHING: &str =
    "info,switchyard=trace,rest_api=trace,media_worker=trace,common=trace,sfu=trace,tower_http=trace";

/// What must not be found, by what it is.
#[derive(Default)]
struct Secrets(Vec<(&'static str, String)>);

impl Secrets {
    fn add(&mut self, what: &'static str, secret: impl Into<String>) {
        let secret = secret.into();
        assert!(secret.len() >= 7, "{what} is no secret that could be told from other text: {secret:?}");
        self.0.push((what, secret));
    }

    /// All of it, and its last part: the signature, which is what makes it one.
    fn add_token(&mut self, what: &'static str, token: &str) {
        self.add(what, token);
        self.add(what, token.rsplit('.').next().unwrap());
    }

    fn add_passwords(&mut self, what: &'static str, description: &str) {
        let passwords: Vec<_> =
            description.lines().filter_map(|line| line.trim().strip_prefix("a=ice-pwd:")).collect();
        assert!(!passwords.is_empty(), "{description}");
        passwords.into_iter().for_each(|password| self.add(what, password));
    }

    /// The password in a `scheme://user:password@host` URL, when there is one.
    fn add_url(&mut self, what: &'static str, url: &str) {
        let user = url.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')).map(|(user, _)| user);
        if let Some((_, password)) = user.and_then(|user| user.split_once(':')) {
            // With what is around it: a password like `guest` is in other words, too.
            self.add(what, format!(":{password}@"));
        }
    }

    #[track_caller]
    fn none_in(&self, text: &str, place: &str) {
        for (what, secret) in &self.0 {
            let line = text.lines().find(|line| line.contains(secret.as_str()));
            assert_eq!(line, None, "{place} tells the {what}");
        }
    }
}

pub async fn no_log_and_no_error_tells_a_secret(shape: Shape) {
    let deployment = Deployment::start_with(shape, &["--log", EVERYTHING]).await;
    let mut secrets = Secrets::default();
    secrets.add("secret of the API key", KEY_SECRET);
    if shape != Shape::Embedded {
        secrets.add_url("broker's password", &deployment.location().broker);
        secrets.add_url("store's password", &deployment.location().store);
    }
    let room = deployment.room().await;
    secrets.add_token("token of the join link", &room.token);
    secrets.add("fragment of the join link", room.link.split_once('#').unwrap().1);

    // A join with its offer, and everything that its credentials are used for.
    let (peer, _candidates) = Peer::new().await.unwrap();
    peer.add(Kind::Audio).await.unwrap();
    let (offer, tracks) = peer.offer(false).await.unwrap();
    secrets.add_passwords("ICE password of the client", &offer.sdp);
    let participants = format!("/v1/sessions/{}/participants", room.id);
    let http = deployment.http().with_token(&room.token);
    let body = json!({"offer": {"sdp": offer.sdp, "tracks": tracks}});
    let joined = http.post(&participants, &body).await.expect(201);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    secrets.add_passwords("ICE password of the server", &text(&joined["answer"]["sdp"]));
    let (token, destination) = (text(&joined["token"]), text(&joined["destination"]));
    secrets.add_token("token of the participant", &token);
    secrets.add("destination", &destination);
    peer.accepted(offer, &text(&joined["answer"]["sdp"])).await.unwrap();
    let own = http.with_token(&token);
    let path = format!("{participants}/{}", text(&joined["participant"]["id"]));
    let refreshed =
        own.post(&format!("{path}/token"), &json!({"destination": destination})).await.expect(200);
    secrets.add_token("refreshed token", &text(&refreshed["token"]));
    own.get(&format!("{path}/stats?destination={destination}")).await.expect(200);
    own.post(
        &format!("{path}/candidates"),
        &json!({"destination": destination, "candidates": [{"candidate": ""}]}),
    )
    .await
    .expect(204);
    let by_address = http.without_credentials();
    let events = format!("{path}/events?endpoint={}", text(&joined["endpoint_id"]));
    by_address.get(&format!("{events}&wait=1&access_token={token}")).await.expect(200);
    let studio = OneOffer::publish(&http, &room.id, &[Kind::Audio]).await;
    secrets.add("address of a WHIP resource", studio.location.rsplit('/').next().unwrap());
    eventually("the connection stands", || async {
        let stats = own.get(&format!("{path}/stats")).await.expect(200);
        if stats["state"] == "connected" { Ok(()) } else { Err(stats.to_string()) }
    })
    .await;

    // What is wrong is no less of a secret: most often it is right but for a slip.
    let wrong = format!("wrong-{}", Uuid::now_v7());
    secrets.add("secret that is wrong", &wrong);
    let forged = format!("{token}{wrong}");
    let (session, never) =
        (format!("/v1/sessions/{}", room.id), format!("{path}/events?access_token={forged}"));
    let mut errors = String::new();
    for request in [
        http.with_key(KEY_ID, &wrong).request(Method::GET, &session),
        http.with_key(&wrong, KEY_SECRET).request(Method::GET, &session),
        http.with_token(&forged).request(Method::GET, &session),
        http.with_token(&wrong).request(Method::GET, &session),
        by_address.request(Method::GET, &session).header("Authorization", format!("Digest {wrong}")),
        by_address.request(Method::GET, &never),
        own.request(Method::POST, &format!("{path}/offer"))
            .json(&json!({"sdp": "v=0", "destination": forged})),
        own.request(Method::DELETE, &format!("/v1/whip/{}/{forged}", room.id)),
        by_address.request(Method::GET, &format!("/{wrong}?access_token={forged}")),
    ] {
        let refused = send(request).await;
        assert!((400..500).contains(&refused.status), "{refused:?}");
        errors += &format!("{}\n", refused.body);
    }
    secrets.none_in(&errors, "an error");
    // Headers that cannot be read, too.
    let broken =
        by_address.request(Method::GET, &session).header("Authorization", format!("Bearer {wrong}\u{e9}"));
    assert_eq!(try_send(broken).await.unwrap().status, 401);

    assert_eq!(studio.delete().await.status, 200);
    room.backend.delete(&path).await.expect(204);
    own.post(&participants, &json!({})).await.expect_problem(401, "token_revoked");
    room.backend.delete(&session).await.expect(204);
    let logs = deployment.logs();
    assert!(logs.contains("TRACE") || logs.contains("DEBUG"), "the logs are talkative");
    secrets.none_in(&logs, "a log");
    for process in deployment.apis.into_iter().chain(deployment.workers) {
        process.terminate();
        let file = process.log_path().to_owned();
        process.wait();
        secrets.none_in(&std::fs::read_to_string(file).unwrap(), "the last words");
    }
}
