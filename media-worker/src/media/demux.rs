//! Which endpoint a datagram belongs to: by the path it came on, or by the fragment in its first check.
//!
//! Both tables hold only what endpoints put there. A path enters after an authentic check and leaves
//! with its endpoint, so strangers can neither fill the table nor take over a path.

use std::collections::HashMap;

use super::pipeline::EndpointKey;
use super::transport::{self, Kind, Path, stun};

#[derive(Default)]
pub struct Demux {
    paths: HashMap<Path, EndpointKey>,
    fragments: HashMap<String, EndpointKey>,
}

impl Demux {
    pub fn bind_path(&mut self, path: Path, endpoint: EndpointKey) {
        self.paths.insert(path, endpoint);
    }

    /// Forgets a path, unless it belongs to another endpoint by now.
    pub fn forget_path(&mut self, path: Path, endpoint: EndpointKey) {
        if self.paths.get(&path) == Some(&endpoint) {
            self.paths.remove(&path);
        }
    }

    pub fn bind_fragment(&mut self, fragment: &str, endpoint: EndpointKey) {
        if !self.fragments.contains_key(fragment) {
            self.fragments.insert(fragment.to_string(), endpoint);
        }
    }

    pub fn forget_fragment(&mut self, fragment: &str) {
        self.fragments.remove(fragment);
    }

    /// Whose datagram this is. A check goes by its fragment even on a known path: the client's socket
    /// may have been given to another connection.
    pub fn endpoint(&self, path: Path, datagram: &[u8]) -> Option<EndpointKey> {
        if transport::kind(datagram) == Kind::Stun {
            let request = stun::Request::parse(datagram)?;
            return self.fragments.get(request.server_fragment).copied();
        }
        self.paths.get(&path).copied()
    }
}

#[cfg(test)]
mod tests {
    use rtc::crypto::default_provider;

    use super::*;

    #[test]
    fn strangers_belong_to_nobody() {
        let provider = default_provider().unwrap();
        let path = |port| Path { remote: ([127, 0, 0, 1], port).into(), local: None };
        let mut demux = Demux::default();
        demux.bind_fragment("known", 3);
        let check =
            |fragment: &str| stun::request(&format!("{fragment}:x"), "secret", true, provider.crypto());
        assert_eq!(demux.endpoint(path(1), &check("known")), Some(3));
        assert_eq!(demux.endpoint(path(1), &check("unknown")), None);
        assert_eq!(
            demux.endpoint(path(1), &[22, 0, 0]),
            None,
            "a path is bound by its endpoint, not by a datagram"
        );
        demux.bind_path(path(1), 3);
        assert_eq!(demux.endpoint(path(1), &[22, 0, 0]), Some(3));
        assert_eq!(demux.endpoint(path(2), &[22, 0, 0]), None);
        demux.forget_path(path(1), 4);
        assert_eq!(demux.endpoint(path(1), &[22, 0, 0]), Some(3), "another endpoint cannot forget it");
        demux.forget_path(path(1), 3);
        demux.forget_fragment("known");
        assert_eq!(demux.endpoint(path(1), &[22, 0, 0]), None);
        assert_eq!(demux.endpoint(path(1), &check("known")), None);
    }
}
