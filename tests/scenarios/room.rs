//! A room, from its first participant to its end, with media counted at every step.

use serde_json::json;
use support::deployment::text;
use support::media::Kind;
use support::{Deployment, Http, JoinOptions, PollingClient, eventually};

const BOTH: [Kind; 2] = [Kind::Audio, Kind::Video];

/// Every one of them receives audio and video of every other.
async fn all_receive_each_other(clients: &[&PollingClient]) {
    for receiver in clients {
        for sender in clients {
            if receiver.participant_id() != sender.participant_id() {
                receiver.hears(sender, &BOTH).await;
            }
        }
    }
    for client in clients {
        assert_eq!(client.errors(), Vec::<String>::new(), "{}", client.participant_id());
    }
}

pub async fn participants_receive_each_other(deployment: &Deployment) {
    let room = deployment.room().await;
    let ada = room.join("Ada").await;
    let ben = room.join("Ben").await;
    let eve = room.join("Eve").await;
    all_receive_each_other(&[&ada, &ben, &eve]).await;

    ada.event("participant.joined", |data| data["participant"]["name"] == "Eve").await;
    ada.event("endpoint.state", |data| {
        data["state"] == "connected" && data["endpoint_id"] == ada.endpoint_id()
    })
    .await;
    let list = room.backend.get(&format!("/v1/sessions/{}/participants", room.id)).await.expect(200);
    let mut names: Vec<String> = list["participants"]
        .as_array()
        .unwrap()
        .iter()
        .map(|participant| text(&participant["name"]))
        .collect();
    names.sort();
    assert_eq!(names, ["Ada", "Ben", "Eve"]);
    let one = ben.http().get(ben.path()).await.expect(200);
    let mut kinds: Vec<String> =
        one["tracks"].as_array().unwrap().iter().map(|track| text(&track["kind"])).collect();
    kinds.sort();
    assert_eq!(kinds, ["audio", "video"]);
}

pub async fn who_joins_late_gets_what_is_there(deployment: &Deployment) {
    let room = deployment.room().await;
    let early = room.join("early").await;
    let other = room.join("other").await;
    all_receive_each_other(&[&early, &other]).await;
    let late = room.join("late").await;
    all_receive_each_other(&[&early, &other, &late]).await;
}

pub async fn who_only_watches_is_offered_everything(deployment: &Deployment) {
    let room = deployment.room().await;
    let first = room.join("first").await;
    let watcher = room.join_as(JoinOptions::watching("watcher")).await;
    watcher.hears(&first, &BOTH).await;
    let second = room.join("second").await;
    watcher.hears(&second, &BOTH).await;
    first.hears(&second, &BOTH).await;
    assert!(watcher.own_tracks().is_empty());
    assert!(first.subscribed().iter().all(|line| line.participant_id != watcher.participant_id()));
}

pub async fn leaving_is_told_and_ends_the_media(deployment: &Deployment) {
    let room = deployment.room().await;
    let ada = room.join("Ada").await;
    let ben = room.join("Ben").await;
    let eve = room.join("Eve").await;
    all_receive_each_other(&[&ada, &ben, &eve]).await;

    let gone = ben.participant_id().to_owned();
    let (path, http) = (ben.path().to_owned(), ben.http().clone());
    ben.leave().await.expect(204);
    for left in [&ada, &eve] {
        left.event("participant.left", |data| {
            data["participant_id"] == gone.as_str() && data["reason"] == "left"
        })
        .await;
        eventually("nothing of who left is offered any more", || async {
            let lines = left.subscribed();
            if lines.iter().any(|line| line.participant_id == gone) {
                Err(format!("{lines:?}"))
            } else {
                Ok(())
            }
        })
        .await;
    }
    all_receive_each_other(&[&ada, &eve]).await;
    http.get(&path).await.expect_problem(404, "participant_not_found");

    // Someone new takes up the m-lines that became free, and is seen all the same.
    let lines = ada.subscribed().len();
    let new = room.join("new").await;
    all_receive_each_other(&[&ada, &eve, &new]).await;
    assert_eq!(ada.subscribed().len(), lines + 2);
}

pub async fn joining_again_replaces_the_endpoint(deployment: &Deployment) {
    let room = deployment.room().await;
    let ada = room.join("Ada").await;
    let old = room.join("Ben").await;
    all_receive_each_other(&[&ada, &old]).await;

    let again = JoinOptions {
        participant_id: Some(old.participant_id().to_owned()),
        ..JoinOptions::publishing("Ben")
    };
    // The old client does not go away: it polls on, and takes nothing from the new one.
    let new = PollingClient::join(&room.http, &room.id, &old.token, again).await.unwrap();
    assert_eq!(new.participant_id(), old.participant_id());
    assert_ne!(new.endpoint_id(), old.endpoint_id());
    // What is sent to the old endpoint finds that it is gone.
    let candidate =
        json!({"destination": old.destination(), "candidates": [{"candidate": "", "sdpMLineIndex": 0}]});
    let path = format!("{}/candidates", old.path());
    old.http().post(&path, &candidate).await.expect_problem(410, "endpoint_gone");

    all_receive_each_other(&[&ada, &new]).await;
    assert_eq!(room.session().await["participants"].as_array().map(Vec::len), Some(2));
}

