//! Header extensions (RFC 8285): which ones are forwarded, and under which id each subscriber knows them.
//!
//! Ids are negotiated for each connection, so they differ between publisher and subscriber. The map from
//! one to the other is made once for a pair; per packet it is an array look-up.

/// The extensions that are understood, by what they are and not by any negotiated id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Extension {
    /// RFC 9143: the m-line that a packet belongs to. Hop by hop.
    Mid,
    /// RFC 8852: the encoding that a packet belongs to. Hop by hop.
    StreamId,
    /// RFC 8852: the encoding that a retransmission repairs. Hop by hop.
    RepairedStreamId,
    /// Transport-wide sequence number for congestion control. Hop by hop.
    TransportSequence,
    /// Absolute send time. Hop by hop: it says when the sender of this hop sent it.
    AbsoluteSendTime,
    /// RFC 6464: loudness of the audio in the packet.
    AudioLevel,
    /// 3GPP TS 26.114: coordination of video orientation.
    VideoOrientation,
    /// Limits for the receiver's playout delay.
    PlayoutDelay,
    /// AV1 RTP payload format, appendix A.
    DependencyDescriptor,
}

impl Extension {
    pub const ALL: [Self; 9] = [
        Self::Mid,
        Self::StreamId,
        Self::RepairedStreamId,
        Self::TransportSequence,
        Self::AbsoluteSendTime,
        Self::AudioLevel,
        Self::VideoOrientation,
        Self::PlayoutDelay,
        Self::DependencyDescriptor,
    ];

    /// Whether it is meant for the far end rather than for this hop.
    pub const fn is_end_to_end(self) -> bool {
        matches!(
            self,
            Self::AudioLevel | Self::VideoOrientation | Self::PlayoutDelay | Self::DependencyDescriptor
        )
    }
}

/// The largest id that the one-byte form can carry, and that is negotiated here.
pub const MAX_ID: u8 = 14;
const ONE_BYTE_PROFILE: u16 = 0xbede;
const TWO_BYTE_PROFILE: u16 = 0x1000;

/// The ids under which one connection knows the extensions; 0 is unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExtensionIds([u8; Extension::ALL.len()]);

impl ExtensionIds {
    pub fn id(&self, extension: Extension) -> Option<u8> {
        Some(self.0[extension as usize]).filter(|id| *id != 0)
    }

    /// Sets the id. An id outside 1 to 14 is not taken.
    pub fn set(&mut self, extension: Extension, id: u8) {
        if (1..=MAX_ID).contains(&id) {
            self.0[extension as usize] = id;
        }
    }

    pub fn extension(&self, id: u8) -> Option<Extension> {
        Extension::ALL.into_iter().find(|extension| id != 0 && self.0[*extension as usize] == id)
    }
}

/// From a publisher's ids to a subscriber's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IdMap {
    ids: [u8; MAX_ID as usize + 1],
    /// The subscriber's id of the dependency descriptor, or 0.
    descriptor: u8,
}

impl IdMap {
    /// Maps every end-to-end extension that both sides know.
    pub fn between(publisher: &ExtensionIds, subscriber: &ExtensionIds) -> Self {
        let mut map = Self::default();
        for extension in Extension::ALL.into_iter().filter(|extension| extension.is_end_to_end()) {
            if let (Some(from), Some(to)) = (publisher.id(extension), subscriber.id(extension)) {
                map.ids[usize::from(from)] = to;
            }
        }
        map.descriptor = map.target(publisher.id(Extension::DependencyDescriptor).unwrap_or(0)).unwrap_or(0);
        map
    }

    fn target(&self, id: u8) -> Option<u8> {
        self.ids.get(usize::from(id)).copied().filter(|id| *id != 0)
    }

