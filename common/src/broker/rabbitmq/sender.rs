//! One message out, confirmed.

use lapin::options::BasicPublishOptions;
use lapin::types::FieldTable;
use lapin::{BasicProperties, Confirmation};
use std::time::Duration;

use super::error::from_lapin;
use super::link::Live;
use crate::broker::{BrokerError, BrokerErrorKind, BrokerResult, Destination, Message};

/// AMQP's mark for messages that a durable queue keeps over a restart.
const PERSISTENT: u8 = 2;

pub(super) async fn send(
    live: &Live,
    to: Destination<'_>,
    message: &Message,
    headers: FieldTable,
) -> BrokerResult<()> {
    // The default exchange (with the empty name) leads straight to the queue named by the routing key.
    let (exchange, routing_key, mandatory) = match to {
        Destination::Queue(name) => ("", name, true),
        Destination::Exchange(name) => (name, "", false),
    };
    let channel = live.confirming.lease(live).await?;
    let confirm = channel
        .basic_publish(
            exchange.into(),
            routing_key.into(),
            BasicPublishOptions { mandatory, ..BasicPublishOptions::default() },
            &message.body,
            properties(message, headers),
        )
        .await
        .map_err(|error| from_lapin("send", error))?
        .await
        .map_err(|error| from_lapin("send", error))?;
    let result = match confirm {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(_)) => Err(BrokerError::new(BrokerErrorKind::Unroutable, "no such queue")),
        Confirmation::Nack(_) => Err(BrokerError::new(BrokerErrorKind::Full, "the queue is at its limit")),
        Confirmation::NotRequested => {
            Err(BrokerError::new(BrokerErrorKind::Internal, "the channel does not confirm"))
        }
    };
    channel.give_back();
    result
}

fn properties(message: &Message, headers: FieldTable) -> BasicProperties {
    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(message.message_id.as_str().into())
        .with_headers(headers);
    if let Some(ttl) = message.ttl {
        properties = properties.with_expiration(milliseconds(ttl).to_string().into());
    }
    properties
}

/// As RabbitMQ wants its times: whole milliseconds, at least one, and at most what fits into 32 bits (49 days).
pub(super) fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_stay_within_what_rabbitmq_takes() {
        assert_eq!(milliseconds(Duration::ZERO), 1);
        assert_eq!(milliseconds(Duration::from_micros(1)), 1);
        assert_eq!(milliseconds(Duration::from_secs(2)), 2_000);
        assert_eq!(milliseconds(Duration::MAX), u32::MAX);
    }
}
