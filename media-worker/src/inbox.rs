//! One inbox: from a delivery to a command done once, and to what becomes of the delivery.
//!
//! | what | becomes of the delivery | reply |
//! |---|---|---|
//! | no command | dead-lettered, counted | none: nobody to reply to |
//! | newer version, a kind that is not known here | acknowledged, counted | `unsupported_version` |
//! | a known kind whose contents cannot be read | dead-lettered, counted | `unsupported_version` |
//! | deadline passed | acknowledged | `expired` |
//! | done or refused | acknowledged after the reply is sent | the result |
//! | for another worker | acknowledged once that worker's queue has it | by that worker |
//! | broker or store failed, not the last try | put back after a pause | later |
//! | broker or store failed, last try | dead-lettered | `unavailable` or `internal` |
//! | panicked | dead-lettered | `internal` |
//!
//! Deliveries of one participant are handled in order, others in parallel ([`crate::serial`]); at most the inbox's
//! prefetch is out at once.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::broker::{BrokerErrorKind, BrokerResult, Delivery, Destination, Inbox, Message, topology};
use common::message::{Command, CommandBody, CommandError, ErrorCode, Reply, VERSION, trace_id};
use common::model::{Cause, CommandId, ParticipantId, SessionId};
use common::time::UnixMillis;
use futures::FutureExt;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::commands::{self, Done, Failure, Invocation};
use crate::context::Context;
use crate::spans::Handling;
use crate::{metrics, timeline};

/// How long deliveries under way may take once their inbox is to end. Past that they go back to the queue.
const END_PATIENCE: Duration = Duration::from_secs(5);
/// Before a failed command is put back, by attempt: the second try may find the store back.
const PUT_BACK_PAUSE: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];
/// A reply that nobody fetches is worth nothing after this long.
const REPLY_TTL: Duration = Duration::from_secs(60);

/// Why an inbox ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// As asked.
    Stopped,
    /// Its queue was deleted, or the broker closed for good.
    QueueGone,
}

/// Reads an inbox until `stop`, then waits (bounded) for what is under way.
pub(crate) async fn run(context: &Arc<Context>, mut inbox: Box<dyn Inbox>, stop: CancellationToken) -> Ended {
    let under_way = TaskTracker::new();
    let ended = loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break Ended::Stopped,
            delivery = inbox.next() => match delivery {
                Some(delivery) => accept(context, delivery, &under_way),
                None => break Ended::QueueGone,
            },
        }
    };
    under_way.close();
    // The inbox lives until then: dropping it would put back what is being done.
    if tokio::time::timeout(END_PATIENCE, under_way.wait()).await.is_err() {
        tracing::warn!("commands under way go back to their queue");
    }
    inbox.close().await;
    ended
}

fn accept(context: &Arc<Context>, delivery: Delivery, under_way: &TaskTracker) {
    let guard = under_way.token();
    if delivery.message.body.is_empty() && delivery.message.message_id == topology::PING {
        common::ambient::spawn(async move {
            settled(delivery.acknowledge().await);
            drop(guard);
        });
        return;
    }
    match decode(&delivery.message.body) {
        Ok(command) => {
            let counted = metrics::UnderWay::begin();
            let lane = commands::lane(&command.body);
            let handling = Handling::begin(context, &delivery, &command);
            let context_of_job = context.clone();
            context.run_in_lane(lane, async move {
                process(&context_of_job, delivery, command, handling).await;
                drop(counted);
                drop(guard);
            });
        }
        Err(undecodable) => {
            let context = context.clone();
            common::ambient::spawn(async move {
                turn_away(&context, delivery, undecodable).await;
                drop(guard);
            });
        }
    }
}

/// Why a message is not a command that this worker understands.
#[derive(Debug, PartialEq)]
enum Undecodable {
    /// A command that was made after this worker: of a later version, or of a kind that it does not know.
    Newer {
        command_id: CommandId,
        reply_to: String,
        /// Its kind; `None` when the version alone says it all.
        kind: Option<String>,
    },
    /// A command of a known kind with something in it that is not: somebody waits for its reply all the same.
    Unreadable { command_id: CommandId, reply_to: String, error: String },
    /// Nobody to reply to.
    Garbage(String),
}

