//! Spatial layers in one stream: VP9 by its payload descriptor, AV1 by the dependency descriptor.

use super::*;
use crate::descriptor::dependency::tests::descriptor;

const DESCRIPTOR: u8 = 12;

/// What a packet became: its number among those sent, marker, and changes.
type Sent = (u16, bool, Option<Patch>);

fn hand_in(
    session: &mut Session,
    now: Instant,
    publication: PublicationId,
    packet: &Packet<'_>,
) -> Option<Sent> {
    session.handle_packet(now, publication, packet);
    let mut sent = None;
    while let Some(output) = session.poll_output() {
        if let Output::Forward { sequence, marker, patch, .. } = output {
            sent = Some((sequence.0, marker, patch));
        }
    }
    sent
}

fn up_to(encoding: u8, spatial: u8) -> Option<Target> {
    Some(Target { encoding: EncodingId(encoding), spatial, temporal: u8::MAX })
}

#[test]
fn vp9_layers_come_with_a_keyframe_that_is_asked_for() {
    let (mut session, now) = (Session::new(), epoch());
    let camera = session.publish(Codec::Vp9);
    let viewer = session.subscribe(camera).unwrap();
    session.activate(now, viewer);
    let mut sequence = 0;
    // A picture of three layers: I, L, begins and ends; P unless it is a keyframe.
    let mut picture = |session: &mut Session, id: u8, is_key: bool| -> Vec<Option<(u16, bool)>> {
        let layers = (0..3u8).map(|spatial| {
            sequence += 1;
            let first = if is_key { 0xac } else { 0xec };
            let payload = [first, id, spatial << 1, id, 0xff];
            let packet = Packet { marker: spatial == 2, ..Packet::new(1, sequence, u32::from(id), &payload) };
            hand_in(session, now, camera, &packet).map(|(sequence, marker, _)| (sequence, marker))
        });
        layers.collect()
    };
    assert_eq!(picture(&mut session, 1, true), [Some((1, false)), Some((2, false)), Some((3, true))]);
    session.set_target(now, viewer, up_to(0, 0));
    assert_eq!(session.poll_output(), None, "going down needs no keyframe");
    assert_eq!(picture(&mut session, 2, false), [Some((4, true)), None, None]);
    let later = now + MIN_INTERVAL;
    session.set_target(later, viewer, up_to(0, 1));
    let encoding = EncodingId(0);
    assert_eq!(session.poll_output(), Some(Output::RequestKeyframe { publication: camera, encoding }));
    assert_eq!(picture(&mut session, 3, false), [Some((5, true)), None, None]);
    session.handle_timeout(later + FIRST_RETRY);
    assert_eq!(requests(&mut session), 1, "until it comes");
    assert_eq!(picture(&mut session, 4, true), [Some((6, false)), Some((7, true)), None]);
    assert_eq!(session.poll_timeout(), None);
    assert_eq!(session.counters().withheld, 5);
}

/// A packet of the stream that the descriptor's tests describe (L2T2_KEY).
fn av1(
    session: &mut Session,
    now: Instant,
    camera: PublicationId,
    what: (u8, u8, u16, bool),
) -> Option<Sent> {
    let (encoding, template, number, is_key) = what;
    let bytes = descriptor(template, number, is_key);
    let mut extensions = vec![DESCRIPTOR, bytes.len() as u8];
    extensions.extend(bytes);
    let packet = Packet {
        encoding: EncodingId(encoding),
        extension_profile: 0x1000,
        extensions: &extensions,
        // Encrypted: nothing can be read from it.
        ..Packet::new(7 + u32::from(encoding), number, u32::from(number), &[0x00, 0xff])
    };
    hand_in(session, now, camera, &packet)
}

#[test]
fn encrypted_av1_is_chosen_by_the_dependency_descriptor_alone() {
    let (mut session, now) = (Session::new(), epoch());
    let camera = session.publish(Codec::Av1);
    session.describe(camera, 2, Some(DESCRIPTOR));
    let viewer = session.subscribe(camera).unwrap();
    session.activate(now, viewer);
    session.set_target(now, viewer, up_to(0, 0));
    let send = |session: &mut Session, what| av1(session, now, camera, what);
    assert_eq!(send(&mut session, (0, 1, 90, false)), None, "no keyframe yet");
    assert_eq!(send(&mut session, (0, 0, 100, true)), Some((1, true, None)));
    assert_eq!(send(&mut session, (0, 3, 101, false)), None, "the upper spatial layer");
    assert_eq!(send(&mut session, (0, 2, 102, false)), Some((2, true, None)));
    assert_eq!(send(&mut session, (0, 5, 103, false)), None);
    // The other encoding: its frame numbers go on behind those of the first.
    session.set_target(now, viewer, up_to(1, 1));
    assert_eq!(send(&mut session, (1, 1, 5004, false)), None);
    assert_eq!(send(&mut session, (0, 1, 104, false)), Some((3, true, None)), "the old one until then");
    let number = |number| Some(Patch::FrameNumber(number));
    assert_eq!(send(&mut session, (1, 0, 5100, true)), Some((4, false, number(105))));
    assert_eq!(send(&mut session, (1, 3, 5101, false)), Some((5, true, number(106))));
    assert_eq!(send(&mut session, (0, 2, 106, false)), None);
    assert_eq!(send(&mut session, (1, 2, 5102, false)), None, "not a part of the upper layer");
    assert_eq!(send(&mut session, (1, 5, 5103, false)), Some((6, true, number(108))), "gaps stay");
}
