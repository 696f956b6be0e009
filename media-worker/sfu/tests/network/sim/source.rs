//! A publisher as its subscribers' server sees it: pictures in several layers, and what is forwarded of them.

use super::{MS, Micros, Packet, Random};

const FRAME: Micros = 33_333;
const MAX_PACKET: usize = 1200;
/// A keyframe in multiples of a usual frame.
const KEYFRAME: f64 = 4.0;
/// From asking a publisher for a keyframe until it is there.
const KEYFRAME_DELAY: Micros = 80 * MS;

/// How layers relate.
#[derive(Debug, Clone)]
pub struct Ladder {
    /// Bits per second with all overhead, ascending.
    pub layers: Vec<u64>,
    /// Changing the layer needs a keyframe: simulcast. Without: scalable video.
    pub needs_keyframe: bool,
    /// Between two frames.
    pub interval: Micros,
}

impl Ladder {
    pub fn simulcast() -> Self {
        Self { layers: vec![150_000, 500_000, 1_500_000], needs_keyframe: true, interval: FRAME }
    }

    /// A small camera of 10 frames a second: few packets, most of them at once.
    pub fn slow() -> Self {
        Self { layers: vec![60_000, 180_000, 600_000], needs_keyframe: true, interval: 100 * MS }
    }

    /// Steps of a twentieth from 60 kbit/s to 3 Mbit/s: what shows how much of a link an estimate uses.
    pub fn fine() -> Self {
        let layers = (0..81).map(|step| (60_000.0 * 1.05_f64.powi(step)) as u64).collect();
        Self { layers, needs_keyframe: false, interval: FRAME }
    }
}

/// One forwarded track of pictures.
pub struct Source {
    pub ladder: Ladder,
    /// What is forwarded, and what is to be.
    pub layer: Option<usize>,
    pub target: Option<usize>,
    next_frame: Micros,
    frame: u64,
    sequence: u64,
    keyframe_at: Option<Micros>,
}

impl Source {
    pub fn new(ladder: Ladder, start: Micros) -> Self {
        Self {
            ladder,
            layer: None,
            target: None,
            next_frame: start,
            frame: 0,
            sequence: 0,
            keyframe_at: None,
        }
    }

    pub fn request_keyframe(&mut self, now: Micros) {
        self.keyframe_at.get_or_insert(now + KEYFRAME_DELAY);
    }

    /// Appends the packets of the frame that is due, if one is.
    pub fn poll(&mut self, now: Micros, random: &mut Random, out: &mut Vec<Packet>) {
        if now < self.next_frame {
            return;
        }
        self.next_frame += self.ladder.interval;
        if self.target != self.layer {
            match (self.target, self.layer) {
                (None, _) => self.layer = None,
                (Some(_), Some(_)) if !self.ladder.needs_keyframe => self.layer = self.target,
                _ => self.request_keyframe(now),
            }
        }
        let is_key = self.target.is_some() && self.keyframe_at.is_some_and(|at| at <= now);
        if is_key {
            self.keyframe_at = None;
            self.layer = self.target;
        }
        let Some(layer) = self.layer else { return };
        let usual = self.ladder.layers[layer] as f64 * self.ladder.interval as f64 / 8e6;
        let size = usual * (0.8 + 0.4 * random.unit()) * if is_key { KEYFRAME } else { 1.0 };
        let count = (size / MAX_PACKET as f64).ceil().max(1.0);
        for index in 0..count as u32 {
            out.push(Packet::Picture {
                sequence: self.sequence,
                frame: self.frame,
                captured: now,
                is_key,
                is_last: index + 1 == count as u32,
                index,
                size: (size / count).max(60.0) as usize,
            });
            self.sequence += 1;
        }
        self.frame += 1;
    }
}
