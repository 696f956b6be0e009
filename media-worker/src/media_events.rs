//! What the media plane reports without being asked, on its way to the store and to clients.
//!
//! The loop never waits for broker or store: offers and candidates are queued at the reporter, and what has to be
//! stored is done in the participant's lane.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::message::{EventBody, LeaveReason, ParticipantQuality, Speaking};
use common::model::{Cause, EndpointId, EndpointState, PipelineId, Quality, TrackId};
use tokio::sync::{mpsc, oneshot};

use crate::context::{Context, Lane};
use crate::media::{CloseCause, ConnectionState, MediaEvent, Suspensions};
use crate::metrics;
use crate::registry::{LiveEndpoint, Memory};
use crate::report::To;
use crate::sync::{Synced, sync};

/// Asks the loop to say when everything that the media plane has reported so far is handled.
#[derive(Clone)]
pub(crate) struct MediaEvents {
    barriers: mpsc::Sender<oneshot::Sender<()>>,
}

/// The other end of [`MediaEvents`].
pub(crate) type Barriers = mpsc::Receiver<oneshot::Sender<()>>;

impl MediaEvents {
    pub fn new() -> (Self, Barriers) {
        let (barriers, receiver) = mpsc::channel(1);
        (Self { barriers }, receiver)
    }

    /// Waits until what was reported before this call is handled. At once when the loop has ended.
    pub async fn settled(&self) {
        let (done, told) = oneshot::channel();
        if self.barriers.send(done).await.is_ok() {
            let _ = told.await;
        }
    }
}

/// Runs until the media plane ends.
pub(crate) async fn run(
    context: Arc<Context>,
    mut events: mpsc::Receiver<MediaEvent>,
    mut barriers: Barriers,
) {
    loop {
        tokio::select! {
            // A barrier is looked at only when no event is left.
            biased;
            event = events.recv() => match event {
                Some(event) => handle(&context, event),
                None => return,
            },
            Some(done) = barriers.recv() => drop(done.send(())),
        }
    }
}

