//! What is stored is read back: sessions, workers, timelines.

use std::sync::Arc;
use std::time::Duration;

use super::{endpoint_of, participant, pipeline, placed, read, session, timeline_entry, worker};
use crate::model::{
    Cause, EndpointState, ParticipantId, RunId, SessionId, SessionState, TimelineEntry, Worker, WorkerId,
    WorkerLoad, WorkerState,
};
use crate::store::{Inserted, Outlined, SessionFilter, SessionOutline, Store};
use crate::time::UnixMillis;

pub async fn a_session_is_read_back_as_it_was_inserted(store: Arc<dyn Store>) {
    let pipeline = pipeline();
    let mut full = session();
    full.name = None;
    full.closed_at = Some(UnixMillis(i64::MAX));
    full.epoch = 1 << 40;
    full.previous_worker_id = Some(WorkerId::new());
    full.participants = vec![participant("Ünï·$code.\u{1F600}", &pipeline), participant("", &pipeline)];
    full.participants[1].endpoint = None;
    full.participants[1].tracks.clear();
    full.pipelines = vec![pipeline];
    assert_eq!(store.insert_session(&full).await.unwrap(), Inserted::New);
    assert_eq!(read(&store, full.id).await, full);
}

pub async fn an_id_is_inserted_once(store: Arc<dyn Store>) {
    let first = session();
    let mut second = session();
    second.id = first.id;
    assert_eq!(store.insert_session(&first).await.unwrap(), Inserted::New);
    let existing = Inserted::Existing(Box::new(first.clone()));
    assert_eq!(store.insert_session(&second).await.unwrap(), existing, "the other gets the winner's");
    assert_eq!(
        store.insert_session(&first).await.unwrap(),
        existing,
        "a repeat gets its own command id back"
    );
    assert_eq!(read(&store, first.id).await, first);
}

pub async fn what_is_not_there_is_none(store: Arc<dyn Store>) {
    assert_eq!(store.session(SessionId::new()).await.unwrap(), None);
    assert_eq!(store.worker(WorkerId::new()).await.unwrap(), None);
    assert_eq!(store.sessions(&SessionFilter::default()).await.unwrap(), vec![]);
    assert_eq!(store.workers().await.unwrap(), vec![]);
    assert_eq!(store.timeline(SessionId::new(), 0, 100).await.unwrap(), vec![]);
    assert_eq!(store.delete_closed_sessions(UnixMillis(i64::MAX)).await.unwrap(), 0);
}

pub async fn sessions_are_listed_by_the_workers_of_their_pipelines(store: Arc<dyn Store>) {
    let (first, old) = placed(&store, &[]).await;
    let (second, _) = placed(&store, &["a"]).await;
    store.insert_session(&session()).await.unwrap();
    let to = pipeline();
    store.move_pipeline(first.id, 1, old.id, &to).await.unwrap();
    let on = async |worker| -> Vec<SessionId> {
        let filter = SessionFilter { worker_id: Some(worker), open_only: true, ..SessionFilter::default() };
        store.sessions(&filter).await.unwrap().iter().map(|session| session.id).collect()
    };
    assert_eq!(on(old.worker_id).await, [first.id], "the one that drains counts too");
    assert_eq!(on(to.worker_id).await, [first.id]);
    assert_eq!(on(second.pipelines[0].worker_id).await, [second.id]);
    assert_eq!(on(WorkerId::new()).await, []);
}

pub async fn sessions_are_found_by_a_text(store: Arc<dyn Store>) {
    let mut named = session();
    named.name = Some("Weekly (all hands) 50% .*".into());
    let mut joined = session();
    joined.name = None;
    joined.participants = vec![participant("Ada Lovelace", &pipeline())];
    let other = session();
    for each in [&named, &joined, &other] {
        store.insert_session(each).await.unwrap();
    }
    let found = async |text: &str| -> Vec<SessionId> {
        let filter = SessionFilter { search: Some(text.into()), ..SessionFilter::default() };
        store.sessions(&filter).await.unwrap().iter().map(|session| session.id).collect()
    };
    assert_eq!(found("weekly (ALL").await, [named.id]);
    assert_eq!(found("love").await, [joined.id]);
    assert_eq!(found(&joined.participants[0].id.to_string()).await, [joined.id]);
    assert_eq!(found(&other.id.to_string().to_uppercase()[8..]).await, [other.id]);
    // What means something to whoever looks is only text.
    assert_eq!(found(".*").await, [named.id]);
    for nothing in ["^", "a|b", "$", "\\", "[a-z]", "l.velace", "{", "\\E"] {
        assert_eq!(found(nothing).await, [], "{nothing:?}");
    }
    let filter = SessionFilter {
        search: Some("ada".into()),
        open_only: true,
        after: Some(joined.id),
        ..SessionFilter::default()
    };
    assert_eq!(store.sessions(&filter).await.unwrap(), []);
}

