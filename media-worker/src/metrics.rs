//! The worker's metrics: [`METRICS`] lists them. Labels come from closed sets, never from ids.
//!
//! Media threads count for themselves; the heartbeat passes their figures on ([`Passed`]). What happens a few times in
//! an endpoint's life they tell at once.

use std::time::Duration;

use common::broker::{BrokerErrorKind, BrokerResult};
use common::catalogue::Metric;
use common::catalogue::Values::{self, Listed, Named};
use metrics::{counter, gauge, histogram};

use crate::media::{CloseCause, DataStats, Durations, MediaStats, Reason, Step, Unconnected};
use crate::relay::{Dropped, Refused};

const DIRECTION: (&str, Values) = ("direction", Listed(&["in", "out"]));
const CHANNEL: (&str, Values) = ("channel", Listed(&["reliable", "lossy"]));
const COMMAND: (&str, Values) = ("kind", Named("the command"));

/// What a worker shows.
pub const METRICS: &[Metric] = &[
    Metric::gauge("switchyard_worker_pipelines", &[], "sessions that this worker hosts"),
    Metric::gauge(
        "switchyard_worker_endpoints",
        &[],
        "endpoints (connections of participants) that live here",
    ),
    Metric::gauge("switchyard_worker_published_tracks", &[], "tracks that are published here"),
    Metric::gauge(
        "switchyard_worker_tracks",
        &[],
        "published and subscribed tracks, as `max_tracks` counts them",
    ),
    Metric::gauge("switchyard_worker_full", &[], "1 while a limit is reached: nobody more is taken"),
    Metric::gauge("switchyard_worker_draining", &[], "1 from the beginning of a drain"),
    Metric::gauge(
        "switchyard_worker_load",
        &[],
        "how much of what this worker may take is taken, of the limit that is nearest (endpoints, packets a second, tracks, \
         memory): 0 to 1 and a little above; for autoscaling",
    ),
    Metric::gauge(
        "switchyard_worker_quality_endpoints",
        &[("quality", Listed(&["excellent", "good", "poor", "lost"]))],
        "connected endpoints by how good their connection is (QUALITY.md)",
    ),
    Metric::counter("switchyard_worker_media_packets_total", &[DIRECTION], "datagrams in and out"),
    Metric::counter("switchyard_worker_media_bytes_total", &[DIRECTION], "their bytes"),
    Metric::counter("switchyard_worker_media_send_calls_total", &[], "system calls that sent them"),
    Metric::gauge(
        "switchyard_worker_tcp_connections",
        &[],
        "TCP connections of clients whose network lets no UDP through, and those that are being tried",
    ),
    Metric::counter(
        "switchyard_worker_tcp_refused_total",
        &[],
        "TCP connections refused or closed for a limit, a deadline or junk",
    ),
    Metric::gauge(
        "switchyard_worker_turn_allocations",
        &[],
        "allocations of the worker's own TURN server (`turn_listen`)",
    ),
    Metric::counter("switchyard_worker_turn_allocations_total", &[], "allocations that it has made"),
    Metric::counter(
        "switchyard_worker_turn_refused_total",
        &[("reason", Listed(Refused::NAMES))],
        "requests and connections that it refused (OPERATIONS.md); first requests, which show no credentials yet, do not count",
    ),
    Metric::counter(
        "switchyard_worker_turn_drops_total",
        &[("reason", Listed(Dropped::NAMES))],
        "what it dropped without an answer: junk, data for other peers than the media port, data that the other side did not take",
    ),
    Metric::counter(
        "switchyard_worker_turn_bytes_total",
        &[DIRECTION],
        "bytes that it relayed, to the media port and from there",
    ),
    Metric::counter(
        "switchyard_worker_media_drops_total",
        &[("reason", Listed(Reason::NAMES))],
        "packets that could not be used or sent (below)",
    ),
    Metric::counter(
        "switchyard_worker_media_lost_total",
        &[DIRECTION],
        "RTP packets that did not come from clients, or that clients say to have missed; before any repair",
    ),
    Metric::histogram(
        "switchyard_worker_forward_seconds",
        &[],
        "from taking a packet off the socket to its copies being with the kernel; one packet of every 256 that are sent",
    ),
    Metric::counter("switchyard_worker_nacks_total", &[DIRECTION], "requests to send lost packets again"),
    Metric::counter("switchyard_worker_keyframe_requests_total", &[DIRECTION], "PLI and FIR"),
    Metric::counter(
        "switchyard_worker_retransmissions_total",
        &[],
        "packets that were sent again because a client asked for them",
    ),
    Metric::gauge(
        "switchyard_worker_estimated_endpoints",
        &[],
        "endpoints whose path is estimated (BANDWIDTH.md)",
    ),
    Metric::gauge("switchyard_worker_estimated_bits_per_second", &[], "what their paths carry, together"),
    Metric::counter(
        "switchyard_worker_connections_total",
        &[("outcome", Listed(&["connected", "ice_failed", "dtls_failed", "abandoned"]))],
        "endpoints by what became of their connection; `abandoned`: closed before either could be known",
    ),
    Metric::histogram(
        "switchyard_worker_connect_seconds",
        &[("step", Listed(&["ice", "dtls"]))],
        "`ice`: from both descriptions to a path; `dtls`: from there to the handshake's end",
    ),
    Metric::histogram(
        "switchyard_worker_first_media_seconds",
        &[DIRECTION],
        "from opening an endpoint (its join) to the first media from its client, and to the first that it is sent",
    ),
    Metric::counter(
        "switchyard_worker_endpoints_ended_total",
        &[("cause", Listed(&["peer_closed", "grace_expired", "connect_failed", "fault"]))],
        "endpoints that ended by themselves; `grace_expired`: their client was lost; `fault`: a bug of ours",
    ),
    Metric::gauge("switchyard_worker_data_channels", &[CHANNEL], "data channels that are open"),
    Metric::counter(
        "switchyard_worker_data_messages_total",
        &[CHANNEL, DIRECTION],
        "messages in, and out once for each receiver",
    ),
    Metric::counter("switchyard_worker_data_bytes_total", &[CHANNEL, DIRECTION], "their bytes"),
    Metric::counter(
        "switchyard_worker_data_events_total",
        &[],
        "receivers without a channel who were told by an event",
    ),
    Metric::counter(
        "switchyard_worker_data_drops_total",
        &[("reason", Listed(&["packet", "malformed", "too_large", "slow", "crossing", "event"]))],
        "packets and messages of data channels that were dropped (OPERATIONS.md)",
    ),
    Metric::counter(
        "switchyard_worker_data_closed_total",
        &[("reason", Listed(&["slow", "peer"]))],
        "reliable channels and associations that were closed",
    ),
    Metric::counter(
        "switchyard_worker_commands_total",
        &[COMMAND, ("outcome", Listed(&["done", "refused", "forwarded", "put_back", "dead_lettered"]))],
        "commands settled",
    ),
    Metric::histogram(
        "switchyard_worker_command_seconds",
        &[COMMAND],
        "from taking a command to its acknowledgement",
    ),
    Metric::gauge(
        "switchyard_worker_commands_under_way",
        &[],
        "commands that were taken and are not settled",
    ),
    Metric::counter(
        "switchyard_worker_undecodable_total",
        &[],
        "deliveries that are no command; they go to the queue `dead-letters`",
    ),
    Metric::gauge(
        "switchyard_worker_queue_length",
        &[("queue", Listed(&["media_requests", "media_events", "timeline"]))],
        "what waits inside: calls to media threads, events of theirs, timeline entries for the store",
    ),
    Metric::counter(
        "switchyard_worker_unsupported_total",
        &[],
        "commands of a later version or kind than this worker knows; refused",
    ),
    Metric::gauge("switchyard_worker_inboxes", &[], "sessions whose queue this worker reads"),
    Metric::counter(
        "switchyard_worker_events_total",
        &[
            ("kind", Named("the event (API.md)")),
            ("outcome", Listed(&["sent", "unroutable", "failed", "dropped", "fenced"])),
        ],
        "events handed to the broker, or not",
    ),
    Metric::counter(
        "switchyard_worker_timeline_entries_total",
        &[("outcome", Listed(&["written", "dropped", "failed"]))],
        "timeline entries; `dropped`: too many waited for the store",
    ),
    Metric::counter(
        "switchyard_worker_ratings_total",
        &[("stars", Listed(&["1", "2", "3", "4", "5"]))],
        "ratings of calls that were stored",
    ),
    Metric::counter(
        "switchyard_worker_heartbeats_total",
        &[("outcome", Listed(&["renewed", "failed", "declared_dead"]))],
        "lease renewals",
    ),
    Metric::gauge(
        "switchyard_worker_lease_age_seconds",
        &[],
        "since the last renewal of the lease that succeeded, as of the last heartbeat",
    ),
    Metric::counter(
        "switchyard_worker_takeovers_total",
        &[],
        "pipelines of dead workers that this one dropped",
    ),
    Metric::counter(
        "switchyard_worker_pings_total",
        &[("outcome", Listed(&["sent", "unroutable", "failed"]))],
        "pings to the next worker in the ring",
    ),
    Metric::counter(
        "switchyard_worker_deaths_total",
        &[("sign", Listed(&["queue", "lease"]))],
        "workers that this one declared dead",
    ),
    Metric::counter(
        "switchyard_worker_relists_total",
        &[("cause", Listed(&["start", "stream_lost"]))],
        "full listings of open sessions",
    ),
];

