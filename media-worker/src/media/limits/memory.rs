//! How much memory this process uses, and whether that is as much as it may.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// A figure is used this long: clients that come together are not each worth a look into `/proc`.
const FRESH: Duration = Duration::from_millis(100);
/// By default the process may use so many percent of what the machine or the container has.
const DEFAULT_PERCENT: u64 = 90;

/// Measures when it is asked.
pub struct Memory {
    limit_bytes: u64,
    last: Mutex<Measured>,
}

struct Measured {
    system: System,
    pid: Pid,
    /// Resident bytes, and when they were.
    resident: Option<(Instant, u64)>,
}

impl Memory {
    /// `limit_bytes` of 0: nine tenths of what there is.
    pub fn new(limit_bytes: u64) -> Self {
        let mut system = System::new();
        let limit_bytes = if limit_bytes > 0 { limit_bytes } else { available(&mut system) };
        let pid = Pid::from_u32(std::process::id());
        Self { limit_bytes, last: Mutex::new(Measured { system, pid, resident: None }) }
    }

    /// How much of it is used, 0 to 1 and above.
    pub fn share(&self) -> f64 {
        let mut last = self.last.lock().expect("nothing here panics while it holds the lock");
        last.resident(Instant::now()) as f64 / self.limit_bytes as f64
    }

    pub fn is_exceeded(&self) -> bool {
        let mut last = self.last.lock().expect("nothing here panics while it holds the lock");
        last.resident(Instant::now()) > self.limit_bytes
    }
}

impl Measured {
    fn resident(&mut self, now: Instant) -> u64 {
        if let Some((at, bytes)) = self.resident
            && now.saturating_duration_since(at) < FRESH
        {
            return bytes;
        }
        let kind = ProcessRefreshKind::nothing().with_memory().without_tasks();
        self.system.refresh_processes_specifics(ProcessesToUpdate::Some(&[self.pid]), false, kind);
        let bytes = self.system.process(self.pid).map_or(0, sysinfo::Process::memory);
        self.resident = Some((now, bytes));
        bytes
    }
}

/// The default limit: a share of the container's memory, or of the machine's.
fn available(system: &mut System) -> u64 {
    system.refresh_memory();
    let machine = system.total_memory();
    // A system that does not tell has no limit.
    if machine == 0 {
        return u64::MAX;
    }
    let container = system.cgroup_limits().map_or(machine, |limits| limits.total_memory);
    machine.min(container) / 100 * DEFAULT_PERCENT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_larger_than_a_byte_and_smaller_than_the_machine() {
        assert!(Memory::new(1).is_exceeded());
        let memory = Memory::new(0);
        assert!(memory.limit_bytes > 1 << 24, "{}", memory.limit_bytes);
        assert!(!memory.is_exceeded());
        assert!(memory.share() > 0.0 && memory.share() < 1.0, "{}", memory.share());
    }

    #[test]
    fn a_fresh_figure_is_used_again_and_an_old_one_is_not() {
        let memory = Memory::new(u64::MAX);
        let mut last = memory.last.lock().unwrap();
        let now = Instant::now();
        last.resident = Some((now, 7));
        assert_eq!(last.resident(now), 7);
        assert!(last.resident(now + FRESH) > 1 << 20, "a Rust test process uses more than 1 MiB");
    }
}
