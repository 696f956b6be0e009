//! One endpoint's channels against a client in virtual time.

use rtc::datachannel::message::message_channel_open::ChannelType;
use serde_json::{Value, json};

use super::*;

const STREAM: [u16; 2] = [0, 2];

struct Room {
    now: Instant,
    ada: ParticipantId,
    client: Association,
    server: Data,
    /// What the server took, and what the client got.
    said: Vec<Message>,
    heard: Vec<sctp::Message>,
    /// Nothing comes back from the client.
    is_deaf: bool,
}

impl Room {
    fn new() -> Self {
        let now = Instant::now();
        let mut room = Self {
            now,
            ada: ParticipantId::new(),
            client: Association::new(now, Role::Client),
            server: Data::new(now, Role::Server, sctp::MAX_MESSAGE),
            said: Vec::new(),
            heard: Vec::new(),
            is_deaf: false,
        };
        room.run(Duration::from_millis(100));
        room
    }

    fn with_channels() -> Self {
        let mut room = Self::new();
        room.open(RELIABLE, "reliable", ChannelType::Reliable);
        room.open(LOSSY, "lossy", ChannelType::PartialReliableRexmitUnordered);
        // Until the acknowledgements are acknowledged.
        room.run(Duration::from_millis(500));
        assert_eq!(room.server.stats().open, [1, 1]);
        assert_eq!(room.heard.len(), 2, "two acknowledgements");
        room.heard.clear();
        room
    }

    fn open(&mut self, channel: usize, label: &str, channel_type: ChannelType) {
        self.open_on(STREAM[channel], label, channel_type);
    }

    fn open_on(&mut self, stream: u16, label: &str, channel_type: ChannelType) {
        let open = DataChannelOpen {
            channel_type,
            priority: 0,
            reliability_parameter: 0,
            label: label.into(),
            protocol: PROTOCOL.into(),
        };
        let open = Control::DataChannelOpen(open).marshal().unwrap().freeze();
        self.client.open_stream(stream);
        self.client.write(self.now, stream, Kind::Control, &open);
    }

    fn say(&mut self, channel: usize, json: &Value) {
        let message = Bytes::from(json.to_string());
        assert!(self.client.write(self.now, STREAM[channel], Kind::Text, &message));
    }

    /// Time passes in steps of a millisecond; a packet takes one.
    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += Duration::from_millis(1);
            let now = self.now;
            let mut packets = Vec::new();
            self.server.handle_timeout(now);
            self.server.take_messages(now, self.ada, |message| self.said.push(message));
            self.server.transmit(now, |packet| packets.push(packet.to_vec()));
            for packet in packets {
                self.client.handle_packet(now, &packet);
            }
            self.client.handle_timeout(now);
            while let Some(message) = self.client.next_message() {
                self.heard.push(message);
            }
            while let Some(packet) = self.client.poll_transmit(now) {
                if !self.is_deaf {
                    self.server.handle_packet(now, &packet);
                }
            }
        }
    }
}

fn message(is_lossy: bool, length: usize) -> Arc<Message> {
    Arc::new(Message {
        from: ParticipantId::new(),
        to: None,
        is_lossy,
        kind: Kind::Text,
        frame: vec![b'x'; length].into(),
        event: None,
        is_event_refused: false,
    })
}

#[test]
fn messages_come_and_go_by_the_channel_that_they_belong_to() {
    let mut room = Room::with_channels();
    room.say(RELIABLE, &json!({"topic": "chat", "data": "hello"}));
    room.say(LOSSY, &json!({"data": [1, 2]}));
    room.run(Duration::from_millis(20));
    assert_eq!(room.said.iter().map(|said| said.is_lossy).collect::<Vec<_>>(), [false, true]);
    assert!(room.said.iter().all(|said| said.from == room.ada));
    for is_lossy in [false, true] {
        assert_eq!(room.server.send(room.now, &message(is_lossy, 5_000)), Delivery::Queued);
    }
    room.run(Duration::from_millis(50));
    let mut streams: Vec<_> = room.heard.iter().map(|heard| (heard.stream, heard.bytes.len())).collect();
    streams.sort_unstable();
    assert_eq!(streams, [(STREAM[RELIABLE], 5_000), (STREAM[LOSSY], 5_000)]);
    let stats = room.server.stats();
    assert_eq!((stats.messages_in, stats.messages_out), ([1, 1], [1, 1]));
    assert_eq!(stats.bytes_out, [5_000, 5_000]);
}

#[test]
fn a_channel_of_another_name_is_closed_and_counted() {
    let mut room = Room::with_channels();
    room.open_on(4, "files", ChannelType::Reliable);
    room.run(Duration::from_secs(5));
    assert_eq!(room.client.next_reset(), Some(4));
    let stats = room.server.stats();
    assert_eq!((stats.open, stats.dropped_malformed), ([1, 1], 1));
    assert_eq!(room.server.send(room.now, &message(false, 10)), Delivery::Queued, "the others go on");
}

