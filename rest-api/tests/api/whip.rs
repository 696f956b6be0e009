//! WHIP and WHEP: what they ask of the worker, and what of their answer is the API's.

use std::time::Duration;

use common::broker::{Destination, Message};
use common::message::{CommandBody, ErrorCode, Fixed, IfMatch, LeaveReason};
use common::model::{ParticipantId, SessionId, TrackId};
use common::token::VideoGrants;
use common::turn::TurnSecret;
use reqwest::{Method, redirect};
use rest_api::{IceServer, Turn};

use crate::support::*;

const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

async fn post(client: &Client, path: &str) -> reqwest::Response {
    let request = client.request(Method::POST, path).header("content-type", SDP).body("v=0 offer");
    request.send().await.unwrap()
}

fn creator(client: &Client, session: SessionId) -> Client {
    let grants = VideoGrants { room_create: true, ..VideoGrants::join(session) };
    client.with(Auth::Bearer(token(grants, None)))
}

#[tokio::test]
async fn an_offer_joins_without_a_queue_and_names_the_ice_servers() {
    let system = System::new();
    let worker = system.worker().await;
    let relay: TurnSecret = "shared-with-the-relay".parse().unwrap();
    let api = system
        .api_with(|config| {
            config.public_url = Some("https://media.example/sub/".to_owned());
            let urls = vec!["stun:stun.example".to_owned(), "turn:turn.example".to_owned()];
            let (username, credential) = (Some("me".to_owned()), Some("secret".to_owned()));
            config.ice_servers = vec![IceServer { urls, username, credential }];
            let urls = vec!["turn:relay.example".to_owned()];
            config.turn = Some(Turn { urls, secret: relay.clone(), ttl: Duration::from_secs(600) });
        })
        .await;
    let backend = Client::new(&api.url, Auth::Basic(KEY, SECRET));
    let session = create_session(&backend).await;
    let client = backend.with(Auth::Bearer(token(VideoGrants::join(session), None)));
    let (participant, track) = (ParticipantId::new(), TrackId::new());
    for (path, fixed, publishes) in [
        (format!("/v1/whip/{session}"), Fixed::default(), true),
        (format!("/v1/whep/{session}"), Fixed::default(), false),
        (
            format!("/v1/whep/{session}?participant={participant}&track={track}"),
            Fixed { participant_id: Some(participant), track_id: Some(track) },
            false,
        ),
    ] {
        let response = post(&client, &path).await;
        assert_eq!(response.status(), 201);
        let location = response.headers()["location"].to_str().unwrap().to_owned();
        let part = path.split('?').next().unwrap();
        assert!(location.starts_with(&format!("https://media.example/sub{part}/")), "{location}");
        let links: Vec<_> =
            response.headers().get_all("link").iter().map(|it| it.to_str().unwrap()).collect();
        assert!(
            links.len() == 3 && links[0].starts_with("<stun:stun.example>; rel=\"ice-server\""),
            "{links:?}"
        );
        // The relay lets in who has this, for as long as configured.
        let quoted = |name: &str| {
            let (_, rest) = links[2].split_once(&format!("{name}=\"")).unwrap();
            rest.split('"').next().unwrap()
        };
        assert!(links[2].starts_with("<turn:relay.example>; rel=\"ice-server\""), "{links:?}");
        assert_eq!(quoted("credential"), relay.password(quoted("username")));
        assert!(response.headers().contains_key("etag"));
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(response.text().await.unwrap(), "answer to v=0 offer");
        let joined = worker.seen().into_iter().rev().find_map(|command| match command.body {
            CommandBody::Join { endpoint_id, participant_id, grants, fixed, .. } => {
                Some((endpoint_id, participant_id, grants, fixed))
            }
            _ => None,
        });
        let (endpoint, id, grants, asked) = joined.unwrap();
        assert_eq!((grants.can_publish, grants.can_subscribe, asked), (publishes, !publishes, Some(fixed)));
        let queue = common::broker::topology::user_queue_name(session, id, endpoint);
        let message = Message { body: Vec::new(), message_id: "1".to_owned(), ttl: None };
        let sent = system.broker.send(Destination::Queue(&queue), message).await;
        assert_eq!(sent.unwrap_err().kind, common::broker::BrokerErrorKind::Unroutable, "nobody reads it");
    }
}

