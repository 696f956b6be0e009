//! Whatever a client sends: the documented error, and a room that goes on unharmed.

use reqwest::Method;
use serde_json::{Value, json};
use support::http::send;
use support::media::Kind;
use support::peer::Peer;
use support::{Deployment, PollingClient, Room};
use uuid::Uuid;

/// Two participants whose media flows, to be undisturbed by what goes on around them.
struct Undisturbed {
    room: Room,
    ada: PollingClient,
    ben: PollingClient,
}

impl Undisturbed {
    async fn start(deployment: &Deployment) -> Self {
        let room = deployment.room().await;
        let ada = room.join("Ada").await;
        let ben = room.join("Ben").await;
        let this = Self { room, ada, ben };
        this.check().await;
        this
    }

    /// Media flows both ways, negotiating still works, and neither client saw anything odd.
    async fn check(&self) {
        self.ada.hears(&self.ben, &[Kind::Audio, Kind::Video]).await;
        self.ben.hears(&self.ada, &[Kind::Audio, Kind::Video]).await;
        assert_eq!((self.ada.errors(), self.ben.errors()), (vec![], vec![]));
    }

    async fn still_works(&self) {
        self.check().await;
        self.ada.negotiate(false).await.unwrap();
        let late = self.room.join("late").await;
        late.hears(&self.ada, &[Kind::Audio, Kind::Video]).await;
        self.ben.hears(&late, &[Kind::Audio, Kind::Video]).await;
        late.leave().await.expect(204);
        self.check().await;
    }
}

pub async fn what_is_not_json_or_not_expected_is_refused(deployment: &Deployment) {
    let room = Undisturbed::start(deployment).await;
    let backend = deployment.backend();
    let json_request = |path: &str, body: &str| {
        let request = backend.request(Method::POST, path).header("Content-Type", "application/json");
        send(request.body(body.to_owned()))
    };
    let deep = "[".repeat(10_000);
    for body in
        ["", "{", "null", "[]", "7", "\"text\"", "{\"name\": 7}", "{\"id\": \"ses_1\"}", "\u{0}", &deep]
    {
        json_request("/v1/sessions", body).await.expect_problem(400, "invalid_request");
    }
    json_request("/v1/sessions", "{\"nonsense\": 1}").await.expect_problem(400, "invalid_request");
    let offer = format!("{}/offer", room.ada.path());
    let participants = format!("/v1/sessions/{}/participants", room.room.id);
    for path in [&offer, &participants] {
        json_request(path, "{\"nonsense\": 1}").await.expect_problem(400, "invalid_request");
        json_request(path, "{\"sdp\"").await.expect_problem(400, "invalid_request");
    }
    let request = backend.request(Method::POST, "/v1/sessions").header("Content-Type", "text/plain");
    send(request.body("{}")).await.expect_problem(415, "unsupported_media_type");

    let oversized = format!("{{\"name\": \"{}\"}}", "x".repeat(600 * 1024));
    json_request("/v1/sessions", &oversized).await.expect_problem(413, "body_too_large");
    let sdp = format!("v=0\r\n{}", "a=x\r\n".repeat(120_000));
    room.ada.http().post(&offer, &json!({"sdp": sdp})).await.expect_problem(413, "body_too_large");

    backend.get("/v1/nothing").await.expect_problem(404, "not_found");
    send(backend.request(Method::PUT, "/v1/sessions")).await.expect_problem(405, "method_not_allowed");
    room.still_works().await;
}

pub async fn without_the_right_credentials_nothing_happens(deployment: &Deployment) {
    let room = Undisturbed::start(deployment).await;
    let other = deployment.room().await;
    let stranger = other.join("stranger").await;
    let http = deployment.http();
    let session = format!("/v1/sessions/{}", room.room.id);
    let ada = room.ada.path().to_owned();

    // None, wrong, and nothing that ever was one.
    for path in ["/v1/sessions".to_owned(), session.clone(), ada.clone(), format!("{ada}/events")] {
        http.get(&path).await.expect_problem(401, "unauthorized");
        http.with_key("test-key", "wrong").get(&path).await.expect_problem(401, "unauthorized");
        http.with_key("nobody", "wrong").get(&path).await.expect_problem(401, "unauthorized");
        for token in ["nonsense", "a.b.c", &format!("{}x", room.ada.token)] {
            http.with_token(token).get(&path).await.expect_problem(401, "unauthorized");
        }
    }
    // Good ones, for another session.
    for token in [&other.token, &stranger.token] {
        let http = http.with_token(token);
        http.get(&session).await.expect_problem(403, "forbidden");
        http.get(&ada).await.expect_problem(403, "forbidden");
        let join = http.post(&format!("{session}/participants"), &json!({"name": "stranger"})).await;
        join.expect_problem(403, "forbidden");
        http.delete(&session).await.expect_problem(403, "forbidden");
    }
    // Another participant's, and one that is only for joining.
    for token in [&room.ben.token, &room.room.token] {
        let http = http.with_token(token);
        let muted = json!({"muted": true, "destination": room.ada.destination()});
        let track = format!("{ada}/tracks/{}", room.ada.own_track(Kind::Audio));
        http.patch(&track, &muted).await.expect_problem(403, "forbidden");
        http.delete(&ada).await.expect_problem(403, "forbidden");
        http.get(&format!("{ada}/events?wait=0")).await.expect_problem(403, "forbidden");
        let (offer, _) = Peer::new().await.unwrap().0.offer(false).await.unwrap();
        let offer = json!({"sdp": offer.sdp, "destination": room.ada.destination()});
        http.post(&format!("{ada}/offer"), &offer).await.expect_problem(403, "forbidden");
    }
    // A participant may not do what is the backend's or a moderator's.
    http.with_token(&room.ada.token).delete(&session).await.expect_problem(403, "forbidden");
    http.with_token(&room.ada.token).post("/v1/sessions", &json!({})).await.expect_problem(403, "forbidden");
    // A destination that was made up, or belongs to someone else.
    let candidates = format!("{ada}/candidates");
    for (destination, status) in
        [("made-up", 400), (stranger.destination(), 403), (room.ben.destination(), 403)]
    {
        let candidate = json!({"candidate": "", "sdpMLineIndex": 0});
        let body = json!({"destination": destination, "candidates": [candidate]});
        let refused = room.ada.http().post(&candidates, &body).await;
        assert_eq!(refused.status, status, "{destination}: {refused:?}");
    }
    assert_eq!(room.room.session().await["state"], "open");
    room.still_works().await;
}

