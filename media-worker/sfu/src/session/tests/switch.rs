//! Subscriptions that go from one publication to another.

use super::*;

/// Packets of a camera: VP8 without a picture id, its numbers far from every other camera's.
fn packet(ssrc: u32, sequence: u16, payload: &[u8]) -> Packet<'_> {
    Packet::new(ssrc, sequence, ssrc.wrapping_mul(77_777).wrapping_add(u32::from(sequence) * 3000), payload)
}

const KEY: &[u8] = &[0x10, 0x00];
const DELTA: &[u8] = &[0x10, 0x01];

/// Numbers, times and publication of what is forwarded for the packet.
fn send(session: &mut Session, now: Instant, from: PublicationId, packet: &Packet<'_>) -> Option<(u16, u32)> {
    session.handle_packet(now, from, packet);
    let mut sent = None;
    while let Some(output) = session.poll_output() {
        if let Output::Forward { sequence, timestamp, .. } = output {
            sent = Some((sequence.0, timestamp.0));
        }
    }
    sent
}

#[test]
fn the_picture_before_stays_until_a_keyframe_of_the_next_one() {
    let (mut session, mut now) = (Session::new(), epoch());
    let (one, other) = (session.publish(Codec::Vp8), session.publish(Codec::Vp8));
    let viewer = session.subscribe_later();
    session.activate(now, viewer);
    assert_eq!(send(&mut session, now, one, &packet(1, 10, KEY)), None, "nothing was chosen yet");
    session.switch(now, viewer, one);
    assert_eq!(requests(&mut session), 1, "a keyframe is asked for");
    let (sequence, start) = send(&mut session, now, one, &packet(1, 11, KEY)).unwrap();
    assert_eq!(sequence, 1);
    session.switch(now, viewer, other);
    assert_eq!(requests(&mut session), 1);
    now += Duration::from_millis(33);
    assert_eq!(send(&mut session, now, other, &packet(2, 500, DELTA)), None);
    assert_eq!(send(&mut session, now, one, &packet(1, 12, DELTA)).map(|it| it.0), Some(2), "it goes on");
    now += Duration::from_millis(40);
    let (sequence, at) = send(&mut session, now, other, &packet(2, 501, KEY)).unwrap();
    assert_eq!(sequence, 3, "without a gap");
    assert_eq!(at.wrapping_sub(start), 3000 + 3600, "and in time, by when it came");
    assert_eq!(send(&mut session, now, one, &packet(1, 13, KEY)), None, "nothing of the first any more");
    assert_eq!(session.subscriptions_of(one), []);
    assert_eq!(session.subscriptions_of(other), [viewer]);
}

#[test]
fn it_outlives_its_publications_and_its_numbers_go_on() {
    let (mut session, now) = (Session::new(), epoch());
    let viewer = session.subscribe_later();
    session.activate(now, viewer);
    let mut expected = 1;
    for ssrc in 1..5 {
        let camera = session.publish(Codec::Vp8);
        session.switch(now, viewer, camera);
        for start in [100 * ssrc, 100 * ssrc + 50] {
            for (next, payload) in [(start, KEY), (start + 1, DELTA)] {
                let sent = send(&mut session, now, camera, &packet(7, next, payload));
                assert_eq!(sent.map(|it| it.0), Some(expected));
                expected += 1;
            }
            // Away and back to the same one.
            session.leave_publication(now, viewer);
            assert_eq!(send(&mut session, now, camera, &packet(7, start + 2, KEY)), None);
            session.switch(now, viewer, camera);
        }
        session.unpublish(camera);
        assert_eq!(session.tracks(), 1);
    }
    session.unsubscribe(viewer);
    assert_eq!(session.tracks(), 0);
}

#[test]
fn a_voice_changes_with_the_next_packet_and_a_change_of_mind_counts() {
    let (mut session, now) = (Session::new(), epoch());
    let [one, other, third] = [(); 3].map(|()| session.publish(Codec::Opus));
    let listener = session.subscribe_later();
    session.activate(now, listener);
    session.switch(now, listener, one);
    assert!(send(&mut session, now, one, &packet(1, 1, &[0xfc])).is_some());
    session.switch(now, listener, other);
    session.switch(now, listener, third);
    assert_eq!(send(&mut session, now, other, &packet(2, 1, &[0xfc])), None);
    assert_eq!(send(&mut session, now, third, &packet(3, 1, &[0xfc])).map(|it| it.0), Some(2));
    // Back to what it has: it stays there.
    session.switch(now, listener, one);
    session.switch(now, listener, third);
    assert_eq!(send(&mut session, now, one, &packet(1, 2, &[0xfc])), None);
    assert_eq!(send(&mut session, now, third, &packet(3, 2, &[0xfc])).map(|it| it.0), Some(3));
}

#[test]
fn a_publisher_that_is_gone_before_its_keyframe_leaves_the_picture_as_it_was() {
    let (mut session, now) = (Session::new(), epoch());
    let (one, other) = (session.publish(Codec::Vp8), session.publish(Codec::Vp8));
    let viewer = session.subscribe_later();
    session.activate(now, viewer);
    session.switch(now, viewer, one);
    assert!(send(&mut session, now, one, &packet(1, 1, KEY)).is_some());
    session.switch(now, viewer, other);
    session.unpublish(other);
    assert!(send(&mut session, now, one, &packet(1, 2, DELTA)).is_some());
    session.switch(now, viewer, other);
    assert!(
        send(&mut session, now, one, &packet(1, 3, DELTA)).is_some(),
        "what is not there is not waited for"
    );
}

proptest! {
    #[test]
    fn whatever_happens_numbers_and_times_only_grow_and_nothing_leaks(
        steps in proptest::collection::vec((0usize..4, 0u8..7, any::<bool>()), 1..120),
    ) {
        let (mut session, mut now) = (Session::new(), epoch());
        let mut cameras: Vec<PublicationId> = (0..4).map(|_| session.publish(Codec::Vp8)).collect();
        let mut sequences = [0u16, 20_000, 40_000, 65_000];
        let viewer = session.subscribe_later();
        session.activate(now, viewer);
        let (mut expected, mut last) = (1u16, None::<u32>);
        for (camera, what, is_key) in steps {
            now += Duration::from_millis(10);
            match what {
                0 => session.switch(now, viewer, cameras[camera]),
                1 => session.leave_publication(now, viewer),
                2 => {
                    session.unpublish(cameras[camera]);
                    cameras[camera] = session.publish(Codec::Vp8);
                }
                3 => session.handle_timeout(now),
                _ => {
                    sequences[camera] = sequences[camera].wrapping_add(1);
                    let payload = if is_key { KEY } else { DELTA };
                    let sent = packet(camera as u32, sequences[camera], payload);
                    if let Some((sequence, at)) = send(&mut session, now, cameras[camera], &sent) {
                        prop_assert_eq!(sequence, expected);
                        expected += 1;
                        prop_assert!(last.is_none_or(|last| Timestamp(at).is_newer_than(Timestamp(last))));
                        last = Some(at);
                    }
                }
            }
            while session.poll_output().is_some() {}
            let listed: usize =
                cameras.iter().map(|camera| session.subscriptions_of(*camera).len()).sum();
            prop_assert!(listed <= 1);
        }
        session.unsubscribe(viewer);
        prop_assert_eq!(session.tracks(), 4);
    }
}
