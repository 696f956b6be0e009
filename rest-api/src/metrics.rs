//! The API's metrics. Labels come from closed sets, never from ids or other input.
//!
//! | name | kind | labels |
//! |---|---|---|
//! | `switchyard_api_requests_total` | counter | `route` (template), `method`, `status` (`2xx` …) |
//! | `switchyard_api_request_seconds` | histogram | `route`, `method`; WebSockets and SSE up to their first byte |
//! | `switchyard_api_connections` | gauge | |
//! | `switchyard_api_streams` | gauge | `transport`: `sse`, `websocket` |
//! | `switchyard_api_events_delivered_total` | counter | `transport`: `poll`, `sse`, `websocket` |
//! | `switchyard_api_events_dropped_total` | counter | `reason`: `undecodable`, `stale` |
//! | `switchyard_api_leases` | gauge | user queues held by this instance |
//! | `switchyard_api_lease_changes_total` | counter | `how`: `opened`, `handed_over`, `superseded`, `lapsed` |
//! | `switchyard_api_commands_waiting` | gauge | commands of this instance without a reply yet |
//! | `switchyard_api_replies_total` | counter | `outcome`: `direct`, `event`, `unmatched`, `undecodable`, `timed_out` |

use std::time::Duration;

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

pub fn reply(outcome: &'static str) {
    metrics::counter!("switchyard_api_replies_total", "outcome" => outcome).increment(1);
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
