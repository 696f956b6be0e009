//! Sending one command and waiting for its reply.
//!
//! ```text
//! request ──▶ task: expect reply ─ send (confirmed) ─ wait for the reply ─ finish ─┬─ request still waits: answer
//!                                                                                └─ it does not: command.completed
//! ```
//!
//! The task outlives the request: a client that hangs up, or whose wait is over, does not cut a join in half.
//!
//! Any worker may take a command for a session, and one that hangs takes its share of them. So such a command is sent
//! again when it has no reply after a while; another worker gets the copy, and done once it is all the same, because all
//! copies have one id.

use std::time::Duration;

use common::broker::{BrokerErrorKind, Destination, Message, RECONNECT_BOUND, topology};
use common::message::{Command, CommandBody, Event, EventBody, ReplyBody, VERSION};
use common::model::{CommandId, ParticipantId, SessionId, SessionState, WorkerId};
use common::spans::{self, KeyValue, Kind, Span};
use common::time::UnixMillis;
use serde::Serialize;
use tokio::sync::oneshot;
use tracing::Instrument as _;

use crate::delivery::Recipient;
use crate::error::{ApiError, ApiResult, Code};
use crate::metrics;
use crate::state::ApiState;

/// How much longer than the command's deadline a reply may take to travel.
const REPLY_TRAVEL: Duration = Duration::from_secs(5);

/// When a command that any worker may take is sent again, counted from its first sending: longer than a healthy system
/// takes for a join, shorter than a client's patience.
const SENT_AGAIN: [Duration; 3] =
    [Duration::from_millis(1_500), Duration::from_millis(3_500), Duration::from_millis(7_500)];

/// What came with a changing request.
#[derive(Debug, Clone)]
pub struct CommandContext {
    pub command_id: CommandId,
    pub traceparent: String,
    /// How long the request waits for its result.
    pub wait: Duration,
}

/// Which queue a command goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Workers,
    Session(SessionId),
    Worker(WorkerId),
}

/// Who learns the result of a command whose request no longer waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// There is no participant to tell.
    Nobody,
    Endpoint(Recipient),
    /// Whichever endpoint the participant then has.
    Participant(SessionId, ParticipantId),
}

impl Audience {
    /// Whose queue gets the result, when there is one.
    async fn recipient(self, state: &ApiState) -> Option<Recipient> {
        match self {
            Self::Nobody => None,
            Self::Endpoint(recipient) => Some(recipient),
            Self::Participant(session, participant) => {
                let found = state.store.session(session).await.ok().flatten()?;
                let endpoint = found.participant(participant)?.endpoint.as_ref()?.id;
                Some(Recipient { session, participant, endpoint })
            }
        }
    }
}

/// The result of a command as a client sees it: a status and a body.
pub trait Completed: Send + 'static {
    /// The HTTP status.
    fn status(&self) -> u16;
    /// The JSON body; `null` when there is none.
    fn result(&self) -> serde_json::Value;
}

/// A result without a body (204).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nothing;

impl Completed for Nothing {
    fn status(&self) -> u16 {
        204
    }

