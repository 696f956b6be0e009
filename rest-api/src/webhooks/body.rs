//! A timeline entry as a receiver gets it.

use common::model::{CommandId, EventId, ParticipantId, SessionId, TimelineEntry, TrackNote};
use common::time::UnixMillis;
use serde::Serialize;
use utoipa::ToSchema;

/// The body of a webhook. Fields that do not apply are absent; new ones may come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookEvent {
    /// LiveKit's name where it has one for it, else ours as in the timeline.
    #[schema(example = "participant_joined")]
    pub event: String,
    /// The same when it comes again.
    pub id: EventId,
    /// 1, 2, 3 and so on in its session, without gaps.
    pub number: i64,
    /// In seconds since 1970.
    pub created_at: i64,
    pub time: UnixMillis,
    pub session: SessionRef,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub participant: Option<ParticipantRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub track: Option<TrackNote>,
    /// One word, such as `removed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The command that caused it (`Idempotency-Key`, `Command-Id`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_id: Option<CommandId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SessionRef {
    pub id: SessionId,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ParticipantRef {
    pub id: ParticipantId,
}

impl From<&TimelineEntry> for WebhookEvent {
    fn from(entry: &TimelineEntry) -> Self {
        Self {
            event: name(&entry.what, entry.cause.reason.as_deref()).to_owned(),
            id: entry.id,
            number: entry.number,
            created_at: entry.at.0 / 1_000,
            time: entry.at,
            session: SessionRef { id: entry.session_id },
            participant: entry.participant_id.map(|id| ParticipantRef { id }),
            track: entry.track.clone(),
            reason: entry.cause.reason.clone(),
            command_id: entry.cause.command_id,
        }
    }
}

/// Each `participant_joined` is followed by one `participant_left`, by `participant_connection_aborted` (who lost the
/// connection and did not come back), or by the session's `room_finished`.
fn name<'a>(what: &'a str, reason: Option<&str>) -> &'a str {
    match what {
        "session.created" => "room_started",
        "session.closed" => "room_finished",
        "participant.joined" => "participant_joined",
        "participant.left" if reason == Some("connection_lost") => "participant_connection_aborted",
        "participant.left" => "participant_left",
        "track.published" => "track_published",
        "track.unpublished" => "track_unpublished",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use common::model::{Cause, Owed};

    use super::*;

    #[test]
    fn entries_have_livekits_names_where_they_fit() {
        let told = |what: &str, reason: Option<&str>| {
            let entry = TimelineEntry {
                id: EventId::new(),
                session_id: SessionId::new(),
                number: 3,
                at: UnixMillis(1_700_000_000_999),
                what: what.to_owned(),
                cause: Cause { reason: reason.map(str::to_owned), ..Cause::default() },
                participant_id: None,
                track: None,
                webhooks: Owed { to: vec!["whr_1".into()], ..Owed::default() },
            };
            serde_json::to_value(WebhookEvent::from(&entry)).unwrap()
        };
        assert_eq!(told("session.created", None)["event"], "room_started");
        assert_eq!(told("participant.left", Some("removed"))["event"], "participant_left");
        let lost = told("participant.left", Some("connection_lost"));
        assert_eq!(lost["event"], "participant_connection_aborted");
        assert_eq!((lost["createdAt"].as_i64(), lost["number"].as_i64()), (Some(1_700_000_000), Some(3)));
        assert_eq!(lost["reason"], "connection_lost");
        assert_eq!(told("track.unpublished", None)["event"], "track_unpublished");
        let other = told("session.moving", None);
        assert_eq!(other["event"], "session.moving");
        assert!(other.get("participant").is_none() && !other.to_string().contains("whr_"), "{other}");
    }
}
