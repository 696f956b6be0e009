//! A media process as its peers and the API see it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{RunId, WorkerId};
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
    /// Bits received and sent in a second.
    #[serde(default)]
    pub bits_per_second: f64,
    pub endpoints: i64,
    pub pipelines: i64,
    /// A limit of the worker is reached: it takes nobody more for now.
    #[serde(default)]
    pub full: bool,
}

/// A worker's row: alive while `lease_until` is in the future.
///
/// Everything that a process writes to it is guarded by its `run`, so that an earlier process of the same id, however late
/// it wakes up, changes nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Worker {
    #[serde(rename = "_id", alias = "id")]
    pub id: WorkerId,
    /// Which process this is, of those that had this id one after the other.
    #[serde(default = "RunId::nil")]
    pub run: RunId,
    /// Where its media socket is reached, `ip:port`.
    pub address: String,
    pub lease_until: UnixMillis,
    pub state: WorkerState,
    pub load: WorkerLoad,
    /// Since when it has lived without the broker: its queue is missing then, and that is no sign of its death.
    #[serde(default)]
    pub broker_away_since: Option<UnixMillis>,
}

impl Worker {
    /// Whether it may be given work at `now`: lease running, not draining, its queue within reach, and room left.
    pub fn takes_pipelines(&self, now: UnixMillis) -> bool {
        self.state == WorkerState::Ready
            && self.lease_until > now
            && self.broker_away_since.is_none()
            && !self.load.full
    }
}
