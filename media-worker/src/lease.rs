//! The heartbeat: renews the worker's lease with its measured load, and reconciles after an outage.
//!
//! A lease is a time on the wall clock, compared by other machines: their clocks must agree to well within a lease
//! (NTP is enough).
//!
//! Neither a store nor a broker that is away stops media: a heartbeat that fails is tried again at the next beat.

use std::sync::Arc;

use common::message::EventBody;
use common::model::{Worker, WorkerLoad, WorkerState};
use common::store::{Guarded, StoreResult};
use common::time::UnixMillis;

use crate::context::Context;
use crate::load::MeasureLoad;
use crate::media::MediaStats;
use crate::report::To;
use crate::{metrics, sync};

/// The worker's row as it is now.
pub(crate) fn row(context: &Context, load: WorkerLoad) -> Worker {
    Worker {
        id: context.worker_id,
        address: context.media.announced().first().map(ToString::to_string).unwrap_or_default(),
        lease_until: UnixMillis::now().plus(context.config.lease()),
        state: if context.drain.is_asked() { WorkerState::Draining } else { WorkerState::Ready },
        load,
        run: context.run,
        broker_away_since: None,
    }
}

/// Waits for the next beat; the beginning of a drain is one, so that others learn of it at once.
async fn next_beat(context: &Context, beat: &mut tokio::time::Interval, drain_told: &mut bool) {
    tokio::select! {
        biased;
        () = context.drain.asked(), if !*drain_told => *drain_told = true,
        _ = beat.tick() => {}
    }
}

/// Beats at a third of the lease until the worker stops.
pub(crate) async fn run(context: Arc<Context>, mut meter: Box<dyn MeasureLoad>) {
    let mut beat = tokio::time::interval(context.config.lease() / 3);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    beat.tick().await;
    let mut drain_told = false;
    loop {
        let next = next_beat(&context, &mut beat, &mut drain_told);
        if context.stop_intake.run_until_cancelled(next).await.is_none() {
            return;
        }
        // A stopping worker has removed its row, and that must stay so.
        if context.is_stopping() {
            return;
        }
        // The media thread has ended: so does the worker, and its lease with it.
        let Ok(stats) = context.media.stats().await else { return };
        metrics::media(&stats);
        match renew(&context, &mut *meter, &stats).await {
            Ok(()) => {
                metrics::heartbeat("renewed");
                sync::sync_all(&context).await;
            }
            Err(error) => {
                metrics::heartbeat("failed");
                tracing::warn!(%error, "the lease could not be renewed; media goes on");
            }
        }
    }
}

async fn renew(context: &Context, meter: &mut dyn MeasureLoad, stats: &MediaStats) -> StoreResult<()> {
    let now = row(context, meter.measure(stats));
    if context.store.renew_worker(&now).await? {
        return Ok(());
    }
    if context.is_stopping() {
        return Ok(());
    }
    metrics::heartbeat("declared_dead");
    tracing::error!(
        worker_id = %context.worker_id,
        "others declared this worker dead (its lease ran out); its sessions start anew"
    );
    give_up_pipelines(context).await;
    context.store.put_worker(&now).await
}

/// Whoever declared this worker dead has dropped its pipelines, or was about to: what still runs here serves nobody.
async fn give_up_pipelines(context: &Context) {
    for (session_id, pipeline) in context.registry.pipelines() {
        context.close_session_here(session_id).await;
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
