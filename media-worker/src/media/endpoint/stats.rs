//! What can be said of an endpoint: its figures on request; their rates, and how good its connection is, by a look every
//! two seconds.
//!
//! Packets only count (see [`crate::media::rtp::meter`]); everything else is worked out here.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::message::{
    AddressFamily, CandidateType, EncodingStats, EndpointStats, LayerStats, PathProtocol, PathStats,
    PublishedStats, RemoteInboundStats, SubscribedStats, SubscriptionState, TargetStats, TransportStats,
};
use common::model::{EndpointState, NetworkSummary, Quality, TrackKind};
use common::time::UnixMillis;
use sfu::{EncodingId, PublicationId, Session, Standing, Target};

use super::lines::{Carried, Line, Sending};
use super::totals::Totals;
use super::{Effects, Endpoint, Life};
use crate::media::rtp::receive::Receiver;
use crate::media::rtp::reported::Reported;
use crate::media::rtp::send::Sender;
use crate::media::transport::{Local, Path};
use crate::quality::{Facts, Grade};

/// Between two looks: long enough for every client to have reported, short enough for a person who waits.
const INTERVAL: Duration = Duration::from_secs(2);
/// Addresses in a client's candidates that are remembered.
const MAX_CANDIDATES: usize = 32;
/// A share of fewer packets says little: one that is lost of a pause in speech is no tenth.
const LEAST_PACKETS: f64 = 20.0;
/// No jitter buffer holds more than this: a client that reports it has not learnt the stream's clock yet. Milliseconds.
const MOST_JITTER: f64 = 1000.0;
/// A client's report about a stream that is older says nothing of now.
const REPORT_AGE: Duration = Duration::from_secs(15);

/// What is kept between two looks.
pub struct Watch {
    due: Instant,
    /// The connection came (back) up since the last look: the gap before that shows as loss in this window.
    has_resumed: bool,
    grade: Grade,
    totals: Totals,
    /// The addresses that the client has named, and as what.
    candidates: Vec<(SocketAddr, CandidateType)>,
}

impl Watch {
    pub fn new(now: Instant) -> Self {
        Self {
            due: now + INTERVAL,
            has_resumed: false,
            grade: Grade::new(now),
            totals: Totals::default(),
            candidates: Vec::new(),
        }
    }

    /// Notes what a client calls an address of its own, from a candidate that was found good. One with a name in place
    /// of an address (mDNS) says nothing.
    pub fn note_candidate(&mut self, text: &str) {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let [_, _, _, _, address, port, "typ", kind, ..] = words[..] else { return };
        let (Ok(address), Ok(port)) = (address.parse(), port.parse()) else { return };
        let kind = match kind {
            "host" => CandidateType::Host,
            "srflx" => CandidateType::Srflx,
            "relay" => CandidateType::Relay,
            _ => CandidateType::Prflx,
        };
        if self.candidates.len() < MAX_CANDIDATES {
            self.candidates.push((SocketAddr::new(address, port), kind));
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        Some(self.due)
    }

    fn path(&self, path: Path) -> PathStats {
        // A dual-stack socket shows IPv4 clients as mapped IPv6 addresses.
        let remote = SocketAddr::new(path.remote.ip().to_canonical(), path.remote.port());
        let named = self.candidates.iter().find(|(address, _)| *address == remote);
        PathStats {
            protocol: match path.local {
                Local::Connection(_) => PathProtocol::Tcp,
                Local::Unknown | Local::Address(_) => PathProtocol::Udp,
            },
            address_family: if remote.is_ipv4() { AddressFamily::Ipv4 } else { AddressFamily::Ipv6 },
            remote_candidate_type: named.map_or(CandidateType::Prflx, |(_, kind)| *kind),
        }
    }
}

impl Endpoint {
    /// Looks at all rates and grades the connection, when that is due or the connection was lost.
    pub(super) fn look(&mut self, now: Instant, session: &Session, effects: &mut Effects) {
        let is_due = self.watch.due <= now;
        let level = self.watch.grade.level();
        let has_resumed = self.watch.has_resumed;
        if is_due {
            self.measure(now);
            self.watch.totals.pass(now, level);
        }
        let changed = match self.life {
            Life::Disconnected { .. } => self.watch.grade.note(now, None),
            Life::Connected if is_due => {
                let mut facts = self.facts(now, session);
                if has_resumed {
                    (facts.audio_loss, facts.video_loss) = (0.0, 0.0);
                }
                self.watch.totals.note_path(facts.round_trip_ms, self.bandwidth.estimate(now));
                self.watch.grade.note(now, Some(&facts))
            }
            _ => false,
        };
        if changed {
            self.watch.totals.pass(now, level);
            effects.quality = Some(self.watch.grade.level());
        }
    }

