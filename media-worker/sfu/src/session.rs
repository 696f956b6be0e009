//! The forwarding table of one pipeline: publications, their subscriptions, and who gets a packet.
//!
//! A subscription passes through
//!
//! ```text
//!   subscribed ──activate──▶ awaiting keyframe (video) ──first packet of one──▶ flowing ─┐ keyframe of the
//!                                   ▲                                             │ ▲     │ encoding that it
//!                                   └── pause: mute, deactivate, no target ◀──────┘ └─────┘ should get
//! ```
//!
//! A publication has one or more encodings, and an encoding layers. What a subscription should get at most is its
//! [`Target`]. It stays on the encoding it has until a keyframe of the one it should have arrives; inside an encoding
//! [`crate::select`] decides.

use std::collections::VecDeque;
use std::time::Instant;

use crate::counters::Counters;
use crate::demand::Demand;
use crate::descriptor::Patch;
use crate::encoding::{Arrival, Clock, Encoding};
use crate::layers::{EncodingId, Layer, MAX_ENCODINGS, Table, Target};
use crate::packet::{Codec, Packet};
use crate::pictures::Names;
use crate::slab::{Key, Slab};
use crate::wrapping::{Sequence, Timestamp};
use subscription::{Arrived, Reason, best};

mod inspect;
mod subscription;
mod switch;

pub use inspect::{Current, Standing};
pub use subscription::Subscription;

/// One published track.
pub type PublicationId = Key<Publication>;
/// One endpoint's standing wish for one publication.
pub type SubscriptionId = Key<Subscription>;

/// What is to be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Send the packet that was just handled to the subscriber, under these numbers.
    Forward {
        subscription: SubscriptionId,
        sequence: Sequence,
        timestamp: Timestamp,
        marker: bool,
        /// What is different in the subscriber's copy.
        patch: Option<Patch>,
    },
    /// Ask the publisher for a keyframe of one encoding (PLI).
    RequestKeyframe { publication: PublicationId, encoding: EncodingId },
    /// Tell the publisher how many of a video's encodings, from the lowest up, anybody watches. It begins by sending all.
    Demand { publication: PublicationId, encodings: u8 },
}

/// See [`PublicationId`].
#[derive(Debug)]
pub struct Publication {
    codec: Codec,
    muted: bool,
    /// Not forwarded for now, although it is there.
    held: bool,
    /// In ascending quality; at least one.
    encodings: Vec<Encoding>,
    /// Bit *n*: encoding *n* is being sent.
    alive: u8,
    /// The publisher's id of the dependency descriptor extension.
    descriptor: Option<u8>,
    table: Table,
    demand: Demand,
    subscriptions: Vec<SubscriptionId>,
    /// Subscriptions that still get another publication, and come over where this one can be decoded.
    newcomers: Vec<SubscriptionId>,
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

    /// Adds a publication of one encoding. Its packets are accepted from now on.
    pub fn publish(&mut self, codec: Codec) -> PublicationId {
        self.publications.insert(Publication {
            codec,
            muted: false,
            held: false,
            encodings: vec![Encoding::default()],
            alive: 0,
            descriptor: None,
            table: Table::default(),
            demand: Demand::default(),
            subscriptions: Vec::new(),
            newcomers: Vec::new(),
        })
    }

    /// Says how many encodings a publication has (1 to [`MAX_ENCODINGS`]; others count as the nearest of these), and
    /// under which id its packets bring the dependency descriptor. Returns whether it had another number of encodings before;
    /// then all are wanted of its publisher again.
    pub fn describe(&mut self, publication: PublicationId, encodings: u8, descriptor: Option<u8>) -> bool {
        let mut is_changed = false;
        if let Some(found) = self.publications.get_mut(publication) {
            let count = usize::from(encodings.clamp(1, MAX_ENCODINGS));
            is_changed = count != found.encodings.len();
            if is_changed {
                found.encodings.resize_with(count, Encoding::default);
                // Whoever was on one that is gone is asked for anew as soon as packets come.
                found.alive = 0;
                found.demand = Demand::default();
            }
            found.descriptor = descriptor;
        }
        is_changed
    }

