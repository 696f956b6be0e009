//! What open sessions cost a worker that starts, and RabbitMQ: `attach [SESSIONS]`, run by `bench/attach`.
//!
//! Creates the sessions through the API, then starts a fresh worker and waits until it reads the queue of each.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use support::own_services::{OwnServices, free_ports};
use support::{Deployment, Http};

/// Sessions that are created at once.
const AT_ONCE: usize = 16;
const PAUSE: Duration = Duration::from_millis(50);
/// Its gauge says how many session inboxes a worker has open.
const INBOXES: &str = "switchyard_worker_inboxes ";

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

async fn create(backend: Http, left: Arc<AtomicUsize>) {
    while left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        backend
            .insist(reqwest::Method::POST, "/v1/sessions", &json!({}))
            .await
            .expect("a result")
            .expect(201);
    }
}

async fn attached(admin: &Http, sessions: usize) {
    loop {
        let metrics = support::http::try_text(admin.request(reqwest::Method::GET, "/metrics")).await;
        let metrics = metrics.unwrap_or_default();
        let gauge = metrics.lines().find_map(|line| line.strip_prefix(INBOXES));
        if gauge.and_then(|text| text.parse::<f64>().ok()).is_some_and(|open| open as usize == sessions) {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::main]
async fn main() {
    let sessions: usize = match std::env::args().nth(1) {
        Some(text) => text.parse().expect("a number of sessions"),
        None => 10_000,
    };
    let services = OwnServices::start().await;
    let empty = services.broker.resident_bytes();
    // Nobody joins: they must not end meanwhile.
    let mut deployment = Deployment::start_at(services.location(), 1, 1, &["--empty-timeout", "0"]);
    let idle = deployment.workers[0].footprint();
    let started = Instant::now();
    let left = Arc::new(AtomicUsize::new(sessions));
    let tasks: Vec<_> =
        (0..AT_ONCE).map(|_| tokio::spawn(create(deployment.backend(), Arc::clone(&left)))).collect();
    for task in tasks {
        task.await.expect("every session is created");
    }
    println!("{sessions} sessions created in {:.1?}", started.elapsed());
    let one = services.broker.resident_bytes();
    println!("RabbitMQ: {:.0} MiB empty, {:.0} MiB with the sessions and one worker", mib(empty), mib(one));

    let [port] = free_ports();
    let listen = format!("127.0.0.1:{port}");
    let admin = Http::new(&[format!("http://{listen}")]);
    let started = Instant::now();
    deployment.start_worker_with(&["--admin-listen", &listen]);
    let ready = started.elapsed();
    attached(&admin, sessions).await;
    let took = started.elapsed();
    let worker = deployment.workers[1].footprint();
    println!("a fresh worker: ready after {ready:.2?}, reads all {sessions} queues after {took:.2?}");
    println!(
        "it occupies {:.1} MiB and {} descriptors (without sessions {:.1} MiB and {}); RabbitMQ {:.0} MiB with two workers",
        mib(worker.resident_bytes),
        worker.descriptors,
        mib(idle.resident_bytes),
        idle.descriptors,
        mib(services.broker.resident_bytes()),
    );
}
