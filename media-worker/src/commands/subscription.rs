//! Subscription: what a client wants of one track that it subscribes to. Nothing of it is stored; it lives and ends with
//! the endpoint.

use common::message::{ReplyBody, Target, Wish};
use common::model::TrackId;

use super::{Invocation, Outcome, endpoint};
use crate::context::Context;

pub(super) async fn subscription(
    context: &Context,
    invocation: &Invocation,
    target: &Target,
    track_id: TrackId,
    wish: Wish,
) -> Outcome {
    endpoint::once(context, invocation, target, None, async |endpoint, _memory| {
        context.media.set_wish(endpoint.id, track_id, wish).await?;
        Ok(ReplyBody::Accepted)
    })
    .await
}
