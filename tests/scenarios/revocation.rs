//! Who is removed stays away: with its own token, with its link, as a player; until it is invited again.

use serde_json::{Value, json};
use support::media::Kind;
use support::polling::JoinOptions;
use support::{Deployment, OneOffer, PollingClient, Room, eventually};

const BOTH: [Kind; 2] = [Kind::Audio, Kind::Video];

/// A token of the room for one purpose.
async fn token(room: &Room, wish: Value) -> String {
    let link = room.backend.post(&format!("/v1/sessions/{}/links", room.id), &wish).await.expect(201);
    link["token"].as_str().unwrap().to_owned()
}

pub async fn who_is_removed_stays_away_until_invited_again(deployment: &Deployment) {
    let room = deployment.room().await;
    let id = format!("par_{}", uuid::Uuid::now_v7());
    let wish = json!({"participant_id": id, "name": "Ada"});
    let link = token(&room, wish.clone()).await;
    let ada = PollingClient::join(&room.http, &room.id, &link, JoinOptions::publishing("Ada")).await.unwrap();
    let ben = room.join("Ben").await;
    ben.hears(&ada, &BOTH).await;
    let own = ada.http().clone();
    let refreshed = own.post(&format!("{}/token", ada.path()), &json!({})).await.expect(200);
    let own = own.with_token(refreshed["token"].as_str().unwrap());

    room.backend.delete(&room.participant_path(&id)).await.expect(204);
    eventually("Ada's stream of events ends", || async {
        ada.ended().ok_or_else(|| "it goes on".to_owned())
    })
    .await;
    let left = ben.event("participant.left", |data| data["participant_id"] == id.as_str()).await;
    assert_eq!(left["reason"], "removed");
    let participants = format!("/v1/sessions/{}/participants", room.id);
    // At every API instance, by everything that came of the old link.
    for http in [&own, ada.http(), &room.http.with_token(&link)] {
        for _ in 0..2 {
            http.post(&participants, &json!({})).await.expect_problem(401, "token_revoked");
        }
    }
    let candidates = json!({"destination": ada.destination(), "candidates": [{"candidate": ""}]});
    own.post(&format!("{}/candidates", ada.path()), &candidates).await.expect_problem(401, "token_revoked");
    own.post(&format!("{}/token", ada.path()), &json!({})).await.expect_problem(401, "token_revoked");
    let events = format!("{}/events?endpoint={}&wait=1", ada.path(), ada.endpoint_id());
    eventually("its events are gone, too", || async {
        let read = own.get(&events).await;
        // The last event may still be there to be confirmed.
        if read.status == 200 {
            let cursor = read.body["cursor"].as_str().unwrap_or_default();
            let confirmed = own.get(&format!("{events}&cursor={cursor}")).await;
            return Err(format!("{confirmed:?}"));
        }
        read.expect_problem(401, "token_revoked");
        Ok(())
    })
    .await;
    let session = room.session().await;
    assert_eq!(session["participants"].as_array().unwrap().len(), 1, "{session}");

    let again = token(&room, wish).await;
    let ada =
        PollingClient::join(&room.http, &room.id, &again, JoinOptions::publishing("Ada")).await.unwrap();
    assert_eq!(ada.participant_id(), id);
    ben.hears(&ada, &BOTH).await;
    assert_eq!(ben.errors(), Vec::<String>::new());
}

pub async fn who_publishes_by_whip_and_is_removed_publishes_no_more(deployment: &Deployment) {
    let room = deployment.room().await;
    let ben = room.join("Ben").await;
    let id = format!("par_{}", uuid::Uuid::now_v7());
    let http = deployment.http().with_token(&token(&room, json!({"participant_id": id})).await);
    let studio = OneOffer::publish(&http, &room.id, &BOTH).await;
    ben.event("track.published", |data| data["participant_id"] == id.as_str()).await;
    room.backend.delete(&room.participant_path(&id)).await.expect(204);
    ben.event("participant.left", |data| data["participant_id"] == id.as_str()).await;
    studio.patch(Some(&studio.entity_tag), "").await.expect_problem(401, "token_revoked");
    for resource in ["whip", "whep"] {
        let request = http.request(reqwest::Method::POST, &format!("/v1/{resource}/{}", room.id));
        let request = request.header("content-type", support::whip::SDP).body("v=0\r\n");
        support::http::send(request).await.expect_problem(401, "token_revoked");
    }
}

pub async fn a_session_that_ends_takes_all_its_tokens_with_it(deployment: &Deployment) {
    let room = deployment.room().await;
    let ada = room.join("Ada").await;
    let link = token(&room, json!({})).await;
    room.backend.delete(&format!("/v1/sessions/{}", room.id)).await.expect(204);
    eventually("Ada's stream of events ends", || async {
        ada.ended().ok_or_else(|| "it goes on".to_owned())
    })
    .await;
    let participants = format!("/v1/sessions/{}/participants", room.id);
    for http in [ada.http(), &room.http.with_token(&link)] {
        http.post(&participants, &json!({})).await.expect_problem(410, "session_closed");
    }
    ada.http().post(&format!("{}/token", ada.path()), &json!({})).await.expect_problem(410, "session_closed");
}
