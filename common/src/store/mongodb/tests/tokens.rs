//! Resume tokens whose history is gone, and watches that lose theirs.

use ::mongodb::bson::{Document, Timestamp, doc};

use super::*;
use crate::store::conformance::{next_of, session, watching};

/// The same token at the beginning of time.
///
/// A token's `_data` is hexadecimal text. MongoDB's is a keystring: 0x82, then the cluster time as four bytes of seconds and
/// four of a counter. The server that `tests/run` starts writes a BSON document with its log position `s` and time `t`.
fn ancient(token: &ResumeToken) -> ResumeToken {
    let document: Document = ::mongodb::bson::deserialize_from_slice(&token.0).unwrap();
    let data = document.get_str("_data").unwrap();
    let bytes: Vec<u8> =
        (0..data.len()).step_by(2).map(|at| u8::from_str_radix(&data[at..at + 2], 16).unwrap()).collect();
    let data = match ::mongodb::bson::deserialize_from_slice::<Document>(&bytes) {
        Ok(mut position) => {
            position.insert("s", 0);
            position.insert("t", Timestamp { time: 1, increment: 1 });
            let bytes = ::mongodb::bson::serialize_to_vec(&position).unwrap();
            bytes.iter().map(|byte| format!("{byte:02x}")).collect()
        }
        Err(_) => format!("{}0000000100000001{}", &data[..2], &data[18..]),
    };
    ResumeToken(::mongodb::bson::serialize_to_vec(&doc! { "_data": data }).unwrap())
}

#[tokio::test]
async fn an_ancient_token_is_lost_history() {
    run(|store| async move {
        let mut watch = store.watch_sessions(None).await.unwrap();
        store.insert_session(&session()).await.unwrap();
        let token = next_of(&mut watch).await.token;
        let ancient = ancient(&token);
        assert_ne!(ancient, token);
        watching::history_is_lost(store, &ancient).await;
    })
    .await;
}

#[tokio::test]
async fn a_dropped_collection_is_lost_history_for_good() {
    with_store(|store| async move {
        let mut watch = store.watch_sessions(None).await.unwrap();
        let only = session();
        store.insert_session(&only).await.unwrap();
        store.shared.sessions.drop().await.unwrap();
        assert_eq!(next_of(&mut watch).await.session_id, only.id, "what came before is still told");
        for _ in 0..2 {
            let ended = watch.next().await.unwrap_err();
            assert_eq!(ended.kind, StoreErrorKind::HistoryLost, "{ended}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_token_survives_the_process_that_got_it() {
    with_store(|store| async move {
        let mut watch = store.watch_sessions(None).await.unwrap();
        let (before, after) = (session(), session());
        store.insert_session(&before).await.unwrap();
        let token = next_of(&mut watch).await.token;
        drop(watch);
        store.insert_session(&after).await.unwrap();
        let other = MongoStore::connect(&url_of(store.shared.database.name())).await.unwrap();
        let mut resumed = other.watch_sessions(Some(&token)).await.unwrap();
        assert_eq!(next_of(&mut resumed).await.session_id, after.id);
    })
    .await;
}
