//! Long poll: answers as soon as there is an event; the next poll's cursor confirms.

use std::time::Duration;

use common::model::EventId;

use super::{Readers, Recipient, Refused};
use crate::error::{ApiError, ApiResult};
use crate::metrics::{self, Gauge};

/// What to poll for.
#[derive(Debug, Clone, Copy)]
pub struct Poll {
    pub recipient: Recipient,
    /// Confirms everything up to and including it.
    pub cursor: Option<EventId>,
    pub wait: Duration,
    /// Events at most.
    pub limit: usize,
}

/// The events of one poll, as JSON each.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub events: Vec<String>,
    /// For the next poll.
    pub cursor: Option<EventId>,
}

impl Page {
    /// `{"events": […], "cursor": …}`.
    pub fn into_json(self) -> String {
        let cursor = self.cursor.map_or_else(|| "null".to_owned(), |cursor| format!("\"{cursor}\""));
        format!("{{\"events\":[{}],\"cursor\":{cursor}}}", self.events.join(","))
    }
}

/// Waits for events. A superseded poll gives what it has: nothing.
///
/// # Errors
/// `endpoint_gone` without a user queue; `unavailable` when another reader does not let go of it.
///
/// # Cancel safety
/// Nothing is lost: what was read stays with the lease.
pub async fn poll(readers: &Readers, poll: Poll) -> ApiResult<Page> {
    let _gauge = Gauge::stream("poll");
    let nothing = Page { events: Vec::new(), cursor: poll.cursor };
    // In a place of its own, which is given back before the wait: what a waiting poll keeps is smaller by it.
    let mut reader = match Box::pin(readers.acquire(poll.recipient, poll.cursor)).await {
        Ok(reader) => reader,
        Err(Refused::Superseded | Refused::ShuttingDown) => return Ok(nothing),
        Err(Refused::Gone) => return Err(ApiError::endpoint_gone()),
        Err(Refused::Failed(error)) => return Err(error),
    };
    let cancelled = reader.cancelled();
    let Some(lease) = reader.lease() else { return Ok(nothing) };
    let filled = async {
        lease.fill_ready(poll.limit)?;
        if lease.ready() == 0 {
            let Ok(filled) = tokio::time::timeout(poll.wait, lease.fill()).await else { return Ok(()) };
            filled?;
            // What was sent together arrives together.
            lease.fill_ready(poll.limit)?;
        }
        Ok(())
    };
    let filled = tokio::select! {
        biased;
        filled = filled => filled,
        () = cancelled.cancelled() => return Ok(nothing),
    };
    if let Err(super::lease::Gone) = filled {
        reader.discard();
        return Err(ApiError::endpoint_gone());
    }
    let events: Vec<_> = lease.events().take(poll.limit).map(|held| (held.id, held.json())).collect();
    let cursor = events.last().map_or(poll.cursor, |(id, _)| Some(*id));
    metrics::delivered("poll", events.len());
    Ok(Page { events: events.into_iter().map(|(_, json)| json).collect(), cursor })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_json() {
        let empty: serde_json::Value = serde_json::from_str(&Page::default().into_json()).unwrap();
        assert_eq!(empty, serde_json::json!({"events": [], "cursor": null}));
        let id = EventId::new();
        let page = Page { events: vec!["{\"a\":1}".to_owned(), "{}".to_owned()], cursor: Some(id) };
        let page: serde_json::Value = serde_json::from_str(&page.into_json()).unwrap();
        assert_eq!(page, serde_json::json!({"events": [{"a": 1}, {}], "cursor": id}));
    }
}
