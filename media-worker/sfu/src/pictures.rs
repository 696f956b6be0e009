//! The numbers that frames themselves carry, continued for one subscription across encodings, pauses and withheld
//! frames: VP8's and VP9's picture ids and TL0PICIDX, and the dependency descriptor's frame numbers.
//!
//! A VP8 decoder takes a gap in picture ids for a lost frame, so those are closed. VP9 and the dependency descriptor
//! name references by the distance in numbers, so there gaps stay and only encodings are lined up.

use crate::descriptor::{Patch, PictureNumbers};
use crate::numbering::Numbering;
use crate::wrapping::Sequence;

/// One subscription's picture numbers.
#[derive(Debug, Clone, Default)]
pub struct Pictures {
    /// Picture ids, with a 16th bit that is lost again when they are written.
    ids: Numbering,
    id_is_started: bool,
    last_id: Option<Sequence>,
    base_offset: u8,
    last_base: Option<u8>,
    frame_offset: u16,
    last_frame: Option<Sequence>,
}

/// What a frame is called in the publisher's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Names {
    pub picture: PictureNumbers,
    /// The dependency descriptor's frame number.
    pub frame: Option<u16>,
}

impl Pictures {
    /// Another stretch begins with this frame, the next one for the subscriber.
    pub fn start(&mut self, names: &Names) {
        self.id_is_started = false;
        if let Some(id) = names.picture.id {
            self.start_ids(Sequence(id.value));
        }
        if let (Some(base), Some(last)) = (names.picture.base, self.last_base) {
            self.base_offset = last.wrapping_add(1).wrapping_sub(base);
        }
        if let (Some(frame), Some(last)) = (names.frame, self.last_frame) {
            self.frame_offset = last.plus(1).offset_from(Sequence(frame));
        }
    }

    fn start_ids(&mut self, first: Sequence) {
        self.id_is_started = true;
        self.ids.start(first, self.last_id.map_or(first, |last| last.plus(1)));
    }

    /// An id with all 16 bits: the one nearest to what came last.
    fn whole_id(&mut self, numbers: &PictureNumbers) -> Option<Sequence> {
        let id = numbers.id?;
        if !self.id_is_started {
            self.start_ids(Sequence(id.value));
        }
        let newest = self.ids.newest();
        Some(Sequence(newest.0.wrapping_add_signed(id.since(newest.0))))
    }

    /// Leaves a frame out.
    pub fn withhold(&mut self, numbers: &PictureNumbers) {
        if let Some(id) = self.whole_id(numbers) {
            self.ids.withhold(id);
        }
    }

    /// How a packet's payload or descriptor is to be changed, if at all. `Err`: its frame was withheld.
    pub fn forward(&mut self, payload: &[u8], names: &Names) -> Result<Option<Patch>, Withheld> {
        let frame = self.frame(names.frame);
        let numbers = &names.picture;
        let id = match self.whole_id(numbers) {
            Some(id) => Some(self.ids.number(id).ok_or(Withheld)?),
            None => None,
        };
        if let Some(id) = id.filter(|id| self.last_id.is_none_or(|last| id.is_newer_than(last))) {
            self.last_id = Some(id);
        }
        let base = numbers.base.map(|base| base.wrapping_add(self.base_offset));
        // Counts up; what is behind is late.
        if let Some(base) = base
            && self.last_base.is_none_or(|last| base.wrapping_sub(last) < 0x80)
        {
            self.last_base = Some(base);
        }
        let is_same = id.zip(numbers.id).is_none_or(|(sent, known)| known.with(sent.0) == known)
            && base == numbers.base;
        if is_same {
            return Ok(frame);
        }
        Ok(numbers.patch(payload, id.map_or(0, |id| id.0), base.unwrap_or_default()))
    }

    fn frame(&mut self, number: Option<u16>) -> Option<Patch> {
        let sent = Sequence(number?.wrapping_add(self.frame_offset));
        if self.last_frame.is_none_or(|last| sent.is_newer_than(last)) {
            self.last_frame = Some(sent);
        }
        (self.frame_offset != 0).then_some(Patch::FrameNumber(sent.0))
    }
}

/// The frame that a packet is a part of was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Withheld;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::vp8;

    fn payload(id: u16, base: u8) -> Vec<u8> {
        let [high, low] = (id & 0x7fff | 0x8000).to_be_bytes();
        vec![0x90, 0xe0, high, low, base, 0, 1]
    }

    fn names(payload: &[u8]) -> Names {
        Names { picture: vp8::Descriptor::parse(payload).unwrap().picture, frame: None }
    }

    /// What a subscriber reads.
    fn sent(pictures: &mut Pictures, id: u16, base: u8) -> Option<(u16, u8)> {
        let mut payload = payload(id, base);
        if let Some(patch) = pictures.forward(&payload, &names(&payload)).ok()? {
            patch.apply(&mut payload);
        }
        let read = names(&payload).picture;
        Some((read.id?.value, read.base?))
    }

    #[test]
    fn ids_stay_as_they_are_until_something_is_left_out() {
        let mut pictures = Pictures::default();
        let first = payload(32_766, 9);
        pictures.start(&names(&first));
        assert_eq!(pictures.forward(&first, &names(&first)), Ok(None), "nothing to change");
        assert_eq!(sent(&mut pictures, 32_767, 9), Some((32_767, 9)));
        pictures.withhold(&names(&payload(0, 9)).picture);
        pictures.withhold(&names(&payload(0, 9)).picture);
        assert_eq!(sent(&mut pictures, 1, 10), Some((0, 10)), "across the wrap");
        assert_eq!(sent(&mut pictures, 3, 10), Some((2, 10)), "2 is lost and stays a gap");
        assert_eq!(sent(&mut pictures, 2, 10), Some((1, 10)), "which it fits into");
        assert_eq!(sent(&mut pictures, 0, 9), None, "a late packet of the frame that was left out");
    }

    #[test]
    fn another_encoding_goes_on_counting() {
        let mut pictures = Pictures::default();
        pictures.start(&names(&payload(10, 200)));
        assert_eq!(sent(&mut pictures, 10, 200), Some((10, 200)));
        pictures.start(&names(&payload(20_000, 7)));
        assert_eq!(sent(&mut pictures, 20_000, 7), Some((11, 201)));
        assert_eq!(sent(&mut pictures, 20_001, 7), Some((12, 201)));
        assert_eq!(sent(&mut pictures, 20_002, 8), Some((13, 202)));
        pictures.start(&names(&payload(13, 203)));
        assert_eq!(sent(&mut pictures, 13, 203), Some((14, 203)));
    }

    #[test]
    fn frame_numbers_are_lined_up_where_encodings_change() {
        let mut pictures = Pictures::default();
        let frame = |number| Names { frame: Some(number), ..Names::default() };
        pictures.start(&frame(65_535));
        assert_eq!(pictures.forward(&[], &frame(65_535)), Ok(None));
        assert_eq!(pictures.forward(&[], &frame(1)), Ok(None), "gaps stay");
        pictures.start(&frame(500));
        assert_eq!(pictures.forward(&[], &frame(500)), Ok(Some(Patch::FrameNumber(2))));
        assert_eq!(pictures.forward(&[], &frame(502)), Ok(Some(Patch::FrameNumber(4))));
    }
}
