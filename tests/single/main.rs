//! The whole system in one process, on the embedded broker and store; and what the binary itself promises.

mod authority;
mod configuration;
mod doctor;
mod health;
mod hostile;
mod https_receivers;
mod keys;
#[cfg(target_os = "linux")]
mod load;
mod log;
#[cfg(target_os = "linux")]
mod memory;
mod metrics;
#[path = "../scenarios/mod.rs"]
mod scenarios;
mod tls;
mod turn;
mod versions;

scenarios::all_scenarios!(support::Shape::Embedded);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_log_and_no_error_tells_a_secret() {
    scenarios::secrets::no_log_and_no_error_tells_a_secret(support::Shape::Embedded).await;
}
