//! The worker's side of the protocol: real queues, real documents, no media.
//!
//! It answers commands as a worker does as far as the API can tell: it stores, replies, and sends events. A test may
//! script the next answers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use common::broker::{Broker, Delivery, Destination, Inbox, InboxOptions, Message, topology};
use common::message::*;
use common::model::*;
use common::store::{Guarded, Inserted, RemoveIf, Store};
use common::time::UnixMillis;
use futures::future::BoxFuture;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

/// What a test makes the worker do with one command instead of the usual.
pub enum Action {
    Reply(Box<Result<ReplyBody, CommandError>>),
    /// Takes it and never answers.
    Ignore,
    /// Does the usual, but only when this is cancelled.
    Wait(CancellationToken),
}

pub struct Worker {
    pub id: WorkerId,
    shared: Arc<Shared>,
}

struct Shared {
    id: WorkerId,
    broker: Arc<dyn Broker>,
    store: Arc<dyn Store>,
    scripted: Mutex<VecDeque<Action>>,
    seen: Mutex<Vec<Command>>,
    stopped: CancellationToken,
}

impl Worker {
    pub async fn start(broker: Arc<dyn Broker>, store: Arc<dyn Store>) -> Self {
        let id = WorkerId::new();
        let shared = Arc::new(Shared {
            id,
            broker: broker.clone(),
            store,
            scripted: Mutex::default(),
            seen: Mutex::default(),
            stopped: CancellationToken::new(),
        });
        for queue in [topology::workers_queue(), topology::worker_queue(id)] {
            broker.declare_queue(&queue).await.unwrap();
            shared.clone().attach(queue.name).await;
        }
        Self { id, shared }
    }

    /// The next command is answered like this.
    pub fn script(&self, action: Action) {
        self.shared.scripted.lock().unwrap().push_back(action);
    }

    pub fn refuse(&self, code: ErrorCode) {
        self.script(Action::Reply(Box::new(Err(CommandError::new(code, "refused by the test")))));
    }

    /// Every command so far.
    pub fn seen(&self) -> Vec<Command> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The worker is gone, with its queue.
    pub async fn die(self) {
        self.shared.stopped.cancel();
        self.shared.broker.delete_queue(&topology::worker_queue_name(self.id)).await.unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.stopped.cancel();
    }
}

impl Shared {
    async fn attach(self: Arc<Self>, queue: String) {
        let options = InboxOptions { prefetch: 64, exclusive: false };
        let inbox = self.broker.open_inbox(&queue, options).await.unwrap();
        tokio::spawn(self.read(inbox));
    }

