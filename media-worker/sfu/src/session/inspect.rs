//! Questions about the table that change nothing: what arrives, and how each subscription stands.

use super::{Publication, PublicationId, Session, SubscriptionId};
use crate::encoding::Encoding;
use crate::layers::{EncodingId, Level, Target};

/// Why a subscription gets something, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The subscriber cannot receive.
    Inactive,
    /// Nothing of the publication is forwarded to anybody.
    Muted,
    /// Nothing of the publication is forwarded to anybody here, because others are louder.
    Held,
    /// It should get nothing.
    Paused,
    AwaitingKeyframe,
    /// What arrives of the encoding that it is on is forwarded.
    Flowing,
}

/// The layers that a video subscription gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Current {
    pub encoding: EncodingId,
    pub spatial: u8,
    pub temporal: u8,
}

impl Session {
    /// Whether an encoding is being sent, as far as that can be told from what the others bring.
    pub fn is_alive(&self, publication: PublicationId, encoding: EncodingId) -> bool {
        let alive = self.publications.get(publication).map_or(0, |found| found.alive);
        alive.checked_shr(encoding.0.into()).is_some_and(|bits| bits & 1 != 0)
    }

    /// `None` when the subscription is not there.
    pub fn standing(&self, subscription: SubscriptionId) -> Option<Standing> {
        let found = self.subscriptions.get(subscription)?;
        let publication = self.publications.get(found.publication)?;
        Some(if !found.active {
            Standing::Inactive
        } else if found.target.is_none() {
            Standing::Paused
        } else if publication.muted {
            Standing::Muted
        } else if publication.held {
            Standing::Held
        } else if publication.codec.is_video() && found.current.is_none() {
            Standing::AwaitingKeyframe
        } else {
            Standing::Flowing
        })
    }

    /// What a video subscription gets now: the highest layers of its encoding that arrive and are not withheld. `None`
    /// while nothing is forwarded.
    pub fn current_layer(&self, subscription: SubscriptionId) -> Option<Current> {
        let found = self.subscriptions.get(subscription)?;
        let publication = self.publications.get(found.publication)?;
        let encoding = found.current?;
        let structure = publication.encodings.get(encoding.index()).and_then(Encoding::structure);
        let Level { spatial, temporal } =
            publication.arriving(encoding, found.selector.level(structure)).unwrap_or_default();
        Some(Current { encoding, spatial, temporal })
    }

    /// How much of what a target admits a video subscription gets, 0 to 1, counted in layers: those up to the one that
    /// it gets, of those up to the best that arrives. `None` while nothing is measured that it could get.
    pub fn share(&self, subscription: SubscriptionId, wanted: Target) -> Option<f64> {
        let found = self.subscriptions.get(subscription)?;
        let publication = self.publications.get(found.publication)?;
        let layers = publication.table.layers();
        let up_to = |best: Target| {
            let level = |encoding| best.level(encoding);
            let is_within = |encoding: EncodingId, spatial: u8, temporal: u8| {
                let level = level(encoding);
                encoding <= best.encoding && spatial <= level.spatial && temporal <= level.temporal
            };
            layers.iter().filter(|it| is_within(it.encoding, it.spatial, it.temporal)).count()
        };
        let wanted = up_to(wanted);
        let current = self.current_layer(subscription).map_or(0, |current| {
            let Current { encoding, spatial, temporal } = current;
            up_to(Target { encoding, spatial, temporal })
        });
        (wanted > 0).then(|| current.min(wanted) as f64 / wanted as f64)
    }
}

impl Publication {
    /// The highest measured layers of an encoding within these limits.
    fn arriving(&self, encoding: EncodingId, limit: Level) -> Option<Level> {
        let of_it = self.table.layers().iter().filter(|it| it.encoding == encoding);
        let within = of_it.filter(|it| it.spatial <= limit.spatial && it.temporal <= limit.temporal);
        within.map(|it| Level { spatial: it.spatial, temporal: it.temporal }).reduce(|one, other| Level {
            spatial: one.spatial.max(other.spatial),
            temporal: one.temporal.max(other.temporal),
        })
    }
}
