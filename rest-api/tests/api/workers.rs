//! For operators: the list of workers, draining one; and a session's timeline for its owner.

use common::broker::{InboxOptions, topology};
use common::message::{Command, CommandBody, CommandError, ErrorCode, Reply, ReplyBody};
use common::model::{
    Cause, CommandId, EventId, Owed, ParticipantId, RunId, SessionId, TimelineEntry, WorkerId, WorkerLoad,
    WorkerState,
};
use common::store::Store;
use common::time::UnixMillis;
use common::token::VideoGrants;
use serde_json::{Value, json};

use crate::support::*;

async fn operated() -> (System, Api, Client) {
    let system = System::new();
    let api = system.api_with(|config| config.operator_keys = vec![KEY.to_owned()]).await;
    let operator = Client::new(&api.url, Auth::Basic(KEY, SECRET));
    (system, api, operator)
}

fn row(state: WorkerState, lease_until: UnixMillis) -> common::model::Worker {
    common::model::Worker {
        id: WorkerId::new(),
        run: RunId::new(),
        address: "203.0.113.7:40000".to_owned(),
        lease_until,
        state,
        load: WorkerLoad { memory_bytes: 1 << 20, endpoints: 3, ..WorkerLoad::default() },
        broker_away_since: None,
    }
}

/// A worker that answers every command with this, once.
async fn answering(system: &System, id: WorkerId, result: Result<ReplyBody, CommandError>) {
    let queue = topology::worker_queue(id);
    system.broker.declare_queue(&queue).await.unwrap();
    let options = InboxOptions { prefetch: 1, exclusive: false };
    let mut inbox = system.broker.open_inbox(&queue.name, options).await.unwrap();
    let broker = system.broker.clone();
    tokio::spawn(async move {
        let delivery = inbox.next().await.unwrap();
        let command: Command = serde_json::from_slice(&delivery.message.body).unwrap();
        assert_eq!(command.body, CommandBody::Drain { worker_id: id });
        let reply = Reply { command_id: command.command_id, session_id: None, participant_id: None, result };
        let message = common::broker::Message {
            body: serde_json::to_vec(&reply).unwrap(),
            message_id: command.command_id.to_string(),
            ttl: None,
        };
        broker.send(common::broker::Destination::Queue(&command.reply_to), message).await.unwrap();
        delivery.acknowledge().await.unwrap();
    });
}

#[tokio::test]
async fn only_operators_see_and_drain_workers() {
    let (system, _api, operator) = operated().await;
    let drain = format!("/v1/workers/{}/drain", WorkerId::new());
    let admin = VideoGrants { room_admin: true, ..VideoGrants::join(SessionId::new()) };
    for auth in [Auth::Basic(OTHER_KEY, OTHER_SECRET), Auth::Bearer(token(admin, None))] {
        let other = operator.with(auth);
        other.get("/v1/workers").await.is_problem(403, "forbidden");
        other.post(&drain, Value::Null).await.is_problem(403, "forbidden");
    }
    // Where no key is an operator, nobody is.
    let plain = system.api().await;
    let backend = Client::new(&plain.url, Auth::Basic(KEY, SECRET));
    backend.get("/v1/workers").await.is_problem(403, "forbidden");
    backend.post(&drain, Value::Null).await.is_problem(403, "forbidden");
}

#[tokio::test]
async fn workers_are_listed_with_their_state_and_load() {
    let (system, _api, operator) = operated().await;
    let now = UnixMillis::now();
    let living = row(WorkerState::Ready, UnixMillis(now.0 + 60_000));
    let draining = row(WorkerState::Draining, UnixMillis(now.0 + 60_000));
    let dead = row(WorkerState::Ready, UnixMillis(now.0 - 1));
    for each in [&living, &draining, &dead] {
        system.store.put_worker(each).await.unwrap();
    }
    let listed = operator.get("/v1/workers").await;
    assert_eq!(listed.status, 200, "{listed:?}");
    let seen: Vec<_> = listed.json["workers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|worker| {
            (
                worker["id"].as_str().unwrap().to_owned(),
                worker["state"].as_str().unwrap().to_owned(),
                worker["alive"].as_bool().unwrap(),
            )
        })
        .collect();
    let expected =
        |row: &common::model::Worker, state: &str, alive| (row.id.to_string(), state.to_owned(), alive);
    let mut all = vec![
        expected(&living, "ready", true),
        expected(&draining, "draining", true),
        expected(&dead, "ready", false),
    ];
    all.sort();
    assert_eq!(seen, all);
    assert_eq!(listed.json["workers"][0]["load"]["endpoints"], 3);
    assert_eq!(listed.json["workers"][0]["address"], "203.0.113.7:40000");
}

