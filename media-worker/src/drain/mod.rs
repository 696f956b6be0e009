//! Drain: the worker takes no new pipelines, moves its sessions to others, and is done when nobody is left here.
//!
//! ```text
//!   asked ─▶ row says `draining` ─▶ each session: move_pipeline ─▶ session.moving to everyone in it
//!                                        │                               │ clients join again (at the new worker),
//!                                        │ nobody takes it: wait         ▼ then close the endpoint here
//!                                        │                       endpoints here go on until then
//!                                        ▼                               │
//!                                     deadline ─────────────▶ retire_pipeline, one by one ─▶ done
//! ```
//!
//! Every look reads what is stored, so it makes no difference whether a change was made by an earlier look, by a join
//! or by a worker that found the new pipeline dead. What is left at the deadline is interrupted by the worker's stop
//! ([`crate::Worker::stop`]), as in an end without drain.
//!
//! A worker with nothing on it is not done at once: whoever read its row just before that said `draining` (another one that
//! drains, say, when several are ended at a time) may place something on it yet, and everyone in that would be interrupted.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use common::message::EventBody;
use common::model::{Cause, Pipeline, PipelineId, PipelineState, Session, SessionId, WorkerId, WorkerState};
use common::store::{Guarded, SessionFilter, StoreResult};
use common::time::UnixMillis;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::plan::{Hosted, Live, Spread, Step};
use crate::context::Context;
use crate::registry::LiveEndpoint;
use crate::report::To;
use crate::sync::{forget, tell_if_replaced};
use crate::timeline;

mod plan;

/// Between two looks at what is left.
const LOOK: Duration = Duration::from_millis(250);
/// How long nothing may have been here, with a row that says `draining`, before the drain is over. Longer than it takes from
/// reading the rows to placing something.
const SETTLED: Duration = Duration::from_secs(1);
/// Sessions that are moved or ended at once.
const AT_ONCE: usize = 16;
/// How many sessions one listing call reads.
const PAGE: u32 = 500;

/// The state of a worker's drain, shared with the commands and the heartbeat.
#[derive(Default)]
pub(crate) struct Drain {
    asked: CancellationToken,
    finished: CancellationToken,
    deadline: OnceLock<UnixMillis>,
    /// Sessions whose clients have been asked to move.
    announced: Mutex<HashSet<SessionId>>,
}

impl Drain {
    /// Starts it; a second call changes nothing.
    pub fn ask(&self, timeout: Duration) {
        self.deadline.get_or_init(|| UnixMillis::now().plus(timeout));
        self.asked.cancel();
    }

    pub fn is_asked(&self) -> bool {
        self.asked.is_cancelled()
    }

    pub async fn asked(&self) {
        self.asked.cancelled().await;
    }

    /// Resolves when nobody is left here, or the deadline has passed.
    pub async fn finished(&self) {
        self.finished.cancelled().await;
    }

    fn deadline(&self) -> UnixMillis {
        self.deadline.get().copied().unwrap_or_else(UnixMillis::now)
    }

    fn note_announced(&self, session: SessionId, told: bool) {
        let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        if told {
            announced.insert(session);
        } else {
            announced.remove(&session);
        }
    }

    fn is_announced(&self, session: SessionId) -> bool {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner).contains(&session)
    }
}

impl LiveEndpoint {
    fn as_live(&self) -> Live {
        Live { endpoint: self.id, participant: self.participant_id, was_connected: self.was_connected() }
    }
}

