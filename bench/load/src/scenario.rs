//! One run: rooms made, clients brought in, everything measured for a while, rooms closed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::client::Captured;
use crate::engine::{Engine, Interval, Settings};
use crate::flood;
use crate::histogram::Histogram;
use crate::options::{Flood, Options};
use crate::process::{self, Usage};
use crate::progress::Progress;
use crate::report::{FloodReport, Generator, Joins, Packets, Process, Quantiles, Report, Scenario, Second};
use crate::signalling::{Clients, Failure, Janus, Joined, Role, Room, Server, Switchyard, Whip};
use crate::socket::wall_ns;

/// How often the runner looks whether clients have their media.
const LOOK: Duration = Duration::from_millis(20);
/// The first client of a join storm comes this long after the window began.
const STORM_AFTER: Duration = Duration::from_secs(1);

/// Clients of one ramp, with why the others are not among them.
#[derive(Default)]
struct Crowd {
    clients: Vec<Joined>,
    asked: u32,
    failures: BTreeMap<String, u32>,
}

/// Runs the scenario.
///
/// # Errors
/// When the run cannot take place: options that contradict each other, a server that is not there, no client with media.
pub async fn run(options: &Options) -> Result<Report, Failure> {
    options.check()?;
    let baseline = usages(&options.pids)?;
    let captured = (options.flood == Some(Flood::Replay)).then(Captured::default);
    let engine = Engine::start(Settings {
        threads: options.threads as usize,
        ciphers: options.srtp,
        sample: options.check_one_of,
        captured: captured.clone(),
    });
    let engine = Arc::new(engine.map_err(|error| format!("the generator cannot start: {error}"))?);
    let server = Arc::new(connect(options).await?);
    let clients = Clients { engine, address: options.client_address, media: options.media() };
    let mut rooms = Vec::new();
    for number in 0..options.rooms {
        let senders = options.publishers() + options.parties;
        match server.create_room(number, senders).await {
            Ok(room) => rooms.push(Arc::new(room)),
            Err(error) => {
                close(&server, &rooms).await;
                return Err(error);
            }
        }
    }
    let runner = Runner {
        options,
        server: Arc::clone(&server),
        clients,
        rooms: rooms.clone(),
        progress: Progress::new(options.quiet),
        captured,
    };
    // Interrupted or failed, the rooms are closed all the same.
    let result = tokio::select! {
        result = runner.run(baseline) => result,
        _ = tokio::signal::ctrl_c() => Err("interrupted".to_owned()),
    };
    runner.progress.clear();
    close(&server, &rooms).await;
    result
}

async fn connect(options: &Options) -> Result<Server, Failure> {
    if let Some(url) = &options.janus {
        return Ok(Server::Janus(Janus::connect(url).await?));
    }
    if let Some(publish) = &options.whip {
        let whip = Whip::new(publish.clone(), options.whep.clone(), options.bearer.clone())?;
        return Ok(Server::Whip(whip));
    }
    let key = options.api_key.as_deref().unwrap_or_default();
    Ok(Server::Switchyard(Switchyard::new(&options.url, key)?))
}

async fn close(server: &Server, rooms: &[Arc<Room>]) {
    for room in rooms {
        // A server that is gone must not hold up the report.
        let _ = tokio::time::timeout(Duration::from_secs(5), server.close_room(room)).await;
    }
}

fn usages(pids: &[u32]) -> Result<Vec<Usage>, Failure> {
    pids.iter().map(|pid| process::usage(*pid)).collect()
}

struct Runner<'a> {
    options: &'a Options,
    server: Arc<Server>,
    clients: Clients,
    rooms: Vec<Arc<Room>>,
    progress: Progress,
    captured: Option<Captured>,
}

/// What the window gave.
struct Window {
    length: Duration,
    total: Interval,
    seconds: Vec<Second>,
    before: Vec<Usage>,
    after: Vec<Usage>,
    storm: Option<Crowd>,
    flood: Option<FloodReport>,
}

