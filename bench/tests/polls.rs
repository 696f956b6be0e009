//! What somebody who joined and waits in a long poll keeps in the all-in-one process, counted byte by byte by its allocator.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bench::whole::{KEY, Server};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_whole-process");

/// Members of each room.
const ROOM: usize = 10;
/// What there is once, and what grows in steps, is there with these.
const FEW: usize = 100;
const MANY: usize = 300;
/// In use for each: HTTP connection and request, the queue and its reader, the endpoint without media, documents. A debug build:
/// 40,400.
const AT_MOST: i64 = 42_000;
/// Polls wait for so many seconds: all of them are there while bytes are counted.
const WAIT: u32 = 30;

/// One connection to the API.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(server: &Server) -> Self {
        let stream = TcpStream::connect(server.url.trim_start_matches("http://")).unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&mut self, what: &str, authorization: &str, body: &str) {
        let length = body.len();
        let head = format!(
            "{what} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        self.0.get_mut().write_all((head + body).as_bytes()).unwrap();
    }

    fn answer(&mut self) -> Value {
        serde_json::from_slice(&self.body()).unwrap()
    }

    fn body(&mut self) -> Vec<u8> {
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            self.0.read_line(&mut line).unwrap();
            if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = text.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        body
    }

    fn ask(&mut self, what: &str, authorization: &str, body: &str) -> Value {
        self.send(what, authorization, body);
        self.answer()
    }

    fn is_answered(&self) -> bool {
        let stream = self.0.get_ref();
        stream.set_nonblocking(true).unwrap();
        let peeked = stream.peek(&mut [0]);
        stream.set_nonblocking(false).unwrap();
        peeked.is_ok()
    }
}

/// Somebody who joined, and polls.
struct Member {
    connection: Connection,
    events: String,
    token: String,
}

impl Member {
    fn poll(&mut self, cursor: &Value) {
        let cursor = cursor.as_str().map(|it| format!("&cursor={it}")).unwrap_or_default();
        let what = format!("{}&wait={WAIT}{cursor}", self.events);
        self.connection.send(&what, &self.token, "");
    }

    /// Polls again if the last poll is over; tells whether it was.
    fn poll_on(&mut self) -> bool {
        let is_answered = self.connection.is_answered();
        if is_answered {
            let page = self.connection.answer();
            assert!(page["events"].is_array(), "{page}");
            self.poll(&page["cursor"]);
        }
        is_answered
    }
}

fn fill_a_room(server: &Server) -> Vec<Member> {
    let mut connection = Connection::open(server);
    let room = connection.ask("POST /v1/sessions", &format!("Basic {}", STANDARD.encode(KEY)), "{}");
    let path = format!("/v1/sessions/{}/participants", room["session"]["id"].as_str().unwrap());
    let link = format!("Bearer {}", room["token"].as_str().unwrap());
    let join = |_| {
        let joined = connection.ask(&format!("POST {path}"), &link, "{}");
        let [participant, endpoint, token] =
            [&joined["participant"]["id"], &joined["endpoint_id"], &joined["token"]]
                .map(|it| it.as_str().unwrap());
        let events = format!("GET {path}/{participant}/events?endpoint={endpoint}");
        let mut member =
            Member { connection: Connection::open(server), events, token: format!("Bearer {token}") };
        member.poll(&Value::Null);
        member
    };
    (0..ROOM).map(join).collect()
}

/// How many polls wait, as the server says.
fn waiting(operator: &mut Connection) -> usize {
    operator.send("GET /metrics", "", "");
    let metrics = String::from_utf8(operator.body()).unwrap();
    let line =
        metrics.lines().find_map(|line| line.strip_prefix("switchyard_api_streams{transport=\"poll\"} "));
    line.map_or(0, |number| number.parse().unwrap())
}

/// The bytes in use while everybody waits, having read what there was.
fn live(server: &mut Server, operator: &mut Connection, members: &mut [Member]) -> i64 {
    let deadline = Instant::now() + patience();
    while Instant::now() < deadline {
        let is_everybody_there = waiting(operator) == members.len();
        let live = server.live();
        let answered = members.iter_mut().filter_map(|member| member.poll_on().then_some(())).count();
        if is_everybody_there && answered == 0 {
            return live;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("not everybody waits");
}

#[test]
fn who_waits_for_events_costs_no_more_than_it_did() {
    let mut server = Server::start(Path::new(PROGRAM));
    let mut operator = Connection::open(&server);
    let mut members = Vec::new();
    let mut with = |count: usize| {
        while members.len() < count {
            members.extend(fill_a_room(&server));
        }
        live(&mut server, &mut operator, &mut members)
    };
    let (few, many) = (with(FEW), with(MANY));
    let each = (many - few) / (MANY - FEW) as i64;
    println!("{few} bytes with {FEW} who wait, {many} with {MANY}: {each} for each");
    assert!((1..AT_MOST).contains(&each), "{each} bytes for each who waits");
}

/// How long a test waits for what must happen. A slow machine may stretch it.
fn patience() -> Duration {
    let factor = std::env::var("SWITCHYARD_TEST_PATIENCE").ok().and_then(|it| it.parse().ok());
    Duration::from_secs(60) * factor.unwrap_or(1)
}
