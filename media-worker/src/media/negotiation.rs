//! Who may offer when: revisions, collisions, and how server offers are coalesced.
//!
//! Pure: `now` is an argument and SDP does not occur. The server is the impolite side of perfect
//! negotiation (W3C webrtc, section 10.7): while its offer is outstanding, a client's offer collides.
//!
//! ```text
//!             ┌──────────── client offer n+1 ── answered at once ────────────┐
//!             ▼                                                              │
//!   completed n ── something to offer, and interval over ──▶ offer n+1 outstanding ── answer n+1 ──▶ completed n+1
//! ```

use std::time::{Duration, Instant};

/// After a refused client offer the server holds its own back for this long, so that a client whose answers take
/// longer than the offers' interval still gets its turn: the polite side must not starve.
pub const TURN: Duration = Duration::from_secs(1);

/// The state of one endpoint's negotiation.
#[derive(Debug, Clone)]
pub struct Negotiation {
    completed: u64,
    outstanding: Option<u64>,
    interval: Duration,
    last_offer_at: Option<Instant>,
    may_offer: bool,
    wanted: bool,
    /// The client lost a collision; until then it is its turn.
    client_turn_until: Option<Instant>,
}

/// A description that does not fit the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Collision,
    NoOfferPending,
}

impl Negotiation {
    /// `server_offers`: the server need not wait for the client's first offer.
    pub fn new(interval: Duration, server_offers: bool) -> Self {
        Self {
            completed: 0,
            outstanding: None,
            interval,
            last_offer_at: None,
            may_offer: server_offers,
            wanted: false,
            client_turn_until: None,
        }
    }

    /// Whether a client's offer is in turn, and the revision that it makes. A refused one is in turn next.
    pub fn check_client_offer(&mut self, now: Instant, revision: Option<u64>) -> Result<u64, Refusal> {
        let next = self.completed + 1;
        if self.outstanding.is_some() || revision.is_some_and(|revision| revision != next) {
            self.client_turn_until = Some(now + TURN);
            return Err(Refusal::Collision);
        }
        Ok(next)
    }

    /// The client's offer was answered.
    pub fn complete_client_offer(&mut self) {
        self.completed += 1;
        self.may_offer = true;
        self.client_turn_until = None;
    }

    /// Whether a client's answer belongs to the outstanding offer.
    pub fn check_answer(&self, revision: u64) -> Result<(), Refusal> {
        if self.outstanding == Some(revision) { Ok(()) } else { Err(Refusal::NoOfferPending) }
    }

    /// The outstanding offer was answered.
    pub fn complete_answer(&mut self) {
        if let Some(revision) = self.outstanding.take() {
            self.completed = revision;
        }
    }

    /// There is something to offer.
    pub fn want_offer(&mut self) {
        self.wanted = true;
    }

    /// There is nothing to offer after all.
    pub fn unwant_offer(&mut self) {
        self.wanted = false;
    }

    /// Whether to offer now.
    pub fn is_offer_due(&self, now: Instant) -> bool {
        self.poll_timeout(now).is_some_and(|due| due <= now)
    }

    /// Starts an offer; the revision that it makes.
    pub fn start_offer(&mut self, now: Instant) -> u64 {
        self.wanted = false;
        self.last_offer_at = Some(now);
        let revision = self.completed + 1;
        self.outstanding = Some(revision);
        revision
    }

