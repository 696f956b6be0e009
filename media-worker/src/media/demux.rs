//! Which endpoint a datagram belongs to: by the path it came on, or by the fragment in its first check.
//!
//! Both tables hold only what endpoints put there. A path enters after an authentic check and leaves
//! with its endpoint, so strangers can neither fill the table nor take over a path.

use std::collections::HashMap;

use super::pipeline::EndpointKey;
use super::transport::{self, Kind, Path, ice, stun};

/// Whose a datagram is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Here(EndpointKey),
    /// Another shard's.
    There(usize),
}

#[derive(Default)]
pub struct Demux {
    paths: HashMap<Path, Owner>,
    fragments: HashMap<String, EndpointKey>,
}

impl Demux {
    pub fn bind_path(&mut self, path: Path, owner: Owner) {
        self.paths.insert(path, owner);
    }

    /// Forgets a path, unless it belongs to another endpoint by now. Returns whether it was forgotten.
    pub fn forget_path(&mut self, path: Path, owner: Owner) -> bool {
        let is_owned = self.paths.get(&path) == Some(&owner);
        if is_owned {
            self.paths.remove(&path);
        }
        is_owned
    }

    /// The paths of this shard's own endpoints.
    pub fn own_paths(&self) -> Vec<Path> {
        let own = self.paths.iter().filter(|(_, owner)| matches!(owner, Owner::Here(_)));
        own.map(|(path, _)| *path).collect()
    }

    /// Forgets all endpoints of this shard and keeps what is known of others.
    pub fn forget_own(&mut self) {
        self.paths.retain(|_, owner| matches!(owner, Owner::There(_)));
        self.fragments.clear();
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
    /// may have been given to another connection. The fragment itself says which shard made it.
    pub fn owner(&self, path: Path, datagram: &[u8]) -> Option<Owner> {
        if transport::kind(datagram) == Kind::Stun {
            let request = stun::Request::parse(datagram)?;
            let here = self.fragments.get(request.server_fragment).copied().map(Owner::Here);
            return here.or_else(|| ice::shard_of(request.server_fragment).map(Owner::There));
        }
        self.paths.get(&path).copied()
    }

    /// Whether datagrams on this path belong to a shard already.
    pub fn is_bound(&self, path: Path, shard: usize) -> bool {
        self.paths.get(&path) == Some(&Owner::There(shard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::transport::Local;

    #[test]
    fn strangers_belong_to_nobody() {
        let path = |port| Path { remote: ([127, 0, 0, 1], port).into(), local: Local::Unknown };
        let mut demux = Demux::default();
        demux.bind_fragment("known", 3);
        let check = |fragment: &str| stun::request(&format!("{fragment}:x"), "secret", true);
        assert_eq!(demux.owner(path(1), &check("known")), Some(Owner::Here(3)));
        assert_eq!(demux.owner(path(1), &check("?nknown")), None);
        assert_eq!(
            demux.owner(path(1), &[22, 0, 0]),
            None,
            "a path is bound by its endpoint, not by a datagram"
        );
        demux.bind_path(path(1), Owner::Here(3));
        assert_eq!(demux.owner(path(1), &[22, 0, 0]), Some(Owner::Here(3)));
        assert_eq!(demux.owner(path(2), &[22, 0, 0]), None);
        demux.forget_path(path(1), Owner::Here(4));
        assert_eq!(
            demux.owner(path(1), &[22, 0, 0]),
            Some(Owner::Here(3)),
            "another endpoint cannot forget it"
        );
        demux.forget_path(path(1), Owner::Here(3));
        demux.forget_fragment("known");
        assert_eq!(demux.owner(path(1), &[22, 0, 0]), None);
        assert_eq!(
            demux.owner(path(1), &check("known")),
            ice::shard_of("known").map(Owner::There),
            "perhaps another shard knows it"
        );
    }
}
