//! One span, one count and one duration per request. Paths appear as route templates; queries (they may hold tokens)
//! and credentials appear nowhere.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use http::Method;
use tracing::Instrument as _;

use crate::metrics;
use crate::trace::{TRACEPARENT, Trace};

/// Middleware around everything.
pub async fn observe(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = method_label(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let trace = Trace::of(request.headers());
    let span =
        tracing::info_span!("request", method, route, trace_id = trace.id(), status = tracing::field::Empty);
    request.extensions_mut().insert(trace.clone());
    let mut response = next.run(request).instrument(span.clone()).await;
    if let Some(header) = trace.header() {
        response.headers_mut().insert(TRACEPARENT, header);
    }
    let status = response.status().as_u16();
    span.record("status", status);
    let took = started.elapsed();
    span.in_scope(|| {
        tracing::debug!(took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX), "answered")
    });
    metrics::request(&route, method, status, took);
    response
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