/// An old client of the same participant polls on, at another API instance where there are two: the new one misses
/// nothing, and the old one learns that it is over.
pub async fn an_old_client_takes_nothing_from_the_new_one(deployment: &Deployment) {
    const ROUNDS: usize = 20;
    let room = deployment.room().await;
    let ada = room.join("Ada").await;
    let at = |url: &String| Http::new(std::slice::from_ref(url));
    let (first, last) = (deployment.urls().first().unwrap(), deployment.urls().last().unwrap());
    let old =
        PollingClient::join(&at(first), &room.id, &room.token, JoinOptions::publishing("Ben")).await.unwrap();
    all_receive_each_other(&[&ada, &old]).await;
    let again = JoinOptions {
        participant_id: Some(old.participant_id().to_owned()),
        ..JoinOptions::publishing("Ben")
    };
    let new = PollingClient::join(&at(last), &room.id, &old.token, again).await.unwrap();
    for _ in 0..ROUNDS {
        ada.set_muted(Kind::Audio, true).await.expect(200);
        ada.set_muted(Kind::Audio, false).await.expect(200);
    }
    eventually("the new client is told of every change", || {
        let told: Vec<String> = new
            .events()
            .iter()
            .map(|event| text(&event["type"]))
            .filter(|kind| kind.starts_with("track.") && kind.ends_with("muted"))
            .collect();
        async move {
            let expected = ["track.muted", "track.unmuted"].repeat(ROUNDS);
            if told == expected { Ok(()) } else { Err(format!("{} of {}", told.len(), expected.len())) }
        }
    })
    .await;
    all_receive_each_other(&[&ada, &new]).await;

    old.event("endpoint.state", |data| data["reason"] == "replaced").await;
    eventually("the old client's events end", || {
        let ended = old.ended();
        async move { if ended.as_deref() == Some("endpoint_gone") { Ok(()) } else { Err(format!("{ended:?}")) } }
    })
    .await;
    let events = old.events();
    let last = events.last().unwrap();
    assert_eq!(
        (text(&last["type"]), text(&last["data"]["endpoint_id"])),
        ("endpoint.state".to_owned(), old.endpoint_id().to_owned())
    );
    assert!(new.events_of("endpoint.state").iter().all(|data| data["endpoint_id"] == new.endpoint_id()));
}

pub async fn muting_stops_the_media_and_is_told(deployment: &Deployment) {
    let room = deployment.room().await;
    let ada = room.join("Ada").await;
    let ben = room.join("Ben").await;
    all_receive_each_other(&[&ada, &ben]).await;

    let video = ada.own_track(Kind::Video);
    assert_eq!(ada.set_muted(Kind::Video, true).await.expect(200)["muted"], true);
    let told = ben.event("track.muted", |data| data["track_id"] == video.as_str()).await;
    assert_eq!((&told["participant_id"], &told["by_admin"]), (&json!(ada.participant_id()), &json!(false)));
    // She goes on sending; nothing of it comes through any more.
    eventually("no video within a second", || async {
        match ben.count_for_a_second(&video).await {
            0 => Ok(()),
            count => Err(format!("{count} packets")),
        }
    })
    .await;
    ben.receives(ada.participant_id(), Kind::Audio).await;
    let late = room.join("late").await;
    late.receives(ada.participant_id(), Kind::Audio).await;
    let shown = room.session().await;
    let shown =
        shown["participants"].as_array().unwrap().iter().find(|shown| shown["id"] == ada.participant_id());
    let shown =
        shown.unwrap()["tracks"].as_array().unwrap().iter().find(|track| track["id"] == video.as_str());
    assert_eq!(shown.unwrap()["muted"], true);

    assert_eq!(ada.set_muted(Kind::Video, false).await.expect(200)["muted"], false);
    ben.event("track.unmuted", |data| data["track_id"] == video.as_str()).await;
    all_receive_each_other(&[&ada, &ben, &late]).await;

    // The application's backend may mute anyone.
    let path = format!("{}/tracks/{video}", room.participant_path(ada.participant_id()));
    room.backend.patch(&path, &json!({"muted": true})).await.expect(200);
    ben.event("track.muted", |data| data["by_admin"] == true).await;
}