fn handle(context: &Arc<Context>, event: MediaEvent) {
    let endpoint_id = match event {
        MediaEvent::Speakers { pipeline_id, speakers } => {
            return tell_speakers(context, pipeline_id, speakers);
        }
        MediaEvent::Message { endpoints, body } => return tell_message(context, &endpoints, &body),
        MediaEvent::Ended(summary) => return context.ended.note(*summary),
        MediaEvent::Quality { pipeline_id, participants } => {
            return tell_quality(context, pipeline_id, participants);
        }
        MediaEvent::Offer { endpoint_id, .. }
        | MediaEvent::Candidates { endpoint_id, .. }
        | MediaEvent::State { endpoint_id, .. }
        | MediaEvent::Step { endpoint_id, .. }
        | MediaEvent::Suspensions { endpoint_id, .. }
        | MediaEvent::Demand { endpoint_id, .. }
        | MediaEvent::Refused { endpoint_id, .. }
        | MediaEvent::Unpublished { endpoint_id, .. } => endpoint_id,
    };
    // Closed meanwhile: nobody waits for this any more.
    let Some(endpoint) = context.registry.endpoint(endpoint_id) else { return };
    let tell = |body| {
        if let Some(body) = endpoint.hold_back(body) {
            context.reporter.send(endpoint.session_id, endpoint.own_queue(), body);
        }
    };
    match event {
        MediaEvent::Offer { endpoint_id, revision, sdp, tracks } => {
            tell(EventBody::Offer { endpoint_id, revision, sdp, tracks });
        }
        MediaEvent::Candidates { endpoint_id, candidates } => {
            tell(EventBody::Candidates { endpoint_id, candidates });
        }
        MediaEvent::State { endpoint_id, state } => {
            if state == ConnectionState::Connected {
                endpoint.connected_once.store(true, Ordering::Relaxed);
            }
            tell(EventBody::EndpointState { endpoint_id, state: stored_state(state), reason: None });
            if state == ConnectionState::Connected
                && let participants = known_quality(context, &endpoint)
                && !participants.is_empty()
            {
                tell(EventBody::QualityChanged { participants });
            }
            tracing::info!(
                session_id = %endpoint.session_id, participant_id = %endpoint.participant_id, %endpoint_id, ?state,
                "connection state"
            );
            if state == ConnectionState::Closed(CloseCause::ConnectFailed)
                && let Some(traced) = &endpoint.traced
            {
                traced.not_connected();
            }
            let (what, reason) = noted(state);
            let cause = Cause { reason: reason.map(str::to_owned), ..Cause::default() };
            context.timeline.note_because(endpoint.session_id, what, Some(endpoint.participant_id), cause);
            in_lane(context, &endpoint, move |endpoint, memory| match state {
                ConnectionState::Connected | ConnectionState::Disconnected => {
                    memory.state_unstored = Some(stored_state(state));
                }
                ConnectionState::Closed(cause) => memory.closing = Some(farewell(endpoint, cause)),
            });
        }
        MediaEvent::Step { step, at, took, .. } => {
            if let Some(traced) = &endpoint.traced {
                traced.step(&endpoint, step, at, took);
            }
        }
        MediaEvent::Unpublished { tracks, .. } => {
            in_lane(context, &endpoint, move |endpoint, memory| unpublish(endpoint, memory, &tracks));
        }
        MediaEvent::Suspensions { suspensions, .. } => {
            let Suspensions { suspended, resumed, held, released } = suspensions;
            tracing::debug!(%endpoint_id, ?suspended, ?resumed, ?held, ?released, "pictures that the client's path has room for");
            // What ends comes first: a track is told as one thing at a time.
            for (is_empty, body) in [
                (resumed.is_empty(), EventBody::VideoResumed { endpoint_id, tracks: resumed }),
                (released.is_empty(), EventBody::VideoReleased { endpoint_id, tracks: released }),
                (held.is_empty(), EventBody::VideoHeld { endpoint_id, tracks: held }),
                (suspended.is_empty(), EventBody::VideoSuspended { endpoint_id, tracks: suspended }),
            ] {
                if !is_empty {
                    tell(body);
                }
            }
        }
        MediaEvent::Demand { track_id, encodings, .. } => {
            tell(EventBody::TrackDemand { endpoint_id, track_id, encodings });
        }
        MediaEvent::Refused { track_id, codec, .. } => {
            tell(EventBody::TrackRefused { endpoint_id, track_id, mime_type: codec.mime_type().to_owned() });
        }
        MediaEvent::Speakers { .. }
        | MediaEvent::Message { .. }
        | MediaEvent::Quality { .. }
        | MediaEvent::Ended(_) => {}
    }
}

/// A message of a data channel, for those who have none. Not kept while the broker is away: what people say then must not
/// push out what happened.
fn tell_message(context: &Context, endpoints: &[EndpointId], body: &EventBody) {
    if !*context.broker.connected().borrow() {
        return metrics::event(body.kind(), "dropped");
    }
    for endpoint in endpoints.iter().filter_map(|id| context.registry.endpoint(*id)) {
        if let Some(body) = endpoint.hold_back(body.clone()) {
            context.reporter.send(endpoint.session_id, endpoint.own_queue(), body);
        }
    }
}

/// A pipeline that drains behind the session's current one says nothing: half of the room has moved on. Nor is anything
/// kept while the broker is away: who spoke then is nothing that should push out other events.
fn tell_speakers(context: &Context, pipeline_id: PipelineId, speakers: Vec<Speaking>) {
    if *context.broker.connected().borrow()
        && let Some(session_id) = context.registry.session_of(pipeline_id)
    {
        context.reporter.send(session_id, To::Everyone, EventBody::SpeakersChanged { speakers });
    }
}

