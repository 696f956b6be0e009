//! The all-in-one process as a child that counts its own bytes, and load on it from here.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;

/// With this as its first argument `whole-process` is the server.
pub const SERVE: &str = "serve";
/// The API key of a server that listens on loopback for as long as a measurement.
pub const KEY: &str = "load:only-for-this-run-on-loopback-0123456789";
const LISTENING: &str = "switchyard: listening on ";
/// Between two looks at the bytes.
const LOOK: Duration = Duration::from_millis(100);

/// A running server. It ends with this.
pub struct Server {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub url: String,
}

impl Server {
    /// Starts `program` (`whole-process`) as a server on loopback.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(program: &Path) -> Self {
        let mut command = Command::new(program);
        command.args([SERVE, "--listen", "127.0.0.1:0", "--media-address", "127.0.0.1", "--media-port", "0"]);
        command.args(["--api-keys", KEY, "--log", "warn"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the server starts");
        let questions = child.stdin.take().expect("stdin is piped");
        let answers = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut server = Self { child, questions, answers, url: String::new() };
        server.url = server.line(LISTENING);
        server
    }

    /// The bytes that it has in use now.
    ///
    /// # Panics
    /// When it has ended.
    pub fn live(&mut self) -> i64 {
        self.questions.write_all(b"\n").expect("the server runs");
        self.line("live ").parse().expect("a number")
    }

    fn line(&mut self, prefix: &str) -> String {
        loop {
            let mut line = String::new();
            let length = self.answers.read_line(&mut line).expect("its output can be read");
            assert!(length > 0, "the server ended before it said {prefix:?}");
            if let Some(rest) = line.strip_prefix(prefix) {
                return rest.trim().to_owned();
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Answers every line of the standard input with the bytes in use. Ends the process with its input.
pub fn answer() {
    for _ in std::io::stdin().lines().map_while(Result::ok) {
        println!("live {}", crate::allocations::live());
    }
    std::process::exit(0);
}

#[derive(Parser)]
struct Load {
    #[command(flatten)]
    options: load::Options,
}

/// The bytes in use with so many subscribers of one publisher's video and audio, on a fresh server: the median over the
/// last two seconds in which all of them have their media. `arguments` are those of `switchyard load`.
///
/// # Errors
/// When not everybody got what they should, in words.
pub async fn live_with(program: &Path, subscribers: u32, arguments: &[&str]) -> Result<i64, String> {
    const WINDOW: Duration = Duration::from_secs(2);
    let mut server = Server::start(program);
    let (number, url) = (subscribers.to_string(), server.url.clone());
    let mut all = vec!["load", "--url", &url, "--api-key", KEY, "--subscribers", &number, "--quiet"];
    all.extend(["--duration", "3s", "--join-rate", "40"]);
    all.extend(arguments);
    let options = Load::try_parse_from(all).map_err(|error| error.to_string())?.options;
    let is_over = AtomicBool::new(false);
    let (report, looks, end) = std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut looks = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                looks.push((Instant::now(), server.live()));
                std::thread::sleep(LOOK);
            }
            looks
        });
        let runtime = tokio::runtime::Handle::current();
        let report = tokio::task::block_in_place(|| runtime.block_on(load::run(&options)));
        let end = Instant::now();
        is_over.store(true, Ordering::Relaxed);
        (report, looking.join().expect("the server answers"), end)
    });
    let report = report?;
    if report.joins.failed > 0 {
        return Err(format!("not everybody got in: {:?}", report.failures));
    }
    let mut bytes: Vec<i64> =
        looks.iter().filter(|(at, _)| end.duration_since(*at) < WINDOW).map(|(_, bytes)| *bytes).collect();
    bytes.sort_unstable();
    bytes.get(bytes.len() / 2).copied().ok_or_else(|| "nobody looked".to_owned())
}
