//! The threads that own the clients' sockets.
//!
//! A thread sleeps until its next packet is due, at most a millisecond, and then does everything that has come up
//! meanwhile at once: thousands of sockets do not wake it for every datagram. What that adds to a latency does
//! not count, because datagrams carry the kernel's time of arrival. What it takes from the server would count, where
//! both run on one processor: so nothing is read while the server is busy with what has just been sent to it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::client::{Captured, Client, Configuration, Context, Counters, GROUPS, Shared};
use crate::dtls::{Ciphers, Identity};
use crate::histogram::Histogram;
use crate::socket::{Batch, Poller, Socket};
use crate::stun::Credentials;

/// The longest sleep while there are clients; sockets are read about this often.
const TICK: Duration = Duration::from_millis(1);
/// How long a server is left alone with a packet, for each client that should get it …
const FORWARDING: Duration = Duration::from_micros(10);
/// … and how long the sockets go unread for that at most.
const UNREAD: Duration = Duration::from_millis(20);

/// A client, by its number.
pub type Key = u64;

enum Command {
    Open { key: Key, socket: Socket, local: Credentials, room: u32, group: usize, shared: Arc<Shared> },
    Configure { key: Key, configuration: Box<Configuration> },
    Close { key: Key },
    Take { reply: oneshot::Sender<Interval> },
}

/// What happened since the last look.
#[derive(Debug, Clone, Default)]
pub struct Interval {
    pub counters: Counters,
    /// One-way latency in µs, by group of clients.
    pub latency: [Histogram; GROUPS],
    /// Processor time of the generator's media threads.
    pub busy: Duration,
}

impl Interval {
    pub fn merge(&mut self, other: &Self) {
        self.counters.add(&other.counters);
        self.latency.iter_mut().zip(&other.latency).for_each(|(mine, theirs)| mine.merge(theirs));
        self.busy += other.busy;
    }
}

/// How the clients of a run behave.
#[derive(Clone)]
pub struct Settings {
    pub threads: usize,
    pub ciphers: Ciphers,
    /// One of so many media packets is decrypted.
    pub sample: u16,
    pub captured: Option<Captured>,
}

/// All threads. They end when this is dropped.
pub struct Engine {
    identity: Identity,
    threads: Vec<(Sender<Command>, Option<JoinHandle<()>>)>,
    next: AtomicU64,
}

impl Engine {
    /// # Errors
    /// When a thread, an epoll instance or an identity cannot be had.
    pub fn start(settings: Settings) -> io::Result<Self> {
        let identity = Identity::generate().map_err(|error| io::Error::other(error.to_string()))?;
        let mut threads = Vec::new();
        for number in 0..settings.threads.max(1) {
            let (sender, commands) = channel();
            let context = Context {
                identity: identity.clone(),
                ciphers: settings.ciphers,
                sample: settings.sample.max(1),
                counters: Counters::default(),
                latency: Default::default(),
                captured: settings.captured.clone(),
                packet: Vec::new(),
            };
            let poller = Poller::new()?;
            let thread = std::thread::Builder::new()
                .name(format!("load-{number}"))
                .spawn(move || Thread::new(commands, poller, context).run())?;
            threads.push((sender, Some(thread)));
        }
        Ok(Self { identity, threads, next: AtomicU64::new(0) })
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    fn send(&self, key: Key, command: Command) {
        // A thread ends only with the engine.
        let _ = self.threads[key as usize % self.threads.len()].0.send(command);
    }

    /// Takes over a socket as a client that waits for its [`Configuration`].
    pub fn open(
        &self,
        socket: Socket,
        local: Credentials,
        room: u32,
        group: usize,
        shared: Arc<Shared>,
    ) -> Key {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        self.send(key, Command::Open { key, socket, local, room, group, shared });
        key
    }

    pub fn configure(&self, key: Key, configuration: Configuration) {
        self.send(key, Command::Configure { key, configuration: Box::new(configuration) });
    }

    pub fn close(&self, key: Key) {
        self.send(key, Command::Close { key });
    }

    /// What happened on all threads since the last call.
    pub async fn take(&self) -> Interval {
        let mut all = Interval::default();
        for (thread, _) in &self.threads {
            let (reply, interval) = oneshot::channel();
            let _ = thread.send(Command::Take { reply });
            if let Ok(interval) = interval.await {
                all.merge(&interval);
            }
        }
        all
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for (sender, thread) in std::mem::take(&mut self.threads) {
            drop(sender);
            if let Some(thread) = thread {
                let _ = thread.join();
            }
        }
    }
}

struct Thread {
    commands: Receiver<Command>,
    poller: Poller,
    context: Context,
    clients: HashMap<Key, Client>,
    due: BinaryHeap<Reverse<(Instant, Key)>>,
    batch: Batch,
    ready: Vec<u64>,
    /// When the sockets were read.
    read_at: Instant,
    /// Until then the server has to do with what was sent.
    forwarding_until: Instant,
    busy: Duration,
}

impl Thread {
    fn new(commands: Receiver<Command>, poller: Poller, context: Context) -> Self {
        Self {
            commands,
            poller,
            context,
            clients: HashMap::new(),
            due: BinaryHeap::new(),
            batch: Batch::default(),
            ready: Vec::new(),
            read_at: Instant::now(),
            forwarding_until: Instant::now(),
            busy: Duration::ZERO,
        }
    }

