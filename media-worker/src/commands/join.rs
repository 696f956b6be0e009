//! Join: finds or chooses the worker that hosts the session, and there opens the participant's endpoint.
//!
//! ```text
//!   session.<id> ─▶ any worker: home? ──another──▶ worker.<id> ─▶ that worker
//!                       │ here                                        │
//!                       ▼                                             ▼
//!        open endpoint ─▶ offer (optional) ─▶ stored, guarded by the epoch ─▶ reply, events
//! ```
//!
//! The one stored write comes last, so a join that is refused half-way leaves nothing behind: the endpoint is
//! closed, and whoever was there before under the same participant id still is.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::message::{
    Answer, CommandError, ErrorCode, EventBody, Fixed, JoinReply, Joined, Offer, ReplyBody, Target,
};
use common::model::{
    Bitrates, Cause, CommandId, Endpoint, EndpointId, EndpointState, Grants, Participant, ParticipantId,
    ParticipantState, Pipeline, PipelineId, PipelineState, Session, SessionId, SessionState, WorkerId,
};
use common::store::Guarded;
use common::time::UnixMillis;

use super::{Done, Failure, Invocation, Outcome, forward, offer, refuse};
use crate::context::{Context, Lane, endpoint_gone};
use crate::drain;
use crate::media::{OpenEndpoint, Treatment};
use crate::peers::{self, Finding};
use crate::placement::{self, Home};
use crate::registry::{LiveEndpoint, Memory};
use crate::report::To;
use crate::spans::{self, Traced};
use crate::sync::{forget, tell_replaced};
use crate::timeline;

/// Looks at a session that changes under our hands, before the join is refused as `unavailable`.
const TRIES: usize = 10;
/// What a client is told to wait when no worker takes the session.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(super) struct Join<'a> {
    pub command_id: CommandId,
    pub session_id: SessionId,
    pub participant_id: ParticipantId,
    pub endpoint_id: EndpointId,
    pub name: &'a str,
    pub grants: Grants,
    pub server_offers: bool,
    pub offer: Option<&'a Offer>,
    /// To what its client lowers its bit rates.
    pub lowered: Bitrates,
    pub last_n: Option<u16>,
    pub fixed: Option<Fixed>,
    /// Absent: the backend joins it.
    pub token_issued_at: Option<UnixMillis>,
}

pub(super) async fn join(context: &Context, invocation: &Invocation, join: &Join<'_>) -> Outcome {
    // Workers that cannot be reached although their lease still runs.
    let mut unreachable = Vec::new();
    for _ in 0..TRIES {
        let session = context.store.session(join.session_id).await?;
        let session = session.ok_or_else(|| refuse(ErrorCode::SessionNotFound, "no such session"))?;
        if session.state == SessionState::Closed {
            return Err(refuse(ErrorCode::SessionClosed, "the session has ended"));
        }
        if join.token_issued_at.is_some_and(|at| session.has_revoked(join.participant_id, at)) {
            return Err(refuse(
                ErrorCode::TokenRevoked,
                "the participant was removed after the token was issued",
            ));
        }
        if let Some(done) = repeat(context, invocation, &session, join).await? {
            return Ok(done);
        }
        let Some((session, pipeline)) = settle(context, session, &unreachable).await? else { continue };
        let is_here = pipeline.worker_id == context.worker_id;
        // A session that nobody is in yet can as well be where there is room.
        let may_move = is_here && context.media.full().is_some() && is_empty(&session, &pipeline);
        if is_here && !context.is_stopping() && !may_move {
            match admit(context, join, &session, &pipeline).await? {
                Some(reply) => return Ok(Done::Reply(reply)),
                None => continue,
            }
        }
        if !is_here && forward(context, invocation, pipeline.worker_id).await? {
            return Ok(Done::Forwarded);
        }
        if !is_here {
            match peers::queue_missing(context, pipeline.worker_id).await? {
                Finding::Back => continue,
                Finding::Dead | Finding::CutOff => {}
                Finding::Unclear => return Err(unavailable("the session's worker is out of reach for now")),
            }
        }
        // Nobody can join there (or it is this worker, about to end or full).
        context.drop_pipeline(&session, &pipeline).await?;
        unreachable.push(pipeline.worker_id);
    }
    Err(unavailable("the session's place keeps changing"))
}