    fn result(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

/// What a request answers.
#[derive(Debug)]
pub enum Outcome<T> {
    Done(T),
    /// Not known yet: it will arrive as `command.completed`.
    Later(CommandId),
}

/// The body of a result; text, numbers and lists serialise always.
pub fn body_of(value: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(value).expect("a result has text keys only")
}

/// Sends a command and waits for its reply as long as the request wants to.
///
/// `finish` makes the result of the reply (or refusal); it runs exactly once, also when nobody waits any more. `who` is
/// told by an event when the request ended before.
///
/// # Errors
/// What `finish` makes of a refusal; `unavailable` when broker or workers are out of reach; for an unroutable command
/// what the store says (session), or `endpoint_gone` (worker, unless that one may come back).
pub async fn run<T, F, Fut>(
    state: &ApiState,
    context: &CommandContext,
    route: Route,
    who: Audience,
    body: CommandBody,
    finish: F,
) -> ApiResult<Outcome<T>>
where
    T: Completed,
    F: FnOnce(ApiResult<ReplyBody>) -> Fut + Send + 'static,
    Fut: Future<Output = ApiResult<T>> + Send + 'static,
{
    let (result, mut answered) = oneshot::channel();
    let (sent, is_sent) = oneshot::channel();
    let job = Job { state: state.clone(), context: context.clone(), route, body };
    let span = tracing::info_span!("command", command_id = %context.command_id);
    let work = async move {
        let state = job.state.clone();
        let command_id = job.context.command_id;
        let outcome = finish(job.perform(sent).await).await;
        match result.send(outcome) {
            Ok(()) => metrics::reply("direct"),
            Err(outcome) => tell(&state, who, command_id, outcome).await,
        }
    };
    common::ambient::spawn(spans::carried(work).instrument(span));
    let waited = async {
        // Dropped unsent when sending failed; then the result is about to arrive.
        let _ = is_sent.await;
        tokio::time::sleep(context.wait).await;
    };
    let result = tokio::select! {
        biased;
        result = &mut answered => Some(result),
        () = waited => {
            // The result may arrive between the end of the wait and this line: then it is ours, not an event.
            answered.close();
            answered.try_recv().ok().map(Ok)
        }
    };
    match result {
        Some(Ok(outcome)) => outcome.map(Outcome::Done),
        Some(Err(_)) => Err(ApiError::new(Code::Internal, "something went wrong on the server")),
        None => Ok(Outcome::Later(context.command_id)),
    }
}

struct Job {
    state: ApiState,
    context: CommandContext,
    route: Route,
    body: CommandBody,
}

impl Job {
    async fn perform(self, sent: oneshot::Sender<()>) -> ApiResult<ReplyBody> {
        let state = &self.state;
        let deadline = state.config.timings.command_deadline;
        let command_id = self.context.command_id;
        let mut waiting = state.replies.expect(command_id)?;
        let kind = self.body.kind();
        let sending = span_of_sending(kind, command_id, 1);
        let recorded = sending.traceparent();
        let command = Command {
            version: VERSION,
            command_id,
            sent_at: recorded.is_some().then(UnixMillis::now),
            traceparent: recorded.unwrap_or(self.context.traceparent),
            deadline: UnixMillis::now().plus(deadline),
            reply_to: state.replies.queue(),
            body: self.body,
        };
        let message = Message {
            body: serde_json::to_vec(&command).expect("a command has text keys only"),
            message_id: command_id.to_string(),
            ttl: Some(deadline),
        };
        sending
            .around(send(state, self.route, message.clone()))
            .await
            .inspect_err(|_| sending.fail("not_sent"))?;
        drop(sending);
        tracing::debug!(route = ?self.route, "command sent");
        // The receiver is gone when the client hung up; the command goes on.
        let _ = sent.send(());
        let mut waited = Duration::ZERO;
        if !matches!(self.route, Route::Worker(_)) {
            for (again, number) in SENT_AGAIN.into_iter().filter(|again| *again < deadline).zip(2..) {
                if waiting.within(again - waited).await {
                    break;
                }
                waited = again;
                metrics::sent_again();
                tracing::info!(route = ?self.route, "no reply yet: the command is sent again");
                let sending = span_of_sending(kind, command_id, number);
                // When this fails the first copy still stands.
                let _ = sending.around(send(state, self.route, message.clone())).await;
            }
        }
        match waiting.reply(deadline + REPLY_TRAVEL - waited).await {
            Some(reply) => {
                tracing::debug!(refused = reply.result.is_err(), "reply received");
                reply.result.map_err(ApiError::from)
            }
            None => {
                metrics::reply("timed_out");
                Err(ApiError::new(Code::Expired, "no worker took the command before its deadline"))
            }
        }
    }
}

/// The span of one sending of a command, below the request.
fn span_of_sending(kind: &'static str, command_id: CommandId, number: i64) -> Span {
    let span = Span::below(Kind::Producer, "send", kind);
    span.say(|| {
        [
            KeyValue::new("messaging.message.id", command_id.to_string()),
            KeyValue::new("switchyard.sending", number),
        ]
    });
    span
}

async fn send(state: &ApiState, route: Route, message: Message) -> ApiResult<()> {
    let queue = match route {
        Route::Workers => topology::WORKERS.to_owned(),
        Route::Session(id) => topology::session_queue_name(id),
        Route::Worker(id) => topology::worker_queue_name(id),
    };
    match state.broker.send(Destination::Queue(&queue), message).await {
        Ok(()) => Ok(()),
        Err(error) if error.kind == BrokerErrorKind::Unroutable => Err(match route {
            Route::Workers => ApiError::new(Code::Unavailable, "there is no media worker: try again"),
            Route::Session(id) => why_unroutable(state, id).await?,
            Route::Worker(id) => why_worker_unroutable(state, id).await?,
        }),
        Err(error) => Err(error.into()),
    }
}

/// The session's queue is missing: because the session is, or because the queue expired with no worker to read it.
async fn why_unroutable(state: &ApiState, id: SessionId) -> ApiResult<ApiError> {
    Ok(match state.store.session(id).await? {
        None => ApiError::session_not_found(),
        Some(session) if session.state == SessionState::Closed => ApiError::session_closed(),
        Some(_) => ApiError::new(Code::Unavailable, "no media worker serves the session: try again"),
    })
}

/// The worker's queue is missing: because the worker is, or because it has lost the broker and is on its way back, as all
/// are after an outage. Its endpoints live on then, and nobody should join again for want of a queue.
async fn why_worker_unroutable(state: &ApiState, id: WorkerId) -> ApiResult<ApiError> {
    let Some(row) = state.store.worker(id).await? else { return Ok(ApiError::endpoint_gone()) };
    let away_for = row.broker_away_since.map(|since| since.until(UnixMillis::now()));
    let comes_back = state.link_is_young() || away_for.is_some_and(|away| away < RECONNECT_BOUND);
    Ok(match comes_back {
        true => ApiError::new(Code::Unavailable, "the media worker is out of reach for now: try again"),
        false => ApiError::endpoint_gone(),
    })
}

/// Sends `command.completed` to the participant whose request no longer waits.
async fn tell<T: Completed>(state: &ApiState, who: Audience, command_id: CommandId, outcome: ApiResult<T>) {
    let Some(recipient) = who.recipient(state).await else {
        metrics::reply("unmatched");
        return;
    };
    let (status, result) = match outcome {
        Ok(value) => (value.status(), value.result()),
        Err(error) => {
            let problem = error.problem();
            (problem.status, body_of(&problem))
        }
    };
    let event = Event::new(recipient.session, EventBody::CommandCompleted { command_id, status, result });
    let message = Message {
        body: serde_json::to_vec(&event).expect("an event has text keys only"),
        message_id: event.id.to_string(),
        ttl: None,
    };
    match state.broker.send(Destination::Queue(&recipient.queue_name()), message).await {
        Ok(()) => metrics::reply("event"),
        Err(error) => {
            metrics::reply("unmatched");
            tracing::debug!(error = %error, "the result of a command reaches nobody");
        }
    }
}