    /// Removes a publication and every subscription to it that does not outlive it ([`Session::subscribe_later`]). Twice
    /// does nothing.
    pub fn unpublish(&mut self, publication: PublicationId) {
        let Some(removed) = self.publications.remove(publication) else { return };
        for id in removed.subscriptions {
            match self.subscriptions.get_mut(id) {
                Some(subscription) if subscription.outlives => subscription.leave(),
                _ => drop(self.subscriptions.remove(id)),
            }
        }
        for id in removed.newcomers {
            if let Some(subscription) = self.subscriptions.get_mut(id) {
                subscription.next = None;
            }
        }
    }

    /// Adds a subscription to the best there is, that does not flow yet. `None` when the publication is not there.
    pub fn subscribe(&mut self, publication: PublicationId) -> Option<SubscriptionId> {
        let published = self.publications.get_mut(publication)?;
        let subscription = self.subscriptions.insert(Subscription::new(publication));
        published.subscriptions.push(subscription);
        Some(subscription)
    }

    /// Removes a subscription. Twice does nothing.
    pub fn unsubscribe(&mut self, subscription: SubscriptionId) {
        let Some(removed) = self.subscriptions.remove(subscription) else { return };
        for publication in [Some(removed.publication), removed.next].into_iter().flatten() {
            if let Some(publication) = self.publications.get_mut(publication) {
                publication.subscriptions.retain(|other| *other != subscription);
                publication.newcomers.retain(|other| *other != subscription);
            }
        }
    }

    /// The subscriber can receive: forwarding starts, for video at a keyframe that is asked for.
    pub fn activate(&mut self, now: Instant, subscription: SubscriptionId) {
        let Some(found) = self.subscriptions.get_mut(subscription) else { return };
        if !std::mem::replace(&mut found.active, true) {
            let publication = found.publication;
            self.demand(now, publication);
            self.want_what_it_awaits(now, subscription);
        }
    }

    /// The subscriber cannot receive for now.
    pub fn deactivate(&mut self, subscription: SubscriptionId) {
        if let Some(found) = self.subscriptions.get_mut(subscription) {
            found.active = false;
            found.pause();
        }
    }

    /// What a subscription should get at most; `None`: nothing. It changes over where that decodes, and keeps what it
    /// has until then.
    pub fn set_target(&mut self, now: Instant, subscription: SubscriptionId, target: Option<Target>) {
        let Some(found) = self.subscriptions.get_mut(subscription) else { return };
        if std::mem::replace(&mut found.target, target) == target {
            return;
        }
        if target.is_none() {
            found.pause();
        }
        self.want_what_it_awaits(now, subscription);
    }

    /// Says how many encodings, from the lowest up, a subscription could use soon; all of them unless said. What nobody
    /// can, the publisher need not send.
    pub fn set_reach(&mut self, now: Instant, subscription: SubscriptionId, encodings: u8) {
        let Some(found) = self.subscriptions.get_mut(subscription) else { return };
        if std::mem::replace(&mut found.reach, encodings) != encodings {
            let publication = found.publication;
            self.demand(now, publication);
        }
    }

    /// Notes how many encodings the subscribers of another media thread can use. `None`: it has none any more.
    pub fn set_peer_demand(
        &mut self,
        now: Instant,
        publication: PublicationId,
        peer: usize,
        encodings: Option<u8>,
    ) {
        if let Some(found) = self.publications.get_mut(publication) {
            found.demand.set_peer(peer, encodings);
            self.demand(now, publication);
        }
    }

    /// How many encodings of a video its publisher was told to send.
    pub fn demanded(&self, publication: PublicationId) -> u8 {
        self.publications
            .get(publication)
            .map_or(0, |found| found.demand.told().min(found.encodings.len() as u8))
    }

    /// What a subscription should get at most. `None` when it should get nothing, or is not there.
    pub fn target(&self, subscription: SubscriptionId) -> Option<Target> {
        self.subscriptions.get(subscription)?.target
    }