#[tokio::test]
async fn a_session_is_created_when_the_token_allows_it() {
    let (_system, _api, _worker, backend) = System::single().await;
    let (session, other) = (SessionId::new(), SessionId::new());
    let joins = backend.with(Auth::Bearer(token(VideoGrants::join(session), None)));
    let path = format!("/v1/whip/{session}");
    assert_eq!(post(&joins, &path).await.status(), 404);
    let creates = creator(&backend, session);
    assert_eq!(post(&creates, &format!("/v1/whip/{other}")).await.status(), 403);
    assert_eq!(post(&creates, &path).await.status(), 201);
    // It is there now, for everybody.
    assert_eq!(post(&joins, &path).await.status(), 201);
    backend.get(&format!("/v1/sessions/{session}")).await.json["participants"].as_array().unwrap();
    let stranger = backend.with(Auth::Basic(OTHER_KEY, OTHER_SECRET));
    let refused = post(&stranger, &path).await;
    assert_eq!(refused.status(), 409, "another key's session");
}

#[tokio::test]
async fn a_resource_is_changed_and_ended_where_it_lives() {
    let (_system, _api, worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let client = backend.with(Auth::Bearer(token(VideoGrants::join(session), None)));
    let response = post(&client, &format!("/v1/whep/{session}")).await;
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    assert!(location.starts_with(&format!("/v1/whep/{session}/")), "{location}");
    let patch = async |if_match: &str| {
        let request = client.request(Method::PATCH, &location).header("content-type", FRAGMENT);
        request.header("if-match", if_match).body("").send().await.unwrap().status().as_u16()
    };
    assert_eq!(patch("\"abcd\"").await, 204);
    let asked = worker.seen().into_iter().rev().find_map(|command| match command.body {
        CommandBody::Ice { if_match, target, .. } => Some((if_match, target)),
        _ => None,
    });
    let (if_match, target) = asked.unwrap();
    assert_eq!((if_match, target.session_id), (IfMatch::Tags(vec!["abcd".to_owned()]), session));
    assert_eq!(patch("abcd").await, 400);
    assert_eq!(client.request(Method::DELETE, &location).send().await.unwrap().status(), 200);
    let left = worker.seen().into_iter().rev().find_map(|command| match command.body {
        CommandBody::Leave { endpoint_id, reason, .. } => Some((endpoint_id, reason)),
        _ => None,
    });
    assert_eq!(left, Some((Some(target.endpoint_id), LeaveReason::Left)), "this endpoint only");
}

#[tokio::test]
async fn while_nothing_takes_it_a_client_is_sent_elsewhere_or_told_to_wait() {
    for overflow in [None, Some("https://other.example".to_owned())] {
        let system = System::new();
        let worker = system.worker().await;
        let elsewhere = overflow.clone();
        let api = system.api_with(|config| config.overflow_url = elsewhere).await;
        let backend = Client::new(&api.url, Auth::Basic(KEY, SECRET));
        let session = create_session(&backend).await;
        worker.refuse(ErrorCode::Unavailable);
        let path = format!("/v1/whep/{session}?participant={}", ParticipantId::new());
        // Without following it.
        let http = reqwest::Client::builder().redirect(redirect::Policy::none()).no_proxy().build().unwrap();
        let request = http.post(format!("{}{path}", api.url)).header("content-type", SDP).body("v=0 offer");
        let response = request.basic_auth(KEY, Some(SECRET)).send().await.unwrap();
        match overflow {
            None => {
                assert_eq!(response.status(), 503);
                assert!(response.headers().contains_key("retry-after"));
            }
            Some(elsewhere) => {
                assert_eq!(response.status(), 307);
                assert_eq!(response.headers()["location"], format!("{elsewhere}{path}"));
            }
        }
    }
}
