//! Webhooks when those who send them die.

use serde_json::json;
use support::deployment::{KEY_ID, text};
use support::receiver::{Answer, Receiver};
use support::{Deployment, Scrape, Shape, eventually, patience};

/// The API instance that tells receivers now, by its metrics.
async fn teller(deployment: &Deployment) -> usize {
    eventually("one instance tries", || async {
        for (index, url) in deployment.urls().iter().enumerate() {
            let scrape = Scrape::of(std::slice::from_ref(url)).await;
            if scrape.sum("switchyard_api_webhooks_total", &[("outcome", "failed")]) > 0.0 {
                return Ok(index);
            }
        }
        Err("nobody does".to_owned())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_api_had_yet_to_tell_another_one_tells() {
    let receiver = Receiver::start().await;
    receiver.answer_all(Answer::Status(503));
    let arguments = ["--webhook-urls", &receiver.url(), "--operator-keys", KEY_ID];
    let mut deployment = Deployment::start_with(Shape::Cluster { apis: 2, workers: 2 }, &arguments).await;
    let rooms = [deployment.room().await, deployment.room().await];
    for room in &rooms {
        let path = format!("/v1/sessions/{}/participants", room.id);
        let joined = room.http.with_token(&room.token).post(&path, &json!({})).await.expect(201);
        let own = room.participant_path(&text(&joined["participant"]["id"]));
        room.backend.delete(&own).await.expect(204);
        room.backend.delete(&format!("/v1/sessions/{}", room.id)).await.expect(204);
    }
    let teller = teller(&deployment).await;
    deployment.kill_api(teller);
    // The workers too: what they noted is in the store.
    eventually("the closing is noted", || async {
        let noted = receiver.came(&rooms[1].id);
        if noted.is_empty() { Err("nothing of it came".to_owned()) } else { Ok(()) }
    })
    .await;
    receiver.answer_all(Answer::Take);
    for room in &rooms {
        // A lease has to run out, and what failed waits for its time.
        receiver.takes_within(patience(90.0), &room.id, "room_finished").await;
        let taken = receiver.taken(&room.id);
        let mut last = 0;
        for (number, _) in &taken {
            assert!(*number == last + 1 || *number == last, "no gap, and nothing out of order: {taken:?}");
            last = *number;
        }
        assert_eq!(taken[0].1, "room_started");
    }
}
