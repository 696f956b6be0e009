//! RabbitMQ killed and restarted, and stopped for a while; MongoDB likewise; both at once. Media flows throughout, readiness
//! goes and comes back, nothing that was acknowledged is lost or done twice, and all is as it should be afterwards.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use support::deployment::{KEY_ID, KEY_SECRET, text};
use support::eventually::eventually_within;
use support::http::try_send;
use support::{Deployment, Http, OwnServices, Room, patience};

use crate::room::{
    Member, Toggles, all_hear_each_other, has_exactly, has_listeners, longest_silence, still_there,
};
use crate::setting;

/// The longest silence in anybody's audio that counts as none, on a machine that starts servers meanwhile.
const SILENCE: f64 = 1.0;
/// How long somebody who lost its connection counts as there: short, so that it ends within an outage.
const GRACE: &str = "2";
/// Between two toggles of a camera, and between two looks at health and readiness (each with a new session).
const TOGGLE_PAUSE: Duration = Duration::from_millis(300);
const PROBE_PAUSE: Duration = Duration::from_millis(500);

fn outage() -> Duration {
    Duration::from_secs(setting("SWITCHYARD_FAULTS_OUTAGE_SECONDS", 20) as u64)
}

/// Which servers are away.
#[derive(Clone, Copy)]
struct Away {
    broker: bool,
    store: bool,
}

impl Away {
    async fn kill(self, services: &mut OwnServices) {
        if self.broker {
            services.broker.kill().await;
        }
        if self.store {
            services.store.kill().await;
        }
    }

    async fn stop(self, services: &mut OwnServices) {
        let OwnServices { broker, store, .. } = services;
        tokio::join!(
            async {
                if self.broker {
                    broker.stop().await
                }
            },
            async {
                if self.store {
                    store.stop().await
                }
            },
        );
    }

    async fn start(self, services: &mut OwnServices) {
        let OwnServices { broker, store, .. } = services;
        tokio::join!(
            async {
                if self.broker {
                    broker.start().await
                }
            },
            async {
                if self.store {
                    store.start().await
                }
            },
        );
    }
}

/// Looks at both API instances again and again, as an orchestrator and other clients would.
struct Probes {
    task: tokio::task::JoinHandle<()>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// Answers to `/readyz`.
    ready: BTreeMap<u16, usize>,
    /// What listing sessions was answered with.
    lists: BTreeMap<u16, usize>,
    /// What creating sessions was answered with.
    creations: BTreeMap<u16, usize>,
    /// Sessions whose creation was acknowledged.
    created: Vec<String>,
    wrong: Vec<String>,
}

impl Probes {
    fn start(deployment: &Deployment) -> Self {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let (http, backend, noted) = (deployment.http(), deployment.backend(), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            loop {
                Self::probe(&http, &backend, &noted).await;
                tokio::time::sleep(PROBE_PAUSE).await;
            }
        });
        Self { task, seen }
    }

    async fn probe(http: &Http, backend: &Http, noted: &Mutex<Seen>) {
        let get = |path| try_send(http.request(reqwest::Method::GET, path));
        let create = backend
            .request(reqwest::Method::POST, "/v1/sessions")
            .header("Prefer", "wait=1")
            .json(&json!({"name": "made in an outage"}));
        let list = try_send(backend.request(reqwest::Method::GET, "/v1/sessions?limit=1"));
        let (live, ready, list, created) =
            tokio::join!(get("/healthz"), get("/readyz"), list, try_send(create));
        let mut seen = noted.lock().expect("nothing panics while it notes");
        match live {
            Ok(reply) if reply.status == 200 => {}
            other => seen.wrong.push(format!("/healthz: {other:?}")),
        }
        match ready {
            Ok(reply) => *seen.ready.entry(reply.status).or_default() += 1,
            Err(error) => seen.wrong.push(format!("/readyz: {error:?}")),
        }
        match list {
            Ok(reply) if reply.status == 200 || reply.status == 503 && reply.retry_after.is_some() => {
                *seen.lists.entry(reply.status).or_default() += 1;
            }
            other => seen.wrong.push(format!("listing sessions: {other:?}")),
        }
        match created {
            Ok(reply) => {
                *seen.creations.entry(reply.status).or_default() += 1;
                match reply.status {
                    201 => seen.created.push(text(&reply.body["session"]["id"])),
                    202 => {}
                    503 if reply.retry_after.is_some() => {}
                    _ => seen.wrong.push(format!("creating a session: {reply:?}")),
                }
            }
            Err(error) => seen.wrong.push(format!("creating a session: {error:?}")),
        }
    }

    /// What was seen since the last time.
    fn take(&self) -> Seen {
        std::mem::take(&mut *self.seen.lock().expect("nothing panics while it notes"))
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Both instances say so, and a read of the store agrees: health is looked at every 2 s only.
async fn readiness(deployment: &Deployment, expected: u16) -> Duration {
    let started = Instant::now();
    // Longer than any pause between two tries to reconnect.
    eventually_within(patience(60.0), &format!("readiness {expected}"), || async {
        for url in deployment.urls() {
            let backend = Http::new(std::slice::from_ref(url)).with_key(KEY_ID, KEY_SECRET);
            let said = backend.get("/readyz").await.status;
            let read = backend.get("/v1/sessions?limit=1").await.status;
            if said != expected || expected == 200 && read != 200 {
                return Err(format!("{url} says {said}, and {read} to a read"));
            }
        }
        Ok(())
    })
    .await;
    started.elapsed()
}

/// Everything is as before, and new things work.
async fn is_whole(
    deployment: &mut Deployment,
    room: &Room,
    members: &[Member],
    sessions: &[String],
    muting: bool,
) {
    for member in members {
        assert!(member.now.events_of("session.interrupted").is_empty(), "{} was interrupted", member.name);
        assert_eq!(member.now.ended(), None, "{}'s events ended", member.name);
        member.is_content();
    }
    has_exactly(room, members).await;
    // Muted half of the time, the first one's camera says nothing.
    all_hear_each_other(&members[usize::from(muting)..]).await;
    let listed = listed(deployment).await;
    let lost: Vec<_> = sessions.iter().filter(|id| !listed.contains(id)).collect();
    assert!(lost.is_empty(), "created, acknowledged and lost: {lost:?}");
    let new = deployment.room().await;
    let all: Vec<&String> = listed.iter().chain([&new.id]).collect();
    has_listeners(deployment, &all).await;
    let guest = Member::join(&new, "guest").await;
    let other = Member::join(&new, "other guest").await;
    all_hear_each_other(&[guest, other]).await;
    let late = Member::join(room, "late").await;
    late.now.hears(&members[0].now, &[support::media::Kind::Audio]).await;
    members[0].now.hears(&late.now, &[support::media::Kind::Audio]).await;
    let id = late.id().to_owned();
    late.now.leave().await.expect(204);
    members[0].now.event("participant.left", |data| data["participant_id"] == id.as_str()).await;
    still_there(deployment);
}

/// All open sessions.
async fn listed(deployment: &Deployment) -> Vec<String> {
    let backend = deployment.backend();
    let (mut ids, mut after) = (Vec::new(), String::new());
    loop {
        let page = backend.get(&format!("/v1/sessions?limit=500{after}")).await.expect(200);
        ids.extend(page["sessions"].as_array().expect("a list").iter().map(|session| text(&session["id"])));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return ids,
        }
    }
}

