//! What happened in a schedule, in order: told when one seed is replayed, and what the proof of replay compares.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::Duration;

/// One line for each thing that happened; off unless somebody wants to read it, because text costs more than the rest.
pub struct Trace {
    lines: Option<Mutex<Vec<String>>>,
}

impl Trace {
    pub fn new(wanted: bool) -> Self {
        Self { lines: wanted.then(Mutex::default) }
    }

    pub fn note(&self, at: Duration, who: &str, what: impl FnOnce() -> String) {
        if let Some(lines) = &self.lines {
            let mut line = String::new();
            let _ = write!(line, "{:>8.3} s  {who:<10} {}", at.as_secs_f64(), what());
            lines.lock().expect("no panic under this lock").push(line);
        }
    }

    pub fn take(&self) -> Vec<String> {
        let lines = self.lines.as_ref().map(|lines| lines.lock().expect("no panic under this lock"));
        lines.map(|mut lines| std::mem::take(&mut *lines)).unwrap_or_default()
    }
}
