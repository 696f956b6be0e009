//! What participants say to each other: by request, by data channel, and from the one to the other.

use reqwest::Method;
use serde_json::{Value, json};
use support::deployment::text;
use support::http::send;
use support::media::Kind;
use support::{Deployment, JoinOptions, PollingClient, eventually};
use uuid::Uuid;

fn path(client: &PollingClient) -> String {
    format!("/v1/sessions/{}/messages", client.session_id())
}

/// Waits until a client has heard as many messages by its reliable channel; gives them.
async fn heard(client: &PollingClient, count: usize) -> Vec<Value> {
    eventually(&format!("{} hears {count} messages", client.participant_id()), || async {
        let heard = client.heard("reliable");
        if heard.len() >= count { Ok(heard) } else { Err(format!("{heard:?}")) }
    })
    .await
}

pub async fn a_message_by_request_reaches_everyone_else_or_whom_it_names(deployment: &Deployment) {
    let room = deployment.room().await;
    let ada = room.join("Ada").await;
    let ben = room.join_as(JoinOptions::watching("Ben")).await;
    let eve = room.join("Eve").await;
    let body = json!({"topic": "chat", "data": {"text": "hello"}});
    let sent = ada.http().post(&path(&ada), &body).await.expect(200);
    assert_eq!(sent["missing"], json!([]));
    for other in [&ben, &eve] {
        let told = other.event("message", |_| true).await;
        let expected = json!({"from": ada.participant_id(), "topic": "chat", "id": sent["id"], "data": {"text": "hello"}});
        assert_eq!(told, expected);
    }

    let nobody = format!("par_{}", Uuid::now_v7());
    let body = json!({"to": [ben.participant_id(), nobody], "id": "mine", "data": "psst"});
    let sent = ada.http().post(&path(&ada), &body).await.expect(200);
    assert_eq!(sent, json!({"id": "mine", "missing": [nobody]}));
    let told = ben.event("message", |data| data["data"] == "psst").await;
    assert_eq!((&told["direct"], &told["id"]), (&json!(true), &json!("mine")));

    // As the application; and what follows it shows that nobody got more than that.
    room.backend.post(&path(&ada), &json!({"data": "closing soon"})).await.expect(200);
    for (client, count) in [(&ada, 1), (&ben, 3), (&eve, 2)] {
        let told = client.event("message", |data| data["data"] == "closing soon").await;
        assert_eq!(told.get("from"), None);
        assert_eq!(client.events_of("message").len(), count, "{}", client.participant_id());
    }
}

pub async fn a_message_that_is_sent_twice_is_told_once(deployment: &Deployment) {
    let room = deployment.room().await;
    let ada = room.join("Ada").await;
    let ben = room.join_as(JoinOptions::watching("Ben")).await;
    let key = format!("cmd_{}", Uuid::now_v7());
    let body = json!({"data": "once"});
    let again =
        || send(ada.http().request(Method::POST, &path(&ada)).header("Idempotency-Key", &key).json(&body));
    let (first, second) = tokio::join!(again(), again());
    assert_eq!(first.expect(200), second.expect(200));
    ada.http().post(&path(&ada), &json!({"data": "after it"})).await.expect(200);
    ben.event("message", |data| data["data"] == "after it").await;
    // The client drops an event whose id it knows, as docs/API.md says it may.
    let told: Vec<Value> = ben.events_of("message").iter().map(|data| data["data"].clone()).collect();
    assert_eq!(told, ["once", "after it"]);
}