    /// The encoding that a video subscription gets. `None` while nothing is forwarded.
    pub fn current(&self, subscription: SubscriptionId) -> Option<EncodingId> {
        self.subscriptions.get(subscription)?.current
    }

    /// What a publication consists of and what that costs, in ascending quality; empty for the first half second. Encodings
    /// that were stopped because nobody watches them are there with what they cost before.
    pub fn layers(&self, publication: PublicationId) -> &[Layer] {
        self.publications.get(publication).map_or(&[], |publication| publication.table.layers())
    }

    pub fn is_muted(&self, publication: PublicationId) -> bool {
        self.publications.get(publication).is_some_and(|publication| publication.muted)
    }

    /// Stops or resumes forwarding of a publication to everyone.
    pub fn set_muted(&mut self, now: Instant, publication: PublicationId, muted: bool) {
        let Some(found) = self.publications.get_mut(publication) else { return };
        if found.muted == muted {
            return;
        }
        found.muted = muted;
        if muted {
            for encoding in &mut found.encodings {
                encoding.requests.fulfilled();
            }
            for subscription in &found.subscriptions {
                if let Some(subscription) = self.subscriptions.get_mut(*subscription) {
                    subscription.pause();
                }
            }
        } else {
            self.want_awaited(now, publication);
        }
    }

    pub fn is_held(&self, publication: PublicationId) -> bool {
        self.publications.get(publication).is_some_and(|publication| publication.held)
    }

    /// Holds a voice back from all subscribers of this table, or releases it. Other than a muted one its packets count as
    /// accepted, so that whoever passes them on goes on doing so. Subscribers see no gap in its numbers.
    pub fn set_held(&mut self, publication: PublicationId, held: bool) {
        let Some(found) = self.publications.get_mut(publication) else { return };
        if std::mem::replace(&mut found.held, held) == held || !held {
            return;
        }
        for subscription in &found.subscriptions {
            if let Some(subscription) = self.subscriptions.get_mut(*subscription) {
                subscription.pause();
            }
        }
    }

    /// Notes what a publisher says about its clocks.
    pub fn handle_sender_report(
        &mut self,
        publication: PublicationId,
        encoding: EncodingId,
        ntp: u64,
        rtp: Timestamp,
    ) {
        if let Some(found) = self.publications.get_mut(publication)
            && let Some(encoding) = found.encodings.get_mut(encoding.index())
        {
            encoding.note_clock(Clock { ntp, rtp });
        }
    }

    /// A time of an encoding's clock as a subscriber knows it. `None` when that encoding is not what it gets.
    pub fn sent_time(
        &self,
        subscription: SubscriptionId,
        encoding: EncodingId,
        rtp: Timestamp,
    ) -> Option<Timestamp> {
        let found = self.subscriptions.get(subscription)?;
        let source = self.publications.get(found.publication)?.encodings.get(encoding.index())?.ssrc();
        let is_sent = source.is_some() && found.numbered == encoding && found.rewriter.source() == source;
        is_sent.then(|| found.rewriter.sent_time(rtp))
    }

