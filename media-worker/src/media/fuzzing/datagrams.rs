//! What arrives on the media port.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use sfu::bandwidth::{Config, Estimator};
use sfu::extension::elements;
use sfu::{Extension, ExtensionIds, IdMap};

use super::pieces;
use crate::media::demux::Demux;
use crate::media::rtp::history::Kept;
use crate::media::rtp::packet;
use crate::media::rtp::rtcp::{self as compound, Message};
use crate::media::rtp::send::Label;
use crate::media::transport::dtls::{Dtls, Fingerprint, Identity, Progress, Role, hello};
use crate::media::transport::ice::{Agent, Credentials};
use crate::media::transport::{self, Local, Path, stun as binding};

fn path(port: u16) -> Path {
    Path { remote: ([127, 0, 0, 1], port).into(), local: Local::Unknown }
}

/// The worker's certificate; one for all runs.
pub fn identity() -> &'static Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY.get_or_init(|| Identity::generate().expect("a certificate"))
}

/// An RTP packet: read, and written for a subscriber.
pub fn rtp(data: &[u8]) {
    transport::kind(data);
    let Some((payload_type, read)) = packet::parse(data) else { return };
    assert!(read.payload.len() + read.extensions.len() + 12 <= data.len());
    let mut ids = ExtensionIds::default();
    for (id, extension) in (1u8..).zip(Extension::ALL) {
        ids.set(extension, id);
    }
    elements(read.extension_profile, read.extensions).for_each(drop);
    let kept = Kept {
        extension_profile: read.extension_profile,
        extensions: read.extensions,
        payload: read.payload,
    };
    let label = Label {
        payload_type,
        ssrc: read.ssrc,
        index: read.sequence.0.into(),
        timestamp: read.timestamp,
        original: None,
        marker: read.marker,
        patch: None,
        transport: None,
    };
    let mut out = Vec::new();
    packet::write(label, &kept, &IdMap::between(&ids, &ids), Some((4, &[0, 1])), &mut out);
    let (again, written) = packet::parse(&out).expect("what is written can be read");
    assert_eq!((again, written.payload, written.ssrc), (payload_type, read.payload, read.ssrc));
    assert_eq!((written.sequence, written.marker), (read.sequence, read.marker));
}

/// A compound RTCP packet: read, and its feedback given to the estimate of a path.
pub fn rtcp(data: &[u8]) {
    let mut now = Instant::now();
    let mut estimator = Estimator::new(now, Config::default());
    for _ in 0..32 {
        now += Duration::from_millis(5);
        estimator.handle_sent(now, 1_000);
    }
    now += Duration::from_millis(50);
    compound::read(data, |message| match message {
        Message::Nack { lost, .. } => assert!(lost.sequences().count() <= data.len() / 4 * 17),
        Message::TransportFeedback(feedback) => estimator.handle_feedback(now, feedback.decode()),
        Message::MaximumBitrate(bitrate) => estimator.handle_remb(now, bitrate),
        Message::SenderReport { .. } | Message::Reception(_) | Message::KeyframeRequest { .. } => {}
    });
    estimator.handle_timeout(now + Duration::from_secs(1));
}

/// A binding request: as it is, and as the attributes of an authentic one.
pub fn stun(data: &[u8]) {
    crate::relay::fuzzing::messages(data);
    let mut demux = Demux::default();
    demux.bind_fragment("known", 3);
    demux.owner(path(1), data);
    if let Some(request) = binding::Request::parse(data) {
        assert!(!request.is_authentic("a password that nobody was told"));
    }
    let mut agent = Agent::new(0);
    agent.set_remote(Credentials { fragment: "client".into(), password: "p".repeat(22) });
    let local = agent.local().clone();
    let mut datagram = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    datagram.extend_from_slice(b"twelve bytes");
    attribute(&mut datagram, 6, format!("{}:client", local.fragment).as_bytes());
    datagram.extend_from_slice(&data[..data.len().min(1_000) / 4 * 4]);
    let Ok(length) = u16::try_from(datagram.len() - 20 + 24) else { return };
    datagram[2..4].copy_from_slice(&length.to_be_bytes());
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, local.password.as_bytes());
    let integrity = hmac::sign(&key, &datagram);
    attribute(&mut datagram, 8, integrity.as_ref());
    if let Some(request) = binding::Request::parse(&datagram)
        && let Some(checked) = agent.handle_check(path(2), &request)
    {
        assert!(checked.response.as_bytes().len() >= 20);
        assert_eq!(agent.paths(), [path(2)]);
    }
}

fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// A ClientHello, looked into before DTLS has it.
pub fn client_hello(data: &[u8]) {
    hello::offers_gcm(data);
}

/// Datagrams to a DTLS server that waits, each behind two bytes that say how long it is: nobody is connected by them.
pub fn dtls(data: &[u8]) {
    let mut now = Instant::now();
    let fingerprint = Fingerprint(vec!["00"; 32].join(":"));
    let mut server = Dtls::new(identity(), Role::Server, fingerprint).expect("it is configured as always");
    for (_, datagram) in pieces(data, 0x7ff).take(32) {
        let progress = server.handle_datagram(now, datagram);
        assert_ne!(progress, Progress::Connected);
        while server.poll_transmit().is_some() {}
        server.take_received();
        if progress != Progress::Nothing {
            break;
        }
        now += Duration::from_millis(100);
        server.handle_timeout(now);
        assert!(server.poll_timeout().is_none_or(|due| due > now), "what is due stays due");
    }
    assert!(!server.is_connected());
}
