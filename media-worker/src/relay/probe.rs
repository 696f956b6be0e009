//! Tries whether a TURN server gives an allocation, as a client would: for `switchyard doctor`.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use common::turn::Credential;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::access::key;
use super::message::{HEADER, Message, Writer, attribute, kind, length_in_stream};

/// Of one answer; over UDP it is asked for [`TRIES`] times.
const PATIENCE: Duration = Duration::from_secs(1);
const TRIES: usize = 3;
const LONGEST: usize = 1500;

/// How a server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// Why there is no allocation.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("not reachable: {0}")]
    Unreachable(#[from] io::Error),
    #[error("no answer")]
    Silent,
    #[error("what answers is no TURN server")]
    NoTurn,
    /// With the code of RFC 8489, section 14.8, or RFC 8656, section 19.
    #[error("refused with {0}")]
    Refused(u16),
}

/// Asks for an allocation, gives it back at once, and says where it was. Takes 3 s for each of three answers at most.
///
/// # Errors
/// See [`ProbeError`].
pub async fn allocate(
    server: SocketAddr,
    transport: Transport,
    credential: &Credential,
) -> Result<SocketAddr, ProbeError> {
    let mut link = Link::open(server, transport).await?;
    let transport = [17, 0, 0, 0];
    let bare = Writer::new(kind::ALLOCATE, rand::random()).with(attribute::REQUESTED_TRANSPORT, &transport);
    let challenge = link.ask(&bare.finish()).await?;
    let challenge = Message::parse(&challenge).ok_or(ProbeError::NoTurn)?;
    let (Some(401), Some(realm), Some(nonce)) =
        (challenge.error(), challenge.text(attribute::REALM), challenge.text(attribute::NONCE))
    else {
        return Err(challenge.error().map_or(ProbeError::NoTurn, ProbeError::Refused));
    };
    let crypto = rtc::crypto::default_provider().map_err(io::Error::other)?;
    let key = key(&*crypto, &credential.username, realm, &credential.password);
    let signed = |request: Writer| {
        let request = request
            .with(attribute::USERNAME, credential.username.as_bytes())
            .with(attribute::REALM, realm.as_bytes())
            .with(attribute::NONCE, nonce.as_bytes());
        request.sign(&key)
    };
    let request =
        Writer::new(kind::ALLOCATE, rand::random()).with(attribute::REQUESTED_TRANSPORT, &transport);
    let answer = link.ask(&signed(request)).await?;
    let answer = Message::parse(&answer).ok_or(ProbeError::NoTurn)?;
    if let Some(code) = answer.error() {
        return Err(ProbeError::Refused(code));
    }
    let relayed = answer.address(attribute::XOR_RELAYED_ADDRESS).filter(|_| answer.is_authentic(&key));
    let relayed = relayed.ok_or(ProbeError::NoTurn)?;
    // Best effort: it would expire by itself.
    let end = Writer::new(kind::REFRESH, rand::random()).with_number(attribute::LIFETIME, 0);
    let _ = link.ask(&signed(end)).await;
    Ok(relayed)
}

enum Link {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Link {
    async fn open(server: SocketAddr, transport: Transport) -> Result<Self, ProbeError> {
        match transport {
            Transport::Udp => {
                let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any).await?;
                socket.connect(server).await?;
                Ok(Self::Udp(socket))
            }
            Transport::Tcp => match timeout(PATIENCE * 3, TcpStream::connect(server)).await {
                Ok(connected) => Ok(Self::Tcp(connected?)),
                Err(_) => Err(ProbeError::Silent),
            },
        }
    }

    /// Sends a request and gives the answer to it.
    async fn ask(&mut self, request: &[u8]) -> Result<Vec<u8>, ProbeError> {
        match self {
            Self::Udp(socket) => {
                for _ in 0..TRIES {
                    socket.send(request).await?;
                    let mut buffer = [0; LONGEST];
                    let answer = async {
                        loop {
                            let length = socket.recv(&mut buffer).await?;
                            if is_answer(&buffer[..length], request) {
                                return Ok(buffer[..length].to_vec());
                            }
                        }
                    };
                    match timeout(PATIENCE, answer).await {
                        Ok(answer) => return answer.map_err(ProbeError::Unreachable),
                        Err(_) => continue,
                    }
                }
                Err(ProbeError::Silent)
            }
            Self::Tcp(stream) => {
                stream.write_all(request).await?;
                let answer = async {
                    let mut head = [0; HEADER];
                    stream.read_exact(&mut head).await?;
                    let length = length_in_stream(&head).ok().flatten().filter(|length| *length <= LONGEST);
                    let length = length.filter(|length| *length >= HEADER).ok_or(ProbeError::NoTurn)?;
                    let mut answer = head.to_vec();
                    answer.resize(length, 0);
                    stream.read_exact(&mut answer[HEADER..]).await?;
                    if is_answer(&answer, request) { Ok(answer) } else { Err(ProbeError::NoTurn) }
                };
                timeout(PATIENCE * 3, answer).await.unwrap_or(Err(ProbeError::Silent))
            }
        }
    }
}

fn is_answer(bytes: &[u8], request: &[u8]) -> bool {
    match (Message::parse(bytes), Message::parse(request)) {
        (Some(answer), Some(request)) => {
            answer.transaction == request.transaction
                && [request.kind | kind::SUCCESS, request.kind | kind::ERROR].contains(&answer.kind)
        }
        _ => false,
    }
}
