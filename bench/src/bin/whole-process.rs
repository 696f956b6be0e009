//! Bytes in use for each subscriber of one video and one audio track, in the process that is everything: media, worker,
//! API, broker and store.
//!
//! `cargo run --release -p bench --bin whole-process -- --subscribers 1,100,200`
//!
//! The server is this program again, with an allocator that counts; the clients are here. Every number of subscribers
//! gets a fresh server, and the difference to the first one, which has the histories of the tracks and everything else
//! that is there once, is divided by the difference of the subscribers.

use clap::Parser;
use std::process::ExitCode;

use bench::{allocations, whole};
use switchyard::config::{Role, Settings, Source};
use switchyard::{run, telemetry};

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

#[derive(Parser)]
struct Arguments {
    /// Subscribers, one server after the other.
    #[arg(long, value_delimiter = ',', default_value = "1,100,200")]
    subscribers: Vec<u32>,
    /// More arguments for `switchyard load`.
    #[arg(last = true)]
    load: Vec<String>,
}

#[derive(Parser)]
struct Server {
    #[command(flatten)]
    source: Source,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|first| first == whole::SERVE) {
        return serve(arguments.into_iter().skip(1));
    }
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match runtime.block_on(measure(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("whole-process: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: impl Iterator<Item = String>) -> ExitCode {
    let source = Server::parse_from(arguments).source;
    let settings = Settings::load(Role::AllInOne, source, None).expect("good settings");
    let metrics = telemetry::install(&settings);
    std::thread::spawn(whole::answer);
    match run::run(Role::AllInOne, settings, metrics) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("whole-process: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(arguments: &Arguments) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let load: Vec<&str> = arguments.load.iter().map(String::as_str).collect();
    let mut lines = Vec::new();
    let mut first = None;
    for subscribers in &arguments.subscribers {
        let live = whole::live_with(&program, *subscribers, &load).await?;
        let (least, bytes) = *first.get_or_insert((*subscribers, live));
        let each = (live - bytes) as f64 / 1e3 / f64::from(subscribers.saturating_sub(least).max(1));
        lines.push(format!("| {subscribers} | {:.1} | {each:.0} |", live as f64 / 1e6));
    }
    println!(
        "| subscribers | MB in use | KB for each subscriber more |\n|---|---|---|\n{}",
        lines.join("\n")
    );
    Ok(())
}
