//! What a run found out: as a structure (JSON) and as a table for the terminal.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::histogram::Histogram;

/// One run. Every time is in the unit that its name ends with.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub label: String,
    /// `switchyard`, `janus` or `whip`.
    pub server: &'static str,
    pub machine: String,
    /// Milliseconds since the Unix epoch.
    pub started_at: u64,
    pub scenario: Scenario,
    /// The measured time.
    pub window_seconds: f64,
    pub packets: Packets,
    /// One way, from the publisher's `send` to the subscriber's kernel; of the clients that were there when the window began.
    pub latency_ms: Option<Quantiles>,
    /// The same as shares of the packets with the latency that they do not exceed, for plots.
    pub latency_percentiles: Vec<(f64, f64)>,
    pub joins: Joins,
    /// Clients of the join storm.
    pub storm: Option<Joins>,
    /// Latency of packets to the clients of the join storm.
    pub storm_latency_ms: Option<Quantiles>,
    pub processes: Vec<Process>,
    /// All processes together, for each packet that arrived at a client in the window.
    pub cpu_us_per_forwarded_packet: Option<f64>,
    /// Growth of all processes per receiving client.
    pub memory_bytes_per_subscriber: Option<f64>,
    pub flood: Option<FloodReport>,
    pub generator: Generator,
    pub seconds: Vec<Second>,
    /// Why clients did not get what they should, with how many.
    pub failures: BTreeMap<String, u32>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Scenario {
    pub rooms: u32,
    pub publishers: u32,
    pub subscribers: u32,
    pub parties: u32,
    pub storm: u32,
    pub video_bps: Option<u32>,
    pub fps: u32,
    pub codec: crate::media::VideoCodec,
    pub audio_bps: Option<u32>,
    pub simulcast: bool,
    /// What was negotiated, with how many clients.
    pub srtp_profiles: BTreeMap<String, u32>,
}

