//! Strangers: datagrams that a server must drop, as fast as wanted.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::stranger_check;
use crate::room::Room;

/// What a stranger sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Bytes that are no protocol of WebRTC.
    Junk,
    /// ICE checks for a fragment that nobody has.
    Stun,
    /// RTP from an address that nobody uses.
    Rtp,
    /// A packet that the publisher sent, again, from elsewhere.
    Replay,
}

/// A running flood.
pub struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Flood {
    /// Sends `rate` datagrams a second, in bursts of a millisecond.
    pub fn start(room: &Room, kind: Kind, rate: u64) -> Self {
        let datagram = match kind {
            Kind::Junk => vec![255; 1_200],
            Kind::Stun => stranger_check(&room.identity, "nobodyss"),
            Kind::Rtp => [&[0x80, 96][..], &[7; 1_198]].concat(),
            Kind::Replay => room.seen.replayed.lock().expect("nobody panics with it").clone(),
        };
        let server = room.plane.local_addr();
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = std::thread::Builder::new()
            .name("flood".to_string())
            .spawn({
                let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
                move || {
                    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
                    let started = Instant::now();
                    while !stop.load(Ordering::Relaxed) {
                        let due = (started.elapsed().as_secs_f64() * rate as f64) as u64;
                        while sent.load(Ordering::Relaxed) < due {
                            // A full buffer is the flood's own loss.
                            let _ = socket.send_to(&datagram, server);
                            sent.fetch_add(1, Ordering::Relaxed);
                        }
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            })
            .expect("a thread");
        Self { stop, sent, thread }
    }

    /// Ends it; how many datagrams it sent.
    pub fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a flood does not panic");
        self.sent.load(Ordering::Relaxed)
    }
}
