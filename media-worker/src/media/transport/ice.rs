//! ICE-lite (RFC 8445, section 2.5): answers the client's checks and follows its nominations.
//!
//! During a restart the old credentials keep working, and the selected path stays, until the client
//! nominates under the new ones: media does not pause.

use std::net::SocketAddr;

use rand::RngExt;

use super::Path;
use super::stun::{Request, Response};

/// Credentials of one side (RFC 8839, section 5.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub fragment: String,
    pub password: String,
}

impl Credentials {
    /// New random credentials: 42 bits to name, 192 bits to authenticate. The fragment's first character
    /// tells which shard made it, so that a client's first check finds its way.
    pub fn generate(shard: usize) -> Self {
        let mut fragment = String::from(char::from(ALPHABET[shard % ALPHABET.len()]));
        fragment.push_str(&token(7));
        Self { fragment, password: token(32) }
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The shard that made a fragment; `None` when none did.
pub fn shard_of(fragment: &str) -> Option<usize> {
    let first = *fragment.as_bytes().first()?;
    ALPHABET.iter().position(|character| *character == first)
}

fn token(length: usize) -> String {
    let mut rng = rand::rng();
    (0..length).map(|_| char::from(ALPHABET[rng.random_range(0..64)])).collect()
}

/// Paths from which a client was seen are remembered up to here; the oldest is forgotten.
pub const MAX_PATHS: usize = 16;

/// What an authentic check changed.
#[derive(Debug, PartialEq, Eq)]
pub struct Checked {
    pub response: Response,
    /// The path is new: datagrams from there belong to this endpoint now.
    pub bound: bool,
    /// A path that is forgotten to make room.
    pub forgotten: Option<Path>,
    /// Media goes to another path than before.
    pub selected: bool,
    /// A server fragment that is no longer valid: the restart that replaced it is complete.
    pub retired: Option<String>,
}

/// The ICE state of one endpoint.
#[derive(Debug)]
pub struct Agent {
    shard: usize,
    local: Credentials,
    /// Still valid during a restart.
    previous: Option<Credentials>,
    remote: Option<Credentials>,
    paths: Vec<Path>,
    selected: Option<Path>,
}

impl Agent {
    pub fn new(shard: usize) -> Self {
        Self {
            shard,
            local: Credentials::generate(shard),
            previous: None,
            remote: None,
            paths: Vec::new(),
            selected: None,
        }
    }

    pub fn local(&self) -> &Credentials {
        &self.local
    }

    /// The path that media takes.
    pub fn selected(&self) -> Option<Path> {
        self.selected
    }

    /// All paths from which the client was authentically seen.
    pub fn paths(&self) -> &[Path] {
        &self.paths
    }

    /// The server fragments under which checks are accepted.
    pub fn fragments(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.local).chain(&self.previous).map(|credentials| credentials.fragment.as_str())
    }

    /// Takes the client's credentials. Changed ones are an ICE restart (RFC 8839, section 4.4.1.1.1):
    /// returns the server fragment that stopped being valid, if any, and whether it was a restart.
    pub fn set_remote(&mut self, remote: Credentials) -> Restart {
        if self.remote.as_ref().is_none_or(|known| *known == remote) {
            self.remote = Some(remote);
            return Restart::No;
        }
        self.remote = Some(remote);
        let local = std::mem::replace(&mut self.local, Credentials::generate(self.shard));
        let retired = self.previous.replace(local);
        Restart::Yes { retired: retired.map(|credentials| credentials.fragment) }
    }

    /// Answers a check, or not when it is not authentic.
    pub fn handle_check(&mut self, path: Path, request: &Request<'_>) -> Option<Checked> {
        let is_current = request.server_fragment == self.local.fragment;
        let credentials = if is_current {
            &self.local
        } else {
            self.previous.as_ref().filter(|previous| previous.fragment == request.server_fragment)?
        };
        let expected = self.remote.as_ref().filter(|_| is_current);
        if expected.is_some_and(|remote| remote.fragment != request.client_fragment)
            || !request.is_authentic(&credentials.password)
        {
            return None;
        }
        // A dual-stack socket shows IPv4 clients as mapped IPv6 addresses; they know themselves as IPv4.
        let seen_from = SocketAddr::new(path.remote.ip().to_canonical(), path.remote.port());
        let response = request.success(seen_from, &credentials.password);
        let bound = !self.paths.contains(&path);
        let mut forgotten = None;
        if bound {
            if self.paths.len() >= MAX_PATHS {
                let selected = self.selected;
                let oldest = self.paths.iter().position(|other| Some(*other) != selected).unwrap_or(0);
                forgotten = Some(self.paths.remove(oldest));
            }
            self.paths.push(path);
        }
        let mut selected = false;
        if self.selected != Some(path) && (self.selected.is_none() || request.nominates) {
            self.selected = Some(path);
            selected = true;
        }
        let retired = if is_current && request.nominates {
            self.previous.take().map(|previous| previous.fragment)
        } else {
            None
        };
        Some(Checked { response, bound, forgotten, selected, retired })
    }
}

/// See [`Agent::set_remote`].
#[derive(Debug, PartialEq, Eq)]
pub enum Restart {
    No,
    Yes { retired: Option<String> },
}

#[cfg(test)]
mod tests {
    use super::super::{Local, stun};
    use super::*;

