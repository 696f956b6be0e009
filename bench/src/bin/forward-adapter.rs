//! CPU time and allocations of the media thread for each forwarded packet: one publisher of VP8 and Opus, N subscribers,
//! real sockets on loopback, DTLS, SRTP, the kernel's share included.
//!
//! `cargo run --release -p bench --bin forward-adapter`
//!
//! The clients are in this process, on other threads; only the thread named `media` is measured, by
//! `/proc/self/task/*/schedstat`. Media is paced as real media is: with few subscribers the wake-ups dominate.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bench::allocations;
use common::message::{Answer, Offer};
use common::model::{EndpointId, ParticipantId, PipelineId};
use media_worker::media::{MediaConfig, MediaEvent, MediaPlane, OpenEndpoint};
use support::media::Kind;
use support::peer::Peer;

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

const WINDOW: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() {
    println!("media thread: one publisher (25 video and 50 audio packets a second), {} s", WINDOW.as_secs());
    println!(
        "| subscribers | packets forwarded | µs of CPU per forwarded packet | allocations per forwarded packet |"
    );
    println!("|---|---|---|---|");
    for subscribers in [1, 10, 50] {
        room(subscribers).await;
    }
}

type Peers = Arc<tokio::sync::Mutex<HashMap<EndpointId, Arc<Peer>>>>;

async fn room(subscribers: usize) {
    let config = MediaConfig {
        listen: "127.0.0.1:0".parse().expect("an address"),
        ..media_worker::WorkerConfig::default().media
    };
    let (plane, mut events) = MediaPlane::start(config).expect("the media thread starts");
    let peers = Peers::default();
    let answering = tokio::spawn({
        let (plane, peers) = (plane.clone(), Arc::clone(&peers));
        async move {
            while let Some(event) = events.recv().await {
                if let MediaEvent::Offer { endpoint_id, revision, sdp, .. } = event {
                    let peer = Arc::clone(&peers.lock().await[&endpoint_id]);
                    let sdp = peer.answer(&sdp).await.expect("the server's offer is acceptable");
                    plane
                        .answer(endpoint_id, Answer { sdp, revision })
                        .await
                        .expect("the answer is acceptable");
                }
            }
        }
    });

    let pipeline_id = PipelineId::new();
    for number in 0..=subscribers {
        let publishes = number == 0;
        let endpoint_id = EndpointId::new();
        let (peer, _candidates) = Peer::new().await.expect("a client");
        let peer = Arc::new(peer);
        peers.lock().await.insert(endpoint_id, Arc::clone(&peer));
        plane
            .open_endpoint(OpenEndpoint {
                endpoint_id,
                pipeline_id,
                participant_id: ParticipantId::new(),
                can_publish: publishes,
                can_subscribe: !publishes,
                server_offers: !publishes,
            })
            .await
            .expect("an endpoint");
        if publishes {
            peer.add(Kind::Video).await.expect("a video track");
            peer.add(Kind::Audio).await.expect("an audio track");
            let (offer, _) = peer.offer(false).await.expect("an offer");
            let offered = Offer { sdp: offer.sdp.clone(), revision: None, tracks: Vec::new() };
            let negotiated = plane.offer(endpoint_id, offered).await.expect("the offer is acceptable");
            peer.accepted(offer, &negotiated.answer.sdp).await.expect("the answer is acceptable");
        }
    }

    // Two tracks for each subscriber, 75 packets a second together: flowing when nine tenths of that go out.
    let flowing = 75 * subscribers as u64 * 9 / 10;
    let mut patience = 60;
    loop {
        let before = sent(&plane).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        if sent(&plane).await - before >= flowing {
            break;
        }
        patience -= 1;
        assert!(patience > 0, "media does not flow to all {subscribers} subscribers");
    }

    let (sent_before, cpu_before, allocations_before) =
        (sent(&plane).await, media_thread_nanoseconds(), allocations::in_media_threads());
    tokio::time::sleep(WINDOW).await;
    let packets = sent(&plane).await - sent_before;
    let cpu = media_thread_nanoseconds() - cpu_before;
    let allocations = allocations::in_media_threads() - allocations_before;
    println!(
        "| {subscribers} | {packets} | {:.2} | {:.3} |",
        cpu as f64 / packets as f64 / 1_000.0,
        allocations as f64 / packets as f64,
    );

    answering.abort();
    for peer in peers.lock().await.values() {
        peer.close().await;
    }
    plane.shutdown().await;
}

async fn sent(plane: &MediaPlane) -> u64 {
    plane.stats().await.expect("the media thread lives").packets_out
}

/// Time on a processor of all threads named `media` that live now.
fn media_thread_nanoseconds() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    tasks
        .filter_map(Result::ok)
        .filter(|task| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "media")
        })
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|schedstat| schedstat.split(' ').next()?.parse::<u64>().ok())
        .sum()
}
