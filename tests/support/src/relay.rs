//! A network path that can be cut: UDP forwarded between one client and one server on the loopback interface.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Larger than any datagram.
const DATAGRAM: usize = 65_536;

/// Forwards until dropped. The server sees the relay's address as the client's.
pub struct Relay {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Relay {
    /// To a server; whoever sends to [`Self::address`] last is the client.
    pub async fn to(server: SocketAddr) -> std::io::Result<Self> {
        let near = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
        let far = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
        far.connect(server).await?;
        let address = near.local_addr()?;
        let cut = Arc::new(AtomicBool::new(false));
        let client = Arc::new(std::sync::Mutex::new(None));
        let up = {
            let (near, far, cut, client) = (near.clone(), far.clone(), cut.clone(), client.clone());
            tokio::spawn(async move {
                let mut buffer = vec![0; DATAGRAM];
                while let Ok((length, from)) = near.recv_from(&mut buffer).await {
                    *client.lock().expect("an address is only copied") = Some(from);
                    if !cut.load(Ordering::Relaxed) {
                        let _ = far.send(&buffer[..length]).await;
                    }
                }
            })
        };
        let down = {
            let cut = cut.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; DATAGRAM];
                loop {
                    // An error is the server's port being closed; it may open again.
                    let Ok(length) = far.recv(&mut buffer).await else { continue };
                    let to = *client.lock().expect("an address is only copied");
                    if let (Some(to), false) = (to, cut.load(Ordering::Relaxed)) {
                        let _ = near.send_to(&buffer[..length], to).await;
                    }
                }
            })
        };
        Ok(Self { address, cut, tasks: [up, down] })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From here on nothing gets through either way.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }
}

/// A session description whose candidates lead through a relay to where they led before.
///
/// # Errors
/// When it names no IPv4 host candidate.
pub async fn through_relay(sdp: &str) -> Result<(Relay, String), String> {
    let server = candidate_address(sdp).ok_or("no candidate to relay to")?;
    let relay = Relay::to(server).await.map_err(|error| error.to_string())?;
    let sdp = redirect(sdp, server, relay.address());
    Ok((relay, sdp))
}

/// The same description with another address in its candidates.
pub fn redirect(sdp: &str, from: SocketAddr, to: SocketAddr) -> String {
    let pair = |address: SocketAddr| format!(" {} {} typ ", address.ip(), address.port());
    sdp.replace(&pair(from), &pair(to))
}

/// Where the first IPv4 candidate leads (RFC 8839, section 5.1).
pub fn candidate_address(sdp: &str) -> Option<SocketAddr> {
    sdp.lines().find_map(|line| {
        let fields: Vec<&str> = line.trim_end().strip_prefix("a=candidate:")?.split(' ').collect();
        let (ip, port) = (fields.get(4)?, fields.get(5)?);
        Some(SocketAddr::V4(std::net::SocketAddrV4::new(ip.parse().ok()?, port.parse().ok()?)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_sent_to_the_relay_arrives_until_it_is_cut() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let relay = Relay::to(server.local_addr().unwrap()).await.unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(b"hello", relay.address()).await.unwrap();
        let mut buffer = [0; 16];
        let (length, from) = server.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"hello");
        server.send_to(b"back", from).await.unwrap();
        let (length, from) = client.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..length], from), (&b"back"[..], relay.address()));
        relay.cut();
        client.send_to(b"lost", relay.address()).await.unwrap();
        let silent =
            tokio::time::timeout(std::time::Duration::from_millis(100), server.recv_from(&mut buffer));
        assert!(silent.await.is_err(), "nothing gets through");
    }

    #[test]
    fn candidates_are_found_and_redirected() {
        let sdp = "m=audio 9 X\r\na=candidate:1 1 udp 2130706431 127.0.0.1 40000 typ host\r\na=mid:0\r\n";
        let from = candidate_address(sdp).unwrap();
        assert_eq!(from.to_string(), "127.0.0.1:40000");
        let to = SocketAddr::from(([127, 0, 0, 1], 5));
        assert_eq!(candidate_address(&redirect(sdp, from, to)), Some(to));
    }
}
