//! A media process as its peers and the API see it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::WorkerId;
use crate::time::UnixMillis;

/// Whether a worker takes new pipelines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    Ready,
    Draining,
}

/// Measured load, written with every heartbeat; placement compares these.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct WorkerLoad {
    /// Resident memory of the process in bytes.
    pub memory_bytes: i64,
    /// Cores in use by the process over the last heartbeat interval (1.0 = one core).
    pub cpu: f64,
    pub packets_per_second: f64,
    pub endpoints: i64,
    pub pipelines: i64,
}

/// A worker's row: alive while `lease_until` is in the future.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Worker {
    #[serde(rename = "_id", alias = "id")]
    pub id: WorkerId,
    /// Where its media socket is reached, `ip:port`.
    pub address: String,
    pub lease_until: UnixMillis,
    pub state: WorkerState,
    pub load: WorkerLoad,
}

impl Worker {
    /// Whether it may be given work at `now`: lease running and not draining.
    pub fn takes_pipelines(&self, now: UnixMillis) -> bool {
        self.state == WorkerState::Ready && self.lease_until > now
    }
}
