//! A room whose members use plain HTTP and real media, and bear what happens to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use support::deployment::text;
use support::media::Kind;
use support::{Deployment, Flow, JoinOptions, PollingClient, Room, eventually};

/// A participant over all its connections.
pub struct Member {
    pub name: &'static str,
    pub flow: Arc<Flow>,
    pub now: PollingClient,
    /// Of the last interruption that it has followed.
    pub epoch: i64,
}

fn options(name: &str, flow: &Arc<Flow>) -> JoinOptions {
    JoinOptions { flow: Arc::clone(flow), patient: true, ..JoinOptions::publishing(name) }
}

impl Member {
    pub async fn join(room: &Room, name: &'static str) -> Self {
        let flow: Arc<Flow> = Arc::default();
        let now = room.join_as(options(name, &flow)).await;
        Self { name, flow, now, epoch: 0 }
    }

    pub fn id(&self) -> &str {
        self.now.participant_id()
    }

    /// Waits for the interruption, and joins again under the same id. The old connection goes.
    pub async fn rejoin(&mut self, room: &Room) {
        let known = self.epoch;
        let told = self.now.event("session.interrupted", |data| data["epoch"].as_i64() > Some(known)).await;
        self.epoch = told["epoch"].as_i64().expect("an epoch");
        let again =
            JoinOptions { participant_id: Some(self.id().to_owned()), ..options(self.name, &self.flow) };
        let joined = PollingClient::join(&room.http, &room.id, &self.now.token, again).await;
        let new = joined.unwrap_or_else(|error| panic!("{} cannot join again: {error}", self.name));
        std::mem::replace(&mut self.now, new).vanish().await;
    }

    /// Nothing went wrong that a patient client has to notice.
    pub fn is_content(&self) {
        assert_eq!(self.now.errors(), Vec::<String>::new(), "{}", self.name);
    }
}

/// Media flows from each to each of the others.
pub async fn all_hear_each_other(members: &[Member]) {
    for one in members {
        for other in members.iter().filter(|other| other.id() != one.id()) {
            one.now.hears(&other.now, &[Kind::Audio, Kind::Video]).await;
        }
    }
}

/// The longest silence in anybody's audio since the last reset.
pub fn longest_silence(members: &[Member]) -> Duration {
    let heard = members.iter().flat_map(|one| {
        let others = members.iter().filter(|other| other.id() != one.id());
        others.map(|other| one.flow.longest_silence(other.id(), Kind::Audio).expect("was heard"))
    });
    heard.max().expect("at least two members")
}

/// The session's members as the API tells them are exactly these: no ghost, and nobody missing.
pub async fn has_exactly(room: &Room, members: &[Member]) {
    let mut expected: Vec<&str> = members.iter().map(Member::id).collect();
    expected.sort_unstable();
    eventually("the session has exactly its members", || async {
        let session = room.session().await;
        let mut present: Vec<String> = session["participants"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|entry| text(&entry["id"]))
            .collect();
        present.sort_unstable();
        if session["state"] == "open" && present == expected { Ok(()) } else { Err(session.to_string()) }
    })
    .await;
}

/// Every worker reads the queue of each of these sessions.
pub async fn has_listeners(deployment: &Deployment, sessions: &[impl AsRef<str>]) {
    let queues: Vec<String> = sessions.iter().map(|id| format!("session.{}", id.as_ref())).collect();
    let broker = deployment.broker();
    eventually("every worker listens to every open session", || async {
        let views = broker.look_at(queues.iter().map(String::as_str)).await?;
        let workers = u32::try_from(deployment.workers.len()).expect("a few workers");
        let lacking: Vec<_> = queues
            .iter()
            .zip(&views)
            .filter(|(_, view)| view.is_none_or(|view| view.readers != workers))
            .collect();
        if lacking.is_empty() { Ok(()) } else { Err(format!("{lacking:?}")) }
    })
    .await;
}

/// No process has died by itself, and none has panicked.
pub fn still_there(deployment: &mut Deployment) {
    for process in deployment.apis.iter_mut().chain(&mut deployment.workers) {
        assert!(process.running(), "a process ended:\n{}", process.log());
        assert!(!process.log().contains("panicked at"), "a panic:\n{}", process.log());
    }
}

/// Mutes and unmutes somebody's video again and again, each time until that has a result.
pub struct Toggles {
    task: tokio::task::JoinHandle<usize>,
    stop: Arc<AtomicBool>,
    track: String,
}

impl Toggles {
    /// Of the member's camera, with a pause between two.
    pub fn start(member: &Member, pause: Duration) -> Self {
        let track = member.now.own_track(Kind::Video);
        let path = format!("{}/tracks/{track}", member.now.path());
        let (http, destination) = (member.now.http().clone(), member.now.destination().to_owned());
        let stop: Arc<AtomicBool> = Arc::default();
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut acknowledged = 0;
            // Ends unmuted.
            while !stopped.load(Ordering::Relaxed) || acknowledged % 2 == 1 {
                let muted = acknowledged % 2 == 0;
                let body = json!({"destination": destination, "muted": muted});
                let reply = http.insist(Method::PATCH, &path, &body).await.expect("a result at last");
                assert_eq!(reply.expect(200)["muted"], muted);
                acknowledged += 1;
                tokio::time::sleep(pause).await;
            }
            acknowledged
        });
        Self { task, stop, track }
    }

    /// Ends it, and holds what each of these was told against what was acknowledged: each toggle once, and in order.
    pub async fn were_told_once_to<'a>(self, members: impl IntoIterator<Item = &'a Member>) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let acknowledged = self.task.await.expect("every toggle had a result");
        for member in members {
            let told = || -> Vec<bool> {
                let events = member.now.events();
                let of_track = events.iter().filter(|event| event["data"]["track_id"] == self.track.as_str());
                let toggle = |event: &Value| match event["type"].as_str() {
                    Some("track.muted") => Some(true),
                    Some("track.unmuted") => Some(false),
                    _ => None,
                };
                of_track.filter_map(toggle).collect()
            };
            eventually("every toggle is told", || async {
                let count = told().len();
                if count >= acknowledged { Ok(()) } else { Err(format!("{count} of {acknowledged}")) }
            })
            .await;
            let expected: Vec<bool> = (0..acknowledged).map(|number| number % 2 == 0).collect();
            assert_eq!(told(), expected, "{} was told each of {acknowledged} once, in order", member.name);
        }
        acknowledged
    }
}