async fn a_room_bears(what: &str, away: Away) {
    let mut services = OwnServices::start().await;
    let mut deployment = Deployment::start_at(services.location(), 2, 2, &["--grace", GRACE]);
    let room = deployment.room().await;
    let mut members = Vec::new();
    for name in ["Ada", "Ben", "Cleo", "Dan"] {
        members.push(Member::join(&room, name).await);
    }
    all_hear_each_other(&members).await;
    let mut sessions = vec![room.id.clone(), deployment.room().await.id];
    let toggles = Toggles::start(&members[0], TOGGLE_PAUSE);
    let probes = Probes::start(&deployment);
    members.iter().for_each(|member| member.flow.reset());

    // Killed, and started again at once.
    let killed = Instant::now();
    away.kill(&mut services).await;
    away.start(&mut services).await;
    let serves_again = killed.elapsed();
    let ready_after = readiness(&deployment, 200).await;
    // Its patient clients come through; the toggle that is under way has its result.
    tokio::time::sleep(2 * TOGGLE_PAUSE).await;
    let seen = probes.take();
    let silence = longest_silence(&members);
    println!(
        "{what} killed: serves again after {serves_again:.1?}, ready {ready_after:.1?} later, longest silence {silence:.0?}, \
         readiness {:?}, lists {:?}, creations {:?}",
        seen.ready, seen.lists, seen.creations
    );
    assert_eq!(seen.wrong, Vec::<String>::new());
    assert!(silence <= patience(SILENCE), "longest silence {silence:?}");
    sessions.extend(seen.created);
    is_whole(&mut deployment, &room, &members, &sessions, true).await;

    // Stopped for a while, in which somebody goes away without a word.
    members.iter().for_each(|member| member.flow.reset());
    probes.take();
    away.stop(&mut services).await;
    let stopped = Instant::now();
    let noticed = readiness(&deployment, 503).await;
    let dan = members.pop().expect("four members");
    let gone = dan.id().to_owned();
    dan.now.vanish().await;
    tokio::time::sleep(outage().saturating_sub(stopped.elapsed())).await;
    let silence = longest_silence(&members);
    let during = probes.take();
    assert!(during.ready.contains_key(&503), "{:?}", during.ready);
    if away.store {
        assert!(during.lists.contains_key(&503), "{:?}", during.lists);
    }
    if away.broker {
        assert!(during.creations.contains_key(&503), "{:?}", during.creations);
    }
    away.start(&mut services).await;
    let back = Instant::now();
    readiness(&deployment, 200).await;
    let ready_after = back.elapsed();
    has_exactly(&room, &members).await;
    let settled_after = back.elapsed();
    members[1].now.event("participant.left", |data| data["participant_id"] == gone.as_str()).await;
    println!(
        "{what} stopped for {:.0?}: unready after {noticed:.1?}, ready {ready_after:.1?} and who left gone {settled_after:.1?} \
         after it was back, longest silence {silence:.0?}, creations {:?}",
        back - stopped,
        during.creations
    );
    let seen = probes.take();
    drop(probes);
    assert_eq!([during.wrong, seen.wrong].concat(), Vec::<String>::new());
    assert!(silence <= patience(SILENCE), "longest silence {silence:?}");
    sessions.extend(during.created.into_iter().chain(seen.created));
    let told = toggles.were_told_once_to(&members[1..]).await;
    println!("{what}: {told} toggles, each told once and in order");
    is_whole(&mut deployment, &room, &members, &sessions, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_bears_the_loss_of_rabbitmq() {
    a_room_bears("RabbitMQ", Away { broker: true, store: false }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_bears_the_loss_of_mongodb() {
    a_room_bears("MongoDB", Away { broker: false, store: true }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_bears_the_loss_of_both() {
    a_room_bears("RabbitMQ and MongoDB", Away { broker: true, store: true }).await;
}
