//! A room on a media plane in this process: one publisher that paces real frames, and any number of subscribers.
//!
//! ```text
//!   Room (tokio: opens endpoints, answers offers) ── Command ──▶ thread `load-in`: all subscribers
//!                                                               thread `load-out`: the publisher
//! ```

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::message::{Answer, Offer};
use common::model::{EndpointId, ParticipantId, PipelineId};
use media_worker::media::{MediaConfig, MediaEvent, MediaPlane, OpenEndpoint};

use crate::client::{AUDIO_SSRC, Client, Identity, VIDEO_SSRC};
use crate::clock;

/// 1.5 Mbit/s at 30 frames a second, and 50 Opus packets.
pub const VIDEO_PACKETS_PER_FRAME: u32 = 5;
const VIDEO_PAYLOAD: usize = 1_200;
const FRAME: Duration = Duration::from_nanos(33_333_333);
const AUDIO_PAYLOAD: usize = 100;
const AUDIO: Duration = Duration::from_millis(20);
/// Packets that a publisher sends in a second.
pub const PACKETS_PER_SECOND: u64 = 30 * VIDEO_PACKETS_PER_FRAME as u64 + 50;
/// Where the send time is: behind a VP8 descriptor and the first byte of the frame.
const TIME_AT: usize = 4;
/// One of so many subscribers opens what it receives and looks at the time.
const SAMPLED: usize = 10;
/// How often the subscribers' sockets are emptied.
const SWEEP: Duration = Duration::from_millis(10);

/// What the subscribers saw.
#[derive(Default)]
pub struct Seen {
    pub received: AtomicU64,
    /// One-way latencies in nanoseconds, of the sampled subscribers.
    latencies: Mutex<Vec<u32>>,
    /// From the start of its join to a subscriber's first media packet.
    joins: Mutex<Vec<Duration>>,
    /// The publisher's last sealed packet.
    pub replayed: Mutex<Vec<u8>>,
}

impl Seen {
    /// The sorted latencies since the last call, in milliseconds.
    pub fn take_latencies(&self) -> Vec<f64> {
        let mut all = std::mem::take(&mut *self.latencies.lock().expect("nobody panics with it"));
        all.sort_unstable();
        all.into_iter().map(|it| f64::from(it) / 1e6).collect()
    }

    /// The sorted times to first media since the last call, in milliseconds.
    pub fn take_joins(&self) -> Vec<f64> {
        let mut all = std::mem::take(&mut *self.joins.lock().expect("nobody panics with it"));
        all.sort_unstable();
        all.into_iter().map(|it| it.as_secs_f64() * 1e3).collect()
    }
}

/// The value below which a share of a sorted list lies.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted.get(((sorted.len().saturating_sub(1)) as f64 * share) as usize).copied().unwrap_or(f64::NAN)
}

struct Joining {
    client: Client,
    description: String,
    began: Instant,
    sampled: bool,
}

/// See the module.
pub struct Room {
    pub plane: MediaPlane,
    pub identity: Arc<Identity>,
    pub seen: Arc<Seen>,
    pipeline_id: PipelineId,
    joins: Sender<Joining>,
    opening: Arc<Mutex<HashMap<EndpointId, (Client, Instant)>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    events: tokio::task::JoinHandle<()>,
    number: u32,
}

impl Room {
    /// Starts a media plane, and a publisher on it.
    pub async fn open(config: MediaConfig, gcm: bool) -> Self {
        let (plane, mut incoming) = MediaPlane::start(config).expect("the media plane starts");
        let identity = Arc::new(Identity::new(gcm));
        let (seen, stop) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
        let opening = Arc::new(Mutex::new(HashMap::<EndpointId, (Client, Instant)>::new()));
        let (joins, joining) = channel();
        let events = tokio::spawn({
            let (plane, opening, joins) = (plane.clone(), Arc::clone(&opening), joins.clone());
            async move {
                let mut subscribers = 0;
                while let Some(event) = incoming.recv().await {
                    let MediaEvent::Offer { endpoint_id, revision, sdp, .. } = event else { continue };
                    let found = opening.lock().expect("nobody panics with it").remove(&endpoint_id);
                    let Some((mut client, began)) = found else { continue };
                    client.learn(&sdp);
                    let answer = Answer { sdp: client.answer(&sdp), revision };
                    let sampled = subscribers % SAMPLED == 0;
                    subscribers += 1;
                    plane.answer(endpoint_id, answer).await.expect("the answer is acceptable");
                    let joining = Joining { client, description: sdp, began, sampled };
                    if joins.send(joining).is_err() {
                        return;
                    }
                }
            }
        });
        let receiving = std::thread::Builder::new()
            .name("load-in".to_string())
            .spawn({
                let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
                move || receive(&joining, &seen, &stop)
            })
            .expect("a thread");
        let mut room = Self {
            plane,
            identity,
            seen,
            pipeline_id: PipelineId::new(),
            joins,
            opening,
            stop,
            threads: vec![receiving],
            events,
            number: 0,
        };
        room.publish().await;
        room
    }

