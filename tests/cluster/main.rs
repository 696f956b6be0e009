//! The same scenarios with 2 API and 2 worker processes over RabbitMQ and MongoDB.
//!
//! They need `SWITCHYARD_TEST_BROKER`, `SWITCHYARD_TEST_BROKER_ADMIN` and `SWITCHYARD_TEST_STORE`, and fail without:
//! `tests/run cluster` starts both servers.

mod doctor;
mod metrics;
mod rolling;
#[path = "../scenarios/mod.rs"]
mod scenarios;
mod spread;
mod trace;
mod traces;

scenarios::all_scenarios!(support::Shape::Cluster { apis: 2, workers: 2 });

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_log_and_no_error_tells_a_secret() {
    let shape = support::Shape::Cluster { apis: 2, workers: 2 };
    scenarios::secrets::no_log_and_no_error_tells_a_secret(shape).await;
}
