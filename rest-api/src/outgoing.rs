//! HTTP and HTTPS to others: to receivers of webhooks, and to whoever collects traces.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// Idle connections that are kept to one host.
const IDLE_CONNECTIONS: usize = 8;

/// Follows no redirects, and has no patience of its own beyond connecting (5 s).
pub type Client = legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Why nothing can be sent by `https`.
#[derive(Debug, thiserror::Error)]
#[error("no certificates are trusted on this machine, so nothing can be sent by https: {0}")]
pub struct ClientError(String);

/// A client that trusts whom the machine trusts.
///
/// # Errors
/// When it is to be `secure` and the machine trusts nobody.
pub fn client(secure: bool) -> Result<Client, ClientError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError(error.to_string()))?;
    let tls = if secure {
        let verified = versions.try_with_platform_verifier();
        verified.map_err(|error| ClientError(error.to_string()))?.with_no_client_auth()
    } else {
        // Never used, and it must not matter that a small image has no certificates.
        versions.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
    };
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT_PATIENCE));
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(http);
    Ok(legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .pool_idle_timeout(Duration::from_secs(30))
        .build(connector))
}

/// The error and what is behind it, without the URL.
pub fn reason(error: &legacy::Error) -> String {
    let mut text = error.to_string();
    let mut below: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(error) = below {
        text = format!("{text}: {error}");
        below = error.source();
    }
    text
}
