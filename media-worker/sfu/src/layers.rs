//! What a publication consists of, and what a subscription should get of it.

use std::time::{Duration, Instant};

use crate::descriptor::{Frame, Resolution};

/// Encodings of one publication that are told apart.
pub const MAX_ENCODINGS: u8 = 3;
/// Spatial and temporal layers that are measured apart; higher ones are counted with the highest.
const LAYERS: usize = 4;
/// Bit rates are those of the last two of these.
const HALF: Duration = Duration::from_millis(500);
/// How far a bit rate follows each new measurement: a keyframe in it is no other layer.
const SMOOTHING: f64 = 0.5;
/// Of each packet, beside its payload.
const RTP_HEADER: usize = 12;

/// One of the streams in which a track is published at once (simulcast): its place in ascending quality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EncodingId(pub u8);

impl EncodingId {
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The best that a subscription may get. What is not published is replaced by the next lower that is; the layers hold
/// for `encoding` itself, of a lower one all are forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    pub encoding: EncodingId,
    pub spatial: u8,
    pub temporal: u8,
}

impl Target {
    /// Everything.
    pub const BEST: Self = Self { encoding: EncodingId(u8::MAX), spatial: u8::MAX, temporal: u8::MAX };

    /// The layers to forward of an encoding.
    pub(crate) fn level(self, encoding: EncodingId) -> Level {
        if encoding == self.encoding {
            Level { spatial: self.spatial, temporal: self.temporal }
        } else {
            Level { spatial: u8::MAX, temporal: u8::MAX }
        }
    }
}

/// The highest layers that are forwarded of an encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Level {
    pub spatial: u8,
    pub temporal: u8,
}

/// One way to receive a publication, with what it costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    pub encoding: EncodingId,
    pub spatial: u8,
    pub temporal: u8,
    /// Of this layer and those that it is built on, in bit/s: RTP headers and payloads of the last second, smoothed.
    pub bitrate: u64,
    pub resolution: Option<Resolution>,
}

impl Layer {
    /// What to ask for to get this.
    pub const fn target(&self) -> Target {
        Target { encoding: self.encoding, spatial: self.spatial, temporal: self.temporal }
    }
}

/// Counts the bytes of one encoding by layer.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    /// Of the half window that is running, and of the one before.
    halves: [[u64; LAYERS * LAYERS]; 2],
    resolutions: [Option<Resolution>; LAYERS],
}

impl Meter {
    pub fn note(&mut self, frame: &Frame, payload: usize) {
        let layer = |layer: u8| usize::from(layer).min(LAYERS - 1);
        self.halves[0][layer(frame.spatial) * LAYERS + layer(frame.temporal)] +=
            (payload + RTP_HEADER) as u64;
        if let Some((spatial, resolution)) = frame.resolution {
            self.resolutions[layer(spatial)] = Some(resolution);
        }
    }

    /// Appends the layers that were seen, in ascending order.
    fn layers(&self, encoding: EncodingId, window: Duration, layers: &mut Vec<Layer>) {
        let bytes = |spatial: usize, temporal: usize| {
            self.halves.iter().map(|half| half[spatial * LAYERS + temporal]).sum::<u64>()
        };
        for spatial in 0..LAYERS {
            for temporal in (0..LAYERS).filter(|temporal| bytes(spatial, *temporal) > 0) {
                let all = (0..=spatial).flat_map(|s| (0..=temporal).map(move |t| (s, t)));
                let total: u64 = all.map(|(s, t)| bytes(s, t)).sum();
                layers.push(Layer {
                    encoding,
                    spatial: spatial as u8,
                    temporal: temporal as u8,
                    bitrate: (u128::from(total) * 8_000_000 / window.as_micros().max(1)) as u64,
                    resolution: self.resolutions[spatial],
                });
            }
        }
    }
}

/// The measured layers of a publication.
#[derive(Debug, Default)]
pub struct Table {
    layers: Vec<Layer>,
    /// Those of the measurement before; kept for its memory.
    before: Vec<Layer>,
    began: Option<Instant>,
    /// How long the half window before took.
    half: Duration,
}

