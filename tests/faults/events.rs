//! API instances killed and restarted under readers of all three transports that move between them: every event is read by
//! everyone, once (after dropping repeats by id), and in one order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use reqwest::Method;
use serde_json::json;
use support::deployment::text;
use support::media::Kind;
use support::{Chance, Deployment, JoinOptions, OwnServices, PollingClient, Room, Shape, eventually};

use crate::readers::{Reader, Transport, join_to_read};
use crate::room::still_there;
use crate::setting;

/// Readers of one session; a third of them by each transport.
const READERS: usize = 39;
/// Participants that mute and unmute all the time: commands of one are done one after the other, those of several at once.
const SPEAKERS: usize = 4;
/// Toggles of one session at most: a reader may fall behind by all of them and lose nothing (the length of a user queue).
const TOGGLES: usize = 1_000;
/// Between two deaths of API instances.
const LIFE_MS: (u64, u64) = (500, 4_000);
/// For how long an instance is gone.
const ABSENCE_MS: (u64, u64) = (100, 1_500);

/// Toggles one speaker's microphone so many times, each until it has a result.
async fn toggle(speaker: Arc<PollingClient>, count: usize, done: Arc<AtomicUsize>) {
    let path = format!("{}/tracks/{}", speaker.path(), speaker.own_track(Kind::Audio));
    for number in 0..count {
        let body = json!({"destination": speaker.destination(), "muted": number % 2 == 0});
        let reply = speaker.http().insist(Method::PATCH, &path, &body).await.expect("a result at last");
        reply.expect(200);
        done.fetch_add(1, Ordering::Relaxed);
    }
}

struct Gathering {
    room: Room,
    speakers: Vec<Arc<PollingClient>>,
    readers: Vec<Reader>,
}

async fn gather(deployment: &Deployment, chance: &mut Chance) -> Gathering {
    let room = deployment.room().await;
    let mut speakers = Vec::new();
    for _ in 0..SPEAKERS {
        let options =
            JoinOptions { publish: vec![Kind::Audio], patient: true, ..JoinOptions::publishing("speaker") };
        speakers.push(Arc::new(room.join_as(options).await));
    }
    let transports = [Transport::Poll, Transport::Sse, Transport::WebSocket];
    let mut readers = Vec::new();
    for number in 0..READERS {
        let whose = join_to_read(&room.http, &room.id, &room.token, "reader").await;
        readers.push(Reader::start(transports[number % 3], whose, deployment.urls(), chance.fork()));
    }
    Gathering { room, speakers, readers }
}

