//! What the media threads cost for each forwarded packet: one publisher of 1.5 Mbit/s VP8 and Opus, N subscribers,
//! real sockets on loopback, DTLS, SRTP, the kernel's share included.
//!
//! `cargo run --release -p bench --bin forward-adapter -- --help`
//!
//! The clients are in this process, on other threads. CPU time is that of the threads named `media*`, by
//! `/proc/self/task/*/schedstat`; memory is what those threads allocated and did not free; latency is from the
//! publisher's `send` to the kernel's stamp at every tenth subscriber's socket. Subscribers empty their sockets
//! every 10 ms, so that waking them is not charged to the server.

use std::time::Duration;

use bench::allocations;
use bench::flood::{Flood, Kind};
use bench::room::{Room, quantile};
use clap::Parser;
use media_worker::media::MediaConfig;

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

/// Cost, latency and memory of the media plane.
#[derive(Parser)]
struct Arguments {
    /// Subscribers of each room, one room after the other.
    #[arg(long, value_delimiter = ',', default_value = "10,50,100,200")]
    subscribers: Vec<usize>,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Media threads; 0 is the media plane's own default.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// The clients offer only AES-CM with HMAC-SHA1.
    #[arg(long)]
    aes_cm: bool,
    /// So many more subscribers join within two seconds while the measurement runs.
    #[arg(long, default_value_t = 0)]
    storm: usize,
    /// A stranger sends this as fast as `--flood-rate` says: junk, stun, rtp or replay.
    #[arg(long)]
    flood: Option<Kind>,
    /// Datagrams of the flood in a second.
    #[arg(long, default_value_t = 20_000)]
    flood_rate: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments = Arguments::parse();
    println!(
        "one publisher (150 video and 50 audio packets a second), {} s, {} media thread(s){}{}",
        arguments.seconds,
        arguments.threads,
        if arguments.aes_cm { ", AES-CM" } else { ", AES-GCM" },
        arguments.flood.map_or(String::new(), |kind| format!(
            ", flood of {} {kind:?} datagrams/s",
            arguments.flood_rate
        )),
    );
    println!(
        "| subscribers | packets forwarded | lost | µs of CPU per packet | allocations per packet | packets per \
         system call | latency p50 / p99 / max, ms | KB per subscriber |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for subscribers in &arguments.subscribers {
        measure(&arguments, *subscribers).await;
    }
}

async fn measure(arguments: &Arguments, subscribers: usize) {
    let default = media_worker::WorkerConfig::default().media;
    let listen = "127.0.0.1:0".parse().expect("an address");
    let config = MediaConfig { listen, threads: arguments.threads, ..default };
    let mut room = Room::open(config, !arguments.aes_cm).await;
    room.join().await;
    room.flowing(1).await;
    let bytes_of_one = allocations::live_in_media_threads();
    for _ in 1..subscribers {
        room.join().await;
        // A storm is measured on purpose, not here.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    room.flowing(subscribers).await;
    let bytes = allocations::live_in_media_threads() - bytes_of_one;
    let flood = arguments.flood.map(|kind| Flood::start(&room, kind, arguments.flood_rate));
    room.seen.take_latencies();
    room.seen.take_joins();

    let before = Figures::read(&room).await;
    let mut left = Duration::from_secs(arguments.seconds);
    for _ in 0..arguments.storm {
        room.join().await;
        let pause = Duration::from_secs(2) / arguments.storm as u32;
        tokio::time::sleep(pause).await;
        left = left.saturating_sub(pause);
    }
    tokio::time::sleep(left).await;
    let after = Figures::read(&room).await;
    let latencies = room.seen.take_latencies();
    let packets = after.packets - before.packets;
    let per_packet = |count: u64| count as f64 / packets as f64;
    println!(
        "| {subscribers} | {packets} | {} | {:.2} | {:.4} | {:.1} | {:.2} / {:.2} / {:.2} | {:.0} |",
        after.drops - before.drops,
        per_packet(after.cpu_ns - before.cpu_ns) / 1_000.0,
        per_packet(after.allocations - before.allocations),
        packets as f64 / (after.calls - before.calls) as f64,
        quantile(&latencies, 0.5),
        quantile(&latencies, 0.99),
        quantile(&latencies, 1.0),
        bytes as f64 / 1_000.0 / (subscribers.max(2) - 1) as f64,
    );
    if arguments.storm > 0 {
        let joins = room.seen.take_joins();
        println!(
            "joined within two seconds: {}, with media: {}; join to first packet p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms",
            arguments.storm,
            joins.len(),
            quantile(&joins, 0.5),
            quantile(&joins, 0.99),
            quantile(&joins, 1.0),
        );
    }
    if let Some(flood) = flood {
        println!("datagrams of the flood: {}", flood.stop());
    }
    room.close().await;
}

struct Figures {
    packets: u64,
    drops: u64,
    calls: u64,
    allocations: u64,
    cpu_ns: u64,
}

impl Figures {
    async fn read(room: &Room) -> Self {
        let stats = room.plane.stats().await.expect("the media plane lives");
        Self {
            packets: stats.packets_out,
            drops: stats.drops.all(),
            calls: stats.send_calls,
            allocations: allocations::in_media_threads(),
            cpu_ns: media_thread_nanoseconds(),
        }
    }
}

/// Time on a processor of all threads named `media*` that live now.
fn media_thread_nanoseconds() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    tasks
        .filter_map(Result::ok)
        .filter(|task| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("media"))
        })
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|schedstat| schedstat.split(' ').next()?.parse::<u64>().ok())
        .sum()
}