pub(crate) fn command(kind: &'static str, outcome: &'static str, seconds: f64) {
    counter!("switchyard_worker_commands_total", "kind" => kind, "outcome" => outcome).increment(1);
    histogram!("switchyard_worker_command_seconds", "kind" => kind).record(seconds);
}

pub(crate) fn undecodable() {
    counter!("switchyard_worker_undecodable_total").increment(1);
}

pub(crate) fn unsupported() {
    counter!("switchyard_worker_unsupported_total").increment(1);
}

pub(crate) fn inboxes(change: f64) {
    gauge!("switchyard_worker_inboxes").increment(change);
}

pub(crate) fn event(kind: &'static str, outcome: &'static str) {
    counter!("switchyard_worker_events_total", "kind" => kind, "outcome" => outcome).increment(1);
}

pub(crate) fn timeline(outcome: &'static str, entries: usize) {
    counter!("switchyard_worker_timeline_entries_total", "outcome" => outcome).increment(entries as u64);
}

/// `stars`: 1 to 5.
pub(crate) fn rating(stars: u8) {
    let stars =
        ["1", "2", "3", "4", "5"].get(usize::from(stars).saturating_sub(1)).copied().unwrap_or("other");
    counter!("switchyard_worker_ratings_total", "stars" => stars).increment(1);
}

