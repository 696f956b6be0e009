//! The forwarding table of one pipeline: publications, their subscriptions, and who gets a packet.
//!
//! A subscription passes through
//!
//! ```text
//!   subscribed ──activate──▶ awaiting keyframe (video) ──first packet of one──▶ flowing
//!                                   ▲                                             │
//!                                   └───────── pause: mute, deactivate ◀──────────┘
//! ```

use std::collections::VecDeque;
use std::time::Instant;

use crate::counters::Counters;
use crate::keyframe::starts_keyframe;
use crate::packet::{Codec, Packet};
use crate::request::KeyframeRequests;
use crate::rewrite::Rewriter;
use crate::slab::{Key, Slab};
use crate::wrapping::{Sequence, Timestamp};

/// One published track.
pub type PublicationId = Key<Publication>;
/// One endpoint's standing wish for one publication.
pub type SubscriptionId = Key<Subscription>;

/// What is to be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Send the packet that was just handled to the subscriber, under these numbers.
    Forward { subscription: SubscriptionId, sequence: Sequence, timestamp: Timestamp },
    /// Ask the publisher for a keyframe (PLI).
    RequestKeyframe { publication: PublicationId },
}

/// See [`PublicationId`].
#[derive(Debug)]
pub struct Publication {
    codec: Codec,
    muted: bool,
    current_ssrc: Option<u32>,
    previous_ssrc: Option<u32>,
    /// The newest number of the current source.
    newest: Option<Sequence>,
    requests: KeyframeRequests,
    subscriptions: Vec<SubscriptionId>,
}

/// See [`SubscriptionId`].
#[derive(Debug)]
pub struct Subscription {
    publication: PublicationId,
    active: bool,
    awaiting_keyframe: bool,
    rewriter: Rewriter,
}

/// The forwarding table.
#[derive(Default)]
pub struct Session {
    publications: Slab<Publication>,
    subscriptions: Slab<Subscription>,
    outputs: VecDeque<Output>,
    counters: Counters,
}

impl Session {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a publication. Its packets are accepted from now on.
    pub fn publish(&mut self, codec: Codec) -> PublicationId {
        self.publications.insert(Publication {
            codec,
            muted: false,
            current_ssrc: None,
            previous_ssrc: None,
            newest: None,
            requests: KeyframeRequests::default(),
            subscriptions: Vec::new(),
        })
    }

    /// Removes a publication and every subscription to it. Twice does nothing.
    pub fn unpublish(&mut self, publication: PublicationId) {
        if let Some(removed) = self.publications.remove(publication) {
            for subscription in removed.subscriptions {
                self.subscriptions.remove(subscription);
            }
        }
    }

    /// Adds a subscription that does not flow yet. `None` when the publication is not there.
    pub fn subscribe(&mut self, publication: PublicationId) -> Option<SubscriptionId> {
        let published = self.publications.get_mut(publication)?;
        let subscription = self.subscriptions.insert(Subscription {
            publication,
            active: false,
            awaiting_keyframe: published.codec.is_video(),
            rewriter: Rewriter::default(),
        });
        published.subscriptions.push(subscription);
        Some(subscription)
    }

    /// Removes a subscription. Twice does nothing.
    pub fn unsubscribe(&mut self, subscription: SubscriptionId) {
        if let Some(removed) = self.subscriptions.remove(subscription)
            && let Some(publication) = self.publications.get_mut(removed.publication)
        {
            publication.subscriptions.retain(|other| *other != subscription);
        }
    }

    /// The subscriber can receive: forwarding starts, for video at a keyframe that is asked for.
    pub fn activate(&mut self, now: Instant, subscription: SubscriptionId) {
        let Some(found) = self.subscriptions.get_mut(subscription) else { return };
        if found.active {
            return;
        }
        found.active = true;
        let (publication, awaiting) = (found.publication, found.awaiting_keyframe);
        if awaiting {
            self.want_keyframe(now, publication);
        }
    }

    /// The subscriber cannot receive for now.
    pub fn deactivate(&mut self, subscription: SubscriptionId) {
        if let Some(found) = self.subscriptions.get_mut(subscription) {
            found.active = false;
            if let Some(publication) = self.publications.get(found.publication) {
                found.pause(publication.codec);
            }
        }
    }

    /// Stops or resumes forwarding of a publication to everyone.
    pub fn set_muted(&mut self, now: Instant, publication: PublicationId, muted: bool) {
        let Some(found) = self.publications.get_mut(publication) else { return };
        if found.muted == muted {
            return;
        }
        found.muted = muted;
        if muted {
            found.requests.fulfilled();
            for subscription in &found.subscriptions {
                if let Some(subscription) = self.subscriptions.get_mut(*subscription) {
                    subscription.pause(found.codec);
                }
            }
        } else if self.is_awaited(publication) {
            self.want_keyframe(now, publication);
        }
    }

