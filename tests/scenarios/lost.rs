//! A client whose network goes: what the others see, and how it comes back.

use serde_json::json;
use support::media::Kind;
use support::{Deployment, JoinOptions, PollingClient};

const BOTH: [Kind; 2] = [Kind::Audio, Kind::Video];

pub async fn who_restarts_ice_in_time_keeps_the_endpoint(deployment: &Deployment) {
    let room = deployment.room().await;
    let ada = room.join("Ada").await;
    let ben = room.join_as(JoinOptions { relayed: true, ..JoinOptions::publishing("Ben") }).await;
    ada.hears(&ben, &BOTH).await;
    ben.hears(&ada, &BOTH).await;
    ben.cut();
    ben.event("endpoint.state", |data| data["state"] == "disconnected").await;
    // From here on 10 s are left. The answer leads over the direct path: the client has another address now.
    ben.restart_ice().await.unwrap();
    ada.hears(&ben, &BOTH).await;
    ben.hears(&ada, &BOTH).await;
    let session = room.session().await;
    let states: Vec<_> =
        session["participants"].as_array().unwrap().iter().map(|one| &one["state"]).collect();
    assert_eq!(states, [&json!("connected"), &json!("connected")]);
    for kind in ["participant.disconnected", "participant.left", "track.unpublished"] {
        assert_eq!(ada.events_of(kind), Vec::<serde_json::Value>::new(), "{kind}: nobody was lost");
    }
    assert!(ben.events_of("endpoint.state").iter().all(|data| data["state"] != "closed"));
    assert_eq!((ada.errors(), ben.errors()), (vec![], vec![]));
}

pub async fn who_is_lost_for_longer_may_join_again_at_once_from_elsewhere(deployment: &Deployment) {
    let room = deployment.room().await;
    let ada = room.join("Ada").await;
    let ben = room.join_as(JoinOptions { relayed: true, ..JoinOptions::publishing("Ben") }).await;
    ada.hears(&ben, &BOTH).await;
    let id = ben.participant_id().to_owned();
    ben.cut();
    // Silence counts after 5 s, and is forgiven for 10 s more.
    support::eventually::eventually_within(support::patience(60.0), "it is said to be lost", || {
        let lost = ada
            .events_of("participant.disconnected")
            .iter()
            .any(|data| data["participant_id"] == id.as_str());
        async move { if lost { Ok(()) } else { Err("not yet".to_owned()) } }
    })
    .await;
    ada.event("participant.left", |data| {
        data["participant_id"] == id.as_str() && data["reason"] == "connection_lost"
    })
    .await;
    support::eventually("its tracks are offered no more", || {
        let lines = ada.subscribed();
        let left = lines.iter().any(|line| line.participant_id == id);
        async move { if left { Err(format!("{lines:?}")) } else { Ok(()) } }
    })
    .await;
    // Its own reader hears of it as well; then it comes back with another connection and the same id.
    ben.event("participant.left", |data| data["participant_id"] == id.as_str()).await;
    let options = JoinOptions { participant_id: Some(id.clone()), ..JoinOptions::publishing("Ben") };
    let again =
        PollingClient::join(&room.http, &room.id, &ben.token, options).await.expect("to join again at once");
    assert_eq!(again.participant_id(), id);
    assert_ne!(again.endpoint_id(), ben.endpoint_id());
    ada.hears(&again, &BOTH).await;
    again.hears(&ada, &BOTH).await;
    assert_eq!(room.session().await["participants"].as_array().map(Vec::len), Some(2));
}
