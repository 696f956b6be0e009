//! What the endpoint commands (offer, answer, candidates, subscription, mute) have in common: find the endpoint, do the
//! command once, store what it changed, and only then tell.

use common::message::{ReplyBody, Target};

use super::{Done, Failure, Invocation, Outcome};
use crate::context::{Context, endpoint_gone};
use crate::registry::{LiveEndpoint, Memory};
use crate::report::{Slot, To};
use crate::sync::{Synced, sync};

/// Does `action` unless this command was done before, and replies the same both times.
///
/// The action changes the endpoint's memory; what is unstored there afterwards is stored, and what is unreported is then
/// told to the session, in `slot` if there is one. When the store fails, so does this try: the next one finds the reply
/// kept and stores the rest. On the last try the reply is sent although the store is still away, because the media plane
/// has changed already; the heartbeat stores the rest ([`crate::sync::sync_all`]).
pub(super) async fn once<A>(
    context: &Context,
    invocation: &Invocation,
    target: &Target,
    slot: Option<Slot>,
    action: A,
) -> Outcome
where
    A: AsyncFnOnce(&LiveEndpoint, &mut Memory) -> Result<ReplyBody, Failure>,
{
    let endpoint = context.registry.resolve(target, context.worker_id).ok_or_else(endpoint_gone)?;
    let mut memory = endpoint.memory.lock().await;
    if memory.gone || memory.closing.is_some() {
        return Err(endpoint_gone().into());
    }
    let command_id = invocation.command.command_id;
    let reply = match memory.reply_to(command_id) {
        Some(reply) => reply,
        None => {
            let reply = match action(&endpoint, &mut memory).await {
                Ok(reply) => Ok(reply),
                Err(Failure::Refused(error)) => Err(error),
                Err(infrastructure) => return Err(infrastructure),
            };
            memory.remember(command_id, reply.clone());
            reply
        }
    };
    match sync(context, &endpoint, &mut memory).await {
        Ok(Synced::Stored(events)) => {
            let reports = events.into_iter().map(|event| (To::Everyone, event));
            match slot {
                Some(slot) => slot.fill(reports),
                None => reports.for_each(|(to, event)| context.reporter.send(endpoint.session_id, to, event)),
            }
        }
        Ok(Synced::Gone(_)) => return Err(endpoint_gone().into()),
        Err(error) if invocation.is_last_try => {
            tracing::warn!(%error, "replied before it is stored");
        }
        Err(error) => return Err(error.into()),
    }
    Ok(Done::Reply(reply?))
}
