//! The browser SDK, the demo and the admin page, embedded in the binary: `/`, `/demo/*`, `/sdk/*` and `/admin/*`.
//!
//! Nothing inline and nothing from elsewhere runs in these pages, nobody frames them, and addresses (with tokens in
//! their fragment) are not passed on. `'self'` covers WebSockets of the same host (CSP Level 3, section 6.7.2.8).

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::not_found;
use crate::state::ApiState;

const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; connect-src 'self'; \
    media-src 'self' blob: mediastream:; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; \
    object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";
const PERMISSIONS_POLICY: &str = "camera=(self), microphone=(self), display-capture=(self)";
/// Needed by the pages' code to measure and to hide from openers; harmless elsewhere.
const CROSS_ORIGIN_OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

#[derive(RustEmbed)]
#[folder = "../web"]
#[include = "admin/*"]
#[include = "demo/*"]
#[include = "sdk/*"]
#[exclude = "*.test.*"]
#[exclude = "*.md"]
struct Assets;

/// Debug builds read the files from the disk, release builds hold them.
pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/", get(index))
        .route("/admin", get(|| async { Redirect::permanent("/admin/") }))
        .route("/admin/", get(admin))
        .route("/admin/{*path}", get(file))
        .route("/demo/", get(index))
        .route("/demo/{*path}", get(file))
        .route("/sdk/{*path}", get(file))
}

async fn index(request: Request) -> Response {
    asset("demo/index.html", request.headers()).await
}

/// For anybody: what it shows comes from the API, with an operator's token.
async fn admin(request: Request) -> Response {
    asset("admin/index.html", request.headers()).await
}

async fn file(request: Request) -> Response {
    asset(request.uri().path().trim_start_matches('/'), request.headers()).await
}

async fn asset(path: &str, request: &HeaderMap) -> Response {
    // Embedded names have neither; on the disk (debug builds) they could lead elsewhere.
    if path.split('/').any(|part| part.is_empty() || part.starts_with('.')) || path.contains(['%', '\\']) {
        return not_found().await.into_response();
    }
    match Assets::get(path) {
        Some(file) => respond(path, file, request),
        None => not_found().await.into_response(),
    }
}

fn respond(path: &str, file: EmbeddedFile, request: &HeaderMap) -> Response {
    let tag = tag(&file.metadata.sha256_hash());
    let mut response = if matches(request, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let content_type = HeaderValue::from_str(&content_type(path, file.metadata.mimetype()));
        let mut response = file.data.into_response();
        if let Ok(content_type) = content_type {
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        }
        response
    };
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    for (name, value) in [
        // Always asked for again, almost always answered 304: an update never mixes old and new modules.
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("permissions-policy"), PERMISSIONS_POLICY),
        (CROSS_ORIGIN_OPENER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A strong entity tag of the content (RFC 9110, section 8.8.3).
fn tag(hash: &[u8; 32]) -> String {
    let hex: String = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

/// `If-None-Match` (RFC 9110, section 13.1.2), compared weakly as it says.
fn matches(request: &HeaderMap, tag: &str) -> bool {
    request
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|candidate| candidate == "*" || candidate.trim_start_matches("W/") == tag)
}

fn content_type(path: &str, guessed: &str) -> String {
    match path.rsplit('.').next() {
        // Modules must be served as JavaScript, whatever the guess.
        Some("js" | "mjs") => "text/javascript; charset=utf-8".to_owned(),
        Some("ts") => "text/plain; charset=utf-8".to_owned(),
        _ if guessed.starts_with("text/") => format!("{guessed}; charset=utf-8"),
        _ => guessed.to_owned(),
    }
}