    /// The connection is up, or back: what was lost before that is not held against it.
    pub(super) fn resume_looking(&mut self, now: Instant) {
        self.watch.totals.begin(now);
        self.measure(now);
        self.watch.has_resumed = true;
    }

    /// Ends a window of all rates and begins the next.
    fn measure(&mut self, now: Instant) {
        let Self { watch, streams, lines, repairs, .. } = self;
        watch.due = now + INTERVAL;
        let counts = !std::mem::take(&mut watch.has_resumed);
        for receiver in streams.receivers() {
            receiver.look(now);
            if counts {
                let (expected, lost) = receiver.window();
                watch.totals.note_received(expected.into(), lost.into());
                repairs.lost_in += u64::from(lost);
            }
        }
        for line in lines {
            let Some(sender) = line.sending_mut().and_then(|it| it.carried.as_mut()?.sender.as_mut()) else {
                continue;
            };
            sender.meter.look(now);
            if let Some(fraction) = reported_loss(now, &sender.reported).filter(|_| counts) {
                let packets = sender.meter.packets_between() as f64;
                watch.totals.note_sent(packets, packets * fraction);
                repairs.lost_out += (packets * fraction).round() as u64;
            }
        }
    }

    /// From the connection's beginning until now.
    pub fn summary(&self, now: Instant) -> NetworkSummary {
        let path = self.ice.selected().map(|path| self.watch.path(path));
        self.watch.totals.summary(now, self.id, self.watch.grade.level(), path)
    }

    /// The same at its end; `None` when it never was up.
    pub fn last_summary(&self, now: Instant) -> Option<NetworkSummary> {
        self.watch.totals.has_begun().then(|| self.summary(now))
    }

    /// What the last look shows of the connection.
    fn facts(&self, now: Instant, session: &Session) -> Facts {
        let mut facts = Facts { round_trip_ms: self.round_trip().map(milliseconds), ..Facts::default() };
        let (mut audio_jitter, mut video_jitter) = (None, None);
        let (mut got, mut sent) = (Share::default(), Share::default());
        let mut note = |kind: TrackKind, lost: f64, packets: f64, jitter: f64| {
            let loss = lost / packets.max(LEAST_PACKETS);
            let (known, worst_jitter): (&mut f64, &mut Option<f64>) = match kind {
                TrackKind::Audio => (&mut facts.audio_loss, &mut audio_jitter),
                TrackKind::Video => (&mut facts.video_loss, &mut video_jitter),
            };
            *known = known.max(loss);
            if jitter <= MOST_JITTER {
                *worst_jitter = Some(worst_jitter.unwrap_or_default().max(jitter));
            }
        };
        for (index, line) in self.lines.iter().enumerate() {
            if let Some(published) = line.receiving().and_then(|it| it.published.as_ref())
                && !published.track.muted
            {
                let (mut encodings, mut alive) = (0u32, 0u32);
                for (encoding, (_, receiver)) in (0..).map(EncodingId).zip(self.streams.encodings_of(index)) {
                    encodings += 1;
                    let Some(receiver) = receiver.filter(|it| it.meter.is_active()) else { continue };
                    alive += u32::from(session.is_alive(published.publication, encoding));
                    let (expected, lost) = receiver.window();
                    note(published.track.kind, lost.into(), expected.into(), milliseconds(receiver.jitter()));
                }
                // What nobody watches need not be sent.
                let wanted = u32::from(session.demanded(published.publication));
                if alive > 0 && published.track.kind == TrackKind::Video {
                    sent.add(f64::from(alive) / f64::from(wanted.clamp(alive, encodings)));
                }
            }
            let Some(sending) = line.sending() else { continue };
            let Some(Carried { track, subscription, share: allotted, sender: Some(sender) }) =
                &sending.carried
            else {
                continue;
            };
            let packets = sender.meter.packets_between() as f64;
            if let Some(fraction) = reported_loss(now, &sender.reported)
                && let Some((block, _)) = sender.reported.last()
                && packets > 0.0
            {
                note(track.kind, fraction * packets, packets, jitter_ms(block.jitter, sending));
            }
            let counts =
                !matches!(session.standing(*subscription), Some(Standing::Inactive | Standing::Muted) | None);
            if counts
                && track.kind == TrackKind::Video
                && let Some(wanted) = allotted.best
                && let Some(share) = session.share(*subscription, wanted)
            {
                got.add(share);
            }
        }
        let mut layers = Share::default();
        [got.mean(), sent.mean()].into_iter().flatten().for_each(|share| layers.add(share));
        Facts { jitter_ms: audio_jitter.or(video_jitter), layers: layers.mean(), ..facts }
    }

