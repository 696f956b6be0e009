//! A network of a test's own: a hub, where the test itself is, and nodes that each have an address of their own. What runs on
//! one meets what runs on another by packets through a bridge, as pods of several machines do.
//!
//! ```text
//!   test, clients, RabbitMQ, store: hub 10.99.0.1 ─┬─ node 10.99.0.11
//!                                                  ├─ node 10.99.0.12 …
//! ```

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::process::{Process, binary};

/// In the environment of a test that runs in a network of its own: which one it is from.
const ALONE: &str = "SWITCHYARD_TEST_ALONE";

const HUB: &str = "hub";
/// What all addresses begin with.
const PREFIX: [u8; 3] = [10, 99, 0];
/// The last byte of the first node's address.
const FIRST: u8 = 11;

/// Runs `story` in a network of its own: this very test once more, alone in a process (`tests/lib/isolated.sh`). Only a
/// process that has just begun can go there, and what it makes there is gone with it.
///
/// # Panics
/// When no network can be made, and when the test fails there: with what that process said.
pub fn alone(test: &str, story: impl FnOnce()) {
    let here = network_id();
    if let Some(outside) = std::env::var_os(ALONE) {
        assert_ne!(here.as_os_str(), outside, "{ALONE} is set, but this network is not the test's own");
        return story();
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut command = Command::new(root.join("tests/lib/isolated.sh"));
    command.arg(std::env::current_exe().expect("the test knows its own path"));
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ALONE, &here).stdin(Stdio::null());
    let said = command.output().expect("tests/lib/isolated.sh can be started");
    // Marked, so that nobody counts its results for results of this process.
    let mut ran = false;
    for line in [&said.stdout, &said.stderr].into_iter().flat_map(|said| said.split(|byte| *byte == b'\n')) {
        let line = String::from_utf8_lossy(line);
        ran |= line.starts_with("test result: ok. 1 passed;");
        println!("  | {line}");
    }
    assert!(
        said.status.success() && ran,
        "{test} failed in its own network, or there can be none (it takes `ip`, and root or user namespaces): {}",
        said.status
    );
}

/// What the system calls the network that this process is in.
fn network_id() -> PathBuf {
    fs::read_link("/proc/self/ns/net").expect("a process is in a network")
}

/// The hub and its nodes, of a process that is [`alone`].
pub struct Network {
    nodes: u8,
}

impl Network {
    /// # Panics
    /// When it cannot be made.
    pub fn new() -> Self {
        for which in ["all", "default"] {
            // An address of IPv6 comes a second or two after its link; nobody here waits for one.
            let path = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
            if Path::new(&path).exists() {
                fs::write(path, "1").expect("a network of one's own can be set up");
            }
        }
        ip(&format!("link add {HUB} type bridge"));
        ip(&format!("address add {}/24 dev {HUB}", address(1)));
        ip(&format!("link set {HUB} up"));
        // Whoever joins a multicast group (mDNS candidates do) has to have a way there.
        ip(&format!("route add 224.0.0.0/4 dev {HUB}"));
        Self { nodes: 0 }
    }

    /// The hub's, where the test and its clients are.
    pub fn address(&self) -> IpAddr {
        address(1)
    }

    /// One more machine.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn node(&mut self) -> Node {
        self.nodes += 1;
        let (name, address) = (format!("node{}", self.nodes), address(FIRST + self.nodes - 1));
        ip(&format!("netns add {name}"));
        ip(&format!("link add to-{name} type veth peer name eth0 netns {name}"));
        ip(&format!("link set to-{name} master {HUB} up"));
        ip(&format!("-n {name} address add {address}/24 dev eth0"));
        ip(&format!("-n {name} link set eth0 up"));
        ip(&format!("-n {name} link set lo up"));
        Node { name, address }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

fn address(last: u8) -> IpAddr {
    let [a, b, c] = PREFIX;
    Ipv4Addr::new(a, b, c, last).into()
}

/// A machine with an address of its own.
pub struct Node {
    name: String,
    pub address: IpAddr,
}

impl Node {
    /// Starts the binary there.
    pub fn start(&self, name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Process {
        let binary = binary();
        let binary = binary.to_str().expect("its path is text");
        // `ip netns exec` becomes what it starts: signals reach that.
        let mut all = vec!["netns", "exec", &self.name, binary];
        all.extend(arguments);
        Process::start_program(Path::new("ip"), name, &all, environment)
    }
}

fn ip(arguments: &str) {
    let Output { status, stderr, .. } = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .unwrap_or_else(|error| panic!("ip (Debian: iproute2) cannot be started: {error}"));
    assert!(status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&stderr));
}
