//! The problem responses of each route, for the OpenAPI document.
//!
//! A route names the codes it may answer with; codes of one status become one response that lists them.

use std::collections::BTreeMap;

use utoipa::IntoResponses;
use utoipa::openapi::header::Header;
use utoipa::openapi::schema::Type;
use utoipa::openapi::{ContentBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder};

use crate::error::Code::{self, *};

/// Refusals that every route has which checks credentials.
const CHECKED: &[Code] =
    &[InvalidRequest, Unauthorized, TokenRevoked, Forbidden, TooManyRequests, Internal, Unavailable];
/// Refusals of bodies.
const BODY: &[Code] = &[BodyTooLarge, UnsupportedMediaType];
/// Refusals of commands on their way.
const COMMAND: &[Code] = &[TooManyRequests, Expired];

macro_rules! problems {
    ($($(#[$meta:meta])* $name:ident: $groups:expr;)*) => {
        $(
            $(#[$meta])*
            pub struct $name;

            impl IntoResponses for $name {
                fn responses() -> BTreeMap<String, RefOr<Response>> {
                    let groups: &[&[Code]] = $groups;
                    responses(groups.iter().flat_map(|group| group.iter().copied()))
                }
            }
        )*
    };
}

problems! {
    CreateSessionProblems: &[CHECKED, BODY, COMMAND, &[SessionConflict, SessionClosed, LimitExceeded]];
    ListProblems: &[CHECKED];
    SessionProblems: &[CHECKED, &[SessionNotFound]];
    ChangeSessionProblems: &[CHECKED, BODY, COMMAND, &[SessionNotFound, SessionClosed]];
    CloseProblems: &[CHECKED, COMMAND, &[SessionNotFound]];
    LinkProblems: &[CHECKED, BODY, &[SessionNotFound, SessionClosed, LimitExceeded]];
    JoinProblems: &[CHECKED, BODY, COMMAND, &[SessionNotFound, SessionClosed, ParticipantConflict,
        EndpointConflict, EndpointGone, InvalidSdp, LimitExceeded]];
    ParticipantsProblems: &[CHECKED, &[SessionNotFound, SessionClosed]];
    ParticipantProblems: &[CHECKED, &[SessionNotFound, ParticipantNotFound]];
    LeaveProblems: &[CHECKED, COMMAND, &[SessionNotFound, ParticipantNotFound, SessionClosed]];
    OfferProblems: &[CHECKED, BODY, COMMAND, ENDPOINT, &[InvalidSdp, OfferCollision, LimitExceeded]];
    AnswerProblems: &[CHECKED, BODY, COMMAND, ENDPOINT, &[InvalidSdp, NoOfferPending, LimitExceeded]];
    CandidatesProblems: &[CHECKED, BODY, COMMAND, ENDPOINT, &[InvalidCandidate, LimitExceeded]];
    TrackProblems: &[CHECKED, BODY, COMMAND, ENDPOINT, &[TrackNotFound]];
    TokenProblems: &[CHECKED, BODY, &[SessionNotFound, ParticipantNotFound, SessionClosed]];
    MessageProblems: &[CHECKED, BODY, &[TooManyRequests, SessionNotFound, ParticipantNotFound, SessionClosed,
        LimitExceeded]];
    StatsProblems: &[CHECKED, COMMAND, ENDPOINT];
    RatingProblems: &[CHECKED, BODY, COMMAND, &[SessionNotFound, LimitExceeded, EndpointGone]];
    EventsProblems: &[CHECKED, ENDPOINT];
    DemoProblems: &[BODY, COMMAND, &[InvalidRequest, Forbidden, NotFound, Internal, Unavailable, SessionConflict,
        LimitExceeded]];
    OneOfferProblems: &[CHECKED, BODY, COMMAND, &[SessionNotFound, SessionClosed, SessionConflict,
        ParticipantConflict, EndpointConflict, EndpointGone, InvalidSdp, LimitExceeded]];
    IceProblems: &[CHECKED, BODY, COMMAND, &[NotFound, EndpointGone, PreconditionFailed, PreconditionRequired,
        InvalidFragment, LimitExceeded]];
    EndProblems: &[CHECKED, COMMAND, &[NotFound, SessionNotFound, EndpointGone]];
    SearchProblems: &[CHECKED, &[LimitExceeded]];
    OperatorTokenProblems: &[CHECKED, BODY];
    DrainProblems: &[CHECKED, COMMAND, &[WorkerNotFound, CannotDrain]];
    RedeliverProblems: &[CHECKED, BODY];
    MetricsProblems: &[&[NotFound]];
}

/// Refusals of commands to one endpoint.
const ENDPOINT: &[Code] = &[SessionNotFound, ParticipantNotFound, SessionClosed, EndpointGone];

fn responses(codes: impl Iterator<Item = Code>) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes {
        let listed = by_status.entry(code.status().as_u16()).or_default();
        if !listed.contains(&code) {
            listed.push(code);
        }
    }
    by_status.into_iter().map(|(status, codes)| (status.to_string(), response(&codes).into())).collect()
}

fn response(codes: &[Code]) -> Response {
    let names: Vec<_> = codes.iter().map(|code| format!("`{}`", code.as_str())).collect();
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let mut response =
        ResponseBuilder::new().description(names.join(", ")).content("application/problem+json", content);
    if codes.iter().any(|code| matches!(code, Unavailable | TooManyRequests)) {
        let mut header = Header::new(ObjectBuilder::new().schema_type(Type::Integer));
        header.description = Some("Seconds after which trying again makes sense".to_owned());
        response = response.header("Retry-After", header);
    }
    response.build()
}
