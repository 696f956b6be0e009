//! WHIP (RFC 9725) and WHEP: one offer by HTTP, from any API instance to any worker.

use reqwest::Method;
use serde_json::{Value, json};
use support::http::send;
use support::media::Kind;
use support::whip::{FRAGMENT, SDP};
use support::{Deployment, OneOffer, Room, eventually};

const BOTH: [Kind; 2] = [Kind::Audio, Kind::Video];

/// A token of the room for one purpose.
async fn token(room: &Room, wish: Value) -> String {
    let link = room.backend.post(&format!("/v1/sessions/{}/links", room.id), &wish).await.expect(201);
    link["token"].as_str().unwrap().to_owned()
}

/// Waits until so many participants are in the room; gives them.
async fn participants(room: &Room, count: usize) -> Vec<Value> {
    eventually(&format!("{count} participants"), || async {
        let session = room.session().await;
        let all = session["participants"].as_array().unwrap().clone();
        if all.len() == count { Ok(all) } else { Err(session.to_string()) }
    })
    .await
}

pub async fn a_stream_is_published_and_watched_and_ends(deployment: &Deployment) {
    let room = deployment.room().await;
    let ada = room.join("Ada").await;
    let publishes = json!({"name": "Studio", "can_subscribe": false});
    let http = deployment.http().with_token(&token(&room, publishes).await);
    let studio = OneOffer::publish(&http, &room.id, &BOTH).await;
    let headers = &studio.headers;
    assert_eq!(headers["content-type"], SDP);
    assert!(studio.entity_tag.starts_with('"') && studio.entity_tag.len() > 4, "{}", studio.entity_tag);
    assert!(studio.location.starts_with(&format!("/v1/whip/{}/", room.id)), "{}", studio.location);
    let sections = studio.peer().remote_sections().await;
    assert!(sections.iter().all(|section| section.direction == "recvonly"), "{sections:?}");
    // Others see it as they see anybody.
    let joined = ada.event("participant.joined", |data| data["participant"]["name"] == "Studio").await;
    let id = joined["participant"]["id"].as_str().unwrap().to_owned();
    ada.event("track.published", |data| {
        data["participant_id"] == id.as_str() && data["track"]["kind"] == "video"
    })
    .await;
    let viewer = deployment.http().with_token(&token(&room, json!({"can_publish": false})).await);
    let player = OneOffer::watch(&viewer, &room.id, &format!("?participant={id}"), &BOTH).await;
    assert!(player.location.starts_with(&format!("/v1/whep/{}/", room.id)), "{}", player.location);
    let sections = player.peer().remote_sections().await;
    assert!(sections.iter().all(|section| section.direction == "sendonly"), "{sections:?}");
    player.plays(&BOTH).await;
    // It ends once, however often that is asked for, and nothing of it is left.
    assert_eq!(studio.delete().await.status, 200);
    ada.event("participant.left", |data| data["participant_id"] == id.as_str()).await;
    assert_eq!(studio.delete().await.status, 200);
    studio.patch(Some(&studio.entity_tag), "").await.expect_problem(410, "endpoint_gone");
    assert_eq!(player.delete().await.status, 200);
    participants(&room, 1).await;
    assert_eq!(ada.errors(), Vec::<String>::new());
}

pub async fn a_player_gets_who_comes_later_and_who_is_left(deployment: &Deployment) {
    let room = deployment.room().await;
    let http = deployment.http().with_token(&room.token);
    let player = OneOffer::watch(&http, &room.id, "", &BOTH).await;
    let first = OneOffer::publish(&http, &room.id, &BOTH).await;
    player.plays(&BOTH).await;
    let second = room.join("Ben").await;
    let sections = player.peer().remote_sections().await;
    assert_eq!(first.delete().await.status, 200);
    let watcher = participants(&room, 2).await;
    let id = watcher.iter().find(|it| it["id"] != second.participant_id()).unwrap()["id"].clone();
    // The same lines carry the other one now.
    eventually("the player is on the second publisher", || async {
        let stats = room.backend.get(&format!("{}/stats", room.participant_path(id.as_str().unwrap()))).await;
        let stats = stats.expect(200);
        let subscribed = stats["subscribed"].as_array().unwrap();
        let is_on = subscribed.len() == 2
            && subscribed.iter().all(|track| {
                track["participant_id"] == second.participant_id() && track["state"] == "flowing"
            });
        if is_on { Ok(()) } else { Err(stats.to_string()) }
    })
    .await;
    player.plays(&BOTH).await;
    assert_eq!(player.peer().remote_sections().await, sections);
    assert_eq!(second.errors(), Vec::<String>::new());
}

