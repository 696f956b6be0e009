//! A media thread ("shard"): waits for its socket, for requests, for other shards and for the next timer, and runs
//! its [`Hub`].
//!
//! Every thread owns one socket and one hub outright. The sockets of several threads share one port
//! (`SO_REUSEPORT`): the system spreads clients over them by address, and a thread that gets another's datagram
//! hands it over.
//!
//! Packets come first: requests and timers, which may mean descriptions and handshakes, get a slice of time between
//! two looks at the socket, and what is left of them waits for the next slice.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use tokio::sync::mpsc;

use super::directory::Directory;
use super::exchange::Exchange;
use super::hub::Hub;
use super::plane::{Request, Respond};
use super::socket::egress::Egress;
use super::socket::{self, Socket};
use super::transport::dtls::Identity;
use super::{MediaConfig, MediaEvent};

const SOCKET: Token = Token(0);
const WAKER: Token = Token(1);
/// Batches of datagrams that are received before anything is sent …
const MAX_BATCHES: usize = 4;
/// … and how often that is done before requests and timers get their turn.
const MAX_ROUNDS: usize = 16;
/// How long requests and timers may keep the thread from its socket. One of them is always done, and takes
/// what it takes: the largest description well below a millisecond, a flight of a handshake likewise.
const SLICE: Duration = Duration::from_micros(500);
/// How long events wait for the control plane to make room.
const EVENT_RETRY: Duration = Duration::from_millis(5);

/// The running media threads.
pub(super) struct Started {
    pub wakers: Vec<Arc<Waker>>,
    pub local_addr: SocketAddr,
    pub announced: Vec<SocketAddr>,
}

/// Binds one port and starts a thread for each of `requests`. `sent` counts what all of them send.
pub(super) fn start(
    config: MediaConfig,
    directory: &Arc<Directory>,
    sent: &Arc<AtomicU64>,
    requests: Vec<mpsc::Receiver<Request>>,
    events: &mpsc::Sender<MediaEvent>,
) -> io::Result<Started> {
    let (threads, started) = build(config, directory, sent, requests, events)?;
    for (shard, media) in threads.into_iter().enumerate() {
        std::thread::Builder::new().name(format!("media-{shard}")).spawn(move || media.run())?;
    }
    Ok(started)
}

/// Everything that [`start`] runs.
fn build(
    config: MediaConfig,
    directory: &Arc<Directory>,
    sent: &Arc<AtomicU64>,
    requests: Vec<mpsc::Receiver<Request>>,
    events: &mpsc::Sender<MediaEvent>,
) -> io::Result<(Vec<Media>, Started)> {
    let mut sockets = socket::bind_all(config.listen, requests.len())?;
    let local_addr = sockets[0].local_addr()?;
    let announced = socket::announced(&config, local_addr)?;
    let identity = Identity::generate().map_err(io::Error::other)?;
    let (mut polls, mut wakers) = (Vec::new(), Vec::new());
    for socket in &mut sockets {
        let poll = Poll::new()?;
        socket.register(poll.registry(), SOCKET)?;
        wakers.push(Arc::new(Waker::new(poll.registry(), WAKER)?));
        polls.push(poll);
    }
    let config = Arc::new(config);
    let exchanges = Exchange::connect(&wakers);
    let parts = polls.into_iter().zip(sockets).zip(requests).zip(exchanges);
    let threads = parts.map(|(((poll, socket), requests), exchange)| {
        let hub = Hub::new(
            Arc::clone(&config),
            Arc::clone(directory),
            exchange,
            identity.clone(),
            announced.clone(),
            Egress::new(socket.shared()),
            events.clone(),
        );
        let events = Events::with_capacity(8);
        let sent = Arc::clone(sent);
        Media { poll, events, socket, requests, hub, sent, counted: 0, slice: SLICE, more: false }
    });
    Ok((threads.collect(), Started { wakers, local_addr, announced }))
}

struct Media {
    poll: Poll,
    events: Events,
    socket: Socket,
    requests: mpsc::Receiver<Request>,
    hub: Hub,
    /// What all shards have sent, and how much of it this one has told.
    sent: Arc<AtomicU64>,
    counted: u64,
    /// [`SLICE`].
    slice: Duration,
    /// Something was left in the last turn.
    more: bool,
}

impl Media {
    fn run(mut self) {
        while self.turn() {}
    }

