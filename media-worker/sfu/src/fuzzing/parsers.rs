//! Payload descriptors and header extensions.

use super::Input;
use crate::descriptor::dependency::Reader;
use crate::descriptor::{
    self, PictureNumbers, av1 as av1_descriptor, vp8 as vp8_descriptor, vp9 as vp9_descriptor,
};
use crate::extension::elements;
use crate::{Codec, Extension, ExtensionIds, IdMap};

/// VP8 payload descriptor: read, and its numbers overwritten.
pub fn vp8(data: &[u8]) {
    patched(data, |payload| Some(vp8_descriptor::Descriptor::parse(payload)?.picture));
    descriptor::read(Codec::Vp8, data);
}

/// VP9 payload descriptor: read, and its numbers overwritten.
pub fn vp9(data: &[u8]) {
    patched(data, |payload| Some(vp9_descriptor::Descriptor::parse(payload)?.picture));
    descriptor::read(Codec::Vp9, data);
}

/// H.264 NAL unit headers.
pub fn h264(data: &[u8]) {
    descriptor::read(Codec::H264, data);
}

/// AV1 aggregation header and what stands behind it.
pub fn av1(data: &[u8]) {
    av1_descriptor::Aggregation::parse(data);
    descriptor::read(Codec::Av1, data);
}

/// A patched payload says the new numbers, keeps everything else, and can be patched back.
fn patched(data: &[u8], read: fn(&[u8]) -> Option<PictureNumbers>) {
    let mut input = Input(data);
    let (id, base) = (input.word(), input.byte());
    let payload = input.0;
    let Some(numbers) = read(payload) else { return };
    let Some(patch) = numbers.patch(payload, id, base) else {
        assert!(numbers.id.is_none() && numbers.base.is_none());
        return;
    };
    let mut copy = payload.to_vec();
    patch.apply(&mut copy);
    let mut expected = numbers;
    expected.id = numbers.id.map(|known| known.with(id));
    expected.base = numbers.base.map(|_| base);
    assert_eq!(read(&copy), Some(expected));
    let back = numbers.patch(&copy, numbers.id.map_or(0, |it| it.value), numbers.base.unwrap_or(0));
    back.expect("it was patched before").apply(&mut copy);
    assert_eq!(copy, payload);
}

/// Dependency descriptors of one stream: each behind a byte that says how long it is.
pub fn dependency_descriptor(data: &[u8]) {
    let mut input = Input(data);
    let mut reader = Reader::default();
    while !input.is_empty() {
        let length = input.byte();
        let Some(read) = reader.read(input.bytes(length.into())) else { continue };
        let structure = reader.structure().expect("nothing is read without one");
        assert!((1..=32).contains(&structure.targets()));
        let frame = read.frame();
        for target in 0..structure.targets() {
            let (spatial, temporal) = structure.layers(target);
            assert!(structure.target(spatial, temporal) < structure.targets());
            read.indications.of(target);
        }
        assert!(frame.spatial < 4 && frame.temporal < 8, "the format has no more");
    }
}

/// An extension block: read, and written for a subscriber with other ids.
pub fn header_extensions(data: &[u8]) {
    let mut input = Input(data);
    let profile = input.word();
    let (mut publisher, mut subscriber) = (ExtensionIds::default(), ExtensionIds::default());
    for (id, extension) in (1u8..).zip(Extension::ALL) {
        publisher.set(extension, id);
        subscriber.set(extension, input.byte() & 0x0f);
    }
    let [flags, number, own_id] = input.array();
    let number = (flags & 1 != 0).then_some(u16::from(number));
    let own_bytes = [7; 16];
    let own = (flags & 2 != 0).then_some((own_id % 14 + 1, &own_bytes[..usize::from(flags >> 4) + 1]));
    let block = input.0;
    let map = IdMap::between(&publisher, &subscriber);
    let target = |id| {
        let extension = publisher.extension(id).filter(|extension| extension.is_end_to_end())?;
        subscriber.id(extension)
    };
    let expected: Vec<(u8, usize)> = elements(profile, block)
        .filter_map(|(id, value)| Some((target(id)?, value.len())))
        .chain(own.map(|(id, value)| (id, value.len())))
        .collect();
    let mut out = Vec::new();
    assert_eq!(map.write(profile, block, number, own, &mut out), !expected.is_empty());
    if out.is_empty() {
        return;
    }
    let word = |at: usize| u16::from_be_bytes([out[at], out[at + 1]]);
    assert_eq!(usize::from(word(2)) * 4 + 4, out.len(), "the length is in whole words");
    let read: Vec<_> = elements(word(0), &out[4..]).map(|(id, value)| (id, value.len())).collect();
    assert_eq!(read, expected);
}