/// An offer of generated audio and video that a real client made.
async fn good_offer() -> String {
    let (peer, _) = Peer::new().await.unwrap();
    peer.add(Kind::Audio).await.unwrap();
    peer.add(Kind::Video).await.unwrap();
    peer.offer(false).await.unwrap().0.sdp
}

/// The offer with its first m-line repeated until there are `count` more, each with a name of its own.
fn with_more_sections(offer: &str, count: usize) -> String {
    let start = offer.find("m=").expect("an offer has m-lines");
    let end = offer[start + 2..].find("m=").map_or(offer.len(), |at| start + 2 + at);
    let section: String = offer[start..end].lines().filter(|line| !line.starts_with("a=ssrc")).fold(
        String::new(),
        |mut section, line| {
            section.push_str(line);
            section.push_str("\r\n");
            section
        },
    );
    let mid =
        section.lines().find(|line| line.starts_with("a=mid:")).expect("an m-line has a name").to_owned();
    let mut grown = offer.to_owned();
    for number in 0..count {
        grown.push_str(&section.replace(&mid, &format!("a=mid:more{number}")));
    }
    grown
}

pub async fn descriptions_that_cannot_be_accepted_are_refused(deployment: &Deployment) {
    let room = Undisturbed::start(deployment).await;
    let good = good_offer().await;
    let no_media = good[..good.find("m=").unwrap()].to_owned();
    let no_fingerprint: String =
        good.lines().filter(|line| !line.contains("fingerprint")).map(|l| format!("{l}\r\n")).collect();
    let no_ice: String =
        good.lines().filter(|line| !line.contains("ice-")).map(|l| format!("{l}\r\n")).collect();
    let refused: Vec<(&str, String, u16, &str)> = vec![
        ("empty", String::new(), 400, "invalid_sdp"),
        ("not SDP", "hello".to_owned(), 400, "invalid_sdp"),
        ("binary", "\u{0}\u{1}\u{2}".repeat(1000), 400, "invalid_sdp"),
        ("no media", no_media, 400, "invalid_sdp"),
        ("no fingerprint", no_fingerprint, 400, "invalid_sdp"),
        ("no ICE credentials", no_ice, 400, "invalid_sdp"),
        ("1,000 m-lines", with_more_sections(&good, 1000), 422, "limit_exceeded"),
    ];
    let http = room.room.http.with_token(&room.room.token);
    let participants = format!("/v1/sessions/{}/participants", room.room.id);
    for (what, sdp, status, code) in &refused {
        // Of someone who is in the room already…
        let offer = json!({"destination": room.ada.destination(), "sdp": sdp});
        let response = room.ada.http().post(&format!("{}/offer", room.ada.path()), &offer).await;
        assert_eq!((response.status, response.code()), (*status, *code), "{what}: {response:?}");
        // … and of someone who wants in: that leaves no trace.
        let join = http.post(&participants, &json!({"name": "odd", "offer": {"sdp": sdp}})).await;
        assert_eq!((join.status, join.code()), (*status, *code), "{what}: {join:?}");
    }
    // SDP that is cut off anywhere is refused or understood, and harms nobody.
    for length in (0..good.len()).step_by(good.len() / 25) {
        let join = http.post(&participants, &json!({"name": "cut", "offer": {"sdp": &good[..length]}})).await;
        match join.status {
            201 => {
                let path =
                    format!("{participants}/{}", support::deployment::text(&join.body["participant"]["id"]));
                room.room.backend.delete(&path).await.expect(204);
            }
            _ => assert!(matches!(join.code(), "invalid_sdp" | "limit_exceeded"), "{length}: {join:?}"),
        }
    }
    let names: Vec<Value> = room.room.session().await["participants"].as_array().unwrap().clone();
    assert_eq!(names.len(), 2, "{names:?}");
    room.still_works().await;
}