    /// How good its connection is; `None` before it is connected.
    pub fn quality(&self) -> Option<Quality> {
        self.watch.totals.has_begun().then(|| self.watch.grade.level())
    }

    /// Everything that can be said now.
    pub fn stats(&self, now: Instant, session: &Session) -> EndpointStats {
        let published = self.lines.iter().enumerate();
        EndpointStats {
            endpoint_id: self.id,
            timestamp: UnixMillis::now(),
            state: match self.life {
                Life::New | Life::Connecting { .. } => EndpointState::New,
                Life::Connected => EndpointState::Connected,
                Life::Disconnected { .. } => EndpointState::Disconnected,
                Life::Closed => EndpointState::Closed,
            },
            quality: self.watch.grade.level(),
            score: self.watch.grade.score().map(|score| (score * 10.0).round() / 10.0),
            transport: TransportStats {
                path: self.ice.selected().map(|path| self.watch.path(path)),
                round_trip_time_ms: self.round_trip().map(milliseconds),
                available_outgoing_bitrate_bps: self.estimate(now),
            },
            published: published
                .filter_map(|(index, line)| self.published_stats(now, index, line, session))
                .collect(),
            subscribed: self.lines.iter().filter_map(|line| subscribed(now, line, session)).collect(),
            summary: self.summary(now),
        }
    }

    /// The shortest that a report of any stream came to: how long a client takes to answer is no part of the way.
    fn round_trip(&self) -> Option<Duration> {
        self.senders_of_lines().filter_map(|sender| sender.reported.round_trip()).min()
    }

    fn senders_of_lines(&self) -> impl Iterator<Item = &Sender> {
        self.lines.iter().filter_map(|line| line.sending()?.carried.as_ref()?.sender.as_ref())
    }

    fn published_stats(
        &self,
        now: Instant,
        index: usize,
        line: &Line,
        session: &Session,
    ) -> Option<PublishedStats> {
        let receiving = line.receiving()?;
        let published = receiving.published.as_ref()?;
        let encodings = (0u8..).zip(self.streams.encodings_of(index));
        Some(PublishedStats {
            track_id: published.track.id,
            kind: published.track.kind,
            source: published.track.source,
            mid: line.mid.clone(),
            muted: published.track.muted,
            mime_type: receiving.payload.codec.mime_type().to_owned(),
            encodings: encodings
                .map(|(encoding, (name, receiver))| EncodingStats {
                    encoding,
                    rid: name.map(str::to_owned),
                    ..receiver.map_or_else(EncodingStats::default, |receiver| {
                        encoding_stats(now, receiver, published.publication, EncodingId(encoding), session)
                    })
                })
                .collect(),
        })
    }
}

fn encoding_stats(
    now: Instant,
    receiver: &Receiver,
    publication: PublicationId,
    encoding: EncodingId,
    session: &Session,
) -> EncodingStats {
    let (nack_count, pli_count) = receiver.requests();
    let (expected, lost) = receiver.window();
    let (meter, has_any) = (&receiver.meter, receiver.meter.packets > 0);
    EncodingStats {
        encoding: encoding.0,
        rid: None,
        ssrc: has_any.then(|| receiver.ssrc()),
        alive: meter.is_active() && session.is_alive(publication, encoding),
        bitrate_bps: meter.bitrate_bps(now),
        packets_received: meter.packets,
        bytes_received: meter.bytes,
        packets_lost: receiver.lost(),
        fraction_lost: if expected == 0 { 0.0 } else { f64::from(lost) / f64::from(expected) },
        jitter_ms: milliseconds(receiver.jitter()),
        nack_count,
        pli_count,
    }
}

fn subscribed(now: Instant, line: &Line, session: &Session) -> Option<SubscribedStats> {
    let sending = line.sending()?;
    let carried = sending.carried.as_ref()?;
    let Carried { track, subscription, sender, share } = carried;
    let current = session.current_layer(*subscription);
    let mut stats = SubscribedStats {
        track_id: track.track_id,
        participant_id: track.participant_id,
        kind: track.kind,
        source: track.source,
        mid: line.mid.clone(),
        mime_type: sending.payload.codec.mime_type().to_owned(),
        ssrc: sending.ssrc,
        state: match session.standing(*subscription) {
            None | Some(Standing::Inactive) => SubscriptionState::Inactive,
            Some(Standing::Muted) => SubscriptionState::Muted,
            Some(Standing::Paused) if share.wish.paused => SubscriptionState::Paused,
            Some(Standing::Paused) if share.is_held => SubscriptionState::Held,
            Some(Standing::Paused) => SubscriptionState::Suspended,
            Some(Standing::Held) => SubscriptionState::Held,
            Some(Standing::AwaitingKeyframe) => SubscriptionState::AwaitingKeyframe,
            Some(Standing::Flowing) => SubscriptionState::Flowing,
        },
        current: current.map(|it| LayerStats {
            encoding: it.encoding.0,
            spatial: it.spatial,
            temporal: it.temporal,
        }),
        target: session.target(*subscription).map(target_stats),
        bitrate_bps: 0,
        packets_sent: 0,
        bytes_sent: 0,
        retransmitted_packets_sent: 0,
        nack_count: 0,
        pli_count: 0,
        remote_inbound: None,
    };
    if let Some(sender) = sender {
        stats.bitrate_bps = sender.meter.bitrate_bps(now);
        stats.packets_sent = sender.meter.packets;
        stats.bytes_sent = sender.meter.bytes;
        stats.retransmitted_packets_sent = sender.resent;
        stats.nack_count = sender.nacks;
        stats.pli_count = sender.keyframe_requests;
        stats.remote_inbound = remote_inbound(now, &sender.reported, sending);
    }
    Some(stats)
}

fn remote_inbound(now: Instant, reported: &Reported, sending: &Sending) -> Option<RemoteInboundStats> {
    let (block, at) = reported.last()?;
    Some(RemoteInboundStats {
        packets_lost: block.total_lost.into(),
        fraction_lost: f64::from(block.fraction_lost) / 256.0,
        jitter_ms: jitter_ms(block.jitter, sending),
        round_trip_time_ms: reported.round_trip().map(milliseconds),
        age_ms: now.saturating_duration_since(at).as_millis() as u64,
    })
}

/// What share of a stream its client says to have lost, 0 to 1; `None` when it has not said so lately.
fn reported_loss(now: Instant, reported: &Reported) -> Option<f64> {
    let (block, _) = reported.last().filter(|(_, at)| now.saturating_duration_since(*at) < REPORT_AGE)?;
    Some(f64::from(block.fraction_lost) / 256.0)
}

/// From ticks of the stream's clock.
fn jitter_ms(ticks: u32, sending: &Sending) -> f64 {
    f64::from(ticks) * 1000.0 / f64::from(sending.payload.codec.clock_rate())
}

/// The mean of shares, each 0 to 1.
#[derive(Default)]
struct Share {
    sum: f64,
    count: f64,
}

impl Share {
    fn add(&mut self, share: f64) {
        self.sum += share;
        self.count += 1.0;
    }

