//! For operators: which workers there are, and draining one.

use common::message::{CommandBody, ReplyBody};
use common::model::{WorkerId, WorkerLoad, WorkerState};
use common::time::UnixMillis;
use serde::Serialize;
use utoipa::ToSchema;

use super::sessions::unexpected;
use super::{Audience, CommandContext, Nothing, Outcome, Route, run};
use crate::auth::Caller;
use crate::error::{ApiError, ApiResult, Code};
use crate::state::ApiState;

/// A media worker.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Worker)]
pub struct WorkerView {
    pub id: WorkerId,
    /// Where clients send media to, the first address of it.
    pub address: String,
    pub state: WorkerState,
    /// Whether its lease runs.
    pub alive: bool,
    pub lease_until: UnixMillis,
    /// What it measured of itself at its last heartbeat.
    pub load: WorkerLoad,
}

/// All workers that are known, by id.
#[derive(Debug, Serialize, ToSchema)]
pub struct WorkerList {
    pub workers: Vec<WorkerView>,
}

pub async fn list(state: &ApiState, caller: &Caller) -> ApiResult<WorkerList> {
    caller.operator(&state.config.operator_keys)?;
    let now = UnixMillis::now();
    let mut workers = state.store.workers().await?;
    workers.sort_by_key(|worker| worker.id);
    let view = |worker: common::model::Worker| WorkerView {
        id: worker.id,
        address: worker.address,
        state: worker.state,
        alive: worker.lease_until > now,
        lease_until: worker.lease_until,
        load: worker.load,
    };
    Ok(WorkerList { workers: workers.into_iter().map(view).collect() })
}

/// Asks a worker to move its sessions away and to end. Done when it has begun.
///
/// # Errors
/// `worker_not_found` when nobody reads that worker's queue, `cannot_drain` for one that is all in one.
pub async fn drain(
    state: &ApiState,
    caller: &Caller,
    context: &CommandContext,
    worker_id: WorkerId,
) -> ApiResult<Outcome<Nothing>> {
    caller.operator(&state.config.operator_keys)?;
    let body = CommandBody::Drain { worker_id };
    run(state, context, Route::Worker(worker_id), Audience::Nobody, body, |reply| async move {
        match reply {
            Ok(ReplyBody::Draining) => Ok(Nothing),
            Ok(other) => Err(unexpected(&other)),
            Err(error) if error.code == Code::EndpointGone => {
                Err(ApiError::new(Code::WorkerNotFound, "there is no such worker"))
            }
            Err(error) => Err(error),
        }
    })
    .await
}
