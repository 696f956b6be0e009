//! `switchyard health`: asks the part that runs on this machine whether it lives; for container health checks, whose
//! image has neither a shell nor curl.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Of each step: connecting, writing, reading.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why no part answered well.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    #[error("nothing answers at {0:?}")]
    Silent(Vec<SocketAddr>),
    #[error("{address} answers {answer:?}")]
    Unhealthy { address: SocketAddr, answer: String },
}

/// Asks `/healthz` of the first address that answers at all.
///
/// # Errors
/// [`HealthError::Silent`] when none does, [`HealthError::Unhealthy`] for any answer but 200.
pub fn check(addresses: &[SocketAddr]) -> Result<(), HealthError> {
    for &address in addresses {
        // A refused or silent address belongs to a part that does not run here.
        let Ok(answer) = ask(address) else { continue };
        if answer.split_whitespace().nth(1) == Some("200") {
            return Ok(());
        }
        return Err(HealthError::Unhealthy { address, answer });
    }
    Err(HealthError::Silent(addresses.to_vec()))
}

/// The status line of the answer.
fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut head = [0; 64];
    let mut length = 0;
    while length < head.len() && !head[..length].contains(&b'\n') {
        match stream.read(&mut head[length..])? {
            0 => break,
            read => length += read,
        }
    }
    let text = String::from_utf8_lossy(&head[..length]);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
