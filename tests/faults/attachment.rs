//! The change stream is cut and its history lost: every worker ends up reading the queues of exactly the open sessions.

use mongodb::Collection;
use mongodb::bson::{Document, doc};
use support::{Deployment, OwnServices, eventually};
use uuid::Uuid;

use crate::room::{Member, all_hear_each_other, has_listeners, still_there};

const SESSIONS: usize = 12;

async fn documents(sessions: &Collection<Document>) -> Vec<Document> {
    let mut cursor = sessions.find(doc! {}).await.expect("the store answers");
    let mut all = Vec::new();
    while cursor.advance().await.expect("the store answers") {
        all.push(cursor.deserialize_current().expect("a document"));
    }
    all
}

/// Nobody reads these queues, or they are gone.
async fn nobody_listens(deployment: &Deployment, sessions: &[String]) {
    let queues: Vec<String> = sessions.iter().map(|id| format!("session.{id}")).collect();
    let broker = deployment.broker();
    eventually("nobody listens to what is not open", || async {
        let views = broker.look_at(queues.iter().map(String::as_str)).await?;
        let read: Vec<_> = views.iter().flatten().filter(|view| view.readers > 0).collect();
        if read.is_empty() { Ok(()) } else { Err(format!("{read:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_attach_to_exactly_the_open_sessions_whatever_became_of_the_stream() {
    let mut services = OwnServices::start().await;
    let mut deployment = Deployment::start_at(services.location(), 1, 2, &[]);
    let mut open = Vec::new();
    for _ in 0..SESSIONS {
        open.push(deployment.room().await.id);
    }
    has_listeners(&deployment, &open).await;

    // Interrupted: killed in the middle of what happens, and resumed behind the last change.
    services.store.kill().await;
    services.store.start().await;
    let backend = deployment.backend();
    let closed = open.split_off(SESSIONS - 3);
    for id in &closed {
        let path = format!("/v1/sessions/{id}");
        backend
            .insist(reqwest::Method::DELETE, &path, &serde_json::Value::Null)
            .await
            .expect("closed")
            .expect(204);
    }
    let create = async || {
        let created = backend.insist(reqwest::Method::POST, "/v1/sessions", &serde_json::json!({})).await;
        support::deployment::text(&created.expect("a result").expect(201)["session"]["id"])
    };
    open.push(create().await);
    has_listeners(&deployment, &open).await;
    nobody_listens(&deployment, &closed).await;

    // Lost: the collection is dropped under the stream. What is there afterwards is less, and more.
    let client = mongodb::Client::with_uri_str(&services.location().store).await.expect("the store answers");
    let sessions: Collection<Document> = client.database("switchyard").collection("sessions");
    let mut stored = documents(&sessions).await;
    sessions.drop().await.expect("the store answers");
    let lost: Vec<String> = open.drain(..3).collect();
    let text = |document: &Document, key: &str| document.get_str(key).expect("a text").to_owned();
    stored.retain(|document| !lost.contains(&text(document, "_id")));
    let like = stored.iter().find(|document| text(document, "state") == "open").expect("one is open").clone();
    for _ in 0..3 {
        let id = format!("ses_{}", Uuid::now_v7());
        let mut document = like.clone();
        document.insert("_id", &id);
        stored.push(document);
        open.push(id);
    }
    sessions.insert_many(stored).await.expect("the store answers");
    has_listeners(&deployment, &open).await;
    nobody_listens(&deployment, &lost).await;

    // And the stream goes on from there.
    let room = deployment.room().await;
    has_listeners(&deployment, &[&room.id]).await;
    all_hear_each_other(&[Member::join(&room, "Ada").await, Member::join(&room, "Ben").await]).await;
    still_there(&mut deployment);
}
