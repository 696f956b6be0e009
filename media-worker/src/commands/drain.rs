//! Drain: the worker moves its sessions to others and ends; replied as soon as it has begun.

use common::message::{ErrorCode, ReplyBody};
use common::model::WorkerId;

use super::{Done, Outcome, refuse};
use crate::context::{Context, endpoint_gone};

pub(super) fn drain(context: &Context, worker_id: WorkerId) -> Outcome {
    if worker_id != context.worker_id {
        return Err(endpoint_gone().into());
    }
    if !context.config.can_drain {
        return Err(refuse(
            ErrorCode::CannotDrain,
            "a process that is all in one has nobody to move its sessions to",
        ));
    }
    context.drain.ask(context.config.drain_timeout);
    Ok(Done::Reply(ReplyBody::Draining))
}