    fn path(port: u16) -> Path {
        Path { remote: ([127, 0, 0, 1], port).into(), local: Local::Unknown }
    }

    fn client(fragment: &str) -> Credentials {
        Credentials { fragment: fragment.into(), password: "the client's own password".into() }
    }

    fn check(
        agent: &mut Agent,
        from: Path,
        to: &Credentials,
        client: &str,
        nominates: bool,
    ) -> Option<Checked> {
        let user = format!("{}:{client}", to.fragment);
        let datagram = stun::request(&user, &to.password, nominates);
        agent.handle_check(from, &stun::Request::parse(&datagram).unwrap())
    }

    #[test]
    fn a_path_is_bound_by_an_authentic_check_only() {
        let mut agent = Agent::new(0);
        let local = agent.local().clone();
        agent.set_remote(client("abcd"));
        let guess = Credentials { password: "guess".into(), ..local.clone() };
        assert_eq!(check(&mut agent, path(1), &guess, "abcd", true), None);
        assert_eq!(check(&mut agent, path(1), &local, "someone else", true), None);
        assert_eq!(agent.paths(), []);
        let checked = check(&mut agent, path(1), &local, "abcd", false).unwrap();
        assert!(checked.bound && checked.selected);
        assert_eq!(agent.selected(), Some(path(1)));
    }

    #[test]
    fn a_fragment_tells_its_shard() {
        for shard in 0..64 {
            assert_eq!(shard_of(&Credentials::generate(shard).fragment), Some(shard));
        }
        assert_eq!((shard_of(""), shard_of("é")), (None, None));
    }

    #[test]
    fn media_follows_the_client_s_nomination() {
        let mut agent = Agent::new(0);
        let local = agent.local().clone();
        agent.set_remote(client("abcd"));
        check(&mut agent, path(1), &local, "abcd", true).unwrap();
        assert!(!check(&mut agent, path(2), &local, "abcd", false).unwrap().selected);
        assert_eq!(agent.selected(), Some(path(1)));
        assert!(check(&mut agent, path(2), &local, "abcd", true).unwrap().selected);
        assert_eq!(agent.selected(), Some(path(2)));
    }

    #[test]
    fn a_restart_keeps_the_old_path_until_the_new_one_is_nominated() {
        let mut agent = Agent::new(0);
        let old = agent.local().clone();
        agent.set_remote(client("abcd"));
        check(&mut agent, path(1), &old, "abcd", true).unwrap();
        assert_eq!(agent.set_remote(client("abcd")), Restart::No);
        assert_eq!(agent.set_remote(client("efgh")), Restart::Yes { retired: None });
        let new = agent.local().clone();
        assert_ne!(old, new);
        assert!(check(&mut agent, path(1), &old, "abcd", true).is_some(), "the old credentials still work");
        assert_eq!(agent.selected(), Some(path(1)));
        let checked = check(&mut agent, path(2), &new, "efgh", true).unwrap();
        assert_eq!(checked.retired, Some(old.fragment.clone()));
        assert_eq!(agent.selected(), Some(path(2)));
        assert_eq!(check(&mut agent, path(1), &old, "abcd", true), None, "until the new ones are used");
    }

    #[test]
    fn paths_are_bounded_and_the_selected_one_is_kept() {
        let mut agent = Agent::new(0);
        let local = agent.local().clone();
        agent.set_remote(client("abcd"));
        for port in 1..=100 {
            check(&mut agent, path(port), &local, "abcd", port == 1).unwrap();
        }
        assert_eq!(agent.paths().len(), MAX_PATHS);
        assert!(agent.paths().contains(&path(1)));
        assert_eq!(agent.selected(), Some(path(1)));
    }
}
