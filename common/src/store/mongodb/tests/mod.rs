//! The shared suite on a MongoDB server, and what only it can show.
//!
//! They need a server (a replica set): its URL in `SWITCHYARD_TEST_STORE`. Every test makes a database of its own and drops
//! it, also when it fails.

use std::sync::Arc;

use ::mongodb::Client;
use ::mongodb::options::ClientOptions;
use uuid::Uuid;

use super::*;
use crate::store::conformance::sequences::random_changes_agree_with_the_model;
use crate::store::embedded::EmbeddedStore;

mod outage;
mod raw;
mod tokens;

/// The URL of the server under test.
fn server_url() -> String {
    std::env::var("SWITCHYARD_TEST_STORE").expect(
        "SWITCHYARD_TEST_STORE must be the mongodb:// URL of a server for tests; tests/run starts one and sets it",
    )
}

/// The server's URL with this database. With more patience than a product needs: the machine runs the tests of everything
/// at the same time, and an interrupted health check would fail whichever test was running.
fn url_of(database: &str) -> String {
    let url = server_url();
    let (scheme, rest) = url.split_once("://").expect("SWITCHYARD_TEST_STORE has a scheme");
    let (server, options) = rest.split_once('?').unwrap_or((rest, ""));
    let server = server.split('/').next().unwrap_or(server);
    let patience = "connectTimeoutMS=30000&serverSelectionTimeoutMS=30000";
    format!("{scheme}://{server}/{database}?{patience}&{options}")
}

fn new_database() -> String {
    format!("switchyard_test_{}", Uuid::now_v7().simple())
}

/// Runs the test on a store with a new database, then drops that, whatever happened.
async fn with_store<F>(test: impl FnOnce(MongoStore) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let store = MongoStore::connect(&url_of(&new_database())).await.unwrap();
    let database = store.shared.database.clone();
    let ended = tokio::spawn(test(store)).await;
    let dropped = database.drop().await;
    if let Err(failed) = ended {
        std::panic::resume_unwind(failed.into_panic());
    }
    dropped.unwrap();
}

async fn run<F>(test: impl FnOnce(Arc<dyn Store>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    with_store(|store| test(Arc::new(store))).await;
}

mod conforms {
    crate::store_conformance!(crate::store::mongodb::tests::run);
}

#[tokio::test]
async fn random_changes_end_in_the_same_documents_as_embedded() {
    for seed in [1, 2, 3] {
        run(move |store| async move {
            let here = random_changes_agree_with_the_model(store, seed, 60).await;
            let embedded = Arc::new(EmbeddedStore::new());
            assert_eq!(here, random_changes_agree_with_the_model(embedded, seed, 60).await, "seed {seed}");
        })
        .await;
    }
}

#[tokio::test]
async fn the_url_names_the_database() {
    let name = new_database();
    let store = MongoStore::connect(&url_of(&name)).await.unwrap();
    assert_eq!(store.shared.database.name(), name);
    store.shared.database.drop().await.unwrap();
    // Only its name is looked at: other stores may be at work in the default database.
    let store = MongoStore::connect(&url_of("")).await.unwrap();
    assert_eq!(store.shared.database.name(), DEFAULT_DATABASE);
}

#[tokio::test]
async fn writes_wait_for_the_majority_whatever_the_url_says() {
    let url = format!("{}&w=0&readPreference=secondary&retryWrites=false", url_of(&new_database()));
    let store = MongoStore::connect(&url).await.unwrap();
    let database = &store.shared.database;
    assert_eq!(database.write_concern().unwrap().w, Some(Acknowledgment::Majority));
    let reads = database.selection_criteria().cloned();
    assert_eq!(reads, Some(SelectionCriteria::ReadPreference(ReadPreference::Primary)));
    database.drop().await.unwrap();
}

#[tokio::test]
async fn the_pings_end_with_the_last_handle() {
    let store = MongoStore::connect(&url_of(&new_database())).await.unwrap();
    store.shared.database.drop().await.unwrap();
    let mut connected = store.connected();
    let other = store.clone();
    drop(store);
    assert!(*connected.borrow_and_update());
    assert!(connected.has_changed().is_ok(), "a handle is left");
    drop(other);
    let ended = tokio::time::timeout(crate::store::conformance::PATIENCE, connected.changed()).await;
    assert!(ended.expect("the pinger ends").is_err());
}

/// A client of our own, to look at what is really stored.
async fn raw_client() -> Client {
    Client::with_options(ClientOptions::parse(server_url()).await.unwrap()).unwrap()
}