    /// Takes a publisher's packet; what becomes of it is in [`Session::poll_output`], which must be
    /// emptied before the next packet: its outputs do not repeat the packet.
    pub fn handle_packet(&mut self, now: Instant, publication: PublicationId, packet: &Packet<'_>) {
        let Some(published) = self.publications.get_mut(publication) else {
            self.counters.unknown_publication += 1;
            return;
        };
        if published.muted {
            self.counters.muted += 1;
            published.note_number(packet);
            return;
        }
        if published.current_ssrc != Some(packet.ssrc) {
            if published.previous_ssrc == Some(packet.ssrc) {
                self.counters.replaced_source += 1;
                return;
            }
            published.previous_ssrc = published.current_ssrc.replace(packet.ssrc);
            published.newest = None;
        }
        let is_late = published.note_number(packet);
        self.counters.accepted += 1;
        let codec = published.codec;
        let starts_keyframe = starts_keyframe(codec, packet.payload);
        if starts_keyframe {
            published.requests.fulfilled();
        }
        for id in &published.subscriptions {
            let Some(subscription) = self.subscriptions.get_mut(*id) else { continue };
            if !subscription.active {
                self.counters.inactive += 1;
                continue;
            }
            if subscription.awaiting_keyframe && !starts_keyframe {
                self.counters.awaiting_keyframe += 1;
                continue;
            }
            // Between a late packet and the newest one lie some that this subscription never gets: had it started
            // there, it would see a loss that nobody can repair.
            if is_late && subscription.rewriter.is_starting() {
                self.counters.before_start += 1;
                continue;
            }
            subscription.awaiting_keyframe = false;
            let numbers = subscription.rewriter.rewrite(
                now,
                packet.ssrc,
                packet.sequence,
                packet.timestamp,
                codec.clock_rate(),
            );
            let Some((sequence, timestamp)) = numbers else {
                self.counters.before_start += 1;
                continue;
            };
            self.counters.forwarded += 1;
            self.outputs.push_back(Output::Forward { subscription: *id, sequence, timestamp });
        }
    }

    /// A subscriber lost its picture (PLI or FIR).
    pub fn handle_keyframe_request(&mut self, now: Instant, subscription: SubscriptionId) {
        if let Some(found) = self.subscriptions.get(subscription) {
            let publication = found.publication;
            self.want_keyframe(now, publication);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        for (id, publication) in self.publications.iter_mut() {
            let subscriptions = &self.subscriptions;
            let awaiting = publication
                .subscriptions
                .iter()
                .filter_map(|subscription| subscriptions.get(*subscription))
                .any(|subscription| subscription.active && subscription.awaiting_keyframe);
            if publication.requests.handle_timeout(now, awaiting) {
                self.counters.keyframe_requests += 1;
                self.outputs.push_back(Output::RequestKeyframe { publication: id });
            }
        }
    }

    /// When [`Session::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.publications.iter().filter_map(|publication| publication.requests.poll_timeout()).min()
    }

    /// The next thing to carry out.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The subscriptions to a publication, active or not.
    pub fn subscriptions_of(&self, publication: PublicationId) -> &[SubscriptionId] {
        self.publications.get(publication).map_or(&[], |publication| &publication.subscriptions)
    }

    /// Publications and subscriptions together.
    pub fn tracks(&self) -> usize {
        self.publications.len() + self.subscriptions.len()
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn is_awaited(&self, publication: PublicationId) -> bool {
        self.publications.get(publication).is_some_and(|publication| {
            publication
                .subscriptions
                .iter()
                .filter_map(|subscription| self.subscriptions.get(*subscription))
                .any(|subscription| subscription.active && subscription.awaiting_keyframe)
        })
    }

    fn want_keyframe(&mut self, now: Instant, publication: PublicationId) {
        let Some(found) = self.publications.get_mut(publication) else { return };
        if !found.codec.is_video() || found.muted {
            return;
        }
        if found.requests.want(now) {
            self.counters.keyframe_requests += 1;
            self.outputs.push_back(Output::RequestKeyframe { publication });
        }
    }
}

impl Publication {
    /// Notes a packet of the current source; returns whether a newer one came before it.
    fn note_number(&mut self, packet: &Packet<'_>) -> bool {
        if self.current_ssrc.is_some_and(|ssrc| ssrc != packet.ssrc) {
            return false;
        }
        let is_late = self.newest.is_some_and(|newest| newest.is_newer_than(packet.sequence));
        if !is_late {
            self.newest = Some(packet.sequence);
        }
        is_late
    }
}

impl Subscription {
    fn pause(&mut self, codec: Codec) {
        self.rewriter.pause();
        self.awaiting_keyframe = codec.is_video();
    }
}

#[cfg(test)]
mod tests;
