//! The framing of messages on data channels, both ways.
//!
//! | channel message | is |
//! |---|---|
//! | text | a JSON object: the header's members and `data`, any JSON value |
//! | binary | two bytes, big-endian: the header's length; the header, a JSON object; the payload up to the end |
//!
//! Header to the server: `to` (participants by id; absent: everyone else), `topic`, `id`, `events`. Header from the server:
//! `from` (put in here, whatever the client wrote), `topic`, `id`, `direct`. What is not known is ignored.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use common::message::EventBody;
use common::model::ParticipantId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Message;
use crate::media::transport::sctp::{Kind, MAX_MESSAGE};

/// Participants that one message can name.
pub const MAX_TO: usize = 256;
/// The longest topic, in bytes.
pub const MAX_TOPIC: usize = 128;
/// The longest id that a client gives a message, in bytes.
pub const MAX_ID: usize = 64;
/// The longest header of a binary message, in bytes.
const MAX_HEADER: usize = 16 * 1024;
/// What of a message an event carries at most, in bytes of its JSON.
pub const MAX_EVENT_DATA: usize = 16 * 1024;

/// What a client says about its message.
#[derive(Debug, Default, PartialEq, Deserialize)]
struct Incoming {
    #[serde(default)]
    to: Option<Vec<ParticipantId>>,
    #[serde(default)]
    topic: Option<String>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    events: bool,
    /// In text messages.
    #[serde(default)]
    data: Value,
}

/// What the receivers are told.
#[derive(Serialize)]
struct Outgoing<'a> {
    from: ParticipantId,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    /// The message names its receivers.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    direct: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Value>,
}

/// Why a message goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    Malformed,
    TooLarge,
}

/// Reads a participant's message and makes of it what the others get.
///
/// # Errors
/// See [`Refused`].
pub fn read(from: ParticipantId, is_lossy: bool, kind: Kind, bytes: &Bytes) -> Result<Message, Refused> {
    let (header, payload) = match kind {
        Kind::Text => (object(bytes)?, None),
        Kind::Binary => {
            let (length, rest) = bytes.split_first_chunk().ok_or(Refused::Malformed)?;
            let length = usize::from(u16::from_be_bytes(*length));
            if length > MAX_HEADER {
                return Err(Refused::TooLarge);
            }
            let (header, payload) = rest.split_at_checked(length).ok_or(Refused::Malformed)?;
            (object(header)?, Some(payload))
        }
        Kind::Control => return Err(Refused::Malformed),
    };
    let is_named = |to: &Vec<ParticipantId>| (1..=MAX_TO).contains(&to.len());
    let fits = |text: &Option<String>, most: usize| text.as_ref().is_none_or(|text| text.len() <= most);
    if !header.to.as_ref().is_none_or(is_named)
        || !fits(&header.topic, MAX_TOPIC)
        || !fits(&header.id, MAX_ID)
    {
        return Err(Refused::Malformed);
    }
    let frame = write(from, &header, payload)?;
    // What is worth nothing when it is late is nothing for an event.
    let wants_event = header.events && !is_lossy;
    let (event, is_event_refused) = match event(from, wants_event, &header, payload) {
        Ok(event) => (event, false),
        Err(Refused::TooLarge | Refused::Malformed) => (None, true),
    };
    Ok(Message { from, to: header.to, is_lossy, kind, frame, event, is_event_refused })
}

/// serde would also fill a header from an array, in the order of its members.
fn object(bytes: &[u8]) -> Result<Incoming, Refused> {
    let starts = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if starts != Some(&b'{') {
        return Err(Refused::Malformed);
    }
    serde_json::from_slice(bytes).map_err(|_| Refused::Malformed)
}

fn write(from: ParticipantId, header: &Incoming, payload: Option<&[u8]>) -> Result<Bytes, Refused> {
    let outgoing = Outgoing {
        from,
        topic: header.topic.as_deref(),
        id: header.id.as_deref(),
        direct: header.to.is_some(),
        data: payload.is_none().then_some(&header.data),
    };
    let json = serde_json::to_vec(&outgoing).expect("text keys only");
    let frame = match payload {
        None => json,
        Some(payload) => {
            let length = u16::try_from(json.len()).map_err(|_| Refused::TooLarge)?;
            [&length.to_be_bytes(), json.as_slice(), payload].concat()
        }
    };
    if frame.len() <= MAX_MESSAGE { Ok(frame.into()) } else { Err(Refused::TooLarge) }
}