#[test]
fn a_slow_receiver_loses_lossy_messages_and_its_reliable_channel() {
    let mut room = Room::with_channels();
    room.is_deaf = true;
    room.run(Duration::from_millis(10));
    let count = |room: &mut Room, is_lossy| {
        let is_queued = |delivery| delivery == Delivery::Queued;
        (0..2_000).take_while(|_| is_queued(room.server.send(room.now, &message(is_lossy, 1_024)))).count()
    };
    assert_eq!(count(&mut room, true), MAX_BUFFERED[LOSSY] / 1_024);
    assert_eq!(count(&mut room, false), MAX_BUFFERED[RELIABLE] / 1_024);
    assert_eq!(room.server.send(room.now, &message(true, 1_024)), Delivery::Dropped, "still open");
    assert_eq!(room.server.send(room.now, &message(false, 1_024)), Delivery::NoChannel, "closed");
    let stats = room.server.stats();
    assert_eq!((stats.open, stats.dropped_slow, stats.closed_slow), ([0, 1], 2, 1));
    // What was queued before the gap still arrives, and then the client learns that there is one.
    room.is_deaf = false;
    room.run(Duration::from_secs(60));
    let reliable = room.heard.iter().filter(|heard| heard.stream == STREAM[RELIABLE]).count();
    assert_eq!(reliable, MAX_BUFFERED[RELIABLE] / 1_024);
    assert_eq!(room.client.next_reset(), Some(STREAM[RELIABLE]));
    room.open(RELIABLE, "reliable", ChannelType::Reliable);
    room.run(Duration::from_millis(100));
    assert_eq!(room.server.stats().open, [1, 1], "and may open it again");
    assert_eq!(room.server.send(room.now, &message(false, 10)), Delivery::Queued);
}

#[test]
fn a_fast_sender_is_read_at_its_rate_and_loses_nothing() {
    let mut room = Room::with_channels();
    for number in 0..400 {
        room.say(RELIABLE, &json!({"data": number}));
    }
    room.run(Duration::from_millis(1_000));
    assert!((150..=210).contains(&room.said.len()), "{}", room.said.len());
    room.run(Duration::from_millis(4_000));
    assert_eq!(room.said.len(), 400);
    let numbers: Vec<Value> = room
        .said
        .iter()
        .map(|said| serde_json::from_slice::<Value>(&said.frame).unwrap()["data"].clone())
        .collect();
    assert_eq!(numbers, (0..400).map(|number| json!(number)).collect::<Vec<_>>());
}

#[test]
fn what_is_no_message_is_counted_and_the_next_one_is_heard() {
    let mut room = Room::with_channels();
    room.client.write(room.now, STREAM[RELIABLE], Kind::Binary, &Bytes::from_static(b"\xff\xffnonsense"));
    room.client.write(room.now, STREAM[RELIABLE], Kind::Text, &Bytes::from_static(b"[1]"));
    room.client.write(room.now, STREAM[RELIABLE], Kind::Control, &Bytes::from_static(b"\x03"));
    room.say(RELIABLE, &json!({"data": "x".repeat(sctp::MAX_MESSAGE - 20)}));
    room.say(RELIABLE, &json!({"data": 1}));
    room.run(Duration::from_secs(5));
    let stats = room.server.stats();
    assert_eq!((room.said.len(), stats.dropped_malformed, stats.dropped_too_large), (1, 2, 2));
}

#[test]
fn a_rejected_line_ends_the_association() {
    let mut room = Room::with_channels();
    room.server.reject(room.now);
    room.run(Duration::from_millis(50));
    assert!(room.server.is_over() && room.client.is_over());
    assert_eq!(room.server.send(room.now, &message(false, 10)), Delivery::NoChannel);
    assert_eq!(room.server.stats().ended, 0, "that was no fault of the peer's");
    assert_eq!(room.server.poll_timeout(room.now), None);
}

#[test]
fn the_size_that_a_client_takes_is_respected() {
    assert_eq!([max_message(None), max_message(Some(0)), max_message(Some(1_000))], [65_536, 65_536, 1_000]);
    let mut room = Room::with_channels();
    room.server.set_max_message(1_000);
    assert_eq!(room.server.send(room.now, &message(false, 1_001)), Delivery::Dropped);
    assert_eq!(room.server.stats().dropped_too_large, 1);
}

#[test]
fn what_opens_a_channel_is_read_only_whole() {
    let open = DataChannelOpen {
        channel_type: ChannelType::Reliable,
        priority: 0,
        reliability_parameter: 0,
        label: "reliable".into(),
        protocol: PROTOCOL.into(),
    };
    let whole = Control::DataChannelOpen(open).marshal().unwrap();
    assert_eq!(read_open(&whole).map(|open| open.label), Some(b"reliable".to_vec()));
    for length in 0..whole.len() {
        assert!(read_open(&whole[..length]).is_none(), "{length} bytes");
    }
    // Of a kind that the reader's crate uses for itself, and over whose end it would read.
    assert!(read_open(&[0, 255, 255, 0, 255]).is_none());
    assert!(read_open(&[2]).is_none(), "an acknowledgement of what was never opened");
}
