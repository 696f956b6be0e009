//! One signed request. Redirects are not followed, and nothing in an answer but its status counts.

use std::time::Duration;

use common::keyring::Keyring;
use common::model::TimelineEntry;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};

use super::Receiver;
use super::body::WebhookEvent;
use crate::outgoing::{self, Client, ClientError};

/// From the first byte to the end of the answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// What is read of an answer, so that its connection can be used again.
const MAX_ANSWER: usize = 16 * 1024;
pub const CONTENT_TYPE: &str = "application/webhook+json";

/// Why a try failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("it answers {0}")]
    Status(StatusCode),
    #[error("it does not answer within {} s", PATIENCE.as_secs())]
    TimedOut,
    #[error("it is not reachable: {0}")]
    Unreachable(String),
    #[error("the request cannot be made: {0}")]
    Unsendable(String),
}

/// Sends to all receivers.
#[derive(Clone)]
pub struct Sender {
    client: Client,
    keys: Keyring,
    /// Of the key that signs; the first one when there is no such key any more.
    key_id: String,
}

impl Sender {
    /// # Errors
    /// When a receiver wants `https` and the machine trusts nobody.
    pub fn new(keys: Keyring, key_id: String, receivers: &[Receiver]) -> Result<Self, ClientError> {
        let secure = receivers.iter().any(|receiver| receiver.url.scheme_str() == Some("https"));
        let client = outgoing::client(secure)?;
        Ok(Self { client, keys, key_id })
    }

    /// One try.
    pub(super) async fn send(&self, receiver: &Receiver, entry: &TimelineEntry) -> Result<(), Failure> {
        let body = serde_json::to_vec(&WebhookEvent::from(entry))
            .map_err(|error| Failure::Unsendable(error.to_string()))?;
        let keys = self.keys.now();
        let key_id = if keys.has(&self.key_id) { &self.key_id } else { keys.first_id() };
        let signature = common::webhook::sign(&keys, key_id, &body)
            .map_err(|error| Failure::Unsendable(error.to_string()))?;
        let request = Request::post(receiver.url.clone())
            .header(header::AUTHORIZATION, signature)
            .header(header::CONTENT_TYPE, CONTENT_TYPE)
            .header(header::USER_AGENT, concat!("switchyard/", env!("CARGO_PKG_VERSION")))
            .body(Full::from(body))
            .map_err(|error| Failure::Unsendable(error.to_string()))?;
        let answered = async {
            let response = self
                .client
                .request(request)
                .await
                .map_err(|error| Failure::Unreachable(outgoing::reason(&error)))?;
            let status = response.status();
            // Too long an answer only costs its connection.
            let _ = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            if status.is_success() { Ok(()) } else { Err(Failure::Status(status)) }
        };
        tokio::time::timeout(PATIENCE, answered).await.unwrap_or(Err(Failure::TimedOut))
    }
}
