//! What every response says to browsers, whatever it is.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderName, HeaderValue, header};

use crate::address::is_secure;

/// For a year no browser speaks plain HTTP to this name. Not for its subdomains, which may be somebody else's.
const STRICT_TRANSPORT_SECURITY: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Replies are data: nothing in one runs, loads or frames anything, should a browser ever show it as a page.
const OF_DATA: [(HeaderName, HeaderValue); 3] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
    ),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];

/// Around everything (within [`observe`](crate::observe::observe)); what a route says itself stays.
pub async fn secure(request: Request, next: Next) -> Response {
    let secure = is_secure(request.headers(), request.extensions());
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in OF_DATA {
        headers.entry(name).or_insert(value);
    }
    if secure {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, STRICT_TRANSPORT_SECURITY);
    }
    response
}
