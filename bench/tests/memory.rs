//! What the all-in-one process keeps in memory, counted byte by byte by its allocator: nothing here depends on how much
//! of it the system happens to back with pages.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use bench::whole::{Server, live_with};

const PROGRAM: &str = env!("CARGO_BIN_EXE_whole-process");

/// Media that a debug build forwards with ease. What a subscriber costs does not depend on it.
const LIGHT: [&str; 4] = ["--video-bitrate", "100k", "--fps", "5"];
const FEW: u32 = 10;
const MANY: u32 = 110;
/// In use for each subscriber of one video and one audio track: media, DTLS, API connection, unconfirmed events, documents.
const AT_MOST: i64 = 110_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_costs_no_more_than_it_did() {
    let program = Path::new(PROGRAM);
    let few = live_with(program, FEW, &LIGHT).await.unwrap();
    let many = live_with(program, MANY, &LIGHT).await.unwrap();
    let each = (many - few) / i64::from(MANY - FEW);
    println!("{few} bytes with {FEW} subscribers, {many} with {MANY}: {each} for each");
    assert!((1..AT_MOST).contains(&each), "{each} bytes for each subscriber");
}

/// Every request leaves a duration behind. A process whose metrics nobody reads must not keep them for ever.
#[test]
fn durations_are_not_kept_one_by_one_when_nobody_reads_the_metrics() {
    const REQUESTS: usize = 40_000;
    let mut server = Server::start(Path::new(PROGRAM));
    let connection = TcpStream::connect(server.url.trim_start_matches("http://")).unwrap();
    let mut connection = BufReader::new(connection);
    let mut ask = |times: usize| (0..times).for_each(|_| ask_whether_it_lives(&mut connection));
    ask(1_000);
    let before = server.live();
    ask(REQUESTS);
    // A number of eight bytes each.
    let kept = REQUESTS as i64 * 8;
    let deadline = Instant::now() + patience();
    while server.live() - before > kept / 4 {
        assert!(
            Instant::now() < deadline,
            "{} bytes are kept of {REQUESTS} requests",
            server.live() - before
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn ask_whether_it_lives(connection: &mut BufReader<TcpStream>) {
    connection.get_mut().write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let (mut line, mut length) = (String::new(), 0);
    while line != "\r\n" {
        line.clear();
        connection.read_line(&mut line).unwrap();
        if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = text.trim().parse().unwrap();
        }
    }
    connection.read_exact(&mut vec![0; length]).unwrap();
}

/// How long a test waits for what must happen. A slow machine may stretch it.
fn patience() -> Duration {
    let factor = std::env::var("SWITCHYARD_TEST_PATIENCE").ok().and_then(|it| it.parse().ok());
    Duration::from_secs(60) * factor.unwrap_or(1)
}
