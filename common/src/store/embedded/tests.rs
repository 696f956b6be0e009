//! The shared suite on the embedded store, and what only it can show.

use super::*;
use crate::store::conformance::{self, next_of, session, watching};

async fn run<F: Future<Output = ()>>(test: impl FnOnce(Arc<dyn Store>) -> F) {
    test(Arc::new(EmbeddedStore::new())).await;
}

mod conforms {
    crate::store_conformance!(crate::store::embedded::tests::run);
}

#[tokio::test]
async fn random_changes_agree_with_the_model() {
    for seed in 0..300 {
        let store = Arc::new(EmbeddedStore::new());
        conformance::sequences::random_changes_agree_with_the_model(store, seed, 80).await;
    }
}

#[tokio::test]
async fn history_is_bounded_and_its_loss_is_told() {
    let store = EmbeddedStore::with_history(4);
    let mut slow = store.watch_sessions(None).await.unwrap();
    store.insert_session(&session()).await.unwrap();
    let token = next_of(&mut slow).await.token;
    for _ in 0..5 {
        store.insert_session(&session()).await.unwrap();
    }
    let lagging = slow.next().await.unwrap_err();
    assert_eq!(lagging.kind, crate::store::StoreErrorKind::HistoryLost);
    watching::history_is_lost(Arc::new(store), &token).await;
}

#[tokio::test]
async fn a_token_of_another_store_is_lost_history() {
    let before = EmbeddedStore::new();
    let mut watch = before.watch_sessions(None).await.unwrap();
    before.insert_session(&session()).await.unwrap();
    let token = next_of(&mut watch).await.token;
    // As after a restart of the process: the same number, another history.
    let after = EmbeddedStore::new();
    after.insert_session(&session()).await.unwrap();
    watching::history_is_lost(Arc::new(after), &token).await;
}

#[tokio::test]
async fn clones_share_one_state() {
    let store = EmbeddedStore::new();
    let session = session();
    store.clone().insert_session(&session).await.unwrap();
    assert_eq!(store.session(session.id).await.unwrap(), Some(session));
}

#[tokio::test]
async fn a_watch_outlives_the_last_handle_without_harm() {
    let store = EmbeddedStore::new();
    let mut watch = store.watch_sessions(None).await.unwrap();
    let session = session();
    store.insert_session(&session).await.unwrap();
    drop(store);
    assert_eq!(next_of(&mut watch).await.session_id, session.id);
}