/// The same for connections that have become better or worse; who comes later is told what is known by then.
fn tell_quality(context: &Context, pipeline_id: PipelineId, participants: Vec<ParticipantQuality>) {
    let Some(session_id) = context.registry.session_of(pipeline_id) else { return };
    for changed in &participants {
        if let Some(endpoint) = context.registry.current(session_id, changed.participant_id) {
            endpoint.set_quality(changed.quality);
        }
    }
    if *context.broker.connected().borrow() {
        context.reporter.send(session_id, To::Everyone, EventBody::QualityChanged { participants });
    }
}

/// Whose connection is not excellent, of all others in the endpoint's pipeline.
fn known_quality(context: &Context, endpoint: &LiveEndpoint) -> Vec<ParticipantQuality> {
    let others = context.registry.endpoints_of(endpoint.pipeline_id).into_iter();
    let known = others
        .filter(|other| other.id != endpoint.id)
        .map(|other| ParticipantQuality { participant_id: other.participant_id, quality: other.quality() });
    known.filter(|known| known.quality != Quality::Excellent).collect()
}

/// What the timeline says of a connection's state, and why it is so.
fn noted(state: ConnectionState) -> (&'static str, Option<&'static str>) {
    match state {
        ConnectionState::Connected => ("endpoint.connected", None),
        ConnectionState::Disconnected => ("endpoint.disconnected", Some("silence")),
        ConnectionState::Closed(cause) => (
            "endpoint.closed",
            Some(match cause {
                CloseCause::PeerClosed => "peer_closed",
                CloseCause::GraceExpired => "grace_expired",
                CloseCause::ConnectFailed => "connect_failed",
                CloseCause::Fault => "fault",
            }),
        ),
    }
}

fn stored_state(state: ConnectionState) -> EndpointState {
    match state {
        ConnectionState::Connected => EndpointState::Connected,
        ConnectionState::Disconnected => EndpointState::Disconnected,
        ConnectionState::Closed(_) => EndpointState::Closed,
    }
}

/// Changes what is known of the endpoint, stores it and tells everyone. When the store is away, the heartbeat stores it.
pub(crate) fn in_lane(
    context: &Arc<Context>,
    endpoint: &Arc<LiveEndpoint>,
    change: impl FnOnce(&LiveEndpoint, &mut Memory) + Send + 'static,
) {
    let lane = Lane::Participant(endpoint.session_id, endpoint.participant_id);
    let (context_of_job, endpoint) = (context.clone(), endpoint.clone());
    context.run_in_lane(lane, async move {
        let context = context_of_job;
        context.standing.good().await;
        let mut memory = endpoint.memory.lock().await;
        change(&endpoint, &mut memory);
        match sync(&context, &endpoint, &mut memory).await {
            Ok(Synced::Stored(events) | Synced::Gone(events)) => {
                for event in events {
                    context.reporter.send(endpoint.session_id, To::Everyone, event);
                }
            }
            Err(error) => tracing::warn!(endpoint_id = %endpoint.id, %error, "stored later"),
        }
    });
}

fn unpublish(endpoint: &LiveEndpoint, memory: &mut Memory, tracks: &[TrackId]) {
    let participant_id = endpoint.participant_id;
    let before = memory.tracks.len();
    memory.tracks.retain(|track| !tracks.contains(&track.id));
    if memory.tracks.len() != before {
        memory.tracks_unstored = true;
        let gone = tracks.iter().map(|&track_id| EventBody::TrackUnpublished { participant_id, track_id });
        memory.unreported.extend(gone);
    }
}

/// What everyone learns when a connection is over. Only a connection that fell silent has been "disconnected"; the
/// others ended at once.
fn farewell(endpoint: &LiveEndpoint, cause: CloseCause) -> Vec<EventBody> {
    let participant_id = endpoint.participant_id;
    let disconnected = EventBody::ParticipantDisconnected { participant_id };
    let left = EventBody::ParticipantLeft { participant_id, reason: LeaveReason::ConnectionLost };
    match cause {
        CloseCause::GraceExpired => vec![disconnected, left],
        CloseCause::PeerClosed | CloseCause::ConnectFailed | CloseCause::Fault => vec![left],
    }
}
