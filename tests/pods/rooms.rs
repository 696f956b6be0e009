//! What lives on the workers: rooms whose members send media and follow every move by themselves, as the SDK does; and
//! sessions of which there are many, with somebody in them who has no media.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::model::{Session, SessionId, SessionState};
use common::store::Store;
use serde_json::json;
use support::deployment::text;
use support::mover::{Mover, all_hear_each_other, follow_all, longest_silence};
use support::{JoinOptions, Room, eventually};
use tokio::task::JoinHandle;

use crate::cluster::Cluster;

/// Creates a session.
pub async fn create(cluster: &Cluster, name: &str) -> Room {
    let created = cluster.backend().post("/v1/sessions", &json!({"name": name})).await.expect(201);
    Room {
        id: text(&created["session"]["id"]),
        token: text(&created["token"]),
        link: text(&created["join_link"]),
        http: cluster.http(),
        backend: cluster.backend(),
    }
}

/// A room with live media. Its members move when they are asked to, until it is stopped.
pub struct LiveRoom {
    pub id: String,
    keeper: JoinHandle<(Room, Vec<Mover>, usize)>,
    stop: Arc<AtomicBool>,
}

/// A room whose members have stopped following, and what they have been through.
pub struct Calm {
    pub room: Room,
    pub members: Vec<Mover>,
    /// How often the room went to another worker.
    pub moves: usize,
    /// In anybody's audio, since the room began.
    pub longest_silence: Duration,
}

impl LiveRoom {
    /// Two people with audio and video, who hear each other.
    pub async fn open(cluster: &Cluster, name: &str) -> Self {
        let room = create(cluster, name).await;
        let mut members = Vec::new();
        for person in ["Ada", "Ben"] {
            // Patient: an API instance that is replaced is no reason to give up.
            let options =
                JoinOptions { address: cluster.clients(), patient: true, ..JoinOptions::publishing(person) };
            members.push(Mover::join_as(&room, options).await);
        }
        all_hear_each_other(&members).await;
        members.iter().for_each(|member| member.flow.reset());
        let (id, stop) = (room.id.clone(), Arc::<AtomicBool>::default());
        let keeper = tokio::spawn(keep(room, members, Arc::clone(&stop)));
        Self { id, keeper, stop }
    }

    /// Ends the following.
    ///
    /// # Panics
    /// When a member could not follow.
    pub async fn stop(self) -> Calm {
        self.stop.store(true, Ordering::Relaxed);
        let (room, members, moves) = self.keeper.await.expect("everybody could follow");
        all_hear_each_other(&members).await;
        let longest_silence = longest_silence(&members);
        Calm { room, members, moves, longest_silence }
    }

    /// Whether a member could not follow.
    pub fn has_failed(&self) -> bool {
        self.keeper.is_finished()
    }
}

async fn keep(room: Room, mut members: Vec<Mover>, stop: Arc<AtomicBool>) -> (Room, Vec<Mover>, usize) {
    let mut moves = 0;
    while !stop.load(Ordering::Relaxed) {
        if members.iter().any(Mover::is_asked) {
            follow_all(&room, &mut members).await;
            moves += 1;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (room, members, moves)
}

impl Calm {
    /// Everyone of it is there once, with the connection that they have now, on this worker, and nobody else; nothing went
    /// wrong, and nobody was interrupted.
    pub async fn is_whole(&self, store: &dyn Store, worker: &str) {
        for member in &self.members {
            assert_eq!(member.now.errors(), Vec::<String>::new());
            assert_eq!(member.interruptions(), 0, "nobody was interrupted");
        }
        let now =
            |member: &Mover| (member.now.participant_id().to_owned(), member.now.endpoint_id().to_owned());
        let expected: BTreeSet<(String, String)> = self.members.iter().map(now).collect();
        eventually("the session has exactly its members", || async {
            let session = stored(store, &self.room.id).await;
            let endpoints = session.participants.iter().filter_map(|participant| {
                let endpoint = participant.endpoint.as_ref()?;
                let here = endpoint.worker_id.to_string() == worker;
                here.then(|| (participant.id.to_string(), endpoint.id.to_string()))
            });
            let whole = endpoints.collect::<BTreeSet<_>>() == expected
                && session.participants.len() == expected.len()
                && session.pipelines.len() == 1
                && session.state == SessionState::Open;
            if whole { Ok(()) } else { Err(format!("{session:?}")) }
        })
        .await;
    }
}

/// A session as it is stored.
///
/// # Panics
/// When it is not there.
pub async fn stored(store: &dyn Store, id: &str) -> Session {
    let id: SessionId = id.parse().expect("a session's id");
    store.session(id).await.expect("the store answers").expect("no session is lost")
}

/// A session with somebody in it who sends and receives nothing: it is placed on a worker like any other.
pub struct QuietSession {
    pub room: Room,
    participant: String,
    token: String,
}

impl QuietSession {
    pub async fn open(cluster: &Cluster, number: usize) -> Self {
        let room = create(cluster, &format!("quiet {number}")).await;
        let (participant, token) = join(&room).await;
        Self { room, participant, token }
    }

    /// Its somebody leaves. The session stays.
    pub async fn empty(&self) {
        let http = self.room.http.with_token(&self.token);
        http.delete(&self.room.participant_path(&self.participant)).await.expect(204);
    }

    /// Somebody comes again.
    pub async fn join_again(&mut self) {
        (self.participant, self.token) = join(&self.room).await;
    }
}

async fn join(room: &Room) -> (String, String) {
    let path = format!("/v1/sessions/{}/participants", room.id);
    let body = json!({"name": "somebody", "server_offers": true});
    let joined = room.http.with_token(&room.token).post(&path, &body).await.expect(201);
    (text(&joined["participant"]["id"]), text(&joined["token"]))
}