pub async fn sessions_are_listed_in_pages_and_by_filter(store: Arc<dyn Store>) {
    let mut ids = Vec::new();
    for index in 0..7 {
        let mut each = session();
        each.key_id = if index % 2 == 0 { "even" } else { "odd" }.into();
        store.insert_session(&each).await.unwrap();
        ids.push(each.id);
    }
    ids.sort();
    store.close_session(ids[2], UnixMillis(5)).await.unwrap();

    let list = async |filter: SessionFilter| -> Vec<SessionId> {
        store.sessions(&filter).await.unwrap().iter().map(|session| session.id).collect()
    };
    let all = SessionFilter::default();
    assert_eq!(list(all.clone()).await, ids);
    assert_eq!(list(SessionFilter { limit: 3, ..all.clone() }).await, ids[..3]);
    assert_eq!(list(SessionFilter { limit: 3, after: Some(ids[2]), ..all.clone() }).await, ids[3..6]);
    assert_eq!(list(SessionFilter { after: Some(ids[6]), ..all.clone() }).await, []);

    let open: Vec<_> = ids.iter().copied().filter(|id| *id != ids[2]).collect();
    assert_eq!(list(SessionFilter { open_only: true, ..all.clone() }).await, open);
    let odd = SessionFilter { key_id: Some("odd".into()), ..all.clone() };
    let of_odd = store.sessions(&odd).await.unwrap();
    assert_eq!(of_odd.len(), 3);
    assert!(of_odd.iter().all(|session| session.key_id == "odd"));
    let both = SessionFilter {
        key_id: Some("even".into()),
        open_only: true,
        after: Some(ids[0]),
        limit: 10,
        ..all.clone()
    };
    for session in store.sessions(&both).await.unwrap() {
        assert!(session.key_id == "even" && session.state == SessionState::Open && session.id > ids[0]);
    }
    // A key id is anyone's text: it is compared, never interpreted.
    for hostile in ["$ne", "{\"$gt\":\"\"}", "", ".*"] {
        assert_eq!(list(SessionFilter { key_id: Some(hostile.into()), ..all.clone() }).await, []);
    }
}

pub async fn only_sessions_closed_long_ago_are_deleted(store: Arc<dyn Store>) {
    let (long_ago, recently, open) = (session(), session(), session());
    for each in [&long_ago, &recently, &open] {
        store.insert_session(each).await.unwrap();
    }
    store.close_session(long_ago.id, UnixMillis(99)).await.unwrap();
    store.close_session(recently.id, UnixMillis(100)).await.unwrap();
    assert_eq!(store.closed_sessions(UnixMillis(100), None, 10).await.unwrap(), [long_ago.id]);
    assert_eq!(store.closed_sessions(UnixMillis(100), Some(long_ago.id), 10).await.unwrap(), []);
    let both = store.closed_sessions(UnixMillis(101), None, 10).await.unwrap();
    assert_eq!(both, [long_ago.id.min(recently.id), long_ago.id.max(recently.id)]);
    assert_eq!(store.closed_sessions(UnixMillis(101), None, 1).await.unwrap(), both[..1]);
    assert_eq!(store.delete_closed_sessions(UnixMillis(100)).await.unwrap(), 1);
    assert_eq!(store.session(long_ago.id).await.unwrap(), None);
    assert_eq!(read(&store, recently.id).await.state, SessionState::Closed);
    assert_eq!(read(&store, open.id).await, open);
    assert_eq!(store.delete_closed_sessions(UnixMillis(100)).await.unwrap(), 0);
    assert_eq!(store.insert_session(&long_ago).await.unwrap(), Inserted::New, "its id is free again");
}

