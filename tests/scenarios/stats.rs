//! What the server says of a connection, to a client that polls.

use serde_json::{Value, json};
use support::media::Kind;
use support::{Deployment, JoinOptions, PollingClient, eventually};

const BOTH: [Kind; 2] = [Kind::Audio, Kind::Video];

/// Reads the figures until they are as expected.
async fn stats_of(client: &PollingClient, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let path = format!("{}/stats?destination={}", client.path(), client.destination());
    let (path, is_so) = (&path, &is_so);
    eventually(what, || async move {
        let stats = client.http().get(path).await.expect(200);
        if is_so(&stats) { Ok(stats) } else { Err(stats.to_string()) }
    })
    .await
}

pub async fn a_client_reads_how_its_connection_stands(deployment: &Deployment) {
    let room = deployment.room().await;
    let ada = room.join("Ada").await;
    let ben = room.join("Ben").await;
    ada.hears(&ben, &BOTH).await;
    ben.hears(&ada, &BOTH).await;
    let stats = stats_of(&ada, "everything is counted", |stats| {
        let all = |list: &Value, is_so: &dyn Fn(&Value) -> bool| {
            list.as_array().is_some_and(|it| it.iter().all(is_so))
        };
        stats["published"].as_array().map(Vec::len) == Some(2)
            && all(&stats["published"], &|track| track["encodings"][0]["alive"] == true)
            && all(&stats["subscribed"], &|track| {
                track["state"] == "flowing" && track["bitrate_bps"].as_u64() > Some(0)
            })
            && stats["transport"]["round_trip_time_ms"].is_number()
    })
    .await;
    assert_eq!((&stats["endpoint_id"], &stats["state"]), (&json!(ada.endpoint_id()), &json!("connected")));
    assert_eq!(stats["transport"]["path"]["protocol"], "udp");
    let subscribed = stats["subscribed"].as_array().unwrap();
    assert!(subscribed.iter().all(|track| track["participant_id"] == ben.participant_id()));
    let published: Vec<&Value> =
        stats["published"].as_array().unwrap().iter().map(|it| &it["track_id"]).collect();
    for kind in BOTH {
        assert!(published.contains(&&json!(ada.own_track(kind))));
    }
    // What it no longer wants is not sent.
    let video = ben.own_track(Kind::Video);
    let wish = json!({"destination": ada.destination(), "paused": true});
    ada.http().patch(&format!("{}/subscriptions/{video}", ada.path()), &wish).await.expect(204);
    let paused = stats_of(&ada, "it says that it is paused", |stats| {
        stats["subscribed"].as_array().is_some_and(|all| {
            all.iter().any(|track| track["track_id"] == video.as_str() && track["state"] == "paused")
        })
    });
    paused.await;

    // One's own, or any for the backend; without a destination there is a look-up.
    let path = format!("{}/stats", ada.path());
    room.backend.get(&path).await.expect(200);
    ada.http().get(&path).await.expect(200);
    ben.http().get(&path).await.expect_problem(403, "forbidden");
    room.http.get(&path).await.expect_problem(401, "unauthorized");
    let (gone, http, destination) = (ben.path().to_owned(), ben.http().clone(), ben.destination().to_owned());
    ben.leave().await.expect(204);
    http.get(&format!("{gone}/stats?destination={destination}")).await.expect_problem(410, "endpoint_gone");
    http.get(&format!("{gone}/stats")).await.expect_problem(404, "participant_not_found");
    assert_eq!(ada.errors(), Vec::<String>::new());
}

/// Everyone is told whose connection is lost, also who comes later, and when it is back.
pub async fn a_lost_connection_is_told_to_everyone(deployment: &Deployment) {
    let room = deployment.room().await;
    let ada = room.join("Ada").await;
    let ben = room.join_as(JoinOptions { relayed: true, ..JoinOptions::publishing("Ben") }).await;
    ada.hears(&ben, &BOTH).await;
    let is = |data: &Value, quality: &str| {
        let told = data["participants"].as_array().unwrap().iter();
        told.filter(|told| told["participant_id"] == ben.participant_id())
            .any(|told| told["quality"] == quality)
    };
    ben.cut();
    ada.event("quality.changed", |data| is(data, "lost")).await;
    let late = room.join("late").await;
    late.event("quality.changed", |data| is(data, "lost")).await;
    // The answer leads over the direct path.
    ben.restart_ice().await.unwrap();
    ada.hears(&ben, &BOTH).await;
    let back = |client: &PollingClient| {
        client.events_of("quality.changed").last().is_some_and(|data| !is(data, "lost"))
    };
    eventually("it is back for everyone", || {
        let both = back(&ada) && back(&late);
        async move { if both { Ok(()) } else { Err("not yet".to_owned()) } }
    })
    .await;
    let stats = stats_of(&ben, "it knows so itself", |stats| stats["quality"] != "lost").await;
    assert!(stats["score"].as_f64().is_some_and(|score| score > 0.0), "{stats}");
    assert_eq!((ada.errors(), late.errors()), (vec![], vec![]));
}