    /// Takes a publisher's packet; what becomes of it is in [`Session::poll_output`], which must be
    /// emptied before the next packet: its outputs do not repeat the packet.
    pub fn handle_packet(&mut self, now: Instant, publication: PublicationId, packet: &Packet<'_>) {
        let Some(published) = self.publications.get_mut(publication) else {
            self.counters.unknown_publication += 1;
            return;
        };
        let Publication {
            codec,
            muted,
            held,
            encodings,
            alive,
            descriptor,
            table,
            demand,
            subscriptions,
            newcomers,
        } = published;
        let Some(encoding) = encodings.get_mut(packet.encoding.index()) else {
            self.counters.unknown_encoding += 1;
            return;
        };
        if *muted {
            self.counters.muted += 1;
            encoding.note_number(packet);
            return;
        }
        let arrival = encoding.take(now, packet);
        if arrival == Arrival::Replaced {
            self.counters.replaced_source += 1;
            return;
        }
        self.counters.accepted += 1;
        let (frame, dependencies) = encoding.read(*codec, packet, *descriptor);
        if frame.starts_keyframe {
            encoding.requests.fulfilled();
        }
        let names = Names { picture: frame.picture, frame: dependencies.map(|it| it.number) };
        let known_alive = std::mem::replace(alive, *alive | 1 << packet.encoding.0);
        let arrived = Arrived { now, packet, frame, dependencies, names, arrival, codec: *codec };
        let mut left = Vec::new();
        if !newcomers.is_empty() {
            newcomers.retain(|id| {
                let Some(subscription) = self.subscriptions.get_mut(*id) else { return false };
                if !subscription.can_come_over(&arrived, *alive) {
                    return true;
                }
                left.push((subscription.publication, *id));
                subscription.come_over(publication);
                subscriptions.push(*id);
                false
            });
        }
        self.counters.held += u64::from(*held);
        for id in subscriptions.iter().filter(|_| !*held) {
            let Some(subscription) = self.subscriptions.get_mut(*id) else { continue };
            match subscription.handle(&arrived, encodings, *alive) {
                Ok((sequence, timestamp, marker, patch)) => {
                    self.counters.forwarded += 1;
                    self.outputs.push_back(Output::Forward {
                        subscription: *id,
                        sequence,
                        timestamp,
                        marker,
                        patch,
                    });
                }
                Err(Reason::Inactive) => self.counters.inactive += 1,
                Err(Reason::Paused) => self.counters.paused += 1,
                Err(Reason::AwaitingKeyframe) => self.counters.awaiting_keyframe += 1,
                Err(Reason::OtherEncoding) => self.counters.other_encoding += 1,
                Err(Reason::Withheld) => self.counters.withheld += 1,
                Err(Reason::BeforeStart) => self.counters.before_start += 1,
            }
        }
        if let Some(encoding) = encodings.get_mut(packet.encoding.index()) {
            encoding.meter.note(&arrived.frame, packet.payload.len());
        }
        if packet.marker && encodings.len() > 1 {
            for (index, other) in encodings.iter_mut().enumerate() {
                if index != packet.encoding.index() && *alive & 1 << index != 0 && other.note_other(now) {
                    *alive &= !(1 << index);
                }
            }
        }
        let is_due = table.is_due(now);
        if is_due {
            let meters = encodings.iter_mut().map(|encoding| &mut encoding.meter);
            let excused = |encoding| demand.excuses(now, encoding);
            table.measure(now, (0..).map(EncodingId).zip(meters), excused);
        }
        let source_changed = arrival == Arrival::Next { is_first: true };
        if *alive != known_alive || source_changed {
            self.want_awaited(now, publication);
        }
        if is_due {
            self.demand(now, publication);
        }
        for (before, id) in left {
            if let Some(publication) = self.publications.get_mut(before) {
                publication.subscriptions.retain(|other| *other != id);
                self.demand(now, before);
            }
        }
    }

    /// A subscriber lost its picture (PLI or FIR).
    pub fn handle_keyframe_request(&mut self, now: Instant, subscription: SubscriptionId) {
        let Some(found) = self.subscriptions.get(subscription) else { return };
        let (publication, current) = (found.publication, found.current);
        if let Some(current) = current {
            self.want_keyframe(now, publication, current);
        }
        self.want_what_it_awaits(now, subscription);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        for (id, publication) in self.publications.iter_mut() {
            let is_due = |encoding: &Encoding| encoding.requests.poll_timeout().is_some_and(|due| due <= now);
            if !publication.encodings.iter().any(is_due) {
                continue;
            }
            let awaited = publication.awaited(&self.subscriptions);
            for (index, encoding) in (0u8..).zip(&mut publication.encodings) {
                if encoding.requests.handle_timeout(now, awaited & 1 << index != 0) {
                    self.counters.keyframe_requests += 1;
                    let encoding = EncodingId(index);
                    self.outputs.push_back(Output::RequestKeyframe { publication: id, encoding });
                }
            }
        }
    }

    /// When [`Session::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let encodings = self.publications.iter().flat_map(|publication| &publication.encodings);
        encodings.filter_map(|encoding| encoding.requests.poll_timeout()).min()
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