/// In the window, of all clients.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Packets {
    pub sent: u64,
    /// Received by clients: what the server forwarded, repairs included.
    pub forwarded: u64,
    pub forwarded_per_second: f64,
    pub forwarded_mbit_per_second: f64,
    /// By sequence number.
    pub expected: u64,
    pub lost: u64,
    pub loss_percent: f64,
    /// What arrived of what a server owes that forwards every sent packet to everyone in its room; not known with simulcast
    /// or during a storm.
    pub delivered_percent: Option<f64>,
    /// Came late (reordered or repaired), and is not lost.
    pub late: u64,
    pub duplicates: u64,
    pub repairs_asked: u64,
    pub repairs_received: u64,
    pub repairs_sent: u64,
    pub keyframes_sent: u64,
    pub keyframe_requests_received: u64,
    pub keyframe_requests_sent: u64,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct Quantiles {
    pub count: u64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl Quantiles {
    /// Of a histogram in thousandths of the unit.
    pub fn of(histogram: &Histogram) -> Option<Self> {
        let at = |quantile| histogram.quantile(quantile).map(|value| value as f64 / 1_000.0);
        Some(Self {
            count: histogram.count(),
            mean: histogram.mean()? / 1_000.0,
            p50: at(0.5)?,
            p90: at(0.9)?,
            p99: at(0.99)?,
            max: histogram.max()? as f64 / 1_000.0,
        })
    }
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Joins {
    pub clients: u32,
    /// Refused, failed or without all media in time.
    pub failed: u32,
    /// From the start of a join to keys.
    pub connected_ms: Option<Quantiles>,
    /// … to the first media packet.
    pub first_media_ms: Option<Quantiles>,
    /// … to a packet of every track.
    pub all_media_ms: Option<Quantiles>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Process {
    pub pid: u32,
    pub cpu_seconds: f64,
    pub cpu_percent: f64,
    /// Before the first client, with everybody sending, and at the end of the window.
    pub resident_start: u64,
    pub resident_publishing: u64,
    pub resident_end: u64,
    pub threads_cpu_seconds: BTreeMap<String, f64>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct FloodReport {
    pub kind: crate::options::Flood,
    pub sent: u64,
    pub per_second: f64,
}

/// How the generator itself did: with overflow or near 100 % it measured itself.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Generator {
    pub threads: u32,
    pub busy_percent: f64,
    pub overflow: u64,
    pub unsent: u64,
    pub checked: u64,
    pub unreadable: u64,
    pub misrouted: u64,
    pub unknown: u64,
}

/// One second of the window.
#[derive(Debug, Clone, Serialize)]
pub struct Second {
    pub at: f64,
    pub forwarded_per_second: f64,
    pub lost: u64,
    pub latency_p50_ms: Option<f64>,
    pub latency_p99_ms: Option<f64>,
    pub cpu_percent: Option<f64>,
    pub resident_bytes: Option<u64>,
    pub clients_with_media: u32,
}

impl Report {
    /// The summary for the terminal.
    pub fn table(&self) -> String {
        let mut out = String::new();
        self.render(&mut out).expect("writing to a String does not fail");
        out
    }

    fn render(&self, out: &mut String) -> std::fmt::Result {
        let Scenario { rooms, publishers, subscribers, parties, .. } = &self.scenario;
        let mut row = |name: &str, value: String| writeln!(out, "  {name:<34} {value}");
        row("server", format!("{} {}", self.server, self.label))?;
        row("rooms × (send, receive, both)", format!("{rooms} × ({publishers}, {subscribers}, {parties})"))?;
        let profiles: Vec<String> =
            self.scenario.srtp_profiles.iter().map(|(name, count)| format!("{name} × {count}")).collect();
        row("SRTP", profiles.join(", "))?;
        row("measured", format!("{:.1} s", self.window_seconds))?;
        let packets = &self.packets;
        row("packets sent", format!("{}", packets.sent))?;
        let rate =
            format!("{:.0}/s, {:.1} Mbit/s", packets.forwarded_per_second, packets.forwarded_mbit_per_second);
        row("packets forwarded", format!("{} ({rate})", packets.forwarded))?;
        row("lost", format!("{} ({:.4} %)", packets.lost, packets.loss_percent))?;
        if let Some(delivered) = packets.delivered_percent {
            row("delivered of what was sent", format!("{delivered:.3} %"))?;
        }
        row(
            "repairs asked / received, late",
            format!("{} / {}, {}", packets.repairs_asked, packets.repairs_received, packets.late),
        )?;
        row(
            "keyframes (asked for)",
            format!("{} ({})", packets.keyframes_sent, packets.keyframe_requests_received),
        )?;
        let latency = |it: &Quantiles| {
            format!("{:.2} / {:.2} / {:.2} ms (max {:.2}, of {})", it.p50, it.p90, it.p99, it.max, it.count)
        };
        row("latency p50 / p90 / p99", self.latency_ms.as_ref().map_or("none measured".into(), latency))?;
        let times = |it: &Quantiles| format!("{:.0} / {:.0} / {:.0} ms", it.p50, it.p99, it.max);
        for (name, joins) in [("join", Some(&self.joins)), ("storm", self.storm.as_ref())] {
            let Some(joins) = joins else { continue };
            row(&format!("{name}: clients (failed)"), format!("{} ({})", joins.clients, joins.failed))?;
            for (what, quantiles) in [
                ("connected", joins.connected_ms),
                ("first media", joins.first_media_ms),
                ("all media", joins.all_media_ms),
            ] {
                if let Some(quantiles) = quantiles {
                    row(&format!("{name} → {what} p50 / p99 / max"), times(&quantiles))?;
                }
            }
        }
        if let Some(it) = &self.storm_latency_ms {
            row("storm: latency p50 / p90 / p99", latency(it))?;
        }
        for process in &self.processes {
            row(
                &format!("process {}", process.pid),
                format!("{:.1} % CPU, {:.1} MB", process.cpu_percent, process.resident_end as f64 / 1e6),
            )?;
            let mut threads: Vec<(&String, &f64)> = process.threads_cpu_seconds.iter().collect();
            threads.sort_by(|a, b| b.1.total_cmp(a.1));
            for (name, seconds) in threads.iter().take(6).filter(|(_, seconds)| **seconds > 0.0005) {
                let percent = *seconds / self.window_seconds * 100.0;
                row(&format!("  {name}"), format!("{percent:.1} % CPU"))?;
            }
        }
        if let Some(cost) = self.cpu_us_per_forwarded_packet {
            row("CPU per forwarded packet", format!("{cost:.2} µs"))?;
        }
        if let Some(bytes) = self.memory_bytes_per_subscriber {
            row("memory per receiving client", format!("{:.1} KB", bytes / 1e3))?;
        }
        if let Some(flood) = &self.flood {
            row("flood", format!("{:?}, {} ({:.0}/s)", flood.kind, flood.sent, flood.per_second))?;
        }
        let generator = &self.generator;
        row(
            "generator",
            format!(
                "{:.0} % busy of {} threads, {} overflows, {} unsent",
                generator.busy_percent, generator.threads, generator.overflow, generator.unsent
            ),
        )?;
        row(
            "checked packets",
            format!(
                "{} ({} unreadable, {} misrouted); the others by their headers",
                generator.checked, generator.unreadable, generator.misrouted
            ),
        )?;
        for (failure, count) in &self.failures {
            row("failed", format!("{count} × {failure}"))?;
        }
        Ok(())
    }
}
