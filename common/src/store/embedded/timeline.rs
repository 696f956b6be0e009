//! The embedded store's timelines: bounded in time, in all, and per session, so that one busy session cannot push out
//! the others'. At a bound the oldest entry goes.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use crate::model::{EventId, SessionId, TimelineEntry};
use crate::store::{TIMELINE_KEPT, TIMELINE_LIMIT};
use crate::time::UnixMillis;

/// Entries kept over all sessions; at about 250 bytes each some 16 MB.
const ENTRIES_KEPT: usize = 65_536;

#[derive(Default)]
pub(super) struct Timeline {
    sessions: HashMap<SessionId, VecDeque<Kept>>,
    /// Every append in order; one whose entry a session's own bound already took is skipped.
    order: VecDeque<(SessionId, u64)>,
    appended: u64,
}

struct Kept {
    number: u64,
    appended_at: Instant,
    entry: TimelineEntry,
}

impl Timeline {
    /// Appends the entry under the number that follows its session's last one, unless it is there already.
    pub(super) fn append(&mut self, mut entry: TimelineEntry, now: Instant) {
        self.expire(now);
        let session_id = entry.session_id;
        let kept = self.sessions.entry(session_id).or_default();
        if kept.iter().any(|kept| kept.entry.id == entry.id) {
            return;
        }
        entry.number = kept.back().map_or(1, |last| last.entry.number + 1);
        self.appended += 1;
        let number = self.appended;
        if kept.len() == TIMELINE_LIMIT {
            kept.pop_front();
        }
        kept.push_back(Kept { number, appended_at: now, entry });
        self.order.push_back((session_id, number));
        if self.order.len() > ENTRIES_KEPT {
            self.remove_oldest();
        }
    }

    /// The session's entries with numbers above `after`, in order.
    pub(super) fn of(
        &mut self,
        session: SessionId,
        after: i64,
        limit: usize,
        now: Instant,
    ) -> Vec<TimelineEntry> {
        self.expire(now);
        let kept = self.sessions.get(&session).into_iter().flatten();
        let wanted = kept.map(|kept| &kept.entry).filter(|entry| entry.number > after);
        wanted.take(limit.min(TIMELINE_LIMIT)).cloned().collect()
    }

    /// See [`crate::store::Store::sessions_owed`].
    pub(super) fn sessions_owed(
        &mut self,
        to: &str,
        after: Option<SessionId>,
        limit: usize,
        now: Instant,
    ) -> Vec<SessionId> {
        self.expire(now);
        let owing = |(session, kept): (&SessionId, &VecDeque<Kept>)| {
            let wanted = after.is_none_or(|after| *session > after);
            (wanted && kept.iter().any(|kept| owes(&kept.entry, to))).then_some(*session)
        };
        let mut found: Vec<SessionId> = self.sessions.iter().filter_map(owing).collect();
        found.sort_unstable();
        found.truncate(limit);
        found
    }

    /// See [`crate::store::Store::owed`].
    pub(super) fn owed(&self, to: &str, session: SessionId, limit: usize) -> Vec<TimelineEntry> {
        let kept = self.sessions.get(&session).into_iter().flatten();
        kept.map(|kept| &kept.entry).filter(|entry| owes(entry, to)).take(limit).cloned().collect()
    }

    /// See [`crate::store::Store::settle_owed`].
    pub(super) fn settle_owed(&mut self, to: &str, id: EventId, given_up: bool) -> bool {
        let Some(entry) = self.entry(id).filter(|entry| owes(entry, to)) else { return false };
        entry.webhooks.to.retain(|receiver| receiver != to);
        if given_up {
            entry.webhooks.given_up.push(to.to_owned());
        }
        true
    }

    /// See [`crate::store::Store::given_up`].
    pub(super) fn given_up(&self, to: &[String], after: Option<EventId>, limit: usize) -> Vec<TimelineEntry> {
        let entries = self.sessions.values().flatten().map(|kept| &kept.entry);
        let wanted = entries.filter(|entry| {
            after.is_none_or(|after| entry.id > after)
                && entry.webhooks.given_up.iter().any(|receiver| to.contains(receiver))
        });
        let mut found: Vec<&TimelineEntry> = wanted.collect();
        found.sort_unstable_by_key(|entry| entry.id);
        found.into_iter().take(limit).cloned().collect()
    }

