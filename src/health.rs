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
    #[error("{address} takes connections but does not answer: {source}")]
    Hanging { address: SocketAddr, source: std::io::Error },
}

/// Asks `/healthz` of the first address at which something listens.
///
/// # Errors
/// [`HealthError::Silent`] when nothing does, [`HealthError::Unhealthy`] for any answer but 200,
/// [`HealthError::Hanging`] for none.
pub fn check(addresses: &[SocketAddr]) -> Result<(), HealthError> {
    for &address in addresses {
        // A refused or silent address belongs to a part that does not run here.
        let Ok(stream) = TcpStream::connect_timeout(&address, PATIENCE) else { continue };
        let answer = ask(stream, address).map_err(|source| HealthError::Hanging { address, source })?;
        if answer.split_whitespace().nth(1) == Some("200") {
            return Ok(());
        }
        return Err(HealthError::Unhealthy { address, answer });
    }
    Err(HealthError::Silent(addresses.to_vec()))
}

/// The status line of the answer.
fn ask(mut stream: TcpStream, address: SocketAddr) -> std::io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // In one piece: a server that answers before it has read everything and closes would reset the connection, and the
    // answer would be lost with it.
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
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
