//! What a subscription can be given of a publication, step by step: the layers that are worth having, each costing more
//! than the one before.
//!
//! Not every layer is. A quarter of the frames of a large camera picture look worse than all of a small one; a shared screen is the
//! other way round. A layer larger than it is shown costs for nothing. And what costs no more than something worse replaces it.

use crate::descriptor::Resolution;
use crate::layers::{Layer, Target};

/// A layer that looks at least as large as it is shown when it is not smaller than this part of that.
const LARGE_ENOUGH: f32 = 0.8;

/// What a picture shows: what makes it better when there is more bandwidth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Motion {
    /// A camera: half of the frames at least.
    #[default]
    Smooth,
    /// A screen: first sharp, then smooth.
    Sharp,
}

/// Up to where a subscription wants to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    pub target: Target,
    /// How large it is shown, in pixels. A layer beyond the first that is about as large is not wanted.
    pub shown: Option<Resolution>,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rung {
    pub target: Target,
    /// In bit/s.
    pub bitrate: u64,
}

/// Appends the steps, in ascending order of quality and cost. `layers` are in ascending order of quality. Returns whether the
/// best step is the best that there is.
pub fn climb(layers: &[Layer], limit: Limit, motion: Motion, rungs: &mut Vec<Rung>) -> bool {
    let first = rungs.len();
    let size = |layer: &Layer| (layer.encoding, layer.spatial);
    let largest = layers.iter().find(|layer| is_enough(layer, limit)).map(size);
    let mut is_whole = true;
    for (index, layer) in layers.iter().enumerate() {
        let Target { encoding, spatial, temporal } = limit.target;
        let is_beyond = layer.encoding > encoding
            || layer.encoding == encoding && (layer.spatial > spatial || layer.temporal > temporal)
            || largest.is_some_and(|largest| size(layer) > largest);
        if is_beyond {
            is_whole = false;
            continue;
        }
        let smoothest = layers[index..].iter().take_while(|it| size(it) == size(layer)).last();
        let missing = smoothest.map_or(0, |smoothest| smoothest.temporal - layer.temporal);
        let is_lowest = layers.first().is_some_and(|lowest| size(lowest) == size(layer));
        if motion == Motion::Smooth && missing > 1 && !is_lowest {
            continue;
        }
        while rungs.len() > first && rungs.last().is_some_and(|worse| worse.bitrate >= layer.bitrate) {
            rungs.pop();
        }
        rungs.push(Rung { target: layer.target(), bitrate: layer.bitrate });
    }
    is_whole
}

/// Whether a publication of so many encodings may have something better within the limit than any layer that is known: an
/// encoding that never came, because its publisher had no time to begin with it before nobody wanted it.
pub fn is_short(layers: &[Layer], limit: Limit, encodings: u8) -> bool {
    let highest = limit.target.encoding.0.min(encodings.saturating_sub(1));
    layers.last().is_some_and(|best| best.encoding.0 < highest)
        && !layers.iter().any(|layer| is_enough(layer, limit))
}

