//! RabbitMQ and a MongoDB-wire server of one test's own, which it may kill, stop and start again.
//!
//! The shared servers of [`crate::services`] are everybody's: nobody may end those. Here each server keeps its ports and
//! its data over a restart, leads a process group of its own, and goes with the test.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::time::sleep;

use crate::eventually::patience;
use crate::services::Location;

const RABBITMQ: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
/// Names the MongoDB-wire server; without it, it is where `tests/run` installs it.
const STORE_SERVER: &str = "SWITCHYARD_TEST_STORE_SERVER";
/// How long a server may take to start, on a machine that has other things to do. Seconds.
const START_PATIENCE: f64 = 90.0;
/// How long a server may take to end when asked. Seconds.
const STOP_PATIENCE: f64 = 30.0;
const LOOK: Duration = Duration::from_millis(50);

/// Both servers. Killed when dropped.
pub struct OwnServices {
    pub broker: Server,
    pub store: Server,
    location: Location,
    // Dropped last: the servers write there.
    _folder: TempDir,
}

impl OwnServices {
    /// Starts both, empty, on loopback.
    ///
    /// # Panics
    /// When one is not installed, or does not start.
    pub async fn start() -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into()).await
    }

    /// The same at another address of this machine, for whoever reaches that.
    ///
    /// # Panics
    /// When one is not installed, or does not start.
    pub async fn start_at(address: IpAddr) -> Self {
        let folder = test_environment();
        fs::create_dir_all(&folder).expect("target/test-env can be made");
        let folder =
            tempfile::Builder::new().prefix("own.").tempdir_in(folder).expect("a folder can be made");
        let ports: [u16; 5] = free_ports();
        let [port, admin_port, .., store_port] = ports;
        let mut broker = rabbitmq(&folder.path().join("rabbitmq"), address, ports);
        let mut store = mongodb(&folder.path().join("store"), address, store_port);
        tokio::join!(broker.start(), store.start());
        let location = Location {
            broker: format!("amqp://guest:guest@{address}:{port}/%2f"),
            store: format!("mongodb://{address}:{store_port}/switchyard?replicaSet=secantus"),
            admin: format!("http://guest:guest@{address}:{admin_port}"),
            vhost: "%2f".to_owned(),
        };
        Self { broker, store, location, _folder: folder }
    }

    pub fn location(&self) -> Location {
        self.location.clone()
    }
}

/// Runs a server and ends it, its whole group, when whoever started it is gone: a test run that is cut off leaves none
/// behind. SIGTERM is for the server; its guard waits for it.
const GUARD: &str = r#"
exec 3<&0
(read _ <&3; env kill -KILL -- -$$) &
guard=$!
"$@" </dev/null 3<&- &
server=$!
trap : TERM
while kill -0 "$server" 2>/dev/null; do wait "$server"; done
kill "$guard" 2>/dev/null
"#;

fn guarded(server: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", GUARD, "guard"]).arg(server);
    command
}

/// How a server shows that it serves.
enum Ready {
    /// It answers this request.
    Url(String),
    /// It listens there.
    Address(SocketAddr),
}

/// One server, running or not.
pub struct Server {
    name: &'static str,
    command: Box<dyn Fn() -> Command + Send + Sync>,
    ready: Ready,
    log: PathBuf,
    /// The leader of its process group.
    leader: Option<Child>,
    /// `NAME=value` in the environment of what leaves the group by itself (epmd).
    stray: Option<String>,
}

impl Server {
    /// Starts it, or starts it again on what it had stored. Returns once it serves.
    ///
    /// # Panics
    /// When it runs already, or does not start.
    pub async fn start(&mut self) {
        assert!(self.leader.is_none(), "{} runs", self.name);
        let log = File::options().create(true).append(true).open(&self.log).expect("a log can be written");
        let mut command = (self.command)();
        // The other end stays with the child's handle.
        command.stdin(Stdio::piped()).stderr(log.try_clone().expect("a file can be shared")).stdout(log);
        self.leader = Some(command.process_group(0).spawn().expect("the server can be started"));
        let started = Instant::now();
        while !self.serves().await {
            let bound = patience(START_PATIENCE);
            assert!(started.elapsed() < bound, "{} does not serve; see {}", self.name, self.log.display());
            sleep(LOOK).await;
        }
    }

