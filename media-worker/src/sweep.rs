//! Looks after what nobody else ends: sessions on dead workers, participants that never came back, sessions that are
//! empty, records of sessions that closed long ago.
//!
//! Every worker does this, at random moments; each change is a compare-and-set with one winner, and the winner tells.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use common::ambient;
use common::message::{EventBody, LeaveReason};
use common::model::{EndpointId, ParticipantId, Session, SessionId, WorkerId};
use common::store::{Guarded, RemoveIf, StoreResult};
use common::time::UnixMillis;
use tokio::time::Instant;

use crate::commands::close;
use crate::context::Context;
use crate::listeners::open_sessions;
use crate::reconcile::{self, Patience};
use crate::report::To;

/// What the passes remember of each other.
#[derive(Default)]
struct Sweeper {
    empty: Patience<SessionId>,
    left_behind: Patience<(SessionId, ParticipantId, Option<EndpointId>)>,
}

/// Looks for dead workers about once per lease, and passes over all open sessions every `pass_interval`.
pub(crate) async fn run(context: Arc<Context>) {
    let mut sweeper = Sweeper::default();
    let mut last_pass: Option<Instant> = None;
    loop {
        let pause = context.config.lease().mul_f64(ambient::jitter());
        if context.stop_intake.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
        let pass_due = last_pass.is_none_or(|last| last.elapsed() >= context.config.pass_interval);
        let swept = async {
            let somebody_died = has_dead_workers(&context).await?;
            if somebody_died || pass_due {
                sweeper.pass(&context).await?;
            }
            StoreResult::Ok(())
        };
        match swept.await {
            Ok(()) if pass_due => last_pass = Some(Instant::now()),
            Ok(()) => {}
            Err(error) => tracing::warn!(%error, "the sweep is tried again"),
        }
    }
}

async fn has_dead_workers(context: &Context) -> StoreResult<bool> {
    let now = UnixMillis::now();
    Ok(context.store.workers().await?.iter().any(|row| row.lease_until <= now))
}

impl Sweeper {
    async fn pass(&mut self, context: &Context) -> StoreResult<()> {
        let sessions = open_sessions(&*context.store).await?;
        take_over_from_the_dead(context, &sessions).await?;
        close_stale_pipelines(context, &sessions).await?;
        self.remove_left_behind(context, &sessions).await?;
        self.close_empty(context, &sessions).await?;
        let before =
            UnixMillis(UnixMillis::now().0.saturating_sub(clamp_millis(context.config.closed_retention)));
        context.store.delete_closed_sessions(before).await?;
        Ok(())
    }

    async fn remove_left_behind(&mut self, context: &Context, sessions: &[Session]) -> StoreResult<()> {
        let is_live = |endpoint| context.registry.endpoint(endpoint).is_some();
        let present = sessions.iter().flat_map(|session| {
            let lost = reconcile::left_behind(session, context.worker_id, is_live);
            lost.into_iter().map(move |(participant, endpoint)| (session.id, participant, endpoint))
        });
        let limit = context.config.rejoin_timeout;
        for (session_id, participant_id, endpoint) in
            self.left_behind.exhausted(present, Instant::now(), limit)
        {
            let only_if = endpoint.map_or(RemoveIf::Present, RemoveIf::Endpoint);
            let removed = context.store.remove_participant(session_id, participant_id, only_if).await?;
            if let Guarded::Applied(_) = removed {
                tracing::info!(%session_id, %participant_id, "removed: it did not rejoin");
                let reason = LeaveReason::ConnectionLost;
                let body = EventBody::ParticipantLeft { participant_id, reason };
                context.reporter.send(session_id, To::Everyone, body);
            }
        }
        Ok(())
    }

    async fn close_empty(&mut self, context: &Context, sessions: &[Session]) -> StoreResult<()> {
        let Some(limit) = context.config.empty_timeout else { return Ok(()) };
        let empty =
            sessions.iter().filter(|session| session.participants.is_empty()).map(|session| session.id);
        for session_id in self.empty.exhausted(empty, Instant::now(), limit) {
            // Somebody may have come since the listing. Who comes between this look and the close finds the session
            // ended, as it would have a moment later.
            let now = context.store.session(session_id).await?;
            if now.is_some_and(|session| session.participants.is_empty()) {
                close::close_session(context, session_id).await?;
            }
        }
        Ok(())
    }
}

async fn take_over_from_the_dead(context: &Context, sessions: &[Session]) -> StoreResult<()> {
    let now = UnixMillis::now();
    // Read after the sessions: a worker that was new enough to be missed here could not be in that listing.
    let rows = context.store.workers().await?;
    let alive: BTreeSet<WorkerId> = rows
        .iter()
        .filter(|row| row.lease_until > now)
        .map(|row| row.id)
        .chain([context.worker_id])
        .collect();
    for (session, pipeline) in reconcile::orphaned(sessions, &alive) {
        context.drop_pipeline(session, pipeline).await?;
    }
    for dead in rows.iter().filter(|row| !alive.contains(&row.id)) {
        // Its heartbeat may have come back meanwhile. If it does so after this look, it finds its row gone, knows that
        // it was declared dead and starts anew.
        let row = context.store.worker(dead.id).await?;
        if let Some(row) = row.filter(|row| row.lease_until <= UnixMillis::now())
            && context.store.bury_worker(&row).await?
        {
            tracing::warn!(dead = %dead.id, "a worker's lease ran out; its row is removed");
        }
    }
    Ok(())
}

async fn close_stale_pipelines(context: &Context, sessions: &[Session]) -> StoreResult<()> {
    let open: BTreeMap<SessionId, &Session> = sessions.iter().map(|session| (session.id, session)).collect();
    for (session_id, pipeline) in
        reconcile::stale_pipelines(&context.registry.pipelines(), &open, context.worker_id)
    {
        // Placed after the listing, perhaps: look again.
        let now = context.store.session(session_id).await?;
        if now.is_none_or(|stored| !stored.has_pipeline(pipeline)) {
            tracing::warn!(%session_id, "this worker no longer hosts the session; closed here");
            context.close_pipeline_here(session_id, pipeline).await;
        }
    }
    Ok(())
}

fn clamp_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
