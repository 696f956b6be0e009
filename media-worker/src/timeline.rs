//! Writes what happens in each session to its timeline, beside the work and never in its way.
//!
//! ```text
//!   command, media event, drain ──note──▶ bounded queue ──one task──▶ store, in batches for each session
//! ```
//!
//! Most entries are events on their way to clients ([`Timeline::note_event`]), so that no step is told and not written.
//! While the store is away entries wait; past the bound new ones are dropped, counted and said. The cause of an entry is
//! that of the task that notes it ([`because`]): the command it is doing, or a reason of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::message::{EventBody, LeaveReason};
use common::model::{Cause, EventId, Owed, ParticipantId, SessionId, TimelineEntry, TrackNote};
use common::store::{Store, StoreErrorKind};
use common::time::UnixMillis;
use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::metrics;

/// Entries that may wait for the store, over all sessions; at some 300 bytes each a few MB.
const QUEUE: usize = 8_192;
/// Entries that are written together.
const BATCH: usize = 256;
/// Sessions that are written at once.
const AT_ONCE: usize = 8;
/// Between two tries while the store is away.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

tokio::task_local! {
    static CAUSE: Cause;
}

/// Runs a future whose notes have this cause.
pub(crate) async fn because<T>(cause: Cause, work: impl Future<Output = T>) -> T {
    CAUSE.scope(cause, work).await
}

/// The cause of what this task does now.
pub(crate) fn cause() -> Cause {
    CAUSE.try_with(Clone::clone).unwrap_or_default()
}

/// A cause of one word.
pub(crate) fn reason(reason: &str) -> Cause {
    Cause { reason: Some(reason.to_owned()), ..Cause::default() }
}

/// The trace id of a `traceparent` (W3C Trace Context, section 3.2.2).
pub(crate) fn trace_id(traceparent: &str) -> Option<String> {
    traceparent.split('-').nth(1).filter(|id| id.len() == 32).map(str::to_owned)
}

enum Item {
    Entry(Box<TimelineEntry>),
    /// Told when everything before it is written or given up.
    Flush(oneshot::Sender<()>),
}

/// The writer of all timelines of one worker.
#[derive(Clone)]
pub(crate) struct Timeline {
    queue: mpsc::Sender<Item>,
    /// The receivers of webhooks, which every entry is owed to.
    receivers: Arc<[String]>,
}

impl Timeline {
    /// Starts the task that writes. When `stop` is cancelled, what is not written by then is lost with the process.
    pub fn start(store: Arc<dyn Store>, receivers: Arc<[String]>, stop: CancellationToken) -> Self {
        let (queue, items) = mpsc::channel(QUEUE);
        common::ambient::spawn(async move {
            let _ = stop.run_until_cancelled(write(&*store, items)).await;
        });
        Self { queue, receivers }
    }

    /// Notes something for the session's timeline, caused by what this task does; never waits.
    pub fn note(&self, session_id: SessionId, what: &str, participant_id: Option<ParticipantId>) {
        self.note_because(session_id, what, participant_id, cause());
    }

    pub fn note_because(
        &self,
        session_id: SessionId,
        what: &str,
        participant_id: Option<ParticipantId>,
        cause: Cause,
    ) {
        self.note_track(session_id, what, participant_id, None, cause);
    }

    fn note_track(
        &self,
        session_id: SessionId,
        what: &str,
        participant_id: Option<ParticipantId>,
        track: Option<TrackNote>,
        cause: Cause,
    ) {
        let entry = TimelineEntry {
            id: EventId::new(),
            session_id,
            number: 0,
            at: UnixMillis::now(),
            what: what.to_owned(),
            cause,
            participant_id,
            track,
            webhooks: Owed { to: self.receivers.to_vec(), ..Owed::default() },
        };
        match self.queue.try_send(Item::Entry(Box::new(entry))) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                metrics::timeline("dropped", 1);
                tracing::warn!(%session_id, what, "the timeline's queue is full: this entry is dropped");
            }
        }
    }

    /// Notes an event that is told to a session, when it is a step of somebody's life there.
    pub fn note_event(&self, session_id: SessionId, event: &EventBody) {
        let mut cause = cause();
        let participant_id = match event {
            EventBody::ParticipantJoined { participant } => Some(participant.id),
            EventBody::ParticipantLeft { participant_id, reason } => {
                cause.reason = Some(leave_reason(*reason).to_owned());
                Some(*participant_id)
            }
            EventBody::TrackMuted { participant_id, by_admin, .. }
            | EventBody::TrackUnmuted { participant_id, by_admin, .. } => {
                cause.reason = by_admin.then(|| "by_admin".to_owned());
                Some(*participant_id)
            }
            EventBody::ParticipantDisconnected { participant_id }
            | EventBody::TrackPublished { participant_id, .. }
            | EventBody::TrackUnpublished { participant_id, .. } => Some(*participant_id),
            EventBody::SessionMoving { .. } | EventBody::SessionClosed {} => None,
            // Noted where they are caused, or no step of anybody's life.
            EventBody::SessionInterrupted { .. }
            | EventBody::Offer { .. }
            | EventBody::Candidates { .. }
            | EventBody::SpeakersChanged { .. }
            | EventBody::VideoSuspended { .. }
            | EventBody::VideoResumed { .. }
            | EventBody::VideoHeld { .. }
            | EventBody::VideoReleased { .. }
            | EventBody::TrackRefused { .. }
            | EventBody::TrackDemand { .. }
            | EventBody::Message { .. }
            | EventBody::QualityChanged { .. }
            | EventBody::EndpointState { .. }
            | EventBody::CommandCompleted { .. } => return,
        };
        self.note_track(session_id, event.kind(), participant_id, track_of(event), cause);
    }

    /// Entries that nobody has begun to write.
    pub fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// Waits until everything noted so far is written or given up.
    pub async fn flushed(&self) {
        let (done, told) = oneshot::channel();
        if self.queue.send(Item::Flush(done)).await.is_ok() {
            let _ = told.await;
        }
    }
}