    /// Finds out how many of a video's encodings can be used, and tells when that is something else than before.
    fn demand(&mut self, now: Instant, publication: PublicationId) {
        let Some(found) = self.publications.get_mut(publication).filter(|it| it.codec.is_video()) else {
            return;
        };
        let reach = |id: &SubscriptionId| self.subscriptions.get(*id).map(|subscription| subscription.reach);
        let own = found.subscriptions.iter().chain(&found.newcomers).filter_map(reach).max().unwrap_or(0);
        if let Some(encodings) = found.demand.update(now, own, found.encodings.len() as u8) {
            self.outputs.push_back(Output::Demand { publication, encodings });
        }
    }

    fn want_what_it_awaits(&mut self, now: Instant, subscription: SubscriptionId) {
        let Some(found) = self.subscriptions.get(subscription) else { return };
        let (id, next) = (found.publication, found.next);
        let awaited = self.publications.get(id).and_then(|publication| publication.awaited_by(found));
        let of_next =
            next.and_then(|next| Some((next, self.publications.get(next)?.awaited_by_newcomer(found)?)));
        for (publication, encoding) in awaited.map(|it| (id, it)).into_iter().chain(of_next) {
            self.want_keyframe(now, publication, encoding);
        }
    }

    /// Asks for what subscriptions wait for, after something changed for all of them.
    fn want_awaited(&mut self, now: Instant, publication: PublicationId) {
        let Some(found) = self.publications.get(publication) else { return };
        let awaited = found.awaited(&self.subscriptions);
        for encoding in (0..MAX_ENCODINGS).filter(|index| awaited & 1 << index != 0) {
            self.want_keyframe(now, publication, EncodingId(encoding));
        }
    }

    fn want_keyframe(&mut self, now: Instant, publication: PublicationId, encoding: EncodingId) {
        let Some(found) = self.publications.get_mut(publication) else { return };
        if !found.codec.is_video() || found.muted {
            return;
        }
        if found.encodings.get_mut(encoding.index()).is_some_and(|encoding| encoding.requests.want(now)) {
            self.counters.keyframe_requests += 1;
            self.outputs.push_back(Output::RequestKeyframe { publication, encoding });
        }
    }
}

impl Publication {
    /// The encoding whose keyframe a subscription waits for: another one than it gets, or the one whose spatial layers it
    /// should get more of.
    fn awaited_by(&self, subscription: &Subscription) -> Option<EncodingId> {
        if !subscription.active || !self.codec.is_video() {
            return None;
        }
        let highest = EncodingId(self.encodings.len() as u8 - 1);
        let target = subscription.target?.encoding.min(highest);
        let wanted = best(self.alive, target).unwrap_or(target);
        let lacks = || {
            let encoding = self.encodings.get(wanted.index())?;
            let level = subscription.target?.level(wanted);
            Some(subscription.selector.lacks(level, encoding.highest_spatial(), encoding.structure()))
        };
        (subscription.current != Some(wanted) || lacks() == Some(true)).then_some(wanted)
    }

    /// The encoding whose keyframe brings a subscription over from another publication.
    fn awaited_by_newcomer(&self, subscription: &Subscription) -> Option<EncodingId> {
        if !subscription.active || !self.codec.is_video() {
            return None;
        }
        let highest = EncodingId(self.encodings.len() as u8 - 1);
        let target = subscription.target?.encoding.min(highest);
        Some(best(self.alive, target).unwrap_or(target))
    }

    /// Bit *n*: someone waits for a keyframe of encoding *n*.
    fn awaited(&self, subscriptions: &Slab<Subscription>) -> u8 {
        let own = self.subscriptions.iter().filter_map(|id| self.awaited_by(subscriptions.get(*id)?));
        let newcomers =
            self.newcomers.iter().filter_map(|id| self.awaited_by_newcomer(subscriptions.get(*id)?));
        own.chain(newcomers).fold(0, |awaited, encoding| awaited | 1 << encoding.0)
    }
}

#[cfg(test)]
mod tests;
