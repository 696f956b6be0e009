//! Rate: how a participant found its call. Any worker stores it; the one that had the connection knows more to store.

use common::message::{RateCall, ReplyBody};
use common::model::{NetworkSummary, Rating};

use super::{Done, Outcome};
use crate::context::Context;
use crate::metrics;

pub(super) async fn rate(context: &Context, rated: &RateCall) -> Outcome {
    let rating = Rating {
        session_id: rated.session_id,
        participant_id: rated.participant_id,
        key_id: rated.key_id.clone(),
        stars: rated.stars,
        comment: rated.comment.clone(),
        at: rated.at,
        network: network(context, rated).await,
    };
    // Refused: it has thought better of it meanwhile, and that stands.
    if context.store.put_rating(&rating).await? {
        metrics::rating(rated.stars);
    }
    Ok(Done::Reply(ReplyBody::Accepted))
}

/// What is known here of the connection that is rated.
async fn network(context: &Context, rated: &RateCall) -> Option<NetworkSummary> {
    let endpoint_id = rated.endpoint_id?;
    if let Ok(stats) = context.media.endpoint_stats(endpoint_id).await {
        return Some(stats.summary);
    }
    // It may have ended a moment ago, and that is being told.
    context.media_events.settled().await;
    context.ended.of(endpoint_id)
}
