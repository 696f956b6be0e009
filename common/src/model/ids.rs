//! Typed ids: a prefix that says what it names, and a UUID (version 7 when we make it).
//!
//! A client may bring its own id wherever it creates something; any UUID is accepted behind the
//! right prefix, so an id can never smuggle a wildcard, a path or a space into a queue name.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} followed by a UUID")]
pub struct IdError {
    expected: &'static str,
}

macro_rules! id {
    ($(#[$meta:meta])* $name:ident, $prefix:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// The text in front of the UUID.
            pub const PREFIX: &'static str = $prefix;

            /// A new id that sorts after those this process made before it (UUID version 7).
            #[allow(clippy::new_without_default, reason = "a default id would be a surprise")]
            pub fn new() -> Self {
                Self(crate::ambient::uuid())
            }

            /// The id that nothing has.
            pub const fn nil() -> Self {
                Self(Uuid::nil())
            }

            /// The id for a UUID that came from elsewhere.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID without its prefix.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", $prefix, self.0.as_hyphenated())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            /// Accepts exactly the prefix and a hyphenated lower- or upper-case UUID.
            fn from_str(text: &str) -> Result<Self, IdError> {
                let refused = IdError { expected: $prefix };
                let rest = text.strip_prefix($prefix).ok_or(refused.clone())?;
                if rest.len() != 36 {
                    return Err(refused);
                }
                Uuid::try_parse(rest).map(Self).map_err(|_| refused)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .pattern(Some(concat!(
                        "^", $prefix,
                        "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
                    )))
                    .examples([concat!($prefix, "0192d3c4-7a5b-7c3e-8f21-0a1b2c3d4e5f")])
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {
            fn name() -> std::borrow::Cow<'static, str> {
                std::borrow::Cow::Borrowed(stringify!($name))
            }
        }
    };
}

id!(
    /// A session: the multi-party room.
    SessionId, "ses_"
);
id!(
    /// One member of one session.
    ParticipantId, "par_"
);
id!(
    /// One WebRTC connection of a participant.
    EndpointId, "end_"
);
id!(
    /// One published audio or video source.
    TrackId, "trk_"
);
id!(
    /// What one worker hosts for one session.
    PipelineId, "pip_"
);
id!(
    /// A media worker. Processes may have it one after the other, never two at a time.
    WorkerId, "wrk_"
);
id!(
    /// One process of a media worker, from its start to its end.
    RunId, "run_"
);
id!(
    /// One command; the same id sent twice takes effect once.
    CommandId, "cmd_"
);
id!(
    /// One event; clients drop repeats by it.
    EventId, "evt_"
);
id!(
    /// One API process; names its reply queue.
    InstanceId, "api_"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_through_text_and_json() {
        let id = SessionId::new();
        assert_eq!(id.to_string().parse::<SessionId>(), Ok(id));
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<SessionId>(&json).unwrap(), id);
    }

    #[test]
    fn refuses_another_prefix_and_anything_that_is_not_a_uuid() {
        let participant = ParticipantId::new().to_string();
        assert!(participant.parse::<SessionId>().is_err());
        for hostile in ["ses_", "ses_#", "ses_*.x", "ses_0192d3c47a5b7c3e8f210a1b2c3d4e5f", "ses_../../etc"] {
            assert!(hostile.parse::<SessionId>().is_err(), "{hostile}");
        }
    }

    #[test]
    fn later_ids_sort_later() {
        let first = EventId::new();
        let second = EventId::new();
        assert!(first < second);
    }
}
