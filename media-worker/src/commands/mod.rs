//! Commands: one file each. Every command may come twice and takes effect once.
//!
//! | command | done by | twice |
//! |---|---|---|
//! | create session | whoever takes it from `workers` | the stored `command_id` decides |
//! | join | the worker that hosts (or is chosen to host) the session | the reply kept with the endpoint; once that has gone, the session's `done_commands` |
//! | offer, answer, candidates, ice, subscription, mute | the worker in the target | the last replies are kept with the endpoint |
//! | stats | the worker in the target | it looks again |
//! | rate | the worker that has or had the connection; anyone when there is none | the stored `at` decides |
//! | drain | the worker that it names | it drains already |
//! | change session | the worker that hosts the session; anyone when there is none | the session's `done_commands` |
//! | leave | the worker that hosts the endpoint; anyone when there is none | the session's `done_commands` |
//! | close | the worker that hosts the session; anyone when there is none | nothing is left to do |

mod answer;
mod candidates;
mod change;
pub(crate) mod close;
mod create;
mod drain;
mod endpoint;
mod ice;
mod join;
mod leave;
mod mute;
mod offer;
mod rate;
mod stats;
mod subscription;

use std::sync::Arc;

use common::broker::{BrokerError, BrokerErrorKind, Destination, Message, topology};
use common::message::{Command, CommandBody, CommandError, ErrorCode, ReplyBody, Target};
use common::model::WorkerId;
use common::store::{StoreError, StoreErrorKind};
use common::time::UnixMillis;

use crate::context::{Context, Lane, endpoint_gone};
use crate::media::MediaError;
use crate::spans;

/// One delivery of one command.
pub(crate) struct Invocation {
    pub command: Command,
    /// As it came, to be handed on.
    pub message: Arc<Message>,
    /// It was (perhaps) delivered before: an earlier try may have ended half-way.
    pub redelivered: bool,
    /// A failure of this try is final.
    pub is_last_try: bool,
}

/// How a command ended well.
#[derive(Debug)]
pub(crate) enum Done {
    Reply(ReplyBody),
    /// Another worker does it and replies.
    Forwarded,
}

/// How a command ended otherwise.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Its sender is told why.
    Refused(CommandError),
    /// Broker or store could not do their part; another try may.
    Infrastructure { unavailable: bool, message: String },
}

pub(crate) type Outcome = Result<Done, Failure>;

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        Self::Refused(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Infrastructure {
            unavailable: error.kind == StoreErrorKind::Unavailable,
            message: error.to_string(),
        }
    }
}

impl From<BrokerError> for Failure {
    fn from(error: BrokerError) -> Self {
        Self::Infrastructure {
            unavailable: error.kind == BrokerErrorKind::Unavailable,
            message: error.to_string(),
        }
    }
}

impl From<MediaError> for Failure {
    fn from(error: MediaError) -> Self {
        let code = match error {
            MediaError::EndpointGone => return Self::Refused(endpoint_gone()),
            MediaError::OfferCollision => ErrorCode::OfferCollision,
            MediaError::NoOfferPending => ErrorCode::NoOfferPending,
            MediaError::InvalidSdp(_) => ErrorCode::InvalidSdp,
            MediaError::InvalidCandidate(_) => ErrorCode::InvalidCandidate,
            MediaError::PreconditionFailed => ErrorCode::PreconditionFailed,
            MediaError::LimitExceeded(_) => ErrorCode::LimitExceeded,
            MediaError::Forbidden => ErrorCode::Forbidden,
            MediaError::TrackNotFound => ErrorCode::TrackNotFound,
            MediaError::Unavailable | MediaError::Full(_) => ErrorCode::Unavailable,
        };
        Self::Refused(CommandError::new(code, error.to_string()))
    }
}

pub(crate) fn refuse(code: ErrorCode, message: &str) -> Failure {
    Failure::Refused(CommandError::new(code, message))
}