pub async fn messages_that_may_not_be_sent_are_refused(deployment: &Deployment) {
    let room = deployment.room().await;
    let ada = room.join("Ada").await;
    let ben = room.join_as(JoinOptions::watching("Ben")).await;
    let path = path(&ada);
    for (body, status, code) in [
        (json!({}), 400, "invalid_request"),
        (json!({"data": 1, "from": ben.participant_id()}), 400, "invalid_request"),
        (json!({"data": 1, "to": []}), 400, "invalid_request"),
        (json!({"data": 1, "to": ["ben"]}), 400, "invalid_request"),
        (json!({"data": 1, "topic": "x".repeat(129)}), 422, "limit_exceeded"),
        (json!({"data": "x".repeat(16 * 1024)}), 422, "limit_exceeded"),
    ] {
        ada.http().post(&path, &body).await.expect_problem(status, code);
    }
    let fine = json!({"data": 1});
    room.http.post(&path, &fine).await.expect_problem(401, "unauthorized");
    // A link is nobody yet.
    room.http.with_token(&room.token).post(&path, &fine).await.expect_problem(403, "forbidden");
    let other = format!("/v1/sessions/ses_{}/messages", Uuid::now_v7());
    ada.http().post(&other, &fine).await.expect_problem(403, "forbidden");
    room.backend.post(&other, &fine).await.expect_problem(404, "session_not_found");
    let (http, token_path) = (ben.http().clone(), path.clone());
    ben.leave().await.expect(204);
    http.post(&token_path, &fine).await.expect_problem(404, "participant_not_found");
    // Too many: some are refused, and with the time comes the permission.
    let many = futures::future::join_all((0..100).map(|_| ada.http().post(&path, &fine))).await;
    let refused = many.into_iter().find(|reply| reply.status != 200);
    refused.expect("a hundred at once are too many").expect_problem(429, "too_many_requests");
    eventually("it may send again", || async {
        let reply = ada.http().post(&path, &fine).await;
        if reply.status == 200 { Ok(()) } else { Err(format!("{reply:?}")) }
    })
    .await;
}

pub async fn data_channels_carry_messages_and_events_reach_who_has_none(deployment: &Deployment) {
    let room = deployment.room().await;
    let with_channels = |name: &str| JoinOptions { channels: true, ..JoinOptions::publishing(name) };
    let ada = room.join_as(with_channels("Ada")).await;
    let ben = room.join_as(with_channels("Ben")).await;
    let old = room.join("old").await;
    ada.say("reliable", &json!({"topic": "chat", "data": "by channel"})).await;
    ada.say("reliable", &json!({"topic": "chat", "id": "7", "events": true, "data": "to all"})).await;
    ada.say("lossy", &json!({"to": [ben.participant_id()], "data": 1})).await;
    let from = ada.participant_id();
    // Ben's channel may open after ada's: then the first messages are not for it, and the one with events comes as one.
    let told = json!({"from": from, "topic": "chat", "id": "7", "data": "to all"});
    assert_eq!(old.event("message", |_| true).await, told);
    eventually("ben learns it one way or the other", || async {
        let by_channel = ben.heard("reliable").iter().filter(|heard| heard["id"] == "7").count();
        let by_event = ben.events_of("message").len();
        if by_channel + by_event == 1 { Ok(()) } else { Err(format!("{by_channel} and {by_event}")) }
    })
    .await;
    ben.say("reliable", &json!({"data": "now both are open"})).await;
    assert_eq!(heard(&ada, 1).await, [json!({"from": ben.participant_id(), "data": "now both are open"})]);
    ada.say("reliable", &json!({"data": "last"})).await;
    eventually("ben hears it", || async {
        let heard = ben.heard("reliable");
        if heard.iter().any(|heard| heard["data"] == "last") { Ok(()) } else { Err(format!("{heard:?}")) }
    })
    .await;
    assert_eq!(old.events_of("message"), [told], "only what was to be an event");
    // Media goes on beside it, and for who has no channels as ever.
    ben.hears(&ada, &[Kind::Audio, Kind::Video]).await;
    old.hears(&ada, &[Kind::Audio, Kind::Video]).await;
    ada.hears(&old, &[Kind::Audio, Kind::Video]).await;
}

pub async fn who_joins_again_hears_by_the_new_channels(deployment: &Deployment) {
    let room = deployment.room().await;
    let with_channels = |name: &str| JoinOptions { channels: true, ..JoinOptions::publishing(name) };
    let ada = room.join_as(with_channels("Ada")).await;
    let ben = room.join_as(with_channels("Ben")).await;
    let http = room.http.with_token(&ben.token);
    let id = text(&json!(ben.participant_id()));
    let options = JoinOptions { participant_id: Some(id), ..with_channels("Ben") };
    let again = PollingClient::join(&http, ben.session_id(), &ben.token, options).await.unwrap();
    again.say("reliable", &json!({"data": "back"})).await;
    assert_eq!(heard(&ada, 1).await[0]["data"], "back");
    ada.say("reliable", &json!({"data": "welcome back"})).await;
    assert_eq!(heard(&again, 1).await[0]["data"], "welcome back");
    assert_eq!(ben.heard("reliable"), Vec::<Value>::new());
}
