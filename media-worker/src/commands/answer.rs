//! Answer: the client's answer to the server's offer.

use common::message::{Answer, ReplyBody, Target};

use super::{Invocation, Outcome, endpoint};
use crate::context::Context;
use crate::spans;

pub(super) async fn answer(
    context: &Context,
    invocation: &Invocation,
    target: &Target,
    answer: &Answer,
) -> Outcome {
    endpoint::once(context, invocation, target, None, async |endpoint, _memory| {
        spans::media("negotiate", "answer", context.media.answer(endpoint.id, answer.clone())).await?;
        Ok(ReplyBody::Accepted)
    })
    .await
}
