//! A session's settings: what is left out of large rooms, codecs, and bit rates, for who is there and who comes.

use std::time::Duration;

use serde_json::{Value, json};
use support::media::Kind;
use support::{Deployment, JoinOptions, PollingClient, deployment, eventually};

const SPEECH: u8 = 20;
const SILENT: u8 = 127;

/// Whether this is one of the tracks of an event.
fn names(data: &Value, track: &str) -> bool {
    data["tracks"].as_array().is_some_and(|tracks| tracks.iter().any(|it| it == track))
}

/// Once nothing of a track comes any more, for a while.
async fn comes_no_more(client: &PollingClient, track: &str) {
    eventually(&format!("nothing more of {track}"), || async {
        let before = client.received(track).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let came = client.received(track).await - before;
        if came == 0 { Ok(()) } else { Err(format!("{came} packets")) }
    })
    .await;
}

async fn change(room: &deployment::Room, settings: Value) {
    let changed =
        room.backend.patch(&format!("/v1/sessions/{}", room.id), &json!({"settings": settings})).await;
    assert_eq!(changed.status, 200, "{changed:?}");
}

pub async fn only_cameras_of_the_last_who_spoke_are_sent(deployment: &Deployment) {
    let room = deployment.room_with(&json!({"last_n": 1})).await;
    assert_eq!(room.session().await["settings"]["last_n"], 1);
    let ada = room.join("Ada").await;
    let ben = room.join("Ben").await;
    let viewer = room.join_as(JoinOptions::watching("viewer")).await;
    viewer.hears(&ada, &[Kind::Audio, Kind::Video]).await;
    viewer.hears(&ben, &[Kind::Audio]).await;
    let (first, second) = (ada.own_track(Kind::Video), ben.own_track(Kind::Video));
    viewer.event("video.held", |data| names(data, &second)).await;
    assert_eq!(viewer.received(&second).await, 0, "never a packet");
    // Whoever is alone on the other side is seen all the same.
    ben.hears(&ada, &[Kind::Video]).await;
    ada.hears(&ben, &[Kind::Video]).await;

    ben.set_level(SPEECH);
    viewer.hears(&ben, &[Kind::Video]).await;
    viewer.event("video.released", |data| names(data, &second)).await;
    viewer.event("video.held", |data| names(data, &first)).await;
    comes_no_more(&viewer, &first).await;

    // Pinned, and not any more.
    let subscription = format!("{}/subscriptions/{first}", viewer.path());
    viewer.http().patch(&subscription, &json!({"priority": 3})).await.expect(204);
    viewer.hears(&ada, &[Kind::Video]).await;
    viewer.http().patch(&subscription, &json!({})).await.expect(204);
    comes_no_more(&viewer, &first).await;

    change(&room, json!({})).await;
    viewer.hears(&ada, &[Kind::Video]).await;
    change(&room, json!({"last_n": 0})).await;
    for track in [&first, &second] {
        comes_no_more(&viewer, track).await;
    }
    viewer.hears(&ben, &[Kind::Audio]).await;
}

pub async fn only_the_loudest_voices_are_forwarded(deployment: &Deployment) {
    let room = deployment.room_with(&json!({"loudest_n": 1})).await;
    let ada = room.join("Ada").await;
    let ben = room.join("Ben").await;
    let viewer = room.join_as(JoinOptions::watching("viewer")).await;
    for (speaker, other) in [(&ada, &ben), (&ben, &ada), (&ada, &ben)] {
        speaker.set_level(SPEECH);
        other.set_level(SILENT);
        viewer.hears(speaker, &[Kind::Audio]).await;
        comes_no_more(&viewer, &other.own_track(Kind::Audio)).await;
        viewer.hears(other, &[Kind::Video]).await;
    }
    change(&room, json!({})).await;
    viewer.hears(&ben, &[Kind::Audio]).await;
    viewer.hears(&ada, &[Kind::Audio]).await;
}

pub async fn publishers_negotiate_the_codec_that_comes_first(deployment: &Deployment) {
    let room = deployment.room_with(&json!({"codecs": ["h264", "vp8"]})).await;
    // Its camera sends H.264 and nothing else, although it names VP8 first. Nobody here has VP8 only: what this client decodes is
    // fixed by the first picture that it negotiates.
    let phone = room.join_as(JoinOptions { h264: true, ..JoinOptions::publishing("phone") }).await;
    let other = room.join_as(JoinOptions { h264: true, ..JoinOptions::publishing("other") }).await;
    other.hears(&phone, &[Kind::Video]).await;
    phone.hears(&other, &[Kind::Video]).await;
}

pub async fn bit_rates_are_set_for_a_session_and_for_a_participant(deployment: &Deployment) {
    // A voice, and less than the generated picture takes.
    let narrow = json!({"max_bps": 60_000});
    let room = deployment.room_with(&json!({"bitrates": narrow})).await;
    let ada = room.join("Ada").await;
    let viewer = room.join_as(JoinOptions::watching("viewer")).await;
    let camera = ada.own_track(Kind::Video);
    viewer.event("video.suspended", |data| names(data, &camera)).await;
    viewer.hears(&ada, &[Kind::Audio]).await;
    let stats = viewer.http().get(&format!("{}/stats", viewer.path())).await.expect(200);
    let carried = &stats["transport"]["available_outgoing_bitrate_bps"];
    assert!(carried.as_u64().is_none_or(|it| it <= 60_000), "{carried}");

    // The application gives one of them more; a client that asks for more does not get it.
    let link = format!("/v1/sessions/{}/links", room.id);
    let wide = room.backend.post(&link, &json!({"bitrates": {"max_bps": 5_000_000}})).await.expect(201);
    let token = deployment::text(&wide["token"]);
    let guest =
        PollingClient::join(&room.http, &room.id, &token, JoinOptions::watching("guest")).await.unwrap();
    guest.hears(&ada, &[Kind::Audio, Kind::Video]).await;
    let greedy =
        JoinOptions { also: json!({"bitrates": {"max_bps": 5_000_000}}), ..JoinOptions::watching("greedy") };
    let greedy = room.join_as(greedy).await;
    greedy.event("video.suspended", |data| names(data, &camera)).await;
    let modest = JoinOptions { also: json!({"bitrates": narrow}), ..JoinOptions::watching("modest") };
    let modest = PollingClient::join(&room.http, &room.id, &token, modest).await.unwrap();
    modest.event("video.suspended", |data| names(data, &camera)).await;

    change(&room, json!({})).await;
    viewer.event("video.resumed", |data| names(data, &camera)).await;
    viewer.hears(&ada, &[Kind::Video]).await;
    guest.hears(&ada, &[Kind::Video]).await;
}
