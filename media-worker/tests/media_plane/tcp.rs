//! ICE over TCP: clients whose datagrams come in connections, and what connections that are no clients' come to.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::message::PathProtocol;
use media_worker::media::{MediaConfig, MediaStats, TcpPort};
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind::{Audio, Video};

use crate::world::{World, config, patience, spread};

/// Where clients send their datagrams, and nothing of the media plane listens.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// Carries each client's datagrams over a TCP connection of its own: what a client that speaks UDP only sends to the announced
/// address arrives framed, as RFC 4571 says.
struct Bridge {
    ends: Arc<AtomicBool>,
}

impl Bridge {
    fn new(world: &World) -> Self {
        let port = world.plane.local_addr().port();
        let server = SocketAddr::new(world.plane.local_addr().ip(), world.plane.tcp_port().unwrap());
        let socket = Arc::new(UdpSocket::bind((ELSEWHERE, port)).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let ends = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&ends);
        std::thread::spawn(move || {
            let mut connections: HashMap<SocketAddr, TcpStream> = HashMap::new();
            let mut buffer = [0; 4096];
            while !over.load(Ordering::Relaxed) {
                let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
                let connection = connections.entry(client).or_insert_with(|| {
                    let connection = TcpStream::connect(server).unwrap();
                    let (reading, socket) = (connection.try_clone().unwrap(), Arc::clone(&socket));
                    std::thread::spawn(move || carry_back(reading, &socket, client));
                    connection
                });
                let mut frame = u16::try_from(length).unwrap().to_be_bytes().to_vec();
                frame.extend_from_slice(&buffer[..length]);
                // A connection that the server closed takes nothing more.
                let _ = connection.write_all(&frame);
            }
        });
        Self { ends }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

fn carry_back(mut connection: TcpStream, socket: &UdpSocket, client: SocketAddr) {
    let mut length = [0; 2];
    while connection.read_exact(&mut length).is_ok() {
        let mut datagram = vec![0; usize::from(u16::from_be_bytes(length))];
        if connection.read_exact(&mut datagram).is_err() {
            return;
        }
        let _ = socket.send_to(&datagram, client);
    }
}

fn elsewhere(config: MediaConfig) -> MediaConfig {
    MediaConfig { public_addresses: vec![ELSEWHERE.into()], ..config }
}

fn plane_stats(world: &World) -> MediaStats {
    world.runtime.block_on(world.plane.stats()).unwrap()
}

fn sends(world: &mut World, client: usize, index: u64) {
    for track in 0..world.clients[client].outgoing.len() {
        world.clients[client].send(track, index.is_multiple_of(30));
    }
}

/// Until what `receiver` gets of every track of others has grown by so many packets.
fn flows(world: &mut World, sender: usize, receiver: usize, tracks: usize) {
    let mut index = 0;
    let mut sent = Instant::now();
    world.until("media arrives", |world| {
        if sent.elapsed() >= Duration::from_millis(10) {
            sent = Instant::now();
            sends(world, sender, index);
            index += 1;
        }
        let incoming = &world.clients[receiver].incoming;
        incoming.len() == tracks && incoming.values().all(|it| it.sequences.len() > 50)
    });
}

#[test]
fn a_room_over_connections_has_media_both_ways_and_they_end_with_it() {
    for config in [config(), spread()] {
        let mut world = World::with(elsewhere(config));
        let _bridge = Bridge::new(&world);
        let ada = world.join(&[Audio, Video]);
        let ben = world.join(&[Audio]);
        flows(&mut world, ada, ben, 2);
        flows(&mut world, ben, ada, 1);
        let endpoint = world.clients[ada].endpoint;
        let stats = world.runtime.block_on(world.plane.endpoint_stats(endpoint)).unwrap();
        assert_eq!(stats.transport.path.unwrap().protocol, PathProtocol::Tcp);
        assert_eq!(plane_stats(&world).tcp_connections, 2);
        for client in [ada, ben] {
            let endpoint = world.clients[client].endpoint;
            world.runtime.block_on(world.plane.close_endpoint(endpoint)).unwrap();
        }
        // The clients are not driven any more: one would answer what it was offered just before.
        let deadline = Instant::now() + patience();
        while plane_stats(&world).tcp_connections > 0 {
            assert!(Instant::now() < deadline, "their connections stay open");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(plane_stats(&world).tcp_refused, 0);
    }
}

/// Whether the server has closed it; what it sends is no matter.
fn is_closed(connection: &mut TcpStream) -> bool {
    connection.set_nonblocking(true).unwrap();
    loop {
        match connection.read(&mut [0; 64]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

#[test]
fn a_flood_of_connections_and_junk_keeps_no_client_out() {
    let mut world = World::with(elsewhere(config()));
    let _bridge = Bridge::new(&world);
    let ada = world.join(&[Audio]);
    let server = SocketAddr::new(world.plane.local_addr().ip(), world.plane.tcp_port().unwrap());
    let mut silent: Vec<_> = (0..200).map(|_| TcpStream::connect(server).unwrap()).collect();
    let mut half = TcpStream::connect(server).unwrap();
    half.write_all(&[0, 100, 0, 1]).unwrap();
    let junk: [&[u8]; 4] =
        [b"GET / HTTP/1.1\r\n\r\n", &[0, 4, 22, 254, 253, 0], &[0, 2, 0, 1], &[255, 255, 0]];
    for bytes in junk {
        let mut connection = TcpStream::connect(server).unwrap();
        connection.write_all(bytes).unwrap();
        world.until("junk is the end of its connection", |_| is_closed(&mut connection));
    }
    let open = silent.iter_mut().filter_map(|it| (!is_closed(it)).then_some(())).count();
    assert!(open <= 64, "{open} of one address that never said anything are open");
    assert!(!is_closed(&mut half), "half a check may still become one");
    assert!(plane_stats(&world).tcp_refused >= 140);
    // The flood goes on while somebody joins, from the very same address.
    let over = Arc::new(AtomicBool::new(false));
    let flood = {
        let over = Arc::clone(&over);
        std::thread::spawn(move || {
            let mut flood = std::collections::VecDeque::new();
            while !over.load(Ordering::Relaxed) {
                flood.extend(TcpStream::connect(server));
                if flood.len() > 100 {
                    flood.pop_front();
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        })
    };
    let ben = world.join(&[Audio]);
    flows(&mut world, ben, ada, 1);
    flows(&mut world, ada, ben, 1);
    over.store(true, Ordering::Relaxed);
    flood.join().unwrap();
}

#[test]
fn the_port_is_where_it_is_wanted_or_nowhere() {
    let off = World::with(MediaConfig { tcp: TcpPort::Off, ..config() });
    assert_eq!(off.plane.tcp_port(), None);
    let refused = TcpStream::connect(off.plane.local_addr()).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);

    let same = World::new();
    assert_eq!(same.plane.tcp_port(), Some(same.plane.local_addr().port()));

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = MediaConfig { tcp: TcpPort::Port(free.local_addr().unwrap().port()), ..config() };
    let refused = media_worker::media::MediaPlane::start(taken).err().unwrap();
    assert_eq!(refused.kind(), std::io::ErrorKind::AddrInUse);
    let address = SocketAddr::new(same.plane.local_addr().ip(), same.plane.tcp_port().unwrap());
    drop(TcpStream::connect(address).unwrap());
    drop(same);
    // With the media plane its port is gone, so that the next one may have it.
    let deadline = Instant::now() + patience();
    while TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < deadline, "the port stays bound");
        std::thread::sleep(Duration::from_millis(10));
    }
}
