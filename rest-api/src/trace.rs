//! One trace id for a request and everything that follows from it (W3C Trace Context).
//!
//! It is taken from the request or made, stands in the span of the request, travels with the command to the worker, whose
//! span it is in as well, and goes back to the client: what belongs together is found in all logs by `trace_id`. Where
//! spans are recorded ([`common::spans`]), it is the id of the recorded trace.

use std::sync::Arc;

use common::spans::Span;
use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The `traceparent` of one request; an extension of every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace(Arc<str>);

impl Trace {
    /// The request's own `traceparent` when it is one (W3C Trace Context, section 3.2), else a new one.
    pub fn of(headers: &HeaderMap) -> Self {
        Self::given(headers).unwrap_or_else(Self::new)
    }

    /// The request's own.
    pub fn given(headers: &HeaderMap) -> Option<Self> {
        let given = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok());
        given.filter(|text| is_traceparent(text)).map(|text| Self(text.into()))
    }

    /// That of a recorded span.
    pub fn recorded(span: &Span) -> Option<Self> {
        span.traceparent().map(|text| Self(text.into()))
    }

    /// One that nobody records.
    pub fn new() -> Self {
        let span = Uuid::new_v4().simple().to_string();
        Self(format!("00-{}-{}-00", Uuid::new_v4().simple(), &span[..16]).into())
    }

    pub fn traceparent(&self) -> &str {
        &self.0
    }

    /// What is common to everything that belongs together.
    pub fn id(&self) -> &str {
        common::message::trace_id(&self.0)
    }

    /// For the response.
    pub fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }
}

fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let parts: Vec<_> = text.split('-').collect();
    match parts[..] {
        [version, trace, parent, flags] => {
            hex(version, 2)
                && version != "ff"
                && hex(trace, 32)
                && hex(parent, 16)
                && hex(flags, 2)
                && trace.bytes().any(|byte| byte != b'0')
                && parent.bytes().any(|byte| byte != b'0')
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_traceparent_is_carried_on() {
        let of = |text| Trace::of(&HeaderMap::from_iter([(TRACEPARENT, HeaderValue::from_static(text))]));
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(of(good).traceparent(), good);
        assert_eq!(of(good).id(), "0af7651916cd43dd8448eb211c80319c");
        for bad in ["", "00-xyz", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"] {
            let made = of(bad);
            assert!(made.traceparent() != bad && is_traceparent(made.traceparent()), "{made:?}");
            assert!(made.traceparent().ends_with("-00"), "nobody records it: {made:?}");
        }
        assert_ne!(Trace::of(&HeaderMap::new()).id(), Trace::of(&HeaderMap::new()).id());
    }
}
