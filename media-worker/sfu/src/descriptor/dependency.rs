//! Dependency descriptor (RTP payload format for AV1, appendix A): a header extension that says, for whatever codec
//! and without a look at the payload, which frames a frame needs and to which decode targets it belongs.
//!
//! What repeats stands in templates, which come with keyframes; later descriptors only name one. So a [`Reader`] keeps
//! the last [`Structure`] of its stream.

use super::bits::Bits;
use super::{Frame, Resolution};

/// The format's own bounds.
const MAX_TEMPLATES: usize = 64;
const MAX_SPATIAL: u8 = 3;
const MAX_TEMPORAL: u8 = 7;
/// How many frames back a dependency is remembered; what needs an older one does not switch.
pub const REACH: u16 = 128;

/// What a frame is for one decode target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Indication {
    /// Not a part of it.
    NotPresent,
    /// A part of it on which nothing depends.
    Discardable,
    /// From here on the target decodes, if this frame does.
    Switch,
    Required,
}

/// A frame's indications for all decode targets: two bits each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Indications(u64);

impl Indications {
    /// For a decode target, 0 to 31.
    pub const fn of(self, target: u8) -> Indication {
        match self.0 >> (2 * (target as u32 & 31)) & 3 {
            0 => Indication::NotPresent,
            1 => Indication::Discardable,
            2 => Indication::Switch,
            _ => Indication::Required,
        }
    }

    fn read(bits: &mut Bits<'_>, targets: u8) -> Option<Self> {
        let mut all = 0;
        for target in 0..targets {
            all |= u64::from(bits.take(2)?) << (2 * target);
        }
        Some(Self(all))
    }
}

/// The frames that a frame needs: bit *n* stands for the one *n* + 1 frames before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    pub frames: u128,
    /// It needs one that is further back than [`REACH`].
    pub older: bool,
}

impl Needs {
    pub const fn is_empty(self) -> bool {
        self.frames == 0 && !self.older
    }

    fn add(&mut self, difference: u32) {
        match difference {
            1..=128 => self.frames |= 1 << (difference - 1),
            _ => self.older = true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Template {
    spatial: u8,
    temporal: u8,
    indications: Indications,
    needs: Needs,
}

/// The templates of a stream and what its decode targets are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Structure {
    offset: u8,
    templates: Vec<Template>,
    /// The highest layers of each decode target: spatial, temporal.
    targets: Vec<(u8, u8)>,
    chains: u8,
    /// By spatial layer.
    resolutions: Vec<Resolution>,
}

impl Structure {
    fn read(bits: &mut Bits<'_>) -> Option<Self> {
        let offset = bits.take(6)? as u8;
        let count = bits.take(5)? as u8 + 1;
        let mut templates = Vec::new();
        let (mut spatial, mut temporal) = (0, 0);
        loop {
            templates.push(Template { spatial, temporal, ..Template::default() });
            match bits.take(2)? {
                0 => {}
                1 => temporal += 1,
                2 => (spatial, temporal) = (spatial + 1, 0),
                _ => break,
            }
            if templates.len() >= MAX_TEMPLATES || spatial > MAX_SPATIAL || temporal > MAX_TEMPORAL {
                return None;
            }
        }
        for template in &mut templates {
            template.indications = Indications::read(bits, count)?;
        }
        for template in &mut templates {
            while bits.flag()? {
                template.needs.add(bits.take(4)? + 1);
            }
        }
        let chains = bits.below(u32::from(count) + 1)? as u8;
        if chains > 0 {
            for _ in 0..count {
                bits.below(u32::from(chains))?;
            }
            for _ in 0..templates.len() * usize::from(chains) {
                bits.take(4)?;
            }
        }
        let targets = (0..count).map(|target| highest(&templates, target)).collect();
        let mut resolutions = Vec::new();
        if bits.flag()? {
            for _ in 0..=spatial {
                // Transmitted less one: 65,536 does not fit and is as good as 65,535.
                let mut length = || Some((bits.take(16)? as u16).saturating_add(1));
                resolutions.push(Resolution { width: length()?, height: length()? });
            }
        }
        Some(Self { offset, templates, targets, chains, resolutions })
    }

    /// How many decode targets there are: 1 to 32.
    pub fn targets(&self) -> u8 {
        self.targets.len() as u8
    }

    /// The best decode target with no higher layers than these; the lowest one when all have.
    pub fn target(&self, spatial: u8, temporal: u8) -> u8 {
        let all = || (0u8..).zip(&self.targets);
        let fits = all().filter(|(_, (s, t))| *s <= spatial && *t <= temporal);
        let best =
            fits.max_by_key(|(_, layers)| **layers).or_else(|| all().min_by_key(|(_, layers)| **layers));
        best.map_or(0, |(target, _)| target)
    }

    /// Whether every frame of the decode target `lower` is also one of `higher`.
    pub fn contains(&self, higher: u8, lower: u8) -> bool {
        let is_part = |template: &Template, target| template.indications.of(target) != Indication::NotPresent;
        self.templates.iter().all(|template| is_part(template, higher) || !is_part(template, lower))
    }

    /// The highest layers of a decode target: spatial, temporal.
    pub fn layers(&self, target: u8) -> (u8, u8) {
        self.targets.get(usize::from(target)).copied().unwrap_or_default()
    }
}

fn highest(templates: &[Template], target: u8) -> (u8, u8) {
    let parts = || templates.iter().filter(|it| it.indications.of(target) != Indication::NotPresent);
    let spatial = parts().map(|it| it.spatial).max().unwrap_or_default();
    let temporal = parts().map(|it| it.temporal).max().unwrap_or_default();
    (spatial, temporal)
}

/// One packet's descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    pub starts_frame: bool,
    pub ends_frame: bool,
    /// Counts the frames of the stream, all layers together.
    pub number: u16,
    pub spatial: u8,
    pub temporal: u8,
    pub indications: Indications,
    pub needs: Needs,
    /// It brought a new structure: a keyframe.
    pub has_structure: bool,
    pub resolution: Option<Resolution>,
}

impl Descriptor {
    pub fn frame(&self) -> Frame {
        Frame {
            starts_keyframe: self.starts_frame && self.has_structure && self.needs.is_empty(),
            ends: self.ends_frame,
            spatial: self.spatial,
            temporal: self.temporal,
            resolution: self.resolution.map(|it| (self.spatial, it)),
            ..Frame::default()
        }
    }
}

/// Reads the descriptors of one stream.
#[derive(Debug, Clone, Default)]
pub struct Reader {
    structure: Option<Structure>,
    /// The frame that brought the structure.
    since: u16,
}

impl Reader {
    /// The last structure, if there was one.
    pub fn structure(&self) -> Option<&Structure> {
        self.structure.as_ref()
    }

