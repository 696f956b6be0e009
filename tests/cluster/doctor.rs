//! `switchyard doctor` with the real servers: well, and where they refuse.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use support::inspect::BrokerView;
use support::process::run_to_end;
use support::services::{Location, Services};

/// What it says of each check, and whether all is well.
async fn examine(broker: String, store: &str) -> (BTreeMap<String, Value>, bool) {
    let store = store.to_owned();
    let run = move || {
        run_to_end(&["doctor", "--json", "--part", "worker", "--broker", &broker, "--store", &store], &[])
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let report: Value =
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let findings = report["findings"].as_array().unwrap().iter();
    let findings = findings.map(|finding| (finding["check"].as_str().unwrap().to_owned(), finding.clone()));
    (findings.collect(), output.status.success())
}

/// The broker's URL with other credentials.
fn as_user(location: &Location, user: &str, password: &str) -> String {
    let host = location.broker.split('@').next_back().unwrap();
    format!("amqp://{user}:{password}@{host}")
}

/// Asks RabbitMQ's management.
async fn manage(location: &Location, path: &str, body: &Value) {
    let (scheme, rest) = location.admin.split_once("://").unwrap();
    let (credentials, host) = rest.split_once('@').unwrap_or(("guest:guest", rest));
    let (user, password) = credentials.split_once(':').unwrap();
    let url = format!("{scheme}://{}/api/{path}", host.trim_end_matches('/'));
    let request = reqwest::Client::new().put(url).basic_auth(user, Some(password)).json(body);
    let answer = request.send().await.expect("RabbitMQ's management answers");
    assert!(answer.status().is_success(), "{path}: {answer:?}");
}

async fn assert_nothing_stays(location: &Location) {
    let (queues, exchanges) =
        (BrokerView::new(location).queues().await, BrokerView::new(location).exchanges().await);
    let left: Vec<String> = [queues.unwrap(), exchanges.unwrap()].concat();
    assert!(!left.iter().any(|name| name.contains("doctor")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_are_well_are_said_to_be() {
    let services = Services::claim().await;
    let location = services.location();
    let (findings, is_well) = examine(location.broker.clone(), &location.store).await;
    assert!(is_well, "{findings:?}");
    for check in ["broker_version", "broker", "store_version", "store", "clock"] {
        assert_eq!(findings[check]["state"], "ok", "{:?}", findings[check]);
    }
    assert!(findings["broker_version"]["found"].as_str().unwrap().starts_with("RabbitMQ "), "{findings:?}");
    assert_ne!(findings["store_replica_set"]["state"], "fail", "{findings:?}");
    assert_nothing_stays(&location).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_refuses_is_found_and_it_is_said_what_to_do() {
    let services = Services::claim().await;
    let location = services.location();
    let wrong = as_user(&location, "guest", "wrong-password");
    let (findings, is_well) = examine(wrong, &location.store).await;
    assert!(!is_well && findings["broker"]["state"] == "fail", "{findings:?}");
    assert!(findings["broker"]["advice"].as_str().unwrap().contains("password"), "{findings:?}");
    assert_eq!(findings["broker_version"]["state"], "ok", "it is there: {findings:?}");
    assert_eq!(findings["store"]["state"], "ok", "the other one is looked at all the same: {findings:?}");

    // Somebody who may sign in and nothing else, and one who may make things and not read them.
    let user = format!("idle-{}", uuid::Uuid::now_v7().simple());
    manage(&location, &format!("users/{user}"), &json!({"password": "a-password", "tags": ""})).await;
    for may in ["^$", ".*"] {
        let rights = json!({"configure": may, "write": may, "read": "^$"});
        manage(&location, &format!("permissions/{}/{user}", location.vhost), &rights).await;
        let (findings, is_well) = examine(as_user(&location, &user, "a-password"), &location.store).await;
        assert!(!is_well && findings["broker"]["state"] == "fail", "{findings:?}");
        let advice = findings["broker"]["advice"].as_str().unwrap();
        assert!(advice.contains("set_permissions"), "{findings:?}");
        assert_nothing_stays(&location).await;
    }
}