/// Whether no endpoint of the session lives in this pipeline.
fn is_empty(session: &Session, pipeline: &Pipeline) -> bool {
    let mut endpoints = session.participants.iter().filter_map(|participant| participant.endpoint.as_ref());
    !endpoints.any(|endpoint| endpoint.pipeline_id == pipeline.id)
}

/// What an earlier try of the same command came to. `None`: there was none, or it ended half-way and is to be done again.
///
/// A join whose endpoint has come and gone (or died with its worker), or whose participant has joined anew since, is not
/// done again: whoever sent it has its reply, and its client rejoins with a command of its own. Doing it again would bring
/// in a ghost, or throw out who is there now.
async fn repeat(
    context: &Context,
    invocation: &Invocation,
    session: &Session,
    join: &Join<'_>,
) -> Result<Option<Done>, Failure> {
    if context.registry.join_has_ended(join.command_id) {
        return Err(endpoint_gone().into());
    }
    let endpoint = session
        .participant(join.participant_id)
        .filter(|participant| participant.command_id == join.command_id)
        .and_then(|participant| participant.endpoint.as_ref());
    let Some(endpoint) = endpoint else {
        return if session.has_done(join.command_id) { Err(endpoint_gone().into()) } else { Ok(None) };
    };
    if endpoint.state == EndpointState::Closed {
        return Err(endpoint_gone().into());
    }
    if let Some(live) = context.registry.endpoint(endpoint.id) {
        let memory = live.memory.lock().await;
        let reply = memory.join_reply.clone().filter(|_| !memory.gone);
        let Some(ReplyBody::Joined(mut reply)) = reply else { return Err(endpoint_gone().into()) };
        reply.joined.others = others(session, join.participant_id);
        return Ok(Some(Done::Reply(ReplyBody::Joined(reply))));
    }
    // Hosted elsewhere: the worker there recognises it. Here: an earlier try was stored and does not know it.
    if session.pipeline().is_some_and(|current| current.id == endpoint.pipeline_id) {
        return Ok(None);
    }
    // The session has moved on since; the endpoint lives on where it was until its client lets go of it.
    let host = endpoint.worker_id;
    if host != context.worker_id && forward(context, invocation, host).await? {
        return Ok(Some(Done::Forwarded));
    }
    Err(endpoint_gone().into())
}

/// The session's pipeline on a living worker, placed now if there is none. `None`: look at the session again.
async fn settle(
    context: &Context,
    session: Session,
    unreachable: &[WorkerId],
) -> Result<Option<(Session, Pipeline)>, Failure> {
    let now = UnixMillis::now();
    let host = match session.pipeline() {
        Some(here) if here.worker_id == context.worker_id => {
            // Who comes now need not be asked to move a moment later.
            if context.drain.is_asked() && drain::move_now(context, &session, here).await? {
                return Ok(None);
            }
            return Ok(Some((session.clone(), here.clone())));
        }
        Some(elsewhere) => context.store.worker(elsewhere.worker_id).await?,
        None => None,
    };
    let session = match placement::home(&session, host.as_ref(), now) {
        Home::At(pipeline) => return Ok(Some((session, pipeline))),
        Home::Uncertain => {
            return Err(unavailable("the session's worker may be gone; others are finding out"));
        }
        Home::Nowhere => session,
        Home::Lost(pipeline) => {
            context.drop_pipeline(&session, &pipeline).await?;
            return Ok(None);
        }
    };
    let mut workers = context.store.workers().await?;
    workers.retain(|worker| !unreachable.contains(&worker.id));
    let worker_id = placement::choose(&workers, session.previous_worker_id, session.id, now)
        .ok_or_else(|| unavailable("no worker takes sessions now"))?;
    let pipeline = Pipeline { id: PipelineId::new(), worker_id, state: PipelineState::Ready };
    match context.store.place_pipeline(session.id, session.epoch, &pipeline).await? {
        Guarded::Applied(placed) => {
            tracing::info!(%worker_id, memory = ?workers.iter().map(|row| row.load.memory_bytes).collect::<Vec<_>>(),
                epoch = placed.epoch, "session placed");
            let cause = Cause { worker_id: Some(worker_id), ..timeline::cause() };
            context.timeline.note_because(placed.id, "session.placed", None, cause);
            Ok(Some((*placed, pipeline)))
        }
        // Somebody else placed it first: use theirs.
        Guarded::Refused(_) => Ok(None),
    }
}

