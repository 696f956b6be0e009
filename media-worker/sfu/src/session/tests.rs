use std::time::Duration;

use proptest::prelude::*;

mod layers;
mod svc;
mod switch;

use super::*;
use crate::request::{FIRST_RETRY, MIN_INTERVAL};

// The core itself never reads a clock; a test needs some instant to count from.
#[allow(clippy::disallowed_methods)]
fn epoch() -> Instant {
    Instant::now()
}

fn key(sequence: u16) -> Packet<'static> {
    Packet::new(1, sequence, u32::from(sequence) * 3000, &[0x10, 0x00])
}

fn delta(sequence: u16) -> Packet<'static> {
    Packet::new(1, sequence, u32::from(sequence) * 3000, &[0x10, 0x01])
}

fn forwarded(session: &mut Session) -> Vec<(SubscriptionId, u16)> {
    let mut all = Vec::new();
    while let Some(output) = session.poll_output() {
        if let Output::Forward { subscription, sequence, .. } = output {
            all.push((subscription, sequence.0));
        }
    }
    all
}

fn requests(session: &mut Session) -> usize {
    let mut count = 0;
    while let Some(output) = session.poll_output() {
        count += usize::from(matches!(output, Output::RequestKeyframe { .. }));
    }
    count
}

#[test]
fn video_starts_at_a_keyframe_that_was_asked_for() {
    let (mut session, now) = (Session::new(), epoch());
    let camera = session.publish(Codec::Vp8);
    let viewer = session.subscribe(camera).unwrap();
    session.handle_packet(now, camera, &key(1));
    assert_eq!(forwarded(&mut session), [], "not active yet");
    session.activate(now, viewer);
    assert_eq!(requests(&mut session), 1);
    session.handle_packet(now, camera, &delta(2));
    assert_eq!(forwarded(&mut session), []);
    session.handle_packet(now, camera, &key(3));
    session.handle_packet(now, camera, &delta(4));
    assert_eq!(forwarded(&mut session), [(viewer, 1), (viewer, 2)]);
    let counters = session.counters();
    assert_eq!((counters.inactive, counters.awaiting_keyframe, counters.forwarded), (1, 1, 2));
}

#[test]
fn a_starting_subscription_asks_until_a_keyframe_is_seen() {
    let (mut session, now) = (Session::new(), epoch());
    let camera = session.publish(Codec::Vp8);
    let viewer = session.subscribe(camera).unwrap();
    session.activate(now, viewer);
    assert_eq!(requests(&mut session), 1);
    assert_eq!(session.poll_timeout(), Some(now + FIRST_RETRY));
    session.handle_timeout(now + FIRST_RETRY);
    assert_eq!(requests(&mut session), 1, "asked again");
    session.handle_packet(now + FIRST_RETRY, camera, &key(1));
    assert_eq!(session.poll_timeout(), None);
}

#[test]
fn many_subscribers_that_ask_at_once_get_one_keyframe() {
    let (mut session, now) = (Session::new(), epoch());
    let camera = session.publish(Codec::Vp8);
    let viewers: Vec<_> = (0..20).map(|_| session.subscribe(camera).unwrap()).collect();
    for viewer in &viewers {
        session.activate(now, *viewer);
        session.handle_keyframe_request(now, *viewer);
    }
    assert_eq!(requests(&mut session), 1);
    session.handle_timeout(now + MIN_INTERVAL);
    assert_eq!(requests(&mut session), 1, "what came inside the quiet time is sent at its end");
}

#[test]
fn mute_stops_everything_and_resumes_with_a_keyframe_and_without_a_gap() {
    let (mut session, now) = (Session::new(), epoch());
    let (camera, microphone) = (session.publish(Codec::Vp8), session.publish(Codec::Opus));
    let (picture, sound) = (session.subscribe(camera).unwrap(), session.subscribe(microphone).unwrap());
    session.activate(now, picture);
    session.activate(now, sound);
    for sequence in 1..=2 {
        session.handle_packet(now, camera, &key(sequence));
        session.handle_packet(now, microphone, &delta(sequence));
    }
    assert_eq!(forwarded(&mut session).len(), 4);
    session.set_muted(now, camera, true);
    session.set_muted(now, microphone, true);
    session.handle_packet(now, camera, &key(3));
    session.handle_packet(now, microphone, &delta(3));
    session.handle_keyframe_request(now, picture);
    assert_eq!(session.poll_output(), None, "a muted camera is not asked for keyframes");
    let later = now + Duration::from_secs(9);
    session.set_muted(later, camera, false);
    session.set_muted(later, microphone, false);
    assert_eq!(requests(&mut session), 1);
    session.handle_packet(later, camera, &delta(90));
    session.handle_packet(later, camera, &key(91));
    session.handle_packet(later, microphone, &delta(91));
    assert_eq!(forwarded(&mut session), [(picture, 3), (sound, 3)]);
    assert_eq!(session.counters().muted, 2);
}

