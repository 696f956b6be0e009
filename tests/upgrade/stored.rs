//! What one version stored the other reads: sessions with their settings and people, timelines, ratings, workers.

use std::path::Path;

use serde_json::{Value, json};
use support::deployment::{KEY_ID, KEY_SECRET, text};
use support::media::Kind;
use support::{Deployment, Http, Room, eventually};

use crate::{no_dead_letters, still_there, versions};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_old_version_stored_the_new_one_reads() {
    let versions = versions();
    one_writes_and_the_other_reads(&versions.old, &versions.new).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_new_version_stored_the_old_one_reads() {
    let versions = versions();
    one_writes_and_the_other_reads(&versions.new, &versions.old).await;
}

/// All that a backend and an operator can read of a session, by name.
async fn documents(backend: &Http, room: &Room) -> Vec<(&'static str, Value)> {
    let mut all = Vec::new();
    for (name, path) in [
        ("session", format!("/v1/sessions/{}", room.id)),
        ("participants", format!("/v1/sessions/{}/participants", room.id)),
        ("timeline", format!("/v1/sessions/{}/timeline?limit=500", room.id)),
        ("ratings", format!("/v1/sessions/{}/ratings", room.id)),
        ("sessions", "/v1/sessions".to_owned()),
        ("administered", format!("/v1/admin/sessions/{}", room.id)),
    ] {
        all.push((name, backend.get(&path).await.expect(200)));
    }
    all
}

async fn one_writes_and_the_other_reads(writer: &Path, reader: &Path) {
    let operators = ["--operator-keys", KEY_ID];
    // The writer's worker is the only one as long as anything is written.
    let mut deployment = Deployment::start_programs(&[writer, reader], &[writer], &operators).await;
    let [by_writer, by_reader] = [0, 1]
        .map(|index| Http::new(std::slice::from_ref(&deployment.urls()[index])).with_key(KEY_ID, KEY_SECRET));
    let settings =
        json!({"last_n": 5, "loudest_n": 3, "codecs": ["opus", "vp8"], "bitrates": {"max_bps": 900_000}});
    let body = json!({"name": "written by one, read by another", "settings": settings});
    let created = by_writer.post("/v1/sessions", &body).await.expect(201);
    let room = Room {
        id: text(&created["session"]["id"]),
        token: text(&created["token"]),
        link: text(&created["join_link"]),
        http: deployment.http(),
        backend: by_writer.clone(),
    };
    let ada = room.join("Ada").await;
    let ben = room.join("Ben").await;
    ada.hears(&ben, &[Kind::Audio]).await;
    ben.hears(&ada, &[Kind::Audio]).await;
    ada.set_muted(Kind::Video, true).await.expect(200);
    let (rating, http) = (format!("{}/rating", ben.path()), ben.http().clone());
    ben.leave().await.expect(204);
    http.post(&rating, &json!({"stars": 4, "comment": "clear"})).await.expect(204);
    eventually("the timeline tells that Ben left", || async {
        let page = by_writer.get(&format!("/v1/sessions/{}/timeline", room.id)).await.expect(200);
        let mut entries = page["entries"].as_array().into_iter().flatten();
        if entries.any(|entry| entry["what"] == "participant.left") { Ok(()) } else { Err(page.to_string()) }
    })
    .await;

    let (written, read) = eventually("nothing changes while both read", || async {
        let before = documents(&by_writer, &room).await;
        let read = documents(&by_reader, &room).await;
        if documents(&by_writer, &room).await == before {
            Ok((before, read))
        } else {
            Err("it did".to_owned())
        }
    })
    .await;
    let (_, session) = &written[0];
    assert_eq!((&session["settings"]["last_n"], &session["name"]), (&json!(5), &body["name"]), "{session}");
    for ((name, written), (_, read)) in written.iter().zip(&read) {
        same(written, read, name);
    }
    // By the reader's worker: it takes the room over, with its settings, and Ada goes on in it.
    tokio::task::block_in_place(|| deployment.start_worker_of(reader));
    deployment.workers.remove(0).kill();
    ada.event("session.interrupted", |_| true).await;
    let name = |page: &Value| text(&page["name"]);
    let cleo = room.join("Cleo").await;
    let again = by_reader.get(&format!("/v1/sessions/{}", room.id)).await.expect(200);
    assert_eq!((&again["settings"], name(&again)), (&session["settings"], name(session)));
    cleo.event("endpoint.state", |data| data["state"] == "connected").await;
    by_reader.delete(&format!("/v1/sessions/{}", room.id)).await.expect(204);
    let closed = by_writer.get(&format!("/v1/sessions/{}", room.id)).await.expect(200);
    assert_eq!(closed["state"], "closed");
    no_dead_letters(&deployment).await;
    still_there(&mut deployment);
}

/// What both know of is equal, and at least one of them knows all that the other does: a version may add members, or drop
/// some, and give none another meaning.
fn same(written: &Value, read: &Value, place: &str) {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            let only = |one: &serde_json::Map<String, Value>, other: &serde_json::Map<String, Value>| {
                one.keys().filter(|key| !other.contains_key(*key)).cloned().collect::<Vec<_>>()
            };
            let (lost, added) = (only(written, read), only(read, written));
            assert!(lost.is_empty() || added.is_empty(), "{place}: {lost:?} became {added:?}");
            for (key, value) in written {
                if let Some(other) = read.get(key) {
                    same(value, other, &format!("{place}.{key}"));
                }
            }
        }
        (Value::Array(written), Value::Array(read)) => {
            assert_eq!(written.len(), read.len(), "{place}");
            for (index, (written, read)) in written.iter().zip(read).enumerate() {
                same(written, read, &format!("{place}[{index}]"));
            }
        }
        _ => assert_eq!(written, read, "{place}"),
    }
}
