//! How far a connection has come, and how long each step took: for the metrics.

use std::time::{Duration, Instant};

/// What is timed, once for each endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// From the first complete exchange of descriptions to the first path.
    Ice,
    /// From there to a finished DTLS handshake.
    Dtls,
    /// From opening the endpoint to the first media from its client.
    FirstIn,
    /// … and to the first that is sent to it.
    FirstOut,
}

/// What an endpoint came to that was never connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unconnected {
    /// No check of its client's came through.
    Ice,
    /// A path was there, and no handshake.
    Dtls,
    /// It was closed before that could be known.
    Abandoned,
}

/// See the module.
pub struct Steps {
    opened: Instant,
    described: Option<Instant>,
    path: Option<Instant>,
    is_connected: bool,
    has_failed: bool,
    has_received: bool,
    has_sent: bool,
}

impl Steps {
    pub fn new(now: Instant) -> Self {
        Self {
            opened: now,
            described: None,
            path: None,
            is_connected: false,
            has_failed: false,
            has_received: false,
            has_sent: false,
        }
    }

    /// Both descriptions are known.
    pub fn describe(&mut self, now: Instant) -> Option<(Step, Duration)> {
        self.described.get_or_insert(now);
        // A client may check before its answer is here.
        self.path.map(|_| (Step::Ice, Duration::ZERO))
    }

    /// There is a path.
    pub fn find_path(&mut self, now: Instant) -> Option<(Step, Duration)> {
        if self.path.is_some() {
            return None;
        }
        self.path = Some(now);
        self.described.map(|since| (Step::Ice, now.saturating_duration_since(since)))
    }

    /// The handshake is done.
    pub fn connect(&mut self, now: Instant) -> Option<(Step, Duration)> {
        if std::mem::replace(&mut self.is_connected, true) {
            return None;
        }
        let since = self.path.max(self.described).unwrap_or(now);
        Some((Step::Dtls, now.saturating_duration_since(since)))
    }

    /// It was given up.
    pub fn fail(&mut self) {
        self.has_failed = true;
    }

    /// Media came from the client.
    pub fn receive(&mut self, now: Instant) -> Option<(Step, Duration)> {
        let is_first = !std::mem::replace(&mut self.has_received, true);
        is_first.then(|| (Step::FirstIn, now.saturating_duration_since(self.opened)))
    }

    /// Media was sent to the client.
    pub fn send(&mut self, now: Instant) -> Option<(Step, Duration)> {
        let is_first = !std::mem::replace(&mut self.has_sent, true);
        is_first.then(|| (Step::FirstOut, now.saturating_duration_since(self.opened)))
    }

    /// At its end; `None` when it was connected.
    pub fn unconnected(&self) -> Option<Unconnected> {
        match (self.is_connected, self.has_failed, self.path) {
            (true, _, _) => None,
            (false, false, _) => Some(Unconnected::Abandoned),
            (false, true, None) => Some(Unconnected::Ice),
            (false, true, Some(_)) => Some(Unconnected::Dtls),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_timed_once_from_the_one_before() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let ms = Duration::from_millis;
        let mut steps = Steps::new(start);
        assert_eq!(steps.describe(at(10)), None);
        assert_eq!(steps.find_path(at(30)), Some((Step::Ice, ms(20))));
        assert_eq!(steps.find_path(at(31)), None, "another path");
        assert_eq!(steps.connect(at(80)), Some((Step::Dtls, ms(50))));
        assert_eq!(steps.receive(at(90)), Some((Step::FirstIn, ms(90))));
        assert_eq!(steps.receive(at(91)), None);
        assert_eq!(steps.send(at(95)), Some((Step::FirstOut, ms(95))));
        assert_eq!(steps.unconnected(), None);
    }

    #[test]
    fn a_path_may_be_there_before_the_answer() {
        let start = Instant::now();
        let mut steps = Steps::new(start);
        assert_eq!(steps.find_path(start), None);
        let later = start + Duration::from_millis(10);
        assert_eq!(steps.describe(later), Some((Step::Ice, Duration::ZERO)));
        assert_eq!(steps.connect(later), Some((Step::Dtls, Duration::ZERO)));
    }

    #[test]
    fn what_never_connected_says_where_it_ended() {
        let start = Instant::now();
        let mut steps = Steps::new(start);
        assert_eq!(steps.unconnected(), Some(Unconnected::Abandoned));
        steps.fail();
        assert_eq!(steps.unconnected(), Some(Unconnected::Ice));
        steps.find_path(start);
        assert_eq!(steps.unconnected(), Some(Unconnected::Dtls));
    }
}