impl Runner<'_> {
    async fn run(&self, baseline: Vec<Usage>) -> Result<Report, Failure> {
        let options = self.options;
        let started_at = wall_ns() / 1_000_000;
        let mut senders = vec![Role::Publisher; options.publishers() as usize];
        senders.extend(vec![Role::Party; options.parties as usize]);
        let mut crowd = self.bring_in(&senders, options.join_rate, 0).await;
        self.wait_for_media("join", &mut crowd).await;
        // What each publisher costs, history included, is not the subscribers'.
        tokio::time::sleep(options.settle).await;
        let publishing = usages(&options.pids)?;
        let subscribers = vec![Role::Subscriber; options.subscribers() as usize];
        let mut watching = self.bring_in(&subscribers, options.join_rate, 0).await;
        self.wait_for_media("join", &mut watching).await;
        crowd.absorb(watching);
        let served = crowd.clients.iter().filter(|client| client.is_complete()).count();
        if served == 0 {
            return Err(format!("no client got what it should: {:?}", crowd.failures));
        }
        for room in &self.rooms {
            let all = options.subscribers() + options.parties;
            room.receivers_of_publishers.store(all, Ordering::Relaxed);
            room.receivers_of_parties.store(all.saturating_sub(1), Ordering::Relaxed);
        }
        tokio::time::sleep(options.settle).await;
        let window = self.measure(&crowd).await?;
        Ok(self.report(started_at, &crowd, window, &baseline, &publishing))
    }

    /// Starts the joins at `rate` per second, room after room, and waits for their replies.
    async fn bring_in(&self, roles: &[Role], rate: f64, group: usize) -> Crowd {
        let mut joins = JoinSet::new();
        let mut crowd = Crowd::default();
        let start = tokio::time::Instant::now();
        let all = self.rooms.iter().flat_map(|room| roles.iter().map(move |role| (room, *role)));
        let count = self.rooms.len() * roles.len();
        for (number, (room, role)) in all.enumerate() {
            tokio::time::sleep_until(start + Duration::from_secs_f64(number as f64 / rate)).await;
            self.progress.show("join", number as f64 / count as f64, &format!("{number} of {count}"));
            let (server, clients, room) = (Arc::clone(&self.server), self.clients.clone(), Arc::clone(room));
            crowd.asked += 1;
            joins.spawn(async move { server.join(&clients, &room, role, group).await });
        }
        while let Some(joined) = joins.join_next().await {
            match joined {
                Ok(Ok(client)) => crowd.clients.push(client),
                Ok(Err(failure)) => crowd.fail(failure),
                Err(error) => crowd.fail(error.to_string()),
            }
        }
        crowd
    }

    /// Until every client has everything, or the time is over.
    async fn wait_for_media(&self, what: &str, crowd: &mut Crowd) {
        let deadline = Instant::now() + self.options.timeout;
        loop {
            let settled = |client: &&Joined| client.is_complete() || client.failed().is_some();
            let done = crowd.clients.iter().filter(settled).count();
            let share = done as f64 / crowd.clients.len().max(1) as f64;
            self.progress.show(what, share, &format!("{done} of {} with media", crowd.clients.len()));
            if done == crowd.clients.len() || Instant::now() >= deadline {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        let unserved: Vec<String> = crowd
            .clients
            .iter()
            .filter(|client| !client.is_complete())
            .map(|client| client.failed().unwrap_or("not every track arrived in time").to_owned())
            .collect();
        unserved.into_iter().for_each(|why| crowd.fail(why));
    }

    async fn measure(&self, crowd: &Crowd) -> Result<Window, Failure> {
        let options = self.options;
        let roles = vec![Role::Subscriber; options.storm as usize];
        let rate =
            f64::from(options.storm * options.rooms).max(1.0) / options.storm_within.as_secs_f64().max(0.001);
        let storm = async {
            if roles.is_empty() {
                return None;
            }
            tokio::time::sleep(STORM_AFTER).await;
            let mut storm = self.bring_in(&roles, rate, 1).await;
            self.wait_for_media("storm", &mut storm).await;
            Some(storm)
        };
        let flood = self.start_flood(crowd)?;
        self.clients.engine.take().await;
        let (start, before) = (Instant::now(), usages(&options.pids)?);
        let (flood_before, mut last) = (flood.as_ref().map_or(0, flood::Running::sent), before.clone());
        let mut total = Interval::default();
        let mut seconds = Vec::new();
        let looking = async {
            let mut ticks = tokio::time::interval(Duration::from_secs(1));
            ticks.tick().await;
            let mut since = start;
            while start.elapsed() + Duration::from_millis(500) < options.duration {
                ticks.tick().await;
                let interval = self.clients.engine.take().await;
                let now = usages(&options.pids)?;
                let length = since.elapsed().as_secs_f64();
                since = Instant::now();
                let second = second(start.elapsed(), length, &interval, &last, &now, crowd);
                let note = format!(
                    "{:.0} of {:.0} s, {:.0} packets/s, p99 {:.2} ms",
                    second.at,
                    options.duration.as_secs_f64(),
                    second.forwarded_per_second,
                    second.latency_p99_ms.unwrap_or(0.0)
                );
                self.progress.show("measure", second.at / options.duration.as_secs_f64(), &note);
                seconds.push(second);
                total.merge(&interval);
                last = now;
            }
            // The window ends with the last look, so that all figures are of the same time.
            Ok::<_, Failure>((since.duration_since(start), last))
        };
        let (looked, storm) = tokio::join!(looking, storm);
        let (length, after) = looked?;
        let flood = flood.zip(options.flood).map(|(running, kind)| {
            let sent = running.sent() - flood_before;
            FloodReport { kind, sent, per_second: sent as f64 / start.elapsed().as_secs_f64() }
        });
        Ok(Window { length, total, seconds, before, after, storm, flood })
    }

    fn start_flood(&self, crowd: &Crowd) -> Result<Option<flood::Running>, Failure> {
        let Some(kind) = self.options.flood else { return Ok(None) };
        let servers = crowd.clients.iter().flat_map(|it| it.sends.iter().chain(&it.receives));
        let (address, fragment) = servers
            .filter_map(|shared| shared.server.get().cloned())
            .next()
            .ok_or("nobody is connected to a media port that could be flooded")?;
        let captured = self.captured.clone().unwrap_or_default();
        let target = flood::Target { address, fragment, captured, from: self.options.client_address };
        let running = flood::Running::start(kind, self.options.flood_rate, target);
        running.map(Some).map_err(|error| format!("the flood cannot start: {error}"))
    }

    fn report(
        &self,
        started_at: u64,
        crowd: &Crowd,
        window: Window,
        baseline: &[Usage],
        publishing: &[Usage],
    ) -> Report {
        let options = self.options;
        let seconds = window.length.as_secs_f64();
        let counters = &window.total.counters;
        let forwarded = counters.received;
        let cpu: Duration = window.after.iter().map(|it| it.cpu).sum::<Duration>()
            - window.before.iter().map(|it| it.cpu).sum::<Duration>();
        let resident = |usages: &[Usage]| usages.iter().map(|it| it.resident_bytes).sum::<u64>() as f64;
        // With subscribers the publishers' share is known and left out; parties are both.
        let receiving = options.rooms * (options.subscribers() + options.parties);
        let before = if options.parties == 0 { publishing } else { baseline };
        let growth = resident(&window.after) - resident(before);
        let mut failures = crowd.failures.clone();
        if let Some(storm) = &window.storm {
            storm.failures.iter().for_each(|(why, count)| *failures.entry(why.clone()).or_default() += count);
        }
        let measures_processes = !options.pids.is_empty();
        let no_storm = options.storm == 0;
        Report {
            label: options.label.clone(),
            server: self.server.name(),
            machine: process::machine(),
            started_at,
            scenario: self.scenario(crowd, window.storm.as_ref()),
            window_seconds: seconds,
            packets: packets(&window.total, seconds, no_storm && !options.simulcast),
            latency_ms: Quantiles::of(&window.total.latency[0]),
            latency_percentiles: percentiles(&window.total.latency[0]),
            joins: crowd.joins(),
            storm: window.storm.as_ref().map(Crowd::joins),
            storm_latency_ms: Quantiles::of(&window.total.latency[1]),
            processes: options
                .pids
                .iter()
                .enumerate()
                .map(|(index, pid)| Process {
                    pid: *pid,
                    cpu_seconds: (window.after[index].cpu - window.before[index].cpu).as_secs_f64(),
                    cpu_percent: (window.after[index].cpu - window.before[index].cpu).as_secs_f64() / seconds
                        * 100.0,
                    resident_start: baseline[index].resident_bytes,
                    resident_publishing: publishing[index].resident_bytes,
                    resident_end: window.after[index].resident_bytes,
                    threads_cpu_seconds: threads(&window.before[index], &window.after[index]),
                })
                .collect(),
            cpu_us_per_forwarded_packet: (measures_processes && forwarded > 0)
                .then(|| cpu.as_secs_f64() * 1e6 / forwarded as f64),
            memory_bytes_per_subscriber: (measures_processes && receiving > 0 && no_storm)
                .then(|| growth / f64::from(receiving)),
            flood: window.flood,
            generator: Generator {
                threads: options.threads,
                busy_percent: window.total.busy.as_secs_f64() / seconds * 100.0,
                overflow: counters.overflow,
                unsent: counters.unsent,
                checked: counters.checked,
                unreadable: counters.unreadable,
                misrouted: counters.misrouted,
                unknown: counters.unknown,
            },
            seconds: window.seconds,
            failures,
        }
    }

    fn scenario(&self, crowd: &Crowd, storm: Option<&Crowd>) -> Scenario {
        let options = self.options;
        let mut srtp_profiles = BTreeMap::new();
        let clients = crowd.clients.iter().chain(storm.iter().flat_map(|storm| &storm.clients));
        for client in clients {
            let profile = client.sends.iter().chain(&client.receives).find_map(|it| it.profile.get());
            *srtp_profiles.entry(profile.copied().unwrap_or("not connected").to_owned()).or_default() += 1;
        }
        Scenario {
            rooms: options.rooms,
            publishers: options.publishers(),
            subscribers: options.subscribers(),
            parties: options.parties,
            storm: options.storm,
            video_bps: (!options.no_video).then_some(options.video_bitrate),
            fps: options.fps,
            codec: options.codec,
            audio_bps: (!options.no_audio).then_some(options.audio_bitrate),
            simulcast: options.simulcast,
            srtp_profiles,
        }
    }
}

impl Crowd {
    fn fail(&mut self, why: String) {
        *self.failures.entry(why).or_default() += 1;
    }

    fn absorb(&mut self, other: Self) {
        self.clients.extend(other.clients);
        self.asked += other.asked;
        other.failures.into_iter().for_each(|(why, count)| *self.failures.entry(why).or_default() += count);
    }

    fn joins(&self) -> Joins {
        let quantiles = |of: fn(&Joined) -> Option<u64>| {
            let mut histogram = Histogram::default();
            self.clients.iter().filter_map(of).for_each(|ns| histogram.record(ns / 1_000));
            Quantiles::of(&histogram)
        };
        let complete = self.clients.iter().filter(|client| client.is_complete()).count() as u32;
        Joins {
            clients: self.asked,
            failed: self.asked - complete,
            connected_ms: quantiles(Joined::connected),
            first_media_ms: quantiles(Joined::first_media),
            all_media_ms: quantiles(Joined::all_media),
        }
    }
}

/// Shares of all values, with ever smaller steps towards the end, and the value in milliseconds that each does not exceed.
fn percentiles(histogram: &Histogram) -> Vec<(f64, f64)> {
    const STEPS: u32 = 120;
    const NINES: f64 = 4.0;
    let shares = (0..=STEPS).map(|step| 1.0 - 10f64.powf(-NINES * f64::from(step) / f64::from(STEPS)));
    shares.filter_map(|share| Some((share, histogram.quantile(share)? as f64 / 1_000.0))).collect()
}

fn packets(total: &Interval, seconds: f64, knows_due: bool) -> Packets {
    let counters = &total.counters;
    let arrivals = &counters.arrivals;
    let lost = arrivals.expected.saturating_sub(arrivals.received);
    let percent = |part: u64, whole: u64| part as f64 / whole.max(1) as f64 * 100.0;
    Packets {
        sent: counters.sent,
        forwarded: counters.received,
        forwarded_per_second: counters.received as f64 / seconds,
        forwarded_mbit_per_second: counters.received_bytes as f64 * 8.0 / 1e6 / seconds,
        expected: arrivals.expected,
        lost,
        loss_percent: percent(lost, arrivals.expected),
        delivered_percent: (knows_due && counters.due > 0).then(|| percent(arrivals.received, counters.due)),
        late: arrivals.late,
        duplicates: arrivals.duplicates,
        repairs_asked: counters.repairs_asked,
        repairs_received: counters.repairs_received,
        repairs_sent: counters.repairs_sent,
        keyframes_sent: counters.keyframes_sent,
        keyframe_requests_received: counters.keyframe_requests_received,
        keyframe_requests_sent: counters.keyframe_requests_sent,
    }
}

fn second(
    at: Duration,
    length: f64,
    interval: &Interval,
    last: &[Usage],
    now: &[Usage],
    crowd: &Crowd,
) -> Second {
    let arrivals = &interval.counters.arrivals;
    let sum = |usages: &[Usage]| usages.iter().map(|it| it.cpu).sum::<Duration>().as_secs_f64();
    let quantile = |quantile| interval.latency[0].quantile(quantile).map(|value| value as f64 / 1_000.0);
    Second {
        at: at.as_secs_f64(),
        forwarded_per_second: interval.counters.received as f64 / length,
        lost: arrivals.expected.saturating_sub(arrivals.received),
        latency_p50_ms: quantile(0.5),
        latency_p99_ms: quantile(0.99),
        cpu_percent: (!now.is_empty()).then(|| (sum(now) - sum(last)) / length * 100.0),
        resident_bytes: (!now.is_empty()).then(|| now.iter().map(|it| it.resident_bytes).sum()),
        clients_with_media: crowd.clients.iter().filter(|client| client.is_complete()).count() as u32,
    }
}

fn threads(before: &Usage, after: &Usage) -> BTreeMap<String, f64> {
    let used = after.threads.iter().map(|(name, cpu)| {
        let before = before.threads.get(name).copied().unwrap_or_default();
        (name.clone(), cpu.saturating_sub(before).as_secs_f64())
    });
    used.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receive::Arrivals;

    #[test]
    fn loss_and_delivery_are_shares_of_what_was_due() {
        let mut total = Interval::default();
        total.counters.due = 1_000;
        total.counters.received = 1_010;
        total.counters.arrivals = Arrivals { expected: 1_000, received: 990, late: 3, duplicates: 20 };
        let packets = packets(&total, 10.0, true);
        assert_eq!((packets.lost, packets.loss_percent), (10, 1.0));
        assert_eq!(packets.delivered_percent, Some(99.0));
        assert_eq!(packets.forwarded_per_second, 101.0);
        assert_eq!(super::packets(&total, 10.0, false).delivered_percent, None);
    }

    #[test]
    fn percentiles_rise_to_the_last_nine() {
        let mut histogram = Histogram::default();
        (1..=10_000).for_each(|value| histogram.record(value));
        let all = percentiles(&histogram);
        assert!(all.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
        let last = all.last().unwrap();
        assert!(last.0 > 0.9998 && last.1 > 9.8, "{last:?}");
        assert!(percentiles(&Histogram::default()).is_empty());
    }

    #[test]
    fn a_crowd_counts_everyone_who_did_not_get_through() {
        let mut crowd = Crowd { asked: 3, ..Crowd::default() };
        crowd.fail("refused".into());
        let mut other = Crowd { asked: 2, ..Crowd::default() };
        other.fail("refused".into());
        crowd.absorb(other);
        let joins = crowd.joins();
        assert_eq!((joins.clients, joins.failed), (5, 5));
        assert!(joins.first_media_ms.is_none());
        assert_eq!(crowd.failures["refused"], 2);
    }

    #[test]
    fn threads_that_started_in_the_window_count_from_zero() {
        let usage = |pairs: &[(&str, u64)]| Usage {
            threads: pairs.iter().map(|(name, ms)| ((*name).into(), Duration::from_millis(*ms))).collect(),
            ..Usage::default()
        };
        let used = threads(&usage(&[("media", 100), ("gone", 7)]), &usage(&[("media", 350), ("new", 20)]));
        assert_eq!(used, BTreeMap::from([("media".into(), 0.25), ("new".into(), 0.02)]));
    }
}
