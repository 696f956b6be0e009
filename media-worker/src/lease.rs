//! The heartbeat: renews the worker's lease with its measured load, and reconciles after an outage.
//!
//! A lease is a time on the wall clock, compared by other machines: their clocks must agree to well within a lease
//! (NTP is enough).
//!
//! Neither a store nor a broker that is away stops media: a heartbeat that fails is tried again at the next beat.

use std::sync::Arc;
use std::time::Duration;

use common::message::EventBody;
use common::model::{Worker, WorkerLoad, WorkerState};
use common::store::{Guarded, StoreError, StoreErrorKind, StoreResult};
use common::time::UnixMillis;
use tokio::sync::watch;
use tokio::time::{Instant, Interval};

use crate::context::Context;
use crate::load::MeasureLoad;
use crate::media::MediaStats;
use crate::report::To;
use crate::{metrics, sweep, sync};

/// The worker's row as it is now.
pub(crate) fn row(context: &Context, load: WorkerLoad) -> Worker {
    Worker {
        id: context.worker_id,
        address: context.media.announced().first().map(ToString::to_string).unwrap_or_default(),
        lease_until: UnixMillis::now().plus(context.config.lease()),
        state: if context.drain.is_asked() { WorkerState::Draining } else { WorkerState::Ready },
        load,
        run: context.run,
        broker_away_since: *context.peers.away_since().borrow(),
    }
}

/// Beats at a third of the lease, and whenever there is something that others must learn at once, until the worker stops.
pub(crate) async fn run(context: Arc<Context>, mut meter: Box<dyn MeasureLoad>) {
    let mut beat = tokio::time::interval(context.config.lease() / 3);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    beat.tick().await;
    let mut drain_told = false;
    let mut passed = metrics::Passed::default();
    let mut away = context.peers.away_since();
    loop {
        let next = next_beat(&context, &mut beat, &mut away, &mut drain_told);
        if context.stop_intake.run_until_cancelled(next).await.is_none() {
            return;
        }
        // A stopping worker has removed its row, and that must stay so.
        if context.is_stopping() {
            return;
        }
        // The media thread has ended: so does the worker, and its lease with it.
        let Ok(stats) = context.media.stats().await else { return };
        passed.media(&stats);
        metrics::timeline_waiting(context.timeline.waiting());
        if drain_told {
            metrics::draining();
        }
        match renew(&context, &mut *meter, &stats).await {
            Ok(true) => {
                metrics::heartbeat("renewed");
                sync::sync_all(&context).await;
            }
            // Another process has this worker's id: this one is over.
            Ok(false) => return,
            Err(error) => {
                context.standing.failed();
                metrics::heartbeat("failed");
                tracing::warn!(%error, "the lease could not be renewed; media goes on");
            }
        }
        metrics::lease_age(context.standing.age());
        // Without the broker nobody tells it that a session was taken from it.
        if context.peers.is_away()
            && let Err(error) = sweep::close_stale_pipelines(&context).await
        {
            tracing::warn!(%error, "whether the sessions are still here is looked up later");
        }
    }
}

/// Waits for the next beat. The beginning of a drain is one, and so is a change of the link to the broker: others must
/// learn that this worker lives although its queue is missing.
async fn next_beat(
    context: &Context,
    beat: &mut Interval,
    away: &mut watch::Receiver<Option<UnixMillis>>,
    drain_told: &mut bool,
) {
    tokio::select! {
        biased;
        () = context.drain.asked(), if !*drain_told => *drain_told = true,
        Ok(()) = away.changed() => {}
        _ = beat.tick() => {}
    }
}

/// `false`: the worker's id belongs to another process now.
async fn renew(context: &Context, meter: &mut dyn MeasureLoad, stats: &MediaStats) -> StoreResult<bool> {
    let begun = Instant::now();
    let now = row(context, meter.measure(stats));
    // A store that hangs must not let the standing run out before it counts as away.
    let patience = context.config.lease() / 2;
    if within(patience, context.store.renew_worker(&now)).await? {
        context.standing.renewed(begun);
        return Ok(true);
    }
    if context.is_stopping() {
        return Ok(true);
    }
    metrics::heartbeat("declared_dead");
    tracing::error!(
        worker_id = %context.worker_id,
        "others declared this worker dead (its lease ran out, or its queue was gone); its sessions start anew"
    );
    give_up_pipelines(context).await;
    let successor = within(patience, context.store.worker(context.worker_id)).await?;
    if successor.is_some_and(|row| row.run != context.run) {
        tracing::error!(worker_id = %context.worker_id, "another process runs under this worker's id; this one ends");
        return Ok(false);
    }
    let begun = Instant::now();
    let now = Worker { lease_until: UnixMillis::now().plus(context.config.lease()), ..now };
    within(patience, context.store.put_worker(&now)).await?;
    context.standing.renewed(begun);
    Ok(true)
}

async fn within<T>(limit: Duration, call: impl Future<Output = StoreResult<T>>) -> StoreResult<T> {
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
        Err(StoreError::new(StoreErrorKind::Unavailable, "no answer within half a lease"))
    })
}

/// Whoever declared this worker dead has dropped its pipelines, or was about to: what still runs here serves nobody.
/// Everything ends here first, and only then is anything told or stored.
async fn give_up_pipelines(context: &Context) {
    let pipelines = context.registry.pipelines();
    for (session_id, _) in &pipelines {
        context.reporter.fence(*session_id);
        context.close_session_here(*session_id).await;
    }
    for (session_id, pipeline) in pipelines {
        match context.store.drop_pipeline(session_id, pipeline.epoch, pipeline.id).await {
            Ok(Guarded::Applied(after)) => {
                let body = EventBody::SessionInterrupted { epoch: after.epoch };
                context.reporter.send(session_id, To::Everyone, body);
            }
            Ok(Guarded::Refused(_)) => {}
            Err(error) => tracing::warn!(%session_id, %error, "left to the next pass"),
        }
    }
}