pub async fn signalling_out_of_order_is_refused(deployment: &Deployment) {
    let room = Undisturbed::start(deployment).await;
    let (path, http) = (room.ada.path().to_owned(), room.ada.http().clone());
    let destination = room.ada.destination();
    let good = good_offer().await;

    // An answer for which there is no offer.
    let answer = json!({"destination": destination, "sdp": good, "revision": 99});
    http.post(&format!("{path}/answer"), &answer).await.expect_problem(409, "no_offer_pending");
    // An offer that makes a revision which is long past.
    let stale = json!({"destination": destination, "sdp": good, "revision": 1});
    http.post(&format!("{path}/offer"), &stale).await.expect_problem(409, "offer_collision");
    // Candidates that are none, and far too many.
    for line in
        ["nonsense", "candidate:", "candidate:1 1 udp", "candidate:1 1 udp 1 127.0.0.1 70000 typ host"]
    {
        let body =
            json!({"destination": destination, "candidates": [{"candidate": line, "sdpMLineIndex": 0}]});
        let refused = http.post(&format!("{path}/candidates"), &body).await;
        assert_eq!((refused.status, refused.code()), (400, "invalid_candidate"), "{line:?}: {refused:?}");
    }
    let one = json!({"candidate": "candidate:1 1 udp 2130706431 127.0.0.1 9 typ host", "sdpMLineIndex": 0});
    let flood = json!({"destination": destination, "candidates": vec![one.clone(); 1500]});
    http.post(&format!("{path}/candidates"), &flood).await.expect_problem(422, "limit_exceeded");
    // A track that is not there.
    let missing = format!("{path}/tracks/trk_{}", Uuid::now_v7());
    http.patch(&missing, &json!({"destination": destination, "muted": true}))
        .await
        .expect_problem(404, "track_not_found");

    // A candidate, an offer and an answer for an endpoint that is closed.
    let late = room.room.join("gone soon").await;
    let (late_path, late_http, late_destination) =
        (late.path().to_owned(), late.http().clone(), late.destination().to_owned());
    late.leave().await.expect(204);
    for (route, body) in [
        ("candidates", json!({"destination": late_destination, "candidates": [one]})),
        ("offer", json!({"destination": late_destination, "sdp": good})),
        ("answer", json!({"destination": late_destination, "sdp": good, "revision": 2})),
    ] {
        late_http.post(&format!("{late_path}/{route}"), &body).await.expect_problem(410, "endpoint_gone");
    }
    let body = json!({"candidates": [one]});
    late_http
        .post(&format!("{late_path}/candidates"), &body)
        .await
        .expect_problem(404, "participant_not_found");
    room.still_works().await;
}

pub async fn parameters_out_of_range_are_refused(deployment: &Deployment) {
    let room = Undisturbed::start(deployment).await;
    let backend = deployment.backend();
    for path in [
        "/v1/sessions/nonsense",
        "/v1/sessions/par_0192",
        "/v1/sessions/ses_%2e%2e",
        "/v1/sessions?limit=many",
    ] {
        backend.get(path).await.expect_problem(400, "invalid_request");
    }
    let nowhere = format!("/v1/sessions/ses_{}", Uuid::now_v7());
    backend.get(&nowhere).await.expect_problem(404, "session_not_found");
    backend
        .post(&format!("{nowhere}/participants"), &json!({"name": "x"}))
        .await
        .expect_problem(404, "session_not_found");
    let nobody = room.room.participant_path(&format!("par_{}", Uuid::now_v7()));
    backend.get(&nobody).await.expect_problem(404, "participant_not_found");
    backend.get(&format!("{nobody}/events?wait=0")).await.expect_problem(404, "participant_not_found");

    let events = format!("{}/events", room.ada.path());
    for query in ["wait=31", "wait=-1", "wait=soon", "limit=0", "limit=501", "cursor=nonsense"] {
        room.ada.http().get(&format!("{events}?{query}")).await.expect_problem(400, "invalid_request");
    }
    let http = room.room.http.with_token(&room.room.token);
    let participants = format!("/v1/sessions/{}/participants", room.room.id);
    let long = json!({"name": "x".repeat(10_000)});
    http.post(&participants, &long).await.expect_problem(422, "limit_exceeded");
    // A join link may not take the place of someone who is there.
    let taken = json!({"name": "thief", "participant_id": room.ada.participant_id()});
    http.post(&participants, &taken).await.expect_problem(409, "participant_conflict");
    let key =
        backend.request(Method::POST, "/v1/sessions").header("Idempotency-Key", "nonsense").json(&json!({}));
    send(key).await.expect_problem(400, "invalid_request");
    let wait = backend.request(Method::POST, "/v1/sessions").header("Prefer", "wait=99").json(&json!({}));
    let waited = send(wait).await;
    assert!([201, 400].contains(&waited.status), "{waited:?}");
    room.still_works().await;
}
