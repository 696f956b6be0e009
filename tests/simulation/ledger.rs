//! What has happened in a schedule, as it took effect at the broker and the store; and what must never be, checked with
//! every entry.

use std::collections::{BTreeMap, BTreeSet};

use common::broker::{Destination, Message};
use common::model::{
    CommandId, EndpointId, EndpointState, EventId, ParticipantId, Session, SessionId, SessionState,
    TimelineEntry, TrackId,
};

/// The events of one endpoint.
#[derive(Default)]
pub struct Stream {
    /// In the order in which they first came into the queue, with their text.
    pub sent: Vec<(EventId, Vec<u8>)>,
    known: BTreeSet<EventId>,
    /// Up to where its client has seen them.
    pub seen: usize,
    /// What it has seen.
    read: BTreeSet<EventId>,
}

#[derive(Default)]
pub struct Ledger {
    pub violations: Vec<String>,
    /// By exchange.
    bindings: BTreeMap<String, BTreeSet<String>>,
    /// By user queue.
    pub streams: BTreeMap<String, Stream>,
    /// What was in queues that have been deleted.
    delivered_late: BTreeMap<String, BTreeSet<EventId>>,
    pub queues: BTreeSet<String>,
    pub exchanges: BTreeSet<String>,
    epochs: BTreeMap<SessionId, i64>,
    /// Joins that have been stored.
    pub joins: BTreeSet<CommandId>,
    /// What each command did, once.
    effects: BTreeMap<(CommandId, String, Option<ParticipantId>), EventId>,
    /// Sessions that somebody asked to close.
    pub may_close: BTreeSet<SessionId>,
    /// What a client was told of its track, when nothing about it is open.
    pub muted: BTreeMap<TrackId, bool>,
    /// Commands that were answered with success.
    pub acknowledged: u64,
    /// Up to where each queue's client has read: it outlives its connection.
    pub cursors: BTreeMap<String, EventId>,
    pub destinations: BTreeMap<EndpointId, String>,
    /// Sessions that are closed.
    pub ended: BTreeSet<SessionId>,
}

impl Ledger {
    pub fn queue_declared(&mut self, name: &str) {
        if !self.queues.contains(name) {
            self.queues.insert(name.to_owned());
        }
    }

    pub fn queue_deleted(&mut self, name: &str) {
        // What is declared under this name later is another queue. Its last events may still be on their way to a client.
        if let Some(ended) = self.streams.remove(name) {
            self.delivered_late.entry(name.to_owned()).or_default().extend(ended.known);
        }
        self.cursors.remove(name);
        self.queues.remove(name);
        for bound in self.bindings.values_mut() {
            bound.remove(name);
        }
    }

    pub fn exchange_declared(&mut self, name: &str) {
        if !self.exchanges.contains(name) {
            self.exchanges.insert(name.to_owned());
        }
    }

    pub fn exchange_deleted(&mut self, name: &str) {
        self.exchanges.remove(name);
        self.bindings.remove(name);
    }

    pub fn bound(&mut self, queue: &str, exchange: &str) {
        self.bindings.entry(exchange.to_owned()).or_default().insert(queue.to_owned());
    }

    pub fn queues_of(&self, exchange: &str) -> Vec<String> {
        self.bindings.get(exchange).into_iter().flatten().cloned().collect()
    }

    /// A message is in its queues.
    pub fn sent(&mut self, to: Destination<'_>, message: &Message) {
        let Ok(id) = message.message_id.parse::<EventId>() else { return };
        let queues = match to {
            Destination::Queue(queue) => vec![queue.to_owned()],
            Destination::Exchange(exchange) => self.queues_of(exchange),
        };
        for queue in queues {
            if queue.starts_with("user.") {
                let stream = self.streams.entry(queue).or_default();
                if stream.known.insert(id) {
                    stream.sent.push((id, message.body.clone()));
                }
            }
        }
    }

    /// A client has got an event. Gives what is wrong about it.
    pub fn read(&mut self, queue: &str, participant: ParticipantId, id: EventId) -> Option<String> {
        let is_late = self.delivered_late.get(queue).is_some_and(|late| late.contains(&id));
        let stream = self.streams.entry(queue.to_owned()).or_default();
        if is_late || !stream.read.insert(id) {
            return None;
        }
        while let Some((next, body)) = stream.sent.get(stream.seen) {
            stream.seen += 1;
            if *next == id {
                return None;
            }
            // The one kind of event that an API instance may leave out: the participant left before it joined with this
            // endpoint.
            if !is_farewell(body, participant) {
                return Some(format!("{queue}: {id} came, but {next} is next"));
            }
        }
        Some(format!("{queue}: {id} was never sent there, or came too late"))
    }

    /// Whether a client has seen all its events.
    pub fn has_read_all(&self, queue: &str, participant: ParticipantId) -> bool {
        let Some(stream) = self.streams.get(queue) else { return true };
        stream.sent[stream.seen..].iter().all(|(_, body)| is_farewell(body, participant))
    }

    /// A session as a write left it.
    pub fn session_written(&mut self, session: &Session) -> Option<String> {
        let known = self.epochs.entry(session.id).or_insert(session.epoch);
        let before = std::mem::replace(known, session.epoch);
        if session.epoch < before {
            return Some(format!("{}: epoch {} after {before}", session.id, session.epoch));
        }
        let twice = session.pipelines.iter().enumerate().find(|(index, pipeline)| {
            session.pipelines[..*index].iter().any(|other| other.id == pipeline.id)
        });
        if let Some((_, pipeline)) = twice {
            return Some(format!("{}: {} is there twice", session.id, pipeline.id));
        }
        let open = session.participants.iter().filter_map(|participant| participant.endpoint.as_ref());
        let mut open = open.filter(|endpoint| endpoint.state != EndpointState::Closed);
        let homeless = open.find(|endpoint| !session.has_pipeline(endpoint.pipeline_id));
        homeless.map(|endpoint| {
            format!("{}: {} is on {}, which is gone", session.id, endpoint.id, endpoint.pipeline_id)
        })
    }

    pub fn joined(&mut self, command: CommandId) {
        self.joins.insert(command);
    }

    /// A session has been closed; `before` is what it was.
    pub fn closed(&mut self, before: &Session) -> Option<String> {
        self.ended.insert(before.id);
        if before.state == SessionState::Closed
            || before.participants.is_empty()
            || self.may_close.contains(&before.id)
        {
            return None;
        }
        Some(format!("{} was closed with {} participants", before.id, before.participants.len()))
    }

    /// Timeline entries on their way; each command does each thing once.
    pub fn noted(&mut self, entries: &[TimelineEntry]) -> Vec<String> {
        const ONCE: [&str; 5] =
            ["session.created", "participant.joined", "participant.left", "track.muted", "track.unmuted"];
        let mut violations = Vec::new();
        for entry in entries.iter().filter(|entry| ONCE.contains(&entry.what.as_str())) {
            let Some(command) = entry.cause.command_id else { continue };
            let known =
                self.effects.entry((command, entry.what.clone(), entry.participant_id)).or_insert(entry.id);
            if *known != entry.id {
                violations.push(format!("{command} did {} twice", entry.what));
            }
        }
        violations
    }
}

/// Whether an event says that this participant has left.
fn is_farewell(body: &[u8], participant: ParticipantId) -> bool {
    let Ok(event) = serde_json::from_slice::<common::message::Event>(body) else { return false };
    matches!(event.body, common::message::EventBody::ParticipantLeft { participant_id, .. } if participant_id == participant)
}
