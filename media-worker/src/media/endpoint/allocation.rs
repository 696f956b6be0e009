//! What a client's path carries, divided among the tracks that it subscribes to.
//!
//! ```text
//!   feedback ─▶ bandwidth ── target ──▶ ┌────────────┐ ─▶ session: target of each subscription, and how far it may reach
//!   wishes (pause, limits, size) ──────▶│ allocation │ ─▶ pacer: how fast pictures may leave
//!   session: layers and their costs ───▶└────────────┘ ─▶ bandwidth: how much could be used (probes)
//!                                                      └▶ the client: which pictures are suspended
//! ```
//!
//! Of a client whose path nothing is known of, only its wishes limit what it gets.

use std::time::{Duration, Instant};

use common::message::Wish;
use common::model::{ParticipantId, TrackId, TrackKind, TrackSource};
use sfu::bandwidth::allocate::{Allocator, Item, Memory, Policy, Request, Span};
use sfu::ladder::{self, Limit, Motion, Rung};
use sfu::{EncodingId, Resolution, Session, Target};

use super::lines::{Carried, Line, SourceTrack};

/// How often it is divided at least, because what the layers cost changes too.
const INTERVAL: Duration = Duration::from_millis(200);
/// A client is told of a suspension that lasts so long: shorter ones are a start, or a moment.
const TELL_AFTER: Duration = Duration::from_secs(1);
/// What a picture may come to whose layers are not measured yet, in bit/s.
const UNMEASURED: u64 = 1_000_000;
/// Pictures leave at the rate that they are granted, unless the path carries this much more than all that could be used, in
/// percent: then a keyframe need not wait behind itself.
const UNPACED_FROM: u64 = 120;

/// What an endpoint was told of its pictures, for the client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Suspensions {
    pub suspended: Vec<TrackId>,
    pub resumed: Vec<TrackId>,
    /// Cameras that are left out, because others spoke later.
    pub held: Vec<TrackId>,
    pub released: Vec<TrackId>,
}

impl Suspensions {
    pub fn is_empty(&self) -> bool {
        let Self { suspended, resumed, held, released } = self;
        [suspended, resumed, held, released].iter().all(|tracks| tracks.is_empty())
    }
}

/// How one subscription stands in the division.
#[derive(Debug, Clone, Copy, Default)]
pub struct Share {
    /// The client's own.
    pub wish: Wish,
    memory: Memory,
    /// Something of it is sent now.
    pub is_sent: bool,
    /// The best that it would get on a path wide enough; `None` when nothing is wanted.
    pub best: Option<Target>,
    suspended_since: Option<Instant>,
    is_told: bool,
    /// It is a camera, and others spoke later.
    pub is_held: bool,
    is_told_held: bool,
}

impl Share {
    /// Whether there is a reason not to send it, whatever the path carries.
    fn is_unwanted(&self) -> bool {
        self.wish.paused || self.is_held
    }

    /// Tells the client at once when the picture is held, or is not any more.
    fn tell_held(&mut self, track: TrackId, told: &mut Suspensions) {
        if std::mem::replace(&mut self.is_told_held, self.is_held) != self.is_held {
            let tracks = if self.is_held { &mut told.held } else { &mut told.released };
            tracks.push(track);
        }
    }

    /// Notes whether the picture is suspended; the client is told when it has been for a while.
    fn note(&mut self, now: Instant, is_suspended: bool, track: TrackId, told: &mut Suspensions) {
        if !is_suspended {
            self.suspended_since = None;
            if std::mem::take(&mut self.is_told) {
                told.resumed.push(track);
            }
            return;
        }
        let since = *self.suspended_since.get_or_insert(now);
        if !self.is_told && now.saturating_duration_since(since) >= TELL_AFTER {
            self.is_told = true;
            told.suspended.push(track);
        }
    }
}

/// Whose pictures come first, and whose cameras are sent at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attention<'a> {
    pub speaking: &'a [ParticipantId],
    /// `None`: everybody's.
    pub cameras: Option<&'a [ParticipantId]>,
}

impl Attention<'_> {
    /// Whether a camera is left out for this client: others spoke later, and it has not pinned it.
    fn leaves_out(&self, track: &SourceTrack, wish: &Wish) -> bool {
        let is_limited = track.kind == TrackKind::Video && track.source != TrackSource::Screen;
        is_limited
            && wish.priority < Wish::MAX_PRIORITY
            && self.cameras.is_some_and(|cameras| !cameras.contains(&track.participant_id))
    }
}

/// One subscription in the division at hand.
#[derive(Debug, Clone, Copy)]
struct Entry {
    line: usize,
    span: Span,
    /// Whether the last step is the best there is.
    is_whole: bool,
    /// Whether there may be something better that never came.
    is_short: bool,
}

