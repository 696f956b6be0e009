//! What is owed to webhooks, and leases.

use std::sync::Arc;

use super::{Store, timeline_entry};
use crate::model::{EventId, InstanceId, Owed, SessionId, TimelineEntry};
use crate::time::UnixMillis;

fn owed_to(receivers: &[&str]) -> TimelineEntry {
    let to = receivers.iter().map(ToString::to_string).collect();
    TimelineEntry { webhooks: Owed { to, ..Owed::default() }, ..timeline_entry("participant.joined") }
}

async fn numbers(store: &Arc<dyn Store>, to: &str, session: SessionId) -> Vec<i64> {
    store.owed(to, session, 100).await.unwrap().iter().map(|entry| entry.number).collect()
}

/// Two sessions, the first of them owing to both receivers.
async fn two_sessions(store: &Arc<dyn Store>) -> [(SessionId, Vec<EventId>); 2] {
    let mut made = Vec::new();
    for receivers in [&["a", "b"][..], &["a"][..]] {
        let session = SessionId::new();
        let entries = [owed_to(receivers), owed_to(receivers), owed_to(receivers)];
        store.append_timeline(session, &entries).await.unwrap();
        made.push((session, entries.iter().map(|entry| entry.id).collect()));
    }
    store.append_timeline(SessionId::new(), &[timeline_entry("session.created")]).await.unwrap();
    made.try_into().unwrap()
}

pub async fn what_is_owed_is_found_by_receiver_and_session(store: Arc<dyn Store>) {
    let [(first, ids), (second, _)] = two_sessions(&store).await;
    assert_eq!(store.sessions_owed("a", None, 10).await.unwrap(), [first, second]);
    assert_eq!(store.sessions_owed("a", None, 1).await.unwrap(), [first]);
    assert_eq!(store.sessions_owed("a", Some(first), 10).await.unwrap(), [second]);
    assert_eq!(store.sessions_owed("b", None, 10).await.unwrap(), [first]);
    assert_eq!(store.sessions_owed("c", None, 10).await.unwrap(), []);
    let entries = store.owed("b", first, 2).await.unwrap();
    assert_eq!(
        entries.iter().map(|entry| (entry.number, entry.id)).collect::<Vec<_>>(),
        [(1, ids[0]), (2, ids[1])]
    );
    assert_eq!(entries[0].session_id, first);
    assert_eq!(store.timeline(first, 0, 10).await.unwrap().len(), 3, "they are the timeline's own entries");
}

pub async fn an_entry_is_settled_once_for_each_receiver(store: Arc<dyn Store>) {
    let [(first, ids), _] = two_sessions(&store).await;
    assert!(store.settle_owed("a", ids[0], false).await.unwrap());
    assert!(!store.settle_owed("a", ids[0], false).await.unwrap(), "it is owed no more");
    assert!(!store.settle_owed("c", ids[1], false).await.unwrap());
    assert_eq!(numbers(&store, "a", first).await, [2, 3]);
    assert_eq!(numbers(&store, "b", first).await, [1, 2, 3], "another receiver is another debt");
    for id in ids {
        store.settle_owed("a", id, false).await.unwrap();
        store.settle_owed("b", id, false).await.unwrap();
    }
    assert!(!store.sessions_owed("a", None, 10).await.unwrap().contains(&first));
    assert_eq!(store.sessions_owed("b", None, 10).await.unwrap(), []);
    assert_eq!(store.timeline(first, 0, 10).await.unwrap().len(), 3);
}

pub async fn what_was_given_up_is_listed_and_can_be_owed_again(store: Arc<dyn Store>) {
    let [(first, ids), (_, others)] = two_sessions(&store).await;
    let receivers = ["a".to_owned(), "b".to_owned()];
    assert!(store.settle_owed("a", ids[1], true).await.unwrap());
    assert!(store.settle_owed("a", others[0], true).await.unwrap());
    assert!(!store.settle_owed("a", ids[1], true).await.unwrap());
    let listed = |after, limit| {
        let (store, receivers) = (store.clone(), receivers.clone());
        async move {
            let found = store.given_up(&receivers, after, limit).await.unwrap();
            found.iter().map(|entry| entry.id).collect::<Vec<_>>()
        }
    };
    assert_eq!(listed(None, 10).await, [ids[1], others[0]]);
    assert_eq!(listed(None, 1).await, [ids[1]]);
    assert_eq!(listed(Some(ids[1]), 10).await, [others[0]]);
    assert_eq!(store.given_up(&receivers[1..], None, 10).await.unwrap(), []);
    assert_eq!(numbers(&store, "a", first).await, [1, 3]);

    assert!(
        !store.owe_again("b", ids[1], UnixMillis(7)).await.unwrap(),
        "it never was given up for that one"
    );
    assert!(store.owe_again("a", ids[1], UnixMillis(7)).await.unwrap());
    assert!(!store.owe_again("a", ids[1], UnixMillis(8)).await.unwrap());
    assert_eq!(listed(None, 10).await, [others[0]]);
    let again = store.owed("a", first, 10).await.unwrap();
    assert_eq!(again.iter().map(|entry| entry.number).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(again[1].webhooks.since, Some(UnixMillis(7)));
}

pub async fn a_lease_has_one_holder_until_it_runs_out(store: Arc<dyn Store>) {
    let (one, two) = (InstanceId::new(), InstanceId::new());
    let take = |holder, now, until| {
        let store = store.clone();
        async move { store.take_lease("webhooks", holder, UnixMillis(now), UnixMillis(until)).await.unwrap() }
    };
    assert!(take(one, 100, 200).await);
    assert!(!take(two, 150, 250).await);
    assert!(!take(two, 200, 300).await, "until is the last moment of it");
    assert!(take(one, 190, 290).await, "it can be prolonged");
    assert!(!take(two, 250, 350).await);
    assert!(take(two, 291, 391).await);
    assert!(!take(one, 300, 400).await);
    let other = store.take_lease("other", one, UnixMillis(300), UnixMillis(400)).await.unwrap();
    assert!(other, "another name is another lease");
}

pub async fn one_of_eight_takes_a_free_lease(store: Arc<dyn Store>) {
    let tries = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            store.take_lease("contended", InstanceId::new(), UnixMillis(1), UnixMillis(100)).await.unwrap()
        })
    });
    let mut won = 0;
    for attempt in tries.collect::<Vec<_>>() {
        won += i32::from(attempt.await.unwrap());
    }
    assert_eq!(won, 1);
}
