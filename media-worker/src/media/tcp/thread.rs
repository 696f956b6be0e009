//! The thread that owns the listener and all connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use socket2::{Domain, Protocol, Socket, Type};

use super::connection::{Connection, End};
use super::table::{Admission, Table};
use super::{Arrival, Counters, Departure, Ends, Told, Ways};
use crate::media::transport::{ConnectionId, Path};

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
/// The first connection's id; below are the tokens above.
const FIRST: u64 = 2;
/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(500);
/// Connections that wait in the kernel.
const BACKLOG: i32 = 1024;
/// Connections that are taken before the others get their turn.
const MAX_ACCEPTS: usize = 64;
/// What is received from one connection before the others get their turn.
const RECEIVE: usize = 64 * 1024;

/// The bound port.
pub struct Listener(TcpListener);

impl Listener {
    /// # Errors
    /// What the system answered.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        // A restart must not wait for the connections of the process before.
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self(TcpListener::from_std(socket.into())))
    }

    pub fn port(&self) -> io::Result<u16> {
        Ok(self.0.local_addr()?.port())
    }
}

/// Starts the thread; it ends when every shard has dropped its [`Ends`]. At most `max` connections are open at a time.
///
/// # Errors
/// What the system answered.
pub fn start(
    listener: Listener,
    shards: &[Arc<Waker>],
    max: usize,
    counters: &Arc<Counters>,
) -> io::Result<Vec<Ends>> {
    let poll = Poll::new()?;
    let mut listener = listener.0;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    let (ways, ends) = super::connect(&waker, shards, counters);
    let streams = Streams {
        poll,
        listener,
        ways,
        table: Table::new(max),
        next: FIRST,
        ready: Vec::new(),
        buffer: vec![0; RECEIVE].into_boxed_slice(),
        woken: vec![false; shards.len()],
        touched: Vec::new(),
        may_accept: false,
        has_failed: false,
    };
    std::thread::Builder::new().name("media-tcp".to_owned()).spawn(move || streams.run())?;
    Ok(ends)
}

struct Streams {
    poll: Poll,
    listener: TcpListener,
    ways: Ways,
    table: Table,
    next: u64,
    /// Connections with more to receive.
    ready: Vec<ConnectionId>,
    buffer: Box<[u8]>,
    /// Which shards have something waiting.
    woken: Vec<bool>,
    /// Connections with something to send.
    touched: Vec<ConnectionId>,
    /// There may be connections in the kernel that nobody tells of any more.
    may_accept: bool,
    /// The last one could not be taken.
    has_failed: bool,
}