/// See the module.
pub struct Allocation {
    allocator: Allocator,
    due: Option<Instant>,
    /// Of the division at hand; kept for their memory.
    entries: Vec<Entry>,
    items: Vec<Item>,
    rungs: Vec<Rung>,
    costs: Vec<u64>,
    /// Pictures of which it is not known what they cost, and those of which that is not known of the best.
    unmeasured: u64,
    short: u64,
}

/// What may be sent, in bit/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Available {
    /// Nothing is known of the path, and will not be.
    Unlimited,
    /// Little is known yet: this is where it starts. One picture goes out in any case, so that there is something to learn.
    Start(u64),
    Known(u64),
}

/// What comes of a division, in bit/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Divided {
    /// What could be used.
    pub wanted: u64,
    /// At which rate pictures leave; `None`: at once.
    pub pace: Option<u64>,
}

impl Allocation {
    pub fn new(policy: Policy) -> Self {
        Self {
            allocator: Allocator::new(policy),
            due: None,
            entries: Vec::new(),
            items: Vec::new(),
            rungs: Vec::new(),
            costs: Vec::new(),
            unmeasured: 0,
            short: 0,
        }
    }

    /// Something changed that it depends on.
    pub fn want(&mut self, now: Instant) {
        self.due = Some(self.due.map_or(now, |due| due.min(now)));
    }

    pub fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Divides what may be sent among the subscriptions that the client has accepted.
    pub fn divide(
        &mut self,
        now: Instant,
        available: Available,
        attention: &Attention<'_>,
        lines: &mut [Line],
        session: &mut Session,
        told: &mut Suspensions,
    ) -> Divided {
        self.collect(lines, attention, session);
        self.due = (!self.entries.is_empty()).then_some(now + INTERVAL);
        let known = Allocator::wanted(&self.costs, &self.items) + UNMEASURED * self.unmeasured;
        let wanted = known + UNMEASURED * self.short;
        let available = match available {
            Available::Unlimited => None,
            Available::Known(bitrate) => Some(bitrate),
            Available::Start(bitrate) => Some(bitrate.max(self.least())),
        };
        if let Some(available) = available {
            self.allocator.allocate(now, available, &self.costs, &mut self.items);
        }
        let mut granted = 0;
        for (entry, item) in self.entries.iter().zip(&self.items) {
            let Some(carried) = carried(lines, entry.line) else { continue };
            // What the client pauses, or who has not spoken, comes back at once: nothing was learnt of the path by that.
            let is_unwanted = carried.share.is_unwanted();
            carried.share.memory = if is_unwanted { Memory::default() } else { item.memory() };
            if carried.track.kind == TrackKind::Audio {
                granted += item.voice();
                continue;
            }
            let rungs = &self.rungs[entry.span.first..][..entry.span.count];
            let wish = (!is_unwanted).then(|| limit(carried).target);
            let encodings = carried.track.encodings;
            let given = match available {
                None => Given::unlimited(wish, rungs, entry.is_whole, encodings),
                Some(_) if rungs.is_empty() => Given::unmeasured(wish, encodings),
                Some(_) => {
                    let grant = item.grant();
                    let step = |index: Option<usize>| rungs.get(index?).copied();
                    granted += step(grant.layer).map_or(0, |rung| rung.bitrate);
                    let last = Some(rungs.len() - 1);
                    // What never came may cost more than there is: it is asked for, and measured before anybody gets it.
                    let is_best = grant.layer == last
                        && entry.is_whole
                        && (!entry.is_short || available.is_some_and(|available| available >= wanted));
                    let soon = step(grant.wanted).map_or(0, |rung| rung.target.encoding.0 + 1);
                    Given {
                        target: if is_best { wish } else { step(grant.layer).map(|rung| rung.target) },
                        reach: if entry.is_short && grant.wanted == last {
                            reach(wish, encodings)
                        } else {
                            soon
                        },
                        is_suspended: grant.is_suspended,
                    }
                }
            };
            carried.share.is_sent = given.target.is_some();
            let top = rungs.last().filter(|_| !entry.is_whole).map(|rung| rung.target);
            carried.share.best = wish.map(|wish| top.unwrap_or(wish));
            carried.share.note(now, given.is_suspended, carried.track.track_id, told);
            carried.share.tell_held(carried.track.track_id, told);
            session.set_target(now, carried.subscription, given.target);
            session.set_reach(now, carried.subscription, given.reach);
        }
        let is_narrow = |available: &u64| {
            granted < known || available.saturating_mul(100) < wanted.saturating_mul(UNPACED_FROM)
        };
        Divided { wanted, pace: available.filter(is_narrow).map(|_| granted) }
    }

