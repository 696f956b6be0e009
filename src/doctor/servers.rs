//! RabbitMQ and MongoDB: whether they are there, new enough, and let us do what we have to.

use std::time::Duration;

use common::broker::rabbitmq::examine::{self as broker_facts};
use common::broker::{
    Broker, BrokerErrorKind, BrokerResult, Destination, InboxOptions, Message, QueueKind, QueueSpec, WhenFull,
};
use common::connect::{self, BrokerUrl, StoreUrl};
use common::store::mongodb::examine::{self as store_facts, Facts};
use common::store::{StoreError, StoreErrorKind};

use super::Finding;
use crate::config::Settings;

/// The oldest that are supported.
const RABBITMQ: (u32, u32) = (3, 10);
const MONGODB: (u32, u32) = (5, 0);
/// Leases are wall-clock times that other machines compare: beyond the first they are shorter or longer than they should be,
/// beyond the second workers are declared dead that live, or the other way round.
const SKEW_WARN_MS: i64 = 500;
const SKEW_FAIL_MS: i64 = 2_000;
const RIGHTS: &str =
    "give the user all rights in its virtual host: rabbitmqctl set_permissions -p VHOST USER '.*' '.*' '.*'";
/// For a message to come back.
const PATIENCE: Duration = Duration::from_secs(5);

pub async fn check(settings: &Settings) -> Vec<Finding> {
    let mut findings = broker(&settings.broker).await;
    findings.extend(store(&settings.store).await);
    findings
}

async fn broker(url: &BrokerUrl) -> Vec<Finding> {
    let BrokerUrl::Rabbit(text) = url else { return vec![Finding::ok("broker", "embedded")] };
    let facts = match broker_facts::examine(text).await {
        Ok(facts) => facts,
        Err(error) => {
            return vec![Finding::fail(
                "broker",
                error.message,
                "start RabbitMQ, or correct `broker` (host, port, firewall)",
            )];
        }
    };
    let version = match &facts {
        Some(facts) => version("broker_version", &facts.product, &facts.version, RABBITMQ, "quorum queues"),
        None => Finding::ok("broker_version", "not looked at behind TLS"),
    };
    let connected = match connect::broker(url).await {
        Ok(connected) => connected,
        Err(error) => {
            // The queue for dead letters is declared at once: a refusal of that is one of rights.
            let advice = match error.kind {
                BrokerErrorKind::Conflict => RIGHTS,
                _ => {
                    "correct user, password and virtual host in `broker` (rabbitmqctl list_permissions -p VHOST)"
                }
            };
            return vec![version, Finding::fail("broker", error.message, advice)];
        }
    };
    let rights = match tokio::time::timeout(PATIENCE * 2, round(&*connected)).await {
        Ok(Ok(true)) => Finding::ok("broker", "connected; may declare, bind, send, read and delete"),
        Ok(Ok(false)) => {
            Finding::fail("broker", "a message that was sent did not come back", "look into RabbitMQ's log")
        }
        Ok(Err(error)) => Finding::fail("broker", error.message, RIGHTS),
        Err(_) => Finding::fail(
            "broker",
            "it takes connections and does not answer in time",
            "look at its load and alarms",
        ),
    };
    connected.close().await;
    vec![version, rights]
}

/// Everything that parts do with a broker, once, in queues and exchanges of our own. Whether the message came back.
async fn round(broker: &dyn Broker) -> BrokerResult<bool> {
    let name = format!("doctor.{}", uuid::Uuid::new_v4().simple());
    let queue = QueueSpec {
        name: name.clone(),
        kind: QueueKind::Durable,
        expires: Some(Duration::from_secs(60)),
        max_length: 10,
        delivery_limit: None,
        when_full: WhenFull::DropOldest,
    };
    broker.declare_queue(&queue).await?;
    let came = async {
        broker.declare_exchange(&name).await?;
        broker.bind(&name, &name).await?;
        let message = Message { message_id: name.clone(), ..Message::default() };
        broker.send(Destination::Exchange(&name), message).await?;
        let mut inbox = broker.open_inbox(&name, InboxOptions { prefetch: 1, exclusive: false }).await?;
        let delivery = tokio::time::timeout(PATIENCE, inbox.next()).await.ok().flatten();
        let came = delivery.as_ref().is_some_and(|delivery| delivery.message.message_id == name);
        if let Some(delivery) = delivery {
            delivery.acknowledge().await?;
        }
        Ok(came)
    }
    .await;
    // Also when something before was refused.
    let (exchange, queue) = (broker.delete_exchange(&name).await, broker.delete_queue(&name).await);
    let came = came?;
    exchange.and(queue).map(|()| came)
}