    /// Appends the extension block (profile, length, elements, padding) with the mapped elements of the
    /// received block to `out`. `frame_number`: what the dependency descriptor is to say instead of its own. `own`: an
    /// element of this hop's own behind them, its id and at most 16 bytes. Returns whether there was anything to append.
    pub fn write(
        &self,
        profile: u16,
        block: &[u8],
        frame_number: Option<u16>,
        own: Option<(u8, &[u8])>,
        out: &mut Vec<u8>,
    ) -> bool {
        let mapped =
            || elements(profile, block).filter_map(|(id, value)| Some((self.target(id)?, value))).chain(own);
        let mut wide = false;
        let mut any = false;
        for (_, value) in mapped() {
            any = true;
            wide |= value.is_empty() || value.len() > 16;
        }
        if !any {
            return false;
        }
        let start = out.len();
        out.extend_from_slice(&if wide { TWO_BYTE_PROFILE } else { ONE_BYTE_PROFILE }.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        for (id, value) in mapped() {
            // Element values are at most 255 bytes in either form.
            if wide {
                out.extend_from_slice(&[id, value.len() as u8]);
            } else {
                out.push(id << 4 | (value.len() as u8 - 1));
            }
            out.extend_from_slice(value);
            if let Some(number) = frame_number
                && id == self.descriptor
                && value.len() >= 3
            {
                let at = out.len() - value.len() + 1;
                out[at..at + 2].copy_from_slice(&number.to_be_bytes());
            }
        }
        while !(out.len() - start).is_multiple_of(4) {
            out.push(0);
        }
        let words = ((out.len() - start) / 4 - 1) as u16;
        out[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
        true
    }
}

/// The elements of an extension block, in either form; ends at the first malformed one.
pub fn elements(profile: u16, block: &[u8]) -> Elements<'_> {
    let form = match profile {
        ONE_BYTE_PROFILE => Form::OneByte,
        // The low four bits are the application's own (RFC 8285, section 4.3).
        profile if profile & 0xfff0 == TWO_BYTE_PROFILE => Form::TwoByte,
        _ => return Elements { form: Form::OneByte, rest: &[] },
    };
    Elements { form, rest: block }
}

#[derive(Debug, Clone, Copy)]
enum Form {
    OneByte,
    TwoByte,
}

/// See [`elements`].
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    form: Form,
    rest: &'a [u8],
}

