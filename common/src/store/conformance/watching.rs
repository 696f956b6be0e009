//! Watching sessions: order, completeness, resuming.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::{PATIENCE, applied, next_of, pipeline, placed, session};
use crate::model::{EndpointId, ParticipantId, Session, SessionId, TrackId};
use crate::store::{
    RemoveIf, ResumeToken, SessionChange, SessionChangeKind, SessionFilter, SessionWatch, Store,
    StoreErrorKind,
};
use crate::time::UnixMillis;

type Watch = Box<dyn SessionWatch>;

async fn open(store: &Arc<dyn Store>) -> Watch {
    store.watch_sessions(None).await.unwrap()
}

async fn take(watch: &mut Watch, count: usize) -> Vec<SessionChange> {
    let mut changes = Vec::with_capacity(count);
    while changes.len() < count {
        changes.push(next_of(watch).await);
    }
    changes
}

/// The whole life of one session: five changes.
async fn live(store: &Arc<dyn Store>, session: &Session) {
    store.insert_session(session).await.unwrap();
    let pipeline = pipeline();
    applied(store.place_pipeline(session.id, 0, &pipeline).await.unwrap());
    applied(store.put_participant(session.id, 1, &super::participant("a", &pipeline)).await.unwrap());
    applied(store.close_session(session.id, UnixMillis(1)).await.unwrap());
    assert_eq!(store.delete_closed_sessions(UnixMillis(2)).await.unwrap(), 1);
}

/// The kind without the document.
fn word(change: &SessionChange) -> &'static str {
    match change.kind {
        SessionChangeKind::Inserted(_) => "inserted",
        SessionChangeKind::Updated => "updated",
        SessionChangeKind::Closed => "closed",
        SessionChangeKind::Deleted => "deleted",
    }
}

const LIFE: [&str; 5] = ["inserted", "updated", "updated", "closed", "deleted"];

pub async fn changes_arrive_in_order(store: Arc<dyn Store>) {
    let mut watch = open(&store).await;
    let first = session();
    live(&store, &first).await;
    let second = session();
    store.insert_session(&second).await.unwrap();

    let changes = take(&mut watch, 6).await;
    assert_eq!(changes.iter().map(word).collect::<Vec<_>>(), [&LIFE[..], &["inserted"]].concat());
    assert!(changes[..5].iter().all(|change| change.session_id == first.id));
    assert_eq!(changes[5].kind, SessionChangeKind::Inserted(Box::new(second.clone())));
    let SessionChangeKind::Inserted(inserted) = &changes[0].kind else { unreachable!("checked above") };
    assert_eq!((inserted.id, &inserted.key_id), (first.id, &first.key_id));
    let tokens: HashSet<_> = changes.iter().map(|change| change.token.0.clone()).collect();
    assert_eq!(tokens.len(), 6, "every change has a token of its own");
}

pub async fn nothing_falls_between_opening_and_listing(store: Arc<dyn Store>) {
    const SESSIONS: usize = 30;
    let inserting = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            let mut ids = HashSet::new();
            for _ in 0..SESSIONS {
                let each = session();
                store.insert_session(&each).await.unwrap();
                ids.insert(each.id);
            }
            ids
        }
    });
    // Begin somewhere in the middle of it.
    let started = tokio::time::Instant::now();
    while store.sessions(&SessionFilter::default()).await.unwrap().len() < 3 {
        assert!(started.elapsed() < PATIENCE, "no insert was seen");
        tokio::task::yield_now().await;
    }
    let mut watch = open(&store).await;
    let listed = store.sessions(&SessionFilter::default()).await.unwrap();
    let mut seen: HashSet<SessionId> = listed.iter().map(|session| session.id).collect();
    while seen.len() < SESSIONS {
        let change = next_of(&mut watch).await;
        assert_eq!(word(&change), "inserted");
        seen.insert(change.session_id);
    }
    assert_eq!(seen, inserting.await.unwrap());
}

pub async fn a_token_resumes_exactly_behind_its_change(store: Arc<dyn Store>) {
    let mut watch = open(&store).await;
    let (first, second) = (session(), session());
    live(&store, &first).await;
    live(&store, &second).await;
    let changes = take(&mut watch, 10).await;
    for (index, change) in changes.iter().enumerate().take(9) {
        let mut resumed = store.watch_sessions(Some(&change.token)).await.unwrap();
        let following = take(&mut resumed, 9 - index).await;
        for (again, before) in following.iter().zip(&changes[index + 1..]) {
            assert_eq!((again.session_id, word(again)), (before.session_id, word(before)));
            assert_eq!(again.token, before.token);
        }
    }
    // Behind the last change there is nothing until something happens.
    let mut resumed = store.watch_sessions(Some(&changes[9].token)).await.unwrap();
    let third = session();
    store.insert_session(&third).await.unwrap();
    assert_eq!(next_of(&mut resumed).await.session_id, third.id);
}