pub async fn a_worker_row_lives_from_put_to_remove(store: Arc<dyn Store>) {
    let load = WorkerLoad {
        memory_bytes: 1 << 33,
        cpu: 0.25,
        packets_per_second: 1e6,
        bits_per_second: 8e9,
        endpoints: 3,
        pipelines: 2,
        full: true,
    };
    let mut workers: Vec<Worker> = (0..3).map(|_| worker()).collect();
    workers.sort_by_key(|worker| worker.id);
    for worker in workers.iter().rev() {
        store.put_worker(worker).await.unwrap();
    }
    assert_eq!(store.workers().await.unwrap(), workers, "in order of their ids");

    for broker_away_since in [Some(UnixMillis(15)), None] {
        workers[0] = Worker {
            lease_until: UnixMillis(20),
            state: WorkerState::Draining,
            load,
            broker_away_since,
            ..workers[0].clone()
        };
        assert!(store.renew_worker(&workers[0]).await.unwrap());
        assert_eq!(store.worker(workers[0].id).await.unwrap().as_ref(), Some(&workers[0]));
        assert!(store.renew_worker(&workers[0]).await.unwrap(), "one that changes nothing found the row too");
    }

    let gone = workers[0].clone();
    store.remove_worker(gone.id, gone.run).await.unwrap();
    store.remove_worker(gone.id, gone.run).await.unwrap();
    assert!(!store.renew_worker(&gone).await.unwrap(), "declared dead");
    assert_eq!(store.worker(workers[0].id).await.unwrap(), None, "a late renewal does not bring it back");
    assert_eq!(store.workers().await.unwrap(), workers[1..]);

    workers[1].address = "[::1]:6000".into();
    store.put_worker(&workers[1]).await.unwrap();
    assert_eq!(store.workers().await.unwrap(), workers[1..], "put replaces");
}

pub async fn a_row_belongs_to_the_last_run_of_its_worker(store: Arc<dyn Store>) {
    let earlier = worker();
    let later = Worker { run: RunId::new(), ..earlier.clone() };
    store.put_worker(&earlier).await.unwrap();
    store.put_worker(&later).await.unwrap();
    assert!(!store.renew_worker(&earlier).await.unwrap());
    store.remove_worker(earlier.id, earlier.run).await.unwrap();
    assert!(!store.bury_worker(&earlier).await.unwrap());
    assert_eq!(store.worker(later.id).await.unwrap().as_ref(), Some(&later));
    let renewed = Worker { lease_until: UnixMillis(11), ..later.clone() };
    assert!(store.renew_worker(&renewed).await.unwrap());
    assert!(!store.bury_worker(&later).await.unwrap(), "it has renewed its lease since it was looked at");
    assert!(store.bury_worker(&renewed).await.unwrap());
    assert_eq!(store.worker(later.id).await.unwrap(), None);
}

