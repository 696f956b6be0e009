//! Change session: stores its settings, and has the media plane treat everybody by them.

use common::message::{ErrorCode, ReplyBody};
use common::model::{SessionId, SessionSettings, SessionState};
use common::store::Guarded;

use super::{Done, Invocation, Outcome, forward_if_alive, refuse};
use crate::context::Context;

pub(super) async fn change(
    context: &Context,
    invocation: &Invocation,
    session_id: SessionId,
    settings: &SessionSettings,
) -> Outcome {
    let command_id = invocation.command.command_id;
    let no_session = || refuse(ErrorCode::SessionNotFound, "no such session");
    let session = context.store.session(session_id).await?.ok_or_else(no_session)?;
    // Whoever has the media; without media anyone may store it, and whoever hosts it next reads it there.
    if session.state == SessionState::Open
        && let Some(pipeline) = session.pipeline()
        && pipeline.worker_id != context.worker_id
        && forward_if_alive(context, invocation, pipeline.worker_id).await?
    {
        return Ok(Done::Forwarded);
    }
    let session = match context.store.set_settings(session_id, settings, command_id).await? {
        Guarded::Applied(session) => {
            tracing::info!(%session_id, settings = ?session.settings, "session changed");
            context.timeline.note(session_id, "session.changed", None);
            session
        }
        // The same command again. What has been changed since stays.
        Guarded::Refused(Some(session)) if session.has_done(command_id) => session,
        Guarded::Refused(Some(_)) => return Err(refuse(ErrorCode::SessionClosed, "the session has ended")),
        Guarded::Refused(None) => return Err(no_session()),
    };
    for pipeline in session.pipelines.iter().filter(|pipeline| pipeline.worker_id == context.worker_id) {
        context.media.set_settings(pipeline.id, &session.settings).await;
    }
    Ok(Done::Reply(ReplyBody::SessionChanged { session }))
}
