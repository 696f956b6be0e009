//! What the broker counts; all labels come from closed sets.

use metrics::{counter, gauge};

use super::{BrokerErrorKind, BrokerResult};
use crate::catalogue::Metric;
use crate::catalogue::Values::{self, Listed};

/// A process uses one of them.
const BROKER: (&str, Values) = ("broker", Listed(&["embedded", "rabbitmq"]));

/// What a process that talks to a broker shows.
pub const METRICS: &[Metric] = &[
    Metric::gauge("switchyard_broker_connected", &[BROKER], "1 while the broker is reachable"),
    Metric::counter(
        "switchyard_broker_sends_total",
        &[BROKER, ("outcome", Listed(&["ok", "unavailable", "unroutable", "conflict", "full", "internal"]))],
        "messages sent, by how it ended",
    ),
    Metric::counter("switchyard_broker_deliveries_total", &[BROKER], "messages handed to a reader"),
    Metric::counter(
        "switchyard_broker_redeliveries_total",
        &[BROKER],
        "those of them that were (perhaps) delivered before",
    ),
    Metric::counter("switchyard_broker_returns_total", &[BROKER], "messages that came back as unroutable"),
    Metric::counter(
        "switchyard_broker_dead_letters_total",
        &[BROKER],
        "messages that this process moved to the queue `dead-letters`",
    ),
    Metric::counter(
        "switchyard_broker_dropped_total",
        &[BROKER, ("reason", Listed(&["oldest", "expired"]))],
        "messages lost by a stated rule; RabbitMQ's own losses are in its own metrics",
    ),
    Metric::counter("switchyard_broker_reconnects_total", &[BROKER], "connections opened again after a loss"),
    Metric::gauge(
        "switchyard_broker_queue_messages",
        &[("queue", Listed(&["workers", "dead-letters"]))],
        "messages that wait in a shared queue, as a worker last saw it",
    ),
];

/// Which implementation counts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Back {
    Embedded,
    #[cfg_attr(not(feature = "servers"), allow(dead_code))]
    Rabbit,
}

impl Back {
    fn label(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Rabbit => "rabbitmq",
        }
    }

    pub(super) fn sent(self, result: &BrokerResult<()>) {
        let outcome = match result {
            Ok(()) => "ok",
            Err(error) => match error.kind {
                BrokerErrorKind::Unavailable => "unavailable",
                BrokerErrorKind::Unroutable => "unroutable",
                BrokerErrorKind::Conflict => "conflict",
                BrokerErrorKind::Full => "full",
                BrokerErrorKind::Internal => "internal",
            },
        };
        counter!("switchyard_broker_sends_total", "broker" => self.label(), "outcome" => outcome)
            .increment(1);
        if outcome == "unroutable" {
            counter!("switchyard_broker_returns_total", "broker" => self.label()).increment(1);
        }
    }

    pub(super) fn delivered(self, redelivered: bool) {
        counter!("switchyard_broker_deliveries_total", "broker" => self.label()).increment(1);
        if redelivered {
            counter!("switchyard_broker_redeliveries_total", "broker" => self.label()).increment(1);
        }
    }

    pub(super) fn dead_lettered(self) {
        counter!("switchyard_broker_dead_letters_total", "broker" => self.label()).increment(1);
    }

    pub(super) fn dropped_oldest(self) {
        counter!("switchyard_broker_dropped_total", "broker" => self.label(), "reason" => "oldest")
            .increment(1);
    }

    pub(super) fn dropped_expired(self) {
        counter!("switchyard_broker_dropped_total", "broker" => self.label(), "reason" => "expired")
            .increment(1);
    }

    #[cfg_attr(not(feature = "servers"), allow(dead_code))]
    pub(super) fn reconnected(self) {
        counter!("switchyard_broker_reconnects_total", "broker" => self.label()).increment(1);
    }

    pub(super) fn connected(self, connected: bool) {
        gauge!("switchyard_broker_connected", "broker" => self.label()).set(if connected {
            1.0
        } else {
            0.0
        });
    }
}

/// As the last look found it.
pub fn queue_messages(queue: &'static str, messages: u64) {
    gauge!("switchyard_broker_queue_messages", "queue" => queue).set(messages as f64);
}
