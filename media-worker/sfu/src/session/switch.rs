//! Subscriptions that go from one publication to another, for receivers that cannot be told of a new stream.
//!
//! ```text
//!   subscribe_later ──switch(A)──▶ waits for A ──keyframe of A──▶ gets A ──switch(B)──▶ gets A, waits for B ──▶ gets B
//!          ▲                                                        │
//!          └──────────── leave_publication, or A is unpublished ◀───┘
//! ```
//!
//! Numbers, times and picture ids go on as if it were one stream, and the picture before stays until the next one can be
//! decoded. A voice changes with the next packet.

use std::time::Instant;

use super::{PublicationId, Session, Subscription, SubscriptionId};

impl Session {
    /// Adds a subscription that gets nothing yet, and outlives whatever it gets.
    pub fn subscribe_later(&mut self) -> SubscriptionId {
        let mut subscription = Subscription::new(PublicationId::NOTHING);
        subscription.outlives = true;
        self.subscriptions.insert(subscription)
    }

    /// Lets a subscription get another publication, from where that can be decoded. What it waited for before counts no
    /// more; what it gets already, it keeps. Nothing when either is not there.
    pub fn switch(&mut self, now: Instant, subscription: SubscriptionId, publication: PublicationId) {
        let Some(found) = self.subscriptions.get_mut(subscription) else { return };
        if self.publications.get(publication).is_none() || found.next == Some(publication) {
            return;
        }
        let wanted = (found.publication != publication).then_some(publication);
        let before = std::mem::replace(&mut found.next, wanted);
        if let Some(before) = before
            && let Some(waiting) = self.publications.get_mut(before)
        {
            waiting.newcomers.retain(|other| *other != subscription);
            self.demand(now, before);
        }
        if let Some(wanted) = wanted
            && let Some(awaiting) = self.publications.get_mut(wanted)
        {
            awaiting.newcomers.push(subscription);
            self.demand(now, wanted);
            self.want_what_it_awaits(now, subscription);
        }
    }

    /// Takes what it gets and waits for away from a subscription.
    pub fn leave_publication(&mut self, now: Instant, subscription: SubscriptionId) {
        let Some(found) = self.subscriptions.get_mut(subscription) else { return };
        let left = [Some(found.publication), found.next.take()];
        found.leave();
        for id in left.into_iter().flatten() {
            if let Some(publication) = self.publications.get_mut(id) {
                publication.subscriptions.retain(|other| *other != subscription);
                publication.newcomers.retain(|other| *other != subscription);
                self.demand(now, id);
            }
        }
    }
}