pub(crate) fn heartbeat(outcome: &'static str) {
    counter!("switchyard_worker_heartbeats_total", "outcome" => outcome).increment(1);
}

/// `sign`: what told that a worker is dead.
pub(crate) fn death(sign: &'static str) {
    counter!("switchyard_worker_deaths_total", "sign" => sign).increment(1);
}

pub(crate) fn ping(sent: &BrokerResult<()>) {
    let outcome = match sent {
        Ok(()) => "sent",
        Err(error) if error.kind == BrokerErrorKind::Unroutable => "unroutable",
        Err(_) => "failed",
    };
    counter!("switchyard_worker_pings_total", "outcome" => outcome).increment(1);
}

pub(crate) fn takeover() {
    counter!("switchyard_worker_takeovers_total").increment(1);
}

pub(crate) fn relist(cause: &'static str) {
    counter!("switchyard_worker_relists_total", "cause" => cause).increment(1);
}

/// A connection has got this far.
pub(crate) fn step(step: Step, took: Duration) {
    let seconds = took.as_secs_f64();
    match step {
        Step::Ice => histogram!("switchyard_worker_connect_seconds", "step" => "ice").record(seconds),
        Step::Dtls => {
            counter!("switchyard_worker_connections_total", "outcome" => "connected").increment(1);
            histogram!("switchyard_worker_connect_seconds", "step" => "dtls").record(seconds);
        }
        Step::FirstIn => {
            histogram!("switchyard_worker_first_media_seconds", "direction" => "in").record(seconds);
        }
        Step::FirstOut => {
            histogram!("switchyard_worker_first_media_seconds", "direction" => "out").record(seconds);
        }
    }
}

/// An endpoint ended that was never connected.
pub(crate) fn unconnected(what: Unconnected) {
    let outcome = match what {
        Unconnected::Ice => "ice_failed",
        Unconnected::Dtls => "dtls_failed",
        Unconnected::Abandoned => "abandoned",
    };
    counter!("switchyard_worker_connections_total", "outcome" => outcome).increment(1);
}

/// An endpoint ended by itself.
pub(crate) fn closed(cause: CloseCause) {
    let cause = match cause {
        CloseCause::PeerClosed => "peer_closed",
        CloseCause::GraceExpired => "grace_expired",
        CloseCause::ConnectFailed => "connect_failed",
        CloseCause::Fault => "fault",
    };
    counter!("switchyard_worker_endpoints_ended_total", "cause" => cause).increment(1);
}

pub(crate) fn lease_age(age: Duration) {
    gauge!("switchyard_worker_lease_age_seconds").set(age.as_secs_f64());
}

pub(crate) fn draining() {
    gauge!("switchyard_worker_draining").set(1.0);
}

/// Entries of the timeline that wait for the store.
pub(crate) fn timeline_waiting(entries: usize) {
    gauge!("switchyard_worker_queue_length", "queue" => "timeline").set(entries as f64);
}

