//! The embedded store's change feed: the last changes in order, numbered, for watches to read at their own pace.
//!
//! A watch holds a position and no copy of anything, so a slow one costs nothing; when it falls behind what is kept, it
//! learns [`StoreErrorKind::HistoryLost`] and lists again. A token is the store's own random id and a sequence number, so
//! a token of another process (or of this one before it restarted) is recognised as lost history too.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;
use uuid::Uuid;

use super::Shared;
use crate::model::SessionId;
use crate::store::{
    ResumeToken, SessionChange, SessionChangeKind, SessionWatch, StoreError, StoreErrorKind, StoreResult,
};

/// Changes kept for watches that lag or resume. A change is under 100 bytes, an insert the size of a session that has
/// nobody in it yet, so this is a few MB at worst.
pub(super) const CHANGES_KEPT: usize = 16_384;

/// The kept changes; the newest has the sequence number `newest`, the first ever made 1.
pub(super) struct Feed {
    store: Uuid,
    kept: VecDeque<(SessionId, SessionChangeKind)>,
    newest: u64,
    limit: usize,
}

impl Feed {
    pub(super) fn new(limit: usize) -> Self {
        Self { store: Uuid::new_v4(), kept: VecDeque::new(), newest: 0, limit: limit.max(1) }
    }

    /// Adds a change and returns its sequence number.
    pub(super) fn push(&mut self, id: SessionId, kind: SessionChangeKind) -> u64 {
        if self.kept.len() == self.limit {
            self.kept.pop_front();
        }
        self.kept.push_back((id, kind));
        self.newest += 1;
        self.newest
    }

    /// The change that follows `position`, or `None` when there is none yet.
    fn after(&self, position: u64) -> StoreResult<Option<SessionChange>> {
        let oldest = self.newest - self.kept.len() as u64;
        let index = position
            .checked_sub(oldest)
            .ok_or_else(|| history_lost("the changes after this token are no longer kept"))?;
        let entry = usize::try_from(index).ok().and_then(|index| self.kept.get(index));
        Ok(entry.map(|(session_id, kind)| SessionChange {
            session_id: *session_id,
            kind: kind.clone(),
            token: self.token(position + 1),
        }))
    }

    fn token(&self, sequence: u64) -> ResumeToken {
        let mut bytes = self.store.as_bytes().to_vec();
        bytes.extend(sequence.to_be_bytes());
        ResumeToken(bytes)
    }

    /// The position that a token stands for; only tokens that this feed made count.
    fn position(&self, token: &ResumeToken) -> StoreResult<u64> {
        let foreign = || history_lost("the token was made by another store");
        let sequence = token.0.strip_prefix(self.store.as_bytes().as_slice()).ok_or_else(foreign)?;
        let position = u64::from_be_bytes(sequence.try_into().map_err(|_| foreign())?);
        if position > self.newest {
            return Err(foreign());
        }
        self.after(position).map(|_| position)
    }
}

fn history_lost(message: &str) -> StoreError {
    StoreError::new(StoreErrorKind::HistoryLost, message)
}

/// A position in the feed.
pub(super) struct EmbeddedWatch {
    shared: Arc<Shared>,
    newest: watch::Receiver<u64>,
    position: u64,
}

impl EmbeddedWatch {
    pub(super) fn open(shared: &Arc<Shared>, resume: Option<&ResumeToken>) -> StoreResult<Self> {
        let newest = shared.newest.subscribe();
        let state = shared.lock();
        let position = match resume {
            Some(token) => state.feed.position(token)?,
            None => state.feed.newest,
        };
        drop(state);
        Ok(Self { shared: Arc::clone(shared), newest, position })
    }
}

#[async_trait]
impl SessionWatch for EmbeddedWatch {
    async fn next(&mut self) -> StoreResult<SessionChange> {
        loop {
            let change = self.shared.lock().feed.after(self.position)?;
            if let Some(change) = change {
                self.position += 1;
                return Ok(change);
            }
            let position = self.position;
            // The sender lives in `shared`, which this watch holds: it cannot close. If it ever did, say so.
            if self.newest.wait_for(|newest| *newest > position).await.is_err() {
                return Err(StoreError::new(StoreErrorKind::Unavailable, "the store has ended"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_resumes_exactly_behind_its_change() {
        let mut feed = Feed::new(10);
        let ids: Vec<SessionId> = (0..3).map(|_| SessionId::new()).collect();
        for id in &ids {
            feed.push(*id, SessionChangeKind::Updated);
        }
        let first = feed.after(0).unwrap().unwrap();
        let position = feed.position(&first.token).unwrap();
        assert_eq!(feed.after(position).unwrap().unwrap().session_id, ids[1]);
        assert_eq!(feed.after(3).unwrap(), None, "nothing follows the newest");
    }

    #[test]
    fn what_is_no_longer_kept_is_lost_history() {
        let mut feed = Feed::new(2);
        let start = feed.token(0);
        let id = SessionId::new();
        feed.push(id, SessionChangeKind::Updated);
        feed.push(id, SessionChangeKind::Updated);
        assert_eq!(feed.position(&start).unwrap(), 0, "the bound itself is still kept");
        feed.push(id, SessionChangeKind::Updated);
        assert_eq!(feed.position(&start).unwrap_err().kind, StoreErrorKind::HistoryLost);
        assert_eq!(feed.kept.len(), 2);
    }

    #[test]
    fn tokens_of_others_and_garbage_are_lost_history() {
        let feed = Feed::new(2);
        let other = Feed::new(2);
        let ahead = feed.token(7);
        for token in [other.token(0), ahead, ResumeToken(Vec::new()), ResumeToken(vec![0xff; 300])] {
            assert_eq!(feed.position(&token).unwrap_err().kind, StoreErrorKind::HistoryLost, "{token:?}");
        }
    }
}
