//! Two associations and the link between them, in virtual time.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

impl Association {
    /// What only a client does: opens a stream.
    pub fn open_stream(&mut self, stream: u16) {
        let (_, association) = self.current.as_mut().expect("begun");
        association.open_stream(stream, Identifier::Binary).unwrap();
    }

    pub fn is_established(&self) -> bool {
        self.is_established
    }
}

const DELAY: Duration = Duration::from_millis(20);

struct Link {
    now: Instant,
    client: Association,
    server: Association,
    /// When, whether for the server, and what.
    on_the_way: VecDeque<(Instant, bool, Bytes)>,
    sent: usize,
    /// Every so many packets one is lost.
    loses_every: Option<usize>,
    received: Vec<Message>,
}

impl Link {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            now,
            client: Association::new(now, Role::Client),
            server: Association::new(now, Role::Server),
            on_the_way: VecDeque::new(),
            sent: 0,
            loses_every: None,
            received: Vec::new(),
        }
    }

    fn connected() -> Self {
        let mut link = Self::new();
        link.run(Duration::from_secs(1));
        assert!(link.client.is_established() && link.server.is_established());
        link.client.open_stream(3);
        link
    }

    fn pump(&mut self) {
        for (end, for_server) in [(&mut self.client, true), (&mut self.server, false)] {
            while let Some(packet) = end.poll_transmit(self.now) {
                self.sent += 1;
                if self.loses_every.is_none_or(|every| !self.sent.is_multiple_of(every)) {
                    self.on_the_way.push_back((self.now + DELAY, for_server, packet));
                }
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            self.pump();
            let arrival = self.on_the_way.front().map(|(at, ..)| *at);
            let timers = [self.client.poll_timeout(), self.server.poll_timeout()];
            let next = timers.into_iter().chain([arrival]).flatten().min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.now = self.now.max(next);
            if arrival.is_some_and(|arrival| arrival <= self.now)
                && let Some((_, for_server, packet)) = self.on_the_way.pop_front()
            {
                let end = if for_server { &mut self.server } else { &mut self.client };
                end.handle_packet(self.now, &packet);
            }
            self.client.handle_timeout(self.now);
            self.server.handle_timeout(self.now);
            while let Some(message) = self.server.next_message() {
                self.received.push(message);
            }
        }
        self.now = until;
    }
}

#[test]
fn messages_arrive_whole_and_in_order_over_a_link_that_loses() {
    let mut link = Link::connected();
    link.loses_every = Some(7);
    let messages: Vec<_> =
        (0..40_u8).map(|number| Bytes::from(vec![number; 1 + 1_500 * usize::from(number)])).collect();
    for message in &messages {
        assert!(link.client.write(link.now, 3, Kind::Binary, message));
    }
    link.run(Duration::from_secs(120));
    let received: Vec<_> = link.received.iter().map(|message| message.bytes.clone()).collect();
    assert_eq!(received, messages);
    assert_eq!(link.server.buffered(3), 0);
}

#[test]
fn an_empty_message_is_one() {
    let mut link = Link::connected();
    link.client.write(link.now, 3, Kind::Text, &Bytes::new());
    link.run(Duration::from_secs(1));
    assert_eq!(link.received, [Message { stream: 3, kind: Kind::Text, bytes: Bytes::new() }]);
}

#[test]
fn a_handshake_whose_packets_are_lost_is_repeated() {
    for lost in 3..8 {
        let mut link = Link::new();
        link.loses_every = Some(lost);
        link.run(Duration::from_secs(30));
        assert!(link.client.is_established() && link.server.is_established(), "every {lost}. packet is lost");
    }
}

#[test]
fn a_closed_stream_is_gone_on_both_sides() {
    let mut link = Link::connected();
    link.client.write(link.now, 3, Kind::Text, &Bytes::from_static(b"hi"));
    link.run(Duration::from_secs(1));
    link.server.write(link.now, 3, Kind::Text, &Bytes::from_static(b"the last one"));
    link.server.close_stream(link.now, 3);
    link.run(Duration::from_secs(2));
    assert_eq!(link.client.next_message().unwrap().bytes, b"the last one"[..]);
    assert_eq!(link.client.next_message(), None);
    // The reset waits with its sender until what came before it is taken and acknowledged.
    link.run(Duration::from_secs(30));
    assert_eq!(link.client.next_reset(), Some(3));
    assert_eq!(link.server.next_reset(), Some(3));
    assert!(!link.server.write(link.now, 3, Kind::Text, &Bytes::from_static(b"nobody")));
}

