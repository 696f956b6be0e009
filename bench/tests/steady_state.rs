//! A forwarded packet allocates nothing: counted over everything that the media threads do while a room just runs, their
//! reports and answers to connectivity checks included.

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
/// Forwarded packets over which is counted: two seconds of media, with reports and checks of everybody.
const COUNTED: u64 = 2 * 200 * SUBSCRIBERS as u64;

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

async fn allocations_of(config: MediaConfig, gcm: bool) -> u64 {
    let config = MediaConfig { listen: ([127, 0, 0, 1], 0).into(), ..config };
    let mut room = Room::open(config, gcm).await;
    for _ in 0..SUBSCRIBERS {
        room.join().await;
    }
    forwarded(&room, WARM_UP).await;
    let before = allocations::in_media_threads();
    assert!(before > 0, "the counting allocator counts");
    forwarded(&room, COUNTED).await;
    let allocations = allocations::in_media_threads() - before;
    room.close().await;
    allocations
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
        assert_eq!(allocations_of(config, gcm).await, 0, "{name}: allocations over {COUNTED} packets");
    }
}
