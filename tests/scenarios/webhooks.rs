//! What applications are told of their sessions: everything, in order, signed, at least once; and whoever does not listen
//! delays nobody else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::webhook::Signature;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use support::deployment::{KEY_ID, KEY_SECRET, text};
use support::receiver::{Answer, Came, Receiver};
use support::{Deployment, JoinOptions, Room, Shape, eventually, patience};

async fn deployment(shape: Shape, receivers: &[&Receiver], more: &[&str]) -> Deployment {
    let urls: Vec<String> = receivers.iter().map(|receiver| receiver.url()).collect();
    let urls = urls.join(",");
    let mut arguments = vec!["--webhook-urls", &urls, "--operator-keys", KEY_ID];
    arguments.extend(more);
    Deployment::start_with(shape, &arguments).await
}

/// Numbers 1 to the last, each once.
#[track_caller]
pub fn without_gaps(taken: &[(i64, String)]) {
    let numbers: Vec<i64> = taken.iter().map(|(number, _)| *number).collect();
    let last = numbers.last().copied().unwrap_or_default();
    assert_eq!(numbers, (1..=last).collect::<Vec<_>>(), "{taken:?}");
}

/// As an application does it that knows the key.
#[track_caller]
fn is_signed(came: &Came) {
    assert_eq!(came.content_type, "application/webhook+json");
    let key = DecodingKey::from_secret(KEY_SECRET.as_bytes());
    let mut validation = Validation::new(Algorithm::HS256);
    validation.validate_nbf = true;
    let token = jsonwebtoken::decode::<Signature>(&came.authorization, &key, &validation).unwrap();
    assert_eq!(token.claims.iss, KEY_ID);
    assert_eq!(token.claims.sha256, STANDARD.encode(Sha256::digest(&came.body)));
}

/// Somebody who joins and leaves without media.
async fn come_and_go(room: &Room) {
    let path = format!("/v1/sessions/{}/participants", room.id);
    let joined = room.http.with_token(&room.token).post(&path, &json!({})).await.expect(201);
    let own = room.participant_path(&text(&joined["participant"]["id"]));
    room.backend.delete(&own).await.expect(204);
}

async fn close(room: &Room) {
    room.backend.delete(&format!("/v1/sessions/{}", room.id)).await.expect(204);
}

pub async fn everything_that_happens_is_told_in_order_and_signed(shape: Shape) {
    let (one, other) = (Receiver::start().await, Receiver::start().await);
    let deployment = deployment(shape, &[&one, &other], &[]).await;
    let room = deployment.room().await;
    let ada = room.join_as(JoinOptions::publishing("Ada")).await;
    one.takes(&room.id, "track_published").await;
    come_and_go(&room).await;
    let ada_id = ada.participant_id().to_owned();
    ada.leave().await;
    close(&room).await;
    for receiver in [&one, &other] {
        receiver.takes(&room.id, "room_finished").await;
        let came = receiver.came(&room.id);
        came.iter().for_each(is_signed);
        let taken = receiver.taken(&room.id);
        without_gaps(&taken);
        assert_eq!(taken[0].1, "room_started");
        for event in ["participant_joined", "track_published", "participant_left"] {
            assert!(taken.iter().any(|(_, name)| name == event), "{event} is not in {taken:?}");
        }
        let joined = &came.iter().find(|came| came.json["event"] == "participant_joined").unwrap().json;
        assert_eq!(joined["participant"]["id"], ada_id.as_str());
        assert!(text(&joined["id"]).starts_with("evt_") && joined["createdAt"].is_i64(), "{joined}");
        let published = &came.iter().find(|came| came.json["event"] == "track_published").unwrap().json;
        assert!(
            published["track"]["kind"].is_string() && published["track"]["id"].is_string(),
            "{published}"
        );
    }
    // The numbers are those of the timeline.
    let timeline =
        room.backend.get(&format!("/v1/sessions/{}/timeline?limit=500", room.id)).await.expect(200);
    let entries = timeline["entries"].as_array().unwrap().len();
    assert_eq!(one.taken(&room.id).len(), entries, "{timeline}");
}

