//! How often a publisher is asked for a keyframe.
//!
//! Keyframes are large: many subscribers that ask at once get one. A request inside the quiet time is
//! sent at its end, never lost. While a subscription waits for its first keyframe the request is repeated,
//! because it or the keyframe may be lost; ever more slowly, because the source may be silent.

use std::time::{Duration, Instant};

/// Requests for one publication are at least this far apart.
pub const MIN_INTERVAL: Duration = Duration::from_millis(300);
/// The first repetition while someone still waits.
pub const FIRST_RETRY: Duration = Duration::from_millis(600);
/// Repetitions slow down to this.
pub const MAX_RETRY: Duration = Duration::from_secs(5);

/// When to ask the publisher of one track.
#[derive(Debug, Clone, Default)]
pub struct KeyframeRequests {
    sent_at: Option<Instant>,
    due_at: Option<Instant>,
    retry: Option<Duration>,
}

impl KeyframeRequests {
    /// Wants a keyframe. Returns whether to ask right now; otherwise it becomes due.
    pub fn want(&mut self, now: Instant) -> bool {
        self.retry = None;
        match self.sent_at.map(|sent| sent + MIN_INTERVAL) {
            Some(allowed) if allowed > now => {
                self.due_at = Some(self.due_at.map_or(allowed, |due| due.min(allowed)));
                false
            }
            _ => {
                self.sent(now);
                true
            }
        }
    }

    /// A keyframe arrived: what was wanted before it is fulfilled.
    pub fn fulfilled(&mut self) {
        self.due_at = None;
        self.retry = None;
    }

    /// Whether to ask now because a request was held back, or because someone is `awaiting` still.
    pub fn handle_timeout(&mut self, now: Instant, awaiting: bool) -> bool {
        match self.due_at {
            Some(due) if due <= now => {
                if self.retry.is_some() && !awaiting {
                    self.fulfilled();
                    return false;
                }
                self.sent(now);
                true
            }
            _ => false,
        }
    }

    /// When [`KeyframeRequests::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due_at
    }

    fn sent(&mut self, now: Instant) {
        let retry = self.retry.map_or(FIRST_RETRY, |retry| (retry * 2).min(MAX_RETRY));
        self.sent_at = Some(now);
        self.retry = Some(retry);
        self.due_at = Some(now + retry);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[allow(clippy::disallowed_methods)]
    fn epoch() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_request_inside_the_quiet_time_is_sent_at_its_end() {
        let (mut requests, start) = (KeyframeRequests::default(), epoch());
        assert!(requests.want(start));
        assert!(!requests.want(start + Duration::from_millis(10)));
        assert_eq!(requests.poll_timeout(), Some(start + MIN_INTERVAL));
        assert!(!requests.handle_timeout(start + Duration::from_millis(299), false));
        assert!(requests.handle_timeout(start + MIN_INTERVAL, false), "held back, not lost");
    }

    #[test]
    fn repeats_ever_more_slowly_while_someone_waits_and_stops_when_nobody_does() {
        let (mut requests, start) = (KeyframeRequests::default(), epoch());
        requests.want(start);
        let mut gaps = Vec::new();
        let mut last = start;
        for _ in 0..6 {
            let due = requests.poll_timeout().unwrap();
            assert!(requests.handle_timeout(due, true));
            gaps.push((due - last).as_millis());
            last = due;
        }
        assert_eq!(gaps, [600, 1200, 2400, 4800, 5000, 5000]);
        let due = requests.poll_timeout().unwrap();
        assert!(!requests.handle_timeout(due, false));
        assert_eq!(requests.poll_timeout(), None);
    }

    #[test]
    fn a_keyframe_fulfils_what_was_wanted_before_it() {
        let (mut requests, start) = (KeyframeRequests::default(), epoch());
        requests.want(start);
        requests.want(start);
        requests.fulfilled();
        assert_eq!(requests.poll_timeout(), None);
    }

    proptest! {
        #[test]
        fn never_two_requests_within_the_quiet_time_and_every_wish_is_answered(
            steps in proptest::collection::vec((0u64..400, any::<bool>()), 1..100)
        ) {
            let (mut requests, mut now) = (KeyframeRequests::default(), epoch());
            let (mut last_sent, mut unanswered): (Option<Instant>, Option<Instant>) = (None, None);
            for (wait, want) in steps {
                now += Duration::from_millis(wait);
                let sent = if want {
                    unanswered.get_or_insert(now);
                    requests.want(now)
                } else {
                    requests.handle_timeout(now, false)
                };
                if sent {
                    prop_assert!(last_sent.is_none_or(|last| now - last >= MIN_INTERVAL));
                    last_sent = Some(now);
                    unanswered = None;
                }
                if let Some(since) = unanswered {
                    prop_assert!(requests.poll_timeout().is_some_and(|due| due <= since + MIN_INTERVAL));
                }
            }
        }
    }
}
