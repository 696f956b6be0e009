//! A command that a version does not know is refused, so that its sender can do something else; it is no dead letter, and
//! the worker goes on.

use common::broker::{Broker, Destination, Inbox, InboxOptions, Message, topology};
use common::message::{Command, ErrorCode, Reply, VERSION};
use common::model::{CommandId, InstanceId};
use serde_json::{Value, json};
use support::{Deployment, patience};

use crate::{no_dead_letters, still_there, versions};

/// A command as a later API would send it: any that is recorded (tests/data/compat), with something new.
fn from_the_future(reply_to: &str, change: impl FnOnce(&mut Value)) -> (CommandId, Vec<u8>) {
    let recorded = include_str!("../data/compat/commands.json");
    let recorded: Value = serde_json::from_str(recorded).expect("recordings are JSON");
    let mut command = recorded["close_session"].clone();
    serde_json::from_value::<Command>(command.clone()).expect("as it is, it can be read");
    let id = CommandId::new();
    command["command_id"] = json!(id);
    command["reply_to"] = json!(reply_to);
    change(&mut command);
    (id, command.to_string().into_bytes())
}

async fn reply(inbox: &mut dyn Inbox) -> Reply {
    let bound = patience(10.0);
    let next = tokio::time::timeout(bound, inbox.next()).await;
    let delivery = next.unwrap_or_else(|_| panic!("no reply within {bound:?}")).expect("the queue is there");
    let reply = serde_json::from_slice(&delivery.message.body).expect("a reply");
    delivery.acknowledge().await.expect("the broker answers");
    reply
}

async fn send(broker: &dyn Broker, queue: &str, id: CommandId, body: Vec<u8>) {
    let message = Message { body, message_id: id.to_string(), ttl: None };
    broker.send(Destination::Queue(queue), message).await.expect("the worker reads there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_of_a_later_version_is_refused_and_no_dead_letter() {
    let versions = versions();
    for program in [&versions.old, &versions.new] {
        let mut deployment = Deployment::start_programs(&[program], &[program], &[]).await;
        let url = deployment.location().broker.parse().expect("a broker's URL");
        let broker = common::connect::broker(&url).await.expect("RabbitMQ answers");
        let replies = topology::replies_queue(InstanceId::new());
        broker.declare_queue(&replies).await.expect("a queue can be declared");
        let options = InboxOptions { prefetch: 10, exclusive: true };
        let mut inbox = broker.open_inbox(&replies.name, options).await.expect("the queue can be read");
        let own = format!("worker.{}", deployment.workers[0].worker());
        for queue in [own.as_str(), topology::WORKERS] {
            let later = from_the_future(&replies.name, |command| command["version"] = json!(VERSION + 1));
            let other = from_the_future(&replies.name, |command| {
                command["body"] =
                    json!({"type": "travel_in_time", "years": [1, 2], "target": {"any": "thing"}});
            });
            for (id, body) in [later, other] {
                send(&*broker, queue, id, body).await;
                let reply = reply(&mut *inbox).await;
                assert_eq!(reply.command_id, id);
                assert_eq!(reply.result.expect_err("a refusal").code, ErrorCode::UnsupportedVersion);
            }
        }
        no_dead_letters(&deployment).await;
        // It takes what it knows, as before.
        let room = deployment.room().await;
        room.join("somebody").await.event("endpoint.state", |data| data["state"] == "connected").await;
        still_there(&mut deployment);
        broker.close().await;
    }
}
