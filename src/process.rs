//! What this process uses, from `/proc/self`; under the names that Prometheus' own clients have for it.

use common::catalogue::Metric;
use common::catalogue::Values::Named;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What every part shows. On other systems than Linux these stay 0.
pub const METRICS: &[Metric] = &[
    Metric::gauge("process_resident_memory_bytes", &[], "memory that is in RAM"),
    Metric::gauge("process_virtual_memory_bytes", &[], "address space"),
    Metric::counter(
        "process_cpu_seconds_total",
        &[],
        "time on a CPU, in whole seconds, of user and system together",
    ),
    Metric::gauge("process_threads", &[], "threads"),
    Metric::gauge("process_open_fds", &[], "open file descriptors"),
    Metric::gauge("process_max_fds", &[], "how many may be open"),
    Metric::gauge("process_start_time_seconds", &[], "when the process started, in seconds since 1970"),
    Metric::gauge("switchyard_build_info", &[("version", Named("of this build"))], "1, with the version"),
];

/// How many descriptors this process may have open.
#[cfg(target_os = "linux")]
pub fn open_files_limit() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes into the given structure, which is large enough.
    let done = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    (done == 0).then_some(limit.rlim_cur)
}

/// Notes what the process uses now. Takes well under a millisecond; called for each scrape.
pub fn note() {
    metrics::gauge!("switchyard_build_info", "version" => VERSION).set(1.0);
    #[cfg(target_os = "linux")]
    linux::note();
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;

    pub(super) fn note() {
        if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(parse) {
            let ticks = setting(libc::_SC_CLK_TCK);
            metrics::gauge!("process_resident_memory_bytes")
                .set(stat.resident_pages * setting(libc::_SC_PAGESIZE));
            metrics::gauge!("process_virtual_memory_bytes").set(stat.virtual_bytes);
            metrics::counter!("process_cpu_seconds_total").absolute((stat.cpu_ticks / ticks) as u64);
            metrics::gauge!("process_threads").set(stat.threads);
            if let Some(booted) = boot_time() {
                metrics::gauge!("process_start_time_seconds").set(booted + stat.start_ticks / ticks);
            }
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // Without the one that looks.
            metrics::gauge!("process_open_fds").set(open.count().saturating_sub(1) as f64);
        }
        if let Some(limit) = super::open_files_limit() {
            metrics::gauge!("process_max_fds").set(limit as f64);
        }
    }

    /// Of `/proc/self/stat` (proc_pid_stat(5)).
    #[derive(Debug, PartialEq)]
    pub(super) struct Stat {
        cpu_ticks: f64,
        threads: f64,
        start_ticks: f64,
        virtual_bytes: f64,
        resident_pages: f64,
    }

    /// The second field is the program's name in parentheses, which may contain anything.
    pub(super) fn parse(text: &str) -> Option<Stat> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        // The first of these is field 3.
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Stat {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }

    fn boot_time() -> Option<f64> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
    }

    fn setting(name: libc::c_int) -> f64 {
        // SAFETY: takes and returns numbers only.
        let value = unsafe { libc::sysconf(name) };
        if value > 0 { value as f64 } else { 1.0 }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_name_with_spaces_and_parentheses_shifts_nothing() {
            let text = "17 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 110 120 0 0 20 0 9 0 4242 1000000 250 1 2";
            let stat = Stat {
                cpu_ticks: 230.0,
                threads: 9.0,
                start_ticks: 4242.0,
                virtual_bytes: 1_000_000.0,
                resident_pages: 250.0,
            };
            assert_eq!(parse(text), Some(stat));
            assert_eq!(parse("17 (a) S 1"), None);
        }

        #[test]
        fn the_own_process_can_be_read() {
            let stat = parse(&fs::read_to_string("/proc/self/stat").unwrap()).unwrap();
            assert!(stat.threads >= 1.0 && stat.resident_pages > 100.0, "{stat:?}");
            assert!(boot_time().unwrap() > 1e9 && super::super::open_files_limit().unwrap() >= 3);
        }
    }
}
