//! Whether TURN servers give allocations to the credentials that joins come with: those of `turn_urls`, and the worker's own.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use common::model::ParticipantId;
use common::time::UnixMillis;
use common::turn::{Credential, TurnSecret};
use media_worker::relay::probe::{ProbeError, Transport, allocate};
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::Finding;
use crate::config::{Role, Settings};

const CHECK: &str = "turn";
const OWN_CHECK: &str = "turn_listen";
/// Of the resolver.
const PATIENCE: Duration = Duration::from_secs(3);
const DEFAULT_PORT: u16 = 3478;
/// How long the credential is good that is tried.
const TTL: Duration = Duration::from_secs(60);

pub async fn check(role: Role, settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(server) = &settings.turn_server {
        findings.push(own(server.listen, settings.turn_secret.as_ref()).await);
    }
    // A worker makes no credentials, but one file may configure all parts.
    if let Some(secret) = settings.turn_secret.as_ref().filter(|_| role != Role::Worker) {
        for url in &settings.turn_urls {
            findings.push(other(url, secret).await);
        }
    }
    findings
}

fn credential(secret: &TurnSecret) -> Credential {
    secret.credential(ParticipantId::new(), UnixMillis::now(), TTL)
}

/// The port of the worker's own: free, or held by one that runs already and is then tried.
async fn own(listen: SocketAddr, secret: Option<&TurnSecret>) -> Finding {
    let bound = UdpSocket::bind(listen).and_then(|socket| TcpListener::bind(socket.local_addr()?));
    let error = match bound {
        Ok(_) if listen.port() == 0 => {
            let advice = "set a port, so that a firewall can let it through";
            return Finding::warn(OWN_CHECK, "any free port, another one at every start", advice);
        }
        Ok(_) => return Finding::ok(OWN_CHECK, format!("udp and tcp {listen} can be bound")),
        Err(error) => error,
    };
    if error.kind() != ErrorKind::AddrInUse {
        let advice = "set an address that this machine has, and a port above 1023";
        return Finding::fail(OWN_CHECK, format!("{listen} cannot be bound: {error}"), advice);
    }
    let Some(secret) = secret else {
        return Finding::warn(
            OWN_CHECK,
            format!(
                "{listen} is in use; whether by a TURN server of ours cannot be tried without turn_secret"
            ),
            "set turn_secret, or see by whom (ss -lntup)",
        );
    };
    let at = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    match allocate(SocketAddr::new(at, listen.port()), Transport::Udp, &credential(secret)).await {
        Ok(_) => {
            Finding::ok(OWN_CHECK, format!("{listen} is in use, by a TURN server that gives allocations"))
        }
        Err(error) => Finding::fail(
            OWN_CHECK,
            format!("{listen} is in use, and gives no allocation: {error}"),
            advice(&error, "see by whom (ss -lntup), or set another one"),
        ),
    }
}

async fn other(url: &str, secret: &TurnSecret) -> Finding {
    let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
    let (host, query) = rest.split_once('?').unwrap_or((rest, ""));
    if scheme == "turns" {
        return Finding::ok(CHECK, format!("{url}: not tried, as it speaks TLS; what says turn: is"));
    }
    let transport = if query == "transport=tcp" { Transport::Tcp } else { Transport::Udp };
    let has_port = host.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok());
    let host = if has_port { host.to_owned() } else { format!("{host}:{DEFAULT_PORT}") };
    let found = timeout(PATIENCE, lookup_host(&host)).await;
    let Some(server) = found.ok().and_then(Result::ok).and_then(|mut found| found.next()) else {
        return Finding::fail(
            CHECK,
            format!("{url}: the name leads nowhere"),
            "correct turn_urls, or the resolver",
        );
    };
    match allocate(server, transport, &credential(secret)).await {
        Ok(relayed) => Finding::ok(CHECK, format!("{url} gives an allocation, at {}", relayed.ip())),
        Err(error) => {
            Finding::fail(CHECK, format!("{url}: {error}"), advice(&error, "start it, or correct turn_urls"))
        }
    }
}

fn advice(error: &ProbeError, unreachable: &'static str) -> &'static str {
    match error {
        ProbeError::Refused(401) => {
            "give both sides the same turn_secret (coturn: use-auth-secret and static-auth-secret), and see to the clocks of both"
        }
        ProbeError::Refused(486 | 508) => "it is full: see to its quotas and relay ports, and to its log",
        ProbeError::Refused(_) => "see its log",
        ProbeError::NoTurn => "something else listens there: correct turn_urls",
        ProbeError::Silent => "let UDP and TCP to its port through, and start it",
        ProbeError::Unreachable(_) => unreachable,
    }
}
