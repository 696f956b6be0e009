//! What the broker counts; all labels come from closed sets.
//!
//! | metric | labels | counts |
//! |---|---|---|
//! | `switchyard_broker_sends_total` | `broker`, `outcome` | messages sent, by how it ended |
//! | `switchyard_broker_deliveries_total` | `broker` | messages handed to an inbox's reader |
//! | `switchyard_broker_redeliveries_total` | `broker` | those of them that were (perhaps) delivered before |
//! | `switchyard_broker_returns_total` | `broker` | messages that came back as unroutable |
//! | `switchyard_broker_dead_letters_total` | `broker` | messages this process moved to the dead-letter queue |
//! | `switchyard_broker_dropped_total` | `broker`, `reason` | messages lost by a stated rule: `oldest`, `expired`. RabbitMQ's own losses are in its own metrics |
//! | `switchyard_broker_reconnects_total` | `broker` | connections opened again after a loss |
//! | `switchyard_broker_connected` | `broker` | 1 while the broker is reachable |

use metrics::{counter, gauge};

use super::{BrokerErrorKind, BrokerResult};

/// Which implementation counts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Back {
    Embedded,
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
