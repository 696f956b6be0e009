//! One process of the real binary.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::eventually::patience;

/// The line with which a process says where its API is.
const LISTENING: &str = "switchyard: listening on ";
/// The line with which a process says where its port for operators is.
const ADMIN: &str = "switchyard: admin on ";
/// The line with which a worker says where its media is.
const WORKER: &str = "switchyard: worker ";

static STARTED: AtomicUsize = AtomicUsize::new(0);

/// Settings of an all-in-one process whose ports are free ones of the loopback interface.
pub const ON_LOOPBACK: [&str; 6] =
    ["--listen", "127.0.0.1:0", "--media-address", "127.0.0.1", "--media-port", "0"];

/// The path of the binary under test: `SWITCHYARD_BIN`, or what cargo built beside this test.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("SWITCHYARD_BIN") {
        return path.into();
    }
    // target/debug/deps/single-0123abcd -> target/debug/switchyard
    let test = std::env::current_exe().expect("the test knows its own path");
    let folder =
        test.parent().and_then(|deps| deps.parent()).expect("a test runs from target/<profile>/deps");
    let path = folder.join(format!("switchyard{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "{} is not built; run `cargo build` or set SWITCHYARD_BIN", path.display());
    path
}

/// A command for the binary that takes no setting from the environment of the test run.
pub fn command(arguments: &[&str]) -> Command {
    command_of(&binary(), arguments)
}

fn command_of(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if ["SWITCHYARD_", "OTEL_"].iter().any(|ours| name.to_string_lossy().starts_with(ours)) {
            command.env_remove(name);
        }
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs the binary to its end, for what ends by itself: `--help`, bad configuration.
///
/// # Panics
/// When it is still running after 20 s.
pub fn run_to_end(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = command(arguments);
    command.envs(environment.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let stdout = read_all(child.stdout.take().expect("stdout is piped"));
    let stderr = read_all(child.stderr.take().expect("stderr is piped"));
    let Some(status) = wait(&mut child, patience(20.0)) else {
        let _ = child.kill();
        let _ = child.wait();
        panic!("switchyard {arguments:?} does not end; stdout: {}", stdout.join().unwrap_or_default());
    };
    Output {
        status,
        stdout: stdout.join().expect("stdout is read"),
        stderr: stderr.join().expect("stderr is read"),
    }
}

/// What a process left behind.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

fn read_all(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn wait(child: &mut Child, bound: Duration) -> Option<ExitStatus> {
    let started = Instant::now();
    while started.elapsed() < bound {
        if let Some(status) = child.try_wait().expect("the child can be waited for") {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

/// A running process. Killed when dropped; its log stays in `target/test-logs`.
pub struct Process {
    child: Child,
    /// What it was started for, and its log's name.
    name: String,
    log: PathBuf,
    lines: Receiver<String>,
    /// Everything of stdout that was waited for so far.
    seen: Vec<String>,
}

impl Process {
    /// Starts the binary. `name` tells its log from others.
    pub fn start(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_program(&binary(), name, arguments, environment)
    }

    /// The same with another program than the one under test, such as an earlier version of it.
    pub fn start_program(
        program: &Path,
        name: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let folder = log_folder();
        fs::create_dir_all(&folder).expect("target/test-logs can be made");
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{}-{number}-{name}", test_name(), std::process::id());
        let log = folder.join(format!("{name}.log"));
        let mut file = File::create(&log).expect("a log can be written");
        let mut command = command_of(program, arguments);
        command
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(file.try_clone().expect("a file can be shared"));
        let mut child = command.spawn().expect("the binary starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = writeln!(file, "{line}");
                // The test may have stopped listening; the log goes on.
                let _ = sender.send(line);
            }
        });
        Self { child, name, log, lines, seen: Vec::new() }
    }

    /// Waits for the line of stdout that starts with `prefix`, and gives the rest of it.
    ///
    /// # Panics
    /// With the process's log when it ends first, or does not say so within 30 s.
    pub fn line(&mut self, prefix: &str) -> String {
        if let Some(line) = self.seen.iter().find_map(|line| line.strip_prefix(prefix)) {
            return line.to_owned();
        }
        let started = Instant::now();
        loop {
            let left = patience(30.0).saturating_sub(started.elapsed());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    let found = line.strip_prefix(prefix).map(str::to_owned);
                    self.seen.push(line);
                    if let Some(rest) = found {
                        return rest;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{} never said {prefix:?}:\n{}", self.name, self.log())
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("{} ended before it said {prefix:?}:\n{}", self.name, self.log())
                }
            }
        }
    }

    /// The base URL of its API.
    pub fn url(&mut self) -> String {
        self.line(LISTENING).trim_end_matches('/').to_owned()
    }

    /// The base URL of its port for operators, which it was told to open.
    pub fn admin(&mut self) -> String {
        self.line(ADMIN).to_owned()
    }

    /// Where the media of its worker is.
    pub fn media(&mut self) -> std::net::SocketAddr {
        let line = self.line(WORKER);
        let address = line.rsplit(' ').next().expect("the line ends with an address");
        address.parse().expect("one address, on loopback")
    }

    /// The id of its worker.
    pub fn worker(&mut self) -> String {
        let line = self.line(WORKER);
        line.split_whitespace().next().expect("the line names the worker").to_owned()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Where it writes.
    pub fn log_path(&self) -> &std::path::Path {
        &self.log
    }

    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to end (SIGTERM) and waits for up to 30 s.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop(self) -> ExitStatus {
        self.terminate();
        self.wait()
    }

    /// Asks it to end (SIGTERM).
    ///
    /// # Panics
    /// When it is not there.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Waits for its end, for up to 30 s.
    ///
    /// # Panics
    /// When it does not end.
    pub fn wait(mut self) -> ExitStatus {
        match wait(&mut self.child, patience(30.0)) {
            Some(status) => status,
            None => panic!("{} does not end:\n{}", self.name, self.log()),
        }
    }

    /// Ends it as a crash would (SIGKILL).
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Lets it stand still (SIGSTOP), until [`Self::resume`].
    ///
    /// # Panics
    /// When it is not there.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Panics
    /// When it is not there.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Sends it SIGHUP.
    ///
    /// # Panics
    /// When it is not there.
    pub fn hang_up(&self) {
        self.signal("HUP");
    }

    fn signal(&self, name: &str) {
        let asked = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(asked.is_ok_and(|status| status.success()), "{} is not there for SIG{name}", self.name);
    }

    /// What it occupies now.
    pub fn footprint(&self) -> Footprint {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.pid())).map_or(0, Iterator::count);
        Footprint { resident_bytes: kib.unwrap_or(0) * 1024, descriptors }
    }
}

/// What a process occupies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    pub resident_bytes: u64,
    /// Open files and sockets.
    pub descriptors: usize,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of {}: {}", self.name, self.log.display());
        }
    }
}

/// The running test's name as a file name: test threads carry it.
fn test_name() -> String {
    let thread = std::thread::current();
    let name: String = thread
        .name()
        .unwrap_or("test")
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    name.chars().take(80).collect()
}

fn log_folder() -> PathBuf {
    let binary = binary();
    binary.ancestors().nth(2).map_or_else(|| PathBuf::from("target"), PathBuf::from).join("test-logs")
}
