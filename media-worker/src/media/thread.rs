//! The media thread: waits for the socket, for requests and for the next timer, and runs the [`Hub`].
//!
//! One thread owns one socket and one hub outright. More threads would each have their own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use tokio::sync::mpsc;

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
/// Requests that are done before datagrams get their turn.
const MAX_REQUESTS: usize = 64;
/// How long events wait for the control plane to make room.
const EVENT_RETRY: Duration = Duration::from_millis(5);

/// A running media thread.
pub(super) struct Started {
    pub waker: Arc<Waker>,
    pub local_addr: SocketAddr,
    pub announced: Vec<SocketAddr>,
}

/// Binds the socket and starts the thread.
pub(super) fn start(
    config: MediaConfig,
    requests: mpsc::Receiver<Request>,
    events: mpsc::Sender<MediaEvent>,
) -> io::Result<Started> {
    let mut socket = Socket::bind(config.listen)?;
    let local_addr = socket.local_addr()?;
    let announced = socket::announced(&config, local_addr)?;
    let identity = Identity::generate().map_err(io::Error::other)?;
    let poll = Poll::new()?;
    socket.register(poll.registry(), SOCKET)?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    let egress = Egress::new(socket.shared());
    let hub = Hub::new(config, identity, announced.clone(), egress, events);
    let media = Media { poll, socket, requests, hub };
    std::thread::Builder::new().name("media".to_string()).spawn(move || media.run())?;
    Ok(Started { waker, local_addr, announced })
}

struct Media {
    poll: Poll,
    socket: Socket,
    requests: mpsc::Receiver<Request>,
    hub: Hub,
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
            match self.do_requests() {
                Requests::Done => {}
                Requests::More => more = true,
                Requests::Ended(respond) => {
                    self.hub.close(Instant::now());
                    self.hub.flush(Instant::now());
                    self.hub.flush_events();
                    if let Some(respond) = respond {
                        // A caller that no longer waits does not matter.
                        let _ = respond.send(());
                    }
                    return;
                }
            }
            let now = Instant::now();
            self.hub.handle_timeouts(now);
            self.hub.flush(now);
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
            if !socket.receive(|path, datagram| hub.handle_datagram(now, path, datagram)) {
                return false;
            }
            self.hub.flush(now);
        }
        true
    }

    fn do_requests(&mut self) -> Requests {
        for _ in 0..MAX_REQUESTS {
            match self.requests.try_recv() {
                Ok(Request::Shutdown(respond)) => return Requests::Ended(Some(respond)),
                Ok(request) => self.hub.handle_request(Instant::now(), request),
                Err(mpsc::error::TryRecvError::Empty) => return Requests::Done,
                Err(mpsc::error::TryRecvError::Disconnected) => return Requests::Ended(None),
            }
        }
        Requests::More
    }
}

enum Requests {
    Done,
    More,
    Ended(Option<Respond<()>>),
}