    /// Reads one packet's descriptor. `None` when it is malformed or names a template that is not known, because
    /// the keyframe that brought it was lost.
    pub fn read(&mut self, bytes: &[u8]) -> Option<Descriptor> {
        let mut bits = Bits::new(bytes);
        let (starts_frame, ends_frame) = (bits.flag()?, bits.flag()?);
        let (id, number) = (bits.take(6)? as u8, bits.take(16)? as u16);
        let mut flags = [false; 5];
        if bytes.len() > 3 {
            for flag in &mut flags {
                *flag = bits.flag()?;
            }
        }
        let [has_structure, has_active, own_indications, own_needs, own_chains] = flags;
        if has_structure {
            let structure = Structure::read(&mut bits)?;
            // A keyframe from before the last one comes late and is no use to anybody.
            let is_older = self.structure.is_some() && (number.wrapping_sub(self.since) as i16) < 0;
            if is_older && number.wrapping_sub(self.since) as i16 > -0x1000 {
                return None;
            }
            (self.structure, self.since) = (Some(structure), number);
        }
        let structure = self.structure.as_ref()?;
        if has_active {
            bits.take(u32::from(structure.targets()))?;
        }
        let index = (id + 64 - structure.offset) % 64;
        let mut template = *structure.templates.get(usize::from(index))?;
        if own_indications {
            template.indications = Indications::read(&mut bits, structure.targets())?;
        }
        if own_needs {
            template.needs = Needs::default();
            loop {
                match bits.take(2)? {
                    0 => break,
                    size => template.needs.add(bits.take(4 * size)? + 1),
                }
            }
        }
        if own_chains {
            for _ in 0..structure.chains {
                bits.take(8)?;
            }
        }
        let Template { spatial, temporal, indications, needs } = template;
        let resolution = structure.resolutions.get(usize::from(spatial)).copied();
        Some(Descriptor {
            starts_frame,
            ends_frame,
            number,
            spatial,
            temporal,
            indications,
            needs,
            has_structure,
            resolution,
        })
    }
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Writes bit by bit, for descriptors of tests.
    #[derive(Default)]
    pub struct Writer(Vec<bool>);

    impl Writer {
        pub fn put(&mut self, value: u32, count: u32) -> &mut Self {
            self.0.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
            self
        }

        pub fn bytes(&self) -> Vec<u8> {
            let byte = |bits: &[bool]| {
                bits.iter().enumerate().fold(0, |byte, (at, bit)| byte | u8::from(*bit) << (7 - at))
            };
            self.0.chunks(8).map(byte).collect()
        }
    }

    /// Two spatial layers with two temporal layers each; between keyframes the upper needs nothing of the lower
    /// (L2T2_KEY). Decode targets 0: S0 T0, 1: S0 T1, 2: S1 T0, 3: S1 T1.
    pub const TEMPLATES: [(u8, u8, &str, &[u32]); 6] = [
        (0, 0, "SSSS", &[]),
        (0, 0, "SS--", &[4]),
        (0, 1, "-D--", &[2]),
        (1, 0, "--SS", &[1]),
        (1, 0, "--SS", &[4]),
        (1, 1, "---D", &[2]),
    ];