#[test]
fn an_end_is_told() {
    let mut link = Link::connected();
    link.server.end(link.now);
    link.run(Duration::from_secs(1));
    assert!(link.client.is_over() && link.server.is_over());
    link.server.handle_packet(link.now, &[0; 40]);
    assert_eq!(link.server.take_drops(), 1);
}

/// RFC 9260, appendix B.
pub fn checksum(packet: &[u8]) -> u32 {
    let mut sum = !0_u32;
    for (index, byte) in packet.iter().enumerate() {
        let byte = if (8..12).contains(&index) { 0 } else { *byte };
        sum ^= u32::from(byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
        }
    }
    !sum
}

/// Makes a packet pass the first look.
pub fn seal(packet: &mut [u8], tag: [u8; 4]) {
    if packet.len() >= 12 {
        packet[..8].copy_from_slice(&[0x13, 0x88, 0x13, 0x88, tag[0], tag[1], tag[2], tag[3]]);
        let sum = checksum(packet).to_le_bytes();
        packet[8..12].copy_from_slice(&sum);
    }
}

/// The tag that the server expects.
fn tag_of(link: &mut Link) -> [u8; 4] {
    link.client.write(link.now, 3, Kind::Binary, &Bytes::from_static(b"x"));
    let packet = link.client.poll_transmit(link.now).unwrap();
    packet[4..8].try_into().unwrap()
}

#[test]
fn a_far_forward_tsn_costs_no_time() {
    let mut link = Link::connected();
    link.client.write(link.now, 3, Kind::Binary, &Bytes::from_static(b"acknowledged"));
    link.run(Duration::from_secs(1));
    let tag = tag_of(&mut link);
    let mut packet = vec![0; 12];
    packet.extend([192, 0, 0, 8, 0x7f, 0, 0, 0]);
    seal(&mut packet, tag);
    let started = Instant::now();
    for tsn in (0..64).map(|number| number << 26) {
        let tsn: u32 = tsn;
        packet[16..20].copy_from_slice(&tsn.to_be_bytes());
        seal(&mut packet, tag);
        link.server.handle_packet(link.now, &packet);
    }
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert!(link.server.is_over());
}

/// Chunks of any type with any content, well-formed enough to reach the association.
fn chunks() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![Just(0_u8), 0_u8..15, Just(130), Just(192), any::<u8>()];
    let chunk = (kind, any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40));
    proptest::collection::vec(chunk, 0..6).prop_map(|chunks| {
        let mut packet = vec![0; 12];
        for (kind, flags, value) in chunks {
            packet.extend([kind, flags]);
            packet.extend((value.len() as u16 + 4).to_be_bytes());
            packet.extend(&value);
            packet.resize(packet.len().next_multiple_of(4), 0);
        }
        packet
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_packets_panic_or_take_long(packets in proptest::collection::vec(chunks(), 1..30)) {
        let mut link = Link::connected();
        link.client.write(link.now, 3, Kind::Binary, &Bytes::from_static(b"acknowledged"));
        link.run(Duration::from_secs(1));
        let tag = tag_of(&mut link);
        let started = Instant::now();
        for mut packet in packets {
            let tag = if packet.get(12) == Some(&1) { [0; 4] } else { tag };
            seal(&mut packet, tag);
            link.server.handle_packet(link.now, &packet);
            while link.server.next_message().is_some() {}
            while link.server.poll_transmit(link.now).is_some() {}
        }
        link.server.handle_timeout(link.now + Duration::from_secs(1));
        prop_assert!(started.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn no_bytes_panic(packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 1..10)) {
        let mut link = Link::connected();
        for packet in packets {
            link.server.handle_packet(link.now, &packet);
        }
        prop_assert!(!link.server.is_over());
    }
}