/// Kinds are words; nobody's reply repeats more of a message than that.
const LONGEST_KIND: usize = 64;

fn decode(body: &[u8]) -> Result<Command, Undecodable> {
    /// What every version has.
    #[derive(Deserialize)]
    struct Head {
        version: u16,
        command_id: CommandId,
        reply_to: String,
    }
    let garbage = |error: serde_json::Error| Undecodable::Garbage(error.to_string());
    let Head { version, command_id, reply_to } = serde_json::from_slice(body).map_err(garbage)?;
    if version > VERSION {
        return Err(Undecodable::Newer { command_id, reply_to, kind: None });
    }
    serde_json::from_slice(body).map_err(|error: serde_json::Error| match unknown_kind(body) {
        Some(kind) => Undecodable::Newer { command_id, reply_to, kind: Some(kind) },
        None => Undecodable::Unreadable { command_id, reply_to, error: error.to_string() },
    })
}

/// The kind of a command that could not be read, when it is none of ours.
fn unknown_kind(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Kinded {
        body: Kind,
    }
    #[derive(Deserialize)]
    struct Kind {
        r#type: String,
    }
    let kind = serde_json::from_slice::<Kinded>(body).ok()?.body.r#type;
    (!CommandBody::knows(&kind)).then(|| kind.chars().take(LONGEST_KIND).collect())
}

async fn turn_away(context: &Context, delivery: Delivery, undecodable: Undecodable) {
    match undecodable {
        Undecodable::Newer { command_id, reply_to, kind } => {
            metrics::unsupported();
            let message = match &kind {
                None => format!("this worker understands versions up to {VERSION}"),
                Some(kind) => format!("this worker does not know the command {kind}"),
            };
            tracing::warn!(%command_id, kind, "a command of a newer version; refused");
            match send_reply(context, &reply_to, &unsupported(command_id, message)).await {
                Ok(()) => settled(delivery.acknowledge().await),
                Err(_) => settled(delivery.put_back().await),
            }
        }
        Undecodable::Unreadable { command_id, reply_to, error } => {
            metrics::undecodable();
            tracing::warn!(%command_id, %error, "a command that cannot be read; dead-lettered");
            let message = "this worker cannot read the command".to_owned();
            if let Err(error) = send_reply(context, &reply_to, &unsupported(command_id, message)).await {
                tracing::warn!(%error, "the sender does not learn that its command was not understood");
            }
            settled(delivery.dead_letter().await);
        }
        Undecodable::Garbage(error) => {
            metrics::undecodable();
            tracing::warn!(message_id = %delivery.message.message_id, %error, "no command; dead-lettered");
            settled(delivery.dead_letter().await);
        }
    }
}

fn unsupported(command_id: CommandId, message: String) -> Reply {
    let error = CommandError::new(ErrorCode::UnsupportedVersion, message);
    Reply { command_id, session_id: None, participant_id: None, result: Err(error) }
}

async fn process(context: &Context, delivery: Delivery, command: Command, handling: Handling) {
    // What was read before a pause that cost this worker its sessions finds them closed.
    context.standing.good().await;
    handling.started();
    let (session_id, _) = concerns(&command.body);
    let kind = command.body.kind();
    let span = tracing::info_span!(
        "command", kind, command_id = %command.command_id, session_id = session_id.map(tracing::field::display),
        worker_id = %context.worker_id,
        trace_id = trace_id(&command.traceparent),
    );
    let started = Instant::now();
    let cause = Cause {
        command_id: Some(command.command_id),
        trace_id: timeline::trace_id(&command.traceparent),
        ..Cause::default()
    };
    let outcome = async {
        let outcome = timeline::because(cause, handling.around(settle(context, delivery, command))).await;
        tracing::debug!(outcome, "command settled");
        outcome
    };
    let outcome = outcome.instrument(span).await;
    handling.ended(outcome);
    metrics::command(kind, outcome, started.elapsed().as_secs_f64());
}