    /// Boxed, because handling a command may attach and so read another queue.
    fn read(self: Arc<Self>, mut inbox: Box<dyn Inbox>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            loop {
                let delivery = tokio::select! {
                    () = self.stopped.cancelled() => return,
                    delivery = inbox.next() => delivery,
                };
                let Some(delivery) = delivery else { return };
                tokio::spawn(self.clone().handle(delivery));
            }
        })
    }

    async fn handle(self: Arc<Self>, delivery: Delivery) {
        let command: Command = serde_json::from_slice(&delivery.message.body).unwrap();
        self.seen.lock().unwrap().push(command.clone());
        let scripted = self.scripted.lock().unwrap().pop_front();
        let result = match scripted {
            Some(Action::Reply(result)) => Some(*result),
            Some(Action::Ignore) => None,
            Some(Action::Wait(go)) => {
                go.cancelled().await;
                Some(self.perform(&command).await)
            }
            None => Some(self.perform(&command).await),
        };
        if let Some(result) = result {
            let reply =
                Reply { command_id: command.command_id, session_id: None, participant_id: None, result };
            // An API that is gone has no queue.
            let _ = self.send(Destination::Queue(&command.reply_to), &reply, &command.command_id).await;
        }
        delivery.acknowledge().await.unwrap();
    }

    async fn perform(self: &Arc<Self>, command: &Command) -> Result<ReplyBody, CommandError> {
        match &command.body {
            CommandBody::CreateSession { session_id, name, key_id, settings } => {
                let wanted = Session {
                    name: name.clone(),
                    command_id: command.command_id,
                    settings: settings.clone(),
                    ..session(*session_id, key_id)
                };
                self.create(wanted).await
            }
            CommandBody::ChangeSession { session_id, settings } => {
                match self.store.set_settings(*session_id, settings, command.command_id).await.unwrap() {
                    Guarded::Applied(session) | Guarded::Refused(Some(session)) => {
                        Ok(ReplyBody::SessionChanged { session })
                    }
                    Guarded::Refused(None) => panic!("no such session"),
                }
            }
            CommandBody::CloseSession { session_id } => {
                self.store.close_session(*session_id, UnixMillis::now()).await.unwrap();
                self.event(*session_id, EventBody::SessionClosed {}).await;
                Ok(ReplyBody::SessionClosed)
            }
            CommandBody::Join {
                session_id,
                participant_id,
                endpoint_id,
                name,
                grants,
                offer,
                token_issued_at,
                ..
            } => {
                let participant = Participant {
                    name: name.clone(),
                    grants: *grants,
                    command_id: command.command_id,
                    token_issued_at: *token_issued_at,
                    ..participant_at(*participant_id, *endpoint_id)
                };
                self.join(*session_id, participant, offer.as_ref()).await
            }
            CommandBody::Leave { session_id, participant_id, reason, revoked_at, .. } => {
                if let Some(at) = revoked_at {
                    self.store.revoke(*session_id, *participant_id, *at).await.unwrap();
                }
                self.store
                    .remove_participant(*session_id, *participant_id, RemoveIf::Present, None)
                    .await
                    .unwrap();
                let (participant_id, reason) = (*participant_id, *reason);
                self.event(*session_id, EventBody::ParticipantLeft { participant_id, reason }).await;
                Ok(ReplyBody::Left)
            }
            CommandBody::Offer { offer, .. } => Ok(ReplyBody::Answered {
                answer: Answer { sdp: format!("answer to {}", offer.sdp), revision: 1 },
                tracks: Vec::new(),
            }),
            CommandBody::Answer { .. }
            | CommandBody::Candidates { .. }
            | CommandBody::Ice { .. }
            | CommandBody::Subscription { .. } => Ok(ReplyBody::Accepted),
            CommandBody::Drain { .. } => Ok(ReplyBody::Draining),
            CommandBody::Rate(rated) => {
                let rating = Rating {
                    session_id: rated.session_id,
                    participant_id: rated.participant_id,
                    key_id: rated.key_id.clone(),
                    stars: rated.stars,
                    comment: rated.comment.clone(),
                    at: rated.at,
                    network: rated.endpoint_id.map(NetworkSummary::new),
                };
                self.store.put_rating(&rating).await.unwrap();
                Ok(ReplyBody::Accepted)
            }
            CommandBody::Stats { target } => {
                Ok(ReplyBody::Stats { stats: Box::new(stats(target.endpoint_id)) })
            }
            CommandBody::Mute { track_id, muted, .. } => {
                Ok(ReplyBody::Muted { track: Track { muted: *muted, ..track(*track_id) } })
            }
        }
    }

    async fn create(self: &Arc<Self>, session: Session) -> Result<ReplyBody, CommandError> {
        let (id, key_id) = (session.id, session.key_id.clone());
        let session = match self.store.insert_session(&session).await.unwrap() {
            Inserted::New => {
                self.clone().attach(topology::session_queue_name(id)).await;
                session
            }
            Inserted::Existing(existing) if existing.state == SessionState::Closed => {
                return Err(CommandError::new(ErrorCode::SessionClosed, "closed"));
            }
            Inserted::Existing(existing) if existing.key_id != key_id => {
                return Err(CommandError::new(ErrorCode::SessionConflict, "taken"));
            }
            Inserted::Existing(existing) => *existing,
        };
        Ok(ReplyBody::SessionCreated { session: Box::new(session) })
    }

    async fn join(
        self: &Arc<Self>,
        session_id: SessionId,
        wanted: Participant,
        offer: Option<&Offer>,
    ) -> Result<ReplyBody, CommandError> {
        let Some(mut session) = self.store.session(session_id).await.unwrap() else {
            return Err(CommandError::new(ErrorCode::SessionNotFound, "none"));
        };
        if session.pipeline().is_none() {
            let pipeline =
                Pipeline { id: PipelineId::new(), worker_id: self.id, state: PipelineState::Ready };
            session = match self.store.place_pipeline(session_id, session.epoch, &pipeline).await.unwrap() {
                Guarded::Applied(session) | Guarded::Refused(Some(session)) => *session,
                Guarded::Refused(None) => panic!("the session vanished"),
            };
        }
        let pipeline = session.pipeline().unwrap().clone();
        let participant_id = wanted.id;
        let before = session.participant(participant_id).cloned();
        let again = before.clone().filter(|there| there.command_id == wanted.command_id);
        let participant = again.unwrap_or_else(|| {
            let endpoint = wanted.endpoint.map(|endpoint| Endpoint {
                pipeline_id: pipeline.id,
                worker_id: pipeline.worker_id,
                ..endpoint
            });
            Participant { endpoint, tracks: vec![track(TrackId::new())], ..wanted }
        });
        self.store.put_participant(session_id, session.epoch, &participant).await.unwrap();
        let endpoint_id = participant.endpoint.as_ref().unwrap().id;
        if let Some(replaced) = before.and_then(|before| before.endpoint)
            && replaced.id != endpoint_id
        {
            self.replaced(session_id, participant_id, replaced.id).await;
        }
        let target = Target {
            session_id,
            participant_id,
            endpoint_id,
            pipeline_id: pipeline.id,
            worker_id: pipeline.worker_id,
            epoch: session.epoch,
        };
        let others = session.participants.into_iter().filter(|other| other.id != participant_id).collect();
        let answer = offer.map(|offer| Answer { sdp: format!("answer to {}", offer.sdp), revision: 1 });
        let joined = Joined { target, participant, others };
        Ok(ReplyBody::Joined(Box::new(JoinReply { joined, answer })))
    }

    /// The last event of an endpoint whose participant has joined again. Nobody may be reading there.
    async fn replaced(&self, session: SessionId, participant: ParticipantId, endpoint_id: EndpointId) {
        let reason = Some(EndpointEnd::Replaced);
        let event = Event::new(
            session,
            EventBody::EndpointState { endpoint_id, state: EndpointState::Closed, reason },
        );
        let queue = topology::user_queue_name(session, participant, endpoint_id);
        let _ = self.send(Destination::Queue(&queue), &event, &event.id).await;
    }

    async fn event(&self, session: SessionId, body: EventBody) {
        let event = Event::new(session, body);
        let exchange = topology::session_exchange_name(session);
        self.send(Destination::Exchange(&exchange), &event, &event.id).await.unwrap();
    }

    async fn send(
        &self,
        to: Destination<'_>,
        body: &impl Serialize,
        id: &impl std::fmt::Display,
    ) -> common::broker::BrokerResult<()> {
        let message =
            Message { body: serde_json::to_vec(body).unwrap(), message_id: id.to_string(), ttl: None };
        self.broker.send(to, message).await
    }
}

