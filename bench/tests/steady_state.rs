//! A forwarded packet allocates nothing: counted over everything that the media threads do while a room just runs, their
//! reports and answers to connectivity checks included.
//!
//! What a thread keeps grows to the most that was ever under way at once, which a pause of the machine may raise at any
//! time. That happens in one window; what a packet, a report or a check needs would be allocated in every window.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bench::allocations;
use bench::room::Room;
use media_worker::media::MediaConfig;

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

const SUBSCRIBERS: usize = 8;
/// Until then buffers, tables and histories grow to their size: a history holds a second, and the longest timer is
/// that of silence, five seconds.
const WARM_UP: u64 = 7 * 200 * SUBSCRIBERS as u64;
/// Forwarded packets of one window: two seconds of media, with reports and checks of everybody.
const WINDOW: u64 = 2 * 200 * SUBSCRIBERS as u64;
/// Windows of which one must be without any allocation.
const WINDOWS: usize = 12;

/// How long a test waits for what must happen. A slow machine may stretch it.
fn patience() -> Duration {
    let factor = std::env::var("SWITCHYARD_TEST_PATIENCE").ok().and_then(|it| it.parse().ok());
    Duration::from_secs(60) * factor.unwrap_or(1)
}

/// Waits until so many more packets arrived at subscribers.
async fn forwarded(room: &Room, packets: u64) {
    let received = || room.seen.received.load(Ordering::Relaxed);
    let (until, deadline) = (received() + packets, Instant::now() + patience());
    while received() < until {
        assert!(Instant::now() < deadline, "media does not flow");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The fewest allocations that a window had, and where its first ones were made.
async fn fewest_allocations(config: MediaConfig, gcm: bool) -> (u64, Vec<String>) {
    let config = MediaConfig { listen: ([127, 0, 0, 1], 0).into(), ..config };
    let mut room = Room::open(config, gcm).await;
    for _ in 0..SUBSCRIBERS {
        room.join().await;
    }
    forwarded(&room, WARM_UP).await;
    let mut fewest = (u64::MAX, Vec::new());
    for _ in 0..WINDOWS {
        let before = allocations::in_media_threads();
        assert!(before > 0, "the counting allocator counts");
        allocations::trace();
        forwarded(&room, WINDOW).await;
        let window = (allocations::in_media_threads() - before, allocations::traces());
        if window.0 < fewest.0 {
            fewest = window;
        }
        if fewest.0 == 0 {
            break;
        }
        println!(
            "{} allocations in a window, the first at {}",
            fewest.0,
            fewest.1.first().map_or("?", |it| it)
        );
    }
    room.close().await;
    fewest
}

/// One test, because the allocator counts for the whole process.
#[tokio::test]
async fn nothing_is_allocated_for_a_forwarded_packet() {
    let alone = MediaConfig { threads: 1, ..MediaConfig::default() };
    let spanning = MediaConfig { threads: 2, endpoints_together: 4, ..MediaConfig::default() };
    for (name, config, gcm) in [
        ("one thread", alone.clone(), true),
        ("one thread, AES-CM", alone, false),
        ("a room on two threads", spanning, true),
    ] {
        let (allocations, places) = fewest_allocations(config, gcm).await;
        let places = places.join("\n\n");
        assert_eq!(
            allocations, 0,
            "{name}: allocations in each {WINDOW} forwarded packets, in the best at {places}"
        );
    }
}