    async fn endpoint(&mut self, publishes: bool) -> (EndpointId, Client) {
        self.number += 1;
        let server = self.plane.local_addr();
        let client = Client::new(&self.identity, server, self.number).expect("a client");
        let endpoint_id = EndpointId::new();
        let open = OpenEndpoint {
            endpoint_id,
            pipeline_id: self.pipeline_id,
            participant_id: ParticipantId::new(),
            can_publish: publishes,
            can_subscribe: !publishes,
            server_offers: !publishes,
            treatment: Default::default(),
            fixed: None,
        };
        if publishes {
            self.plane.open_endpoint(open).await.expect("an endpoint");
            return (endpoint_id, client);
        }
        // The offer may come before the call returns.
        unreachable_if_poisoned(&self.opening).insert(endpoint_id, (client, Instant::now()));
        self.plane.open_endpoint(open).await.expect("an endpoint");
        let placeholder = Client::new(&self.identity, server, 0).expect("a client");
        (endpoint_id, placeholder)
    }

    async fn publish(&mut self) {
        let (endpoint_id, mut client) = self.endpoint(true).await;
        let offer = Offer { sdp: client.offer(), revision: None, tracks: Vec::new() };
        let negotiated = self.plane.offer(endpoint_id, offer).await.expect("the offer is acceptable");
        client.learn(&negotiated.answer.sdp);
        let (seen, stop) = (Arc::clone(&self.seen), Arc::clone(&self.stop));
        let publishing = std::thread::Builder::new()
            .name("load-out".to_string())
            .spawn(move || publish(client, &seen, &stop))
            .expect("a thread");
        self.threads.push(publishing);
    }

    /// Lets one more subscriber in.
    pub async fn join(&mut self) {
        self.endpoint(false).await;
    }

    /// Waits until every one of `subscribers` gets nine tenths of what is published.
    pub async fn flowing(&self, subscribers: usize) {
        let wanted = PACKETS_PER_SECOND * subscribers as u64 * 9 / 10;
        for _ in 0..60 {
            let before = self.seen.received.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(1)).await;
            if self.seen.received.load(Ordering::Relaxed) - before >= wanted {
                return;
            }
        }
        panic!("media does not flow to all {subscribers} subscribers");
    }

    /// Ends the room and its media plane.
    pub async fn close(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.events.abort();
        for thread in self.threads.drain(..) {
            thread.join().expect("the load does not panic");
        }
        self.plane.shutdown().await;
        drop(self.joins);
    }
}

fn unreachable_if_poisoned<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with it")
}

struct Subscriber {
    client: Client,
    began: Instant,
    sampled: bool,
    was_seen: bool,
}

fn receive(joining: &Receiver<Joining>, seen: &Seen, stop: &AtomicBool) {
    let mut subscribers: Vec<Subscriber> = Vec::new();
    let mut buffer = vec![0; 2048];
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        while let Ok(Joining { mut client, description, began, sampled }) = joining.try_recv() {
            clock::stamp(&client.socket).expect("a stamp");
            client.learn(&description);
            subscribers.push(Subscriber { client, began, sampled, was_seen: false });
        }
        for subscriber in &mut subscribers {
            sweep(subscriber, &mut buffer, seen);
        }
        next += SWEEP;
        let now = Instant::now();
        // While somebody connects, it is their turn more often: a handshake has several flights.
        let connecting = subscribers.iter().any(|it| !it.client.is_connected());
        if connecting {
            next = now + Duration::from_millis(1);
        }
        if next > now {
            std::thread::sleep(next - now);
        } else {
            next = now;
        }
    }
}

