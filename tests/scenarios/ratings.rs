//! How a participant found its call: told after leaving, read by the backend.

use serde_json::{Value, json};
use support::media::Kind;
use support::{Deployment, eventually};

const BOTH: [Kind; 2] = [Kind::Audio, Kind::Video];

pub async fn a_rating_is_kept_with_what_is_known_of_the_connection(deployment: &Deployment) {
    let room = deployment.room().await;
    let ada = room.join("Ada").await;
    let ben = room.join("Ben").await;
    ada.hears(&ben, &BOTH).await;
    ben.hears(&ada, &BOTH).await;
    let stats = format!("{}/stats", ada.path());
    eventually("there is something to know", || async {
        let stats = ada.http().get(&stats).await.expect(200);
        let known = ["round_trip_time_ms", "inbound_loss"].map(|figure| stats["summary"][figure].is_number());
        if known == [true, true] { Ok(()) } else { Err(stats["summary"].to_string()) }
    })
    .await;
    let (id, endpoint) = (ada.participant_id().to_owned(), ada.endpoint_id().to_owned());
    let (path, http, destination) =
        (format!("{}/rating", ada.path()), ada.http().clone(), ada.destination().to_owned());
    ada.leave().await.expect(204);
    let rate = |body: Value| {
        let (http, path) = (http.clone(), path.clone());
        async move { http.post(&path, &body).await }
    };
    rate(json!({"stars": 2, "comment": "$echo", "destination": destination})).await.expect(204);
    let ratings = format!("/v1/sessions/{}/ratings", room.id);
    let read = || async {
        let read = room.backend.get(&ratings).await.expect(200);
        assert_eq!(read["next"], Value::Null);
        read["ratings"].as_array().unwrap().clone()
    };
    let [first] = &read().await[..] else { panic!("one rating") };
    assert_eq!(
        (&first["participant_id"], &first["stars"], &first["comment"]),
        (&json!(id), &json!(2), &json!("$echo"))
    );
    let network = &first["network"];
    assert_eq!((&network["endpoint_id"], &network["protocol"]), (&json!(endpoint), &json!("udp")));
    assert!(
        network["duration_ms"].as_i64() > Some(0) && network["round_trip_time_ms"].is_number(),
        "{network}"
    );
    assert_eq!(network["inbound_loss"], 0.0, "{network}");

    // Thought better of it: without a destination, so by whichever worker. What is known stays.
    rate(json!({"stars": 5})).await.expect(204);
    let [second] = &read().await[..] else { panic!("still one") };
    assert_eq!(
        (&second["stars"], &second["comment"], &second["network"]),
        (&json!(5), &Value::Null, network)
    );

    // Also when the session is over.
    room.backend.delete(&format!("/v1/sessions/{}", room.id)).await.expect(204);
    rate(json!({"stars": 4, "destination": destination})).await.expect(204);
    assert_eq!(read().await[0]["stars"], 4);

    // Only by oneself, and only what makes sense.
    ben.http().post(&path, &json!({"stars": 1})).await.expect_problem(403, "forbidden");
    room.http.post(&path, &json!({"stars": 1})).await.expect_problem(401, "unauthorized");
    ben.http().get(&ratings).await.expect_problem(403, "forbidden");
    for wrong in
        [json!({}), json!({"stars": 0}), json!({"stars": 6}), json!({"stars": 2.5}), json!({"stars": "5"})]
    {
        rate(wrong).await.expect_problem(400, "invalid_request");
    }
    rate(json!({"stars": 5, "comment": "x".repeat(1_001)})).await.expect_problem(422, "limit_exceeded");
    rate(json!({"stars": 5, "destination": ben.destination()})).await.expect_problem(403, "forbidden");
    assert_eq!(read().await[0]["stars"], 4, "none of that was kept");
}
