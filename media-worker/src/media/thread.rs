//! A media thread ("shard"): waits for its socket, for requests, for other shards and for the next timer, and runs
//! its [`Hub`].
//!
//! Every thread owns one socket and one hub outright. The sockets of several threads share one port
//! (`SO_REUSEPORT`): the system spreads clients over them by address, and a thread that gets another's datagram
//! hands it over.
//!
//! What comes over TCP (`tcp`) comes from that module's thread, already in datagrams.
//!
//! Packets come first: requests and timers, which may mean descriptions and handshakes, get a slice of time between
//! two looks at the socket, and what is left of them waits for the next slice.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use tokio::sync::mpsc;

use super::directory::Directory;
use super::exchange::Exchange;
use super::hub::Hub;
use super::plane::{Request, Respond};
use super::sdp::write::candidates;
use super::socket::egress::Egress;
use super::socket::{self, Socket};
use super::tcp::{self, Arrival, Counters, Listener, TcpPort};
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
/// Turns without a panic after which another one counts as the first.
const CALM_TURNS: u32 = 3;
/// One packet of so many that are sent is timed on its way through.
const TIMED: u64 = 256;
/// Datagrams over TCP that are taken before requests and timers get their turn.
const MAX_ARRIVALS: usize = 1024;
/// Connections over TCP for each endpoint: browsers try one for each address of theirs and each of ours.
const CONNECTIONS_PER_ENDPOINT: usize = 4;
/// How often a free port is looked for that is free over TCP too.
const MAX_TRIES: usize = 32;
/// How long events wait for the control plane to make room.
const EVENT_RETRY: Duration = Duration::from_millis(5);

/// The running media threads.
pub(super) struct Started {
    pub wakers: Vec<Arc<Waker>>,
    pub local_addr: SocketAddr,
    pub announced: Vec<SocketAddr>,
    pub tcp_port: Option<u16>,
    pub tcp: Arc<Counters>,
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
    let (mut sockets, listener) = bind(&config, requests.len())?;
    let local_addr = sockets[0].local_addr()?;
    let announced = socket::announced(&config, local_addr)?;
    let tcp_port = listener.as_ref().map(Listener::port).transpose()?;
    let candidates: Arc<[String]> = candidates(&announced, tcp_port).into();
    let counters = Arc::new(Counters::default());
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
    let max_connections = config.max_endpoints.saturating_mul(CONNECTIONS_PER_ENDPOINT);
    let ends: Vec<_> = match listener {
        Some(listener) => {
            tcp::start(listener, &wakers, max_connections, &counters)?.into_iter().map(Some).collect()
        }
        None => wakers.iter().map(|_| None).collect(),
    };
    let parts = polls.into_iter().zip(sockets).zip(requests).zip(exchanges).zip(ends);
    let threads = parts.map(|((((poll, socket), requests), exchange), ends)| {
        let (arrivals, outlet) = ends.map(|ends| (ends.arrivals, ends.outlet)).unzip();
        let hub = Hub::new(
            Arc::clone(&config),
            Arc::clone(directory),
            exchange,
            identity.clone(),
            Arc::clone(&candidates),
            Egress::new(socket.shared(), outlet),
            events.clone(),
        );
        let events = Events::with_capacity(8);
        let sent = Arc::clone(sent);
        Media {
            poll,
            events,
            socket,
            arrivals,
            requests,
            hub,
            sent,
            counted: 0,
            timed: 0,
            slice: SLICE,
            more: false,
        }
    });
    Ok((threads.collect(), Started { wakers, local_addr, announced, tcp_port, tcp: counters }))
}

/// Binds the media port, and the one over TCP. A port that may be any is one that is free over both.
fn bind(config: &MediaConfig, count: usize) -> io::Result<(Vec<Socket>, Option<Listener>)> {
    let mut tries = 0;
    loop {
        let sockets = socket::bind_all(config.listen, count)?;
        let mut address = sockets[0].local_addr()?;
        match config.tcp {
            TcpPort::Off => return Ok((sockets, None)),
            TcpPort::Same => {}
            TcpPort::Port(port) => address.set_port(port),
        }
        tries += 1;
        match Listener::bind(address) {
            Ok(listener) => return Ok((sockets, Some(listener))),
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && config.tcp == TcpPort::Same
                    && config.listen.port() == 0
                    && tries < MAX_TRIES => {}
            Err(error) => return Err(error),
        }
    }
}

struct Media {
    poll: Poll,
    events: Events,
    socket: Socket,
    /// What comes over TCP.
    arrivals: Option<std::sync::mpsc::Receiver<Arrival>>,
    requests: mpsc::Receiver<Request>,
    hub: Hub,
    /// What all shards have sent, and how much of it this one has told.
    sent: Arc<AtomicU64>,
    counted: u64,
    /// How many of those the packets stand for that were timed.
    timed: u64,
    /// [`SLICE`].
    slice: Duration,
    /// Something was left in the last turn.
    more: bool,
}

impl Media {
    /// Goes on after a panic ([`Hub::start_anew`]). One that comes again at once has nothing to do with clients: the process
    /// ends, and other workers take over what it had.
    fn run(mut self) {
        let mut calm = CALM_TURNS;
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.turn())) {
                Ok(true) => calm = calm.saturating_add(1),
                Ok(false) => return,
                Err(_) if calm < CALM_TURNS => {
                    tracing::error!("a media thread panics again and again: the process ends");
                    std::process::abort();
                }
                Err(_) => {
                    calm = 0;
                    self.hub.start_anew();
                }
            }
        }
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
        self.more |= self.take_arrivals(now);
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
            self.time_forwarding(now);
        }
        true
    }

    /// What was received at `now` has left. A look at the clock for every [`TIMED`] packets is all that this costs.
    fn time_forwarding(&mut self, now: Instant) {
        let times = (self.counted - self.timed) / TIMED;
        if times > 0 {
            self.timed += times * TIMED;
            self.hub.note_forwarding(now.elapsed(), times);
        }
    }

    /// Takes what came over TCP. Returns whether there may be more.
    fn take_arrivals(&mut self, now: Instant) -> bool {
        let Some(arrivals) = &self.arrivals else { return false };
        let mut count = 0;
        for Arrival { path, mut bytes } in arrivals.try_iter().take(MAX_ARRIVALS) {
            self.hub.handle_datagram(now, path, &mut bytes);
            count += 1;
        }
        count == MAX_ARRIVALS
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
