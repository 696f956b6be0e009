//! What a worker adds to the trace of a command, where traces are recorded ([`common::spans`]).
//!
//! ```text
//!   send join (API) ─▶ process join ─┬─ store session, store put_participant …
//!                                    ├─ open endpoint ─ negotiate offer
//!                                    ├─ send join ─▶ process join (another worker, when that one has the session)
//!                                    └┄ later: connect ice, connect dtls, first media in, first media out
//! ```
//!
//! What comes later is made of what the media plane reports anyway, with the times that it reports; a media thread has no
//! spans.

use std::time::{Duration, Instant, SystemTime};

use common::broker::{Delivery, Message};
use common::message::Command;
use common::spans::{KeyValue, Kind, Place, Span};
use common::time::UnixMillis;

use crate::commands::Invocation;
use crate::context::Context;
use crate::inbox::concerns;
use crate::media::{MediaError, Step};
use crate::registry::LiveEndpoint;

/// The handling of one delivery of one command, from when it is taken off its queue.
pub(crate) struct Handling {
    span: Span,
    taken: Instant,
}

impl Handling {
    pub fn begin(context: &Context, delivery: &Delivery, command: &Command) -> Self {
        let span = Span::of(Kind::Consumer, "process", command.body.kind(), Some(&command.traceparent));
        span.say(|| {
            [
                KeyValue::new("messaging.message.id", command.command_id.to_string()),
                KeyValue::new("switchyard.worker.id", context.worker_id.to_string()),
                KeyValue::new("switchyard.attempt", i64::from(delivery.attempt)),
            ]
        });
        let (session_id, participant_id) = concerns(&command.body);
        if let Some(session_id) = session_id {
            span.say(|| [KeyValue::new("switchyard.session.id", session_id.to_string())]);
        }
        if let Some(participant_id) = participant_id {
            span.say(|| [KeyValue::new("switchyard.participant.id", participant_id.to_string())]);
        }
        if let Some(sent_at) = command.sent_at {
            // By two clocks, when the API is on another machine.
            span.say(|| {
                [KeyValue::new("switchyard.queue_wait_ms", millis(sent_at.until(UnixMillis::now())))]
            });
        }
        Self { span, taken: Instant::now() }
    }

    /// Nothing before it in its lane is under way any more, and the worker may act.
    pub fn started(&self) {
        self.span.say(|| [KeyValue::new("switchyard.lane_wait_ms", millis(self.taken.elapsed()))]);
    }

    /// Does the command within its span.
    pub fn around<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        self.span.around(work)
    }

    /// The delivery is settled; the span ends.
    pub fn ended(self, outcome: &'static str) {
        self.span.say(|| [KeyValue::new("switchyard.outcome", outcome)]);
        if matches!(outcome, "put_back" | "dead_lettered") {
            self.span.fail(outcome);
        }
    }
}

/// The span of handing a command to another worker, and the message for that one: what it does is below this span.
pub(crate) fn handing_on(invocation: &Invocation) -> (Span, Message) {
    let span = Span::below(Kind::Producer, "send", invocation.command.body.kind());
    let mut message = Message::clone(&invocation.message);
    if let Some(traceparent) = span.traceparent() {
        let sent_at = Some(UnixMillis::now());
        let command = Command { traceparent, sent_at, ..invocation.command.clone() };
        message.body = serde_json::to_vec(&command).expect("a command is plain data");
    }
    (span, message)
}

/// A call to the media plane, in a span of its own.
pub(crate) async fn media<T>(
    verb: &'static str,
    object: &str,
    call: impl Future<Output = Result<T, MediaError>>,
) -> Result<T, MediaError> {
    let span = Span::below(Kind::Internal, verb, object);
    let result = span.around(call).await;
    if result.is_err() {
        span.fail("refused");
    }
    result
}

/// Where in a trace an endpoint was opened.
#[derive(Debug)]
pub(crate) struct Traced {
    place: Place,
    opened: SystemTime,
}

impl Traced {
    /// By what this task does. `None` when that is not recorded.
    pub fn here() -> Option<Self> {
        Some(Self { place: Place::here()?, opened: SystemTime::now() })
    }

    /// The connection has got that far.
    pub fn step(&self, endpoint: &LiveEndpoint, step: Step, at: SystemTime, took: Duration) {
        let (verb, object) = match step {
            Step::Ice => ("connect", "ice"),
            Step::Dtls => ("connect", "dtls"),
            Step::FirstIn => ("first media", "in"),
            Step::FirstOut => ("first media", "out"),
        };
        let began = at.checked_sub(took).unwrap_or(at);
        let endpoint_id = KeyValue::new("switchyard.endpoint.id", endpoint.id.to_string());
        self.place.past(verb, object, (began, at), [endpoint_id], None);
    }

    /// It was given up before it was one.
    pub fn not_connected(&self) {
        self.place.past("connect", "failed", (self.opened, SystemTime::now()), [], Some("connect_failed"));
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