/// The track that an event is about.
fn track_of(event: &EventBody) -> Option<TrackNote> {
    match event {
        EventBody::TrackPublished { track, .. } => {
            Some(TrackNote { id: track.id, kind: Some(track.kind), source: Some(track.source) })
        }
        EventBody::TrackUnpublished { track_id, .. }
        | EventBody::TrackMuted { track_id, .. }
        | EventBody::TrackUnmuted { track_id, .. } => {
            Some(TrackNote { id: *track_id, kind: None, source: None })
        }
        _ => None,
    }
}

fn leave_reason(reason: LeaveReason) -> &'static str {
    match reason {
        LeaveReason::Left => "left",
        LeaveReason::Removed => "removed",
        LeaveReason::ConnectionLost => "connection_lost",
        LeaveReason::SessionClosed => "session_closed",
    }
}

async fn write(store: &dyn Store, mut items: mpsc::Receiver<Item>) {
    let mut batch = Vec::with_capacity(BATCH);
    while items.recv_many(&mut batch, BATCH).await > 0 {
        let mut entries: BTreeMap<SessionId, Vec<TimelineEntry>> = BTreeMap::new();
        let mut flushes = Vec::new();
        for item in batch.drain(..) {
            match item {
                Item::Entry(entry) => entries.entry(entry.session_id).or_default().push(*entry),
                Item::Flush(done) => flushes.push(done),
            }
        }
        let mut appends: Vec<BoxFuture<'_, ()>> = Vec::new();
        for (session, entries) in entries {
            appends.push(Box::pin(append(store, session, entries)));
        }
        futures::stream::iter(appends).buffer_unordered(AT_ONCE).collect::<()>().await;
        for done in flushes {
            let _ = done.send(());
        }
    }
}

async fn append(store: &dyn Store, session: SessionId, entries: Vec<TimelineEntry>) {
    let mut pause = RETRY_PAUSE;
    loop {
        match store.append_timeline(session, &entries).await {
            Ok(()) => return metrics::timeline("written", entries.len()),
            // With the same ids: what the failed try may have written is not written again.
            Err(error) if error.kind == StoreErrorKind::Unavailable => {
                tracing::debug!(session_id = %session, %error, "the timeline waits for the store");
            }
            Err(error) => {
                tracing::warn!(session_id = %session, %error, entries = entries.len(), "timeline entries are lost");
                return metrics::timeline("failed", entries.len());
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::model::CommandId;
    use common::store::embedded::EmbeddedStore;

    #[tokio::test]
    async fn notes_are_written_in_order_with_the_cause_of_their_task() {
        let store = Arc::new(EmbeddedStore::new());
        let timeline = Timeline::start(store.clone(), ["whr_1".to_owned()].into(), CancellationToken::new());
        let (session, participant) = (SessionId::new(), ParticipantId::new());
        let command_id = CommandId::new();
        let trace_id = trace_id("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let cause = Cause { command_id: Some(command_id), trace_id, ..Cause::default() };
        because(cause.clone(), async {
            timeline.note(session, "session.created", None);
            let reason = LeaveReason::Removed;
            timeline.note_event(session, &EventBody::ParticipantLeft { participant_id: participant, reason });
        })
        .await;
        timeline.note_event(session, &EventBody::SessionInterrupted { epoch: 1 });
        timeline.note_event(session, &EventBody::SessionClosed {});
        timeline.flushed().await;
        let stored = store.timeline(session, 0, 100).await.unwrap();
        assert_eq!(store.owed("whr_1", session, 100).await.unwrap(), stored, "each is owed to the receiver");
        let stored: Vec<_> = stored
            .into_iter()
            .map(|entry| (entry.number, entry.what, entry.participant_id, entry.cause))
            .collect();
        let removed = Cause { reason: Some("removed".to_owned()), ..cause.clone() };
        let expected = [
            (1, "session.created".to_owned(), None, cause.clone()),
            (2, "participant.left".to_owned(), Some(participant), removed),
            (3, "session.closed".to_owned(), None, Cause::default()),
        ];
        assert_eq!(cause.trace_id.as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        assert_eq!(stored, expected);
    }

    #[tokio::test]
    async fn past_the_bound_entries_are_dropped_and_nobody_waits() {
        let (queue, mut items) = mpsc::channel(2);
        let timeline = Timeline { queue, receivers: Arc::default() };
        for what in ["a", "b", "c"] {
            timeline.note(SessionId::new(), what, None);
        }
        for expected in ["a", "b"] {
            let Some(Item::Entry(entry)) = items.recv().await else { panic!("an entry is there") };
            assert_eq!(entry.what, expected);
        }
        assert!(items.try_recv().is_err(), "the third was dropped");
    }
}
