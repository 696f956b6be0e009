//! Settings of sessions and bit rates of participants: what is taken, refused, and handed on.

use common::message::CommandBody;
use common::model::{Bitrates, CodecName, CommandId, SessionSettings};
use common::token::VideoGrants;
use serde_json::{Value, json};

use crate::support::*;

const fn most(bitrate: u64) -> Bitrates {
    Bitrates { max_bps: Some(bitrate), ..Bitrates::UNSET }
}

#[tokio::test]
async fn settings_are_taken_at_creation_and_replaced_by_a_change() {
    let (_system, _api, worker, backend) = System::single().await;
    let settings = json!({
        "last_n": 9, "loudest_n": 3, "codecs": ["h264", "vp8", "opus"],
        "bitrates": {"start_bps": 500_000, "min_bps": 50_000, "max_bps": 2_000_000},
    });
    let created = backend.post("/v1/sessions", json!({"settings": settings})).await;
    assert_eq!(created.status, 201, "{created:?}");
    assert_eq!(created.json["session"]["settings"], settings);
    let path = format!("/v1/sessions/{}", created.json["session"]["id"].as_str().unwrap());
    assert_eq!(backend.get(&path).await.json["settings"], settings);

    let keyed = backend.header("idempotency-key", &CommandId::new().to_string());
    let changed = keyed.patch(&path, json!({"settings": {"last_n": 4, "codecs": ["vp9"]}})).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    let expected = json!({"last_n": 4, "loudest_n": null, "codecs": ["vp9"], "bitrates": {}});
    assert_eq!(changed.json["settings"], expected, "what is absent is not set any more");
    match worker.seen().pop().unwrap().body {
        CommandBody::ChangeSession { settings, .. } => {
            let codecs = vec![CodecName::Vp9];
            assert_eq!(settings, SessionSettings { last_n: Some(4), codecs, ..SessionSettings::default() });
        }
        other => panic!("{other:?}"),
    }
    // What the reply says can be sent back.
    let again = backend.patch(&path, json!({"settings": changed.json["settings"]})).await;
    assert_eq!(again.json["settings"], expected);
    let other = backend.patch(&path, json!({"settings": {"last_n": 1}})).await;
    let late = keyed.patch(&path, json!({"settings": {"last_n": 4, "codecs": ["vp9"]}})).await;
    assert_eq!(
        late.json["settings"], other.json["settings"],
        "the same command again does not undo what followed"
    );
}

#[tokio::test]
async fn settings_out_of_range_are_refused_and_only_the_backend_changes_them() {
    let (_system, _api, _worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let path = format!("/v1/sessions/{session}");
    for settings in [
        json!({"last_n": 1001}),
        json!({"last_n": -1}),
        json!({"loudest_n": 0}),
        json!({"loudest_n": 1001}),
        json!({"codecs": ["vp8", "vp8"]}),
        json!({"codecs": ["h265"]}),
        json!({"bitrates": {"max_bps": 29_999}}),
        json!({"bitrates": {"min_bps": 1_000_000_001}}),
        json!({"bitrates": {"min_bps": 300_000, "max_bps": 200_000}}),
        json!({"bitrates": {"start_bps": 300_000, "max_bps": 200_000}}),
        json!({"bitrates": {"most": 1}}),
        json!({"last": 1}),
        Value::Null,
    ] {
        backend.patch(&path, json!({"settings": settings})).await.is_problem(400, "invalid_request");
        if !settings.is_null() {
            let created = backend.post("/v1/sessions", json!({"settings": settings})).await;
            created.is_problem(400, "invalid_request");
        }
    }
    backend.patch(&path, json!({})).await.is_problem(400, "invalid_request");
    let admin = VideoGrants { room_admin: true, ..VideoGrants::join(session) };
    let admin = backend.with(Auth::Bearer(token(admin, None)));
    admin.patch(&path, json!({"settings": {}})).await.is_problem(403, "forbidden");
    let other = backend.with(Auth::Basic(OTHER_KEY, OTHER_SECRET));
    other.patch(&path, json!({"settings": {}})).await.is_problem(404, "session_not_found");
    assert_eq!(backend.delete(&path).await.status, 204);
    backend.patch(&path, json!({"settings": {}})).await.is_problem(410, "session_closed");
}

#[tokio::test]
async fn bit_rates_of_a_participant_come_from_its_token_or_the_backend_and_a_client_lowers_its_own() {
    let (_system, _api, worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let participants = format!("/v1/sessions/{session}/participants");
    let sent = || match worker.seen().pop().unwrap().body {
        CommandBody::Join { grants, bitrates, last_n, .. } => (grants.bitrates, bitrates, last_n),
        other => panic!("{other:?}"),
    };
    let link = format!("/v1/sessions/{session}/links");
    let link = backend.post(&link, json!({"bitrates": {"max_bps": 800_000}})).await;
    let guest = backend.with(Auth::Bearer(link.json["token"].as_str().unwrap().to_owned()));
    let joined = guest.post(&participants, json!({"bitrates": {"max_bps": 400_000}, "last_n": 2})).await;
    assert_eq!(joined.status, 201, "{joined:?}");
    assert_eq!(sent(), (most(800_000), most(400_000), Some(2)));
    // The participant's own token says the same of it.
    let member = member(&backend, session, &joined);
    assert_eq!(member.client.post(&participants, json!({})).await.status, 201);
    assert_eq!(sent(), (most(800_000), Bitrates::UNSET, None));
    let body = json!({"participant_id": member.id, "bitrates": {"max_bps": 90_000}});
    assert_eq!(backend.post(&participants, body).await.status, 201);
    assert_eq!(sent(), (most(90_000), Bitrates::UNSET, None), "the backend's word is a grant");

    let disorder = json!({"bitrates": {"min_bps": 90_000, "max_bps": 80_000}});
    guest.post(&participants, disorder.clone()).await.is_problem(400, "invalid_request");
    backend.post(&format!("/v1/sessions/{session}/links"), disorder).await.is_problem(400, "invalid_request");
    guest.post(&participants, json!({"last_n": 1001})).await.is_problem(400, "invalid_request");
    let grants = VideoGrants { bitrates: most(1), ..VideoGrants::join(session) };
    let signed = backend.with(Auth::Bearer(token(grants, None)));
    signed.post(&participants, json!({})).await.is_problem(400, "invalid_request");
}