    /// Waits until there is something to do and does it: packets first, all that are there, then a slice of
    /// everything else. Returns whether there will be another turn.
    fn turn(&mut self) -> bool {
        let left = self.hub.flush_events();
        let timeout = if self.more { Some(Duration::ZERO) } else { self.timeout(left) };
        if let Err(error) = self.poll.poll(&mut self.events, timeout)
            && error.kind() != io::ErrorKind::Interrupted
        {
            tracing::error!(%error, "the media thread cannot poll and ends");
            return false;
        }
        self.more = self.receive();
        let now = Instant::now();
        self.more |= self.hub.handle_exchange(now);
        self.flush(now);
        let until = Instant::now() + self.slice;
        match self.do_requests(until) {
            Requests::Done => {}
            Requests::More => self.more = true,
            Requests::Ended(respond) => {
                self.hub.close(Instant::now());
                self.flush(Instant::now());
                self.hub.flush_events();
                if let Some(respond) = respond {
                    // A caller that no longer waits does not matter.
                    let _ = respond.send(());
                }
                return false;
            }
        }
        let now = Instant::now();
        self.more |= self.hub.handle_handshakes(now, until);
        self.more |= self.hub.handle_timeouts(now, until);
        self.flush(now);
        true
    }

    fn timeout(&self, events_left: bool) -> Option<Duration> {
        let due = self.hub.poll_timeout().map(|due| due.saturating_duration_since(Instant::now()));
        match due {
            Some(due) if events_left => Some(due.min(EVENT_RETRY)),
            None if events_left => Some(EVENT_RETRY),
            due => due,
        }
    }

    /// Receives and forwards what is there. Returns whether there may be more.
    fn receive(&mut self) -> bool {
        for _ in 0..MAX_ROUNDS {
            let now = Instant::now();
            let mut batches = 0;
            // What comes in while the rest is taken goes out with it: longer runs, fewer system calls.
            while batches < MAX_BATCHES && self.receive_batch(now) {
                batches += 1;
            }
            if batches == 0 {
                return false;
            }
            self.flush(now);
        }
        true
    }

    /// Returns whether there was anything.
    fn receive_batch(&mut self, now: Instant) -> bool {
        let (socket, hub) = (&mut self.socket, &mut self.hub);
        let mut is_first = true;
        socket.receive(|path, datagram| {
            if std::mem::replace(&mut is_first, false) {
                hub.handle_tables(now);
            }
            hub.handle_datagram(now, path, datagram);
        })
    }

    fn flush(&mut self, now: Instant) {
        self.hub.flush(now);
        let sent = self.hub.packets_out();
        if sent > self.counted {
            self.sent.fetch_add(sent - self.counted, Ordering::Relaxed);
            self.counted = sent;
        }
    }

    fn do_requests(&mut self, until: Instant) -> Requests {
        loop {
            match self.requests.try_recv() {
                Ok(Request::Shutdown(respond)) => return Requests::Ended(Some(respond)),
                Ok(request) => self.hub.handle_request(Instant::now(), request),
                Err(mpsc::error::TryRecvError::Empty) => return Requests::Done,
                Err(mpsc::error::TryRecvError::Disconnected) => return Requests::Ended(None),
            }
            if Instant::now() >= until {
                return Requests::More;
            }
        }
    }
}

enum Requests {
    Done,
    More,
    Ended(Option<Respond<()>>),
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use common::message::Offer;
    use common::model::EndpointId;
    use tokio::sync::oneshot;

    use super::*;
    use crate::media::directory::Together;

    /// What waits for a turn is not waited for: however many descriptions there are, one at most stands between two
    /// looks at the socket once the slice of time is used up.
    #[test]
    fn packets_wait_for_one_description_at_most() {
        const WAITING: usize = 20;
        let config = MediaConfig { listen: ([127, 0, 0, 1], 0).into(), ..MediaConfig::default() };
        let directory = Arc::new(Directory::new(1, 10, Together { endpoints: 10, tracks: 10 }));
        let ((requests, ends), (events, _events)) = (mpsc::channel(WAITING), mpsc::channel(1));
        let (mut threads, started) = build(config, &directory, &Arc::default(), vec![ends], &events).unwrap();
        let media = &mut threads[0];
        // A slice that is used up at once.
        media.slice = Duration::ZERO;
        let mut answers: Vec<_> = (0..WAITING)
            .map(|_| {
                let (respond, answer) = oneshot::channel();
                let offer = Offer { sdp: "v=0".into(), revision: None, tracks: Vec::new() };
                requests.try_send(Request::Offer(EndpointId::new(), offer, respond)).ok().unwrap();
                answer
            })
            .collect();
        started.wakers[0].wake().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for turn in 0..WAITING {
            client.send_to(b"a packet", started.local_addr).unwrap();
            assert!(media.turn());
            assert_eq!(media.hub.packets_in(), turn as u64 + 1, "the packet was there and was taken");
            answers
                .retain_mut(|answer| matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
            assert_eq!(answers.len(), WAITING - turn - 1, "and one description was done behind it");
        }
    }
}
