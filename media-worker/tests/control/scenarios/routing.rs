//! Commands find the worker that hosts what they are about.

use std::collections::HashSet;

use common::broker::topology;
use common::message::{CommandBody, ErrorCode, LeaveReason, ReplyBody, Target};
use common::model::{EndpointId, ParticipantId, Pipeline, PipelineId, PipelineState, SessionId, WorkerId};
use common::store::Guarded;
use futures::future::join_all;

use crate::control::api::{join_body, joined};
use crate::control::{System, config};

pub async fn concurrent_first_joins_agree_on_one_pipeline(system: System) {
    let workers = [system.worker().await, system.worker().await, system.worker().await];
    let api = system.api().await;
    let session = api.create().await;
    // Straight to all workers' own queues, so that they really place at the same time.
    let joins = (0..18).map(|n| {
        let worker = workers[n % workers.len()].worker.id();
        api.tell(worker, join_body(session, ParticipantId::new(), None))
    });
    let replies = join_all(joins).await;
    let targets = replies.into_iter().map(|reply| joined(reply.expect("to join")).joined.target);
    let places: HashSet<_> =
        targets.map(|target| (target.pipeline_id, target.worker_id, target.epoch)).collect();
    assert_eq!(places.len(), 1, "{places:?}");
    let stored = system.store.session(session).await.unwrap().unwrap();
    assert_eq!((stored.epoch, stored.pipelines.len(), stored.participants.len()), (1, 1, 18));
    for worker in workers {
        worker.stop().await;
    }
}

pub async fn a_join_at_the_wrong_worker_is_handed_on(system: System) {
    let workers = [system.worker().await, system.worker().await];
    let api = system.api().await;
    let session = api.create().await;
    let home = api.join(session).await.joined.target.worker_id;
    for worker in &workers {
        let reply = api.tell(worker.worker.id(), join_body(session, ParticipantId::new(), None)).await;
        assert_eq!(joined(reply.unwrap()).joined.target.worker_id, home);
    }
    for worker in workers {
        assert_eq!(worker.endpoints().await, if worker.worker.id() == home { 3 } else { 0 });
        worker.stop().await;
    }
}

pub async fn leave_and_close_at_the_wrong_worker_are_handed_on(system: System) {
    let workers = [system.worker().await, system.worker().await];
    let api = system.api().await;
    let session_id = api.create().await;
    let joined = api.join(session_id).await.joined;
    let participant_id = joined.participant.id;
    let home = joined.target.worker_id;
    let mut events = api.events(session_id, participant_id).await;
    let wrong = workers.iter().find(|worker| worker.worker.id() != home).unwrap().worker.id();
    let right = workers.iter().find(|worker| worker.worker.id() == home).unwrap();
    let leave = CommandBody::Leave {
        session_id,
        participant_id,
        reason: LeaveReason::Left,
        endpoint_id: None,
        revoked_at: None,
    };
    assert_eq!(api.tell(wrong, leave).await, Ok(ReplyBody::Left));
    assert_eq!(right.endpoints().await, 0, "the host let go before it replied");
    assert_eq!(api.tell(wrong, CommandBody::CloseSession { session_id }).await, Ok(ReplyBody::SessionClosed));
    let seen = events.until_kind("session.closed").await;
    assert!(seen.iter().any(|event| event.kind() == "participant.left"), "{seen:?}");
    for worker in workers {
        worker.stop().await;
    }
}

pub async fn a_target_that_is_wrong_in_any_part_is_gone(system: System) {
    let (worker, api) = (system.worker().await, system.api().await);
    let session = api.create().await;
    let right = api.join(session).await.joined.target;
    let wrong = [
        Target { session_id: SessionId::new(), ..right },
        Target { participant_id: ParticipantId::new(), ..right },
        Target { endpoint_id: EndpointId::new(), ..right },
        Target { pipeline_id: PipelineId::new(), ..right },
        Target { worker_id: WorkerId::new(), ..right },
        Target { epoch: right.epoch - 1, ..right },
    ];
    for target in wrong {
        let command = CommandBody::Candidates { target, candidates: Vec::new() };
        let refused = api.tell(right.worker_id, command).await.expect_err("to be refused");
        assert_eq!(refused.code, ErrorCode::EndpointGone, "{target:?}");
    }
    let command = CommandBody::Candidates { target: right, candidates: Vec::new() };
    assert_eq!(api.tell(right.worker_id, command).await, Ok(ReplyBody::Accepted));
    worker.stop().await;
}

pub async fn a_full_worker_refuses_its_own_and_lets_others_place_elsewhere(system: System) {
    let mut small = config();
    small.media.max_endpoints = 1;
    let full = system.worker_with(small, system.store.clone()).await;
    let api = system.api().await;
    let crowded = api.create().await;
    api.join(crowded).await;
    let refused = |session| {
        let (api, id) = (&api, full.worker.id());
        async move {
            api.tell(id, join_body(session, ParticipantId::new(), None))
                .await
                .expect_err("to be refused")
                .code
        }
    };
    assert_eq!(refused(crowded).await, ErrorCode::Unavailable);
    let empty = api.create().await;
    assert_eq!(refused(empty).await, ErrorCode::Unavailable, "there is nobody else");
    let stored = system.store.session(empty).await.unwrap().unwrap();
    assert_eq!(stored.pipelines, [], "it waits for nobody in particular");

    let roomy = system.worker().await;
    // Placed at the full one before that was known of it: whoever comes first moves it.
    let pipeline =
        Pipeline { id: PipelineId::new(), worker_id: full.worker.id(), state: PipelineState::Ready };
    let placed = system.store.place_pipeline(empty, stored.epoch, &pipeline).await.unwrap();
    assert!(matches!(placed, Guarded::Applied(_)));
    assert_eq!(api.join(empty).await.joined.target.worker_id, roomy.worker.id());
    assert_eq!(refused(crowded).await, ErrorCode::Unavailable, "those who are there keep it where it is");
    assert_eq!((full.endpoints().await, roomy.endpoints().await), (1, 1));
    for worker in [full, roomy] {
        worker.stop().await;
    }
}

pub async fn workers_attach_through_the_change_stream_and_after_a_restart(system: System) {
    let (creator, watcher) = (system.worker().await, system.worker().await);
    let api = system.api().await;
    let session = api.create().await;
    creator.stop().await;
    // Whichever of the two had inserted it: the one that is left must have attached by the change stream.
    let id = watcher.worker.id();
    assert_eq!(api.join(session).await.joined.target.worker_id, id);
    watcher.stop().await;
    // Nobody reads the queue now; what is in it waits for the next worker, which finds the session by listing.
    let waiting = api.command(join_body(session, ParticipantId::new(), None));
    api.send(&topology::session_queue_name(session), &waiting).await;
    let restarted = system.worker().await;
    let reply = api.replies(waiting.command_id, 1).await.remove(0);
    assert_eq!(joined(reply.result.unwrap()).joined.target.worker_id, restarted.worker.id());
    restarted.stop().await;
}
