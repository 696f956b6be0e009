//! What clients ask of the relay, and the answers (RFC 8656). No sockets of its own: a [`Client`] is told what came from it
//! and says what to send back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use common::time::UnixMillis;

use super::access::{Access, Denied, REALM, User};
use super::allocation::{Allocation, Back, Holder};
use super::counters::{Counters, Dropped, Refused};
use super::message::{Message, Writer, attribute, channel_data, kind};
use super::peers::{Family, Peers};
use super::quota::{Exceeded, Quota};
use super::{RelayConfig, message};

/// UDP, in REQUESTED-TRANSPORT.
const UDP: u8 = 17;

/// Codes of errors (RFC 8489, section 14.8; RFC 8656, section 19).
mod code {
    pub const BAD_REQUEST: u16 = 400;
    pub const UNAUTHENTICATED: u16 = 401;
    pub const FORBIDDEN: u16 = 403;
    pub const UNKNOWN_ATTRIBUTE: u16 = 420;
    pub const ALLOCATION_MISMATCH: u16 = 437;
    pub const STALE_NONCE: u16 = 438;
    pub const ADDRESS_FAMILY_NOT_SUPPORTED: u16 = 440;
    pub const WRONG_CREDENTIALS: u16 = 441;
    pub const UNSUPPORTED_TRANSPORT: u16 = 442;
    pub const PEER_FAMILY_MISMATCH: u16 = 443;
    pub const QUOTA_REACHED: u16 = 486;
    pub const INSUFFICIENT_CAPACITY: u16 = 508;
}

/// What all clients share.
pub struct Server {
    config: RelayConfig,
    pub access: Access,
    peers: Peers,
    pub quota: Arc<Quota>,
    pub counters: Arc<Counters>,
}

impl Server {
    /// # Errors
    /// See [`Access::new`].
    pub fn new(config: RelayConfig, peers: Peers) -> std::io::Result<Self> {
        let access = Access::new(config.secret.clone())?;
        let quota = Quota::new(config.max_allocations, config.max_allocations_per_user);
        Ok(Self { config, access, peers, quota, counters: Arc::default() })
    }

    /// How long an allocation lasts.
    fn seconds(&self) -> u32 {
        u32::try_from(self.config.lifetime.as_secs()).unwrap_or(u32::MAX)
    }
}

/// Whoever sends from one address, or by one connection.
pub struct Client {
    from: SocketAddr,
    back: Back,
    allocation: Option<Allocation>,
}

/// A refusal that is answered with a code.
struct Refusal {
    code: u16,
    unknown: Vec<u16>,
}

impl From<u16> for Refusal {
    fn from(code: u16) -> Self {
        Self { code, unknown: Vec::new() }
    }
}

impl Client {
    /// `from`: where the client is seen, which is what it is told.
    pub fn new(from: SocketAddr, back: Back) -> Self {
        // A socket for both families sees IPv4 clients under mapped addresses.
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        Self { from, back, allocation: None }
    }

    /// Until when there is something to remember of this client.
    pub fn expires(&self) -> Option<Instant> {
        self.allocation.as_ref().map(|allocation| allocation.expires)
    }

    /// Takes a message or channel data; gives what to answer. What belongs to nothing is dropped and counted.
    pub fn handle(&mut self, server: &Server, now: Instant, bytes: &[u8]) -> Option<Vec<u8>> {
        self.allocation.take_if(|allocation| allocation.expires <= now);
        if bytes.first().is_some_and(|first| first >> 6 == 1) {
            match (channel_data(bytes), &self.allocation) {
                (None, _) => server.counters.dropped(Dropped::Malformed),
                (Some(_), None) => server.counters.dropped(Dropped::Peer),
                (Some((channel, payload)), Some(allocation)) => {
                    allocation.send_by_channel(channel, payload, now);
                }
            }
            return None;
        }
        let Some(message) = Message::parse(bytes) else {
            server.counters.dropped(Dropped::Malformed);
            return None;
        };
        match message.kind {
            kind::SEND => {
                self.send(server, now, &message);
                None
            }
            kind::BINDING => {
                let answer = Writer::new(kind::BINDING | kind::SUCCESS, message.transaction);
                Some(answer.with_address(attribute::XOR_MAPPED_ADDRESS, self.from).finish())
            }
            kind::ALLOCATE | kind::REFRESH | kind::CREATE_PERMISSION | kind::CHANNEL_BIND => {
                Some(self.request(server, now, &message))
            }
            _ => {
                server.counters.dropped(Dropped::Malformed);
                None
            }
        }
    }