pub async fn open_sessions_are_outlined_for_those_who_look_after_them(store: Arc<dyn Store>) {
    let (kept, on) = placed(&store, &["a", "b"]).await;
    let (left, left_on) = placed(&store, &["c"]).await;
    let (bare, bare_on) = placed(&store, &[]).await;
    let mut without_endpoint = participant("d", &bare_on);
    without_endpoint.endpoint = None;
    store.put_participant(bare.id, bare.epoch, &without_endpoint).await.unwrap();
    let endpoint = endpoint_of(&left.participants[0]);
    let closed = EndpointState::Closed;
    store.set_endpoint_state(left.id, left.participants[0].id, endpoint, closed).await.unwrap();
    let (empty, ended) = (session(), session());
    for each in [&empty, &ended] {
        store.insert_session(each).await.unwrap();
    }
    store.close_session(ended.id, UnixMillis(1)).await.unwrap();

    let outlined = async |which, after, limit| -> Vec<SessionId> {
        let outlines = store.outlines(which, after, limit).await.unwrap();
        for outline in &outlines {
            assert_eq!(*outline, SessionOutline::from(&read(&store, outline.id).await));
        }
        outlines.iter().map(|outline| outline.id).collect()
    };
    let sorted = |mut ids: Vec<SessionId>| {
        ids.sort();
        ids
    };
    assert_eq!(outlined(Outlined::On(on.worker_id), None, 10).await, [kept.id]);
    assert_eq!(outlined(Outlined::On(WorkerId::new()), None, 10).await, []);
    let all = [on.worker_id, left_on.worker_id, bare_on.worker_id];
    let unattended = sorted(vec![left.id, bare.id, empty.id]);
    assert_eq!(outlined(Outlined::Unattended { living: &all }, None, 10).await, unattended);
    let orphaned = sorted(vec![kept.id, left.id, bare.id, empty.id]);
    assert_eq!(outlined(Outlined::Unattended { living: &all[1..] }, None, 10).await, orphaned);
    assert_eq!(outlined(Outlined::Unattended { living: &[] }, None, 2).await, orphaned[..2]);
    assert_eq!(outlined(Outlined::Unattended { living: &[] }, Some(orphaned[1]), 2).await, orphaned[2..]);
    assert_eq!(outlined(Outlined::Unattended { living: &[] }, None, 0).await, []);

    assert_eq!(store.open_sessions(None, 10).await.unwrap(), orphaned);
    assert_eq!(store.open_sessions(Some(orphaned[0]), 2).await.unwrap(), orphaned[1..3]);
    assert_eq!(store.open_sessions(Some(orphaned[3]), 2).await.unwrap(), []);
    assert_eq!(store.open_sessions(None, 0).await.unwrap(), []);
}

pub async fn the_timeline_is_numbered_and_read_in_pages(store: Arc<dyn Store>) {
    let (busy, other) = (SessionId::new(), SessionId::new());
    let entries: Vec<TimelineEntry> = (0..7)
        .map(|index| TimelineEntry {
            session_id: busy,
            participant_id: (index % 2 == 0).then(ParticipantId::new),
            cause: Cause { worker_id: (index == 3).then(WorkerId::new), ..timeline_entry("").cause },
            ..timeline_entry("participant.joined")
        })
        .collect();
    store.append_timeline(busy, &entries[..1]).await.unwrap();
    store.append_timeline(busy, &entries[1..5]).await.unwrap();
    store.append_timeline(other, &[timeline_entry("session.created")]).await.unwrap();
    store.append_timeline(busy, &entries[5..]).await.unwrap();
    store.append_timeline(busy, &[]).await.unwrap();
    let expected: Vec<TimelineEntry> =
        entries.iter().zip(1..).map(|(entry, number)| TimelineEntry { number, ..entry.clone() }).collect();
    assert_eq!(store.timeline(busy, 0, 100).await.unwrap(), expected);
    assert_eq!(store.timeline(busy, 2, 3).await.unwrap(), expected[2..5]);
    assert_eq!(store.timeline(busy, 7, 3).await.unwrap(), []);
    assert_eq!(store.timeline(busy, -5, 1).await.unwrap(), expected[..1]);
    assert_eq!(store.timeline(busy, 0, 0).await.unwrap(), []);
    let of_other = store.timeline(other, 0, 100).await.unwrap();
    assert_eq!(
        of_other.iter().map(|entry| (entry.session_id, entry.number)).collect::<Vec<_>>(),
        [(other, 1)]
    );
}

pub async fn an_entry_is_appended_once(store: Arc<dyn Store>) {
    let session = SessionId::new();
    let entries = ["a", "b", "c", "d"].map(timeline_entry);
    store.append_timeline(session, &entries[..2]).await.unwrap();
    // As after a call whose outcome was not known: some of it had taken effect.
    for _ in 0..2 {
        store.append_timeline(session, &entries).await.unwrap();
    }
    let stored = store.timeline(session, 0, 100).await.unwrap();
    let stored: Vec<_> = stored.iter().map(|entry| (entry.number, entry.what.as_str())).collect();
    assert_eq!(stored, [(1, "a"), (2, "b"), (3, "c"), (4, "d")]);
}

pub async fn it_is_reachable(store: Arc<dyn Store>) {
    store.ping(Duration::from_secs(10)).await.unwrap();
    assert!(*store.connected().borrow());
    // Reading does not need a session that is placed, and a placed one reads the same everywhere.
    let (stored, _) = placed(&store, &["a"]).await;
    assert_eq!(read(&store, stored.id).await, stored);
}
