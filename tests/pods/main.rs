//! Workers as pods: processes on nodes with addresses of their own, started, asked and ended as Kubernetes does it with
//! `k8s/base`, under rooms with live media.
//!
//! | file | is |
//! |---|---|
//! | `cluster.rs` | the deployment: API and worker processes on nodes, their probes |
//! | `rooms.rs` | rooms whose members follow every move, and sessions that only exist |
//! | `story.rs` | what is done to it, and what must be true of it |
//!
//! Everything is in a network of the test's own (`support::network`): RabbitMQ, the store and the clients on its hub, each API
//! and each worker on a node. It takes `ip` (Debian: iproute2), and root or user namespaces; without it fails.

mod cluster;
mod rooms;
mod story;

#[test]
fn workers_scale_out_roll_and_scale_in_under_live_rooms() {
    let name = "workers_scale_out_roll_and_scale_in_under_live_rooms";
    support::network::alone(name, || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("a runtime can be made").block_on(story::run());
    });
}
