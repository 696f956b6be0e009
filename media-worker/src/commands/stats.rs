//! Stats: how an endpoint stands now. It changes nothing, so a copy of it just looks again.

use common::message::{ReplyBody, Target};

use super::{Done, Outcome};
use crate::context::{Context, endpoint_gone};

pub(super) async fn stats(context: &Context, target: &Target) -> Outcome {
    let endpoint = context.registry.resolve(target, context.worker_id).ok_or_else(endpoint_gone)?;
    let stats = context.media.endpoint_stats(endpoint.id).await?;
    Ok(Done::Reply(ReplyBody::Stats { stats: Box::new(stats) }))
}
