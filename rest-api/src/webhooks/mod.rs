//! Webhooks: what happened in sessions, told to the application's servers.
//!
//! ```text
//! worker ──timeline entry, owed to each receiver──▶ store ◀──settled── this process ──POST──▶ receiver
//!                                                    └────────owed──────────▲ one at a time, by a lease
//! ```
//!
//! An entry of a session's timeline is written together with the receivers it is owed to, so whoever dies where, what
//! has a number is told. For each receiver one API instance at a time (a lease in the store) looks for what is owed and
//! sends it: each session's entries in order, sessions beside each other. An entry is owed until the receiver has said 2xx;
//! the next one of that session waits for it. A receiver may thus get one twice, never in another order, and never misses
//! one that was not given up.
//!
//! | part | does |
//! |---|---|
//! | [`body`] | an entry as JSON, with LiveKit's names where they fit |
//! | [`client`] | one signed request and its bounds |
//! | [`dispatcher`] | who is served when |
//! | [`backoff`] | when what failed is tried again |

mod backoff;
pub mod body;
mod client;
mod dispatcher;

use std::time::Duration;

pub use client::Sender;
pub use dispatcher::serve;

/// How long a receiver may fail before an entry is given up, when nobody says.
pub const DEFAULT_RETRY: Duration = Duration::from_secs(24 * 60 * 60);

/// A server that is told.
#[derive(Clone, PartialEq, Eq)]
pub struct Receiver {
    pub url: http::Uri,
    /// Under which the store knows it: [`common::webhook::receiver_id`] of the URL.
    pub id: String,
}

impl Receiver {
    /// # Errors
    /// When it is no absolute `http` or `https` URL; user names in it are refused, they would not be sent.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        let parsed: http::Uri = url.parse().map_err(|_| "not a URL")?;
        let authority = parsed.authority().ok_or("no host")?;
        if !matches!(parsed.scheme_str(), Some("http" | "https")) {
            return Err("expected http:// or https://");
        }
        if authority.as_str().contains('@') {
            return Err("a user name in the URL would not be sent");
        }
        Ok(Self { url: parsed, id: common::webhook::receiver_id(url) })
    }

    /// Where it is, without what may be secret in its path and query.
    pub fn place(&self) -> String {
        format!(
            "{}://{}",
            self.url.scheme_str().unwrap_or_default(),
            self.url.authority().map_or("", |authority| authority.as_str())
        )
    }
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("id", &self.id).field("place", &self.place()).finish_non_exhaustive()
    }
}

/// Who is told, and how.
#[derive(Debug, Clone)]
pub struct WebhookConfig {
    pub receivers: Vec<Receiver>,
    /// The API key that signs.
    pub key_id: String,
    /// From when it happened (or was owed again) until it is given up.
    pub retry: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_is_an_absolute_web_address() {
        for good in ["http://localhost:9/x", "https://example.org/hook?token=a"] {
            assert!(Receiver::parse(good).is_ok(), "{good}");
        }
        for bad in
            ["", "example.org", "/hook", "ftp://example.org", "http://user:secret@example.org/", "http://"]
        {
            assert!(Receiver::parse(bad).is_err(), "{bad}");
        }
        let shown = format!("{:?}", Receiver::parse("https://example.org/hook?token=hidden").unwrap());
        assert!(shown.contains("https://example.org") && !shown.contains("hidden"), "{shown}");
    }
}