impl Streams {
    fn run(mut self) {
        let mut events = Events::with_capacity(256);
        let mut tick = Instant::now() + TICK;
        loop {
            let timeout = if self.ready.is_empty() && !self.may_accept {
                // Without connections there are no deadlines.
                (self.table.len() > 0 || self.has_failed)
                    .then(|| tick.saturating_duration_since(Instant::now()))
            } else {
                Some(Duration::ZERO)
            };
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "the thread of media over TCP cannot poll and ends");
                return;
            }
            let now = Instant::now();
            let mut ready = std::mem::take(&mut self.ready);
            for event in &events {
                match event.token() {
                    LISTENER => self.may_accept = true,
                    WAKER => {}
                    Token(token) => {
                        let id = ConnectionId(token as u64);
                        if event.is_writable() {
                            self.touched.push(id);
                        }
                        if (event.is_readable() || event.is_error()) && !ready.contains(&id) {
                            ready.push(id);
                        }
                    }
                }
            }
            for id in ready {
                self.receive(now, id);
            }
            self.wake_shards();
            if !self.send(now) {
                return;
            }
            if self.may_accept {
                self.accept(now);
            }
            if tick <= now {
                tick = now + TICK;
                self.look(now);
                // After a failure nobody tells of what waits.
                self.may_accept = true;
            }
        }
    }

    fn accept(&mut self, now: Instant) {
        for _ in 0..MAX_ACCEPTS {
            match self.listener.accept() {
                Ok((stream, from)) => self.admit(now, stream, from),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                    ) => {}
                Err(error) => {
                    self.may_accept = false;
                    self.has_failed = error.kind() != io::ErrorKind::WouldBlock;
                    if self.has_failed {
                        // No descriptors, most likely; the next tick tries again.
                        tracing::warn!(%error, "a TCP connection for media could not be taken");
                        self.ways.counters.note_refused();
                    }
                    return;
                }
            }
        }
    }

    fn admit(&mut self, now: Instant, mut stream: TcpStream, from: SocketAddr) {
        match self.table.admit(from) {
            Admission::Admitted => {}
            Admission::InPlaceOf(displaced) => self.close(displaced, End::Refused),
            Admission::Refused => {
                self.ways.counters.note_refused();
                return;
            }
        }
        let id = ConnectionId(self.next);
        self.next += 1;
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = Token(usize::try_from(id.0).unwrap_or(usize::MAX));
        if self.poll.registry().register(&mut stream, token, interest).is_err() {
            self.ways.counters.note_refused();
            return;
        }
        self.table.insert(id, Connection::new(now, id, stream, from));
        self.count();
    }

    fn receive(&mut self, now: Instant, id: ConnectionId) {
        let Self { table, ways, buffer, woken, .. } = self;
        let Some(connection) = table.get(id) else { return };
        let outcome = connection.receive(now, buffer, |shard, path: Path, datagram| {
            let Some((arrivals, _)) = ways.shards.get(shard) else {
                return ways.counters.note_drops(1);
            };
            match arrivals.try_send(Arrival { path, bytes: datagram.to_vec() }) {
                Ok(()) => woken[shard] = true,
                Err(_) => ways.counters.note_drops(1),
            }
        });
        match outcome {
            Ok(true) => self.ready.push(id),
            Ok(false) => {}
            Err(end) => self.close(id, end),
        }
    }

    fn wake_shards(&mut self) {
        for ((_, waker), woken) in self.ways.shards.iter().zip(&mut self.woken) {
            if std::mem::take(woken) {
                // A shard that cannot be woken has ended.
                let _ = waker.wake();
            }
        }
    }

    /// Takes what shards have for connections and sends what these take. `false`: all shards have ended.
    fn send(&mut self, now: Instant) -> bool {
        while let Ok(told) = self.ways.told.try_recv() {
            match told {
                Told::Bound(id) => self.table.note_bound(id),
                Told::Forgotten(id) => {
                    self.table.note_forgotten(now, id);
                }
            }
        }
        let goes_on = loop {
            match self.ways.departures.try_recv() {
                Ok(Departure { connection: id, bytes, count }) => {
                    if self.table.get(id).is_some_and(|connection| connection.push(&bytes)) {
                        self.touched.push(id);
                    } else {
                        self.ways.counters.note_drops(count);
                    }
                }
                Err(TryRecvError::Empty) => break true,
                Err(TryRecvError::Disconnected) => break false,
            }
        };
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        for id in touched.drain(..) {
            if let Some(Err(end)) = self.table.get(id).map(Connection::flush) {
                self.close(id, end);
            }
        }
        self.touched = touched;
        goes_on
    }

    /// Closes what has had its time.
    fn look(&mut self, now: Instant) {
        let over: Vec<_> =
            self.table.iter().filter_map(|(id, connection)| Some((id, connection.end(now)?))).collect();
        for (id, end) in over {
            self.close(id, end);
        }
    }

    fn close(&mut self, id: ConnectionId, end: End) {
        let Some(mut connection) = self.table.remove(id) else { return };
        if end == End::Refused {
            self.ways.counters.note_refused();
        }
        // Closing it would do the same.
        let _ = self.poll.registry().deregister(connection.stream());
        self.count();
    }

    fn count(&self) {
        self.ways.counters.open.store(self.table.len() as u64, Ordering::Relaxed);
    }
}