    /// The least that shows any picture, beside all voices.
    fn least(&self) -> u64 {
        let voices: u64 = self.items.iter().map(Item::voice).sum();
        let lowest = self.entries.iter().filter(|entry| entry.span.count > 0);
        voices + lowest.map(|entry| self.costs[entry.span.first]).min().unwrap_or(0)
    }

    /// Collects what there is to divide among; what is paused by the client's own wish, or held, is left out.
    fn collect(&mut self, lines: &mut [Line], attention: &Attention<'_>, session: &mut Session) {
        self.entries.clear();
        self.items.clear();
        self.rungs.clear();
        self.costs.clear();
        self.unmeasured = 0;
        self.short = 0;
        for line in 0..lines.len() {
            let Some(carried) = carried(lines, line) else { continue };
            let track = &carried.track;
            // A muted one costs nothing, and goes on as it was; so does a voice while others are louder.
            if session.is_muted(track.publication) || session.is_held(track.publication) {
                carried.share.is_sent = false;
                continue;
            }
            carried.share.is_held = attention.leaves_out(track, &carried.share.wish);
            let layers = session.layers(track.publication);
            let first = self.rungs.len();
            let (mut is_whole, mut is_short) = (true, false);
            if track.kind == TrackKind::Video && !carried.share.is_unwanted() {
                is_whole = ladder::climb(layers, limit(carried), motion(track), &mut self.rungs);
                is_short = ladder::is_short(layers, limit(carried), track.encodings);
                self.unmeasured += u64::from(layers.is_empty());
                self.short += u64::from(is_short);
            }
            self.costs.extend(self.rungs[first..].iter().map(|rung| rung.bitrate));
            let span = Span { first, count: self.rungs.len() - first };
            let request = match track.kind {
                TrackKind::Audio => {
                    Request::Voice { bitrate: layers.last().map_or(0, |layer| layer.bitrate) }
                }
                TrackKind::Video => {
                    Request::Picture { layers: span, priority: priority(carried, attention.speaking) }
                }
            };
            self.entries.push(Entry { line, span, is_whole, is_short });
            self.items.push(Item::new(request, carried.share.memory));
        }
    }
}

/// What one picture gets.
struct Given {
    target: Option<Target>,
    /// Encodings that could be used soon.
    reach: u8,
    is_suspended: bool,
}

impl Given {
    fn unlimited(target: Option<Target>, rungs: &[Rung], is_whole: bool, encodings: u8) -> Self {
        let best = rungs.last().filter(|_| !is_whole).map(|rung| rung.target);
        let target = target.map(|wish| best.unwrap_or(wish));
        Self { target, reach: reach(target, encodings), is_suspended: false }
    }

    /// Nothing is known of its layers yet: the lowest encoding costs least.
    fn unmeasured(target: Option<Target>, encodings: u8) -> Self {
        let lowest = Target { encoding: EncodingId(0), ..Target::BEST };
        let start = target.map(|wish| if encodings > 1 { wish.min(lowest) } else { wish });
        Self { target: start, reach: reach(target, encodings), is_suspended: false }
    }
}

fn reach(target: Option<Target>, encodings: u8) -> u8 {
    target.map_or(0, |target| target.encoding.0.saturating_add(1).min(encodings))
}

fn carried(lines: &mut [Line], line: usize) -> Option<&mut Carried> {
    lines.get_mut(line)?.sending_mut()?.carried.as_mut().filter(|carried| carried.sender.is_some())
}

/// What a client's wish comes to for its track. Layers are limited in the best encoding that is wished for.
fn limit(carried: &Carried) -> Limit {
    let (wish, highest) = (carried.share.wish, carried.track.encodings.saturating_sub(1));
    let shown = wish.shown.map(|shown| Resolution { width: shown.width, height: shown.height });
    if (wish.max_encoding, wish.max_spatial, wish.max_temporal) == (None, None, None) {
        return Limit { target: Target::BEST, shown };
    }
    let up_to = |layer: Option<u8>| layer.unwrap_or(u8::MAX);
    Limit {
        target: Target {
            encoding: EncodingId(up_to(wish.max_encoding).min(highest)),
            spatial: up_to(wish.max_spatial),
            temporal: up_to(wish.max_temporal),
        },
        shown,
    }
}

fn motion(track: &SourceTrack) -> Motion {
    if track.source == TrackSource::Screen { Motion::Sharp } else { Motion::Smooth }
}

/// Pinned tracks first, then screens, then who speaks.
fn priority(carried: &Carried, speaking: &[ParticipantId]) -> u8 {
    let track = &carried.track;
    let pinned = carried.share.wish.priority.min(Wish::MAX_PRIORITY);
    let is_screen = track.source == TrackSource::Screen;
    4 * pinned + 2 * u8::from(is_screen) + u8::from(speaking.contains(&track.participant_id))
}

#[cfg(test)]
mod tests;
