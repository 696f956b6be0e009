//! Nanoseconds and allocations per forwarded packet in `sfu`: one publication, N subscriptions.
//!
//! `cargo run --release -p bench --bin forward-core`

use std::time::{Duration, Instant};

use bench::allocations;
use sfu::{Codec, Output, Packet, Session};

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

const ROUNDS: usize = 7;
const PACKETS: u32 = 20_000;

fn main() {
    println!("sfu: one VP8 publication, {PACKETS} packets of 1,200 bytes a round, median of {ROUNDS} rounds");
    println!("| subscribers | ns per forwarded packet | allocations per forwarded packet |");
    println!("|---|---|---|");
    for subscribers in [1, 10, 50] {
        let mut rounds: Vec<(f64, f64)> = (0..ROUNDS).map(|_| round(subscribers)).collect();
        rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (nanoseconds, allocations) = rounds[ROUNDS / 2];
        println!("| {subscribers} | {nanoseconds:.1} | {allocations:.4} |");
    }
}

fn round(subscribers: usize) -> (f64, f64) {
    let start = Instant::now();
    let mut session = Session::new();
    let publication = session.publish(Codec::Vp8);
    for _ in 0..subscribers {
        let subscription = session.subscribe(publication).expect("the publication is there");
        session.activate(start, subscription);
    }
    // S bit, partition 0, and a frame header whose lowest bit says keyframe (RFC 7741, sections 4.2 and 4.3).
    let payload = [vec![0x10, 0x00], vec![0; 1_198]].concat();
    let packet = |number: u32| Packet::new(0xcafe, number as u16, number.wrapping_mul(3_000), &payload);
    // Buffers grow to their working size before anything is counted.
    let mut forwarded = 0_u64;
    forward(&mut session, start, publication, packet(0), &mut forwarded);
    assert_eq!(forwarded, subscribers as u64, "every subscription flows");

    forwarded = 0;
    let allocations_before = allocations::all();
    let measured = Instant::now();
    for number in 1..=PACKETS {
        let now = start + Duration::from_millis(u64::from(number));
        forward(&mut session, now, publication, packet(number), &mut forwarded);
    }
    let elapsed = measured.elapsed();
    let allocations = allocations::all() - allocations_before;
    assert_eq!(forwarded, u64::from(PACKETS) * subscribers as u64, "no packet is lost in the core");
    (elapsed.as_nanos() as f64 / forwarded as f64, allocations as f64 / forwarded as f64)
}

fn forward(
    session: &mut Session,
    now: Instant,
    publication: sfu::PublicationId,
    packet: Packet<'_>,
    forwarded: &mut u64,
) {
    session.handle_packet(now, publication, &packet);
    while let Some(output) = session.poll_output() {
        if let Output::Forward { .. } = std::hint::black_box(output) {
            *forwarded += 1;
        }
    }
}
