//! What is known of connections that have ended: kept for a while, for who rates its call afterwards.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use common::model::{EndpointId, NetworkSummary};
use tokio::time::Instant;

/// How long after its end a connection can still be rated with what is known of it.
const KEPT: Duration = Duration::from_secs(30 * 60);
/// Connections at most, some 300 bytes each; at the bound the one that ended first goes.
const MOST: usize = 8_192;

/// See the module.
#[derive(Default)]
pub(crate) struct Ended(Mutex<VecDeque<(Instant, NetworkSummary)>>);

impl Ended {
    pub fn note(&self, summary: NetworkSummary) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        while all.len() >= MOST || all.front().is_some_and(|(at, _)| now.duration_since(*at) > KEPT) {
            all.pop_front();
        }
        all.push_back((now, summary));
    }

    pub fn of(&self, endpoint: EndpointId) -> Option<NetworkSummary> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Who asks has mostly just left.
        let found = all.iter().rev().find(|(_, summary)| summary.endpoint_id == endpoint)?;
        Some(found.1.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(endpoint_id: EndpointId, duration_ms: i64) -> NetworkSummary {
        NetworkSummary { duration_ms, ..NetworkSummary::new(endpoint_id) }
    }

    #[tokio::test(start_paused = true)]
    async fn what_ended_is_known_for_a_while_and_up_to_a_bound() {
        let (ended, first) = (Ended::default(), EndpointId::new());
        ended.note(summary(first, 1));
        let others: Vec<EndpointId> = (0..MOST).map(|_| EndpointId::new()).collect();
        others[1..].iter().for_each(|id| ended.note(summary(*id, 2)));
        assert_eq!(ended.of(first).map(|it| it.duration_ms), Some(1));
        ended.note(summary(others[0], 3));
        assert_eq!(ended.of(first), None, "it was the first to end");
        assert_eq!(ended.of(others[0]).map(|it| it.duration_ms), Some(3));
        tokio::time::advance(KEPT + Duration::from_secs(1)).await;
        ended.note(summary(first, 4));
        assert_eq!((ended.of(others[0]), ended.of(first).map(|it| it.duration_ms)), (None, Some(4)));
    }
}