/// Whether it looks as large as it is shown.
fn is_enough(layer: &Layer, limit: Limit) -> bool {
    let suffices = |has: u16, shown: u16| f32::from(has) >= LARGE_ENOUGH * f32::from(shown);
    limit
        .shown
        .zip(layer.resolution)
        .is_some_and(|(shown, has)| suffices(has.width, shown.width) && suffices(has.height, shown.height))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::layers::EncodingId;

    const ALL: Limit = Limit { target: Target::BEST, shown: None };

    fn layer(encoding: u8, temporal: u8, bitrate: u64) -> Layer {
        let height = 180 << encoding;
        let resolution = Some(Resolution { width: height * 16 / 9, height });
        Layer { encoding: EncodingId(encoding), spatial: 0, temporal, bitrate, resolution }
    }

    /// A camera in three encodings with three temporal layers.
    fn camera() -> Vec<Layer> {
        let one = |encoding: u8, full: u64| {
            [(0, 4), (1, 6), (2, 10)].map(|(temporal, tenths)| layer(encoding, temporal, full * tenths / 10))
        };
        [one(0, 150), one(1, 500), one(2, 1500)].concat()
    }

    fn steps(layers: &[Layer], limit: Limit, motion: Motion) -> Vec<(u8, u8)> {
        let mut rungs = Vec::new();
        climb(layers, limit, motion, &mut rungs);
        rungs.iter().map(|rung| (rung.target.encoding.0, rung.target.temporal)).collect()
    }

    #[test]
    fn a_camera_stays_smooth_and_a_screen_sharp() {
        let smooth = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)];
        assert_eq!(steps(&camera(), ALL, Motion::Smooth), smooth);
        let sharp = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)];
        assert_eq!(steps(&camera(), ALL, Motion::Sharp), sharp);
    }

    #[test]
    fn what_costs_no_more_than_something_worse_replaces_it() {
        let layers = [layer(0, 0, 100), layer(0, 1, 300), layer(1, 0, 300), layer(1, 1, 600)];
        assert_eq!(steps(&layers, ALL, Motion::Sharp), [(0, 0), (1, 0), (1, 1)]);
    }

    #[test]
    fn nothing_larger_than_it_is_shown() {
        let shown = |width, height| Limit { shown: Some(Resolution { width, height }), ..ALL };
        let last = |limit| steps(&camera(), limit, Motion::Smooth).last().copied();
        assert_eq!(last(shown(160, 90)), Some((0, 2)));
        assert_eq!(last(shown(390, 220)), Some((0, 2)), "a little smaller is good enough");
        assert_eq!(last(shown(300, 300)), Some((1, 2)), "a square cut out of it needs the height");
        assert_eq!(last(shown(1920, 1080)), Some((2, 2)));
        let mut unknown = camera();
        unknown.iter_mut().for_each(|layer| layer.resolution = None);
        assert_eq!(steps(&unknown, shown(1, 1), Motion::Smooth).last(), Some(&(2, 2)));
    }

    #[test]
    fn an_encoding_that_never_came_may_be_better() {
        let known: Vec<_> = camera().into_iter().filter(|layer| layer.encoding.0 < 2).collect();
        let up_to =
            |encoding| Limit { target: Target { encoding: EncodingId(encoding), ..Target::BEST }, ..ALL };
        let shown = |width, height| Limit { shown: Some(Resolution { width, height }), ..ALL };
        assert!(
            is_short(&known, ALL, 3)
                && is_short(&known, up_to(2), 3)
                && is_short(&known, shown(1280, 720), 3)
        );
        assert!(!is_short(&known, up_to(1), 3), "it is not wanted");
        assert!(!is_short(&known, shown(640, 360), 3), "there is one that is large enough");
        assert!(!is_short(&known, ALL, 2) && !is_short(&camera(), ALL, 3), "it is all known");
        assert!(!is_short(&[], ALL, 3), "then nothing is known");
    }

    #[test]
    fn a_limit_holds_and_is_told() {
        let target = Target { encoding: EncodingId(1), spatial: u8::MAX, temporal: 1 };
        let mut rungs = Vec::new();
        assert!(!climb(&camera(), Limit { target, ..ALL }, Motion::Smooth, &mut rungs));
        assert_eq!(rungs.last().map(|rung| rung.target), Some(Target { spatial: 0, ..target }));
        rungs.clear();
        assert!(climb(&camera(), ALL, Motion::Smooth, &mut rungs));
    }

    proptest! {
        #[test]
        fn always_ascending_and_never_empty_without_a_limit(
            layers in proptest::collection::btree_map((0u8..3, 0u8..4, 0u8..4), 1u64..3_000_000, 1..20),
            is_sharp: bool, before in 0usize..3,
        ) {
            let layers: Vec<_> = layers
                .into_iter()
                .map(|((encoding, spatial, temporal), bitrate)| Layer { spatial, ..layer(encoding, temporal, bitrate) })
                .collect();
            let kept = Rung { target: Target::BEST, bitrate: u64::MAX };
            let mut rungs = vec![kept; before];
            climb(&layers, ALL, if is_sharp { Motion::Sharp } else { Motion::Smooth }, &mut rungs);
            prop_assert!(rungs[..before].iter().all(|rung| *rung == kept), "what was there is left alone");
            let own = &rungs[before..];
            prop_assert!(!own.is_empty());
            prop_assert!(own.is_sorted_by(|a, b| a.bitrate < b.bitrate && a.target < b.target));
            prop_assert_eq!(own.last().map(|rung| rung.target), layers.last().map(Layer::target));
        }
    }
}
