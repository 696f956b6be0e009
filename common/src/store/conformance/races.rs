//! Many at once: compare-and-sets have one winner, changes of different parts all survive.

use std::sync::Arc;

use futures::future::join_all;

use super::{
    applied, endpoint_of, participant, pipeline, placed, read, session, timeline_entry, track, worker,
};
use crate::model::{EndpointState, ParticipantState, SessionId};
use crate::store::{Guarded, Inserted, RemoveIf, Store};

/// Runs all of them on their own tasks, so that they overlap as far as the store lets them.
async fn at_once<T: Send + 'static>(
    calls: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let tasks: Vec<_> = calls.into_iter().map(tokio::spawn).collect();
    join_all(tasks).await.into_iter().map(|joined| joined.expect("the call did not panic")).collect()
}

pub async fn one_of_sixteen_placements_wins(store: Arc<dyn Store>) {
    let stored = session();
    store.insert_session(&stored).await.unwrap();
    let outcomes = at_once((0..16).map(|_| {
        let (store, id, pipeline) = (Arc::clone(&store), stored.id, pipeline());
        async move { (pipeline.clone(), store.place_pipeline(id, 0, &pipeline).await.unwrap()) }
    }))
    .await;
    let now = read(&store, stored.id).await;
    assert_eq!((now.epoch, now.pipelines.len()), (1, 1));
    let mut winners = 0;
    for (pipeline, outcome) in outcomes {
        match outcome {
            Guarded::Applied(after) => {
                winners += 1;
                assert_eq!(after.pipeline(), Some(&pipeline), "the winner sees its own");
                assert_eq!(*after, now);
            }
            Guarded::Refused(stored) => {
                assert_eq!(stored.as_deref(), Some(&now), "everyone learns the winner")
            }
        }
    }
    assert_eq!(winners, 1);
}

pub async fn one_of_eight_inserts_wins(store: Arc<dyn Store>) {
    let id = session().id;
    let outcomes = at_once((0..8).map(|_| {
        let store = Arc::clone(&store);
        let mine = crate::model::Session { id, ..session() };
        async move { (mine.clone(), store.insert_session(&mine).await.unwrap()) }
    }))
    .await;
    let stored = read(&store, id).await;
    let mut winners = 0;
    for (mine, outcome) in outcomes {
        match outcome {
            Inserted::New => {
                winners += 1;
                assert_eq!(mine, stored);
            }
            Inserted::Existing(existing) => assert_eq!(*existing, stored),
        }
    }
    assert_eq!(winners, 1);
}

pub async fn one_of_eight_drops_wins(store: Arc<dyn Store>) {
    let (stored, pipeline) = placed(&store, &["a"]).await;
    let outcomes = at_once((0..8).map(|_| {
        let (store, id) = (Arc::clone(&store), stored.id);
        async move { store.drop_pipeline(id, 1, pipeline.id).await.unwrap() }
    }))
    .await;
    let winners = outcomes.iter().filter(|outcome| matches!(outcome, Guarded::Applied(_))).count();
    assert_eq!(winners, 1, "so that one and only one tells the clients");
    assert_eq!(read(&store, stored.id).await.epoch, 2);
}

pub async fn one_of_eight_moves_wins(store: Arc<dyn Store>) {
    let (stored, old) = placed(&store, &["a"]).await;
    let outcomes = at_once((0..8).map(|_| {
        let (store, id, to) = (Arc::clone(&store), stored.id, pipeline());
        async move { store.move_pipeline(id, 1, old.id, &to).await.unwrap() }
    }))
    .await;
    let winners = outcomes.iter().filter(|outcome| matches!(outcome, Guarded::Applied(_))).count();
    assert_eq!(winners, 1, "so that one and only one asks the clients to move");
    let now = read(&store, stored.id).await;
    assert_eq!((now.epoch, now.pipelines.len()), (2, 2));
}

pub async fn one_of_eight_burials_wins(store: Arc<dyn Store>) {
    let seen = worker();
    store.put_worker(&seen).await.unwrap();
    let outcomes = at_once((0..8).map(|_| {
        let (store, seen) = (Arc::clone(&store), seen.clone());
        async move { store.bury_worker(&seen).await.unwrap() }
    }))
    .await;
    assert_eq!(outcomes.into_iter().filter(|won| *won).count(), 1);
}

pub async fn a_timeline_has_no_gaps_whoever_appends(store: Arc<dyn Store>) {
    const WRITERS: usize = 6;
    const APPENDS: usize = 5;
    let session = SessionId::new();
    let writers = (0..WRITERS).map(|writer| {
        let store = Arc::clone(&store);
        async move {
            for append in 0..APPENDS {
                let entries = [0, 1].map(|n| timeline_entry(&format!("{writer} {append} {n}")));
                store.append_timeline(session, &entries).await.unwrap();
            }
        }
    });
    at_once(writers).await;
    let stored = store.timeline(session, 0, 1_000).await.unwrap();
    let numbers: Vec<i64> = stored.iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, (1..=(2 * WRITERS * APPENDS) as i64).collect::<Vec<_>>());
    for writer in 0..WRITERS {
        let own = stored.iter().filter_map(|entry| entry.what.strip_prefix(&format!("{writer} ")));
        let expected = (0..APPENDS).flat_map(|append| [0, 1].map(|n| format!("{append} {n}")));
        assert!(own.map(str::to_owned).eq(expected), "each one's entries keep their order");
    }
}

pub async fn changes_of_different_parts_all_survive(store: Arc<dyn Store>) {
    let (stored, pipeline) = placed(&store, &["mutes", "connects", "publishes", "leaves"]).await;
    let old = stored.participants.clone();
    let tracks = [track(), track()];
    let newcomers: Vec<_> = (0..6).map(|index| participant(&format!("new {index}"), &pipeline)).collect();

    let others = at_once(newcomers.clone().into_iter().map(|newcomer| {
        let (store, id) = (Arc::clone(&store), stored.id);
        async move { store.put_participant(id, 1, &newcomer).await.unwrap() }
    }));
    let (added, muted, connected, published, left) = tokio::join!(
        others,
        store.set_track_muted(stored.id, old[0].id, old[0].tracks[0].id, true),
        store.set_endpoint_state(stored.id, old[1].id, endpoint_of(&old[1]), EndpointState::Connected),
        store.set_tracks(stored.id, old[2].id, endpoint_of(&old[2]), &tracks),
        store.remove_participant(stored.id, old[3].id, RemoveIf::Present, None),
    );
    for outcome in added {
        applied(outcome);
    }
    for outcome in [muted, connected, published, left] {
        applied(outcome.unwrap());
    }
    let now = read(&store, stored.id).await;
    assert!(now.participant(old[0].id).unwrap().tracks[0].muted);
    assert_eq!(now.participant(old[1].id).unwrap().state, ParticipantState::Connected);
    assert_eq!(now.participant(old[2].id).unwrap().tracks, tracks);
    assert_eq!(now.participant(old[3].id), None);
    assert_eq!(now.participants.len(), 3 + newcomers.len());
    for newcomer in &newcomers {
        assert_eq!(now.participant(newcomer.id), Some(newcomer));
    }
}