/// Does a command whose version and deadline have been checked.
pub(crate) async fn execute(context: &Context, invocation: &Invocation) -> Outcome {
    let command_id = invocation.command.command_id;
    match &invocation.command.body {
        CommandBody::CreateSession { session_id, name, key_id, settings } => {
            create::create(context, command_id, *session_id, name.clone(), key_id, settings.clone()).await
        }
        CommandBody::ChangeSession { session_id, settings } => {
            change::change(context, invocation, *session_id, settings).await
        }
        CommandBody::CloseSession { session_id } => close::close(context, invocation, *session_id).await,
        CommandBody::Join {
            session_id,
            participant_id,
            endpoint_id,
            name,
            grants,
            server_offers,
            offer,
            bitrates,
            last_n,
            fixed,
            token_issued_at,
        } => {
            let join = join::Join {
                command_id,
                session_id: *session_id,
                participant_id: *participant_id,
                endpoint_id: *endpoint_id,
                name,
                grants: *grants,
                server_offers: *server_offers,
                offer: offer.as_ref(),
                lowered: *bitrates,
                last_n: *last_n,
                fixed: *fixed,
                token_issued_at: *token_issued_at,
            };
            join::join(context, invocation, &join).await
        }
        CommandBody::Leave { session_id, participant_id, reason, endpoint_id, revoked_at } => {
            let leave = leave::Leave {
                session_id: *session_id,
                participant_id: *participant_id,
                reason: *reason,
                only: *endpoint_id,
                revoked_at: *revoked_at,
            };
            leave::leave(context, invocation, leave).await
        }
        CommandBody::Offer { target, offer } => offer::offer(context, invocation, target, offer).await,
        CommandBody::Answer { target, answer } => answer::answer(context, invocation, target, answer).await,
        CommandBody::Candidates { target, candidates } => {
            candidates::candidates(context, invocation, target, candidates).await
        }
        CommandBody::Ice { target, fragment, if_match } => {
            ice::ice(context, invocation, target, fragment, if_match).await
        }
        CommandBody::Drain { worker_id } => drain::drain(context, *worker_id),
        CommandBody::Subscription { target, track_id, wish } => {
            subscription::subscription(context, invocation, target, *track_id, *wish).await
        }
        CommandBody::Stats { target } => stats::stats(context, target).await,
        CommandBody::Rate(rated) => rate::rate(context, rated).await,
        CommandBody::Mute { target, track_id, muted, by_admin } => {
            mute::mute(context, invocation, target, *track_id, *muted, *by_admin).await
        }
    }
}

/// What the command must not overtake, and must not be overtaken by.
pub(crate) fn lane(body: &CommandBody) -> Lane {
    match body {
        CommandBody::CreateSession { session_id, .. }
        | CommandBody::ChangeSession { session_id, .. }
        | CommandBody::CloseSession { session_id } => Lane::Session(*session_id),
        CommandBody::Join { session_id, participant_id, .. }
        | CommandBody::Leave { session_id, participant_id, .. } => {
            Lane::Participant(*session_id, *participant_id)
        }
        CommandBody::Drain { .. } => Lane::Worker,
        CommandBody::Rate(rated) => Lane::Participant(rated.session_id, rated.participant_id),
        CommandBody::Offer { target, .. }
        | CommandBody::Answer { target, .. }
        | CommandBody::Candidates { target, .. }
        | CommandBody::Ice { target, .. }
        | CommandBody::Subscription { target, .. }
        | CommandBody::Mute { target, .. }
        | CommandBody::Stats { target } => endpoint_lane(target),
    }
}

fn endpoint_lane(target: &Target) -> Lane {
    Lane::Participant(target.session_id, target.participant_id)
}

/// Hands the command to the worker that it concerns. `false`: that worker is gone.
async fn forward(context: &Context, invocation: &Invocation, worker_id: WorkerId) -> Result<bool, Failure> {
    let queue = topology::worker_queue_name(worker_id);
    let (span, message) = spans::handing_on(invocation);
    match span.around(context.broker.send(Destination::Queue(&queue), message)).await {
        Ok(()) => {
            context.peers.seen(worker_id);
            Ok(true)
        }
        Err(error) if error.kind == BrokerErrorKind::Unroutable => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The same, when that worker's lease runs: a worker that hangs keeps its queue but does not read it.
async fn forward_if_alive(
    context: &Context,
    invocation: &Invocation,
    worker_id: WorkerId,
) -> Result<bool, Failure> {
    let alive = context.store.worker(worker_id).await?.is_some_and(|row| row.lease_until > UnixMillis::now());
    if alive { forward(context, invocation, worker_id).await } else { Ok(false) }
}
