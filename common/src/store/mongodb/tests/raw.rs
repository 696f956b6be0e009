//! What is really stored: fields of other versions, indexes, documents that are not ours.

use ::mongodb::bson::{Bson, Document, doc};
use futures::TryStreamExt;

use super::*;
use crate::model::{CommandId, EventId};
use crate::store::conformance::{
    next_of, participant, pipeline, session, settings, timeline_entry, track, worker,
};
use crate::store::{RemoveIf, SessionChangeKind, StoreErrorKind};

async fn documents(store: &MongoStore, name: &str) -> Vec<Document> {
    // Through another client: nothing that the store's own client does can colour this.
    let database = raw_client().await.database(store.shared.database.name());
    let found = database.collection::<Document>(name).find(doc! {}).sort(doc! { "_id": 1 }).await;
    found.unwrap().try_collect().await.unwrap()
}

fn at<'a>(document: &'a Document, path: &str) -> Option<&'a Bson> {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let mut value = document.get(first)?;
    for name in rest.split('.').filter(|name| !name.is_empty()) {
        value = match value {
            Bson::Document(document) => document.get(name)?,
            Bson::Array(array) => array.get(name.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    Some(value)
}

#[track_caller]
fn applied(outcome: StoreResult<Guarded>) {
    assert!(matches!(outcome.unwrap(), Guarded::Applied(_)));
}

#[tokio::test]
async fn a_session_of_an_earlier_version_has_no_done_commands_and_gets_some() {
    with_store(|store| async move {
        let (session, pipeline) = (session(), pipeline());
        store.insert_session(&session).await.unwrap();
        applied(store.place_pipeline(session.id, 0, &pipeline).await);
        let sessions = store.shared.database.collection::<Document>("sessions");
        let earlier = async || {
            sessions.update_one(doc! {}, doc! { "$unset": { "done_commands": 1 } }).await.unwrap();
            assert_eq!(store.session(session.id).await.unwrap().unwrap().done_commands, []);
        };
        let member = participant("a", &pipeline);
        let (leave, early) = (CommandId::new(), CommandId::new());
        let done = async || store.session(session.id).await.unwrap().unwrap().done_commands;
        earlier().await;
        applied(store.put_participant(session.id, 1, &member).await);
        assert_eq!(done().await, [member.command_id]);
        earlier().await;
        applied(store.remove_participant(session.id, member.id, RemoveIf::Present, Some(leave)).await);
        assert_eq!(done().await, [leave]);
        earlier().await;
        applied(store.note_done(session.id, early).await);
        assert_eq!(done().await, [early]);
    })
    .await;
}

#[tokio::test]
async fn fields_of_another_version_survive_every_operation() {
    with_store(|store| async move {
        let (session, pipeline) = (session(), pipeline());
        let mut member = participant("a", &pipeline);
        member.tracks.push(track());
        let endpoint = member.endpoint.clone().unwrap().id;
        store.insert_session(&session).await.unwrap();
        applied(store.place_pipeline(session.id, 0, &pipeline).await);
        applied(store.put_participant(session.id, 1, &member).await);
        applied(store.put_participant(session.id, 1, &participant("b", &pipeline)).await);

        // A newer version writes fields of its own at every level, after we wrote.
        let future: Vec<&str> = vec![
            "future",
            "pipelines.0.future",
            "participants.0.future",
            "participants.0.endpoint.future",
            "participants.0.grants.future",
            "participants.0.tracks.0.future",
            "participants.1.future",
            "settings.future",
        ];
        let fields: Document =
            future.iter().map(|path| ((*path).to_owned(), doc! { "of": "another" }.into())).collect();
        let sessions = store.shared.database.collection::<Document>("sessions");
        sessions.update_one(doc! {}, doc! { "$set": fields }).await.unwrap();
        let check = async |after: &str, gone: &[&str]| {
            let stored = documents(&store, "sessions").await.remove(0);
            for path in future.iter().filter(|path| !gone.contains(path)) {
                assert_eq!(at(&stored, path), Some(&doc! { "of": "another" }.into()), "{path} after {after}");
            }
        };
        check("reading", &[]).await;
        assert!(store.session(session.id).await.unwrap().is_some(), "unknown fields do not stop reading");

        applied(store.set_endpoint_state(session.id, member.id, endpoint, EndpointState::Connected).await);
        check("set_endpoint_state", &[]).await;
        applied(store.set_track_muted(session.id, member.id, member.tracks[0].id, true).await);
        check("set_track_muted", &[]).await;
        applied(store.set_settings(session.id, &settings(), CommandId::new()).await);
        check("set_settings", &[]).await;
        assert_eq!(
            store.insert_session(&session).await.unwrap(),
            Inserted::Existing(Box::new(store.session(session.id).await.unwrap().unwrap(),))
        );
        check("a second insert", &[]).await;
        // What a call replaces by its contract is replaced: tracks, and the endpoint of who rejoins.
        let mut gone = vec!["participants.0.tracks.0.future"];
        applied(store.set_tracks(session.id, member.id, endpoint, &member.tracks).await);
        check("set_tracks", &gone).await;
        gone.extend(["participants.0.endpoint.future", "participants.0.grants.future"]);
        applied(store.put_participant(session.id, 1, &member).await);
        check("put_participant", &gone).await;
        gone.push("pipelines.0.future");
        applied(store.drop_pipeline(session.id, 1, pipeline.id).await);
        check("drop_pipeline", &gone).await;
        applied(store.remove_participant(session.id, member.id, RemoveIf::Endpoint(endpoint), None).await);
        let stored = documents(&store, "sessions").await.remove(0);
        assert!(at(&stored, "participants.0.future").is_some(), "the other's, after remove_participant");
        applied(store.place_pipeline(session.id, 2, &crate::store::conformance::pipeline()).await);
        applied(store.close_session(session.id, UnixMillis(1)).await);
        let stored = documents(&store, "sessions").await.remove(0);
        assert!(at(&stored, "future").is_some(), "after close_session");
    })
    .await;
}

#[tokio::test]
async fn fields_of_another_version_survive_in_worker_rows() {
    with_store(|store| async move {
        let mut worker = worker();
        store.put_worker(&worker).await.unwrap();
        let rows = store.shared.database.collection::<Document>("workers");
        rows.update_one(doc! {}, doc! { "$set": { "zone": "b", "load.gpu": 1 } }).await.unwrap();
        worker.load.endpoints = 9;
        assert!(store.renew_worker(&worker).await.unwrap());
        let row = documents(&store, "workers").await.remove(0);
        assert_eq!((at(&row, "zone"), at(&row, "load.gpu")), (Some(&"b".into()), Some(&1.into())));
        assert_eq!(at(&row, "load.endpoints"), Some(&9_i64.into()));
        store.put_worker(&worker).await.unwrap();
        assert_eq!(at(&documents(&store, "workers").await[0], "zone"), Some(&"b".into()));
        assert_eq!(store.worker(worker.id).await.unwrap(), Some(worker));
    })
    .await;
}

#[tokio::test]
async fn a_document_of_a_later_version_is_refused_and_left_as_it_is() {
    with_store(|store| async move {
        let (later, good, pipeline) = (session(), session(), pipeline());
        for each in [&later, &good] {
            store.insert_session(each).await.unwrap();
        }
        let sessions = store.shared.database.collection::<Document>("sessions");
        let that_one = doc! { "_id": later.id.to_string() };
        sessions.update_one(that_one.clone(), doc! { "$set": { "version": 2 } }).await.unwrap();
        let stored = documents(&store, "sessions").await;
        let refused = store.session(later.id).await.unwrap_err();
        assert_eq!(refused.kind, StoreErrorKind::Internal);
        assert!(refused.message.contains("version 2"), "{refused}");
        assert!(store.place_pipeline(later.id, 0, &pipeline).await.is_err());
        assert!(store.close_session(later.id, UnixMillis(1)).await.is_err());
        assert_eq!(store.sessions(&SessionFilter::default()).await.unwrap(), std::slice::from_ref(&good));
        assert_eq!(store.open_sessions(None, 10).await.unwrap(), [good.id]);
        let outlined = store.outlines(Outlined::Unattended { living: &[] }, None, 10).await.unwrap();
        assert_eq!(outlined.iter().map(|outline| outline.id).collect::<Vec<_>>(), [good.id]);
        assert_eq!(documents(&store, "sessions").await, stored, "nothing was changed");
        // One of before versions were written is of the first.
        sessions.update_one(that_one, doc! { "$unset": { "version": 1 } }).await.unwrap();
        assert_eq!(store.session(later.id).await.unwrap(), Some(later.clone()));
        applied(store.place_pipeline(later.id, 0, &pipeline).await);
    })
    .await;
}

#[tokio::test]
async fn people_can_read_what_is_stored() {
    with_store(|store| async move {
        let (session, pipeline) = (session(), pipeline());
        store.insert_session(&session).await.unwrap();
        applied(store.place_pipeline(session.id, 0, &pipeline).await);
        let stored = documents(&store, "sessions").await.remove(0);
        assert_eq!(at(&stored, "_id"), Some(&session.id.to_string().into()));
        assert_eq!(at(&stored, "version"), Some(&1_i64.into()));
        assert_eq!(at(&stored, "state"), Some(&"open".into()));
        assert_eq!(at(&stored, "epoch"), Some(&1_i64.into()));
        assert_eq!(at(&stored, "pipelines.0._id"), Some(&pipeline.id.to_string().into()));
        assert_eq!(at(&stored, "previous_worker_id"), Some(&pipeline.worker_id.to_string().into()));
    })
    .await;
}

#[tokio::test]
async fn a_document_that_is_not_ours_hides_no_other() {
    with_store(|store| async move {
        let mut watch = store.watch_sessions(None).await.unwrap();
        let broken = SessionId::new();
        let sessions = store.shared.database.collection::<Document>("sessions");
        sessions.insert_one(doc! { "_id": broken.to_string(), "state": 7 }).await.unwrap();
        sessions.insert_one(doc! { "_id": 42, "state": "open" }).await.unwrap();
        sessions.insert_one(doc! { "_id": "ses_not-a-uuid", "state": "open" }).await.unwrap();
        let good = session();
        store.insert_session(&good).await.unwrap();

        assert_eq!(store.sessions(&SessionFilter::default()).await.unwrap(), std::slice::from_ref(&good));
        let refused = store.session(broken).await.unwrap_err();
        assert_eq!(refused.kind, StoreErrorKind::Internal);
        assert!(refused.message.contains(&broken.to_string()), "{refused}");
        let change = next_of(&mut watch).await;
        assert_eq!(change.kind, SessionChangeKind::Inserted(Box::new(good)));
    })
    .await;
}

#[tokio::test]
async fn a_replaced_document_is_a_change_like_any_other() {
    with_store(|store| async move {
        let session = session();
        store.insert_session(&session).await.unwrap();
        let mut watch = store.watch_sessions(None).await.unwrap();
        // As an operator's tool may do it.
        let sessions = store.shared.database.collection::<Document>("sessions");
        let mut document = encode(&session).unwrap();
        document.insert("name", "renamed");
        sessions.replace_one(doc! {}, document.clone()).await.unwrap();
        document.insert("state", "closed");
        sessions.replace_one(doc! {}, document).await.unwrap();
        assert_eq!(next_of(&mut watch).await.kind, SessionChangeKind::Updated);
        assert_eq!(next_of(&mut watch).await.kind, SessionChangeKind::Closed);
    })
    .await;
}

#[tokio::test]
async fn indexes_are_made_and_found_again() {
    with_store(|store| async move {
        let name = store.shared.database.name().to_owned();
        MongoStore::connect(&url_of(&name)).await.unwrap();
        let keys = async |collection: &str| -> Vec<(Document, Option<Duration>)> {
            let collection = store.shared.database.collection::<Document>(collection);
            let indexes: Vec<_> = collection.list_indexes().await.unwrap().try_collect().await.unwrap();
            let expires =
                |index: &IndexModel| index.options.as_ref().and_then(|options| options.expire_after);
            indexes.into_iter().map(|index| (index.keys.clone(), expires(&index))).collect()
        };
        let sessions = keys("sessions").await;
        assert!(sessions.contains(&(doc! { "key_id": 1, "_id": 1 }, None)), "{sessions:?}");
        assert!(sessions.contains(&(doc! { "state": 1, "closed_at": 1 }, None)), "{sessions:?}");
        assert!(sessions.contains(&(doc! { "pipelines.worker_id": 1 }, None)), "{sessions:?}");
        let events = keys("events").await;
        assert!(events.contains(&(doc! { "session_id": 1, "number": 1 }, None)), "{events:?}");
        assert!(events.contains(&(doc! { "stored_at": 1 }, Some(TIMELINE_KEPT))), "{events:?}");
        let ratings = keys("ratings").await;
        assert!(ratings.contains(&(doc! { "session_id": 1, "participant_id": 1 }, None)), "{ratings:?}");
        assert!(ratings.contains(&(doc! { "stored_at": 1 }, Some(RATINGS_KEPT))), "{ratings:?}");

        // Another version keeps timelines for another time: its index stays, and we start.
        let collection = store.shared.database.collection::<Document>("events");
        collection.drop_index("stored_at_1").await.unwrap();
        let options = IndexOptions::builder().expire_after(Duration::from_secs(60)).build();
        let other = IndexModel::builder().keys(doc! { "stored_at": 1 }).options(options).build();
        collection.create_index(other).await.unwrap();
        MongoStore::connect(&url_of(&name)).await.unwrap();
        assert!(keys("events").await.contains(&(doc! { "stored_at": 1 }, Some(Duration::from_secs(60)))));
    })
    .await;
}

#[tokio::test]
async fn a_timeline_entry_expires_by_when_it_was_stored() {
    with_store(|store| async move {
        store.append_timeline(SessionId::new(), &[timeline_entry("session.created")]).await.unwrap();
        let stored = documents(&store, "events").await.remove(0);
        assert!(stored.get_str("_id").unwrap().parse::<EventId>().is_ok());
        let age =
            UnixMillis(stored.get_datetime("stored_at").unwrap().timestamp_millis()).until(UnixMillis::now());
        assert!(age < Duration::from_secs(60), "a BSON date of now, not of the entry: {age:?} ago");
    })
    .await;
}

#[tokio::test]
async fn entries_without_a_number_do_not_disturb_a_timeline() {
    with_store(|store| async move {
        let session = SessionId::new();
        let collection = store.shared.database.collection::<Document>("events");
        for id in ["evt_a", "evt_b"] {
            let old =
                doc! { "_id": id, "session_id": session.to_string(), "at": 1_i64, "what": "x", "cause": "y" };
            collection.insert_one(old).await.unwrap();
        }
        store.append_timeline(session, &[timeline_entry("session.created")]).await.unwrap();
        let entries = store.timeline(session, 0, 10).await.unwrap();
        assert_eq!(entries.iter().map(|entry| entry.number).collect::<Vec<_>>(), [1]);
    })
    .await;
}