/// Opens the endpoint here and stores it. `None`: the session changed meanwhile; nothing is left behind.
async fn admit(
    context: &Context,
    join: &Join<'_>,
    session: &Session,
    pipeline: &Pipeline,
) -> Result<Option<ReplyBody>, Failure> {
    let live = Arc::new(LiveEndpoint {
        id: join.endpoint_id,
        session_id: session.id,
        participant_id: join.participant_id,
        pipeline_id: pipeline.id,
        epoch: session.epoch,
        joined_by: join.command_id,
        memory: tokio::sync::Mutex::default(),
        held_back: Mutex::new(Some(Vec::new())),
        connected_once: AtomicBool::new(false),
        quality: Mutex::default(),
        traced: Traced::here(),
    });
    // Held until the join is stored: what the connection reports meanwhile waits for that.
    let mut memory = live.memory.lock().await;
    // Everything that the media plane causes from here on follows `participant.joined`.
    let slot = context.reporter.reserve(session.id);
    let provisional = Provisional::new(context, &live)?;
    let opened = open(context, join, session, &live, &mut memory).await;
    let Ok(Some((after, participant, answer))) = opened else {
        // Done before this try is: the next one opens an endpoint of the same id.
        provisional.close().await;
        return opened.map(|_| None);
    };
    provisional.keep();
    memory.tracks_unstored = false;
    let mut reply = JoinReply { joined: joined(context, &live, &participant), answer };
    // Kept without the others: in a large room everybody would remember everybody.
    memory.join_reply = Some(ReplyBody::Joined(Box::new(reply.clone())));
    reply.joined.others = others(&after, participant.id);
    let reply = ReplyBody::Joined(Box::new(reply));

    let joined = EventBody::ParticipantJoined { participant };
    let published = std::mem::take(&mut memory.unreported);
    slot.fill(std::iter::once(joined).chain(published).map(|event| (To::Everyone, event)));
    live.release(|event| context.reporter.send(live.session_id, live.own_queue(), event));
    end_previous(context, session, &live).await;
    tracing::info!(endpoint_id = %live.id, participant_id = %live.participant_id, "participant joined");
    Ok(Some(reply))
}

/// Opens the endpoint in the media plane, negotiates its first offer, and stores the participant. `None`: the session
/// changed meanwhile.
async fn open(
    context: &Context,
    join: &Join<'_>,
    session: &Session,
    live: &LiveEndpoint,
    memory: &mut Memory,
) -> Result<Option<(Session, Participant, Option<Answer>)>, Failure> {
    let joined_at = UnixMillis::now();
    let opening = context.media.open_endpoint(OpenEndpoint {
        endpoint_id: live.id,
        pipeline_id: live.pipeline_id,
        participant_id: live.participant_id,
        can_publish: join.grants.can_publish,
        can_subscribe: join.grants.can_subscribe,
        server_offers: join.server_offers,
        treatment: Treatment {
            settings: session.settings.clone(),
            bitrates: join.grants.bitrates,
            lowered: join.lowered,
            last_n: join.last_n,
            joined_at,
        },
        fixed: join.fixed,
    });
    spans::media("open", "endpoint", opening).await?;
    let answer = match join.offer {
        None => None,
        Some(sdp) => {
            let negotiated =
                spans::media("negotiate", "offer", context.media.offer(live.id, sdp.clone())).await?;
            let answer = negotiated.answer.clone();
            offer::take_over(live.participant_id, memory, negotiated);
            Some(answer)
        }
    };
    let participant = participant(context, join, live, memory, joined_at);
    match context.store.put_participant(session.id, session.epoch, &participant).await? {
        Guarded::Applied(after) => {
            // Changed since they were read: whoever changed them may not have found this pipeline yet.
            if after.settings.revision != session.settings.revision {
                context.media.set_settings(live.pipeline_id, &after.settings).await;
            }
            Ok(Some((*after, participant, answer)))
        }
        Guarded::Refused(_) => Ok(None),
    }
}

