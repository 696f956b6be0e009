//! When a session that could not be told is tried again: later each time, by chance, at most five minutes.

use std::collections::HashMap;
use std::time::Duration;

use common::model::SessionId;
use tokio::time::Instant;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(5 * 60);
/// Sessions that are remembered; beyond it all begin anew, which only means sooner.
const MOST: usize = 65_536;

#[derive(Default)]
pub(super) struct Backoff(HashMap<SessionId, Failing>);

struct Failing {
    times: u32,
    again_at: Instant,
}

impl Backoff {
    /// A try failed. `chance` is a factor up to 1.
    pub fn failed(&mut self, session: SessionId, now: Instant, chance: f64) {
        if self.0.len() >= MOST {
            self.0.clear();
        }
        let failing = self.0.entry(session).or_insert(Failing { times: 0, again_at: now });
        failing.again_at = now + pause(failing.times).mul_f64(chance);
        failing.times = failing.times.saturating_add(1);
    }

    /// Something of it was told.
    pub fn succeeded(&mut self, session: SessionId) {
        self.0.remove(&session);
    }

    /// Whether it has to wait still.
    pub fn waits(&self, session: SessionId, now: Instant) -> bool {
        self.0.get(&session).is_some_and(|failing| failing.again_at > now)
    }

    pub fn is_failing(&self, session: SessionId) -> bool {
        self.0.contains_key(&session)
    }

    /// Forgets those that nothing is owed of any more.
    pub fn retain(&mut self, keep: impl Fn(SessionId) -> bool) {
        self.0.retain(|session, _| keep(*session));
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

fn pause(times: u32) -> Duration {
    FIRST.saturating_mul(2_u32.saturating_pow(times)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_minutes_and_end_with_a_success() {
        let (mut backoff, now, session) = (Backoff::default(), Instant::now(), SessionId::new());
        let mut waited = Vec::new();
        for _ in 0..11 {
            backoff.failed(session, now, 1.0);
            waited.push((backoff.0[&session].again_at - now).as_secs());
        }
        assert_eq!(waited, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert!(backoff.waits(session, now + Duration::from_secs(299)) && backoff.is_failing(session));
        assert!(!backoff.waits(session, now + LONGEST));
        assert!(!backoff.waits(SessionId::new(), now), "another session is not concerned");
        backoff.succeeded(session);
        assert!(!backoff.waits(session, now) && !backoff.is_failing(session));
    }

    #[test]
    fn the_memory_is_bounded() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        for _ in 0..MOST + 3 {
            backoff.failed(SessionId::new(), now, 1.0);
        }
        assert!(backoff.len() <= MOST);
    }
}
