//! Under which address a client reached us: join links start with it, and with the development key only loopback
//! names are answered.

use axum::extract::{FromRequestParts, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Uri, header};

use crate::address::is_secure;
use crate::error::{ApiError, ApiResult};
use crate::state::ApiState;

/// The address that join links start with, without a slash at the end.
pub struct PublicUrl(pub String);

impl FromRequestParts<ApiState> for PublicUrl {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> ApiResult<Self> {
        if let Some(url) = &state.config.public_url {
            return Ok(Self(url.trim_end_matches('/').to_owned()));
        }
        let authority = authority(&parts.uri, &parts.headers)
            .ok_or_else(|| ApiError::invalid("the Host header names no host"))?;
        let secure = is_secure(&parts.headers, &parts.extensions);
        Ok(Self(format!("{}://{authority}", if secure { "https" } else { "http" })))
    }
}

/// Refuses requests for a name that is not this machine's own: for while the development key is in use. A web page whose
/// name was pointed at 127.0.0.1 (DNS rebinding) could otherwise use this server in its visitor's browser.
pub async fn loopback_only(request: Request, next: Next) -> Response {
    let local = authority(request.uri(), request.headers()).is_some_and(|name| is_loopback(name.host()));
    if !local {
        let detail = "with the development key only localhost is answered: set API keys to serve other names";
        return ApiError::forbidden(detail).into_response();
    }
    next.run(request).await
}

/// The `Host` header (HTTP/1.1) or the target's authority (HTTP/2).
fn authority(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    let host =
        headers.get(header::HOST).and_then(|host| host.to_str().ok()).and_then(|host| host.parse().ok());
    // User names in it have no place here.
    host.or_else(|| uri.authority().cloned()).filter(|name: &Authority| !name.as_str().contains('@'))
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    match literal.parse::<std::net::IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => {
            let host = host.to_ascii_lowercase();
            host == "localhost" || host.ends_with(".localhost")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_names_are_told_from_others() {
        for local in [
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "127.0.0.1",
            "127.9.9.9",
            "[::1]",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(is_loopback(local), "{local}");
        }
        for other in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "[::2]",
            "xlocalhost",
        ] {
            assert!(!is_loopback(other), "{other}");
        }
    }
}
