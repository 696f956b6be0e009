//! Hostile datagrams at a steady rate, from one thread, beside the clients that are measured.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::RngExt;

use crate::client::Captured;
use crate::options::Flood;
use crate::rtp::Write;
use crate::socket::Socket;
use crate::stun::{self, Credentials};

/// Addresses that the flood comes from.
const SOURCES: usize = 64;
const TICK: Duration = Duration::from_millis(1);
/// Datagrams that are prepared and then sent over and over.
const PREPARED: usize = 256;

/// A running flood; it ends when this is dropped.
pub struct Running {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

/// What to hit.
pub struct Target {
    pub address: SocketAddr,
    /// An ICE fragment that the server knows.
    pub fragment: String,
    /// Sealed packets of a publisher.
    pub captured: Captured,
    pub from: Ipv4Addr,
}

impl Running {
    /// # Errors
    /// When no sockets can be had, or there is nothing to replay.
    pub fn start(kind: Flood, rate: u32, target: Target) -> io::Result<Self> {
        let datagrams = prepare(kind, &target)?;
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = std::thread::Builder::new().name("flood".into()).spawn({
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            move || run(&datagrams, rate, &stop, &sent)
        })?;
        Ok(Self { stop, sent, thread: Some(thread) })
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

type Prepared = Vec<(Arc<Socket>, SocketAddr, Vec<u8>)>;

fn prepare(kind: Flood, target: &Target) -> io::Result<Prepared> {
    if kind == Flood::Replay {
        let captured = target.captured.lock().map(|it| it.clone()).unwrap_or_default();
        if captured.is_empty() {
            return Err(io::Error::other("no publisher's packet was captured to replay"));
        }
        return Ok(captured);
    }
    let sources = (0..SOURCES)
        .map(|_| Socket::bind(target.from).map(Arc::new))
        .collect::<io::Result<Vec<Arc<Socket>>>>()?;
    let provider = rtc::crypto::default_provider().map_err(|error| io::Error::other(error.to_string()))?;
    let mut rng = rand::rng();
    let datagram = |index: usize| {
        let mut datagram = Vec::new();
        match kind {
            Flood::Stun => {
                let remote = Credentials { fragment: target.fragment.clone(), password: stun::token(32) };
                let crypto = provider.crypto();
                datagram = stun::request(&Credentials::generate(), &remote, true, rand::random(), crypto);
            }
            Flood::Rtp => {
                let write = Write {
                    payload_type: 96,
                    marker: false,
                    sequence: index as u16,
                    timestamp: rng.random(),
                    ssrc: rng.random(),
                    extensions: &[],
                };
                write.write(&mut datagram);
                datagram.extend((0..1_100).map(|_| rng.random::<u8>()));
            }
            Flood::Junk | Flood::Replay => {
                let length = rng.random_range(1..1_400);
                datagram.extend((0..length).map(|_| rng.random::<u8>()));
            }
        }
        (Arc::clone(&sources[index % SOURCES]), target.address, datagram)
    };
    Ok((0..PREPARED).map(datagram).collect())
}

fn run(datagrams: &Prepared, rate: u32, stop: &AtomicBool, sent: &AtomicU64) {
    let start = Instant::now();
    let mut turn = 0u64;
    while !stop.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        // What a held-up thread missed is not made up for in one burst.
        let missed = (due - turn.min(due)).saturating_sub(u64::from(rate) / 50);
        for step in (turn + missed)..due {
            let (socket, to, datagram) = &datagrams[step as usize % datagrams.len()];
            if socket.send(*to, datagram) {
                sent.fetch_add(1, Ordering::Relaxed);
            }
        }
        turn = due;
        std::thread::sleep(TICK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::{Batch, Overflow};

    #[test]
    fn floods_come_at_their_rate_and_look_like_what_they_are() {
        for kind in [Flood::Junk, Flood::Stun, Flood::Rtp] {
            let victim = Socket::bind(Ipv4Addr::LOCALHOST).unwrap();
            let target = Target {
                address: victim.local().into(),
                fragment: "known".into(),
                captured: Captured::default(),
                from: Ipv4Addr::LOCALHOST,
            };
            let (mut batch, mut overflow, mut seen) = (Batch::default(), Overflow::default(), 0);
            let started = Instant::now();
            let flood = Running::start(kind, 2_000, target).unwrap();
            while seen < 200 {
                assert!(started.elapsed() < Duration::from_secs(20), "{seen} of {kind:?}");
                victim.receive(&mut batch, &mut overflow, |_, _, datagram| {
                    seen += 1;
                    match kind {
                        Flood::Stun => assert!(matches!(stun::read(datagram), stun::Message::Request(_))),
                        Flood::Rtp => assert!(crate::rtp::Header::read(datagram).is_some()),
                        _ => {}
                    }
                });
            }
            // Two hundred take a tenth of a second at this rate.
            assert!(started.elapsed() > Duration::from_millis(80), "{kind:?} comes too fast");
            assert!(flood.sent() >= 200);
        }
    }

    #[test]
    fn there_must_be_something_to_replay() {
        let target = Target {
            address: "127.0.0.1:9".parse().unwrap(),
            fragment: String::new(),
            captured: Captured::default(),
            from: Ipv4Addr::LOCALHOST,
        };
        assert!(Running::start(Flood::Replay, 10, target).is_err());
    }
}
