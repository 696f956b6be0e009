//! Settings of one worker.

use std::time::Duration;

use common::broker::topology::USER_QUEUE_EXPIRES;
use common::model::WorkerId;

use crate::media::MediaConfig;
use crate::relay::RelayConfig;

/// Everything a worker needs to know; the defaults run on a laptop.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Who this worker is; `None`: somebody new. With an id that stays the same over restarts, sessions come back to it.
    /// No two processes may run with one id at a time.
    pub worker_id: Option<WorkerId>,
    /// The media socket, its announced addresses and the times of a connection's life.
    pub media: MediaConfig,
    /// A TURN server to that socket; `None`: none.
    pub relay: Option<RelayConfig>,
    /// How long the worker counts as alive after its last heartbeat, and others wait before they take over
    /// its sessions. It is renewed at a third of this. Shorter finds a dead worker sooner; too short, and a
    /// slow store looks like a dead worker. At least 300 ms.
    pub lease: Duration,
    /// A session without participants is closed after this long; `None`: never. Measured by each worker
    /// for itself, so a restart of all workers starts it anew.
    pub empty_timeout: Option<Duration>,
    /// Someone whose worker died and who does not rejoin counts as gone after this long.
    pub rejoin_timeout: Duration,
    /// Someone who joined and never connects is there as long as somebody reads its events; after this long it is looked
    /// up whether anybody does. The queue of its events goes when nobody has read it for [`USER_QUEUE_EXPIRES`].
    pub unread_timeout: Duration,
    /// How long a closed session's record is kept, so that late callers learn that it ended.
    pub closed_retention: Duration,
    /// Time between two passes over the sessions that somebody must look after (empty ones, those with participants
    /// that did not come back, left-overs of dead workers); the passes of several workers are spread by chance. In force is
    /// half of the shortest of the timeouts above when that is less, so that none takes much longer than it says.
    pub pass_interval: Duration,
    /// How long the clients of a draining worker have to move; what is left then is interrupted.
    pub drain_timeout: Duration,
    /// Whether `drain` commands are taken. Not by a process that is all in one: nobody could take its sessions.
    pub can_drain: bool,
    /// The receivers of webhooks ([`common::webhook::receiver_id`]), which everything in a timeline is owed to.
    pub webhooks: Vec<String>,
    /// Bound of [`crate::Worker::stop`].
    pub stop_timeout: Duration,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            worker_id: None,
            media: MediaConfig::default(),
            relay: None,
            lease: Duration::from_secs(6),
            empty_timeout: Some(Duration::from_secs(5 * 60)),
            rejoin_timeout: Duration::from_secs(60),
            unread_timeout: USER_QUEUE_EXPIRES,
            closed_retention: Duration::from_secs(60 * 60),
            pass_interval: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(60),
            can_drain: true,
            webhooks: Vec::new(),
            stop_timeout: Duration::from_secs(10),
        }
    }
}

/// However short a timeout is: a pass reads from the store.
const MIN_PASS_INTERVAL: Duration = Duration::from_millis(500);

/// The shortest lease; below it a scheduling hiccup is a death.
pub(crate) const MIN_LEASE: Duration = Duration::from_millis(300);

impl WorkerConfig {
    /// The lease in force.
    pub(crate) fn lease(&self) -> Duration {
        self.lease.max(MIN_LEASE)
    }

    /// The time between two passes in force.
    pub(crate) fn pass_interval(&self) -> Duration {
        let timeouts = [Some(self.rejoin_timeout), self.empty_timeout, Some(self.closed_retention)];
        let shortest = timeouts.into_iter().flatten().min().unwrap_or(self.pass_interval);
        self.pass_interval.min((shortest / 2).max(MIN_PASS_INTERVAL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_timeouts_are_looked_after_often_enough_and_not_too_often() {
        let with = |empty: u64| WorkerConfig {
            empty_timeout: Some(Duration::from_millis(empty)),
            ..WorkerConfig::default()
        };
        assert_eq!(with(300_000).pass_interval(), Duration::from_secs(30));
        assert_eq!(with(4_000).pass_interval(), Duration::from_secs(2));
        assert_eq!(with(10).pass_interval(), MIN_PASS_INTERVAL);
        let shorter = WorkerConfig { pass_interval: Duration::from_millis(50), ..with(10) };
        assert_eq!(shorter.pass_interval(), Duration::from_millis(50), "what is set is not made longer");
    }
}
