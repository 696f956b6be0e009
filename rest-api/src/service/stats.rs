//! How an endpoint stands, asked of the worker that has it.

use common::message::{CommandBody, EndpointStats, ReplyBody};

use super::endpoints::{Whose, audience, find};
use super::sessions::unexpected;
use super::{CommandContext, Completed, Outcome, Route, run, why_gone};
use crate::auth::Caller;
use crate::error::{ApiError, ApiResult, Code};
use crate::state::ApiState;

impl Completed for EndpointStats {
    fn status(&self) -> u16 {
        200
    }

    fn result(&self) -> serde_json::Value {
        super::commands::body_of(self)
    }
}

/// What the worker sees of the participant's endpoint now. Only for the participant itself, the backend and operators: it
/// tells of everyone's tracks.
///
/// # Errors
/// Those of every command to an endpoint; `unavailable` when the worker did not answer in time.
pub async fn read(
    state: &ApiState,
    caller: &Caller,
    context: &CommandContext,
    whose: Whose,
    destination: Option<&str>,
) -> ApiResult<EndpointStats> {
    if caller.inspects().is_err() {
        caller.acts_for(whose.session, whose.participant)?;
    }
    let target = find(state, caller, whose, destination).await?;
    let command = CommandBody::Stats { target };
    let asked = run(
        state,
        context,
        Route::Worker(target.worker_id),
        audience(&target),
        command,
        |reply| async move {
            match reply? {
                ReplyBody::Stats { stats } => Ok(*stats),
                other => Err(unexpected(&other)),
            }
        },
    );
    match why_gone(state, caller, whose.session, asked.await).await? {
        Outcome::Done(stats) => Ok(stats),
        // Figures that come later are of no use; a later request gets newer ones.
        Outcome::Later(_) => Err(ApiError::new(Code::Unavailable, "the media worker did not answer in time")),
    }
}
