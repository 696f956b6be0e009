//! One line on the terminal that says how far a run is.

use std::io::{IsTerminal as _, Write as _};

const WIDTH: usize = 24;

/// Writes to stderr when that is a terminal, and nothing otherwise.
pub struct Progress {
    is_shown: bool,
}

impl Progress {
    pub fn new(quiet: bool) -> Self {
        Self { is_shown: !quiet && std::io::stderr().is_terminal() }
    }

    /// Replaces the line. `done` is from 0 to 1.
    pub fn show(&self, what: &str, done: f64, note: &str) {
        if self.is_shown {
            let mut stderr = std::io::stderr();
            let _ = write!(stderr, "\r\x1b[K{}", line(what, done, note));
            let _ = stderr.flush();
        }
    }

    pub fn clear(&self) {
        if self.is_shown {
            let mut stderr = std::io::stderr();
            let _ = write!(stderr, "\r\x1b[K");
            let _ = stderr.flush();
        }
    }
}

fn line(what: &str, done: f64, note: &str) -> String {
    let filled = (done.clamp(0.0, 1.0) * WIDTH as f64) as usize;
    format!("{what:<8} [{}{}] {note}", "#".repeat(filled), "-".repeat(WIDTH - filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills_up_and_never_overflows() {
        assert_eq!(line("measure", 0.5, "x"), format!("measure  [{}{}] x", "#".repeat(12), "-".repeat(12)));
        assert_eq!(line("join", 7.0, ""), format!("join     [{}] ", "#".repeat(24)));
    }
}
