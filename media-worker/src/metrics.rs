//! The control plane's metrics. Labels come from closed sets, never from ids.
//!
//! | name | kind | labels | counts |
//! |---|---|---|---|
//! | `switchyard_worker_commands_total` | counter | `kind`, `outcome` | commands settled |
//! | `switchyard_worker_command_seconds` | histogram | `kind` | from taking a command to its acknowledgement |
//! | `switchyard_worker_undecodable_total` | counter | | deliveries that are no command; dead-lettered |
//! | `switchyard_worker_inboxes` | gauge | | session inboxes that are open |
//! | `switchyard_worker_endpoints` | gauge | | endpoints that live here |
//! | `switchyard_worker_pipelines` | gauge | | pipelines that live here |
//! | `switchyard_worker_media_packets_total` | counter | `direction` | RTP packets in and out |
//! | `switchyard_worker_media_bytes_total` | counter | `direction` | RTP bytes in and out |
//! | `switchyard_worker_media_drops_total` | counter | | packets the media plane dropped |
//! | `switchyard_worker_events_total` | counter | `kind`, `outcome` | events handed to the broker, or not |
//! | `switchyard_worker_timeline_entries_total` | counter | `outcome` | timeline entries: `written`, `dropped` (too many waited for the store), `failed` |
//! | `switchyard_worker_heartbeats_total` | counter | `outcome` | lease renewals |
//! | `switchyard_worker_takeovers_total` | counter | | pipelines of dead workers that this worker dropped |
//! | `switchyard_worker_pings_total` | counter | `outcome` | pings to the next worker in the ring |
//! | `switchyard_worker_deaths_total` | counter | `sign` | workers that this worker declared dead |
//! | `switchyard_worker_relists_total` | counter | `cause` | full listings of open sessions by the listener |
//!
//! `kind` of a command: `create_session close_session join leave offer answer candidates mute
//! drain`. `outcome` of a
//! command: `done refused forwarded put_back dead_lettered`. `outcome` of an event: `sent unroutable failed
//! dropped fenced`. `outcome` of a ping: `sent unroutable failed`. `sign` of a death: `queue lease`. `outcome` of a heartbeat: `renewed failed declared_dead`. `cause` of a relist: `start stream_lost`.

use common::broker::{BrokerErrorKind, BrokerResult};
use metrics::{counter, gauge, histogram};

use crate::media::MediaStats;

pub(crate) fn command(kind: &'static str, outcome: &'static str, seconds: f64) {
    counter!("switchyard_worker_commands_total", "kind" => kind, "outcome" => outcome).increment(1);
    histogram!("switchyard_worker_command_seconds", "kind" => kind).record(seconds);
}

pub(crate) fn undecodable() {
    counter!("switchyard_worker_undecodable_total").increment(1);
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

/// The media plane counts for itself; the heartbeat passes its figures on.
pub(crate) fn media(stats: &MediaStats) {
    gauge!("switchyard_worker_endpoints").set(stats.endpoints as f64);
    gauge!("switchyard_worker_pipelines").set(stats.pipelines as f64);
    gauge!("switchyard_worker_published_tracks").set(stats.tracks as f64);
    gauge!("switchyard_worker_tracks").set(stats.all_tracks as f64);
    gauge!("switchyard_worker_full").set(f64::from(u8::from(stats.is_full)));
    counter!("switchyard_worker_media_packets_total", "direction" => "in").absolute(stats.packets_in);
    counter!("switchyard_worker_media_packets_total", "direction" => "out").absolute(stats.packets_out);
    counter!("switchyard_worker_media_bytes_total", "direction" => "in").absolute(stats.bytes_in);
    counter!("switchyard_worker_media_bytes_total", "direction" => "out").absolute(stats.bytes_out);
    counter!("switchyard_worker_media_send_calls_total").absolute(stats.send_calls);
    counter!("switchyard_worker_media_drops_total").absolute(stats.drops);
}
