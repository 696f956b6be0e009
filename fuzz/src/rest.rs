//! Every request of the API that has a body, and some that have none, against a real router over the embedded broker and
//! store.

use std::cell::RefCell;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::broker::embedded::EmbeddedBroker;
use common::fuzzing::{KEY, SECRET};
use common::message::Target;
use common::model::{
    CommandId, Endpoint, EndpointId, EndpointState, Grants, Participant, ParticipantId, ParticipantState,
    PipelineId, Session, SessionId, SessionState, TrackId, WorkerId,
};
use common::store::Store as _;
use common::store::embedded::EmbeddedStore;
use common::time::UnixMillis;
use common::token::{ApiKeys, Claims, VideoGrants};
use rest_api::{ApiConfig, ApiState};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// Method and path; `$S`, `$P` and `$T` are the session, the participant and a track.
const ROUTES: [(&str, &str); 19] = [
    ("POST", "/v1/sessions"),
    ("POST", "/v1/sessions/$S/links"),
    ("POST", "/v1/sessions/$S/participants"),
    ("POST", "/v1/sessions/$S/participants/$P/offer"),
    ("POST", "/v1/sessions/$S/participants/$P/answer"),
    ("POST", "/v1/sessions/$S/participants/$P/candidates"),
    ("PATCH", "/v1/sessions/$S/participants/$P/tracks/$T"),
    ("PATCH", "/v1/sessions/$S/participants/$P/subscriptions/$T"),
    ("POST", "/v1/sessions/$S/messages"),
    ("POST", "/v1/sessions/$S/participants/$P/rating"),
    ("POST", "/v1/demo/links"),
    ("GET", "/v1/sessions"),
    ("GET", "/v1/sessions/$S"),
    ("GET", "/v1/sessions/$S/timeline"),
    ("GET", "/v1/sessions/$S/ratings"),
    ("GET", "/v1/sessions/$S/participants"),
    ("GET", "/v1/workers"),
    ("PATCH", "/v1/sessions/$S"),
    ("POST", "/v1/sessions/$S/participants/$P/token"),
];
/// Requests to one system; then another takes its place, so that it does not only grow.
const REQUESTS: u32 = 500;

/// One request: a byte for the route and one for who asks; then, of a route with a body, the body, of another its query.
/// `$D` in a body is the destination of the participant's endpoint. Promises: no answer blames the server except that it
/// has no worker, and every refusal is a problem with a code.
pub fn rest(data: &[u8]) {
    let [route, caller, rest @ ..] = data else { return };
    thread_local! {
        static SYSTEM: RefCell<Option<System>> = const { RefCell::new(None) };
    }
    SYSTEM.with_borrow_mut(|system| {
        let current = system.get_or_insert_with(System::new);
        current.ask(ROUTES[usize::from(*route) % ROUTES.len()], *caller, rest);
        if current.asked >= REQUESTS {
            *system = None;
        }
    });
}

struct System {
    runtime: Runtime,
    router: axum::Router,
    session: SessionId,
    participant: ParticipantId,
    track: TrackId,
    destination: String,
    basic: String,
    bearer: String,
    asked: u32,
}

impl System {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let keys = ApiKeys::new([(KEY, SECRET)]).expect("one good key");
        let (session, participant) = (SessionId::new(), ParticipantId::new());
        let target = Target {
            session_id: session,
            participant_id: participant,
            endpoint_id: EndpointId::new(),
            pipeline_id: PipelineId::new(),
            worker_id: WorkerId::new(),
            epoch: 1,
        };
        let claims = Claims {
            sub: Some(participant),
            ..Claims::expiring_in(KEY, std::time::Duration::from_secs(3600), VideoGrants::join(session))
        };
        let config =
            ApiConfig { demo: true, operator_keys: vec![KEY.into()], ..ApiConfig::new(keys.clone()) };
        let router = runtime.block_on(async {
            let store = Arc::new(EmbeddedStore::new());
            store.insert_session(&stored_session(session)).await.expect("it is new");
            store.put_participant(session, 0, &stored_participant(&target)).await.expect("it is new");
            let broker = Arc::new(EmbeddedBroker::new());
            let state = ApiState::start(config, broker, store, CancellationToken::new()).await;
            rest_api::router(state.expect("the broker is there"))
        });
        Self {
            runtime,
            router,
            session,
            participant,
            track: TrackId::new(),
            destination: keys.seal(&target, KEY),
            basic: format!("Basic {}", STANDARD.encode(format!("{KEY}:{SECRET}"))),
            bearer: format!("Bearer {}", keys.mint(&claims).expect("its key is known")),
            asked: 0,
        }
    }

    fn ask(&mut self, (method, path): (&str, &str), caller: u8, rest: &[u8]) {
        self.asked += 1;
        let mut path = path
            .replace("$S", &self.session.to_string())
            .replace("$P", &self.participant.to_string())
            .replace("$T", &self.track.to_string());
        let body = if method == "GET" {
            path.push('?');
            path.extend(
                rest.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '+' }),
            );
            Body::empty()
        } else if let Ok(text) = std::str::from_utf8(rest) {
            Body::from(text.replace("$D", &self.destination))
        } else {
            Body::from(rest.to_vec())
        };
        let credentials = if caller & 1 == 0 { &self.basic } else { &self.bearer };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::AUTHORIZATION, credentials)
            .header(header::CONTENT_TYPE, "application/json")
            // Nobody does anything here: what is accepted is accepted.
            .header("prefer", "wait=0")
            .body(body);
        // A query that is no URI never gets this far.
        let Ok(request) = request else { return };
        let router = self.router.clone();
        self.runtime.block_on(async {
            let Ok(response) = router.oneshot(request).await;
            check(response).await;
        });
    }
}

async fn check(response: Response<Body>) {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return;
    }
    let kind = response.headers().get(header::CONTENT_TYPE).cloned();
    let body = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
    let text = String::from_utf8_lossy(&body);
    assert_eq!(
        kind.as_ref().map(|kind| kind.as_bytes()),
        Some(&b"application/problem+json"[..]),
        "{status}: {text}"
    );
    let problem: serde_json::Value = serde_json::from_slice(&body).expect("a problem is JSON");
    let code = problem["code"].as_str().expect("a problem has a code");
    assert!(status.is_client_error() || code == "unavailable", "{status}: {text}");
}

fn stored_session(id: SessionId) -> Session {
    Session {
        id,
        state: SessionState::Open,
        name: None,
        created_at: UnixMillis::now(),
        closed_at: None,
        key_id: KEY.into(),
        command_id: CommandId::new(),
        epoch: 0,
        pipelines: Vec::new(),
        participants: Vec::new(),
        previous_worker_id: None,
        done_commands: Vec::new(),
        settings: Default::default(),
        revocations: Vec::new(),
    }
}

fn stored_participant(target: &Target) -> Participant {
    Participant {
        id: target.participant_id,
        name: String::new(),
        state: ParticipantState::Joined,
        grants: Grants { can_publish: true, can_subscribe: true, admin: false, bitrates: Default::default() },
        joined_at: UnixMillis::now(),
        command_id: CommandId::new(),
        endpoint: Some(Endpoint {
            id: target.endpoint_id,
            pipeline_id: target.pipeline_id,
            worker_id: target.worker_id,
            state: EndpointState::New,
        }),
        tracks: Vec::new(),
        token_issued_at: None,
    }
}