/// Does the command and settles its delivery; names the outcome for the metrics.
async fn settle(context: &Context, delivery: Delivery, command: Command) -> &'static str {
    let attempt = delivery.attempt;
    let invocation = Invocation {
        command,
        message: delivery.message.clone(),
        redelivered: delivery.redelivered,
        is_last_try: attempt >= topology::COMMAND_DELIVERY_LIMIT,
    };
    let command = &invocation.command;
    let result = if command.deadline < UnixMillis::now() {
        let message = "no worker took the command before its deadline";
        Err(Failure::Refused(CommandError::new(ErrorCode::Expired, message)))
    } else {
        match AssertUnwindSafe(commands::execute(context, &invocation)).catch_unwind().await {
            Ok(result) => result,
            Err(_) => {
                tracing::error!("the command panicked; dead-lettered");
                return dead_letter(
                    context,
                    delivery,
                    command,
                    CommandError::new(ErrorCode::Internal, "internal error"),
                )
                .await;
            }
        }
    };
    let (result, outcome) = match result {
        Ok(Done::Forwarded) => {
            settled(delivery.acknowledge().await);
            return "forwarded";
        }
        Ok(Done::Reply(body)) => (Ok(body), "done"),
        Err(Failure::Refused(error)) => {
            tracing::debug!(code = ?error.code, message = error.message, "refused");
            (Err(error), "refused")
        }
        Err(Failure::Infrastructure { unavailable, message }) => {
            tracing::warn!(attempt, message, "the command failed");
            if invocation.is_last_try {
                let code = if unavailable { ErrorCode::Unavailable } else { ErrorCode::Internal };
                let error = CommandError::new(code, "the command could not be carried out");
                let retry_after = unavailable.then_some(Duration::from_secs(2));
                return dead_letter(context, delivery, command, CommandError { retry_after, ..error }).await;
            }
            return put_back(context, delivery).await;
        }
    };
    match send_reply(context, &command.reply_to, &reply(command, result)).await {
        Ok(()) => {
            settled(delivery.acknowledge().await);
            outcome
        }
        // The effect is stored: the next try finds that, and replies again.
        Err(error) => {
            tracing::warn!(%error, "the reply could not be sent");
            put_back(context, delivery).await
        }
    }
}

async fn put_back(context: &Context, delivery: Delivery) -> &'static str {
    let pause = PUT_BACK_PAUSE[usize::from(delivery.attempt > 1)];
    // A stopping worker does not pause: another one may do better.
    let _ = context.stop_intake.run_until_cancelled(tokio::time::sleep(pause)).await;
    settled(delivery.put_back().await);
    "put_back"
}

async fn dead_letter(
    context: &Context,
    delivery: Delivery,
    command: &Command,
    error: CommandError,
) -> &'static str {
    if let Err(error) = send_reply(context, &command.reply_to, &reply(command, Err(error))).await {
        tracing::warn!(%error, "the sender does not learn that its command failed");
    }
    settled(delivery.dead_letter().await);
    "dead_lettered"
}

fn reply(command: &Command, result: Result<common::message::ReplyBody, CommandError>) -> Reply {
    let (session_id, participant_id) = concerns(&command.body);
    Reply { command_id: command.command_id, session_id, participant_id, result }
}

async fn send_reply(context: &Context, reply_to: &str, reply: &Reply) -> BrokerResult<()> {
    let body = serde_json::to_vec(reply).expect("a reply is plain data");
    let message = Message { body, message_id: reply.command_id.to_string(), ttl: Some(REPLY_TTL) };
    match context.broker.send(Destination::Queue(reply_to), message).await {
        // Whoever asked is gone.
        Err(error) if error.kind == BrokerErrorKind::Unroutable => Ok(()),
        sent => sent,
    }
}

