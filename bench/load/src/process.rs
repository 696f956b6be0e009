//! Processor time and memory of server processes, from `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// One process at one instant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu: Duration,
    pub resident_bytes: u64,
    /// Processor time of the threads that live, by name.
    pub threads: BTreeMap<String, Duration>,
}

/// # Errors
/// When the process is not there, in words.
pub fn usage(pid: u32) -> Result<Usage, String> {
    let read = |file: &str| {
        fs::read_to_string(format!("/proc/{pid}/{file}")).map_err(|error| format!("process {pid}: {error}"))
    };
    let resident_bytes = resident(&read("status")?).unwrap_or(0);
    let mut usage = Usage { resident_bytes, ..Usage::default() };
    let tasks =
        fs::read_dir(format!("/proc/{pid}/task")).map_err(|error| format!("process {pid}: {error}"))?;
    for task in tasks.filter_map(Result::ok) {
        // A thread may end while it is looked at.
        let file = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let cpu = running(&file("schedstat")).unwrap_or_default();
        usage.cpu += cpu;
        *usage.threads.entry(file("comm").trim().to_owned()).or_default() += cpu;
    }
    Ok(usage)
}

/// `VmRSS: 12345 kB` in `/proc/<pid>/status`.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The first figure of `schedstat`: nanoseconds on a processor.
fn running(schedstat: &str) -> Option<Duration> {
    Some(Duration::from_nanos(schedstat.split(' ').next()?.parse().ok()?))
}

/// What this machine is, for reports.
pub fn machine() -> String {
    let model = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{}, {cores} cores, Linux {}", model.unwrap_or_else(|| "unknown processor".into()), kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let pid = std::process::id();
        let before = usage(pid).unwrap();
        assert!(before.resident_bytes > 100_000 && !before.threads.is_empty());
        let mut sum = 0u64;
        while usage(pid).unwrap().cpu <= before.cpu {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(usage(u32::MAX - 1).unwrap_err().contains("process 4294967294"));
    }

    #[test]
    fn what_the_kernel_writes_is_read() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t   123 kB\n"), Some(125_952));
        assert_eq!(running("1500 20 3\n"), Some(Duration::from_nanos(1_500)));
    }
}