pub async fn a_player_of_one_participant_gets_nobody_else(deployment: &Deployment) {
    let room = deployment.room().await;
    let http = deployment.http().with_token(&room.token);
    let ada = room.join("Ada").await;
    let studio = OneOffer::publish(&http, &room.id, &[Kind::Audio]).await;
    let query = format!("?participant={}", ada.participant_id());
    let player = OneOffer::watch(&http, &room.id, &query, &BOTH).await;
    let track =
        OneOffer::watch(&http, &room.id, &format!("?track={}", ada.own_track(Kind::Video)), &BOTH).await;
    player.plays(&BOTH).await;
    track.plays(&[Kind::Video]).await;
    assert_eq!(track.packets(Kind::Audio).await, 0);
    ada.leave().await.expect(204);
    participants(&room, 3).await;
    assert_eq!(studio.delete().await.status, 200);
}

pub async fn a_connection_trickles_and_restarts_ice_by_fragments(deployment: &Deployment) {
    let room = deployment.room().await;
    let http = deployment.http().with_token(&room.token);
    let player = OneOffer::watch(&http, &room.id, "", &BOTH).await;
    let mut studio = OneOffer::publish(&http, &room.id, &BOTH).await;
    player.plays(&BOTH).await;
    let candidate = "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n\
        a=candidate:1 1 udp 2122260223 127.0.0.1 61764 typ host\r\na=end-of-candidates\r\n";
    let tag = studio.entity_tag.clone();
    assert_eq!(studio.patch(Some(&tag), candidate).await.status, 204);
    studio.patch(None, candidate).await.expect_problem(428, "precondition_required");
    studio.patch(Some("\"another\""), candidate).await.expect_problem(412, "precondition_failed");
    for wrong in ["a=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n", "v=0\r\n", "a=ice-ufrag:abcd\r\n"] {
        studio.patch(Some(&tag), wrong).await.expect_problem(422, "invalid_fragment");
    }
    let bad = candidate.replace("typ host", "typ unheard-of");
    studio.patch(Some(&tag), &bad).await.expect_problem(422, "invalid_fragment");
    studio
        .patch(Some("*"), "a=ice-ufrag:abcd\r\na=ice-pwd:short\r\n")
        .await
        .expect_problem(422, "invalid_fragment");
    // Refused ones have changed nothing.
    assert_eq!(studio.patch(Some(&tag), "").await.status, 204);
    studio.restart_ice().await;
    assert_ne!(studio.entity_tag, tag);
    studio.patch(Some(&tag), candidate).await.expect_problem(412, "precondition_failed");
    assert_eq!(studio.patch(Some(&format!("{tag}, {}", studio.entity_tag)), "").await.status, 204);
    player.plays(&BOTH).await;
}

pub async fn who_publishes_again_replaces_the_old_connection(deployment: &Deployment) {
    let room = deployment.room().await;
    let id = format!("par_{}", uuid::Uuid::now_v7());
    let http = deployment.http().with_token(&token(&room, json!({"participant_id": id})).await);
    let player =
        OneOffer::watch(&deployment.http().with_token(&room.token), &room.id, "", &[Kind::Video]).await;
    let first = OneOffer::publish(&http, &room.id, &[Kind::Video]).await;
    player.plays(&[Kind::Video]).await;
    let second = OneOffer::publish(&http, &room.id, &[Kind::Video]).await;
    player.plays(&[Kind::Video]).await;
    participants(&room, 2).await;
    // The end of the old one does not end the new one.
    first.delete().await.expect_problem(410, "endpoint_gone");
    first.patch(Some(&first.entity_tag), "").await.expect_problem(410, "endpoint_gone");
    player.plays(&[Kind::Video]).await;
    assert_eq!(second.delete().await.status, 200);
    participants(&room, 1).await;
}

