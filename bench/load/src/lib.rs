//! `switchyard load`: rooms full of synthetic clients on one machine, and what the server makes of them.
//!
//! ```text
//!   scenario ──▶ signalling (HTTP, WebSocket) ──▶ peer (SDP) ──▶ engine: threads of clients
//!      │                                                            │ socket, STUN, DTLS, SRTP,
//!      └──── report ◀── counters, latencies, /proc ◀────────────────┘ sources, streams
//! ```
//!
//! Every packet carries when it left (`stamp`); its kernel's time of arrival ends the latency. Clients are built from
//! webrtc-rs' DTLS and SRTP, below its peer connection, because a generator that costs more than the server measures itself.
//!
//! | module | is |
//! |---|---|
//! | `options`, `scenario`, `report`, `html`, `plot`, `progress` | what to do, doing it, and what came out |
//! | `signalling`, `peer`, `sdp` | how clients get in, on Switchyard, Janus, WHIP and WHEP |
//! | `engine`, `client`, `socket` | threads, one client, its socket |
//! | `dtls`, `stun`, `rtp` | what it speaks |
//! | `media`, `source`, `stamp` | what it sends |
//! | `receive`, `histogram` | what it makes of what it gets |
//! | `flood` | hostile datagrams beside it |
//! | `process` | the server's processor time and memory |

mod client;
mod dtls;
mod engine;
mod flood;
mod histogram;
mod html;
mod media;
mod options;
mod peer;
mod plot;
mod process;
mod progress;
mod receive;
mod report;
mod rtp;
mod scenario;
mod sdp;
mod signalling;
mod socket;
mod source;
mod stamp;
mod stun;

use std::path::Path;

pub use options::Options;
pub use report::Report;

/// Runs what the command line says, prints the summary and writes the files that were asked for.
///
/// # Errors
/// When the run could not take place or a file cannot be written, in words. Clients that failed are part of the report.
pub async fn run(options: &Options) -> Result<Report, String> {
    let report = scenario::run(options).await?;
    let json = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
    let to_stdout = options.json.as_deref() == Some(Path::new("-"));
    if to_stdout {
        println!("{json}");
    } else {
        print!("{}", report.table());
    }
    let write = |path: &Path, text: &str| {
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    if let Some(path) = options.json.as_deref().filter(|_| !to_stdout) {
        write(path, &json)?;
    }
    if let Some(path) = &options.html {
        write(path, &html::page(&report))?;
    }
    Ok(report)
}