#[test]
fn a_voice_that_is_held_is_accepted_and_comes_back_without_a_gap() {
    let (mut session, now) = (Session::new(), epoch());
    let microphone = session.publish(Codec::Opus);
    let listener = session.subscribe(microphone).unwrap();
    session.activate(now, listener);
    let voice = |sequence: u16| Packet::new(1, sequence, u32::from(sequence) * 960, &[0xfc]);
    let at = |sequence: u16| now + Duration::from_millis(20) * u32::from(sequence);
    let mut times = Vec::new();
    for sequence in 1..=20 {
        if sequence == 6 || sequence == 16 {
            session.set_held(microphone, sequence == 6);
        }
        let standing = if session.is_held(microphone) { Standing::Held } else { Standing::Flowing };
        assert_eq!(session.standing(listener), Some(standing));
        session.handle_packet(at(sequence), microphone, &voice(sequence));
        while let Some(output) = session.poll_output() {
            let Output::Forward { sequence, timestamp, .. } = output else { continue };
            times.push((sequence.0, timestamp.0));
        }
    }
    let numbers: Vec<u16> = times.iter().map(|(sequence, _)| *sequence).collect();
    assert_eq!(numbers, (1..=10).collect::<Vec<_>>());
    let counters = session.counters();
    assert_eq!((counters.accepted, counters.held, counters.forwarded), (20, 10, 10));
    let gone_by = times[5].1.wrapping_sub(times[4].1);
    assert!((10 * 960..=12 * 960).contains(&gone_by), "its clock went on: {gone_by}");
}

#[test]
fn a_replaced_source_continues_and_its_late_packets_are_dropped() {
    let (mut session, now) = (Session::new(), epoch());
    let microphone = session.publish(Codec::Opus);
    let listener = session.subscribe(microphone).unwrap();
    session.activate(now, listener);
    let from = |ssrc, sequence| Packet::new(ssrc, sequence, 0, &[1]);
    session.handle_packet(now, microphone, &from(1, 10));
    session.handle_packet(now, microphone, &from(2, 700));
    session.handle_packet(now, microphone, &from(1, 11));
    session.handle_packet(now, microphone, &from(2, 701));
    assert_eq!(forwarded(&mut session), [(listener, 1), (listener, 2), (listener, 3)]);
    assert_eq!(session.counters().replaced_source, 1);
}

#[test]
fn a_subscription_does_not_start_at_a_packet_that_came_late() {
    let (mut session, now) = (Session::new(), epoch());
    let camera = session.publish(Codec::Vp8);
    let viewer = session.subscribe(camera).unwrap();
    for sequence in [10, 12] {
        session.handle_packet(now, camera, &key(sequence));
    }
    session.activate(now, viewer);
    session.handle_packet(now, camera, &key(11));
    assert_eq!(forwarded(&mut session), [], "12 would be missing for ever");
    session.handle_packet(now, camera, &key(13));
    session.handle_packet(now, camera, &delta(15));
    session.handle_packet(now, camera, &delta(14));
    assert_eq!(forwarded(&mut session), [(viewer, 1), (viewer, 3), (viewer, 2)], "later on it fits in");
    session.set_muted(now, camera, true);
    session.handle_packet(now, camera, &key(17));
    session.set_muted(now, camera, false);
    session.handle_packet(now, camera, &key(16));
    assert_eq!(forwarded(&mut session), []);
    session.handle_packet(now, camera, &key(18));
    assert_eq!(forwarded(&mut session), [(viewer, 4)]);
}

#[test]
fn what_is_removed_gets_nothing_and_old_handles_do_nothing() {
    let (mut session, now) = (Session::new(), epoch());
    let microphone = session.publish(Codec::Opus);
    let gone = session.subscribe(microphone).unwrap();
    session.activate(now, gone);
    session.unsubscribe(gone);
    let stays = session.subscribe(microphone).unwrap();
    assert_eq!(gone.index(), stays.index(), "the place is reused");
    session.activate(now, gone);
    session.handle_packet(now, microphone, &delta(1));
    assert_eq!(forwarded(&mut session), []);
    session.unpublish(microphone);
    session.unpublish(microphone);
    session.activate(now, stays);
    session.handle_packet(now, microphone, &delta(2));
    assert_eq!(session.poll_output(), None);
    assert_eq!(session.counters().unknown_publication, 1);
    assert!(session.subscribe(microphone).is_none());
}