    async fn serves(&self) -> bool {
        match &self.ready {
            Ready::Address(address) => TcpStream::connect(address).is_ok(),
            Ready::Url(url) => {
                let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build();
                let request =
                    client.expect("an HTTP client can be made").get(url).basic_auth("guest", Some("guest"));
                request.send().await.is_ok_and(|response| response.status().is_success())
            }
        }
    }

    /// Ends it as a crash would (SIGKILL). Returns when nothing of it is left: a large process takes a moment to die.
    ///
    /// # Panics
    /// When something of it stays.
    pub async fn kill(&mut self) {
        let Some(mut leader) = self.leader.take() else { return };
        signal("KILL", leader.id());
        let _ = leader.wait();
        let started = Instant::now();
        while group(leader.id()).next().is_some() {
            assert!(started.elapsed() < patience(STOP_PATIENCE), "{} outlives SIGKILL", self.name);
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Asks it to end (SIGTERM), and waits until it has.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn stop(&mut self) {
        let Some(mut leader) = self.leader.take() else { return };
        let id = leader.id();
        signal("TERM", id);
        let started = Instant::now();
        while leader.try_wait().expect("a child can be waited for").is_none() {
            if started.elapsed() >= patience(STOP_PATIENCE) {
                signal("KILL", id);
                panic!("{} does not end; see {}", self.name, self.log.display());
            }
            sleep(LOOK).await;
        }
    }
}

impl Server {
    /// What all its processes occupy in memory.
    pub fn resident_bytes(&self) -> u64 {
        let Some(leader) = &self.leader else { return 0 };
        let kib = group(leader.id()).filter_map(|id| {
            let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
            let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            resident.trim().trim_end_matches(" kB").parse::<u64>().ok()
        });
        kib.sum::<u64>() * 1024
    }
}

/// The ids of all processes.
fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The living processes of a group.
fn group(leader: u32) -> impl Iterator<Item = u32> {
    processes().filter(move |id| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // Behind the name, which may hold anything: state, parent, group.
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let (state, group) = (fields.next(), fields.nth(1));
        state.is_some_and(|state| state != "Z") && group == Some(leader.to_string().as_str())
    })
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut leader) = self.leader.take() {
            signal("KILL", leader.id());
            let _ = leader.wait();
        }
        if let Some(mark) = &self.stray {
            for id in carrying(mark) {
                run_kill(&["-TERM", &id.to_string()]);
            }
        }
    }
}

/// Signals a whole process group. That there may be none any more is no failure.
fn signal(name: &str, leader: u32) {
    run_kill(&[&format!("-{name}"), "--", &format!("-{leader}")]);
}

fn run_kill(arguments: &[&str]) {
    let _ = Command::new("kill").args(arguments).stderr(Stdio::null()).status();
}

/// The epmd processes that carry this in their environment: such a one makes itself a daemon, out of every group.
fn carrying(mark: &str) -> impl Iterator<Item = u32> + '_ {
    processes().filter(move |id| {
        let is_epmd = fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| name.trim() == "epmd");
        let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        is_epmd && environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    })
}