pub async fn a_track_can_be_published_and_unpublished_at_any_time(deployment: &Deployment) {
    let room = deployment.room().await;
    let ada =
        room.join_as(JoinOptions { publish: vec![Kind::Audio], ..JoinOptions::publishing("Ada") }).await;
    let ben = room.join("Ben").await;
    ben.hears(&ada, &[Kind::Audio]).await;
    assert!(
        !ben.subscribed()
            .iter()
            .any(|line| line.participant_id == ada.participant_id() && line.kind == "video")
    );

    for round in 0..3 {
        ada.publish(Kind::Video).await.unwrap();
        let track = ada.own_track(Kind::Video);
        ben.event("track.published", |data| data["track"]["id"] == track.as_str()).await;
        ben.hears(&ada, &BOTH).await;
        ada.unpublish(Kind::Video).await.unwrap();
        ben.event("track.unpublished", |data| data["track_id"] == track.as_str()).await;
        eventually("the track is offered no more", || async {
            let lines = ben.subscribed();
            if lines.iter().any(|line| line.track_id == track) {
                Err(format!("{round}: {lines:?}"))
            } else {
                Ok(())
            }
        })
        .await;
        ben.hears(&ada, &[Kind::Audio]).await;
    }
    ada.hears(&ben, &BOTH).await;
    assert_eq!((ada.errors(), ben.errors()), (vec![], vec![]));
}

pub async fn an_ice_restart_keeps_the_media(deployment: &Deployment) {
    let room = deployment.room().await;
    let ada = room.join("Ada").await;
    let ben = room.join("Ben").await;
    all_receive_each_other(&[&ada, &ben]).await;
    for _ in 0..3 {
        ada.restart_ice().await.unwrap();
        all_receive_each_other(&[&ada, &ben]).await;
    }
}

/// Each of two participants publishes and unpublishes as fast as it can, which makes the server offer to the other
/// all the time.
pub async fn both_sides_may_negotiate_at_once(deployment: &Deployment) {
    async fn keep_changing(client: &PollingClient) {
        for _ in 0..15 {
            client.publish(Kind::Audio).await.unwrap();
            client.unpublish(Kind::Audio).await.unwrap();
        }
        client.publish(Kind::Audio).await.unwrap();
    }
    let room = deployment.room().await;
    let video = JoinOptions { publish: vec![Kind::Video], ..JoinOptions::publishing("Ada") };
    let ada = room.join_as(video.clone()).await;
    let ben = room.join_as(JoinOptions { name: "Ben".to_owned(), ..video }).await;
    tokio::join!(keep_changing(&ada), keep_changing(&ben));
    all_receive_each_other(&[&ada, &ben]).await;
}

pub async fn many_joins_cost_few_offers(deployment: &Deployment) {
    let room = deployment.room().await;
    let observer = room.join_as(JoinOptions::watching("observer")).await;
    let first = room.join("first").await;
    observer.hears(&first, &BOTH).await;
    let before = observer.offers();
    let audio = JoinOptions { publish: vec![Kind::Audio], ..JoinOptions::publishing("one of many") };
    let joins = (0..20).map(|_| room.join_as(audio.clone()));
    let joined = futures::future::join_all(joins).await;
    for client in &joined {
        observer.receives(client.participant_id(), Kind::Audio).await;
    }
    let offers = observer.offers() - before;
    assert!(offers <= 8, "20 joins cost {offers} offers");
    assert_eq!(observer.errors(), Vec::<String>::new());
}

pub async fn closing_ends_it_for_everyone(deployment: &Deployment) {
    let room = deployment.room().await;
    let ada = room.join("Ada").await;
    let ben = room.join("Ben").await;
    all_receive_each_other(&[&ada, &ben]).await;
    let path = format!("/v1/sessions/{}", room.id);
    room.backend.delete(&path).await.expect(204);
    for client in [&ada, &ben] {
        client.event("session.closed", |_| true).await;
    }
    let offer = json!({"destination": ada.destination(), "sdp": "v=0\r\n"});
    let refused = ada.http().post(&format!("{}/offer", ada.path()), &offer).await;
    assert!(
        matches!((refused.status, refused.code()), (410, "endpoint_gone" | "session_closed")),
        "unexpected response: {refused:?}"
    );
    let http = room.http.with_token(&room.token);
    http.post(&format!("{path}/participants"), &json!({"name": "late"}))
        .await
        .expect_problem(410, "session_closed");
    room.backend.delete(&path).await.expect(204);
    assert_eq!(room.session().await["state"], "closed");
}

pub async fn a_client_that_vanishes_is_noticed(deployment: &Deployment) {
    let room = deployment.room().await;
    let ada = room.join("Ada").await;
    let ben = room.join("Ben").await;
    all_receive_each_other(&[&ada, &ben]).await;
    let gone = ben.participant_id().to_owned();
    ben.vanish().await;
    let left =
        support::eventually::eventually_within(support::patience(60.0), "it is said to be lost", || {
            let found = ada
                .events_of("participant.left")
                .into_iter()
                .find(|data| data["participant_id"] == gone.as_str());
            async move { found.ok_or_else(|| "still there".to_owned()) }
        })
        .await;
    assert_eq!(left["reason"], "connection_lost");
    assert_eq!(room.session().await["participants"].as_array().map(Vec::len), Some(1));
}