#[derive(Debug, Clone)]
enum Step {
    Publish(bool),
    Unpublish(usize),
    Subscribe(usize),
    Unsubscribe(usize),
    Activate(usize),
    Deactivate(usize),
    Mute(usize, bool),
    Packet(usize, u32, bool),
    Request(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        any::<bool>().prop_map(Step::Publish),
        (0..6usize).prop_map(Step::Unpublish),
        (0..6usize).prop_map(Step::Subscribe),
        (0..12usize).prop_map(Step::Unsubscribe),
        (0..12usize).prop_map(Step::Activate),
        (0..12usize).prop_map(Step::Deactivate),
        (0..6usize, any::<bool>()).prop_map(|(publication, muted)| Step::Mute(publication, muted)),
        (0..6usize, 0..3u32, any::<bool>()).prop_map(|(publication, ssrc, key)| Step::Packet(
            publication,
            ssrc,
            key
        )),
        (0..12usize).prop_map(Step::Request),
        (0..800u64).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever happens: packets go only to active subscriptions of that publication, each sees numbers
    /// 1, 2, 3 … as long as the publisher's arrive in order, and every packet is counted exactly once.
    #[test]
    fn forwarding_invariants_hold_for_any_history(steps in proptest::collection::vec(step(), 1..300)) {
        let (mut session, mut now) = (Session::new(), epoch());
        // Each source numbers its own packets; that of a replaced one is none of its successor's.
        let mut publications: Vec<(PublicationId, bool, [u16; 3], bool)> = Vec::new();
        let mut subscriptions: Vec<(SubscriptionId, PublicationId, bool, u16)> = Vec::new();
        let mut received = 0u64;
        let mut wishes = 0u64;
        for step in steps {
            match step {
                Step::Publish(video) => {
                    let codec = if video { Codec::Vp8 } else { Codec::Opus };
                    publications.push((session.publish(codec), video, [0; 3], false));
                }
                Step::Unpublish(index) if index < publications.len() => {
                    let (id, ..) = publications.remove(index);
                    session.unpublish(id);
                    subscriptions.retain(|(_, of, ..)| *of != id);
                }
                Step::Subscribe(index) if index < publications.len() => {
                    let of = publications[index].0;
                    subscriptions.push((session.subscribe(of).unwrap(), of, false, 0));
                }
                Step::Unsubscribe(index) if index < subscriptions.len() => {
                    session.unsubscribe(subscriptions.remove(index).0);
                }
                Step::Activate(index) if index < subscriptions.len() => {
                    subscriptions[index].2 = true;
                    session.activate(now, subscriptions[index].0);
                }
                Step::Deactivate(index) if index < subscriptions.len() => {
                    subscriptions[index].2 = false;
                    session.deactivate(subscriptions[index].0);
                }
                Step::Mute(index, muted) if index < publications.len() => {
                    publications[index].3 = muted;
                    session.set_muted(now, publications[index].0, muted);
                }
                Step::Packet(index, ssrc, is_key) if index < publications.len() => {
                    let (id, _, sequences, muted) = &mut publications[index];
                    let sequence = &mut sequences[ssrc as usize];
                    *sequence = sequence.wrapping_add(1);
                    received += 1;
                    let mut packet = if is_key { key(*sequence) } else { delta(*sequence) };
                    packet.ssrc = ssrc;
                    let before = session.counters().accepted;
                    session.handle_packet(now, *id, &packet);
                    if session.counters().accepted > before {
                        wishes += subscriptions.iter().filter(|(_, of, ..)| of == id).count() as u64;
                    }
                    let (id, muted) = (*id, *muted);
                    while let Some(output) = session.poll_output() {
                        if let Output::Forward { subscription, sequence, .. } = output {
                            prop_assert!(!muted);
                            let found = subscriptions.iter_mut().find(|(id, ..)| *id == subscription);
                            let (_, of, active, last) = found.expect("forwarded to a live subscription");
                            prop_assert!(*active && *of == id);
                            *last = last.wrapping_add(1);
                            prop_assert_eq!(sequence.0, *last);
                        }
                    }
                }
                Step::Request(index) if index < subscriptions.len() => {
                    session.handle_keyframe_request(now, subscriptions[index].0);
                }
                Step::Wait(millis) => {
                    now += Duration::from_millis(millis);
                    session.handle_timeout(now);
                    prop_assert!(session.poll_timeout().is_none_or(|due| due > now));
                }
                _ => {}
            }
            let counters = session.counters();
            prop_assert_eq!(counters.accepted + counters.muted + counters.replaced_source, received);
            let decided = counters.forwarded
                + counters.inactive
                + counters.paused
                + counters.awaiting_keyframe
                + counters.other_encoding
                + counters.withheld
                + counters.before_start;
            prop_assert_eq!(decided, wishes);
        }
    }
}
