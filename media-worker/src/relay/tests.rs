//! The relay over loopback, with clients of ours and of webrtc-rs.

use std::time::Instant;

use bytes::BytesMut;
use common::model::ParticipantId;
use common::time::UnixMillis;
use common::turn::Credential;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use rtc::sansio::Protocol as _;
use rtc::shared::{TransportContext, TransportMessage, TransportProtocol};
use rtc::turn::client::{Client as TheirClient, ClientConfig, Event};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::access::{REALM, key};
use super::allocation::Back;
use super::message::{
    BACK, FRONT, Message, Writer, attribute, channel_data, kind, length_in_stream, put_channel_data,
};
use super::probe::{self, ProbeError, Transport};
use super::server::Client;
use super::*;

const SECRET: &str = "north-wind-and-sun";
/// Of what comes over loopback: never reached, unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

/// A relay that runs, and in place of a media port a socket of the test's.
struct Setup {
    address: SocketAddr,
    media: UdpSocket,
    server: Arc<Server>,
    _running: tokio::task::JoinHandle<()>,
}

impl Drop for Setup {
    fn drop(&mut self) {
        self._running.abort();
    }
}

fn config() -> RelayConfig {
    RelayConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        secret: SECRET.parse().unwrap(),
        ports: None,
        max_allocations: 8,
        max_allocations_per_user: 2,
        lifetime: Duration::from_secs(600),
    }
}

async fn setup(config: RelayConfig) -> Setup {
    let media = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let bound = media.local_addr().unwrap();
    let relay = Relay::bind(config, bound, &[bound]).await.unwrap();
    let (address, server) = (relay.local_addr().unwrap(), relay.server.clone());
    Setup { address, media, server, _running: tokio::spawn(relay.run()) }
}

impl Setup {
    fn peer(&self) -> SocketAddr {
        self.media.local_addr().unwrap()
    }

    /// What arrives at the media port, and where from.
    async fn arrives(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 3000];
        let (length, from) = timeout(PATIENCE, self.media.recv_from(&mut buffer)).await.unwrap().unwrap();
        (buffer[..length].to_vec(), from)
    }
}

fn credential(seconds: i64) -> Credential {
    of(&ParticipantId::new().to_string(), seconds)
}

fn of(who: &str, seconds: i64) -> Credential {
    let secret: TurnSecret = SECRET.parse().unwrap();
    let username = format!("{}:{who}", UnixMillis::now().0 / 1000 + seconds);
    Credential { password: secret.password(&username), username }
}

enum Link {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

/// A client that says what the test wants it to.
struct Raw {
    link: Link,
    credential: Credential,
    nonce: String,
}

impl Raw {
    async fn udp(setup: &Setup, credential: Credential) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(setup.address).await.unwrap();
        Self { link: Link::Udp(socket), credential, nonce: String::new() }
    }

    async fn tcp(setup: &Setup, credential: Credential) -> Self {
        let stream = TcpStream::connect(setup.address).await.unwrap();
        Self { link: Link::Tcp(stream), credential, nonce: String::new() }
    }

    async fn send(&mut self, bytes: &[u8]) {
        match &mut self.link {
            Link::Udp(socket) => assert_eq!(socket.send(bytes).await.unwrap(), bytes.len()),
            Link::Tcp(stream) => stream.write_all(bytes).await.unwrap(),
        }
    }

    async fn receive(&mut self) -> Vec<u8> {
        let receiving = async {
            match &mut self.link {
                Link::Udp(socket) => {
                    let mut buffer = vec![0; 3000];
                    let length = socket.recv(&mut buffer).await.unwrap();
                    buffer.truncate(length);
                    buffer
                }
                Link::Tcp(stream) => {
                    let mut message = vec![0; 4];
                    stream.read_exact(&mut message).await.unwrap();
                    let length = length_in_stream(&message).unwrap().unwrap();
                    message.resize(length, 0);
                    stream.read_exact(&mut message[4..]).await.unwrap();
                    message
                }
            }
        };
        timeout(PATIENCE, receiving).await.expect("an answer")
    }