    fn send(&self, server: &Server, now: Instant, indication: &Message<'_>) {
        let peer = indication.address(attribute::XOR_PEER_ADDRESS);
        match (&self.allocation, peer, indication.get(attribute::DATA)) {
            (Some(allocation), Some(peer), Some(payload)) => allocation.send(peer, payload, now),
            (None, ..) => server.counters.dropped(Dropped::Peer),
            _ => server.counters.dropped(Dropped::Malformed),
        }
    }

    /// Answers a request that needs credentials.
    fn request(&mut self, server: &Server, now: Instant, request: &Message<'_>) -> Vec<u8> {
        let clock = UnixMillis::now();
        let user = match server.access.check(request, self.from, clock) {
            Ok(user) => user,
            Err(denied) => return self.deny(server, clock, request, denied),
        };
        let done = understood(request).and_then(|()| match request.kind {
            kind::ALLOCATE => self.allocate(server, now, request, &user),
            kind::REFRESH => self.refresh(server, now, request, &user),
            kind::CREATE_PERMISSION => self.create_permission(server, now, request, &user),
            _ => self.bind_channel(server, now, request, &user),
        });
        let answer = |class: u16| Writer::new(request.kind | class, request.transaction);
        match done {
            Ok(Done::Plain) => answer(kind::SUCCESS),
            Ok(Done::Lifetime(seconds)) => answer(kind::SUCCESS).with_number(attribute::LIFETIME, seconds),
            Ok(Done::Allocated(relayed, seconds)) => answer(kind::SUCCESS)
                .with_address(attribute::XOR_RELAYED_ADDRESS, relayed)
                .with_number(attribute::LIFETIME, seconds)
                .with_address(attribute::XOR_MAPPED_ADDRESS, self.from),
            Err(Refusal { code, unknown }) => {
                let refused = answer(kind::ERROR).with_error(code);
                let unknown: Vec<u8> = unknown.iter().flat_map(|kind| kind.to_be_bytes()).collect();
                match unknown.as_slice() {
                    [] => refused,
                    unknown => refused.with(attribute::UNKNOWN_ATTRIBUTES, unknown),
                }
            }
        }
        .sign(&user.key)
    }

    /// Answers who showed no good credentials.
    fn deny(&self, server: &Server, clock: UnixMillis, request: &Message<'_>, denied: Denied) -> Vec<u8> {
        let refused = |code| Writer::new(request.kind | kind::ERROR, request.transaction).with_error(code);
        let code = match denied {
            Denied::Incomplete => {
                server.counters.dropped(Dropped::Malformed);
                return refused(code::BAD_REQUEST).finish();
            }
            Denied::StaleNonce => code::STALE_NONCE,
            Denied::Challenge => code::UNAUTHENTICATED,
            Denied::Expired => {
                server.counters.refused(Refused::Expired);
                code::UNAUTHENTICATED
            }
            Denied::Wrong => {
                server.counters.refused(Refused::Credentials);
                code::UNAUTHENTICATED
            }
        };
        let nonce = server.access.nonce(self.from, clock);
        refused(code)
            .with(attribute::REALM, REALM.as_bytes())
            .with(attribute::NONCE, nonce.as_bytes())
            .finish()
    }

    /// RFC 8656, section 7.2.
    fn allocate(
        &mut self,
        server: &Server,
        now: Instant,
        request: &Message<'_>,
        user: &User<'_>,
    ) -> Result<Done, Refusal> {
        let seconds = server.seconds();
        if let Some(allocation) = &self.allocation {
            // Sent again because our answer was lost.
            let is_repeat = allocation.transaction == request.transaction && allocation.who == user.who;
            return if is_repeat {
                Ok(Done::Allocated(allocation.relayed(), seconds))
            } else {
                Err(code::ALLOCATION_MISMATCH.into())
            };
        }
        match request.get(attribute::REQUESTED_TRANSPORT) {
            Some(&[UDP, ..]) => {}
            Some(_) => return Err(code::UNSUPPORTED_TRANSPORT.into()),
            None => return Err(code::BAD_REQUEST.into()),
        }
        let family = match request.get(attribute::REQUESTED_ADDRESS_FAMILY) {
            None => None,
            Some(&[1, ..]) => Some(Family::V4),
            Some(&[2, ..]) => Some(Family::V6),
            Some(_) => return Err(code::ADDRESS_FAMILY_NOT_SUPPORTED.into()),
        };
        let way = server.peers.way(family).ok_or(code::ADDRESS_FAMILY_NOT_SUPPORTED)?;
        let place = server.quota.take(user.who).map_err(|exceeded| match exceeded {
            Exceeded::User => {
                server.counters.refused(Refused::UserQuota);
                code::QUOTA_REACHED
            }
            Exceeded::All => {
                server.counters.refused(Refused::Full);
                code::INSUFFICIENT_CAPACITY
            }
        })?;
        let holder = Holder {
            who: user.who.to_owned(),
            transaction: request.transaction,
            expires: now + server.config.lifetime,
            place,
            back: self.back.clone(),
        };
        let ports = server.config.ports.as_ref();
        let opened = Allocation::open(way, ports, holder, &server.counters).map_err(|error| {
            server.counters.refused(Refused::Port);
            tracing::debug!(%error, "no relayed socket could be opened");
            code::INSUFFICIENT_CAPACITY
        })?;
        Ok(Done::Allocated(self.allocation.insert(opened).relayed(), seconds))
    }

