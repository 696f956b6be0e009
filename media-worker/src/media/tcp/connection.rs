//! One connection: frames in, and what it has not taken yet.

use std::io::{self, Read as _, Write as _};
use std::time::{Duration, Instant};

use mio::net::TcpStream;

use super::framing::Reader;
use crate::media::transport::{self, ConnectionId, Kind, Local, Path, ice, stun};

/// Bytes that wait for a client that reads slowly, besides those in the kernel: a second of a voice and a small picture.
const MAX_WAITING: usize = 128 * 1024;
/// The kernel's buffer; what is in there cannot be dropped any more and only grows old.
const KERNEL_BUFFER: usize = 64 * 1024;
/// How long a stranger may take until an endpoint knows it.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Checks of a stranger; browsers send one every 50 ms at most.
const MAX_CHECKS: usize = 256;
/// Silence after which a connection is closed. Consent is asked for every five seconds (RFC 7675), and an unused path is
/// kept alive every 15 (RFC 8445, section 11).
pub const IDLE: Duration = Duration::from_secs(60);
/// What is left for a connection that nobody needs may still leave.
const LINGER: Duration = Duration::from_secs(1);

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client's or the network's doing.
    Closed,
    /// Nobody needs it.
    Done,
    /// It sends what no client sends, or does not say in time whose it is.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// Until when an endpoint must know it, and how many checks it has sent.
    Stranger {
        until: Instant,
        checks: usize,
    },
    Bound,
    Ending {
        until: Instant,
    },
}

pub struct Connection {
    pub path: Path,
    stream: TcpStream,
    reader: Reader,
    /// The shard that its last check named.
    shard: Option<usize>,
    life: Life,
    heard: Instant,
    waiting: Vec<u8>,
    /// How many bytes of those are gone.
    written: usize,
}

impl Connection {
    pub fn new(now: Instant, id: ConnectionId, stream: TcpStream, remote: std::net::SocketAddr) -> Self {
        // Neither is vital.
        let _ = stream.set_nodelay(true);
        let _ = socket2::SockRef::from(&stream).set_send_buffer_size(KERNEL_BUFFER);
        Self {
            path: Path { remote, local: Local::Connection(id) },
            stream,
            reader: Reader::default(),
            shard: None,
            life: Life::Stranger { until: now + PATIENCE, checks: 0 },
            heard: now,
            waiting: Vec::new(),
            written: 0,
        }
    }

    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    pub fn is_stranger(&self) -> bool {
        matches!(self.life, Life::Stranger { .. })
    }

    pub fn note_bound(&mut self) {
        if self.is_stranger() {
            self.life = Life::Bound;
        }
    }

    pub fn note_forgotten(&mut self, now: Instant) {
        self.life = Life::Ending { until: now + LINGER };
    }

    /// Whether its time is over.
    pub fn end(&self, now: Instant) -> Option<End> {
        match self.life {
            Life::Stranger { until, .. } => (until <= now).then_some(End::Refused),
            Life::Bound => (self.heard + IDLE <= now).then_some(End::Refused),
            Life::Ending { until } => (until <= now || self.waiting.is_empty()).then_some(End::Done),
        }
    }

    /// Receives once and hands out what is complete, with the shard that it is for. Returns whether there may be more.
    ///
    /// # Errors
    /// Why it is over.
    pub fn receive(
        &mut self,
        now: Instant,
        buffer: &mut [u8],
        mut each: impl FnMut(usize, Path, &[u8]),
    ) -> Result<bool, End> {
        let length = match self.stream.read(buffer) {
            Ok(0) => return Err(End::Closed),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(_) => return Err(End::Closed),
        };
        self.heard = now;
        let Self { reader, life, shard, path, .. } = self;
        let mut is_junk = false;
        let read = reader.read(&buffer[..length], |datagram| {
            if let Life::Stranger { checks, .. } = life {
                *checks += 1;
                is_junk |= *checks > MAX_CHECKS || transport::kind(datagram) != Kind::Stun;
            }
            if transport::kind(datagram) == Kind::Stun {
                let named = stun::Request::parse(datagram).and_then(|it| ice::shard_of(it.server_fragment));
                match named {
                    Some(named) => *shard = Some(named),
                    // Something else in STUN's clothes; from a stranger that is no mistake.
                    None => is_junk |= matches!(life, Life::Stranger { .. }),
                }
            }
            if let (Some(shard), false) = (*shard, is_junk) {
                each(shard, *path, datagram);
            }
        });
        if read.is_err() || is_junk { Err(End::Refused) } else { Ok(true) }
    }