impl<'a> Iterator for Elements<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (&head, rest) = self.rest.split_first()?;
            if head == 0 {
                self.rest = rest;
                continue;
            }
            let (id, length, rest) = match self.form {
                Form::OneByte if head >> 4 == 15 => {
                    self.rest = &[];
                    return None;
                }
                Form::OneByte => (head >> 4, usize::from(head & 0x0f) + 1, rest),
                Form::TwoByte => {
                    let (&length, rest) = rest.split_first()?;
                    (head, usize::from(length), rest)
                }
            };
            if rest.len() < length {
                self.rest = &[];
                return None;
            }
            let (value, rest) = rest.split_at(length);
            self.rest = rest;
            return Some((id, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(pairs: &[(Extension, u8)]) -> ExtensionIds {
        let mut ids = ExtensionIds::default();
        for (extension, id) in pairs {
            ids.set(*extension, *id);
        }
        ids
    }

    #[test]
    fn end_to_end_extensions_change_their_id_and_hop_by_hop_ones_stay_behind() {
        let publisher =
            ids(&[(Extension::Mid, 4), (Extension::AudioLevel, 1), (Extension::TransportSequence, 3)]);
        let subscriber = ids(&[(Extension::Mid, 9), (Extension::AudioLevel, 10)]);
        let map = IdMap::between(&publisher, &subscriber);
        let mut out = Vec::new();
        assert!(map.write(0xbede, &[0x10, 0x7f, 0x31, 0x00, 0x09, 0x40, b'0', 0], None, None, &mut out));
        assert_eq!(out, [0xbe, 0xde, 0, 1, 0xa0, 0x7f, 0, 0]);
    }

    #[test]
    fn nothing_is_written_when_nothing_is_forwarded() {
        let mut out = Vec::new();
        assert!(!IdMap::default().write(0xbede, &[0x10, 0x7f], None, None, &mut out));
        assert!(out.is_empty());
    }

    #[test]
    fn a_value_over_16_bytes_goes_out_in_the_two_byte_form() {
        let both = ids(&[(Extension::DependencyDescriptor, 8)]);
        let mut block = vec![8, 20];
        block.extend([7; 20]);
        let mut out = Vec::new();
        assert!(IdMap::between(&both, &both).write(0x1000, &block, None, None, &mut out));
        assert_eq!(out[..6], [0x10, 0, 0, 6, 8, 20]);
        assert_eq!(elements(0x1000, &out[4..]).collect::<Vec<_>>(), [(8, &[7u8; 20][..])]);
    }

    #[test]
    fn the_dependency_descriptor_gets_another_frame_number() {
        let ids = ids(&[(Extension::AudioLevel, 1), (Extension::DependencyDescriptor, 2)]);
        let map = IdMap::between(&ids, &ids);
        let mut out = Vec::new();
        assert!(map.write(0xbede, &[0x10, 0x7f, 0x22, 0xc1, 0, 9, 0, 0], Some(0x1234), None, &mut out));
        assert_eq!(out[4..], [0x10, 0x7f, 0x22, 0xc1, 0x12, 0x34, 0, 0]);
        out.clear();
        assert!(map.write(0xbede, &[0x21, 0xc1, 9, 0], Some(0x1234), None, &mut out));
        assert_eq!(out[4..], [0x21, 0xc1, 9, 0], "too short to be one");
    }

    #[test]
    fn an_element_of_this_hop_stands_behind_the_others() {
        let mut ids = ExtensionIds::default();
        ids.set(Extension::AudioLevel, 3);
        let map = IdMap::between(&ids, &ids);
        let mut out = Vec::new();
        assert!(map.write(ONE_BYTE_PROFILE, &[0x30, 7, 0, 0], None, Some((5, &[1, 2])), &mut out));
        assert_eq!(out, [0xbe, 0xde, 0, 2, 0x30, 7, 0x51, 1, 2, 0, 0, 0]);
        out.clear();
        assert!(map.write(0, &[], None, Some((5, &[1, 2])), &mut out), "also alone");
        assert_eq!(out, [0xbe, 0xde, 0, 1, 0x51, 1, 2, 0]);
    }

    proptest! {
        #[test]
        fn any_block_is_read_without_panic_and_written_well_formed(
            profile in prop_oneof![Just(0xbedeu16), Just(0x1000), any::<u16>()],
            block in proptest::collection::vec(any::<u8>(), 0..300),
            to in proptest::collection::vec(0u8..=14, Extension::ALL.len()),
        ) {
            let mut publisher = ExtensionIds::default();
            let mut subscriber = ExtensionIds::default();
            for (index, extension) in Extension::ALL.into_iter().enumerate() {
                publisher.set(extension, index as u8 + 1);
                subscriber.set(extension, to[index]);
            }
            let map = IdMap::between(&publisher, &subscriber);
            let expected: Vec<_> =
                elements(profile, &block).filter_map(|(id, value)| Some((map.target(id)?, value.to_vec()))).collect();
            let mut out = Vec::new();
            prop_assert_eq!(map.write(profile, &block, None, None, &mut out), !expected.is_empty());
            if !out.is_empty() {
                prop_assert_eq!(out.len() % 4, 0);
                let written = u16::from_be_bytes([out[0], out[1]]);
                prop_assert_eq!(usize::from(u16::from_be_bytes([out[2], out[3]])) * 4 + 4, out.len());
                let read: Vec<_> = elements(written, &out[4..]).map(|(id, value)| (id, value.to_vec())).collect();
                prop_assert_eq!(read, expected);
            }
        }
    }
}
