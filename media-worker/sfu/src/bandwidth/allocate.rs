//! An estimate, divided among a subscriber's tracks: voice first, then the lowest layer of every picture,
//! then better layers, by priority.
//!
//! A track goes down as soon as its layer does not fit, and up only with room to spare and some time after
//! it went down, so that an estimate that trembles moves nothing. With too little for any picture all are
//! suspended, which the client is told, and come back when there is clearly more.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

/// How the division behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Below this, in bit/s, no video is sent; it resumes at 1.5 times as much.
    pub suspend_below: u64,
    /// The part of the estimate that an upgrade must leave free.
    pub headroom: f64,
    /// How long after it went down a track stays there. Doubles, up to four times, when it goes down again soon
    /// after it went up.
    pub hold: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { suspend_below: 40_000, headroom: 0.05, hold: Duration::from_secs(1) }
    }
}

const RESUME: f64 = 1.5;
/// What is told to publishers as watched reaches as far beyond the estimate, so that a layer is there when
/// the path becomes wide enough.
const REACH: f64 = 2.0;

/// Where the layers of one picture stand among the costs that a division is given: what each costs in bit/s, in
/// ascending order. None while nothing is published. Layers beyond those the subscriber can show are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    pub first: usize,
    pub count: usize,
}

impl Span {
    fn of(self, costs: &[u64]) -> &[u64] {
        costs.get(self.first..).and_then(|rest| rest.get(..self.count)).unwrap_or_default()
    }
}

/// One track that a subscriber wants.
#[derive(Debug, Clone, Copy)]
pub enum Request {
    /// Always sent, and paid for first; in bit/s.
    Voice { bitrate: u64 },
    Picture {
        layers: Span,
        /// Higher ones are served first: a shared screen, who is pinned, who speaks.
        priority: u8,
    },
}

/// What a track gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Grant {
    /// The place of the layer among the requested ones. `None`: nothing is sent.
    pub layer: Option<usize>,
    /// Whether that is for want of bandwidth.
    pub is_suspended: bool,
    /// The highest layer that the publisher should go on sending for this subscriber (dynacast).
    pub wanted: Option<usize>,
}

/// What is remembered of one track from one division to the next.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    grant: Grant,
    has_begun: bool,
    raised: Option<Instant>,
    lowered: Option<Instant>,
    /// How often in a row it went down soon after it had gone up.
    regrets: u32,
}

impl Memory {
    pub fn grant(&self) -> Grant {
        self.grant
    }

    fn may_rise(&self, now: Instant, hold: Duration) -> bool {
        let hold = hold * (1 << self.regrets.min(2));
        self.lowered.is_none_or(|at| now.saturating_duration_since(at) >= hold)
    }

    fn note(&mut self, now: Instant, grant: Grant, hold: Duration) {
        if self.has_begun && grant.layer < self.grant.layer {
            let is_soon = self.raised.is_some_and(|at| now.saturating_duration_since(at) < 3 * hold);
            self.regrets = if is_soon { self.regrets + 1 } else { 0 };
            self.lowered = Some(now);
        } else if self.has_begun && grant.layer > self.grant.layer {
            self.raised = Some(now);
        }
        self.has_begun |= grant.layer.is_some();
        self.grant = grant;
    }
}

/// One track in a division: what is asked, what is remembered, and so what is granted.
#[derive(Debug, Clone, Copy)]
pub struct Item {
    request: Request,
    memory: Memory,
    /// The layer that is paid for so far.
    chosen: Option<usize>,
}

impl Item {
    pub fn new(request: Request, memory: Memory) -> Self {
        Self { request, memory, chosen: None }
    }

    /// What is to be remembered, with the grant.
    pub fn memory(&self) -> Memory {
        self.memory
    }

    pub fn grant(&self) -> Grant {
        self.memory.grant
    }

    /// What a voice costs in bit/s; nothing for a picture.
    pub fn voice(&self) -> u64 {
        if let Request::Voice { bitrate } = self.request { bitrate } else { 0 }
    }