    /// See [`crate::store::Store::owe_again`].
    pub(super) fn owe_again(&mut self, to: &str, id: EventId, since: UnixMillis) -> bool {
        let Some(entry) = self.entry(id) else { return false };
        let Some(place) = entry.webhooks.given_up.iter().position(|receiver| receiver == to) else {
            return false;
        };
        entry.webhooks.given_up.remove(place);
        entry.webhooks.to.push(to.to_owned());
        entry.webhooks.since = Some(since);
        true
    }

    fn entry(&mut self, id: EventId) -> Option<&mut TimelineEntry> {
        self.sessions.values_mut().flatten().map(|kept| &mut kept.entry).find(|entry| entry.id == id)
    }

    fn expire(&mut self, now: Instant) {
        while let Some(&(session, number)) = self.order.front() {
            let front = self.sessions.get(&session).and_then(VecDeque::front);
            let live = front.is_some_and(|kept| {
                kept.number == number && now.saturating_duration_since(kept.appended_at) < TIMELINE_KEPT
            });
            if live {
                return;
            }
            self.remove_oldest();
        }
    }

    /// Removes the oldest append; its session's deque starts with it unless the session's own bound took it.
    fn remove_oldest(&mut self) {
        let Some((session, number)) = self.order.pop_front() else { return };
        let Some(kept) = self.sessions.get_mut(&session) else { return };
        if kept.front().is_some_and(|kept| kept.number == number) {
            kept.pop_front();
        }
        if kept.is_empty() {
            self.sessions.remove(&session);
        }
    }
}

fn owes(entry: &TimelineEntry, to: &str) -> bool {
    entry.webhooks.to.iter().any(|receiver| receiver == to)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Cause, Owed};

    fn entry(session_id: SessionId, at: i64) -> TimelineEntry {
        TimelineEntry {
            id: EventId::new(),
            session_id,
            number: 0,
            at: UnixMillis(at),
            what: "participant.joined".into(),
            cause: Cause::default(),
            participant_id: None,
            track: None,
            webhooks: Owed::default(),
        }
    }

    fn all(timeline: &mut Timeline, session: SessionId, now: Instant) -> Vec<(i64, i64)> {
        let entries = timeline.of(session, 0, usize::MAX, now);
        entries.iter().map(|entry| (entry.number, entry.at.0)).collect()
    }

    #[test]
    fn entries_expire_and_leave_nothing_behind() {
        let mut timeline = Timeline::default();
        let (start, session) = (Instant::now(), SessionId::new());
        timeline.append(entry(session, 1), start);
        let just_before = start + TIMELINE_KEPT - Duration::from_millis(1);
        timeline.append(entry(session, 2), just_before);
        assert_eq!(all(&mut timeline, session, just_before).len(), 2);
        assert_eq!(all(&mut timeline, session, start + TIMELINE_KEPT), [(2, 2)], "with its number");
        assert_eq!(all(&mut timeline, session, just_before + TIMELINE_KEPT), []);
        assert!(timeline.sessions.is_empty() && timeline.order.is_empty());
    }

    #[test]
    fn a_busy_session_loses_its_own_oldest_entries_only() {
        let mut timeline = Timeline::default();
        let (now, busy, quiet) = (Instant::now(), SessionId::new(), SessionId::new());
        timeline.append(entry(quiet, 0), now);
        for at in 0..TIMELINE_LIMIT as i64 + 10 {
            timeline.append(entry(busy, at), now);
        }
        let entries = all(&mut timeline, busy, now);
        assert_eq!(entries.len(), TIMELINE_LIMIT);
        assert_eq!(entries[0], (11, 10));
        assert_eq!(all(&mut timeline, quiet, now).len(), 1);
    }

    #[test]
    fn the_whole_is_bounded() {
        let mut timeline = Timeline::default();
        let now = Instant::now();
        let sessions: Vec<SessionId> = (0..ENTRIES_KEPT + 5).map(|_| SessionId::new()).collect();
        for session in &sessions {
            timeline.append(entry(*session, 1), now);
        }
        assert_eq!(timeline.sessions.len(), ENTRIES_KEPT);
        assert_eq!(all(&mut timeline, sessions[4], now), []);
        assert_eq!(all(&mut timeline, sessions[5], now).len(), 1);
    }
}
