//! What long polls cost: `long-polls [--cluster] [CLIENTS [EVENTS_PER_SECOND]]`, run by `bench/long-polls`.
//!
//! Everything in one process, or (`--cluster`) one API and one worker process over RabbitMQ and MongoDB; rooms of ten, in which
//! the application says something: each message is an event to each of the ten. Each client has a connection of its own and
//! always one poll open. An event's time is from before its message is sent until the answer of the poll is read, all by one
//! clock. Memory is what is resident of the process that is polled, in MB of 10^6 bytes.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use support::deployment::text;
use support::{Deployment, Http, Shape};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

/// Clients in each room.
const ROOM: usize = 10;
const MEASURED: Duration = Duration::from_secs(30);
/// Before the measurement, and after it for what is still on its way.
const SETTLED: Duration = Duration::from_secs(5);
/// Rooms that are filled at once, each with one join after the other. The MongoDB-wire server of the tests is late beyond a few.
const AT_ONCE: usize = 32;
const AT_ONCE_IN_A_CLUSTER: usize = 12;
/// Between two looks at the memory while events come.
const LOOK: Duration = Duration::from_secs(1);

struct Shared {
    address: String,
    started: Instant,
    /// Microseconds, one for each event.
    delays: Mutex<Vec<u32>>,
    polls: Mutex<JoinSet<()>>,
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).expect("a run is short")
    }

    /// Polls for ever.
    async fn poll(self: Arc<Self>, path: String, token: String) {
        let stream = TcpStream::connect(&self.address).await.expect("the server takes connections");
        stream.set_nodelay(true).expect("a socket can be set up");
        let mut stream = BufReader::new(stream);
        let mut cursor = String::new();
        let mut body = Vec::new();
        loop {
            let request = format!(
                "GET {path}&wait=25{cursor} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await.expect("the server reads");
            read(&mut stream, &mut body).await;
            let at = self.now();
            let page: Value = serde_json::from_slice(&body).expect("JSON");
            let events = page["events"].as_array().unwrap_or_else(|| panic!("no events: {page}"));
            let sent = events.iter().filter_map(|event| event["data"]["data"]["sent"].as_u64());
            let delays = sent.map(|sent| u32::try_from(at - sent).unwrap_or(u32::MAX));
            self.delays.lock().expect("nobody panics").extend(delays);
            if let Some(last) = page["cursor"].as_str() {
                cursor = format!("&cursor={last}");
            }
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>, body: &mut Vec<u8>) {
    let (mut line, mut length, mut is_first) = (String::new(), 0, true);
    loop {
        line.clear();
        assert_ne!(
            stream.read_line(&mut line).await.expect("the server answers"),
            0,
            "it closed the connection"
        );
        if std::mem::take(&mut is_first) {
            assert!(line.starts_with("HTTP/1.1 200"), "{line}");
        }
        let field = line.trim_end().to_ascii_lowercase();
        if let Some(value) = field.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
        if field.is_empty() {
            break;
        }
    }
    body.resize(length, 0);
    stream.read_exact(body).await.expect("the body is whole");
}

struct Arguments {
    shape: Shape,
    clients: usize,
    rate: usize,
}

impl Arguments {
    fn read() -> Self {
        let mut given: Vec<_> = std::env::args().skip(1).collect();
        let shape = match given.first().map(String::as_str) {
            Some("--cluster") => {
                given.remove(0);
                Shape::Cluster { apis: 1, workers: 1 }
            }
            _ => Shape::Embedded,
        };
        let number = |index: usize, default: usize| {
            given.get(index).map_or(default, |text| text.parse().expect("a number"))
        };
        Self { shape, clients: number(0, 10_000), rate: number(1, 1_000) }
    }

    fn at_once(&self) -> usize {
        match self.shape {
            Shape::Embedded => AT_ONCE,
            Shape::Cluster { .. } => AT_ONCE_IN_A_CLUSTER,
        }
    }
}

fn percentile(sorted: &[u32], part: f64) -> f64 {
    let index = ((sorted.len() as f64 * part) as usize).min(sorted.len() - 1);
    f64::from(sorted[index]) / 1000.0
}

/// MB of the process that is polled; with others, of each.
fn memory(deployment: &Deployment) -> String {
    let mb = |process: &support::process::Process| process.footprint().resident_bytes as f64 / 1e6;
    match deployment.workers.first() {
        None => format!("{:.0} MB", mb(&deployment.apis[0])),
        Some(worker) => format!("API {:.0} MB, worker {:.0} MB", mb(&deployment.apis[0]), mb(worker)),
    }
}

/// Creates a room and fills it with clients that poll, one after the other.
async fn fill(backend: Http, http: Http, shared: Arc<Shared>, gate: Arc<Semaphore>) -> String {
    let _permit = gate.acquire().await.expect("nobody closes it");
    let room = backend.insist(Method::POST, "/v1/sessions", &json!({})).await.expect("a result").expect(201);
    let (room, http) = (text(&room["session"]["id"]), http.with_token(&text(&room["token"])));
    let path = format!("/v1/sessions/{room}/participants");
    for _ in 0..ROOM {
        let joined = http.insist(Method::POST, &path, &json!({})).await.expect("a result").expect(201);
        let (id, endpoint) = (text(&joined["participant"]["id"]), text(&joined["endpoint_id"]));
        let events = format!("{path}/{id}/events?endpoint={endpoint}");
        let poll = shared.clone().poll(events, text(&joined["token"]));
        shared.polls.lock().expect("nobody panics").spawn(poll);
    }
    room
}

/// Lets the application speak in one room after the other; gives how many events that must have made.
async fn speak(backend: &Http, shared: &Arc<Shared>, rooms: &[String], rate: usize) -> usize {
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(ROOM as f64 / rate as f64));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (began, mut said) = (Instant::now(), 0);
    let mut messages = JoinSet::new();
    while began.elapsed() < MEASURED {
        ticks.tick().await;
        // Neighbours in the list joined together; these are far apart.
        let path = format!("/v1/sessions/{}/messages", rooms[said * 37 % rooms.len()]);
        said += 1;
        let (backend, shared) = (backend.clone(), shared.clone());
        messages.spawn(async move {
            let body = json!({"topic": "measured", "data": {"sent": shared.now()}});
            backend.post(&path, &body).await.expect(200);
        });
    }
    messages.join_all().await;
    said * ROOM
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::read();
    let limits = ["--max-connections-per-address", "0", "--max-requests-per-address", "0"];
    let more = ["--max-requests-per-key", "0", "--max-endpoints", "100000"];
    let deployment = Deployment::start_with(arguments.shape, &[&limits[..], &more].concat()).await;
    println!("before anybody came: {}", memory(&deployment));
    let shared = Arc::new(Shared {
        address: deployment.urls()[0].trim_start_matches("http://").to_owned(),
        started: Instant::now(),
        delays: Mutex::default(),
        polls: Mutex::default(),
    });
    let (backend, http) = (deployment.backend(), deployment.http());
    let gate = Arc::new(Semaphore::new(arguments.at_once()));
    let mut filled = JoinSet::new();
    for _ in 0..arguments.clients.div_ceil(ROOM) {
        filled.spawn(fill(backend.clone(), http.clone(), shared.clone(), gate.clone()));
    }
    let rooms = filled.join_all().await;
    let took = shared.started.elapsed().as_secs_f64();
    println!("{} joined within {took:.0} s: {}", rooms.len() * ROOM, memory(&deployment));
    tokio::time::sleep(SETTLED).await;
    println!("all poll: {}", memory(&deployment));

    let began = Instant::now();
    let speaking = speak(&backend, &shared, &rooms, arguments.rate);
    let mut looks = tokio::time::interval(LOOK);
    let mut most = 0;
    let expected = {
        let mut speaking = std::pin::pin!(speaking);
        loop {
            tokio::select! {
                expected = &mut speaking => break expected,
                _ = looks.tick() => most = most.max(deployment.apis[0].footprint().resident_bytes),
            }
        }
    };
    let took = began.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLED).await;
    let mut delays = std::mem::take(&mut *shared.delays.lock().expect("nobody panics"));
    delays.sort_unstable();
    println!(
        "{} events of {expected} arrived, {:.0} a second; {:.0} MB at most, then {}",
        delays.len(),
        expected as f64 / took,
        most as f64 / 1e6,
        memory(&deployment)
    );
    println!(
        "p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, longest {:.1} ms",
        percentile(&delays, 0.5),
        percentile(&delays, 0.99),
        percentile(&delays, 0.999),
        percentile(&delays, 1.0)
    );
    // Before the processes go.
    let mut polls = std::mem::take(&mut *shared.polls.lock().expect("nobody panics"));
    polls.shutdown().await;
}
