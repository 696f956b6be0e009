//! Looks after what nobody else ends: sessions on dead workers, participants that never came back, sessions that are
//! empty, records of sessions that closed long ago.
//!
//! Every worker does this, at random moments; each change is a compare-and-set with one winner, and the winner tells. A
//! pass reads no more than outlines of the sessions that need it, and of those hosted here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::broker::{BrokerErrorKind, BrokerResult, Destination, Message, topology};
use common::message::{Event, EventBody, LeaveReason};
use common::model::{EndpointId, ParticipantId, SessionId, WorkerId};
use common::store::{Guarded, Outlined, RemoveIf, SessionOutline, StoreResult};
use common::time::UnixMillis;
use tokio::time::Instant;

use crate::commands::close;
use crate::context::{Context, Lane};
use crate::media_events::in_lane;
use crate::peers::millis;
use crate::reconcile::{self, Patience};
use crate::report::To;
use crate::sync::end_stray;
use crate::timeline;

/// How many outlines one call reads.
const PAGE: u32 = 500;
/// A ping to a queue that nobody reads at the moment goes away by itself.
const PING_TTL: Duration = Duration::from_secs(1);

/// What the passes remember of each other.
#[derive(Default)]
struct Sweeper {
    empty: Patience<SessionId>,
    left_behind: Patience<(SessionId, ParticipantId, Option<EndpointId>)>,
    never_connected: Patience<EndpointId>,
}

/// Passes every `pass_interval`, for the first time within two leases.
pub(crate) async fn run(context: Arc<Context>) {
    let mut sweeper = Sweeper::default();
    let mut pause = context.config.lease().min(context.config.pass_interval());
    loop {
        let spread = pause.mul_f64(common::ambient::jitter());
        if context.stop_intake.run_until_cancelled(tokio::time::sleep(spread)).await.is_none() {
            return;
        }
        context.standing.good().await;
        pause = match sweeper.pass(&context).await {
            Ok(()) => context.config.pass_interval(),
            Err(error) => {
                tracing::warn!(%error, "the sweep is tried again");
                context.config.lease().min(context.config.pass_interval())
            }
        };
    }
}

impl Sweeper {
    async fn pass(&mut self, context: &Arc<Context>) -> StoreResult<()> {
        let rows = context.store.workers().await?;
        let living: Vec<WorkerId> = rows.iter().map(|row| row.id).chain([context.worker_id]).collect();
        let unattended = outlines(context, Outlined::Unattended { living: &living }).await?;
        take_over_orphans(context, &unattended, &living).await?;
        let hosted = close_stale_pipelines(context).await?;
        self.remove_left_behind(context, unattended.iter().chain(&hosted)).await?;
        close_strays(context, &hosted);
        self.close_unread(context, &hosted).await;
        self.close_empty(context, &unattended).await?;
        forget_ended(context).await
    }

    async fn remove_left_behind(
        &mut self,
        context: &Context,
        sessions: impl Iterator<Item = &SessionOutline>,
    ) -> StoreResult<()> {
        let is_live = |endpoint| context.registry.endpoint(endpoint).is_some();
        let present = sessions.flat_map(|session| {
            let lost = reconcile::left_behind(session, context.worker_id, is_live);
            lost.into_iter().map(move |(participant, endpoint)| (session.id, participant, endpoint))
        });
        let limit = context.config.rejoin_timeout;
        for (session_id, participant_id, endpoint) in
            self.left_behind.exhausted(present, Instant::now(), limit)
        {
            let only_if = endpoint.map_or(RemoveIf::Present, RemoveIf::Endpoint);
            let removed = context.store.remove_participant(session_id, participant_id, only_if, None).await?;
            if let Guarded::Applied(_) = removed {
                tracing::info!(%session_id, %participant_id, "removed: it did not rejoin");
                let reason = LeaveReason::ConnectionLost;
                let body = EventBody::ParticipantLeft { participant_id, reason };
                context.reporter.send(session_id, To::Everyone, body);
            }
        }
        Ok(())
    }

    /// Whoever joined, never connected and went away leaves no silence to notice: that nobody reads its events tells.
    async fn close_unread(&mut self, context: &Arc<Context>, hosted: &[SessionOutline]) {
        let present =
            hosted.iter().flat_map(|session| reconcile::never_connected(session, context.worker_id));
        let limit = context.config.unread_timeout;
        for endpoint_id in self.never_connected.exhausted(present, Instant::now(), limit) {
            let Some(endpoint) = context.registry.endpoint(endpoint_id) else { continue };
            let (session_id, participant_id) = (endpoint.session_id, endpoint.participant_id);
            let queue = topology::user_queue_name(session_id, participant_id, endpoint_id);
            let ping =
                Message { body: Vec::new(), message_id: topology::PING.to_owned(), ttl: Some(PING_TTL) };
            match context.broker.send(Destination::Queue(&queue), ping).await {
                Err(error) if error.kind == BrokerErrorKind::Unroutable => {}
                _ => continue,
            }
            tracing::info!(%session_id, %participant_id, "removed: it never connected, and nobody reads its events");
            in_lane(context, &endpoint, move |_, memory| {
                let reason = LeaveReason::ConnectionLost;
                memory.closing = Some(vec![EventBody::ParticipantLeft { participant_id, reason }]);
            });
        }
    }