pub async fn who_fails_or_hangs_delays_nobody_and_is_told_later(shape: Shape) {
    let (mut one, other) = (Receiver::start().await, Receiver::start().await);
    let deployment = deployment(shape, &[&one, &other], &[]).await;
    let (failing, hanging, well) =
        (deployment.room().await, deployment.room().await, deployment.room().await);
    one.answer(&failing.id, Answer::Status(500));
    one.answer(&hanging.id, Answer::Hang);
    for room in [&failing, &hanging, &well] {
        come_and_go(room).await;
    }
    one.takes(&well.id, "participant_left").await;
    for room in [&failing, &hanging, &well] {
        other.takes(&room.id, "participant_left").await;
    }
    let tries = async || one.came(&failing.id).len();
    eventually("a failing session is tried again", || async {
        let tries = tries().await;
        if tries >= 3 { Ok(()) } else { Err(format!("{tries} tries")) }
    })
    .await;
    let numbers =
        |room: &Room| one.came(&room.id).iter().map(|came| came.json["number"].as_i64()).collect::<Vec<_>>();
    let first = numbers(&failing)[0];
    assert!(!one.taken(&failing.id).iter().any(|(number, _)| Some(*number) > first), "the next one waits");

    // Nobody listens, for a while.
    one.stop().await;
    close(&well).await;
    other.takes(&well.id, "room_finished").await;
    one.answer_all(Answer::Take);
    one.start_again().await;
    for room in [&failing, &hanging, &well] {
        close_if_open(room).await;
        one.takes_within(patience(60.0), &room.id, "room_finished").await;
        without_gaps(&one.taken(&room.id));
    }
}

async fn close_if_open(room: &Room) {
    let reply = room.backend.delete(&format!("/v1/sessions/{}", room.id)).await;
    assert!([204, 410].contains(&reply.status), "{reply:?}");
}

pub async fn what_is_given_up_is_a_dead_letter_and_can_be_sent_again(shape: Shape) {
    let receiver = Receiver::start().await;
    receiver.answer_all(Answer::Status(503));
    let deployment = deployment(shape, &[&receiver], &["--webhook-retry", "1"]).await;
    let room = deployment.room().await;
    come_and_go(&room).await;
    close(&room).await;
    let backend = deployment.backend();
    let letters = eventually("everything is given up", || async {
        let page = backend.get("/v1/webhooks/dead-letters").await.expect(200);
        let letters = page["dead_letters"].as_array().unwrap().clone();
        if letters.iter().any(|letter| letter["event"]["event"] == "room_finished") {
            Ok(letters)
        } else {
            Err(page.to_string())
        }
    })
    .await;
    assert!(receiver.taken(&room.id).is_empty());
    let place = receiver.url().split("/hook").next().unwrap().to_owned();
    assert!(letters.iter().all(|letter| letter["receivers"] == json!([place])), "{letters:?}");
    assert!(!json!(letters).to_string().contains("in-the-url"), "a receiver's secret stays one");

    let stranger = room.http.with_token(&room.token);
    stranger.get("/v1/webhooks/dead-letters").await.expect_problem(403, "forbidden");
    let path = "/v1/webhooks/dead-letters/redeliver";
    stranger.post(path, &json!({})).await.expect_problem(403, "forbidden");

    receiver.answer_all(Answer::Take);
    let first: Value = letters[0]["event"]["id"].clone();
    let again = backend.post(path, &json!({"ids": [first]})).await.expect(200);
    assert_eq!(again, json!({"redelivered": 1}));
    eventually("the one that was named comes", || async {
        let taken = receiver.taken(&room.id);
        if taken.len() == 1 { Ok(()) } else { Err(format!("{taken:?}")) }
    })
    .await;
    let again = backend.post(path, &json!({})).await.expect(200);
    assert_eq!(again["redelivered"], letters.len() - 1, "{letters:?}");
    receiver.takes(&room.id, "room_finished").await;
    without_gaps(&receiver.taken(&room.id));
    let page = backend.get("/v1/webhooks/dead-letters").await.expect(200);
    assert_eq!(page, json!({"dead_letters": [], "next": null}));
}