/// Waits to be asked, and then moves everything away.
pub(crate) async fn run(context: Arc<Context>) {
    let drain = &context.drain;
    drain.asked().await;
    let deadline = drain.deadline();
    tracing::info!(worker_id = %context.worker_id, deadline = deadline.0, "draining: sessions move to other workers");
    let (mut spread, mut empty_since) = (None, None);
    loop {
        match timeline::because(cause(&context), look(&context, &mut spread)).await {
            Ok(Left::Nothing) => {
                if empty_since.get_or_insert_with(Instant::now).elapsed() >= SETTLED {
                    tracing::info!(worker_id = %context.worker_id, "drained");
                    break;
                }
            }
            Ok(Left::Sessions(left)) => {
                tracing::debug!(left, "sessions are still here");
                empty_since = None;
            }
            Ok(Left::Untold) => empty_since = None,
            Err(error) => tracing::warn!(%error, "the drain waits for the store"),
        }
        if UnixMillis::now() >= deadline {
            tracing::warn!(worker_id = %context.worker_id, "the drain's deadline has passed; what is left is interrupted");
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    drain.finished.cancel();
    // The worker stops next; until then this task counts as running.
    context.stop.cancelled().await;
}

/// What the timeline says about everything that a drain does.
fn cause(context: &Context) -> Cause {
    Cause { reason: Some("drain".to_owned()), worker_id: Some(context.worker_id), ..timeline::cause() }
}

/// What a look found.
enum Left {
    Sessions(usize),
    /// No session, but others may not know yet that none is to be placed here.
    Untold,
    Nothing,
}

/// Does what is to be done now about each session that is stored here, and says how many there are.
async fn look(context: &Context, spread: &mut Option<Spread>) -> StoreResult<Left> {
    let sessions = hosted_sessions(context).await?;
    if sessions.is_empty() {
        let own = context.store.worker(context.worker_id).await?;
        // Without a row nothing is placed here either.
        let is_told = own.is_none_or(|row| row.state == WorkerState::Draining);
        return Ok(if is_told { Left::Nothing } else { Left::Untold });
    }
    let mut workers = context.store.workers().await?;
    let spread = spread.get_or_insert_with(|| {
        let own = workers.iter().find(|row| row.id == context.worker_id);
        own.map_or(Spread::new(0, 0), |own| Spread::new(own.load.memory_bytes, own.load.endpoints))
    });
    // Its row may not say yet that it drains.
    workers.retain(|row| row.id != context.worker_id);
    let now = UnixMillis::now();
    let mut steps = Vec::new();
    for session in &sessions {
        for pipeline in session.pipelines.iter().filter(|pipeline| pipeline.worker_id == context.worker_id) {
            let live = context.registry.endpoints_of(pipeline.id);
            let hosted = Hosted {
                session,
                pipeline,
                live: live.iter().map(|endpoint| endpoint.as_live()).collect(),
                announced: context.drain.is_announced(session.id),
            };
            let step = plan::step(&hosted, |endpoints| spread.choose(&workers, endpoints, now));
            steps.push((session, pipeline, step));
        }
    }
    let mut carried_out: Vec<BoxFuture<'_, StoreResult<()>>> = Vec::new();
    for (session, pipeline, step) in steps {
        carried_out.push(carry_out(context, session, pipeline, step).boxed());
    }
    let results: Vec<StoreResult<()>> = futures::stream::iter(carried_out).buffered(AT_ONCE).collect().await;
    results.into_iter().collect::<StoreResult<()>>()?;
    Ok(Left::Sessions(sessions.len()))
}

async fn carry_out(context: &Context, session: &Session, pipeline: &Pipeline, step: Step) -> StoreResult<()> {
    match step {
        Step::Wait => {}
        Step::LetGo => {
            let dropped = context.store.drop_pipeline(session.id, session.epoch, pipeline.id).await?;
            if let Guarded::Applied(_) = dropped {
                context.close_pipeline_here(session.id, pipeline.id).await;
            }
        }
        Step::Move { to } => {
            move_to(context, session, pipeline, to).await?;
        }
        Step::Announce => announce(context, session),
        Step::Keep { close } => {
            for endpoint in close.into_iter().filter_map(|id| context.registry.endpoint(id)) {
                let mut memory = endpoint.memory.lock().await;
                // A join under way is not in the session yet, and knows by itself what to do when it is refused.
                if memory.join_reply.is_some() {
                    forget(context, &endpoint, &mut memory).await;
                    tell_if_replaced(context, &endpoint, Some(session));
                }
            }
        }
        Step::Retire => {
            if let Guarded::Applied(_) = context.store.retire_pipeline(session.id, pipeline.id).await? {
                tracing::info!(session_id = %session.id, "everyone has moved; the old pipeline ends");
            }
            context.close_pipeline_here(session.id, pipeline.id).await;
        }
    }
    Ok(())
}

/// Moves a session that this draining worker hosts, for somebody who joins it before the drain has got to it. `false`:
/// no worker takes it, or it was changed meanwhile.
///
/// # Errors
/// Those of the store.
pub(crate) async fn move_now(context: &Context, session: &Session, pipeline: &Pipeline) -> StoreResult<bool> {
    let mut workers = context.store.workers().await?;
    workers.retain(|row| row.id != context.worker_id);
    match Spread::new(0, 0).choose(&workers, 1, UnixMillis::now()) {
        Some(to) => move_to(context, session, pipeline, to).await,
        None => Ok(false),
    }
}

async fn move_to(context: &Context, session: &Session, from: &Pipeline, to: WorkerId) -> StoreResult<bool> {
    context.drain.note_announced(session.id, false);
    let new = Pipeline { id: PipelineId::new(), worker_id: to, state: PipelineState::Ready };
    match context.store.move_pipeline(session.id, session.epoch, from.id, &new).await? {
        Guarded::Applied(after) => {
            tracing::info!(session_id = %session.id, %to, epoch = after.epoch, "session moves");
            let placed = Cause { worker_id: Some(to), ..cause(context) };
            context.timeline.note_because(session.id, "session.placed", None, placed);
            announce(context, &after);
            Ok(true)
        }
        Guarded::Refused(_) => Ok(false),
    }
}

/// Asks everyone in the session to join again.
fn announce(context: &Context, session: &Session) {
    context.drain.note_announced(session.id, true);
    let body = EventBody::SessionMoving { epoch: session.epoch, deadline: context.drain.deadline() };
    context.reporter.send(session.id, To::Everyone, body);
}

/// The open sessions with a pipeline of this worker.
///
/// # Errors
/// Those of the store.
pub(crate) async fn hosted_sessions(context: &Context) -> StoreResult<Vec<Session>> {
    let mut filter = SessionFilter {
        open_only: true,
        worker_id: Some(context.worker_id),
        limit: PAGE,
        ..SessionFilter::default()
    };
    let mut all = Vec::new();
    loop {
        let page = context.store.sessions(&filter).await?;
        let is_last = page.len() < PAGE as usize;
        filter.after = page.last().map(|session| session.id);
        all.extend(page);
        if is_last {
            return Ok(all);
        }
    }
}