    async fn close_empty(&mut self, context: &Context, sessions: &[SessionOutline]) -> StoreResult<()> {
        let Some(limit) = context.config.empty_timeout else { return Ok(()) };
        let empty =
            sessions.iter().filter(|session| session.participants.is_empty()).map(|session| session.id);
        for session_id in self.empty.exhausted(empty, Instant::now(), limit) {
            // Refused when somebody has come since the listing.
            let close = close::close_empty_session(context, session_id);
            timeline::because(timeline::reason("empty"), close).await?;
        }
        Ok(())
    }
}

/// Whoever is removed while the store's answer is lost goes on here until somebody looks.
fn close_strays(context: &Arc<Context>, hosted: &[SessionOutline]) {
    let running = |pipeline| {
        context.registry.endpoints_of(pipeline).into_iter().map(|endpoint| endpoint.id).collect::<Vec<_>>()
    };
    for id in hosted.iter().flat_map(|session| reconcile::strays(session, context.worker_id, running)) {
        let Some(endpoint) = context.registry.endpoint(id) else { continue };
        let lane = Lane::Participant(endpoint.session_id, endpoint.participant_id);
        let context_of_job = context.clone();
        // Behind its join, when that is under way; then it is looked at again.
        context.run_in_lane(lane, async move {
            context_of_job.standing.good().await;
            if let Err(error) = end_stray(&context_of_job, &endpoint).await {
                tracing::warn!(endpoint_id = %endpoint.id, %error, "looked at again in the next pass");
            }
        });
    }
}

/// Removes the records of sessions that ended long ago, and before that what their end may have left at the broker: who
/// closed one may have died before it had cleared up, and a process that lost its connection meanwhile has declared
/// again what it knew. An exchange does not expire.
async fn forget_ended(context: &Context) -> StoreResult<()> {
    let before = UnixMillis(UnixMillis::now().0.saturating_sub(millis(context.config.closed_retention)));
    let mut ended: Vec<SessionId> = Vec::new();
    loop {
        let page = context.store.closed_sessions(before, ended.last().copied(), PAGE).await?;
        let is_last = page.len() < PAGE as usize;
        ended.extend(page);
        if is_last {
            break;
        }
    }
    for id in &ended {
        // Who closed it may have died before everybody was told; whoever still reads has waited for this.
        if let Err(error) = tell_again(context, *id).await {
            tracing::warn!(session_id = %id, %error, "the record stays until the broker takes its last event");
            return Ok(());
        }
        let queue = context.broker.delete_queue(&topology::session_queue_name(*id)).await;
        let exchange = context.broker.delete_exchange(&topology::session_exchange_name(*id)).await;
        if let Err(error) = queue.and(exchange) {
            tracing::warn!(session_id = %id, %error, "the record stays until the broker is cleared");
            return Ok(());
        }
    }
    if !ended.is_empty() {
        context.store.delete_closed_sessions(before).await?;
    }
    Ok(())
}

/// Says once more that a session has ended, to nobody as a rule.
async fn tell_again(context: &Context, session_id: SessionId) -> BrokerResult<()> {
    let event = Event::new(session_id, EventBody::SessionClosed {});
    let message = Message {
        body: serde_json::to_vec(&event).expect("an event is plain data"),
        message_id: event.id.to_string(),
        ttl: event.body.kept_for(),
    };
    let exchange = topology::session_exchange_name(session_id);
    match context.broker.send(Destination::Exchange(&exchange), message).await {
        Err(error) if error.kind != BrokerErrorKind::Unroutable => Err(error),
        _ => Ok(()),
    }
}

async fn outlines(context: &Context, which: Outlined<'_>) -> StoreResult<Vec<SessionOutline>> {
    let mut all: Vec<SessionOutline> = Vec::new();
    loop {
        let after = all.last().map(|session| session.id);
        let page = context.store.outlines(which, after, PAGE).await?;
        let is_last = page.len() < PAGE as usize;
        all.extend(page);
        if is_last {
            return Ok(all);
        }
    }
}

/// Sessions of workers whose death nobody here has seen: those that died while no other worker ran.
async fn take_over_orphans(
    context: &Context,
    sessions: &[SessionOutline],
    living: &[WorkerId],
) -> StoreResult<()> {
    for (outline, pipeline) in reconcile::orphaned(sessions, living) {
        // Its worker may have started after the rows were read.
        if context.store.worker(pipeline.worker_id).await?.is_none()
            && let Some(session) = context.store.session(outline.id).await?
            && session.pipelines.iter().any(|stored| stored.id == pipeline.id)
        {
            context.drop_pipeline(&session, pipeline).await?;
        }
    }
    Ok(())
}

/// Ends here what is stored elsewhere, or no more; gives the outlines of the sessions that are stored here.
pub(crate) async fn close_stale_pipelines(context: &Context) -> StoreResult<Vec<SessionOutline>> {
    let hosted = outlines(context, Outlined::On(context.worker_id)).await?;
    let stored: BTreeMap<SessionId, &SessionOutline> =
        hosted.iter().map(|session| (session.id, session)).collect();
    for (session_id, pipeline) in
        reconcile::stale_pipelines(&context.registry.pipelines(), &stored, context.worker_id)
    {
        // Placed after the listing, perhaps: look again.
        let now = context.store.session(session_id).await?;
        if now.is_none_or(|stored| !stored.has_pipeline(pipeline)) {
            tracing::warn!(%session_id, "this worker no longer hosts the session; closed here");
            context.reporter.fence(session_id);
            context.close_pipeline_here(session_id, pipeline).await;
        }
    }
    Ok(hosted)
}