/// What is told to those who have no channel, when the sender asks for it.
fn event(
    from: ParticipantId,
    is_wanted: bool,
    header: &Incoming,
    payload: Option<&[u8]>,
) -> Result<Option<EventBody>, Refused> {
    if !is_wanted {
        return Ok(None);
    }
    let data = match payload {
        None => header.data.clone(),
        Some(payload) => Value::String(STANDARD.encode(payload)),
    };
    if serde_json::to_vec(&data).map_or(true, |json| json.len() > MAX_EVENT_DATA) {
        return Err(Refused::TooLarge);
    }
    Ok(Some(EventBody::Message {
        from: Some(from),
        topic: header.topic.clone(),
        id: header.id.clone(),
        direct: header.to.is_some(),
        binary: payload.is_some(),
        data,
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn text(from: ParticipantId, json: &Value) -> Result<Message, Refused> {
        read(from, false, Kind::Text, &Bytes::from(json.to_string()))
    }

    fn binary(header: &str, payload: &[u8]) -> Bytes {
        [&(header.len() as u16).to_be_bytes(), header.as_bytes(), payload].concat().into()
    }

    fn parsed(frame: &[u8]) -> Value {
        serde_json::from_slice(frame).unwrap()
    }

    #[test]
    fn the_server_says_who_sent_it() {
        let (ada, bob) = (ParticipantId::new(), ParticipantId::new());
        let message = text(ada, &json!({"from": bob, "data": {"x": [1, "two"]}, "more": 1})).unwrap();
        assert_eq!(parsed(&message.frame), json!({"from": ada, "data": {"x": [1, "two"]}}));
        assert_eq!((message.to, message.event), (None, None));
    }

    #[test]
    fn a_message_names_its_receivers_its_topic_and_itself() {
        let (ada, bob) = (ParticipantId::new(), ParticipantId::new());
        let sent = json!({"to": [bob], "topic": "chat", "id": "7", "events": true, "data": "hi"});
        let message = text(ada, &sent).unwrap();
        let told = json!({"from": ada, "topic": "chat", "id": "7", "direct": true, "data": "hi"});
        assert_eq!(parsed(&message.frame), told);
        assert_eq!(message.to, Some(vec![bob]));
        let event = serde_json::to_value(message.event.unwrap()).unwrap();
        assert_eq!(event, json!({"type": "message", "data": told}));
    }

    #[test]
    fn bytes_travel_behind_their_header() {
        let ada = ParticipantId::new();
        let sent = binary(r#"{"topic":"cursor","events":true}"#, &[0, 255, 1]);
        assert_eq!(read(ada, true, Kind::Binary, &sent).unwrap().event, None, "not of a lossy one");
        let message = read(ada, false, Kind::Binary, &sent).unwrap();
        let length = usize::from(u16::from_be_bytes([message.frame[0], message.frame[1]]));
        assert_eq!(parsed(&message.frame[2..2 + length]), json!({"from": ada, "topic": "cursor"}));
        assert_eq!(message.frame[2 + length..], [0, 255, 1]);
        let event = serde_json::to_value(message.event.unwrap()).unwrap();
        assert_eq!(event["data"], json!({"from": ada, "topic": "cursor", "binary": true, "data": "AP8B"}));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let ada = ParticipantId::new();
        for sent in [
            json!([null, "chat"]),
            json!("hello"),
            json!({"to": [], "data": 1}),
            json!({"to": ["ada"], "data": 1}),
            json!({"to": vec![ada; MAX_TO + 1], "data": 1}),
            json!({"topic": "x".repeat(MAX_TOPIC + 1), "data": 1}),
            json!({"id": "x".repeat(MAX_ID + 1), "data": 1}),
        ] {
            assert_eq!(text(ada, &sent).unwrap_err(), Refused::Malformed, "{sent}");
        }
        for bytes in [&b""[..], b"\0", b"\0\x05{}", b"\0\x02[]"] {
            let bytes = Bytes::copy_from_slice(bytes);
            assert_eq!(read(ada, false, Kind::Binary, &bytes).unwrap_err(), Refused::Malformed);
        }
        let large = json!({"data": "x".repeat(MAX_MESSAGE - 20)});
        assert_eq!(text(ada, &large).unwrap_err(), Refused::TooLarge);
    }

    #[test]
    fn an_event_carries_less_than_a_channel() {
        let ada = ParticipantId::new();
        let message = text(ada, &json!({"events": true, "data": "x".repeat(MAX_EVENT_DATA)})).unwrap();
        assert!(message.event.is_none() && message.is_event_refused);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), is_text: bool) {
            let kind = if is_text { Kind::Text } else { Kind::Binary };
            let _ = read(ParticipantId::new(), false, kind, &bytes.into());
        }

        #[test]
        fn no_mutation_of_a_good_message_panics(at in 0usize..90, with in proptest::collection::vec(any::<u8>(), 0..6)) {
            let good = binary(r#"{"to":["par_x"],"topic":"cursor","id":"1","events":true}"#, &[1; 20]);
            let at = at.min(good.len());
            let bytes = [&good[..at], &with, &good[at..]].concat();
            let _ = read(ParticipantId::new(), false, Kind::Binary, &bytes.into());
        }
    }
}