    fn run(mut self) {
        while self.handle_commands() {
            let now = Instant::now();
            if now >= self.forwarding_until || now.duration_since(self.read_at) >= UNREAD {
                self.read(now);
            }
            let due = self.context.counters.due;
            self.handle_timeouts();
            let deliveries = self.context.counters.due - due;
            if deliveries > 0 {
                self.forwarding_until = leave_alone(self.forwarding_until, Instant::now(), deliveries);
            }
            let now = Instant::now();
            let next = self.due.peek().map_or(TICK, |Reverse((due, _))| due.saturating_duration_since(now));
            if !next.is_zero() {
                std::thread::sleep(next.min(TICK));
            }
        }
        let now = Instant::now();
        self.clients.values_mut().for_each(|client| client.close(now));
    }

    fn read(&mut self, now: Instant) {
        self.read_at = now;
        self.poller.ready(&mut self.ready);
        for key in &self.ready {
            if let Some(client) = self.clients.get_mut(key) {
                client.receive(now, &mut self.batch, &mut self.context);
                schedule(&mut self.due, *key, client);
            }
        }
    }

    fn handle_timeouts(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((due, key))) = self.due.peek().copied()
            && due <= now
        {
            self.due.pop();
            if let Some(client) = self.clients.get_mut(&key)
                && client.scheduled == Some(due)
            {
                client.scheduled = None;
                client.handle_timeout(now, &mut self.context);
                schedule(&mut self.due, key, client);
            }
        }
    }

    /// `false` when the engine is gone.
    fn handle_commands(&mut self) -> bool {
        loop {
            // Without clients there is nothing else to wait for.
            let command = if self.clients.is_empty() {
                match self.commands.recv_timeout(Duration::from_secs(1)) {
                    Ok(command) => command,
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => return false,
                }
            } else {
                match self.commands.try_recv() {
                    Ok(command) => command,
                    Err(TryRecvError::Empty) => return true,
                    Err(TryRecvError::Disconnected) => return false,
                }
            };
            self.handle_command(command);
        }
    }

    fn handle_command(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Open { key, socket, local, room, group, shared } => {
                if self.poller.add(&socket, key).is_err() {
                    let _ = shared.failed.set("the socket cannot be watched");
                }
                self.clients.insert(key, Client::new(Arc::new(socket), local, room, group, shared, now));
            }
            Command::Configure { key, configuration } => {
                if let Some(client) = self.clients.get_mut(&key) {
                    client.configure(now, *configuration, &mut self.context);
                    schedule(&mut self.due, key, client);
                }
            }
            Command::Close { key } => {
                if let Some(mut client) = self.clients.remove(&key) {
                    client.close(now);
                }
            }
            Command::Take { reply } => {
                let busy = thread_time();
                let interval = Interval {
                    counters: std::mem::take(&mut self.context.counters),
                    latency: std::mem::take(&mut self.context.latency),
                    busy: busy.saturating_sub(self.busy),
                };
                self.busy = busy;
                let _ = reply.send(interval);
            }
        }
    }
}

/// Until when the server is left alone after so many more packets to be delivered.
fn leave_alone(until: Instant, now: Instant, deliveries: u64) -> Instant {
    let longest = now + UNREAD;
    let more = FORWARDING.saturating_mul(u32::try_from(deliveries).unwrap_or(u32::MAX));
    until.max(now).checked_add(more).map_or(longest, |until| until.min(longest))
}

fn schedule(due: &mut BinaryHeap<Reverse<(Instant, Key)>>, key: Key, client: &mut Client) {
    let next = client.poll_timeout();
    if client.scheduled.is_none_or(|scheduled| next < scheduled) {
        client.scheduled = Some(next);
        due.push(Reverse((next, key)));
    }
}

/// Processor time of the calling thread.
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    if result == 0 { Duration::new(time.tv_sec as u64, time.tv_nsec as u32) } else { Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_left_alone_for_as_long_as_it_forwards_and_not_for_ever() {
        let now = Instant::now();
        let after_a_frame = leave_alone(now, now, 600);
        assert_eq!(after_a_frame, now + 600 * FORWARDING);
        assert_eq!(
            leave_alone(after_a_frame, now, 100),
            now + 700 * FORWARDING,
            "the next one waits behind it"
        );
        let later = now + Duration::from_secs(1);
        assert_eq!(leave_alone(after_a_frame, later, 3), later + 3 * FORWARDING);
        assert_eq!(leave_alone(now, now, u64::MAX), now + UNREAD);
    }
}
