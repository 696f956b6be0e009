//! Ice: candidates, or an ICE restart, of a client that describes itself once (RFC 8840).

use common::message::{IceFragment, IfMatch, ReplyBody, Target};

use super::{Invocation, Outcome, endpoint};
use crate::context::Context;
use crate::media::IceOutcome;

pub(super) async fn ice(
    context: &Context,
    invocation: &Invocation,
    target: &Target,
    fragment: &IceFragment,
    if_match: &IfMatch,
) -> Outcome {
    endpoint::once(context, invocation, target, None, async |endpoint, _memory| {
        Ok(match context.media.ice(endpoint.id, fragment.clone(), if_match.clone()).await? {
            IceOutcome::Taken => ReplyBody::Accepted,
            IceOutcome::Restarted(fragment) => ReplyBody::IceRestarted { fragment },
        })
    })
    .await
}