/// All toggles have had their result; holds what every reader got against that and against each other.
async fn check(gathering: &Gathering, toggles: usize) {
    let mut ids: Option<Vec<String>> = None;
    for reader in &gathering.readers {
        let toggled = || -> Vec<(String, String, String)> {
            let seen = reader.seen();
            seen.events.iter().filter(|(_, kind, _)| kind.contains("muted")).cloned().collect()
        };
        let got = eventually(&format!("every toggle reaches a reader by {:?}", reader.transport), || async {
            let got = toggled();
            if got.len() >= toggles { Ok(got) } else { Err(format!("{} of {toggles}", got.len())) }
        })
        .await;
        assert_eq!(got.len(), toggles, "doubled for a reader by {:?}", reader.transport);
        // Every speaker's toggles alternate: an exchanged or repeated effect would show.
        for speaker in &gathering.speakers {
            let of_speaker = got.iter().filter(|(_, _, id)| id == speaker.participant_id());
            let kinds: Vec<&str> = of_speaker.map(|(_, kind, _)| kind.as_str()).collect();
            let expected: Vec<&str> =
                (0..kinds.len()).map(|number| ["track.muted", "track.unmuted"][number % 2]).collect();
            assert_eq!(kinds, expected, "out of order for a reader by {:?}", reader.transport);
        }
        let order: Vec<String> = got.into_iter().map(|(id, ..)| id).collect();
        assert_eq!(ids.get_or_insert_with(|| order.clone()), &order, "one order for all");
        assert_eq!(reader.seen().wrong, Vec::<String>::new(), "{:?}", reader.transport);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_event_is_lost_doubled_or_reordered_while_api_instances_die() {
    let wanted = setting("SWITCHYARD_FAULTS_EVENTS", 25_000);
    let mut chance = Chance::from_environment("events");
    let mut deployment = Deployment::start(Shape::Cluster { apis: 2, workers: 2 }).await;
    let (mut read, mut deliveries, mut moves, mut kills) = (0, 0, 0, 0);
    let started = Instant::now();
    while read < wanted {
        let gathering = gather(&deployment, &mut chance).await;
        let done: Arc<AtomicUsize> = Arc::default();
        let each = ((wanted - read).div_ceil(READERS).min(TOGGLES) / SPEAKERS).max(2);
        let toggles: Vec<_> = gathering
            .speakers
            .iter()
            .map(|speaker| tokio::spawn(toggle(Arc::clone(speaker), each, Arc::clone(&done))))
            .collect();
        // One instance at a time dies; the other carries on.
        while done.load(Ordering::Relaxed) < each * SPEAKERS {
            tokio::time::sleep(chance.millis(LIFE_MS.0, LIFE_MS.1)).await;
            let index = chance.below(deployment.apis.len());
            deployment.kill_api(index);
            kills += 1;
            tokio::time::sleep(chance.millis(ABSENCE_MS.0, ABSENCE_MS.1)).await;
            tokio::task::block_in_place(|| deployment.start_api_again(index));
        }
        for task in toggles {
            task.await.expect("every toggle has its result");
        }
        check(&gathering, each * SPEAKERS).await;
        for reader in &gathering.readers {
            let seen = reader.seen();
            read += seen.events.len();
            deliveries += seen.deliveries;
            moves += seen.moves;
        }
        for speaker in &gathering.speakers {
            assert_eq!(speaker.errors(), Vec::<String>::new());
        }
        let close = format!("/v1/sessions/{}", gathering.room.id);
        gathering
            .room
            .backend
            .insist(Method::DELETE, &close, &serde_json::Value::Null)
            .await
            .expect("closed");
    }
    println!(
        "{read} events read in {:.1?} ({deliveries} deliveries) over {kills} deaths of API instances and {moves} moves of readers: \
         0 lost, 0 doubled, 0 out of order",
        started.elapsed()
    );
    still_there(&mut deployment);
}

/// What a client without our SDK does: the same reader, told to move to the living instance.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_goes_on_at_the_other_instance_within_moments() {
    let mut deployment = Deployment::start(Shape::Cluster { apis: 2, workers: 1 }).await;
    let room = deployment.room().await;
    let options =
        JoinOptions { publish: vec![Kind::Audio], patient: true, ..JoinOptions::publishing("speaker") };
    let _speaker = room.join_as(options).await;
    let whose = join_to_read(&room.http, &room.id, &room.token, "reader").await;
    let path = format!("{}/events?endpoint={}", whose.path, whose.endpoint_id);
    let [dying, other] =
        [0, 1].map(|index| support::Http::new(&deployment.urls()[index..=index]).with_token(&whose.token));
    // The dying instance holds the queue, with an event that was given out and not confirmed.
    let page = dying.get(&format!("{path}&wait=10")).await.expect(200);
    let first = text(&page["events"][0]["id"]);
    deployment.kill_api(0);
    let killed = Instant::now();
    let page = other.get(&format!("{path}&wait=10")).await.expect(200);
    let took = killed.elapsed();
    assert_eq!(page["events"][0]["id"], first.as_str(), "what was not confirmed comes again, under its id");
    println!("a poll at a living instance has a dead one's events {took:.0?} after the death");
    assert!(took < support::patience(5.0), "{took:?}");
}

/// Consecutive polls reach different instances. After an outage of RabbitMQ the one that had the events before must not wait
/// for them while the other has them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_go_on_at_any_instance_after_rabbitmq_was_killed() {
    let mut services = OwnServices::start().await;
    let deployment = Deployment::start_at(services.location(), 2, 1, &[]);
    let room = deployment.room().await;
    let whose = join_to_read(&room.http, &room.id, &room.token, "reader").await;
    let [one, other] =
        [0, 1].map(|index| support::Http::new(&deployment.urls()[index..=index]).with_token(&whose.token));
    let mut cursor = String::new();
    let mut read = async |http: &support::Http, wait: u32| {
        let path = format!("{}/events?endpoint={}&wait={wait}{cursor}", whose.path, whose.endpoint_id);
        let page = eventually("a poll is answered", || async {
            let page = http.get(&path).await;
            if page.status == 200 { Ok(page.body) } else { Err(format!("{page:?}")) }
        })
        .await;
        if let Some(last) = page["cursor"].as_str() {
            cursor = format!("&cursor={last}");
        }
        page["events"].as_array().map_or(0, Vec::len)
    };
    // One has the queue, and an inbox that will want it back.
    assert_eq!(read(&one, 10).await, 1, "its own join");
    services.broker.kill().await;
    services.broker.start().await;
    // The other takes it, as soon as it is connected again.
    read(&other, 0).await;
    eventually("both instances are ready", || async {
        for http in [&one, &other] {
            http.get("/readyz").await.status.eq(&200).then_some(()).ok_or("not yet".to_owned())?;
        }
        Ok(())
    })
    .await;
    join_to_read(&room.http, &room.id, &room.token, "somebody").await;
    let asked = Instant::now();
    let mut got = 0;
    while got == 0 {
        got = read(&one, 20).await;
    }
    let took = asked.elapsed();
    println!(
        "after an outage of RabbitMQ a poll at the instance that had the events before takes {took:.0?}"
    );
    assert!(took < support::patience(3.0), "{took:?}");
}