/// One command that was taken, until this is dropped.
pub(crate) struct UnderWay;

impl UnderWay {
    pub fn begin() -> Self {
        gauge!("switchyard_worker_commands_under_way").increment(1.0);
        Self
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        gauge!("switchyard_worker_commands_under_way").decrement(1.0);
    }
}

/// What the media threads count, passed on from heartbeat to heartbeat.
#[derive(Default)]
pub(crate) struct Passed {
    forwarding: Durations,
}

impl Passed {
    pub fn media(&mut self, stats: &MediaStats) {
        gauge!("switchyard_worker_endpoints").set(stats.endpoints as f64);
        gauge!("switchyard_worker_pipelines").set(stats.pipelines as f64);
        gauge!("switchyard_worker_published_tracks").set(stats.tracks as f64);
        gauge!("switchyard_worker_tracks").set(stats.all_tracks as f64);
        gauge!("switchyard_worker_estimated_endpoints").set(stats.estimated as f64);
        gauge!("switchyard_worker_estimated_bits_per_second").set(stats.estimated_bitrate as f64);
        gauge!("switchyard_worker_full").set(f64::from(u8::from(stats.is_full)));
        gauge!("switchyard_worker_load").set(f64::from(stats.load_per_mille) / 1000.0);
        let names = ["excellent", "good", "poor", "lost"];
        for (quality, endpoints) in names.into_iter().zip(stats.qualities) {
            gauge!("switchyard_worker_quality_endpoints", "quality" => quality).set(endpoints as f64);
        }
        for (queue, length) in
            [("media_requests", stats.waiting_requests), ("media_events", stats.waiting_events)]
        {
            gauge!("switchyard_worker_queue_length", "queue" => queue).set(length as f64);
        }
        let repairs = &stats.repairs;
        for (name, [count_in, count_out]) in [
            ("switchyard_worker_media_packets_total", [stats.packets_in, stats.packets_out]),
            ("switchyard_worker_media_bytes_total", [stats.bytes_in, stats.bytes_out]),
            ("switchyard_worker_media_lost_total", [repairs.lost_in, repairs.lost_out]),
            ("switchyard_worker_nacks_total", [repairs.nacks_in, repairs.nacks_out]),
            (
                "switchyard_worker_keyframe_requests_total",
                [repairs.keyframe_requests_in, repairs.keyframe_requests_out],
            ),
        ] {
            counter!(name, "direction" => "in").absolute(count_in);
            counter!(name, "direction" => "out").absolute(count_out);
        }
        counter!("switchyard_worker_retransmissions_total").absolute(repairs.resent);
        counter!("switchyard_worker_media_send_calls_total").absolute(stats.send_calls);
        gauge!("switchyard_worker_tcp_connections").set(stats.tcp_connections as f64);
        counter!("switchyard_worker_tcp_refused_total").absolute(stats.tcp_refused);
        for (reason, drops) in stats.drops.named() {
            counter!("switchyard_worker_media_drops_total", "reason" => reason).absolute(drops);
        }
        let forwarding = histogram!("switchyard_worker_forward_seconds");
        for (seconds, count) in stats.forwarding.since(&self.forwarding) {
            forwarding.record_many(seconds, usize::try_from(count).unwrap_or(usize::MAX));
        }
        self.forwarding = stats.forwarding;
        data(&stats.data);
    }
}

fn data(stats: &DataStats) {
    for (index, channel) in ["reliable", "lossy"].into_iter().enumerate() {
        gauge!("switchyard_worker_data_channels", "channel" => channel).set(stats.open[index] as f64);
        for (direction, messages, bytes) in
            [("in", stats.messages_in, stats.bytes_in), ("out", stats.messages_out, stats.bytes_out)]
        {
            let labels = [("channel", channel), ("direction", direction)];
            counter!("switchyard_worker_data_messages_total", &labels).absolute(messages[index]);
            counter!("switchyard_worker_data_bytes_total", &labels).absolute(bytes[index]);
        }
    }
    counter!("switchyard_worker_data_events_total").absolute(stats.events);
    for (reason, drops) in [
        ("packet", stats.dropped_packets),
        ("malformed", stats.dropped_malformed),
        ("too_large", stats.dropped_too_large),
        ("slow", stats.dropped_slow),
        ("crossing", stats.dropped_crossing),
        ("event", stats.dropped_event),
    ] {
        counter!("switchyard_worker_data_drops_total", "reason" => reason).absolute(drops);
    }
    for (reason, closed) in [("slow", stats.closed_slow), ("peer", stats.ended)] {
        counter!("switchyard_worker_data_closed_total", "reason" => reason).absolute(closed);
    }
}