    /// The allocation, if there is one and it is this user's. RFC 8656, section 5, asks for the same user name; here a later
    /// credential of the same participant will do, so that a long call can go on with it.
    fn held(&mut self, user: &User<'_>) -> Result<&mut Allocation, Refusal> {
        let allocation = self.allocation.as_mut().ok_or(code::ALLOCATION_MISMATCH)?;
        if allocation.who == user.who { Ok(allocation) } else { Err(code::WRONG_CREDENTIALS.into()) }
    }

    /// RFC 8656, section 8.2.
    fn refresh(
        &mut self,
        server: &Server,
        now: Instant,
        request: &Message<'_>,
        user: &User<'_>,
    ) -> Result<Done, Refusal> {
        let ends = request.number(attribute::LIFETIME) == Some(0);
        // Nothing is there, as is wished.
        if ends && self.allocation.is_none() {
            return Ok(Done::Lifetime(0));
        }
        let allocation = self.held(user)?;
        if ends {
            self.allocation = None;
            return Ok(Done::Lifetime(0));
        }
        allocation.expires = now + server.config.lifetime;
        Ok(Done::Lifetime(server.seconds()))
    }

    /// RFC 8656, section 10.2: for all addresses that are named, or for none.
    fn create_permission(
        &mut self,
        server: &Server,
        now: Instant,
        request: &Message<'_>,
        user: &User<'_>,
    ) -> Result<Done, Refusal> {
        let allocation = self.held(user)?;
        let peers = || request.attributes().filter(|(kind, _)| *kind == attribute::XOR_PEER_ADDRESS);
        let mut permitted = Vec::new();
        for (_, value) in peers() {
            let peer = message::unmasked(value, &request.transaction).ok_or(code::BAD_REQUEST)?;
            check_family(allocation, peer)?;
            if !allocation.way().has_peer_at(peer.ip()) {
                server.counters.refused(Refused::Peer);
                return Err(code::FORBIDDEN.into());
            }
            permitted.push(peer.ip());
        }
        if permitted.is_empty() {
            return Err(code::BAD_REQUEST.into());
        }
        permitted.into_iter().for_each(|ip| allocation.permit(ip, now));
        Ok(Done::Plain)
    }

    /// RFC 8656, section 12.2.
    fn bind_channel(
        &mut self,
        server: &Server,
        now: Instant,
        request: &Message<'_>,
        user: &User<'_>,
    ) -> Result<Done, Refusal> {
        let allocation = self.held(user)?;
        let number = request.get(attribute::CHANNEL_NUMBER);
        let (Some(&[a, b, _, _]), Some(peer)) = (number, request.address(attribute::XOR_PEER_ADDRESS)) else {
            return Err(code::BAD_REQUEST.into());
        };
        let channel = u16::from_be_bytes([a, b]);
        if !message::CHANNELS.contains(&channel) {
            return Err(code::BAD_REQUEST.into());
        }
        check_family(allocation, peer)?;
        if !allocation.way().is_peer(peer) {
            server.counters.refused(Refused::Peer);
            return Err(code::FORBIDDEN.into());
        }
        if allocation.bind_channel(channel, peer, now) {
            Ok(Done::Plain)
        } else {
            Err(code::BAD_REQUEST.into())
        }
    }
}

/// What a request has come to.
enum Done {
    Plain,
    /// In seconds.
    Lifetime(u32),
    Allocated(SocketAddr, u32),
}

fn check_family(allocation: &Allocation, peer: SocketAddr) -> Result<(), Refusal> {
    let fits = peer.is_ipv6() == allocation.relayed().is_ipv6();
    if fits { Ok(()) } else { Err(code::PEER_FAMILY_MISMATCH.into()) }
}

/// Whether all is known that has to be (RFC 8489, section 6.3.1).
fn understood(request: &Message<'_>) -> Result<(), Refusal> {
    let is_unknown = |kind: &u16| *kind < 0x8000 && !attribute::UNDERSTOOD.contains(kind);
    let unknown: Vec<u16> = request.attributes().map(|(kind, _)| kind).filter(is_unknown).take(16).collect();
    if unknown.is_empty() { Ok(()) } else { Err(Refusal { code: code::UNKNOWN_ATTRIBUTE, unknown }) }
}