    /// Takes framed datagrams to send. `false`: too much waits already.
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        if self.waiting.len() - self.written + bytes.len() > MAX_WAITING {
            return false;
        }
        self.waiting.extend_from_slice(bytes);
        true
    }

    /// Sends what waits, as far as the connection takes it.
    ///
    /// # Errors
    /// It is over.
    pub fn flush(&mut self) -> Result<(), End> {
        while self.written < self.waiting.len() {
            match self.stream.write(&self.waiting[self.written..]) {
                Ok(0) => return Err(End::Closed),
                Ok(length) => self.written += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // So that what is gone takes no room for ever.
                    self.waiting.drain(..self.written);
                    self.written = 0;
                    return Ok(());
                }
                Err(_) => return Err(End::Closed),
            }
        }
        self.waiting.clear();
        self.written = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::framing;
    use super::*;

    /// A connection and its client.
    fn pair() -> (Connection, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, remote) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let stream = TcpStream::from_std(stream);
        (Connection::new(Instant::now(), ConnectionId(7), stream, remote), client)
    }

    /// What is received until `until` says that it is enough.
    fn receive(
        connection: &mut Connection,
        until: impl Fn(&[(usize, Vec<u8>)]) -> bool,
    ) -> Result<Vec<(usize, Vec<u8>)>, End> {
        let (mut received, mut buffer) = (Vec::new(), [0; 4096]);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !until(&received) {
            assert!(Instant::now() < deadline, "nothing more comes: {received:?}");
            connection.receive(Instant::now(), &mut buffer, |shard, path, datagram| {
                assert_eq!(path.local, Local::Connection(ConnectionId(7)));
                received.push((shard, datagram.to_vec()));
            })?;
        }
        Ok(received)
    }

    fn frame(datagram: &[u8]) -> Vec<u8> {
        let mut framed = Vec::new();
        framing::write(datagram, &mut framed);
        framed
    }

    fn check(shard: usize) -> Vec<u8> {
        let fragment = ice::Credentials::generate(shard).fragment;
        stun::request(&format!("{fragment}:x"), "secret", true)
    }

    #[test]
    fn a_check_says_which_shard_everything_is_for() {
        let (mut connection, mut client) = pair();
        let check = check(2);
        client.write_all(&frame(&check)).unwrap();
        assert_eq!(receive(&mut connection, |it| !it.is_empty()).unwrap(), [(2, check)]);
        connection.note_bound();
        client.write_all(&frame(&[22, 1, 2])).unwrap();
        assert_eq!(receive(&mut connection, |it| !it.is_empty()).unwrap(), [(2, vec![22, 1, 2])]);
    }

    #[test]
    fn a_stranger_may_send_checks_only_and_not_for_long() {
        for junk in [frame(&[22, 1, 2]), frame(&[0, 1, 0, 0]), b"GET / HTTP/1.1\r\n\r\n".to_vec()] {
            let (mut connection, mut client) = pair();
            client.write_all(&junk).unwrap();
            assert_eq!(receive(&mut connection, |_| false), Err(End::Refused));
        }
        let (mut connection, mut client) = pair();
        let checks = frame(&check(0)).repeat(MAX_CHECKS + 1);
        std::thread::spawn(move || client.write_all(&checks));
        assert_eq!(receive(&mut connection, |_| false), Err(End::Refused));

        let (connection, _client) = pair();
        let opened = Instant::now();
        assert_eq!(connection.end(opened), None);
        assert_eq!(connection.end(opened + PATIENCE), Some(End::Refused));
    }

    #[test]
    fn who_says_nothing_for_long_is_closed_and_who_is_not_needed_soon() {
        let (mut connection, client) = pair();
        connection.note_bound();
        let heard = Instant::now();
        assert_eq!(connection.end(heard + PATIENCE), None);
        assert_eq!(connection.end(heard + IDLE), Some(End::Refused));
        connection.note_forgotten(heard);
        assert_eq!(connection.end(heard), Some(End::Done));
        assert!(connection.push(b"farewell"));
        assert_eq!(connection.end(heard), None, "that still leaves");
        assert_eq!(connection.end(heard + LINGER), Some(End::Done));
        drop(client);
        assert_eq!(receive(&mut connection, |_| false), Err(End::Closed));
    }

    /// Whole datagrams are lost, never parts: what arrives can be read.
    #[test]
    fn a_slow_reader_loses_datagrams_and_holds_nobody_up() {
        let (mut connection, mut client) = pair();
        let (mut taken, mut lost) = (0u32, 0);
        for number in 0..20_000u32 {
            let mut datagram = vec![0; 1000];
            datagram[..4].copy_from_slice(&number.to_be_bytes());
            if connection.push(&frame(&datagram)) {
                taken += 1;
            } else {
                lost += 1;
            }
            connection.flush().unwrap();
        }
        assert!(lost > 0 && taken > 0, "{taken} taken, {lost} lost");
        assert!(connection.waiting.capacity() < 4 * MAX_WAITING, "and takes no more room than that");
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let (mut reader, mut numbers, mut buffer) = (framing::Reader::default(), Vec::new(), [0; 65_536]);
        while numbers.len() < taken as usize {
            connection.flush().unwrap();
            let length = client.read(&mut buffer).unwrap();
            let read = reader.read(&buffer[..length], |datagram| {
                assert_eq!(datagram.len(), 1000);
                numbers.push(u32::from_be_bytes(*datagram.first_chunk().unwrap()));
            });
            read.unwrap();
        }
        assert!(numbers.is_sorted() && numbers[0] == 0);
    }
}