pub async fn who_hangs_up_is_gone(deployment: &Deployment) {
    let room = deployment.room().await;
    let http = deployment.http().with_token(&room.token);
    let ada = room.join("Ada").await;
    let studio = OneOffer::publish(&http, &room.id, &[Kind::Video]).await;
    eventually("it is connected", || async {
        let all = participants(&room, 2).await;
        let is_up = all.iter().filter(|it| it["state"] == "connected").count() == 2;
        if is_up { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;
    // A connection that ends without a DELETE.
    studio.peer().close().await;
    participants(&room, 1).await;
    assert_eq!(ada.errors(), Vec::<String>::new());
}

pub async fn a_session_is_created_by_who_may(deployment: &Deployment) {
    let room = deployment.room().await;
    let id = format!("ses_{}", uuid::Uuid::now_v7());
    let studio = OneOffer::publish(&deployment.backend(), &id, &[Kind::Audio]).await;
    let session = deployment.backend().get(&format!("/v1/sessions/{id}")).await.expect(200);
    assert_eq!(session["participants"].as_array().unwrap().len(), 1, "{session}");
    assert_eq!(studio.delete().await.status, 200);
    // A token for one session does not create another.
    let other = format!("ses_{}", uuid::Uuid::now_v7());
    let path = format!("/v1/whip/{other}");
    let request = deployment.http().with_token(&room.token).request(Method::POST, &path);
    send(request.header("Content-Type", SDP).body("v=0")).await.expect_problem(403, "forbidden");
}

pub async fn requests_that_do_not_fit_are_refused(deployment: &Deployment) {
    let room = deployment.room().await;
    let http = deployment.http().with_token(&room.token);
    let path = format!("/v1/whip/{}", room.id);
    let post = |http: &support::Http, path: &str, content_type: &str, body: &str| {
        send(http.request(Method::POST, path).header("Content-Type", content_type).body(body.to_owned()))
    };
    post(&room.http, &path, SDP, "v=0").await.expect_problem(401, "unauthorized");
    post(&http, &path, "application/json", "{}").await.expect_problem(415, "unsupported_media_type");
    post(&http, &path, SDP, "v=0").await.expect_problem(400, "invalid_sdp");
    post(&http, &path, SDP, "").await.expect_problem(400, "invalid_sdp");
    let watcher = deployment.http().with_token(&token(&room, json!({"can_publish": false})).await);
    post(&watcher, &path, SDP, "v=0").await.expect_problem(403, "forbidden");
    let publisher = deployment.http().with_token(&token(&room, json!({"can_subscribe": false})).await);
    let whep = format!("/v1/whep/{}", room.id);
    post(&publisher, &whep, SDP, "v=0").await.expect_problem(403, "forbidden");
    post(&http, &format!("{whep}?participant=7"), SDP, "v=0").await.expect_problem(400, "invalid_request");
    post(&http, &format!("{whep}?which=all"), SDP, "v=0").await.expect_problem(400, "invalid_request");
    participants(&room, 0).await;

    let studio = OneOffer::publish(&http, &room.id, &[Kind::Audio]).await;
    let patch = |path: &str, content_type: &str| {
        let request = http.request(Method::PATCH, path).header("Content-Type", content_type);
        send(request.header("If-Match", "*").body(""))
    };
    patch(&studio.location, SDP).await.expect_problem(415, "unsupported_media_type");
    patch(&format!("{path}/nothing"), FRAGMENT).await.expect_problem(404, "not_found");
    let other = deployment.room().await;
    let elsewhere = studio.location.replace(&room.id, &other.id);
    patch(&elsewhere, FRAGMENT).await.expect_problem(403, "forbidden");
    let stranger = deployment.http().with_token(&other.token);
    let request = stranger.request(Method::DELETE, &studio.location);
    send(request).await.expect_problem(403, "forbidden");
    send(room.http.request(Method::DELETE, &studio.location)).await.expect_problem(401, "unauthorized");
    // A token that names somebody else.
    let named = token(&room, json!({"participant_id": format!("par_{}", uuid::Uuid::now_v7())})).await;
    let named = deployment.http().with_token(&named).request(Method::DELETE, &studio.location);
    send(named).await.expect_problem(403, "forbidden");
    for method in [Method::GET, Method::HEAD, Method::PUT] {
        for path in [&path, &studio.location] {
            let refused = send(http.request(method.clone(), path)).await;
            assert_eq!(refused.status, 405, "{method} {path}");
        }
    }
    // What a browser asks before it sends one.
    for (path, header, takes) in [(&path, "accept-post", SDP), (&studio.location, "accept-patch", FRAGMENT)] {
        let request = http.request(Method::OPTIONS, path).header("Origin", "https://player.example");
        let response = request.header("Access-Control-Request-Method", "POST").send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()[header], takes);
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
        let allowed = response.headers()["access-control-allow-headers"].to_str().unwrap().to_lowercase();
        assert!(
            ["authorization", "content-type", "if-match"].iter().all(|it| allowed.contains(it)),
            "{allowed}"
        );
    }
    let request = http.request(Method::DELETE, &studio.location).header("Origin", "https://player.example");
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    let exposed = response.headers()["access-control-expose-headers"].to_str().unwrap().to_lowercase();
    assert!(["location", "etag", "link"].iter().all(|it| exposed.contains(it)), "{exposed}");
}
