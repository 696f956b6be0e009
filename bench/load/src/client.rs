//! One WebRTC client without any I/O of its own but `send`: checks, handshake, media out, media in.
//!
//! Cheap on purpose, or the generator would measure itself: received media is sorted by its header, and only a sample is
//! authenticated and decrypted (all of it on request).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use crate::dtls::{Ciphers, Dtls, Identity, Progress, Srtp};
use crate::histogram::Histogram;
use crate::receive::{Arrivals, Stream};
use crate::rtp::{self, Header, Report};
use crate::sdp::Received;
use crate::socket::{Overflow, Socket, wall_ns};
use crate::source::{Source, SourceConfig};
use crate::stamp::Stamp;
use crate::stun::{self, Credentials};

/// Before a path works, checks go to every candidate this often; then consent is renewed (RFC 7675).
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// The first flight of a handshake is repeated after this long, then after twice as long and so on, while the server has said
/// nothing: it may not have been ready for it. Browsers do the same; webrtc-rs' own interval is for later flights.
const HELLO_INTERVAL: Duration = Duration::from_millis(50);
const CONSENT_INTERVAL: Duration = Duration::from_millis(2_500);
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// RTP streams of one client; more are not ours.
const MAX_STREAMS: usize = 2_048;
/// Sealed packets kept for replaying them.
const MAX_CAPTURED: usize = 512;

/// Clients whose latencies are told apart: those of the scenario, and those of a join storm.
pub const GROUPS: usize = 2;

/// What other threads see of a client. Times are [`wall_ns`]; 0: not yet.
#[derive(Debug, Default)]
pub struct Shared {
    pub connected_at: AtomicU64,
    pub first_media_at: AtomicU64,
    /// When `expected_streams` had arrived.
    pub all_media_at: AtomicU64,
    pub streams: AtomicU32,
    pub expected_streams: AtomicU32,
    pub failed: OnceLock<&'static str>,
    pub profile: OnceLock<&'static str>,
    /// Where the server takes media, and its ICE fragment.
    pub server: OnceLock<(SocketAddr, String)>,
}

/// Counted since the last look.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counters {
    pub sent: u64,
    pub sent_bytes: u64,
    /// What arrives when the server forwards each sent packet to everyone who should get it.
    pub due: u64,
    /// RTP packets, repairs included.
    pub received: u64,
    pub received_bytes: u64,
    pub arrivals: Arrivals,
    pub repairs_received: u64,
    pub repairs_asked: u64,
    pub repairs_sent: u64,
    pub keyframes_sent: u64,
    pub keyframe_requests_received: u64,
    pub keyframe_requests_sent: u64,
    /// Packets that were decrypted …
    pub checked: u64,
    /// … that could not be …
    pub unreadable: u64,
    /// … and that belong to another room.
    pub misrouted: u64,
    /// Datagrams that nobody can place.
    pub unknown: u64,
    /// Datagrams that the kernel threw away because the generator was late.
    pub overflow: u64,
    pub unsent: u64,
}

impl Counters {
    pub fn add(&mut self, other: &Self) {
        let Self { arrivals, .. } = other;
        for (mine, theirs) in [
            (&mut self.sent, other.sent),
            (&mut self.sent_bytes, other.sent_bytes),
            (&mut self.due, other.due),
            (&mut self.received, other.received),
            (&mut self.received_bytes, other.received_bytes),
            (&mut self.arrivals.expected, arrivals.expected),
            (&mut self.arrivals.received, arrivals.received),
            (&mut self.arrivals.late, arrivals.late),
            (&mut self.arrivals.duplicates, arrivals.duplicates),
            (&mut self.repairs_received, other.repairs_received),
            (&mut self.repairs_asked, other.repairs_asked),
            (&mut self.repairs_sent, other.repairs_sent),
            (&mut self.keyframes_sent, other.keyframes_sent),
            (&mut self.keyframe_requests_received, other.keyframe_requests_received),
            (&mut self.keyframe_requests_sent, other.keyframe_requests_sent),
            (&mut self.checked, other.checked),
            (&mut self.unreadable, other.unreadable),
            (&mut self.misrouted, other.misrouted),
            (&mut self.unknown, other.unknown),
            (&mut self.overflow, other.overflow),
            (&mut self.unsent, other.unsent),
        ] {
            *mine += theirs;
        }
    }
}

/// Sealed packets of publishers, with what sends them and where to: for replays.
pub type Captured = Arc<Mutex<Vec<(Arc<Socket>, SocketAddr, Vec<u8>)>>>;