    fn layers<'a>(&self, costs: &'a [u64]) -> &'a [u64] {
        if let Request::Picture { layers, .. } = self.request { layers.of(costs) } else { &[] }
    }

    fn priority(&self) -> Option<u8> {
        if let Request::Picture { priority, .. } = self.request { Some(priority) } else { None }
    }

    /// The highest layer that costs no more than this, but the lowest in any case.
    fn wanted(&self, costs: &[u64], reach: u64) -> Option<usize> {
        let layers = self.layers(costs);
        let count = layers.iter().take_while(|cost| **cost <= reach).count();
        (!layers.is_empty()).then(|| count.saturating_sub(1))
    }
}

/// Divides estimates; one for each subscriber.
#[derive(Debug, Default)]
pub struct Allocator {
    policy: Policy,
    is_suspended: bool,
    /// Indices of pictures in the order in which they are served; kept for its memory.
    order: Vec<usize>,
}

impl Allocator {
    pub fn new(policy: Policy) -> Self {
        Self { policy, ..Self::default() }
    }

    /// Divides an estimate in bit/s; `costs` are those of all pictures' layers, the grants are in the items' memories.
    /// Returns whether anything changed.
    ///
    /// What the pictures get together never exceeds what the voices leave of the estimate. Among equal
    /// priorities earlier items are served first, but no one's second layer before everyone's first, and
    /// no one's third before everyone's second.
    pub fn allocate(&mut self, now: Instant, estimate: u64, costs: &[u64], items: &mut [Item]) -> bool {
        let voices: u64 = items.iter().map(|item| item.voice()).fold(0, u64::saturating_add);
        self.is_suspended = (estimate as f64)
            < self.policy.suspend_below as f64 * if self.is_suspended { RESUME } else { 1.0 };
        let available = if self.is_suspended { 0 } else { estimate.saturating_sub(voices) };
        self.sort(items);

        let hold = self.policy.hold;
        let spare = (estimate as f64 * self.policy.headroom) as u64;
        self.fill(costs, items, |memory, layer, total| {
            let is_upgrade = memory.has_begun && Some(layer) > memory.grant.layer;
            let limit = if is_upgrade { available.saturating_sub(spare) } else { available };
            total <= limit && (!is_upgrade || memory.may_rise(now, hold))
        });
        let reach = ((estimate as f64 * REACH) as u64).saturating_sub(voices);
        let mut is_changed = false;
        for item in items {
            let layer = if item.priority().is_some() { item.chosen } else { Some(0) };
            let is_suspended = layer.is_none() && !item.layers(costs).is_empty();
            let grant = Grant { layer, is_suspended, wanted: item.wanted(costs, reach).max(layer) };
            is_changed |= grant != item.memory.grant;
            item.memory.note(now, grant, hold);
        }
        is_changed
    }

    /// What all requests would cost together at their best, in bit/s: what there is to probe for.
    pub fn wanted(costs: &[u64], items: &[Item]) -> u64 {
        let best = items.iter().map(|item| item.voice() + item.layers(costs).last().copied().unwrap_or(0));
        best.fold(0, u64::saturating_add)
    }

    fn sort(&mut self, items: &[Item]) {
        self.order.clear();
        self.order.extend((0..items.len()).filter(|index| items[*index].priority().is_some()));
        self.order.sort_unstable_by_key(|index| (Reverse(items[*index].priority()), *index));
    }

    /// Chooses layers while `fits` agrees: it is given a track's memory, the layer, and what all pictures
    /// would cost with it.
    fn fill(&self, costs: &[u64], items: &mut [Item], fits: impl Fn(&Memory, usize, u64) -> bool) {
        let mut total: u64 = 0;
        let mut raise = |item: &mut Item, layer: usize| {
            let layers = item.layers(costs);
            let Some(cost) = layers.get(layer) else { return false };
            let paid = layer.checked_sub(1).map_or(0, |below| layers[below]);
            let with = (total - paid).saturating_add(*cost);
            let fits = fits(&item.memory, layer, with);
            if fits {
                item.chosen = Some(layer);
                total = with;
            }
            fits
        };
        for index in &self.order {
            items[*index].chosen = None;
            raise(&mut items[*index], 0);
        }
        let mut rest = &self.order[..];
        while let Some(first) = rest.first() {
            let priority = items[*first].priority();
            let same = rest.iter().take_while(|index| items[**index].priority() == priority).count();
            let (equals, others) = rest.split_at(same);
            rest = others;
            for layer in 1.. {
                let mut any = false;
                for index in equals {
                    let item = &mut items[*index];
                    any |= item.chosen == Some(layer - 1) && raise(item, layer);
                }
                if !any {
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
