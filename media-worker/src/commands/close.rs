//! Close session: ends it for everyone. The document stays for a while, closed.

use std::time::Duration;

use common::broker::topology;
use common::message::{ErrorCode, EventBody, ReplyBody};
use common::model::{SessionId, SessionState};
use common::store::{Guarded, StoreResult};
use common::time::UnixMillis;

use super::{Done, Invocation, Outcome, forward_if_alive, refuse};
use crate::context::Context;
use crate::report::To;

/// The session's queue stays this long after the close, so that commands already on their way are answered
/// (`session_closed`) instead of vanishing with it.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

pub(super) async fn close(context: &Context, invocation: &Invocation, session_id: SessionId) -> Outcome {
    let session = context.store.session(session_id).await?;
    let session = session.ok_or_else(|| refuse(ErrorCode::SessionNotFound, "no such session"))?;
    // The host's events come first, so the host says the last word; without it, anyone may.
    if session.state == SessionState::Open
        && let Some(pipeline) = session.pipeline()
        && pipeline.worker_id != context.worker_id
        && forward_if_alive(context, invocation, pipeline.worker_id).await?
    {
        return Ok(Done::Forwarded);
    }
    let closed_now = close_session(context, session_id).await?;
    // An earlier try may have ended between the store and the rest; doing the rest twice harms nobody.
    if !closed_now && invocation.redelivered {
        finish(context, session_id).await;
    }
    Ok(Done::Reply(ReplyBody::SessionClosed))
}

/// Closes the session in the store and, if it was open until now (`true`), everything that belongs to it.
async fn close_session(context: &Context, session_id: SessionId) -> StoreResult<bool> {
    let closed = context.store.close_session(session_id, UnixMillis::now()).await?;
    Ok(finish_if_applied(context, session_id, &closed).await)
}

/// The same, if nobody is in it at that very moment.
pub(crate) async fn close_empty_session(context: &Context, session_id: SessionId) -> StoreResult<bool> {
    let closed = context.store.close_empty_session(session_id, UnixMillis::now()).await?;
    Ok(finish_if_applied(context, session_id, &closed).await)
}

async fn finish_if_applied(context: &Context, session_id: SessionId, closed: &Guarded) -> bool {
    let closed = matches!(closed, Guarded::Applied(_));
    if closed {
        tracing::info!(%session_id, "session closed");
        finish(context, session_id).await;
    }
    closed
}

async fn finish(context: &Context, session_id: SessionId) {
    context.reporter.send(session_id, To::Everyone, EventBody::SessionClosed {});
    context.reporter.delete_exchange(session_id);
    context.close_session_here(session_id).await;
    let (broker, stop) = (context.broker.clone(), context.stop.clone());
    common::ambient::spawn(async move {
        // When this worker stops meanwhile, the queue expires by itself: no worker reads it any more.
        if stop.run_until_cancelled(tokio::time::sleep(LINGER)).await.is_some()
            && let Err(error) = broker.delete_queue(&topology::session_queue_name(session_id)).await
        {
            tracing::warn!(%session_id, %error, "the queue of a closed session stays until it expires");
        }
    });
}
