//! Messages by request: from a participant or the application, to the event streams of those they are for.
//!
//! No worker is asked: the session's document says who is there, and the broker has a queue for everyone's events.

use std::collections::BTreeSet;

use common::broker::{BrokerErrorKind, Destination, Message, topology};
use common::message::{Event, EventBody};
use common::model::{EventId, Participant, ParticipantId, Session, SessionId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{CommandContext, Completed, Outcome, made_from, open_session};
use crate::auth::{Caller, Role};
use crate::delivery::Recipient;
use crate::error::{ApiError, ApiResult, Code};
use crate::metrics;
use crate::state::ApiState;

/// Participants that one message can name.
const MAX_TO: usize = 256;
/// The longest topic and id, in bytes.
const MAX_TOPIC: usize = 128;
const MAX_ID: usize = 64;
/// The longest `data`, in bytes of JSON.
const MAX_DATA: usize = 16 * 1024;

/// Keeps the ids of messages apart from others that are made from commands.
const MESSAGES: Uuid = Uuid::from_u128(0x8a4e_21d7_90c3_4f16_8d35_0e7b_5a1e_0004);

/// A message.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SendMessage {
    /// Who gets it; absent: everyone else.
    #[serde(default)]
    #[schema(min_items = 1, max_items = 256)]
    pub to: Option<Vec<ParticipantId>>,
    /// What it is about, at most 128 bytes.
    #[serde(default)]
    pub topic: Option<String>,
    /// The sender's name for it, at most 64 bytes; made by the server when absent.
    #[serde(default)]
    pub id: Option<String>,
    /// Any JSON of at most 16 KiB.
    pub data: Value,
}

/// A message that is on its way.
#[derive(Debug, Serialize, ToSchema)]
pub struct SentMessage {
    pub id: String,
    /// Of `to`: those who are not there.
    pub missing: Vec<ParticipantId>,
}

impl Completed for SentMessage {
    fn status(&self) -> u16 {
        200
    }

    fn result(&self) -> Value {
        super::commands::body_of(self)
    }
}

/// Tells a message to those it is for. The same command once more gives events with the same id, which readers know by it.
pub async fn send(
    state: &ApiState,
    caller: &Caller,
    context: &CommandContext,
    id: SessionId,
    body: SendMessage,
) -> ApiResult<Outcome<SentMessage>> {
    check(&body)?;
    let from = sender(caller, id)?;
    if !state.rates.take((id, from)) {
        metrics::message("refused");
        return Err(ApiError::new(Code::TooManyRequests, "too many messages: try again later"));
    }
    let session = open_session(state, caller, id).await?;
    if from.is_some_and(|from| session.participant(from).is_none()) {
        return Err(ApiError::participant_not_found());
    }
    let event_id = EventId::from_uuid(made_from(context.command_id, &MESSAGES));
    let message_id = body.id.unwrap_or_else(|| event_id.to_string());
    let told = EventBody::Message {
        from,
        topic: body.topic,
        id: Some(message_id.clone()),
        direct: body.to.is_some(),
        binary: false,
        data: body.data,
    };
    let event = Event { id: event_id, ..Event::new(id, told) };
    let missing = match body.to {
        None => {
            let exchange = topology::session_exchange_name(id);
            put(state, Destination::Exchange(&exchange), &event).await?;
            Vec::new()
        }
        Some(to) => to_named(state, &session, from, to, &event).await?,
    };
    metrics::message("sent");
    Ok(Outcome::Done(SentMessage { id: message_id, missing }))
}

/// Tells those who are named; gives those who are not there.
async fn to_named(
    state: &ApiState,
    session: &Session,
    from: Option<ParticipantId>,
    to: Vec<ParticipantId>,
    event: &Event,
) -> ApiResult<Vec<ParticipantId>> {
    let mut missing = Vec::new();
    let named: BTreeSet<_> = to.into_iter().filter(|named| Some(*named) != from).collect();
    for participant in named {
        let endpoint =
            session.participant(participant).and_then(|Participant { endpoint, .. }| endpoint.as_ref());
        let is_told = match endpoint {
            Some(endpoint) => {
                let recipient = Recipient { session: session.id, participant, endpoint: endpoint.id };
                put(state, Destination::Queue(&recipient.queue_name()), event).await?
            }
            None => false,
        };
        if !is_told {
            missing.push(participant);
        }
    }
    Ok(missing)
}

/// `false`: nobody reads there.
async fn put(state: &ApiState, destination: Destination<'_>, event: &Event) -> ApiResult<bool> {
    let body = serde_json::to_vec(event).expect("an event has text keys only");
    let message = Message { body, message_id: event.id.to_string(), ttl: event.body.kept_for() };
    match state.broker.send(destination, message).await {
        Ok(()) => Ok(true),
        Err(error) if error.kind == BrokerErrorKind::Unroutable => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// As whom: a participant by its token, or the application.
fn sender(caller: &Caller, session: SessionId) -> ApiResult<Option<ParticipantId>> {
    let Some(claims) = caller.claims() else { return Ok(None) };
    let Some(participant) = claims.sub else {
        return Err(ApiError::forbidden("a message needs a participant token or an API key"));
    };
    match caller.acts_on(session, participant)? {
        Role::Own => Ok(Some(participant)),
        Role::Backend | Role::Admin => Err(ApiError::forbidden("the token does not grant roomJoin")),
    }
}

fn check(body: &SendMessage) -> ApiResult<()> {
    let limit = |detail| Err(ApiError::new(Code::LimitExceeded, detail));
    match &body.to {
        Some(to) if to.is_empty() => {
            return Err(ApiError::invalid("to is empty; absent means everyone else"));
        }
        Some(to) if to.len() > MAX_TO => return limit("a message names at most 256 participants"),
        _ => {}
    }
    if body.topic.as_ref().is_some_and(|topic| topic.len() > MAX_TOPIC) {
        return limit("a topic has at most 128 bytes");
    }
    if body.id.as_ref().is_some_and(|id| id.len() > MAX_ID) {
        return limit("a message's id has at most 64 bytes");
    }
    if super::commands::body_of(&body.data).to_string().len() > MAX_DATA {
        return limit("data has at most 16 KiB");
    }
    Ok(())
}
