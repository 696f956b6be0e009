//! The API's metrics: [`METRICS`] lists them. Labels come from closed sets, never from ids or other input.

use std::time::Duration;

use common::catalogue::Metric;
use common::catalogue::Values::{self, Listed, Named};

const ROUTE: (&str, Values) = ("route", Named("the route's template"));
const METHOD: (&str, Values) = ("method", Named("of the request"));

/// What an API instance shows.
pub const METRICS: &[Metric] = &[
    Metric::counter(
        "switchyard_api_requests_total",
        &[ROUTE, METHOD, ("status", Listed(&["1xx", "2xx", "3xx", "4xx", "5xx"]))],
        "requests answered",
    ),
    Metric::histogram(
        "switchyard_api_request_seconds",
        &[ROUTE, METHOD],
        "from a request to its answer; WebSockets and SSE up to their first byte; long polls with their wait",
    ),
    Metric::gauge("switchyard_api_connections", &[], "connections of clients"),
    Metric::counter(
        "switchyard_api_connections_refused_total",
        &[],
        "connections beyond those that one address may have",
    ),
    Metric::counter(
        "switchyard_api_limited_total",
        &[("whose", Listed(&["address", "token", "key"]))],
        "requests refused with 429, by whose rate was exceeded",
    ),
    Metric::gauge(
        "switchyard_api_streams",
        &[("transport", Listed(&["poll", "sse", "websocket"]))],
        "clients that wait for events here, by how",
    ),
    Metric::counter(
        "switchyard_api_events_delivered_total",
        &[("transport", Listed(&["poll", "sse", "websocket"]))],
        "events given to clients",
    ),
    Metric::counter(
        "switchyard_api_events_dropped_total",
        &[("reason", Listed(&["undecodable", "stale"]))],
        "events given to nobody",
    ),
    Metric::gauge("switchyard_api_leases", &[], "user queues that this instance holds"),
    Metric::counter(
        "switchyard_api_lease_changes_total",
        &[("how", Listed(&["opened", "handed_over", "superseded", "lapsed"]))],
        "what became of them",
    ),
    Metric::gauge("switchyard_api_commands_waiting", &[], "commands of this instance without a reply yet"),
    Metric::counter(
        "switchyard_api_commands_sent_again_total",
        &[],
        "commands for a session that had no reply after a while: a worker hangs, or all are overloaded",
    ),
    Metric::counter(
        "switchyard_api_messages_total",
        &[("outcome", Listed(&["sent", "refused"]))],
        "messages by request; `refused`: too many",
    ),
    Metric::counter(
        "switchyard_api_replies_total",
        &[("outcome", Listed(&["direct", "event", "unmatched", "undecodable", "timed_out"]))],
        "replies of workers by how their caller got them; `timed_out`: none came",
    ),
    Metric::gauge(
        "switchyard_api_keys_file_unusable",
        &[],
        "1 while the file of API keys is not good and the keys before it are in use",
    ),
    Metric::counter(
        "switchyard_api_certificates_total",
        &[("outcome", Listed(&["loaded", "refused"]))],
        "renewed certificates; `refused`: the old one stays in use",
    ),
    Metric::gauge(
        "switchyard_api_certificate_expires_seconds",
        &[],
        "when the certificate in use expires, in seconds since 1970; 0 without TLS",
    ),
    Metric::counter(
        "switchyard_api_handshakes_failed_total",
        &[("reason", Listed(&["not_tls", "failed", "timed_out", "closed"]))],
        "TLS handshakes that did not come to an end",
    ),
    Metric::counter(
        "switchyard_api_webhooks_total",
        &[("outcome", Listed(&["delivered", "failed", "given_up"]))],
        "webhooks sent; `failed`: comes again; `given_up`: is in the dead-letter list",
    ),
    Metric::gauge(
        "switchyard_api_webhook_sessions_failing",
        &[("receiver", Named("receivers' ids, by `webhook_urls`"))],
        "sessions that a receiver has to be told of and does not take",
    ),
];

pub fn request(route: &str, method: &'static str, status: u16, took: Duration) {
    let class = match status {
        100..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    };
    let route = route.to_owned();
    metrics::counter!("switchyard_api_requests_total", "route" => route.clone(), "method" => method, "status" => class)
        .increment(1);
    metrics::histogram!("switchyard_api_request_seconds", "route" => route, "method" => method)
        .record(took.as_secs_f64());
}

pub fn delivered(transport: &'static str, events: usize) {
    metrics::counter!("switchyard_api_events_delivered_total", "transport" => transport)
        .increment(events as u64);
}

pub fn dropped(reason: &'static str) {
    metrics::counter!("switchyard_api_events_dropped_total", "reason" => reason).increment(1);
}

pub fn lease_changed(how: &'static str) {
    metrics::counter!("switchyard_api_lease_changes_total", "how" => how).increment(1);
}

pub fn sent_again() {
    metrics::counter!("switchyard_api_commands_sent_again_total").increment(1);
}

pub fn message(outcome: &'static str) {
    metrics::counter!("switchyard_api_messages_total", "outcome" => outcome).increment(1);
}

pub fn limited(whose: &'static str) {
    metrics::counter!("switchyard_api_limited_total", "whose" => whose).increment(1);
}

pub fn connection_refused() {
    metrics::counter!("switchyard_api_connections_refused_total").increment(1);
}

pub fn reply(outcome: &'static str) {
    metrics::counter!("switchyard_api_replies_total", "outcome" => outcome).increment(1);
}

pub fn webhook(outcome: &'static str) {
    metrics::counter!("switchyard_api_webhooks_total", "outcome" => outcome).increment(1);
}

pub fn webhook_sessions_failing(receiver: &str, sessions: usize) {
    metrics::gauge!("switchyard_api_webhook_sessions_failing", "receiver" => receiver.to_owned())
        .set(sessions as f64);
}

pub fn certificate(outcome: &'static str) {
    metrics::counter!("switchyard_api_certificates_total", "outcome" => outcome).increment(1);
}

pub fn certificate_expires(at: i64) {
    metrics::gauge!("switchyard_api_certificate_expires_seconds").set(at as f64);
}

pub fn handshake_failed(reason: &'static str) {
    metrics::counter!("switchyard_api_handshakes_failed_total", "reason" => reason).increment(1);
}

/// Counts one while it lives.
pub struct Gauge(metrics::Gauge);

impl Gauge {
    pub fn connection() -> Self {
        Self::raised(metrics::gauge!("switchyard_api_connections"))
    }

    pub fn stream(transport: &'static str) -> Self {
        Self::raised(metrics::gauge!("switchyard_api_streams", "transport" => transport))
    }

    pub fn lease() -> Self {
        Self::raised(metrics::gauge!("switchyard_api_leases"))
    }

    pub fn waiting_command() -> Self {
        Self::raised(metrics::gauge!("switchyard_api_commands_waiting"))
    }

    fn raised(gauge: metrics::Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
