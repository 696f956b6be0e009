//! One span in the log, one count and one duration per request, and one span in its trace. Paths appear as route templates;
//! queries (they may hold tokens) and credentials appear nowhere.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use common::spans::{self, KeyValue, Kind, Span};
use http::Method;
use tracing::Instrument as _;

use crate::trace::{TRACEPARENT, Trace};
use crate::{headers, metrics};

/// Middleware around everything, with [`headers::secure`] in it: as one of its own, that would cost every waiting request some kilobytes
/// more.
pub async fn observe(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = method_label(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let given = Trace::given(request.headers());
    let recorded = match spans::is_on() && is_traced(&route) {
        true => Span::of(Kind::Server, method, &route, given.as_ref().map(Trace::traceparent)),
        false => Span::default(),
    };
    let trace = Trace::recorded(&recorded).or(given).unwrap_or_else(Trace::new);
    let span =
        tracing::info_span!("request", method, route, trace_id = trace.id(), status = tracing::field::Empty);
    request.extensions_mut().insert(trace.clone());
    let mut response = recorded.around(headers::secure(request, next)).instrument(span.clone()).await;
    if let Some(header) = trace.header() {
        response.headers_mut().insert(TRACEPARENT, header);
    }
    let status = response.status().as_u16();
    span.record("status", status);
    recorded.say(|| {
        [
            KeyValue::new("http.request.method", method),
            KeyValue::new("http.route", route.clone()),
            KeyValue::new("http.response.status_code", i64::from(status)),
        ]
    });
    if response.status().is_server_error() {
        recorded.fail("server_error");
    }
    let took = started.elapsed();
    span.in_scope(|| {
        tracing::debug!(took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX), "answered")
    });
    metrics::request(&route, method, status, took);
    response
}

/// Calls of the API, but for those that only wait for events: they last as long as nothing happens. Probes, scrapes and
/// pages have no part in anybody's trace.
fn is_traced(route: &str) -> bool {
    route.starts_with("/v1/") && !route.contains("/events")
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_traced_and_waiting_and_probes_are_not() {
        let participant = "/v1/sessions/{session_id}/participants/{participant_id}";
        for traced in ["/v1/sessions", &format!("{participant}/offer"), "/v1/whip/{session_id}"] {
            assert!(is_traced(traced), "{traced}");
        }
        let waiting = [format!("{participant}/events"), format!("{participant}/events/ws")];
        for not in
            waiting.iter().map(String::as_str).chain(["/healthz", "/metrics", "/sdk/{*path}", "unmatched"])
        {
            assert!(!is_traced(not), "{not}");
        }
    }
}