fn sweep(subscriber: &mut Subscriber, buffer: &mut [u8], seen: &Seen) {
    let now = Instant::now();
    let before = subscriber.client.received;
    while let Some((length, at)) = clock::receive(&subscriber.client.socket, buffer) {
        let opened = subscriber.client.handle(now, &buffer[..length], subscriber.sampled);
        let Some(opened) = opened else { continue };
        if let Some(time) = payload_of(&opened)
            .and_then(|payload| payload.get(TIME_AT..))
            .and_then(|it| it.first_chunk::<8>())
            && opened[1] & 0x7f != 111
        {
            let latency = at.saturating_sub(u64::from_be_bytes(*time));
            unreachable_if_poisoned(&seen.latencies).push(u32::try_from(latency).unwrap_or(u32::MAX));
        }
    }
    seen.received.fetch_add(subscriber.client.received - before, Ordering::Relaxed);
    if !subscriber.was_seen
        && let Some(first) = subscriber.client.first_media
    {
        subscriber.was_seen = true;
        unreachable_if_poisoned(&seen.joins).push(first - subscriber.began);
    }
    subscriber.client.handle_timeout(now);
}

/// What stands behind the fixed header and its extension.
fn payload_of(packet: &[u8]) -> Option<&[u8]> {
    let has_extension = packet.first()? & 0x10 != 0;
    let words = packet.get(14..16).filter(|_| has_extension);
    let extension = words.map_or(0, |it| 4 + 4 * usize::from(u16::from_be_bytes([it[0], it[1]])));
    packet.get(12 + extension..)
}

fn publish(mut client: Client, seen: &Seen, stop: &AtomicBool) {
    let mut buffer = vec![0; 2048];
    let start = Instant::now();
    let (mut next_frame, mut next_audio) = (start, start + Duration::from_millis(7));
    let (mut video, mut audio) = (1_u16, 1_u16);
    let mut packet = Vec::with_capacity(1500);
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        while let Ok(length) = client.socket.recv(&mut buffer) {
            client.handle(now, &buffer[..length], false);
        }
        client.handle_timeout(now);
        if next_frame <= now {
            next_frame += FRAME;
            for part in 0..VIDEO_PACKETS_PER_FRAME {
                let marker = part + 1 == VIDEO_PACKETS_PER_FRAME;
                let time = u32::from(video / VIDEO_PACKETS_PER_FRAME as u16).wrapping_mul(3_000);
                head(&mut packet, 96, marker, video, time, VIDEO_SSRC);
                // Every frame is a keyframe, so nobody waits for one (RFC 7741, sections 4.2 and 4.3).
                packet.extend_from_slice(&[if part == 0 { 0x10 } else { 0 }, 0, 0, 0]);
                packet.extend_from_slice(&clock::now_ns().to_be_bytes());
                packet.resize(12 + VIDEO_PAYLOAD, 7);
                client.send_rtp(&packet);
                video = video.wrapping_add(1);
            }
            seen.replayed.lock().expect("nobody panics with it").clone_from(&client.last_sealed);
        }
        if next_audio <= now {
            next_audio += AUDIO;
            head(&mut packet, 111, false, audio, u32::from(audio).wrapping_mul(960), AUDIO_SSRC);
            packet.resize(12 + AUDIO_PAYLOAD, 7);
            client.send_rtp(&packet);
            audio = audio.wrapping_add(1);
        }
        let until = next_frame.min(next_audio).saturating_duration_since(Instant::now());
        std::thread::sleep(until.min(Duration::from_millis(5)));
    }
}

fn head(packet: &mut Vec<u8>, payload_type: u8, marker: bool, sequence: u16, time: u32, ssrc: u32) {
    packet.clear();
    packet.extend_from_slice(&[0x80, u8::from(marker) << 7 | payload_type]);
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&time.to_be_bytes());
    packet.extend_from_slice(&ssrc.to_be_bytes());
}