pub async fn every_watch_gets_every_change(store: Arc<dyn Store>) {
    let mut watches = Vec::new();
    for _ in 0..3 {
        watches.push(open(&store).await);
    }
    let only = session();
    live(&store, &only).await;
    for watch in &mut watches {
        let changes = take(watch, 5).await;
        assert_eq!(changes.iter().map(word).collect::<Vec<_>>(), LIFE);
    }
}

pub async fn what_changes_nothing_is_no_change(store: Arc<dyn Store>) {
    let (stored, pipeline) = placed(&store, &["a"]).await;
    let participant = stored.participants[0].clone();
    let mut watch = open(&store).await;
    // Refused, one way or another.
    let missing = SessionId::new();
    store.close_session(missing, UnixMillis(1)).await.unwrap();
    store.insert_session(&stored).await.unwrap();
    store.place_pipeline(stored.id, 1, &super::pipeline()).await.unwrap();
    store.drop_pipeline(stored.id, 0, pipeline.id).await.unwrap();
    store.put_participant(stored.id, 0, &participant).await.unwrap();
    store.set_tracks(stored.id, participant.id, EndpointId::new(), &[]).await.unwrap();
    store.set_track_muted(stored.id, participant.id, TrackId::new(), true).await.unwrap();
    store.remove_participant(stored.id, ParticipantId::new(), RemoveIf::Present, None).await.unwrap();
    // Applied, but it was so before.
    applied(store.put_participant(stored.id, 1, &participant).await.unwrap());
    applied(store.set_track_muted(stored.id, participant.id, participant.tracks[0].id, false).await.unwrap());
    store.delete_closed_sessions(UnixMillis(i64::MAX)).await.unwrap();

    let marker = session();
    store.insert_session(&marker).await.unwrap();
    assert_eq!(next_of(&mut watch).await.session_id, marker.id);
}

pub async fn a_dropped_next_loses_nothing(store: Arc<dyn Store>) {
    const LIVES: usize = 4;
    let mut watch = open(&store).await;
    let living = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            for _ in 0..LIVES {
                live(&store, &session()).await;
            }
        }
    });
    let started = tokio::time::Instant::now();
    let mut words = Vec::new();
    let mut dropped = 0;
    while words.len() < LIVES * LIFE.len() {
        assert!(started.elapsed() < PATIENCE, "only {words:?}");
        match tokio::time::timeout(Duration::from_micros(200), watch.next()).await {
            Ok(change) => words.push(word(&change.unwrap())),
            Err(_) => dropped += 1,
        }
    }
    living.await.unwrap();
    assert_eq!(words, LIFE.repeat(LIVES), "after {dropped} dropped calls");
    // One that certainly had to wait.
    assert!(
        tokio::time::timeout(Duration::from_millis(5), watch.next()).await.is_err(),
        "nothing more happened"
    );
    let marker = session();
    store.insert_session(&marker).await.unwrap();
    assert_eq!(next_of(&mut watch).await.session_id, marker.id);
}

pub async fn a_foreign_token_is_lost_history(store: Arc<dyn Store>) {
    // A BSON document that is no token, bytes that are no document, and nothing at all.
    for foreign in [&b"\x05\x00\x00\x00\x00"[..], &[0xff; 64], &[]] {
        history_is_lost(Arc::clone(&store), &ResumeToken(foreign.to_vec())).await;
    }
}

/// What a token must lead to whose history is gone; each store's own tests know how to make one.
pub async fn history_is_lost(store: Arc<dyn Store>, token: &ResumeToken) {
    match store.watch_sessions(Some(token)).await {
        Err(error) => assert_eq!(error.kind, StoreErrorKind::HistoryLost, "{error}"),
        Ok(mut watch) => {
            let read = tokio::time::timeout(PATIENCE, watch.next()).await.expect("the watch says so");
            assert_eq!(read.expect_err("nothing can follow").kind, StoreErrorKind::HistoryLost);
        }
    }
    // Listing again and opening anew is the cure.
    let mut watch = open(&store).await;
    let marker = session();
    store.insert_session(&marker).await.unwrap();
    assert_eq!(next_of(&mut watch).await.session_id, marker.id);
}