    fn sign(&self, request: Writer) -> Vec<u8> {
        let Credential { username, password } = &self.credential;
        let provider = rtc::crypto::default_provider().unwrap();
        request
            .with(attribute::USERNAME, username.as_bytes())
            .with(attribute::REALM, REALM.as_bytes())
            .with(attribute::NONCE, self.nonce.as_bytes())
            .sign(&key(&*provider, username, REALM, password))
    }

    /// A request with credentials: the code of its refusal, or 0, and the answer.
    async fn ask(&mut self, request: impl Fn(Writer) -> Writer, kind: u16) -> (u16, Vec<u8>) {
        loop {
            let message = self.sign(request(Writer::new(kind, rand::random())));
            self.send(&message).await;
            let answer = self.receive().await;
            let read = Message::parse(&answer).unwrap();
            match read.error() {
                None => return (0, answer),
                Some(438) => read.text(attribute::NONCE).unwrap().clone_into(&mut self.nonce),
                Some(code) => return (code, answer),
            }
        }
    }

    async fn allocate(&mut self) -> Result<SocketAddr, u16> {
        let request = |request: Writer| request.with(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        let (code, answer) = self.ask(request, kind::ALLOCATE).await;
        if code != 0 {
            return Err(code);
        }
        let read = Message::parse(&answer).unwrap();
        assert_eq!(read.number(attribute::LIFETIME), Some(600));
        Ok(read.address(attribute::XOR_RELAYED_ADDRESS).unwrap())
    }

    async fn permit(&mut self, peer: SocketAddr) -> u16 {
        let request = |request: Writer| request.with_address(attribute::XOR_PEER_ADDRESS, peer);
        self.ask(request, kind::CREATE_PERMISSION).await.0
    }

    async fn bind(&mut self, channel: u16, peer: SocketAddr) -> u16 {
        let request = |request: Writer| {
            request
                .with_number(attribute::CHANNEL_NUMBER, u32::from(channel) << 16)
                .with_address(attribute::XOR_PEER_ADDRESS, peer)
        };
        self.ask(request, kind::CHANNEL_BIND).await.0
    }

    async fn refresh(&mut self, lifetime: u32) -> u16 {
        self.ask(|request| request.with_number(attribute::LIFETIME, lifetime), kind::REFRESH).await.0
    }

    async fn indicate(&mut self, peer: SocketAddr, payload: &[u8]) {
        let message = Writer::new(kind::SEND, rand::random())
            .with_address(attribute::XOR_PEER_ADDRESS, peer)
            .with(attribute::DATA, payload)
            .finish();
        self.send(&message).await;
    }

    async fn send_by(&mut self, channel: u16, payload: &[u8]) {
        let mut buffer = vec![0; FRONT + payload.len() + BACK];
        buffer[FRONT..FRONT + payload.len()].copy_from_slice(payload);
        let range = put_channel_data(&mut buffer, payload.len(), channel, matches!(self.link, Link::Tcp(_)));
        let message = buffer[range].to_vec();
        self.send(&message).await;
    }
}

#[tokio::test]
async fn data_goes_there_and_back_over_udp_and_tcp() {
    let setup = setup(config()).await;
    for mut client in [Raw::udp(&setup, credential(60)).await, Raw::tcp(&setup, credential(60)).await] {
        let relayed = client.allocate().await.unwrap();
        assert_eq!(client.permit(setup.peer()).await, 0);
        client.indicate(setup.peer(), b"by indication").await;
        assert_eq!(setup.arrives().await, (b"by indication".to_vec(), relayed));
        setup.media.send_to(b"and back", relayed).await.unwrap();
        let data = client.receive().await;
        let data = Message::parse(&data).unwrap();
        assert_eq!((data.kind, data.get(attribute::DATA)), (kind::DATA, Some(&b"and back"[..])));
        assert_eq!(data.address(attribute::XOR_PEER_ADDRESS), Some(setup.peer()));

        assert_eq!(client.bind(0x4000, setup.peer()).await, 0);
        assert_eq!(client.bind(0x4000, setup.peer()).await, 0, "again");
        assert_eq!(client.bind(0x4001, setup.peer()).await, 400, "another one for the same peer");
        assert_eq!(client.bind(0x3fff, setup.peer()).await, 400);
        client.send_by(0x4000, b"by channel").await;
        assert_eq!(setup.arrives().await, (b"by channel".to_vec(), relayed));
        setup.media.send_to(b"back", relayed).await.unwrap();
        assert_eq!(channel_data(&client.receive().await), Some((0x4000, &b"back"[..])));

        assert_eq!(client.refresh(900).await, 0);
        assert_eq!(setup.server.quota.taken(), 1);
        assert_eq!(client.refresh(0).await, 0, "given back");
        assert_eq!(setup.server.quota.taken(), 0);
    }
}

/// What makes an open relay: none of it leads anywhere.
#[tokio::test]
async fn no_other_peer_is_reached() {
    let setup = setup(config()).await;
    let victim = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    victim.set_nonblocking(true).unwrap();
    let mut client = Raw::udp(&setup, credential(60)).await;
    let relayed = client.allocate().await.unwrap();
    for other in ["127.0.0.2:80", "10.0.0.1:40000", "169.254.169.254:80", "0.0.0.0:80", "255.255.255.255:1"] {
        let other = other.parse().unwrap();
        assert_eq!(client.permit(other).await, 403, "{other}");
        assert_eq!(client.bind(0x4000, other).await, 403, "{other}");
    }
    assert_eq!(client.permit("[::1]:80".parse().unwrap()).await, 443);
    // The media port's own address and another port.
    let there = victim.local_addr().unwrap();
    assert_eq!(client.bind(0x4000, there).await, 403);
    client.indicate(setup.peer(), b"without permission").await;
    assert_eq!(client.permit(setup.peer()).await, 0);
    client.indicate(there, b"to another port").await;
    client.send_by(0x4000, b"by a channel that is not bound").await;
    // Nor is the client reached by anybody else.
    victim.send_to(b"from a stranger", relayed).unwrap();
    client.indicate(setup.peer(), b"to the media port").await;
    assert_eq!(setup.arrives().await.0, b"to the media port", "the first that passed");
    setup.media.send_to(b"from the media port", relayed).await.unwrap();
    let data = client.receive().await;
    let data = Message::parse(&data).unwrap();
    assert_eq!(data.get(attribute::DATA), Some(&b"from the media port"[..]), "the first that passed");
    assert!(victim.recv(&mut [0; 10]).is_err(), "what was sent before has arrived or never will");
    assert_eq!(setup.server.counters.drops(Dropped::Peer), 3);
    assert_eq!(setup.server.counters.refusals(Refused::Peer), 11);
}

#[tokio::test]
async fn bad_credentials_are_refused_and_counted() {
    let setup = setup(config()).await;
    let mut expired = Raw::udp(&setup, credential(-1)).await;
    assert_eq!(expired.allocate().await, Err(401));
    let forged = Credential { password: "guessed".to_owned(), ..credential(60) };
    let mut forged = Raw::tcp(&setup, forged).await;
    assert_eq!(forged.allocate().await, Err(401));
    let counters = &setup.server.counters;
    assert_eq!((counters.refusals(Refused::Expired), counters.refusals(Refused::Credentials)), (1, 1));
    // Another's credentials are good, and not for this allocation.
    let mut ada = Raw::udp(&setup, credential(60)).await;
    ada.allocate().await.unwrap();
    let (_, who) = ada.credential.username.split_once(':').unwrap();
    ada.credential = of(who, 90);
    assert_eq!(ada.refresh(600).await, 0, "a later one of the same participant");
    ada.credential = credential(60);
    assert_eq!(ada.refresh(600).await, 441);
    assert_eq!(ada.permit(setup.peer()).await, 441);
    assert_eq!(ada.allocate().await, Err(437), "one for each address");
}

#[tokio::test]
async fn there_are_so_many_allocations_and_so_many_of_one_user() {
    let setup = setup(RelayConfig { max_allocations: 3, ..config() }).await;
    let mut clients = Vec::new();
    // A later credential of the same participant is the same user.
    for seconds in [60, 70, 80] {
        let mut client = Raw::udp(&setup, of("ada", seconds)).await;
        let expected = if seconds == 80 { Some(486) } else { None };
        assert_eq!(client.allocate().await.err(), expected);
        clients.push(client);
    }
    let mut third = Raw::tcp(&setup, credential(60)).await;
    third.allocate().await.unwrap();
    let mut fourth = Raw::udp(&setup, credential(60)).await;
    assert_eq!(fourth.allocate().await, Err(508));
    assert_eq!(clients[0].refresh(0).await, 0);
    fourth.allocate().await.unwrap();
    let counters = &setup.server.counters;
    assert_eq!((counters.refusals(Refused::UserQuota), counters.refusals(Refused::Full)), (1, 1));
}

#[tokio::test]
async fn an_allocation_that_nobody_refreshes_ends() {
    let setup = setup(config()).await;
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let from = socket.local_addr().unwrap();
    let mut raw = Raw::udp(&setup, credential(60)).await;
    let mut client = Client::new(from, Back::Datagrams(socket, from));
    let (now, server) = (Instant::now(), &setup.server);
    let transport = |request: Writer| request.with(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    let challenge = client.handle(server, now, &Writer::new(kind::ALLOCATE, [1; 12]).finish()).unwrap();
    let challenge = Message::parse(&challenge).unwrap();
    assert_eq!((challenge.error(), challenge.text(attribute::REALM)), (Some(401), Some(REALM)));
    raw.nonce = challenge.text(attribute::NONCE).unwrap().to_owned();
    let allocate = raw.sign(transport(Writer::new(kind::ALLOCATE, [2; 12])));
    let made = client.handle(server, now, &allocate).unwrap();
    assert_eq!(client.handle(server, now, &allocate).unwrap(), made, "sent again");
    let refresh = raw.sign(Writer::new(kind::REFRESH, [3; 12]));
    let error = |answer: Option<Vec<u8>>| Message::parse(&answer.unwrap()).unwrap().error();
    let almost = now + Duration::from_secs(599);
    assert_eq!(error(client.handle(server, almost, &refresh)), None);
    assert_eq!(client.expires(), Some(almost + Duration::from_secs(600)));
    assert_eq!(error(client.handle(server, almost + Duration::from_secs(600), &refresh)), Some(437));
    assert_eq!((client.expires(), server.quota.taken()), (None, 0));

    let odd = raw.sign(transport(Writer::new(kind::ALLOCATE, [4; 12])).with(0x0018, &[0x80, 0, 0, 0]));
    let answer = client.handle(server, now, &odd).unwrap();
    let answer = Message::parse(&answer).unwrap();
    assert_eq!(answer.error(), Some(420));
    assert_eq!(answer.get(attribute::UNKNOWN_ATTRIBUTES), Some(&[0, 0x18][..]));
    let tcp =
        raw.sign(Writer::new(kind::ALLOCATE, [5; 12]).with(attribute::REQUESTED_TRANSPORT, &[6, 0, 0, 0]));
    assert_eq!(error(client.handle(server, now, &tcp)), Some(442));
    let six = transport(Writer::new(kind::ALLOCATE, [6; 12]));
    let six = raw.sign(six.with(attribute::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]));
    assert_eq!(error(client.handle(server, now, &six)), Some(440));
}

#[tokio::test]
async fn junk_ends_nothing_and_leaves_nothing() {
    let setup = setup(config()).await;
    let mut client = Raw::udp(&setup, credential(60)).await;
    client.allocate().await.unwrap();
    let valid = client.sign(
        Writer::new(kind::CHANNEL_BIND, [1; 12])
            .with_number(attribute::CHANNEL_NUMBER, 0x4000_0000)
            .with_address(attribute::XOR_PEER_ADDRESS, setup.peer()),
    );
    // The same bytes in every run.
    let mut runner = TestRunner::deterministic();
    let junk = prop::collection::vec(any::<u8>(), 0..1400);
    let flips = prop::collection::vec((0..valid.len(), any::<u8>()), 1..4);
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    stranger.connect(setup.address).await.unwrap();
    let mut answers = vec![0; 2000];
    for _ in 0..300 {
        let mut changed = valid.clone();
        for (at, value) in flips.new_tree(&mut runner).unwrap().current() {
            changed[at] = value;
        }
        let junk = junk.new_tree(&mut runner).unwrap().current();
        let cut = &valid[..junk.len() % valid.len()];
        for bytes in [&junk[..], &changed, cut] {
            stranger.send(bytes).await.unwrap();
            client.send(bytes).await;
        }
        while let Ok(length) = stranger.try_recv(&mut answers) {
            let answer = Message::parse(&answers[..length]).unwrap();
            assert!(answer.error().is_some() || answer.kind == kind::BINDING | kind::SUCCESS);
        }
    }
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 100], &[0x16; 100], &[0x40, 0, 0xff, 0xff]] {
        let mut stream = TcpStream::connect(setup.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let end = timeout(PATIENCE, stream.read(&mut [0; 10])).await.expect("it is closed, or idle too long");
        assert!(!matches!(end, Ok(1..)), "nothing is answered to {bytes:?}");
    }
    let mut after = Raw::udp(&setup, credential(60)).await;
    after.allocate().await.unwrap();
    assert_eq!(setup.server.quota.taken(), 2, "the two that asked for it");
    assert!(setup.server.counters.drops(Dropped::Malformed) > 300);
}