impl Table {
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Whether half a window has passed, so that [`Table::measure`] has something to do.
    pub fn is_due(&mut self, now: Instant) -> bool {
        now.saturating_duration_since(*self.began.get_or_insert(now)) >= HALF
    }

    /// Measures the encodings and starts another half window. Of encodings that are `excused` from arriving it is
    /// remembered what they cost.
    pub fn measure<'a>(
        &mut self,
        now: Instant,
        meters: impl Iterator<Item = (EncodingId, &'a mut Meter)>,
        excused: impl Fn(EncodingId) -> bool,
    ) {
        let running = self.began.replace(now).map_or(HALF, |began| now.saturating_duration_since(began));
        std::mem::swap(&mut self.layers, &mut self.before);
        self.layers.clear();
        for (encoding, meter) in meters {
            let first = self.layers.len();
            meter.layers(encoding, self.half + running, &mut self.layers);
            meter.halves = [Default::default(), meter.halves[0]];
            let mut known = self.before.iter().filter(|layer| layer.encoding == encoding).peekable();
            if known.peek().is_some() && excused(encoding) {
                // What of it still arrives is the rest.
                self.layers.truncate(first);
                self.layers.extend(known);
            } else {
                for layer in &mut self.layers[first..] {
                    if let Some(known) = known.clone().find(|known| known.target() == layer.target()) {
                        let change = SMOOTHING * (layer.bitrate as f64 - known.bitrate as f64);
                        layer.bitrate = (known.bitrate as f64 + change) as u64;
                    }
                }
            }
        }
        self.half = running;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods)]
    fn epoch() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_keyframe_is_no_other_layer() {
        let (mut table, mut meter, start) = (Table::default(), Meter::default(), epoch());
        let mut costs = Vec::new();
        for half in 1..=10u32 {
            let bytes = if half == 6 { 25_000 } else { 10_000 };
            meter.note(&Frame::default(), bytes - RTP_HEADER);
            table.measure(start + HALF * half, [(EncodingId(0), &mut meter)].into_iter(), |_| false);
            costs.push(table.layers()[0].bitrate / 1000);
        }
        assert_eq!(costs[2..5], [160, 160, 160]);
        assert!(costs[5..].iter().all(|cost| (160..=250).contains(cost)), "{costs:?}");
        assert!(costs[9] < 180, "{costs:?}");
    }

    #[test]
    fn a_layer_costs_what_it_and_those_below_it_brought_in_the_last_second() {
        let (mut table, mut meter, start) = (Table::default(), Meter::default(), epoch());
        let frame = |spatial, temporal| Frame { spatial, temporal, ..Frame::default() };
        let mut at = start;
        for step in 0..40u32 {
            at = start + Duration::from_millis(50) * step;
            if table.is_due(at) {
                table.measure(at, [(EncodingId(1), &mut meter)].into_iter(), |_| false);
            }
            // 20 packets a second in each layer.
            for (spatial, temporal, size) in [(0, 0, 1000), (0, 1, 500), (1, 0, 2000), (1, 1, 1000)] {
                meter.note(&frame(spatial, temporal), size - RTP_HEADER);
            }
        }
        let costs: Vec<_> = table.layers().iter().map(|it| (it.spatial, it.temporal, it.bitrate)).collect();
        assert_eq!(costs, [(0, 0, 160_000), (0, 1, 240_000), (1, 0, 480_000), (1, 1, 720_000)]);
        assert!(table.layers().iter().all(|it| it.encoding == EncodingId(1)));
        for half in 1..=3 {
            table.measure(at + HALF * half, [(EncodingId(1), &mut meter)].into_iter(), |_| true);
        }
        assert_eq!(table.layers().len(), 4, "it was stopped, and it is known what it costs");
        table.measure(at + HALF * 4, [(EncodingId(1), &mut meter)].into_iter(), |_| false);
        assert!(table.layers().is_empty(), "what is not sent any more is no layer");
    }
}