    /// A descriptor with start and end of its frame.
    pub fn descriptor(template: u8, number: u16, with_structure: bool) -> Vec<u8> {
        const OFFSET: u8 = 60;
        let mut out = Writer::default();
        out.put(3, 2).put(u32::from((template + OFFSET) % 64), 6).put(u32::from(number), 16);
        if !with_structure {
            return out.bytes();
        }
        out.put(0b10000, 5).put(u32::from(OFFSET), 6).put(3, 5);
        for next in [0, 1, 2, 0, 1, 3] {
            out.put(next, 2);
        }
        for (_, _, indications, _) in TEMPLATES {
            for indication in indications.chars() {
                out.put("-DSR".find(indication).unwrap() as u32, 2);
            }
        }
        for (.., needs) in TEMPLATES {
            for difference in needs {
                out.put(1, 1).put(difference - 1, 4);
            }
            out.put(0, 1);
        }
        // Two chains (a number below 5 in three bits), two targets protected by each.
        out.put(2, 2);
        for chain in [0, 0, 1, 1] {
            out.put(chain, 1);
        }
        for _ in 0..TEMPLATES.len() * 2 {
            out.put(1, 4);
        }
        out.put(1, 1).put(319, 16).put(179, 16).put(639, 16).put(359, 16);
        out.bytes()
    }

    #[test]
    fn a_keyframe_brings_the_templates_that_later_frames_name() {
        let mut reader = Reader::default();
        assert_eq!(reader.read(&descriptor(1, 7, false)), None, "no templates yet");
        let key = reader.read(&descriptor(0, 65_535, true)).unwrap();
        assert!(key.frame().starts_keyframe);
        assert_eq!(key.resolution, Some(Resolution { width: 320, height: 180 }));
        let structure = reader.structure().unwrap().clone();
        assert_eq!((structure.targets(), structure.chains), (4, 2));
        assert_eq!(
            (0..4).map(|it| structure.layers(it)).collect::<Vec<_>>(),
            [(0, 0), (0, 1), (1, 0), (1, 1)]
        );
        assert_eq!([structure.target(9, 9), structure.target(0, 9), structure.target(1, 0)], [3, 1, 2]);
        for (index, (spatial, temporal, indications, needs)) in TEMPLATES.iter().enumerate() {
            let read = reader.read(&descriptor(index as u8, index as u16, false)).unwrap();
            assert!(read.starts_frame && read.ends_frame && !read.has_structure);
            assert_eq!((read.number, read.spatial, read.temporal), (index as u16, *spatial, *temporal));
            let letter = |target| match read.indications.of(target) {
                Indication::NotPresent => '-',
                Indication::Discardable => 'D',
                Indication::Switch => 'S',
                Indication::Required => 'R',
            };
            assert_eq!((0..4).map(letter).collect::<String>(), *indications);
            let expected = needs.iter().fold(0u128, |all, it| all | 1 << (it - 1));
            assert_eq!(read.needs, Needs { frames: expected, older: false });
        }
        assert_eq!(reader.read(&descriptor(6, 9, false)), None, "an unknown template");
    }

    #[test]
    fn a_frame_may_differ_from_its_template() {
        let mut reader = Reader::default();
        reader.read(&descriptor(0, 1, true)).unwrap();
        let mut own = Writer::default();
        // Own indications R-S-, own needs 2, 17 and 4096 back, own chains.
        own.put(1, 2).put(61, 6).put(2, 16).put(0b00111, 5).put(0b11_00_10_00, 8);
        own.put(1, 2).put(1, 4).put(2, 2).put(16, 8).put(3, 2).put(4095, 12).put(0, 2).put(0, 16);
        let read = reader.read(&own.bytes()).unwrap();
        assert_eq!((read.starts_frame, read.ends_frame, read.spatial, read.temporal), (false, true, 0, 0));
        assert_eq!([0, 1, 2, 3].map(|it| read.indications.of(it) as u8), [3, 0, 2, 0]);
        assert_eq!(read.needs, Needs { frames: 1 << 1 | 1 << 16, older: true });
    }

    proptest! {
        #[test]
        fn no_bytes_panic(all in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 1..20)) {
            let mut reader = Reader::default();
            for bytes in all {
                reader.read(&bytes);
                if let Some(structure) = reader.structure() {
                    prop_assert!(structure.templates.len() <= MAX_TEMPLATES);
                    prop_assert!(structure.target(3, 7) < structure.targets());
                }
            }
        }

        #[test]
        fn no_mutation_of_a_good_one_panics(at in 0usize..60, with: u8, length in 0usize..60) {
            let mut bytes = descriptor(0, 1, true);
            let at = at % bytes.len();
            bytes[at] = with;
            bytes.truncate(length);
            let mut reader = Reader::default();
            reader.read(&bytes);
            for template in 0..64 {
                reader.read(&descriptor(template, 2, false));
            }
        }
    }
}
