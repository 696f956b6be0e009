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
/// Batches of datagrams that are received before requests and timers get their turn.
const MAX_BATCHES: usize = 64;
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
    directory: Arc<Directory>,
    sent: Arc<AtomicU64>,
    requests: Vec<mpsc::Receiver<Request>>,
    events: &mpsc::Sender<MediaEvent>,
) -> io::Result<Started> {
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
    let parts = polls.into_iter().zip(sockets).zip(requests).zip(exchanges).enumerate();
    for (shard, (((poll, socket), requests), exchange)) in parts {
        let hub = Hub::new(
            Arc::clone(&config),
            Arc::clone(&directory),
            exchange,
            identity.clone(),
            announced.clone(),
            Egress::new(socket.shared()),
            events.clone(),
        );
        let media = Media { poll, socket, requests, hub, sent: Arc::clone(&sent), counted: 0 };
        std::thread::Builder::new().name(format!("media-{shard}")).spawn(move || media.run())?;
    }
    Ok(Started { wakers, local_addr, announced })
}

struct Media {
    poll: Poll,
    socket: Socket,
    requests: mpsc::Receiver<Request>,
    hub: Hub,
    /// What all shards have sent, and how much of it this one has told.
    sent: Arc<AtomicU64>,
    counted: u64,
}

impl Media {
    fn run(mut self) {
        let mut events = Events::with_capacity(8);
        let mut more = false;
        loop {
            let left = self.hub.flush_events();
            let timeout = if more { Some(Duration::ZERO) } else { self.timeout(left) };
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "the media thread cannot poll and ends");
                return;
            }
            more = self.receive();
            more |= self.hub.handle_exchange(Instant::now());
            let until = Instant::now() + SLICE;
            match self.do_requests(until) {
                Requests::Done => {}
                Requests::More => more = true,
                Requests::Ended(respond) => {
                    self.hub.close(Instant::now());
                    self.flush(Instant::now());
                    self.hub.flush_events();
                    if let Some(respond) = respond {
                        // A caller that no longer waits does not matter.
                        let _ = respond.send(());
                    }
                    return;
                }
            }
            let now = Instant::now();
            more |= self.hub.handle_handshakes(now, until);
            more |= self.hub.handle_timeouts(now, until);
            self.flush(now);
        }
    }

    fn timeout(&self, events_left: bool) -> Option<Duration> {
        let due = self.hub.poll_timeout().map(|due| due.saturating_duration_since(Instant::now()));
        match due {
            Some(due) if events_left => Some(due.min(EVENT_RETRY)),
            None if events_left => Some(EVENT_RETRY),
            due => due,
        }
    }

    /// Returns whether there may be more to receive.
    fn receive(&mut self) -> bool {
        for _ in 0..MAX_BATCHES {
            let (socket, hub) = (&mut self.socket, &mut self.hub);
            let now = Instant::now();
            let mut is_first = true;
            let received = socket.receive(|path, datagram| {
                if std::mem::replace(&mut is_first, false) {
                    hub.handle_tables(now);
                }
                hub.handle_datagram(now, path, datagram);
            });
            if !received {
                return false;
            }
            self.flush(now);
        }
        true
    }

    fn flush(&mut self, now: Instant) {
        self.hub.flush(now);
        let sent = self.hub.packets_out();
        self.sent.fetch_add(sent - self.counted, Ordering::Relaxed);
        self.counted = sent;
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