/// Closes the endpoint that the participant had before, and ends its stream of events.
async fn end_previous(context: &Context, session: &Session, live: &LiveEndpoint) {
    if let Some(before) = context.registry.make_current(live) {
        let mut memory = before.memory.lock().await;
        forget(context, &before, &mut memory).await;
        tell_replaced(context, before.session_id, before.participant_id, before.id);
        return;
    }
    // One that was lost with its worker: nobody else is left to say so. One in a pipeline that still drains lives on until
    // its client lets go of it.
    let stored = session.participant(live.participant_id).and_then(|before| before.endpoint.as_ref());
    if let Some(before) = stored
        && before.id != live.id
        && !session.pipelines.iter().any(|pipeline| pipeline.id == before.pipeline_id)
    {
        tell_replaced(context, live.session_id, live.participant_id, before.id);
    }
}

fn participant(
    context: &Context,
    join: &Join<'_>,
    live: &LiveEndpoint,
    memory: &Memory,
    joined_at: UnixMillis,
) -> Participant {
    Participant {
        id: join.participant_id,
        name: join.name.to_owned(),
        state: ParticipantState::Joined,
        grants: join.grants,
        joined_at,
        command_id: join.command_id,
        endpoint: Some(Endpoint {
            id: live.id,
            pipeline_id: live.pipeline_id,
            worker_id: context.worker_id,
            state: EndpointState::New,
        }),
        tracks: memory.tracks.clone(),
        token_issued_at: join.token_issued_at,
    }
}

/// What a join replies, but for the others in the session.
fn joined(context: &Context, live: &LiveEndpoint, participant: &Participant) -> Joined {
    Joined {
        target: Target {
            session_id: live.session_id,
            participant_id: live.participant_id,
            endpoint_id: live.id,
            pipeline_id: live.pipeline_id,
            worker_id: context.worker_id,
            epoch: live.epoch,
        },
        participant: participant.clone(),
        others: Vec::new(),
    }
}

fn others(session: &Session, participant_id: ParticipantId) -> Vec<Participant> {
    session.participants.iter().filter(|other| other.id != participant_id).cloned().collect()
}

fn unavailable(message: &str) -> Failure {
    let error = CommandError::new(ErrorCode::Unavailable, message);
    Failure::Refused(CommandError { retry_after: Some(RETRY_AFTER), ..error })
}

/// An endpoint whose join is not stored yet: either it is kept, or it is closed again, however the join ends.
struct Provisional<'a> {
    context: &'a Context,
    live: &'a Arc<LiveEndpoint>,
    settled: bool,
}

impl<'a> Provisional<'a> {
    fn new(context: &'a Context, live: &'a Arc<LiveEndpoint>) -> Result<Self, Failure> {
        if !context.registry.insert(live.clone()) {
            return Err(refuse(ErrorCode::EndpointConflict, "another join has brought this endpoint id"));
        }
        Ok(Self { context, live, settled: false })
    }

    fn keep(mut self) {
        self.settled = true;
    }

    /// Afterwards nothing of it is left, not even an event on its way: the id is free for another try.
    async fn close(mut self) {
        // Not there when opening it was what failed.
        let _ = self.context.media.close_endpoint(self.live.id).await;
        self.context.media_events.settled().await;
        self.context.registry.remove(self.live, false);
        self.settled = true;
    }
}

/// The fallback for a join that panicked or was cancelled.
impl Drop for Provisional<'_> {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let (media, id) = (self.context.media.clone(), self.live.id);
        let lane = Lane::Participant(self.live.session_id, self.live.participant_id);
        // Before any later join of this participant, which may bring the same id.
        self.context.run_in_lane(lane, async move {
            let _ = media.close_endpoint(id).await;
        });
        self.context.registry.remove(self.live, false);
    }
}
