//! How fast somebody may do something: messages by request, and requests at all ([`crate::limits`]). On this instance.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use common::model::{ParticipantId, SessionId};
use tokio::time::Instant;

/// Who sends; without a participant the application.
pub type Sender = (SessionId, Option<ParticipantId>);

/// What may be sent at once before the rest has to wait for its time.
const BURST: Duration = Duration::from_secs(2);
/// What a message costs: 10 a second for a participant, 100 for the application.
const COST: Duration = Duration::from_millis(100);
const COST_OF_APPLICATION: Duration = Duration::from_millis(10);
/// Those that are remembered; beyond it those that owe nothing are forgotten.
const MOST: usize = 50_000;

/// What each owes, in time: everything costs some, and time pays it back.
pub struct Debts<K> {
    /// When each owes nothing any more.
    even_at: Mutex<HashMap<K, Instant>>,
}

impl<K> Default for Debts<K> {
    fn default() -> Self {
        Self { even_at: Mutex::default() }
    }
}

impl<K: Eq + Hash> Debts<K> {
    /// Counts something that costs so much, unless more than `burst` is owed already.
    ///
    /// # Errors
    /// How long it takes until it could be done.
    pub fn take(&self, who: K, cost: Duration, burst: Duration) -> Result<(), Duration> {
        let now = Instant::now();
        let mut debts = self.even_at.lock().unwrap_or_else(PoisonError::into_inner);
        if debts.len() >= MOST {
            debts.retain(|_, even_at| *even_at > now);
            // So many at once: better nobody is counted than somebody is refused. Half of them would have this done again too
            // soon for what it costs.
            if debts.len() >= MOST / 2 {
                debts.clear();
            }
        }
        let even_at = debts.entry(who).or_insert(now);
        let patient_until = now + burst;
        if *even_at > patient_until {
            return Err(*even_at - patient_until);
        }
        *even_at = (*even_at).max(now) + cost;
        Ok(())
    }
}

/// See the module.
#[derive(Default)]
pub struct Rates(Debts<Sender>);

impl Rates {
    /// Counts a message. `false`: not now.
    pub fn take(&self, sender: Sender) -> bool {
        let cost = if sender.1.is_some() { COST } else { COST_OF_APPLICATION };
        self.0.take(sender, cost, BURST).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_sender_has_a_rate_of_its_own() {
        let rates = Rates::default();
        let session = SessionId::new();
        let (ada, bob) = ((session, Some(ParticipantId::new())), (session, Some(ParticipantId::new())));
        let at_once =
            |sender| std::iter::repeat_with(|| rates.take(sender)).take(1_000).filter(|it| *it).count();
        assert_eq!([at_once(ada), at_once(bob), at_once((session, None))], [21, 21, 201]);
        tokio::time::advance(Duration::from_millis(1_000)).await;
        assert_eq!(at_once(ada), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_refused_is_told_when_and_nobody_is_remembered_for_ever() {
        let debts = Debts::default();
        let (cost, burst) = (Duration::from_secs(1), Duration::from_secs(2));
        let taken = |who| debts.take(who, cost, burst);
        assert_eq!([taken(0), taken(0), taken(0)], [Ok(()); 3]);
        let wait = taken(0).unwrap_err();
        assert_eq!(wait, Duration::from_secs(1));
        tokio::time::advance(wait).await;
        assert_eq!(taken(0), Ok(()));
        for who in 1..3 * MOST {
            let _ = taken(who);
        }
        assert!(debts.even_at.lock().unwrap().len() <= MOST);
    }
}