    /// When an offer is due, if one is wanted and possible.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        if !self.wanted || !self.may_offer || self.outstanding.is_some() {
            return None;
        }
        let due = self.last_offer_at.map_or(now, |last| last + self.interval);
        Some(self.client_turn_until.map_or(due, |turn| due.max(turn)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(250);

    #[test]
    fn waits_for_the_client_unless_the_server_offers_first() {
        let now = Instant::now();
        let mut waiting = Negotiation::new(INTERVAL, false);
        waiting.want_offer();
        assert!(!waiting.is_offer_due(now));
        assert_eq!(waiting.check_client_offer(now, Some(1)), Ok(1));
        waiting.complete_client_offer();
        assert!(waiting.is_offer_due(now), "what was wanted meanwhile goes out");
        let mut first = Negotiation::new(INTERVAL, true);
        first.want_offer();
        assert!(first.is_offer_due(now));
    }

    #[test]
    fn twenty_wishes_within_a_second_make_five_offers() {
        let start = Instant::now();
        let mut negotiation = Negotiation::new(INTERVAL, true);
        let mut offers = 0;
        for step in 0..=2000 {
            let now = start + Duration::from_millis(step);
            if step % 50 == 0 && step < 1000 {
                negotiation.want_offer();
            }
            if negotiation.is_offer_due(now) {
                offers += 1;
                let revision = negotiation.start_offer(now);
                assert_eq!(negotiation.check_answer(revision), Ok(()));
                negotiation.complete_answer();
            }
        }
        assert_eq!(offers, 5);
        assert_eq!(negotiation.poll_timeout(start), None);
    }

    #[test]
    fn one_offer_at_a_time_however_long_the_answer_takes() {
        let now = Instant::now();
        let mut negotiation = Negotiation::new(INTERVAL, true);
        negotiation.want_offer();
        assert_eq!(negotiation.start_offer(now), 1);
        negotiation.want_offer();
        assert!(!negotiation.is_offer_due(now + Duration::from_secs(3600)));
        assert_eq!(negotiation.check_client_offer(now, Some(1)), Err(Refusal::Collision));
        assert_eq!(negotiation.check_client_offer(now, None), Err(Refusal::Collision));
        assert_eq!(negotiation.check_answer(2), Err(Refusal::NoOfferPending));
        assert_eq!(negotiation.check_answer(1), Ok(()));
        negotiation.complete_answer();
        assert_eq!(negotiation.check_answer(1), Err(Refusal::NoOfferPending), "answered already");
        assert!(negotiation.is_offer_due(now + TURN), "after the client's turn");
    }

    #[test]
    fn an_offer_made_before_the_servers_was_known_collides_by_its_revision() {
        let now = Instant::now();
        let mut negotiation = Negotiation::new(INTERVAL, true);
        negotiation.want_offer();
        negotiation.start_offer(now);
        negotiation.complete_answer();
        assert_eq!(negotiation.check_client_offer(now, Some(1)), Err(Refusal::Collision));
        assert_eq!(negotiation.check_client_offer(now, Some(2)), Ok(2));
        assert_eq!(negotiation.check_client_offer(now, None), Ok(2));
    }

    #[test]
    fn who_lost_a_collision_is_next() {
        let now = Instant::now();
        let mut negotiation = Negotiation::new(INTERVAL, true);
        negotiation.want_offer();
        negotiation.start_offer(now);
        negotiation.want_offer();
        // A slow client: its answer comes after the interval, its own offer was refused meanwhile.
        let later = now + 2 * INTERVAL;
        assert_eq!(negotiation.check_client_offer(later, Some(1)), Err(Refusal::Collision));
        negotiation.complete_answer();
        assert!(!negotiation.is_offer_due(later), "the server waits for the client's next try");
        assert_eq!(negotiation.check_client_offer(later + INTERVAL, Some(2)), Ok(2));
        negotiation.complete_client_offer();
        assert!(negotiation.is_offer_due(later + INTERVAL), "and goes on when it has had its turn");
    }

    #[test]
    fn a_client_that_does_not_take_its_turn_loses_it() {
        let now = Instant::now();
        let mut negotiation = Negotiation::new(INTERVAL, true);
        negotiation.want_offer();
        negotiation.start_offer(now);
        negotiation.want_offer();
        assert_eq!(negotiation.check_client_offer(now, Some(1)), Err(Refusal::Collision));
        negotiation.complete_answer();
        assert_eq!(negotiation.poll_timeout(now), Some(now + TURN));
        assert!(negotiation.is_offer_due(now + TURN));
    }
}
