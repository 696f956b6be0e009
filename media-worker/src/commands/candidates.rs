//! Candidates: the client's trickled ICE candidates (RFC 8838).

use common::message::{Candidate, ReplyBody, Target};

use super::{Invocation, Outcome, endpoint};
use crate::context::Context;

pub(super) async fn candidates(
    context: &Context,
    invocation: &Invocation,
    target: &Target,
    candidates: &[Candidate],
) -> Outcome {
    endpoint::once(context, invocation, target, None, async |endpoint, _memory| {
        context.media.candidates(endpoint.id, candidates.to_vec()).await?;
        Ok(ReplyBody::Accepted)
    })
    .await
}