#[tokio::test]
async fn a_probe_says_whether_credentials_are_good() {
    let setup = setup(config()).await;
    for transport in [Transport::Udp, Transport::Tcp] {
        probe::allocate(setup.address, transport, &credential(60)).await.unwrap();
        let refused = probe::allocate(setup.address, transport, &credential(-60)).await.unwrap_err();
        assert!(matches!(refused, ProbeError::Refused(401)), "{refused}");
        assert_eq!(setup.server.quota.taken(), 0, "given back");
    }
}

/// webrtc-rs's client, whose requests are not ours.
#[tokio::test]
async fn another_implementation_allocates_and_relays() {
    let setup = setup(config()).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let local_addr = socket.local_addr().unwrap();
    let Credential { username, password } = credential(60);
    let config = ClientConfig {
        stun_serv_addr: setup.address.to_string(),
        turn_serv_addr: setup.address.to_string(),
        local_addr,
        username,
        password,
        ..ClientConfig::default()
    };
    let mut client = TheirClient::new(config, rtc::crypto::default_provider().unwrap()).unwrap();
    client.send_binding_request(Instant::now()).unwrap();
    client.allocate(Instant::now()).unwrap();
    let (mut relayed, mut reflexive) = (None, None);
    let mut buffer = vec![0; 3000];
    let echoed = timeout(PATIENCE, async {
        loop {
            while let Some(transmit) = client.poll_write() {
                socket.send_to(&transmit.message, transmit.transport.peer_addr).await.unwrap();
            }
            while let Some(event) = client.poll_event() {
                match event {
                    Event::BindingResponse(_, seen) => reflexive = Some(seen),
                    Event::AllocateResponse(_, address) => {
                        relayed = Some(address);
                        let mut relay = client.relay(address).unwrap();
                        relay.create_permission(Instant::now(), setup.peer()).unwrap();
                    }
                    Event::CreatePermissionResponse(..) => {
                        let mut relay = client.relay(relayed.unwrap()).unwrap();
                        relay.send_to(Instant::now(), b"hello", setup.peer()).unwrap();
                    }
                    Event::DataIndicationOrChannelData(_, from, data) => {
                        assert_eq!(from, setup.peer());
                        return data;
                    }
                    other => panic!("{other:?}"),
                }
            }
            let (length, from) = tokio::select! {
                received = socket.recv_from(&mut buffer) => received.unwrap(),
                (bytes, from) = setup.arrives() => {
                    setup.media.send_to(&[b"echo of ", &bytes[..]].concat(), from).await.unwrap();
                    continue;
                }
                () = tokio::time::sleep(Duration::from_millis(50)) => {
                    client.handle_timeout(Instant::now()).unwrap();
                    continue;
                }
            };
            client
                .handle_read(TransportMessage {
                    now: Instant::now(),
                    transport: TransportContext {
                        local_addr,
                        peer_addr: from,
                        transport_protocol: TransportProtocol::UDP,
                        ecn: None,
                    },
                    message: BytesMut::from(&buffer[..length]),
                })
                .unwrap();
        }
    })
    .await
    .expect("the echo");
    assert_eq!(&echoed[..], b"echo of hello");
    assert_eq!(reflexive, Some(local_addr), "a STUN server, too");
}