fn rabbitmq(home: &Path, address: IpAddr, [port, admin_port, dist_port, epmd_port, _]: [u16; 5]) -> Server {
    assert!(Path::new(RABBITMQ).exists(), "{RABBITMQ} is missing; `tests/run faults` installs it");
    for folder in ["log", "mnesia", "config", "schema"] {
        fs::create_dir_all(home.join(folder)).expect("a folder can be made");
    }
    let write = |name: &str, text: &str| fs::write(home.join(name), text).expect("a file can be written");
    write("enabled_plugins", "[rabbitmq_management].\n");
    write("rabbitmq-env.conf", "");
    // As in tests/lib/services.sh. Who is not on loopback may be `guest` too: nobody else reaches the address.
    write(
        "rabbitmq.conf",
        &format!(
            "listeners.tcp.default = {address}:{port}\nmanagement.tcp.ip = {address}\nmanagement.tcp.port = {admin_port}\n\
             management_agent.disable_metrics_collector = true\nvm_memory_high_watermark.relative = 0.9\n\
             disk_free_limit.absolute = 50MB\nloopback_users = none\n"
        ),
    );
    let home = home.to_owned();
    let command = move || {
        let mut command = guarded(RABBITMQ);
        command
            .env("HOME", &home)
            .env("ERL_EPMD_PORT", epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", format!("switchyard-own-{port}@localhost"))
            .env("RABBITMQ_NODE_PORT", port.to_string())
            .env("RABBITMQ_NODE_IP_ADDRESS", address.to_string())
            .env("RABBITMQ_DIST_PORT", dist_port.to_string());
        for (variable, name) in [
            ("MNESIA_BASE", "mnesia"),
            ("LOG_BASE", "log"),
            ("CONFIG_FILE", "rabbitmq.conf"),
            ("ENABLED_PLUGINS_FILE", "enabled_plugins"),
            ("PID_FILE", "pid"),
            ("GENERATED_CONFIG_DIR", "config"),
            ("SCHEMA_DIR", "schema"),
            ("CONF_ENV_FILE", "rabbitmq-env.conf"),
        ] {
            command.env(format!("RABBITMQ_{variable}"), home.join(name));
        }
        command
    };
    Server {
        name: "RabbitMQ",
        command: Box::new(command),
        // The management plugin serves only once the broker behind it does.
        ready: Ready::Url(format!("http://{address}:{admin_port}/api/overview")),
        log: log(&format!("rabbitmq-{port}")),
        leader: None,
        stray: Some(format!("ERL_EPMD_PORT={epmd_port}")),
    }
}

fn mongodb(home: &Path, address: IpAddr, port: u16) -> Server {
    let server = std::env::var_os(STORE_SERVER)
        .map_or_else(|| test_environment().join("venv/bin/secantusd-py"), PathBuf::from);
    assert!(
        server.exists(),
        "{} is missing; `tests/run faults` installs it, or set {STORE_SERVER}",
        server.display()
    );
    fs::create_dir_all(home).expect("a folder can be made");
    let home = home.to_owned();
    let command = move || {
        let mut command = guarded(&server);
        command.env("HOME", &home).args([
            "--host",
            &address.to_string(),
            "--port",
            &port.to_string(),
            "--storage-path",
        ]);
        // Without --sync-on-commit it loses acknowledged writes when killed.
        command.arg(home.join("data")).args(["--sync-on-commit", "--log-level", "WARNING"]);
        command
    };
    Server {
        name: "the MongoDB-wire server",
        command: Box::new(command),
        ready: Ready::Address(SocketAddr::new(address, port)),
        log: log(&format!("store-{port}")),
        leader: None,
        stray: None,
    }
}

fn test_environment() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-env")
}

fn log(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-logs");
    fs::create_dir_all(&folder).expect("target/test-logs can be made");
    folder.join(format!("own-{}-{name}.log", std::process::id()))
}

/// Ports that nobody listens on, below the ephemeral range: a probe of an ephemeral port can connect to itself.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let mut held: Vec<TcpListener> = Vec::new();
    // Held until all are found, so that all differ.
    std::array::from_fn(|_| {
        let port = (0..200).find_map(|_| {
            let port = 18_000 + (uuid::Uuid::new_v4().as_u128() % 14_000) as u16;
            held.push(TcpListener::bind(("127.0.0.1", port)).ok()?);
            Some(port)
        });
        port.expect("a free port between 18000 and 32000")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_and_differ() {
        let ports: [u16; 5] = free_ports();
        let different: std::collections::BTreeSet<u16> = ports.into_iter().collect();
        assert_eq!(different.len(), 5);
        assert!(ports.iter().all(|port| (18_000..32_000).contains(port)));
    }
}