async fn store(url: &StoreUrl) -> Vec<Finding> {
    let StoreUrl::Mongo(text) = url else { return vec![Finding::ok("store", "embedded")] };
    match store_facts::examine(text).await {
        Ok(facts) => {
            let version = version("store_version", "MongoDB", &facts.version, MONGODB, "what is used of it");
            vec![version, replica_set(&facts), rights(&facts), clock(&facts)]
        }
        Err(StoreError { kind: StoreErrorKind::Unavailable, message, .. }) => {
            vec![Finding::fail(
                "store",
                message,
                "start MongoDB, or correct `store` (hosts, port, replicaSet, firewall)",
            )]
        }
        Err(error) => {
            vec![Finding::fail("store", error.message, "correct `store`: user, password, authSource")]
        }
    }
}

fn replica_set(facts: &Facts) -> Finding {
    const CHECK: &str = "store_replica_set";
    match (&facts.replica_set, facts.members) {
        (None, _) => Finding::fail(
            CHECK,
            "the server is in no replica set, and has no change streams",
            "start mongod with --replSet rs0 and run rs.initiate(); one node is enough",
        ),
        (Some(name), members @ 0..=2) => Finding::warn(
            CHECK,
            format!("{name}, {members} member(s): its loss is everyone's"),
            "for more than a trial: three members on three machines",
        ),
        (Some(name), members) => Finding::ok(CHECK, format!("{name}, {members} members")),
    }
}

fn rights(facts: &Facts) -> Finding {
    let refused = |error: &StoreError, advice| Finding::fail("store", error.message.clone(), advice);
    let took = facts.round_trip.as_millis();
    match (&facts.may_write, &facts.may_watch) {
        (Err(error), _) => {
            refused(error, "give the user the role readWrite on its database (and dbAdmin, for indexes)")
        }
        (_, Err(error)) => {
            refused(error, "give the user the role readWrite on its database, which includes change streams")
        }
        (Ok(()), Ok(())) => {
            Finding::ok("store", format!("connected ({took} ms); may write, delete and watch"))
        }
    }
}

fn clock(facts: &Facts) -> Finding {
    const CHECK: &str = "clock";
    let Some(ahead) = facts.clock_ahead_ms else {
        return Finding::warn(CHECK, "the store does not tell the time", "see that all machines run NTP");
    };
    let found = format!("the store's is {ahead} ms ahead of this machine's");
    let advice = "run NTP on all machines (timedatectl; chronyc tracking)";
    let apart = ahead.saturating_abs();
    if apart <= SKEW_WARN_MS {
        Finding::ok(CHECK, found)
    } else if apart <= SKEW_FAIL_MS {
        Finding::warn(CHECK, found, advice)
    } else {
        Finding::fail(CHECK, format!("{found}: leases mean nothing any more"), advice)
    }
}

fn version(check: &'static str, product: &str, version: &str, least: (u32, u32), why: &str) -> Finding {
    let mut numbers = version.split('.').map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Finding::warn(
            check,
            format!("{product} {version:?}: not known"),
            format!("see that it is {least:?} or later"),
        );
    };
    let found = format!("{product} {version}");
    if (major, minor) >= least {
        Finding::ok(check, found)
    } else {
        Finding::fail(check, found, format!("use {}.{} or later, for {why}", least.0, least.1))
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn facts(clock_ahead_ms: Option<i64>, replica_set: Option<&str>, members: usize) -> Facts {
        Facts {
            version: "8.0.1".into(),
            replica_set: replica_set.map(str::to_owned),
            members,
            round_trip: Duration::from_millis(1),
            clock_ahead_ms,
            may_write: Ok(()),
            may_watch: Ok(()),
        }
    }

    #[test]
    fn clocks_may_differ_a_little() {
        let state = |ahead| clock(&facts(ahead, None, 0)).state;
        assert_eq!(
            [Some(-500), Some(501), Some(-2_001), None].map(state),
            [State::Ok, State::Warn, State::Fail, State::Warn]
        );
    }

    #[test]
    fn change_streams_need_a_replica_set() {
        assert_eq!(replica_set(&facts(None, None, 0)).state, State::Fail);
        assert_eq!(replica_set(&facts(None, Some("rs0"), 1)).state, State::Warn);
        assert_eq!(replica_set(&facts(None, Some("rs0"), 3)).state, State::Ok);
    }

    #[test]
    fn old_servers_are_told() {
        let state = |text| version("broker_version", "RabbitMQ", text, RABBITMQ, "quorum queues").state;
        assert_eq!(
            ["3.9.29", "3.10.8", "4.0.0", "10.0.1"].map(state),
            [State::Fail, State::Ok, State::Ok, State::Ok]
        );
        assert_eq!(state("later"), State::Warn);
    }
}
