//! Create session: inserts the document; the change stream then makes every worker attach.

use common::message::{ErrorCode, ReplyBody};
use common::model::{CommandId, Session, SessionId, SessionSettings, SessionState};
use common::store::Inserted;
use common::time::UnixMillis;

use super::{Done, Outcome, refuse};
use crate::context::Context;

pub(super) async fn create(
    context: &Context,
    command_id: CommandId,
    session_id: SessionId,
    name: Option<String>,
    key_id: &str,
    settings: SessionSettings,
) -> Outcome {
    let session = Session {
        id: session_id,
        state: SessionState::Open,
        name,
        created_at: UnixMillis::now(),
        closed_at: None,
        key_id: key_id.to_owned(),
        command_id,
        epoch: 0,
        pipelines: Vec::new(),
        participants: Vec::new(),
        previous_worker_id: None,
        done_commands: Vec::new(),
        settings,
        revocations: Vec::new(),
    };
    let session = match context.store.insert_session(&session).await? {
        Inserted::New => {
            tracing::info!("session created");
            context.timeline.note(session_id, "session.created", None);
            session
        }
        // The same command again, or the same owner asking for what it has.
        Inserted::Existing(existing) if existing.key_id == key_id => *existing,
        Inserted::Existing(_) => {
            return Err(refuse(ErrorCode::SessionConflict, "the id is taken by another creation"));
        }
    };
    match session.state {
        SessionState::Open => Ok(Done::Reply(ReplyBody::SessionCreated { session: Box::new(session) })),
        SessionState::Closed => Err(refuse(ErrorCode::SessionClosed, "the session with this id has ended")),
    }
}