fn stats(endpoint_id: EndpointId) -> EndpointStats {
    EndpointStats {
        endpoint_id,
        timestamp: UnixMillis::now(),
        state: EndpointState::Connected,
        quality: Quality::Good,
        score: Some(70.0),
        transport: TransportStats { available_outgoing_bitrate_bps: Some(7), ..TransportStats::default() },
        published: Vec::new(),
        subscribed: Vec::new(),
        summary: NetworkSummary::new(endpoint_id),
    }
}

fn track(id: TrackId) -> Track {
    Track { id, kind: TrackKind::Video, source: TrackSource::Camera, muted: false, mid: "0".to_owned() }
}

/// A new session without anybody in it.
pub fn session(id: SessionId, key_id: &str) -> Session {
    Session {
        id,
        state: SessionState::Open,
        name: None,
        created_at: UnixMillis::now(),
        closed_at: None,
        key_id: key_id.to_owned(),
        command_id: CommandId::new(),
        epoch: 0,
        pipelines: Vec::new(),
        participants: Vec::new(),
        previous_worker_id: None,
        done_commands: Vec::new(),
        settings: SessionSettings::default(),
        revocations: Vec::new(),
    }
}

/// Somebody with an endpoint that no worker knows.
pub fn participant_at(id: ParticipantId, endpoint: EndpointId) -> Participant {
    let endpoint = Endpoint {
        id: endpoint,
        pipeline_id: PipelineId::new(),
        worker_id: WorkerId::new(),
        state: EndpointState::New,
    };
    Participant { endpoint: Some(endpoint), ..participant(id) }
}

/// Somebody without an endpoint.
pub fn participant(id: ParticipantId) -> Participant {
    Participant {
        id,
        name: String::new(),
        state: ParticipantState::Joined,
        grants: Grants { can_publish: true, can_subscribe: true, admin: false, bitrates: Bitrates::UNSET },
        joined_at: UnixMillis::now(),
        command_id: CommandId::new(),
        endpoint: None,
        tracks: Vec::new(),
        token_issued_at: None,
    }
}