/// A delivery that could not be settled comes again, and is recognised then.
fn settled(result: BrokerResult<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "the delivery could not be settled and comes again");
    }
}

/// Whom a command is about.
pub(crate) fn concerns(body: &CommandBody) -> (Option<SessionId>, Option<ParticipantId>) {
    match body {
        CommandBody::CreateSession { session_id, .. }
        | CommandBody::ChangeSession { session_id, .. }
        | CommandBody::CloseSession { session_id } => (Some(*session_id), None),
        CommandBody::Drain { .. } => (None, None),
        CommandBody::Rate(rated) => (Some(rated.session_id), Some(rated.participant_id)),
        CommandBody::Join { session_id, participant_id, .. }
        | CommandBody::Leave { session_id, participant_id, .. } => (Some(*session_id), Some(*participant_id)),
        CommandBody::Offer { target, .. }
        | CommandBody::Answer { target, .. }
        | CommandBody::Candidates { target, .. }
        | CommandBody::Ice { target, .. }
        | CommandBody::Subscription { target, .. }
        | CommandBody::Mute { target, .. }
        | CommandBody::Stats { target } => (Some(target.session_id), Some(target.participant_id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn command() -> Command {
        Command {
            version: VERSION,
            command_id: CommandId::new(),
            traceparent: String::new(),
            sent_at: None,
            deadline: UnixMillis(1),
            reply_to: "replies.x".to_owned(),
            body: CommandBody::CloseSession { session_id: SessionId::new() },
        }
    }

    #[test]
    fn a_command_survives_the_wire() {
        let command = command();
        assert_eq!(decode(&serde_json::to_vec(&command).unwrap()), Ok(command));
    }

    #[test]
    fn a_newer_version_is_recognised_whatever_its_body() {
        let command = command();
        let mut json = serde_json::to_value(&command).unwrap();
        json["version"] = (VERSION + 1).into();
        json["body"] = serde_json::json!({"type": "teleport"});
        json["deadline"] = "in a new format".into();
        let newer =
            Undecodable::Newer { command_id: command.command_id, reply_to: command.reply_to, kind: None };
        assert_eq!(decode(&serde_json::to_vec(&json).unwrap()), Err(newer));
    }

    #[test]
    fn a_kind_of_the_future_is_recognised_and_told_from_a_known_one_that_is_broken() {
        let command = command();
        let mut json = serde_json::to_value(&command).unwrap();
        json["body"] = serde_json::json!({"type": "teleport", "to": [1, 2]});
        let (command_id, reply_to) = (command.command_id, command.reply_to);
        let newer =
            Undecodable::Newer { command_id, reply_to: reply_to.clone(), kind: Some("teleport".to_owned()) };
        assert_eq!(decode(&serde_json::to_vec(&json).unwrap()), Err(newer));
        json["body"]["type"] = "x".repeat(1_000).into();
        let Err(Undecodable::Newer { kind: Some(kind), .. }) = decode(&serde_json::to_vec(&json).unwrap())
        else {
            panic!("a newer one");
        };
        assert_eq!(kind.len(), LONGEST_KIND);
        for broken in
            [serde_json::json!({"type": "close_session", "session_id": 7}), serde_json::json!({"type": 7})]
        {
            json["body"] = broken;
            let decoded = decode(&serde_json::to_vec(&json).unwrap());
            assert!(
                matches!(&decoded, Err(Undecodable::Unreadable { command_id: id, reply_to: to, .. })
                    if *id == command_id && *to == reply_to),
                "{decoded:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_garbage_and_nothing_worse(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(matches!(decode(&bytes), Err(Undecodable::Garbage(_))));
        }

        #[test]
        fn a_cut_command_is_garbage(cut in 0_usize..10_000) {
            let whole = serde_json::to_vec(&command()).unwrap();
            let cut = cut % whole.len();
            prop_assert!(matches!(decode(&whole[..cut]), Err(Undecodable::Garbage(_))));
        }
    }
}
