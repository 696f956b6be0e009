//! How a participant rated its call, and what is known of the network that it had.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{EndpointId, ParticipantId, SessionId};
use crate::time::UnixMillis;

/// A participant's rating of its call (collection `ratings`): one for each participant of a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rating {
    pub session_id: SessionId,
    pub participant_id: ParticipantId,
    /// The API key that owns the session: who may read it when the session's record is gone.
    pub key_id: String,
    /// 1 to 5.
    pub stars: u8,
    /// At most 1,000 characters.
    pub comment: Option<String>,
    /// When it was given: of several the last one counts.
    pub at: UnixMillis,
    /// `None` when the worker that had the connection could not be asked.
    pub network: Option<NetworkSummary>,
}

/// A connection from its beginning to now, or to its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NetworkSummary {
    pub endpoint_id: EndpointId,
    /// For how long it has been up, silences included.
    pub duration_ms: i64,
    /// Which part of that time it had which quality.
    pub quality: QualityShares,
    /// Of the packets that the client sent, how many did not arrive, not even repaired: 0 to 1. `null` when it sent none.
    pub inbound_loss: Option<f64>,
    /// Of the packets that it was sent, how many it reported as lost: 0 to 1. `null` when it reported on none.
    pub outbound_loss: Option<f64>,
    /// The mean; `null` when it was never known.
    pub round_trip_time_ms: Option<f64>,
    /// The mean of the estimates; `null` when there was none.
    pub available_outgoing_bitrate_bps: Option<i64>,
    /// `udp`; `null` when it never connected.
    pub protocol: Option<String>,
    /// Of the path that was selected last: `host`, `srflx`, `prflx` or `relay`.
    pub remote_candidate_type: Option<String>,
}

impl NetworkSummary {
    /// Of a connection that nothing is known of yet.
    pub fn new(endpoint_id: EndpointId) -> Self {
        Self {
            endpoint_id,
            duration_ms: 0,
            quality: QualityShares::default(),
            inbound_loss: None,
            outbound_loss: None,
            round_trip_time_ms: None,
            available_outgoing_bitrate_bps: None,
            protocol: None,
            remote_candidate_type: None,
        }
    }
}

/// Parts of a time, 0 to 1; together 1, or 0 when there was no time.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct QualityShares {
    pub excellent: f64,
    pub good: f64,
    pub poor: f64,
    pub lost: f64,
}