    fn mean(&self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }
}

/// The highest value of each part stands for "not limited".
fn target_stats(target: Target) -> TargetStats {
    let limited = |layer: u8| (layer != u8::MAX).then_some(layer);
    TargetStats {
        encoding: limited(target.encoding.0),
        spatial: limited(target.spatial),
        temporal: limited(target.temporal),
    }
}

/// In tenths of a millisecond: more is not known of anything here.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(remote: &str) -> Path {
        Path { remote: remote.parse().unwrap(), local: Local::Unknown }
    }

    #[test]
    fn a_path_is_what_the_client_calls_its_address() {
        let mut watch = Watch::new(Instant::now());
        for candidate in [
            "candidate:1 1 UDP 2122252543 192.0.2.1 5000 typ host generation 0",
            "candidate:2 1 UDP 1686052607 192.0.2.9 6000 typ srflx raddr 192.0.2.1 rport 5000",
            "candidate:3 1 UDP 41885439 2001:db8::7 7000 typ relay raddr 0.0.0.0 rport 0",
            "candidate:4 1 UDP 1 4e1f2e8b.local 5001 typ host",
            "",
            "candidate:5",
        ] {
            watch.note_candidate(candidate);
        }
        let kind = |remote: &str| watch.path(path(remote)).remote_candidate_type;
        assert_eq!(kind("192.0.2.1:5000"), CandidateType::Host);
        assert_eq!(kind("[::ffff:192.0.2.9]:6000"), CandidateType::Srflx, "as a dual-stack socket shows it");
        assert_eq!(kind("[2001:db8::7]:7000"), CandidateType::Relay);
        assert_eq!(kind("192.0.2.1:5001"), CandidateType::Prflx);
        assert_eq!(watch.path(path("[::ffff:192.0.2.9]:6000")).address_family, AddressFamily::Ipv4);
        for port in 0..100 {
            watch.note_candidate(&format!("candidate:1 1 UDP 1 192.0.2.3 {port} typ host"));
        }
        assert_eq!(watch.candidates.len(), MAX_CANDIDATES);
    }

    #[test]
    fn what_is_not_limited_is_not_named() {
        let target = Target { encoding: EncodingId(1), spatial: u8::MAX, temporal: 0 };
        assert_eq!(target_stats(target), TargetStats { encoding: Some(1), spatial: None, temporal: Some(0) });
    }
}
