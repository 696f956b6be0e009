//! The ports that are to be bound, and what the system gives a process: socket buffers and file descriptors.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use super::Finding;
use crate::config::{Role, Settings};
use crate::health;

/// As a worker asks for, for each direction. With less, keyframes of many publishers that come at once are lost.
#[cfg(target_os = "linux")]
const BUFFER: usize = 4 << 20;
/// Each client connection of the API is one, each inbox shares one; RabbitMQ, MongoDB and files take a hundred.
#[cfg(target_os = "linux")]
const ENOUGH_FILES: u64 = 65_536;
#[cfg(target_os = "linux")]
const LEAST_FILES: u64 = 1_024;

pub fn check(role: Role, settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    if role != Role::Worker {
        findings.push(tcp("listen", settings.listen));
    }
    if let Some(address) = settings.admin_listen {
        findings.push(tcp("admin_listen", address));
    }
    if role != Role::Api {
        let runs_here = settings.admin_listen.is_some_and(|address| health::check(&[address]).is_ok());
        findings.push(udp(settings.media, runs_here));
        #[cfg(target_os = "linux")]
        findings.push(buffers());
    }
    #[cfg(target_os = "linux")]
    findings.push(files());
    findings
}

fn tcp(check: &'static str, address: SocketAddr) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok(check, format!("{address} can be bound")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            if health::check(&[address]).is_ok() {
                Finding::warn(
                    check,
                    format!("{address} is in use, by a Switchyard that is well"),
                    "stop that one before another is started here",
                )
            } else {
                taken(check, address)
            }
        }
        Err(error) => cannot(check, address, &error),
    }
}

/// `runs_here`: a part with these settings is up, and has the port itself.
fn udp(address: SocketAddr, runs_here: bool) -> Finding {
    const CHECK: &str = "media_port";
    match UdpSocket::bind(address) {
        Ok(_) if address.port() == 0 => Finding::warn(
            CHECK,
            "any free UDP port, another one at every start",
            "set media_port, so that a firewall can let it through",
        ),
        Ok(_) => Finding::ok(CHECK, format!("udp {address} can be bound")),
        Err(error) if error.kind() == ErrorKind::AddrInUse && runs_here => Finding::warn(
            CHECK,
            format!("udp {address} is in use, as it should be when the part at admin_listen is this one"),
            "stop that one before another is started here",
        ),
        Err(error) if error.kind() == ErrorKind::AddrInUse => taken(CHECK, address),
        Err(error) => cannot(CHECK, address, &error),
    }
}

fn taken(check: &'static str, address: SocketAddr) -> Finding {
    Finding::fail(
        check,
        format!("{address} is in use"),
        format!("see by whom (ss -lntup 'sport = :{}'), or set another one", address.port()),
    )
}

fn cannot(check: &'static str, address: SocketAddr, error: &std::io::Error) -> Finding {
    let advice = match error.kind() {
        ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE: set a higher one",
        ErrorKind::AddrNotAvailable => {
            "no interface of this machine has that address: set one that it has, or 0.0.0.0"
        }
        _ => "set another address",
    };
    Finding::fail(check, format!("{address} cannot be bound: {error}"), advice)
}

#[cfg(target_os = "linux")]
fn buffers() -> Finding {
    const CHECK: &str = "socket_buffers";
    let granted = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<usize>().ok();
    let limits = ["/proc/sys/net/core/rmem_max", "/proc/sys/net/core/wmem_max"].map(granted);
    match limits {
        [Some(receive), Some(send)] if receive.min(send) >= BUFFER => {
            Finding::ok(CHECK, format!("up to {} KiB in, {} KiB out", receive >> 10, send >> 10))
        }
        [Some(receive), Some(send)] => Finding::warn(
            CHECK,
            format!(
                "up to {} KiB in, {} KiB out; a worker asks for {} KiB",
                receive >> 10,
                send >> 10,
                BUFFER >> 10
            ),
            format!(
                "sysctl -w net.core.rmem_max={BUFFER} net.core.wmem_max={BUFFER}, and the same in /etc/sysctl.d"
            ),
        ),
        // In a network namespace of its own these files are not there; the node's limits hold.
        _ => Finding::warn(
            CHECK,
            "the limits cannot be read here",
            format!("look on the host: net.core.rmem_max and net.core.wmem_max should be {BUFFER}"),
        ),
    }
}

#[cfg(target_os = "linux")]
fn files() -> Finding {
    const CHECK: &str = "open_files";
    let found = |limit| format!("{limit} may be open");
    let advice = format!("raise it to {ENOUGH_FILES} (ulimit -n; LimitNOFILE= of a systemd unit)");
    match crate::process::open_files_limit() {
        Some(limit) if limit >= ENOUGH_FILES => Finding::ok(CHECK, found(limit)),
        Some(limit) if limit >= LEAST_FILES => {
            Finding::warn(CHECK, format!("{}: about as many clients, less a hundred", found(limit)), advice)
        }
        Some(limit) => Finding::fail(CHECK, found(limit), advice),
        None => Finding::warn(CHECK, "the limit cannot be read", advice),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_port_that_somebody_has_is_told() {
        let here = TcpListener::bind("127.0.0.1:0").unwrap();
        // It takes connections, but is nobody who is well: it closes them.
        let address = here.local_addr().unwrap();
        std::thread::spawn(move || while here.accept().is_ok() {});
        let finding = tcp("listen", address);
        assert_eq!(finding.state, State::Fail, "{finding}");
        assert!(finding.found.contains("in use"), "{finding}");
        let here = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = here.local_addr().unwrap();
        assert_eq!([udp(address, false).state, udp(address, true).state], [State::Fail, State::Warn]);
        assert_eq!(udp("127.0.0.1:0".parse().unwrap(), false).state, State::Warn);
    }

    #[test]
    fn an_address_that_is_not_ours_is_told() {
        // RFC 5737: nobody has it.
        let finding = tcp("listen", "192.0.2.1:8080".parse().unwrap());
        assert_eq!(finding.state, State::Fail);
        assert!(finding.advice.unwrap().contains("no interface"));
    }
}