/// What the clients of one thread share.
pub struct Context {
    pub identity: Identity,
    pub ciphers: Ciphers,
    /// One of so many media packets is decrypted.
    pub sample: u16,
    pub counters: Counters,
    /// One-way, in µs, by group.
    pub latency: [Histogram; GROUPS],
    pub captured: Option<Captured>,
    pub packet: Vec<u8>,
}

/// What the signalling found out; may come again with more streams.
#[derive(Debug)]
pub struct Configuration {
    pub remote: Remote,
    pub sources: Vec<SourceConfig>,
    /// By payload type.
    pub received: HashMap<u8, Received>,
    /// Repair SSRC to repaired SSRC.
    pub repairs: HashMap<u32, u32>,
}

/// The server's side of the transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    pub credentials: Credentials,
    pub fingerprint: String,
    pub candidates: Vec<SocketAddr>,
    /// We control ICE.
    pub is_controlling: bool,
    /// We send the ClientHello.
    pub is_dtls_client: bool,
}

/// The first flight, until the server answers it.
struct Hello {
    flight: Vec<Vec<u8>>,
    due: Instant,
    interval: Duration,
}

pub struct Client {
    socket: Arc<Socket>,
    overflow: Overflow,
    local: Credentials,
    pub room: u32,
    group: usize,
    shared: Arc<Shared>,
    remote: Option<Remote>,
    selected: Option<SocketAddr>,
    next_check: Instant,
    dtls: Option<Dtls>,
    hello: Option<Hello>,
    srtp: Option<Box<Srtp>>,
    /// Sources that wait for the connection.
    waiting: Vec<SourceConfig>,
    sources: Vec<Source>,
    transport_sequence: u16,
    received: HashMap<u8, Received>,
    repairs: HashMap<u32, u32>,
    streams: Vec<Stream>,
    /// Where the last packet's stream was: packets come in runs.
    last_stream: usize,
    next_report: Instant,
    /// Our SSRC in reports without media of our own.
    ssrc: u32,
    /// The due time that the engine has noted.
    pub scheduled: Option<Instant>,
}

impl Client {
    pub fn new(
        socket: Arc<Socket>,
        local: Credentials,
        room: u32,
        group: usize,
        shared: Arc<Shared>,
        now: Instant,
    ) -> Self {
        Self {
            socket,
            overflow: Overflow::default(),
            local,
            room,
            group,
            shared,
            remote: None,
            selected: None,
            next_check: now,
            dtls: None,
            hello: None,
            srtp: None,
            waiting: Vec::new(),
            sources: Vec::new(),
            transport_sequence: rand::random(),
            received: HashMap::new(),
            repairs: HashMap::new(),
            streams: Vec::new(),
            last_stream: 0,
            next_report: now + REPORT_INTERVAL.mul_f64(rand::random()),
            ssrc: rand::random(),
            scheduled: None,
        }
    }

    fn fail(&self, why: &'static str) {
        // The first reason is the one that matters.
        let _ = self.shared.failed.set(why);
    }

    pub fn configure(&mut self, now: Instant, configuration: Configuration, context: &mut Context) {
        let Configuration { remote, sources, received, repairs } = configuration;
        if self.dtls.is_none() {
            let (is_client, print) = (remote.is_dtls_client, remote.fingerprint.clone());
            match Dtls::new(&context.identity, is_client, print, context.ciphers) {
                Ok(dtls) => self.dtls = Some(dtls),
                Err(_) => self.fail("DTLS could not be set up"),
            }
        }
        let known = |config: &SourceConfig| {
            self.sources.iter().map(Source::config).chain(&self.waiting).any(|it| it.ssrc == config.ssrc)
        };
        let new: Vec<SourceConfig> = sources.into_iter().filter(|config| !known(config)).collect();
        self.waiting.extend(new);
        self.received.extend(received);
        self.repairs.extend(repairs);
        self.remote = Some(remote);
        if self.srtp.is_some() {
            self.start_sources(now);
        }
        self.next_check = self.next_check.min(now);
        self.handle_timeout(now, context);
    }

    fn start_sources(&mut self, now: Instant) {
        self.sources.extend(self.waiting.drain(..).map(|config| Source::new(config, now)));
    }

    /// Reads everything that has arrived.
    pub fn receive(&mut self, now: Instant, batch: &mut crate::socket::Batch, context: &mut Context) {
        let socket = Arc::clone(&self.socket);
        let mut overflow = self.overflow;
        while socket.receive(batch, &mut overflow, |from, at, datagram| {
            self.handle_datagram(now, from, at, datagram, context);
        }) {}
        context.counters.overflow += u64::from(overflow.0.wrapping_sub(self.overflow.0));
        self.overflow = overflow;
    }

    fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        at: u64,
        datagram: &[u8],
        context: &mut Context,
    ) {
        // RFC 7983, section 7.
        match datagram.first() {
            Some(0..=3) => self.handle_stun(now, from, datagram, context),
            Some(20..=63) => {
                let Some(dtls) = &mut self.dtls else { return };
                self.hello = None;
                let progress = dtls.handle_datagram(now, datagram);
                self.progress(now, progress);
            }
            // RFC 5761, section 4.
            Some(128..=191) if datagram.get(1).is_some_and(|kind| (192..=223).contains(kind)) => {
                self.handle_reports(now, datagram, context);
            }
            Some(128..=191) => self.handle_media(now, at, datagram, context),
            _ => context.counters.unknown += 1,
        }
    }

    fn handle_stun(&mut self, now: Instant, from: SocketAddr, datagram: &[u8], context: &mut Context) {
        let crypto = context.identity.provider().crypto();
        match stun::read(datagram) {
            stun::Message::Request(transaction) => {
                self.socket.send(from, &stun::success(transaction, from, &self.local, crypto));
                // A controlling server checks from where its media will come.
                if self.remote.as_ref().is_some_and(|remote| !remote.is_controlling) {
                    self.select(now, from);
                }
            }
            stun::Message::Success(_) => self.select(now, from),
            stun::Message::Other => context.counters.unknown += 1,
        }
    }

    fn select(&mut self, now: Instant, path: SocketAddr) {
        let Some(remote) = &self.remote else { return };
        if self.selected.is_none() {
            self.selected = Some(path);
            self.next_check = now + CONSENT_INTERVAL;
            let _ = self.shared.server.set((path, remote.credentials.fragment.clone()));
        }
        let Some(dtls) = &mut self.dtls else { return };
        if !dtls.is_starting() {
            // As DTLS server there may be an answer that had no path so far.
            self.progress(now, Progress::Nothing);
            return;
        }
        if dtls.start(now) == Progress::Failed {
            self.fail("the DTLS handshake cannot start");
            return;
        }
        let flight: Vec<Vec<u8>> =
            std::iter::from_fn(|| dtls.poll_transmit()).map(|datagram| datagram.to_vec()).collect();
        flight.iter().for_each(|datagram| _ = self.socket.send(path, datagram));
        self.hello = Some(Hello { flight, due: now + HELLO_INTERVAL, interval: HELLO_INTERVAL });
    }

    fn progress(&mut self, now: Instant, progress: Progress) {
        let Some(dtls) = &mut self.dtls else { return };
        if let Some(path) = self.selected {
            while let Some(datagram) = dtls.poll_transmit() {
                self.socket.send(path, &datagram);
            }
        }
        match progress {
            Progress::Connected => {
                self.srtp = dtls.take_srtp();
                if let Some(srtp) = &self.srtp {
                    let _ = self.shared.profile.set(srtp.profile);
                }
                self.shared.connected_at.store(wall_ns(), Ordering::Relaxed);
                self.start_sources(now);
            }
            Progress::Closed => self.fail("the server closed the connection"),
            Progress::Failed => self.fail("the DTLS handshake failed"),
            Progress::Nothing => {}
        }
    }

    fn handle_reports(&mut self, now: Instant, datagram: &[u8], context: &mut Context) {
        let Some(srtp) = &mut self.srtp else { return };
        let Ok(compound) = srtp.inbound.decrypt_rtcp(datagram) else {
            context.counters.unreadable += 1;
            return;
        };
        for report in rtp::read_reports(&compound) {
            match report {
                Report::Nack { ssrc, lost } => {
                    if let Some(source) = self.sources.iter_mut().find(|it| it.config().ssrc == ssrc) {
                        source.request_repair(&lost);
                    }
                }
                Report::KeyframeRequest { ssrc } => {
                    if let Some(source) = self.sources.iter_mut().find(|it| it.config().ssrc == ssrc) {
                        context.counters.keyframe_requests_received += 1;
                        source.request_keyframe();
                    }
                }
                Report::Clock { ssrc, ntp } => {
                    if let Some(stream) = self.streams.iter_mut().find(|it| it.ssrc == ssrc) {
                        stream.handle_sender_report(now, ntp);
                    }
                }
            }
        }
    }

    fn handle_media(&mut self, now: Instant, at: u64, datagram: &[u8], context: &mut Context) {
        let Some(header) = Header::read(datagram) else {
            context.counters.unknown += 1;
            return;
        };
        let Some(kind) = self.received.get(&header.payload_type).copied() else {
            context.counters.unknown += 1;
            return;
        };
        context.counters.received += 1;
        context.counters.received_bytes += datagram.len() as u64;
        if kind.is_repair {
            self.handle_repair(&header, datagram, context);
            return;
        }
        let Some(index) = self.stream(&header, kind) else {
            context.counters.unknown += 1;
            return;
        };
        let stream = &mut self.streams[index];
        stream.handle_packet(now, at, header.sequence, header.timestamp, &mut context.counters.arrivals);
        // Every stream has its own share of the numbers, so that bursts to many clients are sampled evenly.
        let sampled = header.sequence.wrapping_add(header.ssrc as u16).is_multiple_of(context.sample);
        if sampled && let Some(stamp) = self.decrypt(datagram, context) {
            let micros = at.saturating_sub(stamp.sent) / 1_000;
            context.latency[self.group].record(micros);
        }
    }

    /// The stamp of a packet, when it can be decrypted.
    fn decrypt(&mut self, datagram: &[u8], context: &mut Context) -> Option<Stamp> {
        let srtp = self.srtp.as_mut()?;
        context.counters.checked += 1;
        let stamp = srtp.inbound.decrypt_rtp(datagram).ok().and_then(|packet| Stamp::at_end_of(&packet));
        match stamp {
            None => context.counters.unreadable += 1,
            Some(stamp) if stamp.room != self.room => context.counters.misrouted += 1,
            Some(_) => {}
        }
        stamp
    }

    fn handle_repair(&mut self, header: &Header, datagram: &[u8], context: &mut Context) {
        context.counters.repairs_received += 1;
        let Some(srtp) = &mut self.srtp else { return };
        let Ok(packet) = srtp.inbound.decrypt_rtp(datagram) else {
            context.counters.unreadable += 1;
            return;
        };
        // RFC 4588, section 4: the original number is in front.
        let Some(number) = packet.get(header.length..header.length + 2) else { return };
        let number = u16::from_be_bytes([number[0], number[1]]);
        let Some(repaired) = self.repairs.get(&header.ssrc) else { return };
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.ssrc == *repaired) {
            stream.handle_repair(number, &mut context.counters.arrivals);
        }
    }

    fn stream(&mut self, header: &Header, kind: Received) -> Option<usize> {
        if self.streams.get(self.last_stream).is_some_and(|stream| stream.ssrc == header.ssrc) {
            return Some(self.last_stream);
        }
        let known = self.streams.iter().position(|stream| stream.ssrc == header.ssrc);
        self.last_stream = match known {
            Some(index) => index,
            None if self.streams.len() < MAX_STREAMS => {
                let clock_rate = if kind.is_audio { 48_000 } else { 90_000 };
                self.streams.push(Stream::new(header.ssrc, clock_rate, kind.with_nack));
                let count = self.streams.len() as u32;
                self.shared.streams.store(count, Ordering::Relaxed);
                let now = wall_ns();
                let _ =
                    self.shared.first_media_at.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
                if count == self.shared.expected_streams.load(Ordering::Relaxed) {
                    self.shared.all_media_at.store(now, Ordering::Relaxed);
                }
                self.streams.len() - 1
            }
            None => return None,
        };
        Some(self.last_stream)
    }

    pub fn poll_timeout(&self) -> Instant {
        let mut due = self.next_check;
        if self.srtp.is_some() {
            due = due.min(self.next_report);
        }
        if let Some(hello) = &self.hello {
            due = due.min(hello.due);
        }
        let dtls = self.dtls.as_ref().and_then(Dtls::poll_timeout);
        let sources = self.sources.iter().map(Source::poll_timeout);
        let streams = self.streams.iter().filter_map(Stream::poll_timeout);
        dtls.into_iter().chain(sources).chain(streams).fold(due, Instant::min)
    }

    pub fn handle_timeout(&mut self, now: Instant, context: &mut Context) {
        if now >= self.next_check {
            self.check(now, context);
        }
        if let Some(dtls) = &mut self.dtls
            && dtls.poll_timeout().is_some_and(|due| due <= now)
        {
            let progress = dtls.handle_timeout(now);
            self.progress(now, progress);
        }
        if let (Some(hello), Some(path)) = (&mut self.hello, self.selected)
            && hello.due <= now
        {
            hello.flight.iter().for_each(|datagram| _ = self.socket.send(path, datagram));
            hello.interval *= 2;
            hello.due = now + hello.interval;
        }
        self.send_media(now, context);
        self.send_reports(now, context);
    }

    fn check(&mut self, now: Instant, context: &mut Context) {
        let interval = if self.selected.is_some() { CONSENT_INTERVAL } else { CHECK_INTERVAL };
        self.next_check = now + interval;
        let Some(remote) = &self.remote else { return };
        let crypto = context.identity.provider().crypto();
        let paths = match &self.selected {
            Some(path) => std::slice::from_ref(path),
            None => &remote.candidates[..],
        };
        for path in paths {
            let check = stun::request(
                &self.local,
                &remote.credentials,
                remote.is_controlling,
                rand::random(),
                crypto,
            );
            self.socket.send(*path, &check);
        }
    }

    fn send_media(&mut self, now: Instant, context: &mut Context) {
        let (Some(srtp), Some(path)) = (&mut self.srtp, self.selected) else { return };
        let mut packet = std::mem::take(&mut context.packet);
        for source in &mut self.sources {
            loop {
                let wall = wall_ns();
                let number = &mut self.transport_sequence;
                if source.poll_repair(wall, number, &mut packet) {
                    context.counters.repairs_sent += 1;
                } else if let Some(sent) = source.poll_packet(now, wall, number, &mut packet) {
                    context.counters.due += u64::from(sent.receivers);
                    context.counters.keyframes_sent += u64::from(sent.is_key_start);
                } else {
                    break;
                }
                let Ok(sealed) = srtp.outbound.encrypt_rtp(&packet) else {
                    context.counters.unsent += 1;
                    continue;
                };
                let sent = self.socket.send(path, &sealed);
                context.counters.unsent += u64::from(!sent);
                context.counters.sent += 1;
                context.counters.sent_bytes += sealed.len() as u64;
                if let Some(captured) = &context.captured
                    && let Ok(mut captured) = captured.lock()
                    && captured.len() < MAX_CAPTURED
                {
                    captured.push((Arc::clone(&self.socket), path, sealed.to_vec()));
                }
            }
        }
        context.packet = packet;
    }

    fn send_reports(&mut self, now: Instant, context: &mut Context) {
        let (Some(srtp), Some(path)) = (&mut self.srtp, self.selected) else { return };
        let mut out = Vec::new();
        if now >= self.next_report {
            self.next_report = now + REPORT_INTERVAL;
            let wall = wall_ns();
            self.sources.iter().for_each(|source| source.report(now, wall, &mut out));
            let blocks: Vec<rtp::Block> = self.streams.iter_mut().map(|stream| stream.block(now)).collect();
            // A report for each, so that none outgrows a datagram.
            for blocks in blocks.chunks(31) {
                rtp::write_receiver_reports(&mut out, self.ssrc, blocks);
                send_report(srtp, &self.socket, path, &mut out, context);
            }
            if !out.is_empty() {
                send_report(srtp, &self.socket, path, &mut out, context);
            }
        }
        for stream in &mut self.streams {
            if stream.poll_timeout().is_none_or(|due| due > now) {
                continue;
            }
            let lost = stream.poll_lost(now);
            if !lost.is_empty() {
                context.counters.repairs_asked += lost.len() as u64;
                rtp::write_receiver_reports(&mut out, self.ssrc, &[]);
                rtp::write_nack(&mut out, self.ssrc, stream.ssrc, &lost);
            }
            if stream.take_gave_up() {
                context.counters.keyframe_requests_sent += 1;
                rtp::write_receiver_reports(&mut out, self.ssrc, &[]);
                rtp::write_keyframe_request(&mut out, self.ssrc, stream.ssrc);
            }
            if !out.is_empty() {
                send_report(srtp, &self.socket, path, &mut out, context);
            }
        }
    }

    /// Says goodbye.
    pub fn close(&mut self, now: Instant) {
        if let (Some(dtls), Some(path)) = (&mut self.dtls, self.selected) {
            dtls.close(now);
            while let Some(datagram) = dtls.poll_transmit() {
                self.socket.send(path, &datagram);
            }
        }
    }
}

fn send_report(srtp: &mut Srtp, socket: &Socket, path: SocketAddr, out: &mut Vec<u8>, context: &mut Context) {
    match srtp.outbound.encrypt_rtcp(out) {
        Ok(sealed) => _ = socket.send(path, &sealed),
        Err(_) => context.counters.unsent += 1,
    }
    out.clear();
}