#[tokio::test]
async fn a_drain_is_accepted_by_the_worker_itself() {
    let (system, _api, operator) = operated().await;
    let (willing, alone) = (WorkerId::new(), WorkerId::new());
    answering(&system, willing, Ok(ReplyBody::Draining)).await;
    let refusal = CommandError::new(ErrorCode::CannotDrain, "all in one");
    answering(&system, alone, Err(refusal)).await;
    let accepted = operator.post(&format!("/v1/workers/{willing}/drain"), Value::Null).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    assert_eq!(accepted.json["command_id"].as_str(), accepted.headers["command-id"].to_str().ok());
    let refused = operator.post(&format!("/v1/workers/{alone}/drain"), Value::Null).await;
    refused.is_problem(409, "cannot_drain");
    let unknown = operator.post(&format!("/v1/workers/{}/drain", WorkerId::new()), Value::Null).await;
    unknown.is_problem(404, "worker_not_found");
    operator.post("/v1/workers/wrk_nonsense/drain", Value::Null).await.is_problem(400, "invalid_request");
}

#[tokio::test]
async fn a_timeline_is_read_in_pages_by_the_sessions_own_key() {
    let (system, _api, worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let participant = ParticipantId::new();
    let entries: Vec<TimelineEntry> = (0..5)
        .map(|index| TimelineEntry {
            id: EventId::new(),
            session_id: session,
            number: 0,
            at: UnixMillis(1_000 + index),
            what: "participant.joined".to_owned(),
            cause: Cause { command_id: Some(CommandId::new()), ..Cause::default() },
            participant_id: (index == 1).then_some(participant),
            track: None,
            webhooks: Owed::default(),
        })
        .collect();
    system.store.append_timeline(session, &entries).await.unwrap();
    let path = format!("/v1/sessions/{session}/timeline");
    let first = backend.get(&format!("{path}?limit=2")).await;
    assert_eq!(first.status, 200, "{first:?}");
    assert_eq!(first.json["next"], 2);
    let cause = |index: usize| json!({"command_id": entries[index].cause.command_id.unwrap().to_string()});
    let expected = json!([
        {"number": 1, "time": 1_000, "what": "participant.joined", "cause": cause(0)},
        {"number": 2, "time": 1_001, "what": "participant.joined", "cause": cause(1), "participant_id": participant.to_string()},
    ]);
    assert_eq!(first.json["entries"], expected);
    let rest = backend.get(&format!("{path}?limit=3&after=2")).await;
    assert_eq!((rest.json["entries"].as_array().unwrap().len(), &rest.json["next"]), (3, &Value::Null));
    let end = backend.get(&format!("{path}?after=5")).await;
    assert_eq!(end.json, json!({"entries": [], "next": null}));
    for bad in ["limit=0", "limit=501", "after=-1", "after=x"] {
        backend.get(&format!("{path}?{bad}")).await.is_problem(400, "invalid_request");
    }
    // It names the commands of everyone, so no token reads it.
    let member = join(&backend, session).await;
    member.client.get(&path).await.is_problem(403, "forbidden");
    let other = backend.with(Auth::Basic(OTHER_KEY, OTHER_SECRET));
    other.get(&path).await.is_problem(404, "session_not_found");
    backend
        .get(&format!("/v1/sessions/{}/timeline", SessionId::new()))
        .await
        .is_problem(404, "session_not_found");
    drop(worker);
}
