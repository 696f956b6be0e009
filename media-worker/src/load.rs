//! What this process uses: the figures that placement compares.

use std::time::Instant;

use common::model::WorkerLoad;
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

use crate::media::MediaStats;

/// Gives the figures of one heartbeat.
pub trait MeasureLoad: Send + 'static {
    /// The load since the last call.
    fn measure(&mut self, stats: &MediaStats) -> WorkerLoad;
}

/// Measures the own process between two heartbeats.
pub(crate) struct LoadMeter {
    system: System,
    pid: Pid,
    packets: u64,
    bytes: u64,
    measured_at: Instant,
}

impl LoadMeter {
    pub fn new() -> Self {
        let mut meter = Self {
            system: System::new(),
            pid: Pid::from_u32(std::process::id()),
            packets: 0,
            bytes: 0,
            measured_at: Instant::now(),
        };
        meter.refresh();
        meter
    }

    fn refresh(&mut self) {
        let kind = ProcessRefreshKind::nothing().with_memory().with_cpu().without_tasks();
        self.system.refresh_processes_specifics(ProcessesToUpdate::Some(&[self.pid]), false, kind);
    }
}

impl MeasureLoad for LoadMeter {
    /// Reads `/proc` of this process: well under a millisecond.
    fn measure(&mut self, stats: &MediaStats) -> WorkerLoad {
        self.refresh();
        let elapsed_s = self.measured_at.elapsed().as_secs_f64();
        self.measured_at = Instant::now();
        let packets = stats.packets_in + stats.packets_out;
        let new_packets = packets.saturating_sub(std::mem::replace(&mut self.packets, packets));
        let bytes = stats.bytes_in + stats.bytes_out;
        let new_bytes = bytes.saturating_sub(std::mem::replace(&mut self.bytes, bytes));
        let each_second = |count: u64| if elapsed_s > 0.0 { count as f64 / elapsed_s } else { 0.0 };
        let process = self.system.process(self.pid);
        WorkerLoad {
            memory_bytes: process.map_or(0, |process| clamp(process.memory())),
            cpu: process.map_or(0.0, |process| f64::from(process.cpu_usage()) / 100.0),
            packets_per_second: each_second(new_packets),
            bits_per_second: each_second(new_bytes * 8),
            endpoints: clamp(stats.endpoints),
            pipelines: clamp(stats.pipelines),
            full: stats.is_full,
        }
    }
}

fn clamp(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_this_process() {
        let mut meter = LoadMeter::new();
        let stats = MediaStats {
            packets_in: 10,
            packets_out: 20,
            bytes_out: 2_000,
            endpoints: 3,
            pipelines: 2,
            ..MediaStats::default()
        };
        let load = meter.measure(&stats);
        assert!(load.memory_bytes > 1 << 20, "a Rust test process uses more than 1 MiB: {load:?}");
        assert!(load.packets_per_second > 0.0, "{load:?}");
        let bits_for_each = load.bits_per_second / load.packets_per_second;
        assert!((bits_for_each - 16_000.0 / 30.0).abs() < 1e-6, "{load:?}");
        assert_eq!((load.endpoints, load.pipelines), (3, 2));
        let idle = meter.measure(&stats);
        assert_eq!((idle.packets_per_second, idle.bits_per_second), (0.0, 0.0), "nothing since");
    }
}
