//! What the media plane reports without being asked, on its way to the store and to clients.
//!
//! The loop never waits for broker or store: offers and candidates are queued at the reporter, and what has to be
//! stored is done in the participant's lane.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::message::{EventBody, LeaveReason};
use common::model::{Cause, EndpointState, TrackId};
use tokio::sync::{mpsc, oneshot};

use crate::context::{Context, Lane};
use crate::media::{CloseCause, ConnectionState, MediaEvent};
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
    let (MediaEvent::Offer { endpoint_id, .. }
    | MediaEvent::Candidates { endpoint_id, .. }
    | MediaEvent::State { endpoint_id, .. }
    | MediaEvent::Unpublished { endpoint_id, .. }) = event;
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
            tracing::info!(
                session_id = %endpoint.session_id, participant_id = %endpoint.participant_id, %endpoint_id, ?state,
                "connection state"
            );
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
        MediaEvent::Unpublished { tracks, .. } => {
            in_lane(context, &endpoint, move |endpoint, memory| unpublish(endpoint, memory, &tracks));
        }
    }
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
