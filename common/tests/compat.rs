//! What an earlier version wrote, today's reads: in a rolling update both are there at once.
//!
//! `tests/data/compat/*.json` holds one recording of every command, reply, refusal, event and document, as the version
//! wrote it that first had the kind. A recording is never changed: a new kind adds one. Nothing that was recorded may get
//! lost on the way through today's types; what these have more than it needs a default.

use std::collections::BTreeMap;
use std::path::Path;

use common::message::{Command, CommandBody, ErrorCode, Event, EventBody, Reply, ReplyBody, VERSION};
use common::model::{Rating, Session, TimelineEntry, Worker};
use common::store::SessionOutline;
use serde::de::DeserializeOwned;
use serde::{Deserialize as _, Serialize};
use serde_json::{Value, json};

type Recordings = BTreeMap<String, Value>;

fn recordings(name: &str) -> Recordings {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/data/compat/{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The kinds that a type knows, as its own reader lists them when it meets another: no list here can be out of date.
fn kinds<T: DeserializeOwned>(other: Value) -> Vec<String> {
    let error = serde_json::from_value::<T>(other).err().expect("no kind is called that").to_string();
    let (_, expected) = error.split_once("expected one of ").unwrap_or_else(|| panic!("{error}"));
    expected.split(", ").map(|name| name.trim_matches('`').to_owned()).collect()
}

/// Every kind has its recording, and no recording is of a kind that nobody reads any more.
fn covers(name: &str, recorded: &Recordings, mut kinds: Vec<String>) {
    kinds.sort();
    let recorded: Vec<&String> = recorded.keys().collect();
    assert_eq!(
        recorded,
        kinds.iter().collect::<Vec<_>>(),
        "tests/data/compat/{name}.json: one recording for each kind"
    );
}

/// Reads a recording, and nothing of it is lost or changed.
fn reads<T: DeserializeOwned + Serialize>(name: &str, kind: &str, recorded: &Value) -> T {
    let read: T =
        serde_json::from_value(recorded.clone()).unwrap_or_else(|error| panic!("{name} {kind}: {error}"));
    let written = serde_json::to_value(&read).expect("plain data");
    keeps(recorded, &written, &format!("{name} {kind}"));
    read
}

fn keeps(recorded: &Value, written: &Value, place: &str) {
    match (recorded, written) {
        (Value::Object(recorded), Value::Object(written)) => {
            for (key, value) in recorded {
                let now = written.get(key).unwrap_or_else(|| panic!("{place}.{key} is lost"));
                keeps(value, now, &format!("{place}.{key}"));
            }
        }
        (Value::Array(recorded), Value::Array(written)) => {
            assert_eq!(recorded.len(), written.len(), "{place}");
            for (index, (before, now)) in recorded.iter().zip(written).enumerate() {
                keeps(before, now, &format!("{place}[{index}]"));
            }
        }
        _ => assert_eq!(recorded, written, "{place}"),
    }
}

#[test]
fn every_command_of_earlier_versions_is_read() {
    let recorded = recordings("commands");
    covers("commands", &recorded, kinds::<CommandBody>(json!({"type": "?"})));
    for (kind, command) in &recorded {
        let read: Command = reads("commands", kind, command);
        assert!(read.version <= VERSION);
        assert_eq!(command["body"]["type"], **kind);
        assert!(CommandBody::knows(kind));
    }
    assert!(!CommandBody::knows("?"));
}

#[test]
fn every_reply_of_earlier_versions_is_read() {
    let recorded = recordings("replies");
    covers("replies", &recorded, kinds::<ReplyBody>(json!({"type": "?"})));
    for (kind, reply) in &recorded {
        let read: Reply = reads("replies", kind, reply);
        assert!(read.result.is_ok(), "{kind}");
    }
}

/// What an enum of plain words asks its reader for.
struct Words;

impl<'de> serde::Deserializer<'de> for Words {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: serde::de::Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(serde::de::Error::custom("no enum"))
    }

    fn deserialize_enum<V: serde::de::Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        Err(serde::de::Error::custom(variants.join(" ")))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[test]
fn every_refusal_of_earlier_versions_is_read_as_what_it_is() {
    let recorded = recordings("refusals");
    let words = ErrorCode::deserialize(Words).expect_err("it gives no value").to_string();
    // The last one stands for all that are not known.
    covers(
        "refusals",
        &recorded,
        words.split(' ').filter(|word| *word != "unknown").map(str::to_owned).collect(),
    );
    for (code, reply) in &recorded {
        let read: Reply = reads("refusals", code, reply);
        let refused = read.result.expect_err("a refusal");
        assert_eq!(json!(refused.code), **code);
    }
}

#[test]
fn every_event_of_earlier_versions_is_read() {
    let recorded = recordings("events");
    covers("events", &recorded, kinds::<EventBody>(json!({"type": "?", "data": {}})));
    for (kind, event) in &recorded {
        let read: Event = reads("events", kind, event);
        assert_eq!(read.body.kind(), kind);
    }
}

#[test]
fn every_document_of_earlier_versions_is_read() {
    let recorded = recordings("documents");
    for (kind, document) in &recorded {
        match kind.as_str() {
            "session" | "closed_session" => drop(reads::<Session>("documents", kind, document)),
            "session_outline" => drop(reads::<SessionOutline>("documents", kind, document)),
            "worker" => drop(reads::<Worker>("documents", kind, document)),
            "timeline_entry" => drop(reads::<TimelineEntry>("documents", kind, document)),
            "rating" => drop(reads::<Rating>("documents", kind, document)),
            other => panic!("documents: nobody reads {other}"),
        }
    }
    assert_eq!(recorded.len(), 6, "one for each document, and one for each of its shapes");
}

#[test]
fn what_a_later_version_adds_is_no_obstacle() {
    let mut command = recordings("commands")["join"].clone();
    command["priority"] = json!("high");
    command["body"]["spatial_audio"] = json!({"on": true});
    assert!(serde_json::from_value::<Command>(command).is_ok());
    let mut session = recordings("documents")["session"].clone();
    session["region"] = json!("north");
    session["participants"][0]["badge"] = json!([1, 2]);
    assert!(serde_json::from_value::<Session>(session).is_ok());
}
